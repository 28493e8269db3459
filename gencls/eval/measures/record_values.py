"""What the columns of records may hold: records come from studies, but also from CSV files and from people."""

from typing import TYPE_CHECKING, Any

from gencls.core import GenclsError
from gencls.eval.measures.names import check_names

if TYPE_CHECKING:
    import pandas

__all__ = ["as_floats", "check_frame", "check_values", "read_back"]

_GROUPS = ("defense", "attack", "gradient", "norm", "seed", "sample_hash", "eight_bit")
"""Columns by which records are told apart: where one of them is missing, a row would be left out without a word."""

_SHARES = ("correct", "clean_correct")
_LISTS = ("predictions", "clean_predictions")


def check_frame(records: Any) -> None:
    """Check that records are a table with each column once.

    Raises:
        GenclsError: if they are not.
    """
    import pandas

    if not isinstance(records, pandas.DataFrame):
        raise GenclsError(f"records: expected a pandas.DataFrame, got {type(records).__name__}")
    if not records.columns.is_unique:
        raise GenclsError(f"records: expected each column once, got {records.columns[records.columns.duplicated()][0]!r} twice")


def as_floats(records: "pandas.DataFrame", name: str) -> "pandas.Series":
    """A column as float64; None is NaN.

    Raises:
        GenclsError: if it holds something else than numbers.
    """
    try:
        return records[name].astype("float64")
    except (TypeError, ValueError) as error:
        raise GenclsError(f"records: expected numbers in {name}, got: {error}") from None


def check_values(records: "pandas.DataFrame") -> None:
    """Check the values that tables and figures are made of.

    Raises:
        GenclsError: naming the column, what was expected and what came.
    """
    for name in _GROUPS:
        if records[name].isna().any():
            raise GenclsError(f"records: expected a {name} in every row, got none in {int(records[name].isna().sum())}")
    for name in ("defense", "attack"):
        check_names(records[name].unique(), f"records: {name}")
    for name in _SHARES:
        shares = as_floats(records, name)
        unfit = ~shares.between(0, 1)
        if name == "correct":  # what broke the rules was not judged
            unfit &= ~(shares.isna() & records["valid"].eq(False))
        if unfit.any():
            raise GenclsError(f"records: expected {name} in [0, 1], got {shares[unfit].iloc[0]}")
    for name in ("draws", "forwards", "backwards", "seconds"):
        numbers = as_floats(records, name)
        if not (numbers.between(0, float("inf"), inclusive="left") | ((name != "draws") & numbers.isna())).all():
            raise GenclsError(f"records: expected finite {name} >= 0, got {numbers.min()} to {numbers.max()}")
    distances, epsilon = as_floats(records, "distance"), records["epsilon"]
    unfit = (distances < 0) | (distances.isna() & records["valid"].eq(True))
    if unfit.any():
        raise GenclsError(f"records: expected distances >= 0 of valid adversarials, got {distances[unfit].iloc[0]}")
    if (epsilon <= 0).any():
        raise GenclsError(f"records: expected epsilon > 0, or none of minimal-norm attacks, got {epsilon.min():g}")


def read_back(records: "pandas.DataFrame") -> "dict[str, pandas.Series]":
    """What becomes text, or nothing, on the way through a CSV file: no warnings, and lists of predictions.

    Raises:
        GenclsError: for text that is no list of predictions.
    """
    found = {}
    if records["warnings"].isna().any():
        found["warnings"] = records["warnings"].astype("object").fillna("")
    for name in _LISTS:
        if name in records and records[name].map(lambda value: isinstance(value, str)).any():
            found[name] = records[name].map(_as_list)
    return found


def _as_list(value: Any) -> list[int]:
    words = str(value).strip().removeprefix("[").removesuffix("]").replace(",", " ").split()
    try:
        return [int(word) for word in words]
    except ValueError:
        raise GenclsError(f"records: expected a list of predictions, got {value!r}") from None
