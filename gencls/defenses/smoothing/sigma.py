"""The standard deviations that a smoothing takes."""

from gencls.core.errors import GenclsError

__all__ = ["check_sigma"]


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
