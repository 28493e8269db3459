"""ND-VAE: the hierarchical VAE that undoes attacks."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from gencls.core.errors import GenclsError
from gencls.core.images import check_image_shape
from gencls.zoo.networks.nvae.hierarchical_vae import HierarchicalVAEOutput
from gencls.zoo.networks.nvae.nvlabs import NVlabsNVAE
from gencls.zoo.networks.parts.margins import central_margins, crop


class NDVAE(nn.Module):
    """A small NVAE without flows. It draws all latents from the posterior of the image.

    Source: Jalalinour and Rekabdar, "Noisy-Defense Variational Auto-Encoder (ND-VAE)", TransAI 2023. As in its public code
    there are two scales of groups, two halvings before them, and scales of Gaussians with 0.01 added. Images of 28 pixels are
    padded with zeros to 32. Pixels follow a mixture of logistics, as in the MLVGM paper's code (ND-VAE's has Gaussian draws in
    a binary cross-entropy). Deviations: the cells are NVAE's; latents have their own number of channels, and not as many as the
    maps.

    Args:
        image_shape: (C, H, W) of the images.
        groups: groups per scale, coarse to fine; (2, 2) for the MLVGM paper's gender and cars, (4, 4) in ND-VAE's code.
        cells: residual cells per group.
        latent_channels: channels of each latent.
        channels: channels of the maps at the size of the images; 8 in ND-VAE's code.
        blocks: halvings before the first scale.
        block_cells: cells per halving.
        mixtures: logistics per pixel.

    Raises:
        GenclsError: for a number below 1.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        groups: Sequence[int] = (2, 2),
        cells: int = 1,
        latent_channels: int = 16,
        channels: int = 8,
        blocks: int = 2,
        block_cells: int = 1,
        mixtures: int = 3,
    ) -> None:
        super().__init__()
        if len(image_shape) != 3 or min(image_shape) < 1:
            raise GenclsError(f"NDVAE: expected image_shape (C, H, W) of numbers >= 1, got {tuple(image_shape)}")
        colours, height, width = image_shape
        multiple = 2 ** (blocks + len(groups) - 1)
        self.image_shape = (colours, height, width)
        down, across = -height % multiple, -width % multiple
        self.margins = central_margins((height, width), (height + down, width + across))
        self.vae = NVlabsNVAE(
            (colours, height + down, width + across),
            groups=groups,
            cells=(cells, cells),
            latent_channels=latent_channels,
            channels=(channels, channels),
            blocks=blocks,
            block_cells=(block_cells, block_cells),
            mixtures=mixtures,
            flows=0,
        )

    def padded(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) padded with zeros to the size that the network works at."""
        return functional.pad(images, self.margins)

    def reconstruct(self, images: Tensor) -> HierarchicalVAEOutput:
        """Images (N, C, H, W) in [0, 1] to p(x | z) of the :meth:`padded` images, for one draw of z, and KL terms (N, L).

        Raises:
            GenclsError: for images of another shape or type.
        """
        check_image_shape(images, self.image_shape, name="NDVAE")
        output: HierarchicalVAEOutput = self.vae(self.padded(images))
        return output

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to the means of their pixels for one draw of the latents."""
        return crop(self.reconstruct(images).reconstruction.mean(), self.margins)
