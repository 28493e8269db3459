"""Names, shapes and dtypes of a network's weights, found without its memory."""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registration

__all__ = ["TooLargeError", "layout_of"]


class TooLargeError(Exception):
    """A network has more parts than its weights can be for."""


def layout_of(build: Callable[..., nn.Module], tensors: int, /, **arguments: Any) -> tuple[dict[str, Tensor], int]:
    """Build a network on torch's meta device, on which tensors have no values and take no memory.

    Args:
        build: the constructor.
        tensors: how many the weights are; far larger networks are not built to the end.
        **arguments: of the constructor.

    Returns:
        Its state dict on the meta device, and the bytes that all its parameters and buffers would take, those included that
        are not part of the state dict.

    Raises:
        TooLargeError: see ``tensors``.
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
