"""The standard deviations that a smoothing takes."""

from gencls.core.errors import GenclsError

__all__ = ["check_sigma"]


def check_sigma(sigma: float, *, name: str) -> None:
    """Check the standard deviation of a smoothing's noise on images.

    Args:
        sigma: the standard deviation in [0, 1] pixel units, expected in (0, 4]. The papers go up to 1; one above 4 was surely
            meant for pixels in 0..255.
        name: what the message calls the smoothing.

    Raises:
        GenclsError: sigma is outside this range.
    """
    if not 0 < sigma <= 4:
        raise GenclsError(f"{name}: expected sigma in (0, 4] in [0, 1] pixel units (64/255, not 64), got {sigma}")
