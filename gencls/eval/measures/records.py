"""The records of an evaluation: what each column must be, which records count, and what one says of its sample.

Every table, curve and test is made of these few functions, so that a sample never counts as robust in one of them and as
broken in another.
"""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gencls.core import GenclsError
from gencls.core.gradient_modes import EXACT
from gencls.eval.measures.names import WORST_CASE
from gencls.eval.measures.record_values import as_floats, check_frame, check_values, read_back

if TYPE_CHECKING:
    import pandas

__all__ = [
    "ALL_MODES",
    "NO_GRADIENT",
    "PLAIN_MODES",
    "REQUIRED",
    "WORST_CASE",
    "broken",
    "complete",
    "judged",
    "same_size",
    "surely_broken",
    "surely_right",
]

NO_GRADIENT = "none"
"""In the column ``gradient``: the attack uses no gradient of the defense."""

ALL_MODES = "all"
"""In the column ``gradient``: the worst case over all modes."""

PLAIN_MODES = (NO_GRADIENT, EXACT.name, ALL_MODES)
"""In the column ``gradient``: what the label of an attack need not mention."""

REQUIRED = (
    *("sample_hash", "label", "defense", "attack", "gradient", "norm", "epsilon", "seed"),
    *("clean_correct", "correct", "claimed", "distance", "valid", "draws", "forwards", "backwards", "seconds", "warnings"),
)
"""Columns that records of every format have."""

_UNKNOWN = ("undecided", "clean_undecided", "left_range", "left_ball", "broken_unrounded", "attack_draws", "peak_memory")
_BOOL = ("majority_correct", "clean_majority_correct")

_SAME_SIZE = 1e-6
"""Relative difference of two epsilons that are one: float32 holds 8/255 to 6e-8."""


def complete(records: "pandas.DataFrame") -> "pandas.DataFrame":
    """Records with every column of this version, and epsilon as a number (NaN for minimal-norm attacks).

    Format 1 knew a fixed number of draws per sample, so its majorities follow exactly from the fractions of right draws.
    What older versions did not measure (whether a majority is undecided, draws per gradient, peak memory) is unknown, NaN, and
    reported as such. Epsilons that differ by rounding, as 8/255 in double and in single precision, become the largest of them.

    Args:
        records: as made by :func:`gencls.eval.evaluate` or read from a study folder.

    Returns:
        The records, unchanged where nothing is missing.

    Raises:
        GenclsError: if a column that every format has is missing, a decision is not bool, a number is none or is missing, or a
            name is none, see :func:`gencls.eval.measures.names.check_names`.
    """
    check_frame(records)
    missing = [name for name in REQUIRED if name not in records.columns]
    if missing:
        raise GenclsError(f"expected records with the columns {', '.join(REQUIRED)}; missing: {', '.join(missing)}")
    added: dict[str, object] = {}
    if "majority_correct" not in records.columns:
        added["majority_correct"] = records["correct"] > 0.5
    if "clean_majority_correct" not in records.columns:
        added["clean_majority_correct"] = records["clean_correct"] > 0.5
    if "eight_bit" not in records.columns:
        added["eight_bit"] = False
    added.update({name: float("nan") for name in _UNKNOWN if name not in records.columns})
    epsilon = as_floats(records, "epsilon")  # None becomes NaN
    sizes = _one_size_each(epsilon)
    if records["epsilon"].dtype != "float64" or sizes is not epsilon:
        added["epsilon"] = sizes
    added.update(read_back(records))
    records = records.assign(**added) if added else records
    check_values(records)
    for name in _BOOL:
        if records[name].dtype != "bool":
            raise GenclsError(f"expected records with bool {name}, got dtype {records[name].dtype}")
    return records


def _one_size_each(epsilon: "pandas.Series") -> "pandas.Series":
    known = sorted(epsilon.dropna().unique(), reverse=True)
    largest = dict.fromkeys(known[:1], known[0]) if known else {}
    for above, size in pairwise(known):
        largest[size] = largest[above] if same_size(above, size) else size
    return epsilon if list(largest.values()) == known else epsilon.map(largest)


def same_size(epsilons: Any, size: float) -> Any:
    """Which epsilons are this one, up to rounding; bool, of the same shape."""
    return abs(epsilons - size) <= _SAME_SIZE * size


def judged(records: "pandas.DataFrame") -> "pandas.DataFrame":
    """Those of the complete records that say something about the defense: the adversarial kept to [0, 1] and the ball."""
    return records[records["valid"].astype(bool)]


def broken(records: "pandas.DataFrame") -> "pandas.Series":
    """Of judged records: the majority of the draws is wrong on the adversarial or on the clean image.

    A sample that is wrong without an attack is robust under none (thesis Table 2.6: distance 0), also where a random defense
    happens to be right on its adversarial.
    """
    wrong: pandas.Series = ~(records["majority_correct"] & records["clean_majority_correct"])
    return wrong


def surely_broken(records: "pandas.DataFrame") -> "pandas.Series":
    """Of judged records: broken, and the majority that says so is decided."""
    wrong: pandas.Series = ~records["majority_correct"] & ~_open(records, "undecided")
    return wrong | (~records["clean_majority_correct"] & ~_open(records, "clean_undecided"))


def surely_right(records: "pandas.DataFrame") -> "pandas.Series":
    """Of judged records: not broken, and both majorities are decided."""
    right: pandas.Series = ~broken(records) & ~_open(records, "undecided") & ~_open(records, "clean_undecided")
    return right


def _open(records: "pandas.DataFrame", name: str) -> "pandas.Series":
    return records[name].eq(True)  # unknown counts as decided
