"""The autoencoder whose codes are drawn from a prior or moved by an attacker: variational or deterministic."""

from collections.abc import Sequence

from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.core.images import check_image_shape
from gencls.core.settings import checked
from gencls.zoo.networks.autoencoders.code_posterior import CodePosterior

_NAME = "GenerativeAutoencoder"


class GenerativeAutoencoder(nn.Module):
    """An encoder of four convolutions, and a decoder that is its mirror.

    Each convolution of the encoder halves height and width, rounded up (kernel 3, stride 2, padding 1). Batch norm and leaky
    ReLU follow. One linear layer gives the mean of the code, and its log-variance if the encoder is variational. The decoder
    does the same backwards: a linear layer, then for each size batch norm, leaky ReLU and a transposed convolution. A sigmoid
    ends it.

    Source: Lu and Chen, "On the Adversarial Robustness of Generative Autoencoders in the Latent Space", section 3.1.2: the
    widths, and codes of 10 (MNIST), 30 (FashionMNIST) and 128 numbers (CelebA). In the deterministic form the encoder gives the
    code itself (section 2.2). The paper leaves kernels, strides and the last activation open.

    Args:
        image_shape: (C, H, W) of the images.
        code_size: d, the numbers in a code.
        widths: channels after each convolution of the encoder, from the image down.
        variational: whether the encoder gives a Gaussian for each image, and not one code alone.

    Raises:
        GenclsError: for sizes below 1, or no width.
    """

    @checked
    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        code_size: int = 10,
        widths: Sequence[int] = (32, 64, 128, 64),
        variational: bool = True,
    ) -> None:
        super().__init__()
        if len(image_shape) != 3 or not widths or min(*image_shape, code_size, *widths) < 1:
            raise GenclsError(
                f"{_NAME}: expected image_shape (C, H, W), code_size and one width or more, all >= 1, got "
                f"{tuple(image_shape)}, {code_size} and {tuple(widths)}"
            )
        colours, height, width = image_shape
        self.image_shape = (colours, height, width)
        self.code_size = code_size
        self.variational = variational
        channels = [colours, *widths]
        sizes = [(height, width)]
        for _ in widths:
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        maps = (widths[-1], *sizes[-1])
        features = maps[0] * maps[1] * maps[2]

        down: list[nn.Module] = []
        for before, after in zip(channels, widths, strict=False):
            # Batch norm takes every bias away.
            down += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU()]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(features, 2 * code_size if variational else code_size))

        up: list[nn.Module] = []
        for level in reversed(range(len(widths))):
            # From h pixels a transposed convolution makes 2 h - 1, and one more where the encoder's size was even.
            more = (1 - sizes[level][0] % 2, 1 - sizes[level][1] % 2)
            convolution = nn.ConvTranspose2d(
                channels[level + 1], channels[level], 3, stride=2, padding=1, output_padding=more, bias=level == 0
            )
            up += [nn.BatchNorm2d(channels[level + 1]), nn.LeakyReLU(), convolution]
        self.decoder = nn.Sequential(nn.Linear(code_size, features, bias=False), nn.Unflatten(1, maps), *up, nn.Sigmoid())

    def posterior(self, images: Tensor) -> CodePosterior:
        """Give q(z | x) for images (N, C, H, W) in [0, 1]: mean and log-variance (N, d), or a mean alone.

        Raises:
            GenclsError: for images of another shape.
        """
        check_image_shape(images, self.image_shape, name=_NAME)
        encoded = self.encoder(images)
        if not self.variational:
            return CodePosterior(encoded)
        mean, log_variance = encoded.chunk(2, dim=1)
        return CodePosterior(mean, log_variance)

    def encode(self, images: Tensor) -> Tensor:
        """Give the means of the codes (N, d) of images (N, C, H, W) in [0, 1], without randomness.

        Raises:
            GenclsError: for images of another shape.
        """
        return self.posterior(images).mean

    def decode(self, codes: Tensor) -> Tensor:
        """Make the images (N, C, H, W) in [0, 1] of codes (N, d).

        Raises:
            GenclsError: for codes of another size.
        """
        if codes.ndim != 2 or codes.shape[1] != self.code_size or not codes.is_floating_point():
            raise GenclsError(
                f"{_NAME}: expected floating-point codes of shape (N, {self.code_size}), got {codes.dtype} of shape "
                f"{tuple(codes.shape)}"
            )
        images: Tensor = self.decoder(codes)
        return images

    def forward(self, images: Tensor) -> Tensor:
        """Reconstruct images (N, C, H, W) in [0, 1] from the means of their codes."""
        return self.decode(self.encode(images))
