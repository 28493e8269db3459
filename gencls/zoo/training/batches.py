"""Shuffled batches of tensors."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset

from gencls.core.streams.seeds import stream_seed


class ShuffledBatches(Sampler[list[int]]):
    """Index lists of one shuffled pass.

    The order depends on the seed and the epoch only, so that a resumed training repeats it. The last incomplete batch
    is dropped: batch norm is unreliable on a few images.

    Args:
        count: number of images.
        batch_size: images per batch; fewer images than that make one batch.
        seed: of the training.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count = count
        self.batch_size = min(batch_size, count)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; Lightning calls it before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(stream_seed(self.seed, "order", self.epoch))
        order = torch.randperm(self.count, generator=generator)
        for batch in order[: len(self) * self.batch_size].split(self.batch_size):
            yield batch.tolist()


def batch_loader(images: Tensor, labels: Tensor, *, batch_size: int, seed: int) -> "DataLoader[tuple[Tensor, ...]]":
    """Batches (images, labels), each cut from the tensors by one indexing operation.

    Args:
        images: (N, C, H, W).
        labels: (N,).
        batch_size: images per batch.
        seed: of the training.
    """
    sampler = ShuffledBatches(len(labels), batch_size, seed)
    return DataLoader(TensorDataset(images, labels), sampler=sampler, batch_size=None)
