"""A-VAE: a network makes several random realisations of an image, and the classifier sees the nearest one.

Source: Zhou, Liang, Chen, "Manifold Projection for Adversarial Defense on Face Recognition", ECCV 2020; public code
nercms-mmap/A-VAE. The MLVGM paper compares with it; its public code (SerezD/gen_adversarial) makes one realisation.
"""

from collections.abc import Mapping
from typing import Literal, Protocol, Self, get_args

import torch
from torch import Tensor, nn

from gencls.core import BPDA, GenclsError, Latents, Transform, checked, repeat_rows
from gencls.core.inference import where

__all__ = ["AVAEPurification", "RandomAutoencoder"]

AVAESource = Literal["a-vae", "mlvgm"]


class RandomAutoencoder(Protocol):
    """The interface of the purification's network; :class:`gencls.zoo.networks.AVAE` is one."""

    def encode(self, images: Tensor) -> Latents:
        """Do the work that all realisations share: images (N, C, H, W) in [0, 1] to tensors (N, ...)."""

    def noise(self, encoded: Latents) -> Latents:
        """Standard normal draws, tensors (N, ...): all the randomness of one realisation per row."""

    def decode(self, encoded: Latents, noise: Latents, *, temperature: float) -> Tensor:
        """A realisation of each image, (N, C, H, W) in [0, 1]; the temperature scales the spread of the latents."""


class AVAEPurification(Transform):
    """G(z_s, n_s) with s = argmin_s ||G(z_s, n_s) - x||_2 over S random realisations of x.

    z_s is a draw of the encoder's posterior q(z | x), n_s are noise maps.

    The gradient mode "exact" keeps the chosen realisation, so it is exact unless two are equally near. Only the chosen one has
    a graph: a gradient costs S passes without a graph and one with it. "bpda" takes the identity for the gradient, as the
    white-box attack of the published code does.
    """

    stochastic = True
    _shown = ("realisations", "temperature")

    @checked
    def __init__(
        self, network: RandomAutoencoder, *, realisations: int = 128, temperature: float = 1.0, per_pass: int = 16
    ) -> None:
        """Take the network.

        Args:
            network: the autoencoder.
            realisations: S >= 1; 128 in the published code.
            temperature: factor of the posterior's standard deviation, >= 0 and finite.
            per_pass: realisations of an image per forward pass, >= 1. It decides which random numbers are drawn.

        Raises:
            GenclsError: for numbers out of range.
        """
        super().__init__()
        if min(realisations, per_pass) < 1 or temperature < 0:
            raise GenclsError(
                f"AVAEPurification: expected realisations and per_pass >= 1 and temperature >= 0, got {realisations}, "
                f"{per_pass} and {temperature}"
            )
        self.network = network
        self.realisations = realisations
        self.temperature = temperature
        self.per_pass = per_pass

    @classmethod
    def of_paper(cls, network: RandomAutoencoder, *, as_: AVAESource = "a-vae") -> Self:
        """Build the published defense.

        Args:
            network: the autoencoder.
            as_: "a-vae" takes the nearest of 128 realisations, as the paper and its code do. "mlvgm" makes a single one at
                temperature 0.6, as the MLVGM paper's code does.

        Raises:
            GenclsError: for an unknown source.
        """
        if as_ not in get_args(AVAESource):
            raise GenclsError(f"AVAEPurification: expected as_ among {', '.join(get_args(AVAESource))}, got {as_!r}")
        return cls(network) if as_ == "a-vae" else cls(network, realisations=1, temperature=0.6)

    def forward(self, images: Tensor) -> Tensor:
        """The nearest realisations, (N, C, H, W) in [0, 1]."""
        return self.forward_draws(images, 1)

    def forward_draws(self, images: Tensor, count: int) -> Tensor:
        """``count`` times the nearest of new realisations, (N * count, C, H, W); each image is encoded once."""
        encoded = tuple(repeat_rows(part, count) for part in self.network.encode(images))
        if self.realisations == 1:
            noise = self.network.noise(encoded)
        else:
            noise = self._nearest(tuple(part.detach() for part in encoded), repeat_rows(images.detach(), count))
        return self.network.decode(encoded, noise, temperature=self.temperature)

    def surrogates(self) -> Mapping[str, nn.Module]:
        """``exact`` and ``bpda``."""
        return {"exact": self, "bpda": BPDA(self, nn.Identity())}

    @torch.no_grad()
    def _nearest(self, encoded: Latents, images: Tensor) -> Latents:
        """The noise of the realisation that is nearest to each image."""
        least: Tensor | None = None
        best: Latents = ()
        for first in range(0, self.realisations, self.per_pass):
            count = min(self.per_pass, self.realisations - first)
            rows = tuple(repeat_rows(part, count) for part in encoded)
            noise = self.network.noise(rows)
            made = self.network.decode(rows, noise, temperature=self.temperature)
            distances = (made.unflatten(0, (len(images), count)) - images.unsqueeze(1)).square().flatten(2).sum(2)
            nearest, which = distances.min(1)
            chosen = which + count * torch.arange(len(images), device=which.device)
            found = tuple(part[chosen] for part in noise)
            if least is None:
                least, best = nearest, found
                continue
            nearer = nearest < least
            least = torch.where(nearer, nearest, least)
            best = tuple(where(nearer, new, old) for new, old in zip(found, best, strict=True))
        return best
