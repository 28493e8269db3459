"""ND-VAE: a hierarchical VAE that has learned to undo attacks reconstructs the image from a noisy copy.

Source: Jalalinour and Rekabdar, "Noisy-Defense Variational Auto-Encoder (ND-VAE): An Adversarial Defense Framework to Eliminate
Adversarial Attacks", TransAI 2023, pages 50-57; public code shayan223/ND-VAE.
"""

from collections.abc import Callable

from torch import Tensor

from gencls.core import GenclsError, Transform, checked
from gencls.defenses.purification.gaussian import GaussianNoise

__all__ = ["NDVAEPurification"]


class NDVAEPurification(Transform):
    """D(z) with z from q(z | x + n), n ~ N(0, sigma^2 I), x + n clamped to [0, 1]: one draw of all latents.

    The gradient is exact. The MLVGM paper's code clamps like this; the published code of ND-VAE does not clamp.
    """

    stochastic = True
    _shown = ("sigma",)

    @checked
    def __init__(self, network: Callable[[Tensor], Tensor], *, sigma: float = 0.1) -> None:
        """Take the network.

        Args:
            network: function of images (N, C, H, W) in [0, 1] that returns random reconstructions of the same shape and range,
                for instance :class:`gencls.zoo.networks.NDVAE`.
            sigma: standard deviation of the noise in [0, 1] pixel units, >= 0; 0.1 in the paper's code, and 0.1, 0.05 and 0.1
                in the three tasks of the MLVGM paper's code.

        Raises:
            GenclsError: for a sigma that is negative or no finite number.
        """
        super().__init__()
        if sigma < 0:
            raise GenclsError(f"NDVAEPurification: expected sigma >= 0 in [0, 1] pixel units, got {sigma}")
        self.network = network
        self.sigma = sigma
        self.noise = GaussianNoise(sigma) if sigma > 0 else None

    def forward(self, images: Tensor) -> Tensor:
        """Purified images (N, C, H, W) in [0, 1]."""
        return self.network(images if self.noise is None else self.noise(images))
