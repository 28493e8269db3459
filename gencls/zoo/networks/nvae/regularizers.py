"""Penalties on the weights that keep the training of a deep hierarchical VAE stable."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gencls.zoo.networks.nvae.cells import WeightNormConv2d
from gencls.zoo.networks.nvae.nvlabs_cells import NormedConv2d

_CONVOLUTIONS = (nn.Conv2d, NormedConv2d, WeightNormConv2d)


def batch_norm_penalty(network: nn.Module) -> Tensor:
    """Sum over the batch norms of the largest absolute scale.

    Source: NVAE (Vahdat and Kautz 2020, arXiv:2007.03898), section 3.1, which regularises the norm of the scales. Its public
    code takes the largest one.

    Returns:
        A number without dimensions; NVAE adds it times 0.01 to the loss.
    """
    scales = [module.weight.abs().max() for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return torch.stack(scales).sum()


class SpectralPenalty(nn.Module):
    """Sum over the convolutions of the largest singular value of the weight, a matrix with one row per output channel.

    Power iteration estimates the values. It goes on from call to call, because the weights change little between calls.

    Source: NVAE, section 3.2 "Spectral Regularization".

    Args:
        network: a network of torch's convolutions and those of NVAE's cells, whose weight norm and masks are applied. It is no
            part of this module, whose state is that of the iteration.
        first_steps: power iterations before the first call.
    """

    def __init__(self, network: nn.Module, *, first_steps: int = 10) -> None:
        super().__init__()
        self._layers = [module for module in network.modules() if isinstance(module, _CONVOLUTIONS)]
        for index, matrices in enumerate(self._matrices()):
            self.register_buffer(f"left_{index}", torch.randn_like(matrices[:, :, :1]).detach())
        with torch.no_grad():
            for _ in range(first_steps):
                self()

    def forward(self) -> Tensor:
        """One step of the iteration, then the sum, differentiable in the weights.

        Returns:
            A number without dimensions; NVAE adds it times 0.01 to the loss.
        """
        values: list[Tensor] = []
        for index, matrices in enumerate(self._matrices()):
            left = self.get_buffer(f"left_{index}")
            with torch.no_grad():
                right = functional.normalize(matrices.mT @ left, dim=1)
                left.copy_(functional.normalize(matrices @ right, dim=1))
            values.append((left.clone().mT @ matrices @ right).sum())
        return torch.stack(values).sum()

    def _matrices(self) -> list[Tensor]:
        """The weights, stacked by their sizes: a GPU does few large products far faster than hundreds of small ones."""
        found: dict[torch.Size, list[Tensor]] = {}
        for layer in self._layers:
            weight = layer.weight if isinstance(layer, nn.Conv2d) else layer.effective_weight()
            found.setdefault(weight.flatten(1).shape, []).append(weight.flatten(1))
        return [torch.stack(matrices) for matrices in found.values()]
