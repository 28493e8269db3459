"""The CNNs of the E-ABS paper: the encoder of Table 2.1, and the classifier of encoder and linear layer."""

from collections.abc import Sequence
from typing import Self

from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.zoo.networks.parts.architectures import ConvLayer, find_architecture


class ConvEncoder(nn.Module):
    """Images to feature vectors: convolution, batch norm and Leaky ReLU, repeated; dropout after the last convolution.

    Source: E-ABS (thesis, section 2.3 "Models" and Table 2.1). The thesis gives neither the slope of the Leaky ReLU
    nor the dropout rate; both are arguments.

    Args:
        in_channels: C of the images.
        image_size: H = W of the images, in pixels.
        layers: (channels, kernel, stride, padding) of each convolution.
        dropout: share of features that is zeroed in training, in [0, 1).
        negative_slope: slope of the Leaky ReLU below 0.

    Raises:
        GenclsError: if a layer's kernel is larger than its padded input.
    """

    out_features: int
    """Length of the feature vectors."""

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        layers: Sequence[ConvLayer],
        *,
        dropout: float = 0.1,
        negative_slope: float = 0.01,
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels, size = in_channels, image_size
        for index, layer in enumerate(layers):
            reach = size + 2 * layer.padding - layer.kernel
            if reach < 0:
                raise GenclsError(
                    f"encoder layer {index}: expected an input of at least {layer.kernel - 2 * layer.padding} pixels "
                    f"for kernel {layer.kernel} and padding {layer.padding}, got {size}"
                )
            # Batch norm subtracts the mean, so a bias in front of it would have no effect.
            blocks += [
                nn.Conv2d(channels, layer.channels, layer.kernel, layer.stride, layer.padding, bias=False),
                nn.BatchNorm2d(layer.channels),
                nn.LeakyReLU(negative_slope),
            ]
            channels, size = layer.channels, reach // layer.stride + 1
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(dropout)
        self.out_features = channels * size * size

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to features (N, out_features)."""
        features: Tensor = self.dropout(self.blocks(images).flatten(1))
        return features


class CNN(nn.Module):
    """The encoder of Table 2.1 and a linear layer (thesis, section 2.3: "CNNs add a linear layer after the encoder")."""

    def __init__(self, encoder: ConvEncoder, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.encoder = encoder
        self.head = nn.Linear(encoder.out_features, num_classes)

    @classmethod
    def from_architecture(cls, architecture: str, *, num_classes: int = 10, dropout: float = 0.1) -> Self:
        """Build the classifier of one column of Table 2.1, untrained; the thesis does not give the rate of dropout.

        Raises:
            GenclsError: for an unknown column.
        """
        table = find_architecture(architecture)
        return cls(ConvEncoder(table.in_channels, table.image_size, table.encoder, dropout=dropout), num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to logits (N, K)."""
        logits: Tensor = self.head(self.encoder(images))
        return logits
