"""How many rows fit: measured from what a graph keeps for its backward pass."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["saved_bytes"]


def saved_bytes(build: Callable[[], object]) -> int:
    """Bytes of the distinct tensors that autograd saves while ``build`` runs with gradients enabled.

    Args:
        build: runs a forward pass whose inputs require grad.
    """
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = build()  # kept alive, so that no address is counted twice
    del kept
    return sum(sizes.values())
