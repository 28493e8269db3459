"""The encoder that gives GAN inversion its starts."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core.errors import GenclsError
from gencls.core.settings import checked


class ResNetEncoder(nn.Module):
    """E(x): images to codes, by a residual network of the type of ResNet-18 and a linear layer.

    A convolution of 3 x 3 comes first. Each stage has residual blocks of two convolutions with batch norm; every stage but the
    first halves the size and doubles the channels. The maps of the last stage are averaged over the pixels. E does not see the
    class: the thesis (Algorithm 4) starts the descents of all classes at the same code.

    Source: He et al. 2016, arXiv:1512.03385, with the first convolution for small images; "adapted from a ResNet18 model"
    (thesis, section 3.3), which does not say how.

    Args:
        latent_dim: length of the codes.
        image_shape: (C, H, W) of the images.
        width: channels of the first stage; 64 in ResNet-18.
        blocks: residual blocks in each stage; (2, 2, 2, 2) in ResNet-18.

    Raises:
        GenclsError: for a size below 1, or no stages at all.
    """

    @checked
    def __init__(
        self, *, latent_dim: int, image_shape: Sequence[int], width: int = 64, blocks: Sequence[int] = (2, 2, 2, 2)
    ) -> None:
        super().__init__()
        if min(latent_dim, width, len(blocks), len(image_shape), *blocks, *image_shape) < 1 or len(image_shape) != 3:
            raise GenclsError(
                "ResNetEncoder: expected image_shape (C, H, W), and latent_dim, width and blocks of at least 1, got "
                f"{tuple(image_shape)}, {latent_dim}, {width} and {tuple(blocks)}"
            )
        self.latent_dim, self.image_shape = latent_dim, tuple(image_shape)
        self.first = nn.Conv2d(self.image_shape[0], width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        stages: list[nn.Module] = []
        channels = width
        for stage, count in enumerate(blocks):
            for block in range(count):
                halved = stage > 0 and block == 0
                stages.append(_Block(channels, channels * 2 if halved else channels, stride=2 if halved else 1))
                channels = channels * 2 if halved else channels
        self.blocks = nn.Sequential(*stages)
        self.last = nn.Linear(channels, latent_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to codes (N, latent_dim).

        Raises:
            GenclsError: for images of another shape.
        """
        if images.shape[1:] != self.image_shape:
            raise GenclsError(f"ResNetEncoder: expected images of shape {self.image_shape}, got {tuple(images.shape[1:])}")
        maps = F.relu(self.norm(self.first(2 * images - 1)))
        codes: Tensor = self.last(self.blocks(maps).mean((2, 3)))
        return codes


class _Block(nn.Module):
    """Convolution, norm, ReLU, convolution, norm, plus the input (by a convolution of 1 x 1 if its shape differs), ReLU."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.skip: nn.Module = nn.Identity()
        if inputs != outputs:
            self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, maps: Tensor) -> Tensor:
        out = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(maps)))))
        return F.relu(out + self.skip(maps))
