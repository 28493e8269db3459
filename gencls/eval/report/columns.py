"""The columns of a study's summary: headings, formats and meanings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from gencls.core.errors import GenclsError

MISSING = "\N{EN DASH}"
THIN_SPACE = "\N{NARROW NO-BREAK SPACE}"

Kind = Literal["text", "percent", "count", "number", "epsilon", "warnings"]


@dataclass(frozen=True)
class Column:
    """One column of the summary.

    Args:
        name: Name in the data frame and in results.csv.
        heading: Short heading for people.
        kind: How its values are printed.
        meaning: One or two sentences for the glossary.
    """

    name: str
    heading: str
    kind: Kind
    meaning: str


SUMMARY = (
    Column("defense", "Defense", "text", "The classifier under attack, with everything that belongs to it."),
    Column(
        "attack",
        "Attack",
        "text",
        "The algorithm that searched for adversarial images. “worst case”: per sample the most damaging of all attacks "
        "and gradient modes within the threat.",
    ),
    Column("gradient", "Gradient", "text", "How the attack differentiated the defense; the modes are listed below."),
    Column("norm", "Norm", "text", "The norm in which the size of a perturbation is measured."),
    Column(
        "epsilon",
        "ε",
        "epsilon",
        "Largest allowed perturbation, in pixel units of [0, 1]; missing for minimal attacks.",
    ),
    Column("seed", "Seed", "text", "Seed of the study's random streams."),
    Column("n", "N", "count", "Number of test images, including those already misclassified without an attack."),
    Column("draws", "Draws", "count", "How often the judge asked the defense about each image, with fresh randomness."),
    Column("clean_accuracy", "Clean", "percent", "Accuracy on the unperturbed images, mean over samples and draws."),
    Column(
        "robust_accuracy",
        "Robust",
        "percent",
        "Expected accuracy under attack: the mean over samples and draws, measured by the judge on the real defense.",
    ),
    Column("ci_low", "95 % low", "percent", "Lower limit of the 95 % Wilson interval of the robust accuracy."),
    Column("ci_high", "95 % high", "percent", "Upper limit of the 95 % Wilson interval of the robust accuracy."),
    Column(
        "majority_accuracy",
        "Majority",
        "percent",
        "Share of samples whose most frequent prediction over the draws is correct: what a user gets who votes.",
    ),
    Column(
        "any_draw_accuracy",
        "Any draw",
        "percent",
        "Share of samples that are correct in every draw: one wrong draw counts as success of an attacker who may try "
        "again. Never above the expected accuracy.",
    ),
    Column(
        "claimed_robust_accuracy",
        "Claimed",
        "percent",
        "Robust accuracy as the attack itself reports it. A gap to the judged value means that the attack judged itself "
        "on something else than the real defense.",
    ),
    Column(
        "mean_distance",
        "Distance",
        "number",
        "Mean size of the perturbations in the row's norm, measured on the images that were changed.",
    ),
    Column(
        "forwards",
        "Forwards",
        "count",
        "Forward passes per image, of attack and judge together (in the worst case, of all attacks); each draw of a randomised "
        "defense counts as one.",
    ),
    Column("backwards", "Backwards", "count", "Backward passes per image; each draw counts as one."),
    Column("seconds", "Seconds", "number", "Wall-clock time spent on the row's images."),
    Column("warnings", "Warnings", "warnings", "Reasons to distrust the numbers of the row."),
)

GRADIENT_MODES = {
    "exact": "Ordinary differentiation through the whole defense.",
    "frozen": "The inner optimisation of a Bayes classifier is held fixed, and only the final scores are differentiated; "
    "exact where the inner optimisation has converged.",
    "unrolled": "Differentiates through every step of the inner optimisation.",
    "bpda": "A part without a useful gradient is replaced by a differentiable approximation in the backward pass only.",
    "none": "The attack uses no gradient.",
    "all": "Worst over every mode above that the study ran.",
}

RECORD_COLUMNS = (
    "sample",
    "defense",
    "attack",
    "gradient",
    "norm",
    "epsilon",
    "clean_correct",
    "correct",
    "distance",
    "valid",
    "forwards",
    "backwards",
    "seconds",
)

MCNEMAR_COLUMNS = ("defense_a", "defense_b", "only_a", "only_b", "p_value", "p_holm")


def require(frame: pd.DataFrame, names: Iterable[str], what: str) -> None:
    """Raise unless the frame has the named columns.

    Raises:
        GenclsError: Columns are missing.
    """
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise GenclsError(f"expected {what} with the columns {', '.join(names)}; missing: {', '.join(missing)}")


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN, NA or an empty text."""
    if isinstance(value, str):
        return not value
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def text(value: Any) -> str:
    """A cell as text; whole floats (a column of integers with gaps) lose their fraction."""
    if is_missing(value):
        return MISSING
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def percent(value: Any) -> str:
    """A proportion in [0, 1] as a percentage with one decimal, without the sign."""
    return MISSING if is_missing(value) else f"{100 * float(value):.1f}"


def count(value: Any) -> str:
    """A count with thin spaces between thousands; fractional means below 100 keep one decimal."""
    if is_missing(value):
        return MISSING
    number = float(value)
    digits = f"{number:.1f}" if number < 100 and not number.is_integer() else f"{number:,.0f}"
    return digits.replace(",", THIN_SPACE)


def number(value: Any) -> str:
    """A measured quantity with three significant digits."""
    if is_missing(value):
        return MISSING
    return f"{float(value):.3g}" if abs(float(value)) < 100 else count(round(float(value)))


def epsilon(value: Any) -> str:
    """A perturbation budget: as a short decimal, else as a multiple of 1/255 where it is one."""
    if is_missing(value):
        return MISSING
    short, levels = f"{float(value):.4g}", float(value) * 255
    if abs(float(short) - float(value)) > 1e-9 and abs(levels - round(levels)) < 1e-4:
        return f"{round(levels)}/255"
    return short


def warning_list(value: Any) -> list[str]:
    """The warnings of a row: a list, or one text with "; " between them."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(";") if part.strip()]
    return [] if is_missing(value) else [str(part) for part in value]


FORMATS = {"text": text, "percent": percent, "count": count, "number": number, "epsilon": epsilon}
