"""What the results of modules depend on, in a form that can be compared: whether something made earlier still fits."""

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor, nn

__all__ = ["contents"]

_EXACT = (torch.float32, torch.float64)
"""Types whose checksum is computed as they are; others become float32, which loses nothing that matters of 16-bit floats."""


@torch.no_grad()
def contents(*parts: nn.Module | Tensor) -> list[object]:
    """The state of modules and tensors, to compare with a later one: equal lists mean that cached results still fit.

    It holds place, version and type of each parameter and buffer, a checksum of its numbers, the training flag of each module,
    and whether autocast is on. Loading, moving, training and switching change it. Because of the checksum, so do writes through
    ``.data``, which torch does not count; a change of less than about 1e-7 of a tensor's sum is lost. The checksum reads every
    number once. A Python attribute that ``forward`` reads is not in it.
    """
    modules = [module for part in parts if isinstance(part, nn.Module) for module in part.modules()]
    tensors = [tensor for part in parts for tensor in _tensors(part)]
    devices = sorted({tensor.device.type for tensor in tensors})
    return [
        [module.training for module in modules],
        [(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in devices],
        [(t.data_ptr(), 0 if t.is_inference() else t._version, t.dtype, t.device, t.shape, t.stride()) for t in tensors],
        _checksums(tensors),
    ]


def _tensors(part: nn.Module | Tensor) -> Iterator[Tensor]:
    """Only dense tensors: they have a place, and numbers in a row."""
    held = (part,) if isinstance(part, Tensor) else (*part.parameters(), *part.buffers())
    return (tensor.detach() for tensor in held if tensor.layout == torch.strided and not tensor.is_quantized)


def _checksums(tensors: list[Tensor]) -> list[bytes]:
    """The sum of each tensor's numbers, each times a factor of its place: exchanged numbers change it, too."""
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        flat = _flat(tensor)
        flat = flat if flat.dtype in _EXACT else flat.float()
        kinds.setdefault((flat.dtype, flat.device), []).append(flat)
    found = []
    for kind, flats in kinds.items():
        factors = _factors(1 << max(map(torch.numel, flats)).bit_length(), *kind)
        sums = torch.stack([torch.dot(flat, factors[: flat.numel()]) for flat in flats])
        found.append(sums.cpu().numpy().tobytes())  # as bytes, NaN equals NaN; a GPU is waited for once per type
    return found


def _flat(tensor: Tensor) -> Tensor:
    """The numbers in the order of the memory, which takes no copy of a dense tensor."""
    tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    return tensor.permute(order).reshape(-1)


@lru_cache(maxsize=8)
def _factors(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Factors from 0.5 to 1.5, always the same: none is 0, which would hide a number."""
    source = torch.Generator().manual_seed(0)
    with torch.inference_mode(False):
        return (torch.rand(count, generator=source) + 0.5).to(device, dtype)
