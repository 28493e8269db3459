"""Trainings on Lightning: optimisers, learning rates, random streams, shuffled batches and checkpoints."""

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset

from gencls.core.streams.seeds import stream_seed
from gencls.zoo.training.base import Moment, NetworkTraining


class LightningTraining(lightning.LightningModule):
    """A training as Lightning runs it.

    Each step begins with its own seed. A training that was stopped and resumed therefore ends with the same weights as one that
    was not.

    Args:
        learner: the network and how it learns.
        seed: the seed of the training.
        description: all settings in words; a checkpoint with another description is refused.

    Attributes:
        planned: planned numbers of epochs, one for each time the training was begun or resumed; the last is this run's.
    """

    planned: tuple[int, ...] = ()

    def __init__(self, learner: NetworkTraining, *, seed: int, description: str) -> None:
        super().__init__()
        self.automatic_optimization = False  # a learner may have several optimisers
        self.learner = learner
        self.seed = seed
        self.description = description

    def configure_optimizers(self) -> Any:
        """The learner's optimisers, with a cosine schedule over all steps unless the rate is constant."""
        optimizers = self.learner.optimizers()
        if self.learner.constant_rate:
            return optimizers
        total = int(self.trainer.estimated_stepping_batches)
        factor = cosine(total, restart_step(self.learner.restart_epochs, total / (self.trainer.max_epochs or 1)))
        return optimizers, [torch.optim.lr_scheduler.LambdaLR(optimizer, factor) for optimizer in optimizers]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note the settings for :func:`gencls.zoo.training.resume.check_resumable`."""
        checkpoint["description"] = self.description
        checkpoint["planned_epochs"] = list(self.planned)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Begin the random stream of this step. If the rate starts once more, Adam forgets the gradients of the other loss."""
        torch.manual_seed(stream_seed(self.seed, "step", self.global_step))
        restart = self.learner.restart_epochs
        if restart > 0 and self.global_step == restart_step(restart, self.trainer.num_training_batches):
            for optimizer in self._listed(self.optimizers(use_pl_optimizer=False)):
                optimizer.state.clear()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Take one step of each optimiser on images (N, C, H, W) in [0, 1] and labels (N,)."""
        images, labels = batch
        at = Moment(self.global_step, self.epochs_passed(batch_index), self.trainer.max_epochs or 1)
        figures: dict[str, Tensor] = {}
        optimizers = self._listed(self.optimizers())
        in_turn = [optimizers[place] for place in self.learner.turns or range(len(optimizers))]
        for optimizer, (loss, shown) in zip(in_turn, self.learner.steps(images, labels, at), strict=True):
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            figures |= shown
        for schedule in self._listed(self.lr_schedulers()):
            schedule.step()
        self.log_dict(figures, prog_bar=True, batch_size=len(images))

    def epochs_passed(self, batch_index: int) -> float:
        """Epochs since the start, with the fraction of the current one."""
        return self.current_epoch + batch_index / self.trainer.num_training_batches

    @staticmethod
    def _listed(one_or_several: Any) -> list[Any]:
        """Make a list of Lightning's answer: one thing alone, a list of several, or None."""
        if one_or_several is None:
            return []
        return one_or_several if isinstance(one_or_several, list) else [one_or_several]


def cosine(total: int, restart: int = 0) -> Callable[[int], float]:
    """Map the number of a step to a factor of the learning rate: a cosine from 1 to 0, and once more from a restart on."""

    def factor(step: int) -> float:
        share = step / restart if step < restart else (step - restart) / (total - restart)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))

    return factor


def restart_step(epochs: float, steps_per_epoch: float) -> int:
    """The first step after this many epochs. It is rounded first, because a share of the epochs is no exact number."""
    return math.ceil(round(epochs * steps_per_epoch, 6))


class ShuffledBatches(Sampler[list[int]]):
    """Index lists of one shuffled pass.

    The order depends only on the seed and the epoch, so a resumed training repeats it. The last incomplete batch is dropped,
    because batch norm is unreliable on a few images. Fewer images than a batch has make one batch.
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
    """Batches of images (N, C, H, W) and labels (N,), each cut from the tensors by one indexing operation."""
    sampler = ShuffledBatches(len(labels), batch_size, seed)
    return DataLoader(TensorDataset(images, labels), sampler=sampler, batch_size=None)


def trainer_of(epochs: int, **settings: Any) -> lightning.Trainer:
    """Make the trainer that runs a training on one device; ``settings`` are those of Lightning's Trainer."""
    return lightning.Trainer(max_epochs=epochs, accelerator="auto", devices=1, enable_model_summary=False, **settings)


@contextmanager
def without_advice() -> Iterator[None]:
    """Silence Lightning's advice: batches are cut from tensors in memory, so worker processes would only cost time."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            yield
    finally:
        logger.setLevel(level)
