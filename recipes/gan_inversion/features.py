"""Features of networks: the layers of a perceptual distance, and the features of the Frechet distances."""

import torch
from torch import Tensor, nn

from gencls.core import GenclsError

__all__ = ["BeforeTheLast", "layers_of"]

_CHUNK = 200


def layers_of(network: nn.Module) -> list[str]:
    """The layers whose maps are compared: the stages of a ResNet, or else the activations behind its convolutions."""
    names = dict(network.named_modules())
    stages = [name for name in names if name.rpartition(".")[-1] in {f"layer{number}" for number in range(1, 9)}]
    if stages:
        return stages
    found: list[str] = []
    convolved = False
    for name, part in names.items():
        convolved = convolved or isinstance(part, nn.Conv2d)
        if convolved and isinstance(part, (nn.ReLU, nn.LeakyReLU)):
            found.append(name)
            convolved = False
    if not found:
        raise GenclsError(f"{type(network).__name__}: expected stages layer1, layer2, ... or activations, got neither")
    return found


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
