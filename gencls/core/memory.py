"""Memory: what a graph keeps for its backward pass, and the order of channels."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["is_out_of_memory", "saved_bytes", "store_channels_last"]


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


def store_channels_last(module: nn.Module) -> None:
    """Let the channels of all tensors with four dimensions be next to each other: convolutions of a CPU are faster so.

    ``module.to(memory_format=torch.channels_last)`` fails where a tensor has five dimensions, as StyleGAN2's weights do.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch ran out of memory, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
