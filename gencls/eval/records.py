"""The records of an evaluation: what each column must be, and how records of an older format are read."""

from typing import TYPE_CHECKING

from gencls.core import GenclsError

if TYPE_CHECKING:
    import pandas

__all__ = ["ALL_MODES", "NO_GRADIENT", "REQUIRED", "WORST_CASE", "complete"]

WORST_CASE = "worst case"
"""In the column ``attack``: per sample the most damaging of all attacks and gradient modes."""

NO_GRADIENT = "none"
"""In the column ``gradient``: the attack uses no gradient of the defense."""

ALL_MODES = "all"
"""In the column ``gradient``: the worst case over all modes."""

REQUIRED = (
    *("sample_hash", "label", "defense", "attack", "gradient", "norm", "epsilon", "seed"),
    *("clean_correct", "correct", "claimed", "distance", "valid", "draws", "forwards", "backwards", "seconds", "warnings"),
)
"""Columns that records of every format have."""

_UNKNOWN = ("undecided", "attack_draws", "peak_memory")
_BOOL = ("majority_correct", "clean_majority_correct")


def complete(records: "pandas.DataFrame") -> "pandas.DataFrame":
    """Records with every column of this version, and epsilon as a number (NaN for minimal-norm attacks).

    Format 1 knew a fixed number of draws per sample, so its majorities follow exactly from the fractions of right draws.
    What it did not measure (whether a majority is undecided, draws per gradient, peak memory) is unknown, NaN, and
    reported as such.

    Args:
        records: as made by :func:`gencls.eval.evaluate` or read from a study folder.

    Returns:
        The records, unchanged where nothing is missing.

    Raises:
        GenclsError: if a column that every format has is missing, or a decision is not bool.
    """
    missing = [name for name in REQUIRED if name not in records.columns]
    if missing:
        raise GenclsError(f"expected records with the columns {', '.join(REQUIRED)}; missing: {', '.join(missing)}")
    added: dict[str, object] = {}
    if "majority_correct" not in records.columns:
        added["majority_correct"] = records["correct"] > 0.5
    if "clean_majority_correct" not in records.columns:
        added["clean_majority_correct"] = records["clean_correct"] > 0.5
    added.update({name: float("nan") for name in _UNKNOWN if name not in records.columns})
    if records["epsilon"].dtype != "float64":
        added["epsilon"] = records["epsilon"].astype("float64")  # None becomes NaN
    records = records.assign(**added) if added else records
    for name in _BOOL:
        if records[name].dtype != "bool":
            raise GenclsError(f"expected records with bool {name}, got dtype {records[name].dtype}")
    return records
