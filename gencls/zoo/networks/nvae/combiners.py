"""Where an NVAE brings a level's feature or code together with the decoder's state; both NVAEs share it."""

from torch import Tensor, cat, nn


class Add(nn.Module):
    """Feature of the encoder + conv(state of the decoder).

    Args:
        conv: 1 x 1, from the channels of the state to those of the feature.
    """

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, feature: Tensor, state: Tensor) -> Tensor:
        """(N, C, h, w) and (N, C', h, w) to (N, C, h, w)."""
        out: Tensor = feature + self.conv(state)
        return out


class Concatenate(nn.Module):
    """conv([state of the decoder, code]).

    Args:
        conv: 1 x 1, from the channels of both to those of the state.
    """

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, state: Tensor, codes: Tensor) -> Tensor:
        """(N, C, h, w) and (N, L, h, w) to (N, C, h, w)."""
        out: Tensor = self.conv(cat([state, codes], dim=1))
        return out
