"""Check that tensors are the weights of this network, before memory is taken; all readers of weights do."""

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registration

from gencls.core.errors import GenclsError
from gencls.core.weights import HALF, check_state, named, unwrapped


def tensors_by_name(path: str | Path, values: object, *, size: int) -> dict[str, Tensor]:
    """Make a state dict from what a file holds, copied, half precision turned into float32.

    The prefixes ``module.`` of DataParallel and ``_orig_mod.`` of torch.compile are taken off if all keys begin with them. One
    tensor under several keys stays one tensor.

    The copy is not larger than the file, whose ``size`` is in bytes.

    Raises:
        GenclsError: It is something else; there is no tensor; a tensor is not as :func:`check_state` wants it.
    """
    if not isinstance(values, Mapping):
        raise GenclsError(f"{path}: expected tensors by name; got {named(values)}{_NO_CODE}")
    for key, value in values.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise GenclsError(f"{path}: expected tensors by name; got {named(value)} under {key!r:.100}{_NO_CODE}")
    if not values:
        raise GenclsError(f"{path}: expected tensors by name; got none")
    check_state(path, values, finite=False)
    distinct = {_identity(tensor): tensor for tensor in values.values()}
    total = sum(tensor.numel() * tensor.itemsize for tensor in distinct.values())
    if total > size:
        raise GenclsError(
            f"{path}: expected tensors that do not overlap; got {total:,} bytes of them in a file of {size:,} bytes"
        )
    copies = {identity: _single(tensor) for identity, tensor in distinct.items()}
    state = {key: copies[_identity(tensor)] for key, tensor in values.items()}
    check_state(path, state)
    return unwrapped(state)


_NO_CODE = ". Save the weights alone: torch.save(network.state_dict(), FILE)"


def _identity(tensor: Tensor) -> tuple[object, ...]:
    """A value that is equal for tensors that are the same part of one storage."""
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _single(tensor: Tensor) -> Tensor:
    """A copy; half precision as float32."""
    tensor = tensor.detach()
    return tensor.float() if tensor.dtype in HALF else tensor.clone()


def fitted(state: Mapping[str, Tensor], layout: Mapping[str, Tensor], error: Callable[[str], GenclsError]) -> dict[str, Tensor]:
    """Give the tensors the network's precision, as a rule float32, and the order of its layout on the meta device.

    Raises:
        GenclsError: for keys that are missing or surplus, another shape, other kinds of numbers, for instance integers as
            parameters, or numbers that are too large for the precision.
    """
    missing, surplus = [key for key in layout if key not in state], [key for key in state if key not in layout]
    if missing or surplus:
        raise error(f"other keys; missing: {_some(missing)}; surplus: {_some(surplus)}")
    for key, own in layout.items():
        tensor = state[key]
        if tensor.shape != own.shape:
            raise error(f"{key} of shape {tuple(own.shape)}; got {tuple(tensor.shape)}")
        if _kind(tensor) != _kind(own) and not _counts(tensor, own):
            raise error(f"{key} of {_kind(own)}; got {tensor.dtype}")
    cast = {key: state[key].to(own.dtype) for key, own in layout.items()}
    for key, tensor in cast.items():
        if tensor.dtype != state[key].dtype and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise error(f"{key} of numbers that {tensor.dtype} can hold; got {state[key].abs().max():.3g}")
    return cast


def _kind(tensor: Tensor) -> str:
    if tensor.is_floating_point():
        return "floating point numbers"
    return "booleans" if tensor.dtype == torch.bool else "integers"


def _counts(tensor: Tensor, own: Tensor) -> bool:
    """Whether floating point numbers stand for whole ones, as in a file that was turned into half precision as a whole."""
    return _kind(own) == "integers" and tensor.is_floating_point() and bool((tensor == tensor.round()).all())


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "") or "none"


class TooLargeError(Exception):
    """A network has more parts than its weights can fill."""


def layout_of(build: Callable[..., nn.Module], tensors: int, /, **arguments: Any) -> tuple[dict[str, Tensor], int]:
    """Build a network on torch's meta device, on which tensors have no values and take no memory.

    Returns:
        The state dict of the network there, and the bytes of all its parameters and buffers, also those outside the state dict.

    Raises:
        TooLargeError: The network is far larger than so many tensors can fill; it is not built to the end.
    """
    with warnings.catch_warnings(), torch.device("meta"), _at_most(20 * tensors + 1000):
        warnings.simplefilter("ignore")  # about tensors without elements, before an error that says the same
        network = build(**arguments)
    parts = [*network.parameters(), *network.buffers()]
    return dict(network.state_dict()), sum(part.numel() * part.itemsize for part in parts)


@contextmanager
def _at_most(parts: int) -> Iterator[None]:
    """Stop what this thread builds once it has more modules and parameters than this."""
    left, thread = [parts], threading.get_ident()

    def count(*_: object) -> None:
        if threading.get_ident() == thread:
            left[0] -= 1
            if left[0] < 0:
                raise TooLargeError(f"more than {parts:,} modules and parameters")

    handles = [
        registration.register_module_module_registration_hook(count),
        registration.register_module_parameter_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
