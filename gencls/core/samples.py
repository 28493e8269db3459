"""Brings people's samples into the one form that all other code takes.

A source of samples is a pair (images, labels), an object that has both as attributes, a torch ``Dataset``, a ``DataLoader``, or
anything that gives pairs (image, label) or batches (images, labels) one after another. :mod:`gencls.core.foreign` says how
images and labels themselves are understood.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import data
from torch.utils.data import DataLoader, Dataset, IterableDataset

from gencls.core.errors import GenclsError
from gencls.core.foreign import as_images, as_samples, in_one_tensor, is_picture, rank_of
from gencls.core.words import with_article

__all__ = ["batches_of", "samples_of"]

_GROUP = 256
"""Images per batch, if the source does not say."""

_LOOKS = 8
"""The number of first images that must be the same at a second reading of a data set."""

_KINDS = "a pair (images, labels), a Dataset, a DataLoader, or pairs (image, label) one after another"
_PATHS = (str, bytes, os.PathLike)
_RANDOM = (data.RandomSampler, data.SubsetRandomSampler, data.WeightedRandomSampler)


def samples_of(source: object) -> tuple[Tensor, Tensor]:
    """Read all samples of a source at once, in the form of :func:`gencls.core.foreign.as_samples`.

    A tensor that has this form already comes back as is, and the result for such an array of numpy shares its memory.

    Returns:
        Images (N, C, H, W), float32 or float64 in [0, 1], and labels int64 (N,).

    Raises:
        GenclsError: these are no images or labels, there are none, values lie outside the range, or the source gives its
            samples in random order, or others at each reading: a study could not resume with them.
    """
    pair = _pair(source)
    if pair is not None:
        return as_samples(*pair)
    with torch.random.fork_rng(devices=[]):  # a DataLoader draws a number, even if it does not shuffle
        _check_repeats(source)
        parts = list(batches_of(source))
    if not parts:
        raise GenclsError(f"images: expected at least one image, got an empty {type(source).__name__}")
    if len(parts) == 1:
        return parts[0]
    return in_one_tensor([part for part, _ in parts], torch.cat), torch.cat([part for _, part in parts])


def batches_of(source: object) -> Iterator[tuple[Tensor, Tensor]]:
    """Read the samples of :func:`samples_of` in the batches of the source, or in batches of 256 if it has none.

    The source is read once, and may give its samples in any order.
    """
    pair = _pair(source)
    if pair is not None:
        images, labels = as_samples(*pair)
        yield from zip(images.split(_GROUP), labels.split(_GROUP), strict=True)
        return
    singles: list[tuple[object, object]] = []
    for number, item in enumerate(_items(source)):
        image, label = _sample(item, number)
        if rank_of(label) == 0 or (isinstance(source, Dataset) and rank_of(image) < 4):
            singles.append((image, label))
        else:
            yield as_samples(image, label)
        if len(singles) == _GROUP:
            yield _together(singles)
            singles = []
    if singles:
        yield _together(singles)


def _together(samples: list[tuple[object, object]]) -> tuple[Tensor, Tensor]:
    return as_samples([image for image, _ in samples], [label for _, label in samples])


def _pair(source: Any) -> tuple[object, object] | None:
    """Images and labels, if the source consists of these; None if it has to be read item by item."""
    if isinstance(source, (tuple, list)) and len(source) == 2 and rank_of(source[1]) <= 2:
        return source[0], source[1]  # the second of two samples or batches has an image, and so a higher rank
    read_by_item = isinstance(source, (Dataset, Iterable))  # such a class may change its images when they are read
    if not read_by_item and hasattr(source, "images") and hasattr(source, "labels"):
        return source.images, source.labels
    return None


def _items(source: Any) -> Iterator[object]:
    if isinstance(source, _PATHS):
        path = os.fsdecode(source)
        raise GenclsError(f"samples: expected {_KINDS}, got the path {path!r}; load it with gencls.zoo.load_data")
    if isinstance(source, (Tensor, np.ndarray, Mapping)) or is_picture(source):
        raise GenclsError(
            f"samples: expected {_KINDS}, got {with_article(type(source).__name__)} alone; give images and labels"
        )
    if isinstance(source, Dataset) and not isinstance(source, IterableDataset):
        return (source[position] for position in range(_length(source)))
    if isinstance(source, DataLoader):
        _check_whole(source)
    if not isinstance(source, Iterable):
        raise GenclsError(f"samples: expected {_KINDS}, got {type(source).__name__}")
    return iter(source)


def _length(source: Any) -> int:
    try:
        return len(source)
    except (TypeError, NotImplementedError):
        name = type(source).__name__
        raise GenclsError(f"samples: expected a Dataset with a length, got {name}, which has no __len__") from None


def _sample(item: object, number: int) -> tuple[object, object]:
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    got = type(item).__name__
    if isinstance(item, (tuple, list)):
        got = f"{with_article(got)} of {len(item)}"
    if isinstance(item, Mapping):
        got = f"{with_article(got)} with {', '.join(map(str, item))}"
    raise GenclsError(f"samples: expected pairs (image, label), got {got} as item {number}")


def _check_whole(loader: "DataLoader[Any]") -> None:
    """Refuse a loader that leaves samples out without saying so."""
    if not loader.drop_last or not loader.batch_size or isinstance(loader.dataset, IterableDataset):
        return
    if left := _length(loader.sampler) % loader.batch_size:
        raise GenclsError(
            f"samples: expected all samples, got a DataLoader that drops the last {left}; leave out drop_last=True, or give a "
            "Subset"
        )


def _shuffles(loader: DataLoader[Any]) -> bool:
    if isinstance(loader.dataset, IterableDataset):
        return False
    order = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    drawn = isinstance(getattr(order, "sampler", order), _RANDOM)
    return drawn or list(order) != list(order)


def _check_repeats(source: Any) -> None:
    """Refuse a source whose samples, or their order, differ from one reading to the next."""
    dataset = source
    if isinstance(source, DataLoader):
        if _shuffles(source):
            raise GenclsError(
                "samples: expected the same order at each reading, got a DataLoader that shuffles; leave out shuffle=True, or "
                "give its dataset"
            )
        dataset = source.dataset
    if not isinstance(dataset, Dataset) or isinstance(dataset, IterableDataset):
        return
    for position in range(min(_LOOKS, _length(dataset))):
        first, again = (as_images([_sample(dataset[position], position)[0]]) for _ in range(2))
        if not torch.equal(first.nan_to_num(), again.nan_to_num()):
            raise GenclsError(
                f"samples: expected the same image at each reading, got another one as item {position}; leave out random "
                "augmentation"
            )
