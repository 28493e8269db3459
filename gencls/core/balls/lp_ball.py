"""Balls of Lp norms: sizes of changes, steepest steps, projections, random points, ways to a boundary.

This file has what every ball knows, and the two balls in which all entries move at once: Linf and L2.

Attacks, training and the judge share this geometry. A change is (N, C, H, W), images minus clean images; its size is in [0, 1]
pixel units over the whole image. A radius is one number, or one number per image, (N,).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["PUSH", "ROUNDING", "L2Ball", "LinfBall", "LpBall", "Radius", "free", "inwards", "per_image"]

_TINY = 1e-12
"""Below this length a gradient or a change counts as zero and is not scaled up."""

ROUNDING = 1e-6
"""Share of the radius left for rounding: float32 pixels of a large image add up to more than the judge's tolerance."""

PUSH = 1e-5
"""Added to a step to a boundary, in pixel units: an iterate on the boundary itself would not move."""

_FEW_PIXELS = 1000
"""In images with at most so many float32 pixels, each rounded by 3e-8, the L2 norm stays within the judge's tolerance."""

Radius = float | Tensor


def per_image(values: Tensor) -> Tensor:
    """Reshape (N,) to (N, 1, 1, 1), to multiply images."""
    return values.view(-1, 1, 1, 1)


