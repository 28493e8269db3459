"""What a threat answers, checked once on two of the real images before anything is attacked or judged."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gencls.core import GenclsError, seeded
from gencls.core.settings import plain
from gencls.eval.threats.lp_balls import ThreatModel
from gencls.eval.threats.protocol import Threat


def check_threat(threat: Threat, images: Tensor) -> None:
    """Ask every method of a threat about two images of a batch (N, C, H, W) in [0, 1], and check what comes.

    A number or an image for both would broadcast, integers and complex numbers would be cut, and NaN would look like a fault
    of the defense. Nobody sees that in a result. :class:`ThreatModel` is asked for its size alone. Nothing is drawn from the
    random streams.

    A method that raises NotImplementedError is no fault: attacks of the threat's own need not move by it. One that writes into
    its arguments is a fault: these may be the images of the caller.

    Args:
        threat: the threat.
        images: the first and the last are asked about, on the device where the threat will be.

    Raises:
        GenclsError: for an answer of another type, shape or dtype, or one that is not finite; it names the method. For a bound
            that no image can leave.
    """
    check_distance(threat, images)
    threat.check_reach(images.shape)
    if type(threat) is ThreatModel:
        return
    clean, other = _pair(images)
    with seeded(0):
        bound = threat if threat.epsilon is not None else threat.sized(threat.largest(images.shape) / 2)
        size = _number(threat, "first_step", lambda: bound.first_step)
        for gradient in (other - clean, torch.zeros_like(clean)):
            for length in (size, clean.new_full((2,), size)):
                _images(threat, "step", bound.step, gradient, length, clean)
        for changed in (clean, other):
            _images(threat, "project", bound.project, changed, clean)
        _images(threat, "start", bound.start, clean)


def check_distance(threat: Threat, images: Tensor) -> None:
    """The part of :func:`check_threat` that the judge needs: the distance, and the largest one.

    Raises:
        GenclsError: as :func:`check_threat`, but for the bound.
    """
    if type(threat) is ThreatModel:
        return
    clean, other = _pair(images)
    with seeded(0), torch.no_grad():
        _number(threat, "largest", lambda: threat.largest(images.shape))
        for changed in (clean, other):
            _distances(threat, clean, changed)


def _pair(images: Tensor) -> tuple[Tensor, Tensor]:
    """Two images, and the same with other values everywhere: (2, C, H, W) each, in [0, 1]."""
    clean = images[[0, -1]].detach()
    return clean, torch.where(clean < 0.5, clean + 0.25, clean - 0.25)


def _number(threat: Threat, method: str, ask: Callable[[], Any]) -> float:
    expected = "a finite number > 0"
    found = plain(_answer(threat, method, ask, expected))
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < math.inf:
        raise GenclsError(f"{_name(threat, method)}: expected {expected}, got {_shown(found)}")
    return float(found)


def _distances(threat: Threat, clean: Tensor, changed: Tensor) -> None:
    expected = "finite distances >= 0 of shape (2,) in float64 for two pairs of images"
    found = _answer(threat, "distance", partial(_untouched, threat, "distance", threat.distance, clean, changed), expected)
    single = isinstance(found, Tensor) and found.shape == (2,) and found.dtype in (torch.float32, torch.float64)
    if not single or not bool((torch.isfinite(found) & (found >= 0)).all()):
        raise GenclsError(f"{_name(threat, 'distance')}: expected {expected}, got {_shown(found)}")


def _images(threat: Threat, method: str, call: Callable[..., Any], *given: Any) -> None:
    like = given[-1]
    expected = f"finite values of shape {tuple(like.shape)} in {_dtype(like)} for two images"
    try:
        found = _answer(threat, method, partial(_untouched, threat, method, call, *given), expected)
    except NotImplementedError:
        return
    same = isinstance(found, Tensor) and found.shape == like.shape and found.dtype == like.dtype
    if not same or not bool(torch.isfinite(found).all()):
        raise GenclsError(f"{_name(threat, method)}: expected {expected}, got {_shown(found)}")


def _untouched(threat: Threat, method: str, call: Callable[..., Any], *given: Any) -> Any:
    """What the method returns for copies of the arguments, which it must leave as they are."""
    copies = [value.clone() if isinstance(value, Tensor) else value for value in given]
    found = call(*copies)
    for value, copy in zip(given, copies, strict=True):
        if isinstance(value, Tensor) and not torch.equal(value, copy):
            raise GenclsError(
                f"{_name(threat, method)}: expected a method that leaves its arguments as they are, got one changed"
            )
    return found


def _answer(threat: Threat, method: str, ask: Callable[[], Any], expected: str) -> Any:
    try:
        return ask()
    except (GenclsError, NotImplementedError):
        raise
    except Exception as error:
        raise GenclsError(
            f"{_name(threat, method)}: expected {expected}, got {type(error).__name__} from the method: {error}"
        ) from error


def _name(threat: Threat, method: str) -> str:
    return f"threat {type(threat).__name__}.{method}"


def _shown(found: Any) -> str:
    if not isinstance(found, Tensor):
        return repr(found) if isinstance(found, int | float | str | None) else type(found).__name__
    bad = int((~torch.isfinite(found)).sum())
    values = f": {found.tolist()}" if found.numel() <= 2 else f", {bad} of the values NaN or infinite" if bad else ""
    return f"shape {tuple(found.shape)} in {_dtype(found)}{values}"


def _dtype(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
