"""The transposed-convolution decoder of Table 2.1."""

from collections.abc import Sequence

from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.zoo.networks.parts.architectures import ConvLayer


class ConvDecoder(nn.Module):
    """Latent vectors to images: a linear layer, then transposed convolutions.

    The linear layer's output is as deep as the first transposed convolution's (a 1 x 1 map), and dropout follows it. Batch norm
    and ReLU follow every transposed convolution but the last; a sigmoid follows the last.

    Source: E-ABS (thesis, section 2.3 "Models" and Table 2.1). The thesis does not give the dropout rate.

    Args:
        latent_dim: length of the latent vector.
        layers: (channels, kernel, stride, padding) of each transposed convolution; the last one's channels are those of the
            images.
        dropout: share of the linear layer's outputs that is zeroed in training, in [0, 1).

    Raises:
        GenclsError: if there are no layers.
    """

    def __init__(self, latent_dim: int, layers: Sequence[ConvLayer], *, dropout: float = 0.1) -> None:
        super().__init__()
        if not layers:
            raise GenclsError("decoder: expected at least one transposed convolution, got none")
        self.latent_dim = latent_dim
        depth = layers[0].channels
        self.linear = nn.Linear(latent_dim, depth)
        self.dropout = nn.Dropout(dropout)
        last = len(layers) - 1
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        for index, layer in enumerate(layers):
            # Batch norm subtracts the mean, so a bias in front of it would have no effect.
            self.convs.append(
                nn.ConvTranspose2d(depth, layer.channels, layer.kernel, layer.stride, layer.padding, bias=index == last)
            )
            if index < last:
                self.norms.append(nn.BatchNorm2d(layer.channels))
            depth = layer.channels

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (N, latent_dim) to images (N, C, H, W) in [0, 1]."""
        maps: Tensor = self.dropout(self.linear(latents))[:, :, None, None]
        for conv, norm in zip(self.convs, self.norms, strict=False):
            maps = norm(conv(maps)).relu()
        return self.convs[-1](maps).sigmoid()  # type: ignore[no-any-return]