class LpBall(ABC):
    """The ball of one norm.

    Attributes:
        key: what records and names of attacks call the norm.
    """

    key: str

    @abstractmethod
    def length(self, change: Tensor) -> Tensor:
        """The sizes of changes, (N,), in their own precision."""

    def distance(self, change: Tensor) -> Tensor:
        """Distances (N,) of changes, by the definition of the norm, as the judge measures them."""
        return self.length(change)

    def largest(self, pixels: int) -> float:
        """The size of the largest change between two images; ``pixels`` is the number of their entries, C x H x W."""
        return float(pixels)

    def dual(self, gradient: Tensor) -> Tensor:
        """The dual norm of gradients, (N,), float64: how much a linear function grows at most in a step of length 1."""
        return gradient.flatten(1).double().abs().amax(dim=1)

    @abstractmethod
    def step(self, gradient: Tensor, size: Radius, images: Tensor) -> Tensor:
        """The change of this size, at these images, that raises a linear loss most; 0 where the gradient is 0."""

    @abstractmethod
    def within(self, clean: Tensor, change: Tensor, radius: Radius) -> Tensor:
        """Images at the nearest change in the ball, clipped to [0, 1]; rounding may push them out of the ball."""

    @abstractmethod
    def confine(self, images: Tensor, clean: Tensor, radius: float) -> Tensor:
        """Bring images back into the ball around the clean ones, and into [0, 1].

        Rounding may leave them outside, but by no more than the judge's tolerance.
        """

    @abstractmethod
    def sample(self, like: Tensor, radius: float) -> Tensor:
        """Draw changes uniformly from the ball."""

    @abstractmethod
    def start(self, clean: Tensor, radius: float) -> Tensor:
        """Random images around the clean ones, from which a search can start, clipped to [0, 1]."""

    def between(self, clean: Tensor, far: Tensor, share: Tensor) -> Tensor:
        """Images on the way from clean to far ones, whose changes have a share (N,) in [0, 1] of the full size."""
        return torch.lerp(clean, far, per_image(share))

    def cross(self, gap: Tensor, gradient: Tensor, images: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Distances (N,) to the hyperplanes gap + gradient . r = 0, and steps r that surely cross; infinity and 0 if none does.

        Gaps (N,) are <= 0. Scores are rounded to multiples of the units (N,), so the step goes two units beyond. A pixel at 0
        or 1 that would leave the range cannot move; in a digit, most pixels are like that.
        """
        gradient = gradient * free(gradient, images)
        dual = self.dual(gradient)
        distance = torch.where(dual > 0, gap.abs() / dual, torch.inf)
        length = (distance + self.push(images) + 2 * unit / dual.where(dual > 0, 1.0)).where(distance.isfinite(), 0.0)
        return distance, self.step(gradient, length.to(gradient.dtype), images)

    def push(self, images: Tensor) -> float:
        return PUSH

    def turned(self, far: Tensor, near: Tensor, regret: Tensor, radius: float) -> Tensor:
        """Choose the entries that must take the smaller of two changes, so that the whole lies in the ball: (N, C, H, W), bool.

        ``far`` is the wanted change, ``near`` is larger in no entry. Entries with the least regret take ``near`` first.
        """
        wanted, smaller = (self.shares(change).flatten(1).double() for change in (far, near))
        gain = (wanted - smaller).clamp_min(0.0)
        excess = wanted.sum(dim=1, keepdim=True) - radius**self.power
        order = regret.flatten(1).where(gain > 0, torch.inf).argsort(dim=1)
        saved = gain.gather(1, order).cumsum(dim=1)
        before = saved - gain.gather(1, order)
        needed = (before < excess) & (gain.gather(1, order) > 0)
        return torch.zeros_like(needed).scatter(1, order, needed).view_as(far)

    power = 1

    def shares(self, change: Tensor) -> Tensor:
        """What each entry (N, C, H, W) adds to the size raised to ``power``."""
        return change.abs()


class LinfBall(LpBall):
    """The ball of the largest absolute change of an entry."""

    key = "linf"

    def length(self, change: Tensor) -> Tensor:
        return change.flatten(1).abs().amax(dim=1)

    def largest(self, pixels: int) -> float:
        return 1.0

    def dual(self, gradient: Tensor) -> Tensor:
        dual: Tensor = gradient.flatten(1).double().norm(p=1, dim=1)
        return dual

    def step(self, gradient: Tensor, size: Radius, images: Tensor) -> Tensor:
        return _wide(size) * gradient.sign()

    def within(self, clean: Tensor, change: Tensor, radius: Radius) -> Tensor:
        limit: Any = _wide(radius)
        return (clean + change.clamp(-limit, limit)).clamp_(0, 1)

    def confine(self, images: Tensor, clean: Tensor, radius: float) -> Tensor:
        return images.clamp(clean - radius, clean + radius).clamp_(0, 1)

    def sample(self, like: Tensor, radius: float) -> Tensor:
        return radius * (2 * torch.rand_like(like) - 1)

    def start(self, clean: Tensor, radius: float) -> Tensor:
        return (clean + self.sample(clean, radius)).clamp_(0, 1)

    def turned(self, far: Tensor, near: Tensor, regret: Tensor, radius: float) -> Tensor:
        return far.abs() > radius


@dataclass(frozen=True)
class L2Ball(LpBall):
    """The ball of the Euclidean length.

    Attributes:
        scaled: whether gradients are divided by their largest entry before their length is computed: the squares of small
            numbers vanish in float32.
    """

    scaled: bool = True
    key = "l2"
    power = 2

    def length(self, change: Tensor) -> Tensor:
        length: Tensor = change.flatten(1).norm(dim=1)
        return length

    def distance(self, change: Tensor) -> Tensor:
        return change.flatten(1).square().sum(dim=1).sqrt()

    def largest(self, pixels: int) -> float:
        return math.sqrt(pixels)

    def dual(self, gradient: Tensor) -> Tensor:
        return self.length(gradient.double())

    def step(self, gradient: Tensor, size: Radius, images: Tensor) -> Tensor:
        return _wide(size) * self.direction(gradient)

    def direction(self, gradient: Tensor) -> Tensor:
        """Gradients (N, C, H, W) of length 1; zero stays zero."""
        if not self.scaled:
            return gradient / per_image(self.length(gradient).clamp_min(_TINY))
        largest = gradient.flatten(1).abs().amax(dim=1)
        gradient = gradient / per_image(largest.where(largest > 0, 1.0))
        length = self.length(gradient)
        return gradient / per_image(length.where(length > 0, 1.0))

    def within(self, clean: Tensor, change: Tensor, radius: Radius) -> Tensor:
        shrink = (radius / self.length(change).clamp_min(_TINY)).clamp_max(1.0)
        return (clean + change * per_image(shrink)).clamp_(0, 1)

    def confine(self, images: Tensor, clean: Tensor, radius: float) -> Tensor:
        change = images - clean
        length = self.length(change.double()).clamp_min(1e-30)  # in float32 the norm of a large image comes out short
        shrink = ((1 - ROUNDING) * radius / length).clamp_max(1.0).to(images.dtype)
        return self._rounded(change.mul_(per_image(shrink)).add_(clean).clamp_(0, 1), clean, radius)

    def sample(self, like: Tensor, radius: float) -> Tensor:
        direction, share = self._drawn(like)
        return direction / per_image(self.length(direction).clamp_min(_TINY)) * per_image(radius * share)

    def start(self, clean: Tensor, radius: float) -> Tensor:
        direction, share = self._drawn(clean)
        factor = (1 - ROUNDING) * radius * share / self.length(direction.double())
        return self._rounded((clean + direction * per_image(factor).to(clean.dtype)).clamp_(0, 1), clean, radius)

    def _drawn(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Draw directions, and shares of the radius: the volume of a d-dimensional ball within radius r grows as r^d."""
        direction = torch.randn_like(like)
        return direction, torch.rand_like(like.flatten(1)[:, 0]).pow(1 / like.shape[1:].numel())

    def _rounded(self, images: Tensor, clean: Tensor, radius: float) -> Tensor:
        few = clean.shape[1:].numel() <= _FEW_PIXELS
        return images if few else inwards(images, clean, self.length((images - clean).double()) > radius)

    def push(self, images: Tensor) -> float:
        return max(PUSH, torch.finfo(images.dtype).eps * math.sqrt(images.shape[1:].numel()))

    def shares(self, change: Tensor) -> Tensor:
        return change.square()


def _wide(values: Radius) -> Radius:
    """One number unchanged, or one number per image (N,) as (N, 1, 1, 1)."""
    return per_image(values) if isinstance(values, Tensor) else values


def free(gradient: Tensor, images: Tensor) -> Tensor:
    """Mark the entries, (N, C, H, W) bool, that can follow the gradient within [0, 1]."""
    return ~(((images <= 0) & (gradient < 0)) | ((images >= 1) & (gradient > 0)))


def inwards(images: Tensor, clean: Tensor, beyond: Tensor) -> Tensor:
    """Round images (N, C, H, W) towards the clean ones if rounding has put them ``beyond`` (N,) their ball."""
    return torch.where(per_image(beyond), images.nextafter(clean), images) if bool(beyond.any()) else images
