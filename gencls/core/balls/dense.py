"""Balls in which all entries move at once: Linf and L2."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gencls.core.balls.lp_ball import PUSH, ROUNDING, TINY, LpBall, Radius, inwards, per_image, wide

__all__ = ["L2Ball", "LinfBall"]

_FEW_PIXELS = 1000
"""Of so many float32 pixels, rounded by 3e-8 each, the L2 norm does not leave the judge's tolerance."""


class LinfBall(LpBall):
    """The largest change of an entry."""

    key = "linf"

    def length(self, change: Tensor) -> Tensor:
        return change.flatten(1).abs().amax(dim=1)

    def largest(self, pixels: int) -> float:
        return 1.0

    def dual(self, gradient: Tensor) -> Tensor:
        dual: Tensor = gradient.flatten(1).double().norm(p=1, dim=1)
        return dual

    def step(self, gradient: Tensor, size: Radius, images: Tensor) -> Tensor:
        return wide(size) * gradient.sign()

    def within(self, clean: Tensor, change: Tensor, radius: Radius) -> Tensor:
        limit: Any = wide(radius)
        return (clean + change.clamp(-limit, limit)).clamp_(0, 1)

    def confine(self, images: Tensor, clean: Tensor, radius: float) -> Tensor:
        return images.clamp(clean - radius, clean + radius).clamp_(0, 1)

    def sample(self, like: Tensor, radius: float) -> Tensor:
        return radius * (2 * torch.rand_like(like) - 1)

    def turned(self, far: Tensor, near: Tensor, regret: Tensor, radius: float) -> Tensor:
        return far.abs() > radius


@dataclass(frozen=True)
class L2Ball(LpBall):
    """The Euclidean length.

    Attributes:
        scaled: divide gradients by their largest entry before their length is taken: the squares of small numbers vanish in
            float32.
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
        return wide(size) * self.direction(gradient)

    def direction(self, gradient: Tensor) -> Tensor:
        """Gradients (N, C, H, W) of length 1; zero stays zero."""
        if not self.scaled:
            return gradient / per_image(self.length(gradient).clamp_min(TINY))
        largest = gradient.flatten(1).abs().amax(dim=1)
        gradient = gradient / per_image(largest.where(largest > 0, 1.0))
        length = self.length(gradient)
        return gradient / per_image(length.where(length > 0, 1.0))

    def within(self, clean: Tensor, change: Tensor, radius: Radius) -> Tensor:
        shrink = (radius / self.length(change).clamp_min(TINY)).clamp_max(1.0)
        return (clean + change * per_image(shrink)).clamp_(0, 1)

    def confine(self, images: Tensor, clean: Tensor, radius: float) -> Tensor:
        change = images - clean
        length = self.length(change.double()).clamp_min(1e-30)  # in float32 the norm of a large image comes out short
        shrink = ((1 - ROUNDING) * radius / length).clamp_max(1.0).to(images.dtype)
        return self._rounded(change.mul_(per_image(shrink)).add_(clean).clamp_(0, 1), clean, radius)

    def sample(self, like: Tensor, radius: float) -> Tensor:
        direction, share = self._drawn(like)
        return direction / per_image(self.length(direction).clamp_min(TINY)) * per_image(radius * share)

    def start(self, clean: Tensor, radius: float) -> Tensor:
        direction, share = self._drawn(clean)
        factor = (1 - ROUNDING) * radius * share / self.length(direction.double())
        return self._rounded((clean + direction * per_image(factor).to(clean.dtype)).clamp_(0, 1), clean, radius)

    def _drawn(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Directions, and shares of the radius: that of a d-dimensional ball within radius r grows as r^d."""
        direction = torch.randn_like(like)
        return direction, torch.rand_like(like.flatten(1)[:, 0]).pow(1 / like.shape[1:].numel())

    def _rounded(self, images: Tensor, clean: Tensor, radius: float) -> Tensor:
        few = clean.shape[1:].numel() <= _FEW_PIXELS
        return images if few else inwards(images, clean, self.length((images - clean).double()) > radius)

    def push(self, images: Tensor) -> float:
        return max(PUSH, torch.finfo(images.dtype).eps * math.sqrt(images.shape[1:].numel()))

    def shares(self, change: Tensor) -> Tensor:
        return change.square()
