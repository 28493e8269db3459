"""Weights of a network as tensors by name: checks that they are such, and the names that wrappers of torch gave them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from gencls.core.errors import GenclsError
from gencls.core.words import with_article

__all__ = ["HALF", "check_state", "named", "unwrapped"]

Value = TypeVar("Value")

HALF = (torch.float16, torch.bfloat16)
"""The dtypes of half precision."""

_FLOATS = (*HALF, torch.float32, torch.float64)
_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_VARIANCES = ("running_var", "stored_var")
"""How the keys of batch norm's variances end, those of torch and of BigGAN."""


def check_state(source: str | Path, state: Mapping[str, Tensor], *, finite: bool = True) -> None:
    """Check that each tensor is a plain one: dense, with its own values, of numbers that weights can have.

    Errors name the source, a file or a network.

    Raises:
        GenclsError: for a tensor that is sparse, nested, quantized, on the meta device, larger than what it is stored in, or
            not of floating point numbers of 16, 32 or 64 bits, integers or booleans; with ``finite`` for NaN or Inf, or a
            variance of batch norm below 0, which makes NaN of all maps. It names the tensor.
    """
    for key, tensor in state.items():
        got = _oddity(tensor) if isinstance(tensor, Tensor) else named(tensor)
        if got is not None:
            raise GenclsError(f"{source}: expected {key} as a dense tensor of ordinary numbers; got {got}")
        if finite:
            _check_finite(source, key, tensor)


def _oddity(tensor: Tensor) -> str | None:
    """Say what keeps a tensor from being weights; None if nothing does."""
    if tensor.is_nested or tensor.layout != torch.strided:
        return "nested tensors" if tensor.is_nested else f"layout {tensor.layout}"
    if tensor.is_meta:
        return f"shape {tuple(tensor.shape)} without values, on the meta device"
    if tensor.is_quantized:
        return f"quantized numbers ({tensor.dtype})"
    if tensor.dtype not in (*_FLOATS, *_WHOLE, torch.bool):
        return str(tensor.dtype)
    size, stored = tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes()
    if size > stored:
        return f"shape {tuple(tensor.shape)}, {size:,} bytes, expanded from {stored:,} bytes"
    return None


def _check_finite(source: str | Path, key: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point() or not tensor.numel():
        return
    ends = torch.stack(tensor.aminmax())  # one pass, without a tensor of answers; NaN comes through
    if not bool(ends.isfinite().all()):
        what = "NaN" if bool(ends.isnan().any()) else "Inf"
        raise GenclsError(f"{source}: expected {key} of finite numbers; got {what}")
    if key.endswith(_VARIANCES) and bool(ends[0] < 0):
        raise GenclsError(f"{source}: expected {key} of variances >= 0; got {float(ends[0]):.3g}")


def named(value: object) -> str:
    """A value's class, for errors."""
    return with_article(type(value).__name__)


def unwrapped(state: Mapping[str, Value]) -> dict[str, Value]:
    """Rename the keys as the network itself has them: without ``module.`` (DataParallel) and ``_orig_mod.`` (torch.compile).

    A prefix is taken off if all keys begin with it.
    """
    for prefix in ("module.", "_orig_mod."):
        if state and all(key.startswith(prefix) for key in state):
            return unwrapped({key.removeprefix(prefix): tensor for key, tensor in state.items()})
    return dict(state)
