"""StyleGAN2 with an encoder as a multi-latent model: the generators of faces and cars in the MLVGM paper."""

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from gencls.core.errors import GenclsError
from gencls.core.generator import Latents, Mix, MultiLatentModel
from gencls.core.images import check_image_shape
from gencls.zoo.networks.stylegan.e4e import LARGEST, E4EEncoder
from gencls.zoo.networks.stylegan.feature_pyramid import StyleEncoder
from gencls.zoo.networks.stylegan.style_transformer import StyleTransformerEncoder
from gencls.zoo.networks.stylegan.stylegan2 import StyleGAN2


class StyleAutoencoder(MultiLatentModel):
    """One code of D numbers per level of a StyleGAN2. Subclasses say how images become codes and how they are framed.

    The encoded codes are the encoder's output plus the average code. The sampled codes are the generator's mapping of normal
    numbers, drawn independently for each level and image, without truncation.

    Source: "Pre-trained Multiple Latent Variable Generative Models are good defenders against adversarial attacks"; public code
    SerezD/gen_adversarial. Deviation: the public code gives values below 0 and above 1 to the classifier; images here are in
    [0, 1], as for all multi-latent models.

    Args:
        encoder: an encoder with as many levels as the generator.
        generator: a generator with L levels; its fixed noise is used.
        latent_avg: the average code, (L, D), (1, D) or (D,).
        image_size: H = W of the images, >= 1.
        noise_std: standard deviation of the normal numbers. It hardly matters, because the mapping network normalises them
            first.

    Raises:
        GenclsError: for parts that do not fit together, or a size out of range.
    """

    def __init__(
        self, encoder: StyleEncoder, generator: StyleGAN2, latent_avg: Tensor, *, image_size: int, noise_std: float
    ) -> None:
        super().__init__()
        levels, numbers = size = generator.num_levels, generator.style_dim
        if (encoder.num_levels, encoder.style_dim) != size:
            raise GenclsError(
                f"{type(self).__name__}: expected an encoder of {levels} levels and {numbers} numbers per code, as the "
                f"generator of {generator.size} pixels has; got {encoder.num_levels} levels and {encoder.style_dim} numbers"
            )
        if latent_avg.shape not in ((levels, numbers), (1, numbers), (numbers,)):
            raise GenclsError(
                f"{type(self).__name__}: expected an average code of shape {size}, (1, {numbers}) or ({numbers},), "
                f"got {tuple(latent_avg.shape)}"
            )
        if image_size < 1:
            raise GenclsError(f"{type(self).__name__}: expected image_size >= 1, got {image_size}")
        self.encoder = encoder
        self.generator = generator
        self.num_levels = levels
        self.image_shape = (generator.colours, image_size, image_size)
        self.noise_std = noise_std
        self.latent_avg: Tensor
        self.register_buffer("latent_avg", latent_avg.reshape(-1, numbers))

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] to codes (N, L, D), relative to the average code."""

    @abstractmethod
    def frame(self, images: Tensor) -> Tensor:
        """Bring the generator's images (N, C, size, size) into the form of the data's; most values stay in [-1, 1]."""

    def noise(self, like: Tensor) -> Tensor:
        """Standard normal draws (N, L, D). All codes get their randomness here."""
        return torch.randn_like(like)

    def encode_once(self, images: Tensor) -> Latents:
        """The encoded codes (N, L, D).

        Raises:
            GenclsError: for images of another shape.
        """
        check_image_shape(images, self.image_shape, name=type(self).__name__)
        return (self.encode(2 * images - 1) + self.latent_avg,)

    def decode_mixed(self, encoded: Latents, mix: Mix) -> Tensor:
        """Sample, mix and decode, see :class:`~gencls.core.MultiLatentModel`; the codes of a level are (N, D)."""
        (codes,) = encoded
        sampled = self.generator.mapping(self.noise_std * self.noise(codes))
        pairs = zip(codes.unbind(1), sampled.unbind(1), strict=True)
        mixed = torch.stack([mix(level, *pair) for level, pair in enumerate(pairs)], dim=1)
        return self.frame(self.generator(mixed)).add(1).div(2).clamp(0, 1)


class E4EAutoencoder(StyleAutoencoder):
    """Encoder4editing and StyleGAN2: faces of 256 pixels and 18 levels in the paper.

    The generator's images, which have 1024 pixels in the paper, are averaged to the size of the images, at most 256. Arguments
    and errors are those of :class:`StyleAutoencoder`.
    """

    def __init__(
        self, encoder: E4EEncoder, generator: StyleGAN2, latent_avg: Tensor, *, image_size: int = 256, noise_std: float = 1.0
    ) -> None:
        if image_size > LARGEST:
            raise GenclsError(f"E4EAutoencoder: expected image_size <= {LARGEST}, got {image_size}")
        super().__init__(encoder, generator, latent_avg, image_size=image_size, noise_std=noise_std)

    def encode(self, images: Tensor) -> Tensor:
        codes: Tensor = self.encoder(images)
        return codes

    def frame(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images, self.image_shape[1:])


class StyleTransformerAutoencoder(StyleAutoencoder):
    """Style Transformer and StyleGAN2: cars of 128 pixels and 16 levels in the paper.

    Images are squares with black bars above and below. They are enlarged to the canvas. The encoder does not see the canvas's
    upper and lower eighth. The generator's images, which have 512 pixels in the paper, are averaged to the canvas, get black
    bars in the same places, and are reduced to the size of the images. Both changes of size are bilinear and do not smooth.
    Arguments and errors are those of :class:`StyleAutoencoder`; ``canvas`` is H = W of what the encoder sees, a multiple of 8.
    """

    encoder: StyleTransformerEncoder

    def __init__(
        self,
        encoder: StyleTransformerEncoder,
        generator: StyleGAN2,
        latent_avg: Tensor,
        *,
        image_size: int = 128,
        canvas: int = 256,
        noise_std: float = 0.8,
    ) -> None:
        if canvas < 8 or canvas % 8:
            raise GenclsError(f"StyleTransformerAutoencoder: expected a canvas that is a multiple of 8, got {canvas}")
        super().__init__(encoder, generator, latent_avg, image_size=image_size, noise_std=noise_std)
        self.canvas = canvas
        self.bar = canvas // 8

    def encode(self, images: Tensor) -> Tensor:
        images = _resized(images, self.canvas)[:, :, self.bar : self.canvas - self.bar]
        codes: Tensor = self.encoder(images, self.generator.mapping(self.encoder.z))
        return codes

    def frame(self, images: Tensor) -> Tensor:
        seen = F.adaptive_avg_pool2d(images, self.canvas)[:, :, self.bar : self.canvas - self.bar]
        return _resized(F.pad(seen, (0, 0, self.bar, self.bar), value=-1.0), self.image_shape[-1])


def _resized(images: Tensor, size: int) -> Tensor:
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
