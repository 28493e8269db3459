"""The features of the Frechet distances."""

import torch
from torch import Tensor, nn

__all__ = ["BeforeTheLast"]

_CHUNK = 200


class BeforeTheLast(nn.Module):
    """The features in front of the last linear layer of a classifier: images (N, C, H, W) to (N, d)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        *_, self._last = (part for part in network.modules() if isinstance(part, nn.Linear))

    def forward(self, images: Tensor) -> Tensor:
        """The input of the last linear layer."""
        kept: list[Tensor] = []

        def keep(part: nn.Module, given: tuple[Tensor, ...]) -> None:
            kept.append(given[0].flatten(1))

        handle = self._last.register_forward_pre_hook(keep)
        try:
            self.network(images)
        finally:
            handle.remove()
        return kept[-1]

    @torch.no_grad()
    def of(self, images: Tensor, device: str) -> Tensor:
        """Features (N, d) of many images, on the CPU."""
        return torch.cat([self(batch.to(device)).cpu() for batch in images.split(_CHUNK)])
