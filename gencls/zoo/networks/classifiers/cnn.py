"""The classifier of the E-ABS paper."""

from typing import Self

from torch import Tensor, nn

from gencls.zoo.networks.parts.architectures import find_architecture
from gencls.zoo.networks.parts.conv_encoder import ConvEncoder


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
