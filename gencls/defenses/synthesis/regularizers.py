"""The price of a latent: the R of the thesis's Algorithm 2."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core import Latents, checked
from gencls.defenses.synthesis.checks import check_one_level
from gencls.defenses.synthesis.posterior import Q

__all__ = ["DiscriminatorPenalty", "GaussianKL", "Regularizer", "SquaredNorm", "SquaredShift"]


class Regularizer(nn.Module, ABC):
    """R, the price of a latent or of a distribution over latents."""

    from_start: bool = False
    """Whether R(z, z_init) asks where the descent began. The engine then keeps z_init in q."""

    @abstractmethod
    def forward(self, latents: Latents) -> Tensor:
        """R(z): latents (N, K, *shape) per level -> (N, K)."""

    def expected(self, q: Q, latents: Latents) -> Tensor:
        """R of q, (N, K). For a point it is R(z); for a Gaussian by default R of one sample. Subclasses may have a closed form.

        ``latents`` are a sample of q, (N, K, *shape) per level; for a point they are the point.
        """
        value: Tensor = self(latents)
        return value


class GaussianKL(Regularizer):
    """KL[N(z, 1) || N(0, 1)] = ||z||^2 / 2, the second term of thesis eq. 2.2; with an optimised variance the whole KL."""

    def forward(self, latents: Latents) -> Tensor:
        """Latents (N, K, *shape) per level -> (N, K)."""
        return _total([0.5 * level.square() for level in latents])

    def expected(self, q: Q, latents: Latents) -> Tensor:
        """KL[N(mean, std^2) || N(0, 1)], (N, K); for a point the value of :meth:`forward`."""
        spreads = [(level.mean, level.log_std) for level in q if level.log_std is not None]
        if not spreads:
            return super().expected(q, latents)
        return _total([0.5 * (m.square() + (2 * s).exp() - 2 * s - 1) for m, s in spreads])


class SquaredNorm(Regularizer):
    """R(z, z_init) = ||z||_2^2, of GAN inversion from random starts (thesis, section 3.2, below Algorithm 2)."""

    def forward(self, latents: Latents) -> Tensor:
        """Latents (N, K, *shape) per level -> (N, K), the sum over the levels."""
        return _total([level.square() for level in latents])


class SquaredShift(Regularizer):
    """R(z, z_init) = ||z - z_init||_2^2, of GAN inversion from an encoder's code (thesis, eq. 3.4)."""

    from_start = True

    def forward(self, latents: Latents) -> Tensor:
        """Zeros (N, K): R of latents where the descent begins, which is what :class:`RandomStarts` asks for.

        Of other latents R is not known without z_init: see :meth:`expected`.
        """
        return latents[0].new_zeros(latents[0].shape[:2])

    def expected(self, q: Q, latents: Latents) -> Tensor:
        """The sum over the levels, (N, K)."""
        starts = [level.mean if level.start is None else level.start for level in q]
        return _total([(z - start).square() for z, start in zip(latents, starts, strict=True)])


class DiscriminatorPenalty(Regularizer):
    """-log D(z), the second term of thesis eq. 2.3 and 2.6; D(z) is the probability that z is a sample of the prior."""

    @checked
    def __init__(self, discriminator: nn.Module) -> None:
        """Take the discriminator: latents (N, K, d) -> logits of D, (N, K)."""
        super().__init__()
        self.discriminator = discriminator

    def forward(self, latents: Latents) -> Tensor:
        """One level (N, K, d) -> (N, K).

        Raises:
            GenclsError: for several levels.
        """
        check_one_level(len(latents), owner="DiscriminatorPenalty", what="latents")
        return -F.logsigmoid(self.discriminator(latents[0].clone()))  # it may work in place


def _total(levels: Sequence[Tensor]) -> Tensor:
    """Sum over all entries of all levels: (N, K, *shape) per level -> (N, K)."""
    return torch.stack([level.flatten(2).sum(2) for level in levels]).sum(0)
