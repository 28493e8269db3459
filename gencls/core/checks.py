"""Checks of settings, made once at the public boundary."""

import torch

from gencls.core.errors import GenclsError

__all__ = ["check_sigma", "find_device"]


def check_sigma(sigma: float, *, name: str) -> None:
    """Check the standard deviation of a smoothing's noise on images.

    Args:
        sigma: expected in (0, 4]: the largest one of the papers is 1, and a larger one was surely meant for pixels in 0..255.
        name: of the smoothing, for the message.

    Raises:
        GenclsError: it is not.
    """
    if not 0 < sigma <= 4:
        raise GenclsError(f"{name}: expected sigma in (0, 4] in [0, 1] pixel units (64/255, not 64), got {sigma}")


def find_device(name: str) -> torch.device:
    """A device of this machine by name, such as "cpu" or "cuda:1".

    Raises:
        GenclsError: for a name that torch does not know or a device that is not there.
    """
    try:
        made = torch.empty(0, device=name)
        made.cpu()  # the device "meta" takes tensors and gives none back
        return made.device
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise GenclsError(f"device: expected one of this machine, such as cpu or cuda; got {name!r}: {reason}") from None
