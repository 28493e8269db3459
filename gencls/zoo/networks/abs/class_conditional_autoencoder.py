"""Autoencoders with one decoder per class, for ABS and E-ABS."""

from collections.abc import Callable, Iterable
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.zoo.networks.abs.conv_decoder import ConvDecoder
from gencls.zoo.networks.abs.latent_discriminator import LatentDiscriminator
from gencls.zoo.networks.classifiers.cnn import ConvEncoder
from gencls.zoo.networks.parts.architectures import find_architecture


class GaussianEncoder(nn.Module):
    """A convolutional encoder followed by two parallel linear layers: mean and log-variance of Q(z | x)."""

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
    """The K decoders, one per class, with latents of one length. Inference by optimisation needs no other part of the VAEs."""

    def __init__(self, decoders: Iterable[ConvDecoder]) -> None:
        super().__init__()
        self.decoders = nn.ModuleList(decoders)

    @classmethod
    def from_architecture(cls, architecture: str, *, num_classes: int = 10, dropout: float = 0.1) -> Self:
        """Build the K decoders of one column of Table 2.1, untrained; the thesis does not give the rate of dropout.

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


class ClassConditionalAutoencoder(nn.Module):
    """K decoders, and what trains them: one encoder for all classes or K, and no, one or K latent discriminators.

    ABS has an encoder per class and no discriminator (thesis, section 2.1). Extension A of E-ABS adds discriminators, one per
    encoder; extension D shares the encoder (section 2.2).

    Args:
        encoders: one encoder that all classes share, or K encoders.
        decoders: K decoders.
        discriminators: none (a KL divergence meets the prior), or one per encoder (adversarial autoencoders).

    Raises:
        GenclsError: for another number of encoders or discriminators.
    """

    def __init__(
        self, encoders: Iterable[GaussianEncoder], decoders: ClassDecoders, discriminators: Iterable[LatentDiscriminator] = ()
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.decoders = decoders
        self.discriminators = nn.ModuleList(discriminators)
        if len(self.encoders) not in (1, decoders.num_classes):
            raise GenclsError(f"autoencoder: expected 1 or {decoders.num_classes} encoders, got {len(self.encoders)}")
        if len(self.discriminators) not in (0, len(self.encoders)):
            raise GenclsError(
                f"autoencoder: expected as many discriminators as encoders ({len(self.encoders)}) or none, "
                f"got {len(self.discriminators)}"
            )

    @classmethod
    def from_architecture(
        cls,
        architecture: str,
        *,
        num_classes: int = 10,
        dropout: float = 0.1,
        shared_encoder: bool = False,
        adversarial: bool = False,
    ) -> Self:
        """Build the autoencoder of one column of Table 2.1, untrained.

        Args:
            architecture: name of the column.
            num_classes: K.
            dropout: rate in encoders and decoders, in [0, 1); the thesis does not give it.
            shared_encoder: whether all classes share one encoder (extension D); otherwise each has its own.
            adversarial: whether each encoder has a latent discriminator (extension A).

        Raises:
            GenclsError: for an unknown column.
        """
        table = find_architecture(architecture)
        count = 1 if shared_encoder else num_classes
        encoders = [
            GaussianEncoder(ConvEncoder(table.in_channels, table.image_size, table.encoder, dropout=dropout), table.latent_dim)
            for _ in range(count)
        ]
        decoders = ClassDecoders.from_architecture(architecture, num_classes=num_classes, dropout=dropout)
        discriminators = [
            LatentDiscriminator(table.latent_dim, table.discriminator) for _ in range(count if adversarial else 0)
        ]
        return cls(encoders, decoders, discriminators)

    @property
    def num_classes(self) -> int:
        """K."""
        return self.decoders.num_classes

    @property
    def shared_encoder(self) -> bool:
        """Whether all classes share one encoder."""
        return len(self.encoders) == 1

    @property
    def features(self) -> ConvEncoder:
        """The features from which the shared encoder computes mean and variance: images to (N, out_features)."""
        return cast(GaussianEncoder, self.encoders[0]).encoder

    @property
    def adversarial(self) -> bool:
        """Whether there are latent discriminators."""
        return len(self.discriminators) > 0

    def encode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) in [0, 1] to mean and log-variance of Q(z | x), each (N, d), by the encoders of labels (N,)."""
        if self.shared_encoder:
            mean, log_variance = self.encoders[0](images)
        else:
            mean, log_variance = _by_class(self.encoders, images, labels)
        return mean, log_variance

    def decode(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents (N, d) and labels (N,) to images (N, C, H, W) in [0, 1], each by the decoder of its class."""
        (images,) = _by_class(self.decoders.decoders, latents, labels)
        return images

    def decode_all(self, latents: Tensor) -> Tensor:
        """The same latents by every class's decoder: (N, d) to images (N, K, C, H, W) in [0, 1]."""
        images: Tensor = self.decoders(latents.unsqueeze(1).expand(-1, self.num_classes, -1))
        return images

    @property
    def class_encoders(self) -> "ClassEncoders":
        """The encoders in the form of variational inference, sharing their weights."""
        return ClassEncoders(self.encoders, self.num_classes)

    @property
    def class_discriminators(self) -> "ClassDiscriminators | None":
        """The discriminators in the form of inference, sharing their weights; None without any."""
        return ClassDiscriminators(self.discriminators) if self.adversarial else None

    def discriminate(self, latents: Tensor, labels: Tensor, *, frozen: bool) -> Tensor:
        """Logits of D(z), (N,), for latents (N, d), by their labels' discriminators; frozen: their weights get no gradients."""
        parts: list[Callable[[Tensor], Tensor]] = [
            part.frozen if frozen else part for part in cast(Iterable[LatentDiscriminator], self.discriminators)
        ]
        if len(parts) == 1:
            return parts[0](latents)
        (logits,) = _by_class(parts, latents, labels)
        return logits


class ClassEncoders(nn.Module):
    """Q(z | x) of each of K classes for each image, by K encoders or one that all classes share."""

    def __init__(self, encoders: nn.ModuleList, num_classes: int) -> None:
        super().__init__()
        self.encoders = encoders
        self.num_classes = num_classes

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) in [0, 1] to mean and log-variance, each (N, K, d)."""
        means, log_variances = zip(*(encoder(images) for encoder in self.encoders), strict=True)
        shape = (len(images), self.num_classes, -1)
        return torch.stack(means, dim=1).expand(shape), torch.stack(log_variances, dim=1).expand(shape)


class ClassDiscriminators(nn.Module):
    """Logits of D(z) for one latent per class, by K discriminators or one that all classes share."""

    def __init__(self, discriminators: nn.ModuleList) -> None:
        super().__init__()
        self.discriminators = discriminators

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (N, K, d) to logits (N, K)."""
        if len(self.discriminators) == 1:
            logits: Tensor = self.discriminators[0](latents)
            return logits
        return torch.stack([part(latents[:, k]) for k, part in enumerate(self.discriminators)], dim=1)


def _by_class(networks: Iterable[Callable[[Tensor], Any]], inputs: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """Give each input to its class's network; return the outputs in the order of the inputs."""
    parts = list(networks)
    order = labels.argsort(stable=True)
    groups = inputs[order].split(labels.bincount(minlength=len(parts)).tolist())
    outputs = [network(group) for network, group in zip(parts, groups, strict=True) if len(group) > 0]
    if isinstance(outputs[0], Tensor):
        outputs = [(output,) for output in outputs]
    back = order.argsort()
    return tuple(torch.cat(tensors)[back] for tensors in zip(*outputs, strict=True))
