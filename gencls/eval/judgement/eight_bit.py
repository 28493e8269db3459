"""Images of 8 bits, as they are saved: adversarial ones are rounded to them within their ball."""

import torch
from torch import Tensor

from gencls.core.balls import per_image
from gencls.eval.threats.protocol import Threat

_LEVELS = 255
_SNAP = 1e-4
"""Tolerance in levels of 1/255: float32 misses k/255 by up to 1e-5 of a level."""


def is_eight_bit(images: Tensor) -> bool:
    """Whether all values are k/255."""
    return bool(_of_eight_bit(images).all())


def to_eight_bit(adversarial: Tensor, clean: Tensor, threat: Threat) -> Tensor:
    """The adversarial images rounded to k/255, as near as the ball allows.

    Each pixel goes to the nearer of its two neighbours k/255. If this leaves the ball, pixels go to the neighbour nearer to the
    clean pixel: in Linf every such pixel, in other norms as many as needed, beginning with the least difference. In a seminorm
    nearer pixels may make no nearer image. If the image then still leaves the ball, the clean image of 8 bits takes its place.
    So around clean images of 8 bits all stay within the ball. Around others some may leave it, and the judge will say so.
    An image that an attack returned unchanged stays the clean one.

    Args:
        adversarial: (N, C, H, W) in [0, 1].
        clean: the same shape.
        threat: norm and epsilon of the ball; without epsilon every pixel goes to its nearer neighbour.
    """
    levels, centre = adversarial.double() * _LEVELS, clean.double()
    levels = torch.where((levels - levels.round()).abs() < _SNAP, levels.round(), levels)
    nearest = levels.round() / _LEVELS
    rounded = nearest.to(adversarial.dtype)
    if threat.epsilon is not None:
        below, above = levels.floor() / _LEVELS, levels.ceil() / _LEVELS
        inward = torch.where((below - centre).abs() <= (above - centre).abs(), below, above)
        regret = (inward - nearest) * (inward + nearest - 2 * levels / _LEVELS)  # by how much the square of the error grows
        near = inward.to(rounded)
        rounded = torch.where(threat.turned(clean, rounded, near, regret), near, rounded)
    unchanged = (adversarial == clean).flatten(1).all(dim=1)
    outside = ~threat.allows(threat.distance(clean, rounded)) & _of_eight_bit(clean)
    return torch.where(per_image(unchanged | outside), clean.to(rounded), rounded)


def _of_eight_bit(images: Tensor) -> Tensor:
    """(N,) bool, whether all values of an image, (N, C, H, W), are k/255."""
    levels = images.double() * _LEVELS
    return ((levels - levels.round()).abs() < _SNAP).flatten(1).all(dim=1)
