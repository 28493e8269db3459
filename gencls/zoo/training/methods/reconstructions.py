"""Reconstructions by a few steps of GAN inversion, for trainings that learn from them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gencls.core import ClassConditionalGenerator, GenclsError, ImageDistance, Latents, check_settings
from gencls.core.inference import minimize
from gencls.defenses.synthesis.rates import CyclicalRate
from gencls.perceptual import Combined, SquaredL2

_RATE = CyclicalRate()


@dataclass(frozen=True)
class Sources:
    """Trained networks that a training begins with.

    Attributes:
        features: the network whose weights the distance starts from.
        generator: the conditional GAN G.
        start: images (N, C, H, W) -> the first codes of each class, (N, K, *shape) per level.
    """

    features: nn.Module
    generator: ClassConditionalGenerator
    start: Callable[[Tensor], Latents]


@dataclass(frozen=True)
class ShortInversion:
    """A few steps of GAN inversion: min_z D(x, G_k(z)) + weight ||z - z_init||_2^2, D as in thesis eq. 3.7.

    Attributes:
        steps: Adam steps at the cyclical rate of thesis section 3.3, >= 0.
        max_lr: maximum of that rate.
        weight: lambda, >= 0.
        percept: weight of the feature distance beside the squared L2 distance of pixels.
    """

    steps: int = 10
    max_lr: float = 0.1
    weight: float = 1.0
    percept: float = 1.0

    def __post_init__(self) -> None:
        check_settings(self)
        if self.steps < 0 or self.max_lr <= 0 or min(self.weight, self.percept) < 0:
            raise GenclsError(f"ShortInversion: expected steps >= 0, max_lr > 0, weight and percept >= 0, got {self}")

    def __call__(
        self, images: Tensor, classes: Tensor, start: Latents, generator: ClassConditionalGenerator, features: ImageDistance
    ) -> Tensor:
        """Reconstruct images (N, C, H, W) by M classes each, int64 (N, M), from codes (N, M, *shape): (N, M, C, H, W)."""
        distance = Combined(SquaredL2(), features, self.percept)
        with torch.no_grad():
            target = tuple(part.unsqueeze(1) for part in distance.embed(images))
        start = tuple(level.detach() for level in start)

        def loss(latents: Latents) -> Tensor:
            made = generator(tuple(level.flatten(0, 1) for level in latents), classes.flatten())
            embedded = tuple(part.unflatten(0, classes.shape) for part in distance.embed(made))
            moved = sum((z - first).square().flatten(2).sum(2) for z, first in zip(latents, start, strict=True))
            return distance.compare(target, embedded) + self.weight * moved

        with torch.enable_grad():
            found = minimize(loss, start, steps=self.steps, lr=self.max_lr, rate=_RATE)
        with torch.no_grad():
            made = generator(tuple(level.flatten(0, 1) for level in found), classes.flatten())
        reconstructions: Tensor = made.unflatten(0, classes.shape)
        return reconstructions


@torch.no_grad()
def ranked_classes(sources: Sources, images: Tensor, distance: ImageDistance) -> tuple[Latents, Tensor]:
    """The first codes of images (N, C, H, W), (N, K, *shape) per level, and the distances of what they decode to, (N, K).

    Raises:
        GenclsError: the generator makes images of another shape.
    """
    codes = sources.start(images)
    made = sources.generator.decode_all(codes)
    if made.shape[2:] != images.shape[1:]:
        expected, got = tuple(images.shape[1:]), tuple(made.shape[2:])
        raise GenclsError(f"reconstructions: expected a generator of images {expected}, as the data has, got {got}")
    return codes, distance.to_each(images, made)
