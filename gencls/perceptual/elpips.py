"""A distance averaged over random transformations of the images."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from gencls.core import Embedding, GenclsError, ImageDistance, checked, stream_seed
from gencls.core.memory import is_out_of_memory

__all__ = ["ELPIPS"]

_SMALLEST = 64
"""Pixels that a reduction leaves at least."""

_ORDERS = tuple(permutations(range(3)))
"""The orders of three colours."""


class ELPIPS(ImageDistance):
    """The mean of a distance over S random transformations, each applied to both images alike: 1/S sum_s D(T_s x, T_s x').

    A transformation is: a reduction to a whole fraction of the size (mean of i x i pixels, i with probability ~ 1/i^2, as long
    as 64 pixels are left); a shift by up to ``offset`` pixels, with mirrored margins; one of the four flips; a swap of the
    axes; a permutation of the colours; a factor in [0.2, 1] for each colour; and dropout of what the network's convolutions
    take, as in the authors' code: of the images and of all maps that a convolution reads, not of what it returns.

    Dropout reaches every call of ``torch.conv2d`` while the distance embeds, so those of ``nn.Conv2d`` too. It does not reach
    depthwise, transposed, 1-D and 3-D convolutions and linear layers, which VGG-16, AlexNet and SqueezeNet do not have before
    their last map. A mask is one for all images of a batch, so that it is that of both images of a pair.

    The S transformations are drawn once, from ``seed``, when the distance is made. All images of all calls meet the same ones,
    and :meth:`redrawn` makes a distance with others. So the distance is a function of the two images: it is zero on itself,
    an embedding that was cached stays comparable with all that come later, and the steps of an inner optimisation descend one
    objective. Draws of each call's own would force the fixed image through the network again at every step. The price is that
    an optimiser may fit these S transformations; more of them leave it less room. Between draws the flips, colours and
    permutations are stratified, as the authors' code does within a batch. The embedding holds those of all transformed
    images one after another; it takes S times the memory and time.

    Source: Kettunen et al. 2019, arXiv:1906.03973, and their code (GitHub mkettune/elpips). They draw anew for every call and
    pair, and use a VGG-16 with mean pooling and learned weights for 14 maps, which no package carries. Here any distance is
    averaged: ``LPIPS`` with VGG-16 is the nearest. So a table names what is averaged, as :func:`gencls.perceptual.title_of`
    does.

    Args:
        distance: the distance, such as :class:`LPIPS`. Rescale images here, not in it: it would undo the transformations.
        samples: the number S of transformations.
        seed: the seed of the transformations.
        offset: the largest shift in pixels; smaller where images have not as many pixels.
        dropout: the share of a convolution's inputs that are zeroed, in [0, 1).
        size: height and width to which images are rescaled before they are transformed, bilinearly; None leaves them.
        keep_size: whether transformed images have the size that they had before, for networks that take one size only. They are
            not reduced then, and shifted ones are cut; by default they grow by ``offset`` pixels, as in the authors' code.

    Raises:
        GenclsError: a setting is outside its range; images have neither 1 nor 3 channels; without ``keep_size``, the distance
            takes images of one size only.
    """

    @checked
    def __init__(
        self,
        distance: ImageDistance,
        *,
        samples: int = 8,
        seed: int = 0,
        offset: int = 7,
        dropout: float = 0.01,
        size: int | None = None,
        keep_size: bool = False,
    ) -> None:
        super().__init__()
        for name, value, least in (("samples", samples, 1), ("offset", offset, 0), ("size", 1 if size is None else size, 1)):
            if value < least:
                raise GenclsError(f"ELPIPS: expected {name} >= {least}, got {value}")
        if not 0 <= dropout < 1:
            raise GenclsError(f"ELPIPS: expected dropout in [0, 1), got {dropout}")
        self.distance, self.samples, self.seed = distance, samples, seed
        self.offset, self.dropout, self.size, self.keep_size = offset, dropout, size, keep_size

    def redrawn(self, seed: int) -> Self:
        """The same distance with other transformations; it shares the network."""
        same: dict[str, Any] = {name: getattr(self, name) for name in ("samples", "offset", "dropout", "size", "keep_size")}
        return type(self)(self.distance, seed=seed, **same)

    def extra_repr(self) -> str:
        """The settings."""
        settings = f"samples={self.samples}, seed={self.seed}, offset={self.offset}, dropout={self.dropout}"
        return f"{settings}, size={self.size}, keep_size={self.keep_size}"

    def embed(self, images: Tensor) -> Embedding:
        """The embeddings of all S transformed images, one after another."""
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise GenclsError(f"ELPIPS: expected images (N, C, H, W) with 1 or 3 channels, got {tuple(images.shape)}")
        if self.size is not None:
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", align_corners=False)
        parts: list[Tensor] = []
        for draw in _drawn(self.samples, self.seed):
            transformed = draw.apply(images, self.offset, self.keep_size)
            try:
                with _Dropout(self.dropout, draw.seed):
                    parts += self.distance.embed(transformed)
            except (GenclsError, RuntimeError) as error:
                if self._takes_one_size(images, transformed, error):
                    before, after = (" x ".join(map(str, some.shape[-2:])) for some in (images, transformed))
                    raise GenclsError(
                        f"ELPIPS: expected a distance that takes transformed images too, of {after} pixels, got one that takes "
                        f"those of {before} pixels alone; set keep_size=True (its error: {error})"
                    ) from error
                raise
        return tuple(parts)

    def _takes_one_size(self, images: Tensor, transformed: Tensor, error: Exception) -> bool:
        """Whether the distance has failed because of the size of the transformed images, which ``keep_size`` would mend."""
        height, width = images.shape[-2:]
        if self.keep_size or height != width or transformed.shape == images.shape or is_out_of_memory(error):
            return False
        try:
            with torch.no_grad():
                self.distance.embed(images)
        except (GenclsError, RuntimeError):
            return False
        return True

    def compare(self, first: Embedding, second: Embedding) -> Tensor:
        """Distances >= 0, over the leading dimensions of both."""
        each = len(first) // self.samples
        ends = range(0, len(first), each)
        found = [self.distance.compare(first[start : start + each], second[start : start + each]) for start in ends]
        return sum(found[1:], found[0]) / self.samples


@dataclass(frozen=True)
class _Transformation:
    """One transformation of images of any size; numbers in [0, 1) are shares of what an image allows.

    Attributes:
        scale: tells the scale.
        corner: tells where the blocks of the reduction begin, down and right.
        shift: tells the shift, down and right.
        flip: 0 none, 1 upside down, 2 left to right, 3 both.
        swap: whether height and width change places.
        colours: the order of the three colours.
        factors: factors of the three colours; the first is that of grey images.
        seed: the seed of the dropout.
    """

    scale: float
    corner: tuple[float, float]
    shift: tuple[float, float]
    flip: int
    swap: bool
    colours: tuple[int, ...]
    factors: tuple[float, ...]
    seed: int

    def apply(self, images: Tensor, offset: int, keep_size: bool = False) -> Tensor:
        """Transform images (N, C, H, W) in [0, 1], C = 1 or 3."""
        images = _shifted(images if keep_size else self._reduced(images), self.shift, offset, keep_size)
        images = images.flip([axis for axis, bit in ((-2, 1), (-1, 2)) if self.flip & bit])
        images = images.transpose(-1, -2) if self.swap else images
        images = images[:, list(self.colours)] if images.shape[1] == 3 else images
        factors = images.new_tensor(self.factors[: images.shape[1]])
        return images * factors[:, None, None]

    def _reduced(self, images: Tensor) -> Tensor:
        level = _level(self.scale, max(1, min(images.shape[-2:]) // _SMALLEST))
        if level == 1:
            return images
        margins = []
        for length, share in zip(images.shape[-2:], self.corner, strict=True):
            before, whole = int(share * level), (length + 2 * (level - 1)) // level * level
            margins.append((before, whole - length - before))
        (top, bottom), (left, right) = margins
        return F.avg_pool2d(F.pad(images, (left, right, top, bottom), mode="reflect"), level)


def _level(share: float, levels: int) -> int:
    """The level whose part of [0, 1) holds the share; level i has a part ~ 1/i^2."""
    weights = torch.arange(1, levels + 1, dtype=torch.float64).pow(-2).cumsum(0)
    return min(int((weights <= share * weights[-1]).sum()) + 1, levels)


def _shifted(images: Tensor, shares: tuple[float, float], offset: int, keep_size: bool) -> Tensor:
    """All images with mirrored margins, ``offset`` pixels in each direction together, cut from both sides to keep the size."""
    height, width = images.shape[-2:]
    margins = []
    for length, share in zip(images.shape[-2:], shares, strict=True):
        most = min(offset, length - 1)
        after = int(share * (most + 1))
        margins.append((most - after, after))
    (top, bottom), (left, right) = margins
    grown = F.pad(images, (left, right, top, bottom), mode="reflect")
    if not keep_size:
        return grown
    up, across = (top + bottom) // 2, (left + right) // 2
    return grown[..., up : up + height, across : across + width]


@lru_cache(maxsize=64)
def _drawn(samples: int, seed: int) -> tuple[_Transformation, ...]:
    """Draw the transformations of a seed; flips, orders of colours and factors fill their ranges evenly."""
    generator = torch.Generator().manual_seed(stream_seed("elpips", seed))

    def uniform(count: int) -> Tensor:
        return torch.rand(samples, count, generator=generator, dtype=torch.float64)

    def shuffled(count: int) -> Tensor:
        """Numbers 0 .. count - 1, each as often as any other up to one."""
        rest = torch.randperm(samples, generator=generator)
        return (torch.arange(samples) + int(torch.randint(count, (), generator=generator)))[rest] % count

    places = torch.stack([torch.randperm(samples, generator=generator) for _ in range(3)], 1)
    factors = 0.2 + 0.8 * (places + uniform(3)) / samples
    shares, flips, orders = uniform(6), shuffled(4), shuffled(len(_ORDERS))
    return tuple(
        _Transformation(
            scale=float(share[0]),
            corner=(float(share[1]), float(share[2])),
            shift=(float(share[3]), float(share[4])),
            flip=int(flip),
            swap=bool(share[5] < 0.5),
            colours=_ORDERS[int(order)],
            factors=tuple(factor.tolist()),
            seed=stream_seed("elpips", seed, index),
        )
        for index, (share, flip, order, factor) in enumerate(zip(shares, flips, orders, factors, strict=True))
    )


class _Dropout(TorchFunctionMode):
    """Zero a share of the inputs of each convolution inside the block, the same for all images, and scale the rest up."""

    def __init__(self, share: float, seed: int) -> None:
        super().__init__()
        self.share, self.seed, self.count = share, seed, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        given = {**dict(zip(("input", "weight"), args, strict=False)), **kwargs}
        if func is F.conv2d and self.share and not _depthwise(given["input"], given["weight"]):
            maps = given["input"]
            mask = _mask(self.seed, self.count, tuple(maps.shape[1:]), self.share, maps.device)
            self.count += 1
            kept = maps * mask / (1 - self.share)
            args, kwargs = (args and (kept, *args[1:]), kwargs if args else {**kwargs, "input": kept})
        return func(*args, **kwargs)


def _depthwise(maps: Tensor, weight: Tensor) -> bool:
    return weight.shape[1] == 1 and maps.shape[1] > 1


@lru_cache(maxsize=256)
def _mask(seed: int, count: int, shape: tuple[int, ...], share: float, device: torch.device) -> Tensor:
    """Which inputs of a convolution stay; drawn on the CPU, so that all devices have the same."""
    generator = torch.Generator().manual_seed(stream_seed("elpips", seed, count))
    with torch.inference_mode(False):
        return (torch.rand(shape, generator=generator) >= share).to(device)
