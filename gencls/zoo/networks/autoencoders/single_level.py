"""An autoencoder with one code per image as a multi-latent model with one level, so that it can purify."""

from typing import Self

import torch
from torch import Tensor

from gencls.core.errors import GenclsError
from gencls.core.generator import Latents, Mix, MultiLatentModel
from gencls.core.images import check_image_shape
from gencls.core.settings import checked
from gencls.core.words import with_article
from gencls.zoo.networks.autoencoders.generative_autoencoder import GenerativeAutoencoder

_CHUNK = 500


class SingleLevel(MultiLatentModel):
    """A generative autoencoder with its one level of codes, for :class:`gencls.defenses.MLVGMPurification`.

    The encoded code is the mean of q(z | x). The sampled code is a draw from N(mean, deviation^2), independent in each
    dimension. The training brings the codes to N(0, 1), which is the default. A penalty such as Shapiro-Wilk leaves the
    unit of the codes open: there :meth:`with_prior_of` takes mean and deviation from the codes of images.

    With alpha 0 purification is plain autoencoding, without randomness.

    Args:
        autoencoder: the network; it keeps its mode.

    Raises:
        GenclsError: for another network.

    Attributes:
        autoencoder: the network.
        image_shape: (C, H, W) of the images.
        prior_mean: mean of each dimension of sampled codes, (d,), a buffer.
        prior_deviation: its standard deviation, (d,), a buffer.
    """

    num_levels = 1

    prior_mean: Tensor
    prior_deviation: Tensor

    @checked
    def __init__(self, autoencoder: GenerativeAutoencoder) -> None:
        super().__init__()
        if not isinstance(autoencoder, GenerativeAutoencoder):
            raise GenclsError(f"SingleLevel: expected a GenerativeAutoencoder, got {with_article(type(autoencoder).__name__)}")
        self.autoencoder = autoencoder
        self.image_shape = autoencoder.image_shape
        like = next(autoencoder.parameters())
        self.register_buffer("prior_mean", like.new_zeros(autoencoder.code_size))
        self.register_buffer("prior_deviation", like.new_ones(autoencoder.code_size))
        self.training = autoencoder.training

    @checked
    def with_prior_of(self, images: Tensor) -> Self:
        """The same model, whose sampled codes have mean and deviation of the codes of these images; it shares the network.

        Args:
            images: (N, C, H, W) in [0, 1], N >= 2, such as training images, on the network's device.

        Raises:
            GenclsError: for images of another shape, or fewer than two.
        """
        if len(images) < 2:
            raise GenclsError(f"SingleLevel: expected at least 2 images for a prior of their codes, got {len(images)}")
        with torch.no_grad():
            codes = torch.cat([self.encode_once(part)[0] for part in images.split(_CHUNK)])
        made = type(self)(self.autoencoder)
        made.prior_mean, made.prior_deviation = codes.mean(dim=0), codes.std(dim=0)
        return made

    def encode_once(self, images: Tensor) -> Latents:
        """The means of the codes, one tensor (N, d).

        Raises:
            GenclsError: for images of another shape.
        """
        check_image_shape(images, self.image_shape, name="SingleLevel")
        return (self.autoencoder.encode(images),)

    def decode_mixed(self, encoded: Latents, mix: Mix) -> Tensor:
        """Sample, mix and decode, see :class:`~gencls.core.MultiLatentModel`; codes are (N, d)."""
        (codes,) = encoded
        sampled = self.prior_mean + self.prior_deviation * torch.randn_like(codes)
        return self.autoencoder.decode(mix(0, codes, sampled))
