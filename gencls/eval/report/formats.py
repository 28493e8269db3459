"""Writes numbers in the words of a report: percentages, counts, distances, sizes and p-values."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

MISSING = RANGE = "\N{EN DASH}"
THIN_SPACE = "\N{NARROW NO-BREAK SPACE}"


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN, NA or an empty text."""
    if isinstance(value, str):
        return not value
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def text(value: Any) -> str:
    """Write a cell as text; whole floats (a column of integers with gaps) lose their fraction."""
    if is_missing(value):
        return MISSING
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def flag(value: Any) -> str:
    """Write "yes" for True, and nothing for False."""
    return "yes" if not is_missing(value) and value else ""


def percent(value: Any) -> str:
    """Write a proportion in [0, 1] as a percentage with one decimal, without the sign."""
    return MISSING if is_missing(value) else f"{100 * float(value):.1f}"


def count(value: Any) -> str:
    """Write a count with thin spaces between thousands; fractional means below 100 keep one decimal."""
    if is_missing(value):
        return MISSING
    number = float(value)
    digits = f"{number:.1f}" if number < 100 and not number.is_integer() else f"{number:,.0f}"
    return digits.replace(",", THIN_SPACE)


def measured(value: float | str) -> str:
    """Write a piece of a diagnosis's evidence: a number, or words."""
    if isinstance(value, float):
        return f"{value:.6g}"  # a cosine of 0.99997 is not 1
    return str(value) if isinstance(value, bool | str) else count(value)


def number(value: Any) -> str:
    """Write a measured quantity with three significant digits."""
    if is_missing(value):
        return MISSING
    return f"{float(value):.3g}" if abs(float(value)) < 100 else count(round(float(value)))


def distance(value: Any) -> str:
    """Write a distance with three significant digits, zeros at the end included, or ∞."""
    if is_missing(value) or value == 0:
        return MISSING if is_missing(value) else "0"
    return "∞" if math.isinf(value) else f"{float(value):#.3g}".removesuffix(".")


def probability(value: float) -> str:
    """Write a p-value in the usual form: "< .001" or three decimals."""
    return "< .001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def epsilon(value: Any) -> str:
    """Write a perturbation budget as a short decimal, or as a multiple of 1/255 if it is one."""
    if is_missing(value):
        return MISSING
    short, levels = f"{float(value):.4g}", float(value) * 255
    if abs(float(short) - float(value)) > 1e-9 and abs(levels - round(levels)) < 1e-4:
        return f"{round(levels)}/255"
    return short


def warning_list(value: Any) -> list[str]:
    """List the warnings of a row, which is a list or one text with "; " between them."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(";") if part.strip()]
    return [] if is_missing(value) else [str(part) for part in value]


FORMATS = {
    "text": text,
    "percent": percent,
    "count": count,
    "number": number,
    "distance": distance,
    "epsilon": epsilon,
    "flag": flag,
}
