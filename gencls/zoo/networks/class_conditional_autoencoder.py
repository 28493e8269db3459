"""One variational autoencoder per class: what ABS trains."""

from collections.abc import Iterable
from typing import NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from gencls.zoo.networks.architectures import find_architecture
from gencls.zoo.networks.conv_decoder import ConvDecoder
from gencls.zoo.networks.conv_encoder import ConvEncoder

__all__ = ["ClassConditionalVAE", "ClassDecoders", "GaussianEncoder", "Reconstruction"]


class Reconstruction(NamedTuple):
    """What a VAE makes of N images."""

    images: Tensor
    """(N, C, H, W) in [0, 1]."""
    mean: Tensor
    """(N, latent_dim), of the posterior Q(z | x)."""
    log_variance: Tensor
    """(N, latent_dim), of the posterior Q(z | x)."""


class GaussianEncoder(nn.Module):
    """A convolutional encoder followed by two parallel linear layers: mean and log-variance of Q(z | x).

    Args:
        encoder: images to features.
        latent_dim: length of the latent vector.
    """

    def __init__(self, encoder: ConvEncoder, latent_dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.mean = nn.Linear(encoder.out_features, latent_dim)
        self.log_variance = nn.Linear(encoder.out_features, latent_dim)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) in [0, 1] to mean and log-variance, each (N, latent_dim)."""
        features = self.encoder(images)
        return self.mean(features), self.log_variance(features)


class ClassDecoders(nn.Module):
    """The K decoders, one per class: all of the VAEs that inference by optimisation needs.

    Args:
        decoders: K decoders with latents of one length.
    """

    def __init__(self, decoders: Iterable[ConvDecoder]) -> None:
        super().__init__()
        self.decoders = nn.ModuleList(decoders)

    @classmethod
    def from_architecture(cls, architecture: str, *, num_classes: int = 10, dropout: float = 0.1) -> Self:
        """Build the K decoders of one column of Table 2.1, untrained.

        Args:
            architecture: name of the column.
            num_classes: K.
            dropout: rate after the linear layer; not given in the thesis.

        Raises:
            GenclsError: for an unknown column.
        """
        table = find_architecture(architecture)
        return cls(ConvDecoder(table.latent_dim, table.decoder, dropout=dropout) for _ in range(num_classes))

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.decoders)

    def __getitem__(self, index: int) -> ConvDecoder:
        return cast(ConvDecoder, self.decoders[index])

    def forward(self, latents: Tensor) -> Tensor:
        """Decode one latent per class: (N, K, latent_dim) to images (N, K, C, H, W) in [0, 1]."""
        return torch.stack([decoder(latents[:, k]) for k, decoder in enumerate(self.decoders)], dim=1)


class ClassConditionalVAE(nn.Module):
    """K separate VAEs (thesis, section 2.1): an image is seen only by the VAE of its own class.

    Args:
        encoders: K encoders.
        decoders: K decoders.
    """

    def __init__(self, encoders: Iterable[GaussianEncoder], decoders: ClassDecoders) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.decoders = decoders

    @classmethod
    def from_architecture(cls, architecture: str, *, num_classes: int = 10, dropout: float = 0.1) -> Self:
        """Build the K VAEs of one column of Table 2.1, untrained.

        Args:
            architecture: name of the column.
            num_classes: K.
            dropout: rate in encoders and decoders; not given in the thesis.

        Raises:
            GenclsError: for an unknown column.
        """
        table = find_architecture(architecture)
        encoders = (
            GaussianEncoder(ConvEncoder(table.in_channels, table.image_size, table.encoder, dropout=dropout), table.latent_dim)
            for _ in range(num_classes)
        )
        return cls(encoders, ClassDecoders.from_architecture(architecture, num_classes=num_classes, dropout=dropout))

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Reconstruction, Tensor]:
        """Encode, draw one latent with the reparameterisation trick, decode; each image with its own class's VAE.

        Args:
            images: (N, C, H, W) in [0, 1].
            labels: int64 (N,).

        Returns:
            The reconstructions, sorted by class, and the indices (N,) that sort ``images`` the same way.
        """
        order = labels.argsort(stable=True)
        counts = labels.bincount(minlength=len(self.encoders)).tolist()
        parts = [self._reconstruct(k, group) for k, group in enumerate(images[order].split(counts)) if len(group) > 0]
        return Reconstruction(*(torch.cat(tensors) for tensors in zip(*parts, strict=True))), order

    def _reconstruct(self, label: int, images: Tensor) -> Reconstruction:
        mean, log_variance = self.encoders[label](images)
        latents = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return Reconstruction(self.decoders[label](latents), mean, log_variance)
