"""The domains of statistics: values that are no numbers, or out of range, are refused before any computation."""

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt

from gencls.core.errors import GenclsError


def as_numbers(values: Any, what: str) -> npt.NDArray[np.float64]:
    """Read values as an array of floats of the same shape; the caller checks for NaN and infinity.

    Raises:
        GenclsError: the values are words, complex numbers, objects, or nested lists of unequal lengths.
    """
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise GenclsError(f"{what}: expected numbers, got {type(values).__name__}: {error}") from None
    if array.dtype.kind == "O":  # fractions, or None among numbers
        numbers = [isinstance(value, Real) and not isinstance(value, bool) for value in array.flat]
        array = array.astype(np.float64) if all(numbers) else array
    if array.dtype.kind not in "biuf":
        raise GenclsError(f"{what}: expected numbers, got dtype {array.dtype}")
    return array.astype(np.float64)


def as_sizes(sizes: Any) -> npt.NDArray[np.float64]:
    """Read sizes of perturbations, and return each once, in order.

    Raises:
        GenclsError: this is no list of finite numbers >= 0.
    """
    found = as_numbers(sizes, "sizes")
    if found.ndim != 1 or not found.size or not bool((np.isfinite(found) & (found >= 0)).all()):
        raise GenclsError(f"expected a list of finite sizes >= 0, got {sizes}")
    return np.unique(found)


def sizes_by_norm(at: Any) -> dict[str, list[float]]:
    """Read the sizes of each norm; a norm without a name here has none.

    Raises:
        GenclsError: this is no mapping from norms to sizes.
    """
    if not isinstance(at, Mapping):
        raise GenclsError(f"expected sizes by norm, a mapping, got {type(at).__name__}")
    return {norm: as_sizes(sizes).tolist() for norm, sizes in at.items()}


def as_codes(codes: Any, what: str, least: int = 1) -> npt.NDArray[np.float64]:
    """Read the codes of N images, (N, ...), as a matrix (N, d).

    Raises:
        GenclsError: these are no finite numbers, there are fewer than ``least`` codes, or they are empty.
    """
    found = as_numbers(codes, what)
    if found.ndim < 2 or len(found) < least or not found.size:
        raise GenclsError(f"{what}: expected codes of shape (N, ...), N >= {least}, got {found.shape}")
    if not bool(np.isfinite(found).all()):
        raise GenclsError(f"{what}: expected finite numbers, got {int((~np.isfinite(found)).sum())} NaN or infinite ones")
    return found.reshape(len(found), -1)


def as_number(value: Any, what: str, low: float, high: float) -> float:
    """Read a finite number within limits, both included.

    Raises:
        GenclsError: this is anything else, such as True or False.
    """
    value = _bare(value)
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high:
        within = "" if math.isinf(low) else f" >= {low:g}" if math.isinf(high) else f" in [{low:g}, {high:g}]"
        raise GenclsError(f"{what}: expected a finite number{within}, got {value!r}")
    return float(value)


def as_count(value: Any, what: str, least: int) -> int:
    """Read a whole number of at least ``least``.

    Raises:
        GenclsError: this is anything else, such as True or False, or a smaller number.
    """
    value = _bare(value)
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise GenclsError(f"{what}: expected an int >= {least}, got {value!r}")
    return int(value)


def as_confidence(value: Any) -> float:
    """Read the coverage of an interval.

    Raises:
        GenclsError: this is no number strictly between 0 and 1.
    """
    value = _bare(value)
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 < float(value) < 1:
        raise GenclsError(f"expected a confidence strictly between 0 and 1, got {value!r}")
    return float(value)


def _bare(value: Any) -> Any:
    """Turn a number of numpy or torch into Python's own."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
