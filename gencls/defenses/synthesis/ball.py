"""Latents that stay within an L2 ball."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gencls.core import GenclsError, Latents, check_settings

__all__ = ["Ball", "SignLosingBall"]


@dataclass(frozen=True)
class Ball:
    """Projection of each latent onto the L2 ball: z min(1, radius / ||z||). It keeps signs; the public ABS code does not."""

    radius: float

    def __post_init__(self) -> None:
        """Check the value."""
        check_settings(self)
        if self.radius <= 0:
            raise GenclsError(f"Ball: expected radius > 0, got {self.radius}")

    def __call__(self, latents: Latents) -> Latents:
        """Latents (N, K, *shape) per level -> the same, each with norm at most ``radius``."""

        def project(level: Tensor) -> Tensor:
            norms = level.flatten(2).square().sum(2).clamp_min(1e-24).sqrt()  # clamped: sqrt has no gradient at 0
            return level * (self.radius / norms).clamp(max=1.0).view(*norms.shape, *(1 for _ in level.shape[2:]))

        return tuple(project(level) for level in latents)


class SignLosingBall(Ball):
    """The clip of the public ABS code: a latent with ||z|| > radius becomes sqrt(z^2 radius^2 / ||z||^2), without its signs.

    Use it only to agree with that code: the descent goes on from another orthant than the one it had reached.
    """

    def __call__(self, latents: Latents) -> Latents:
        """Latents (N, K, *shape) per level -> the same, with norm at most ``radius``; clipped latents are non-negative."""

        def lose(level: Tensor, projected: Tensor) -> Tensor:
            outside = level.detach().flatten(2).square().sum(2) > self.radius**2
            return torch.where(outside.view(*outside.shape, *(1 for _ in level.shape[2:])), projected.abs(), projected)

        return tuple(lose(*pair) for pair in zip(latents, super().__call__(latents), strict=True))
