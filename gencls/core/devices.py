"""Finds devices of this machine by name, and the device of a module."""

import torch
from torch import nn

from gencls.core.errors import GenclsError

__all__ = ["device_of", "find_device"]


def find_device(name: str) -> torch.device:
    """Find a device of this machine by its name, such as "cpu" or "cuda:1".

    Raises:
        GenclsError: torch does not know the name, or this machine has no such device.
    """
    try:
        made = torch.empty(0, device=name)
        made.cpu()  # the device "meta" takes tensors and gives none back
        return made.device
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise GenclsError(f"device: expected one of this machine, such as cpu or cuda; got {name!r}: {reason}") from None


def device_of(module: nn.Module) -> torch.device | None:
    """The device of a module's parameters or buffers; None for a module without any."""
    return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), None)
