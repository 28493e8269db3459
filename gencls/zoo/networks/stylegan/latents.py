"""Codes of a StyleGAN2: latents for the search of an image nearest to a given one, and mixed codes for training."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.zoo.networks.stylegan.stylegan2 import StyleGAN2

Space = Literal["z", "w", "w+"]

_MIXING = 0.9  # share of images with two codes


class StyleLatents(nn.Module):
    """Latents (M, *latent_shape) to images in [0, 1] by a StyleGAN2.

    For instance ``DefenseGAN(latents, latents.latent_shape, sample=latents.sample)``.

    Args:
        generator: a generator; its fixed noise is used.
        space: "z" has normal numbers, (D,), whose length does not matter. "w" has the code that is made of them, (D,), the same
            at all levels. "w+" has a code per level, (L, D), all equal at the start.
        frame: maps the generator's images (M, 3, size, size), most values in [-1, 1], to the form of the images to match, for
            instance the method ``frame`` of a style autoencoder; None leaves them as they are.

    Raises:
        GenclsError: for an unknown space.
    """

    def __init__(self, generator: StyleGAN2, space: Space = "w", *, frame: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        if space not in get_args(Space):
            raise GenclsError(f"StyleLatents: expected a space among {', '.join(get_args(Space))}, got {space!r}")
        self.generator = generator
        self.space: Space = space
        self.frame = frame
        code = (generator.style_dim,)
        self.latent_shape = (generator.num_levels, *code) if space == "w+" else code

    def sample(self, count: int) -> Tensor:
        """Random latents (count, *latent_shape), drawn as in the generator's training."""
        weight = self.generator.input.input
        normal = torch.randn(count, self.generator.style_dim, device=weight.device, dtype=weight.dtype)
        if self.space == "z":
            return normal
        codes = self.generator.mapping(normal)
        return codes if self.space == "w" else codes.unsqueeze(1).repeat(1, self.generator.num_levels, 1)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (M, *latent_shape) to images (M, C, H, W) in [0, 1]."""
        images = self.generator(self.generator.mapping(latents) if self.space == "z" else latents)
        if self.frame is not None:
            images = self.frame(images)
        unit: Tensor = images.add(1).div(2).clamp(0, 1)
        return unit


def mixed_codes(generator: StyleGAN2, count: int, *, like: Tensor) -> Tensor:
    """Codes (N, L, D) of normal numbers. Most images mix two codes: one before a random level, the other from there on.

    Device and type are those of ``like``. Source: style mixing (Karras et al. 2019, arXiv:1812.04948, section 3.1).
    """
    levels = generator.num_levels
    codes = generator.mapping(torch.randn(2, count, generator.style_dim, device=like.device, dtype=like.dtype))
    first_of_second = torch.randint(1, levels, (count, 1), device=like.device)
    mixes = torch.rand(count, 1, device=like.device) < _MIXING
    second = (torch.arange(levels, device=like.device) >= first_of_second) & mixes
    return torch.where(second.unsqueeze(2), codes[1].unsqueeze(1), codes[0].unsqueeze(1))
