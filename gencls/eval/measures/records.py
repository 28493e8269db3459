"""The records of an evaluation: their columns, which of them count, and when a sample is broken.

Every table, curve and test uses these few functions. So no sample is robust in one of them and broken in another.
"""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gencls.core import GenclsError
from gencls.core.gradient_modes import EXACT
from gencls.core.words import with_article
from gencls.eval.measures.names import check_names

if TYPE_CHECKING:
    import pandas

__all__ = [
    "ALL_MODES",
    "NO_GRADIENT",
    "PLAIN_MODES",
    "REQUIRED",
    "broken",
    "complete",
    "judged",
    "same_size",
    "surely_broken",
    "surely_right",
]

NO_GRADIENT = "none"
"""The entry of the column ``gradient`` for an attack that uses no gradient of the defense."""

ALL_MODES = "all"
"""The entry of the column ``gradient`` for the worst case over all modes."""

PLAIN_MODES = (NO_GRADIENT, EXACT.name, ALL_MODES)
"""The entries of the column ``gradient`` that the label of an attack need not mention."""

REQUIRED = (
    *("sample_hash", "label", "defense", "attack", "gradient", "norm", "epsilon", "seed"),
    *("clean_correct", "correct", "claimed", "distance", "valid", "draws", "forwards", "backwards", "seconds", "warnings"),
)
"""Columns that records of every format have."""

_UNKNOWN = ("undecided", "clean_undecided", "left_range", "left_ball", "broken_unrounded", "attack_draws", "peak_memory")
_BOOL = ("majority_correct", "clean_majority_correct")

_GROUPS = ("defense", "attack", "gradient", "norm", "seed", "sample_hash", "eight_bit")
"""Columns that tell records apart: if an entry of one were missing, tables would silently leave out the row."""

_SHARES = ("correct", "clean_correct")
_LISTS = ("predictions", "clean_predictions")

_SAME_SIZE = 1e-6
"""Relative difference up to which two epsilons are the same: float32 holds 8/255 to 6e-8."""


def complete(records: "pandas.DataFrame") -> "pandas.DataFrame":
    """Complete records to every column of this version, with epsilon as a number (NaN for minimal-norm attacks).

    Format 1 knew a fixed number of draws per sample, so its majorities follow exactly from the fractions of right draws.
    Quantities that older versions did not measure (whether a majority is undecided, draws per gradient, peak memory) are
    unknown, NaN, and reported as such. Epsilons that differ by rounding, as 8/255 in double and in single precision, become the
    largest of them.

    Args:
        records: a table from :func:`gencls.eval.evaluate` or a study folder, one row per sample and attack.

    Returns:
        The records; unchanged if nothing is missing.

    Raises:
        GenclsError: a column of every format is missing, a decision is not bool, a number is missing or is none, or a name is
            bad, see :func:`gencls.eval.measures.names.check_names`.
    """
    _check_frame(records)
    missing = [name for name in REQUIRED if name not in records.columns]
    if missing:
        raise GenclsError(f"expected records with the columns {', '.join(REQUIRED)}; missing: {', '.join(missing)}")
    added: dict[str, object] = {}
    for majority, share in zip(_BOOL, _SHARES, strict=True):
        if majority not in records.columns:
            added[majority] = records[share] > 0.5
    if "eight_bit" not in records.columns:
        added["eight_bit"] = False
    added.update({name: float("nan") for name in _UNKNOWN if name not in records.columns})
    epsilon = _as_floats(records, "epsilon")  # None becomes NaN
    sizes = _one_size_each(epsilon)
    if records["epsilon"].dtype != "float64" or sizes is not epsilon:
        added["epsilon"] = sizes
    added.update(_read_back(records))
    records = records.assign(**added) if added else records
    _check_values(records)
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
    """Mark the epsilons that equal this size up to rounding; bool, of the same shape."""
    return abs(epsilons - size) <= _SAME_SIZE * size


def judged(records: "pandas.DataFrame") -> "pandas.DataFrame":
    """Select the complete records that say something about the defense: the adversarial kept to [0, 1] and the ball."""
    return records[records["valid"].astype(bool)]


def broken(records: "pandas.DataFrame") -> "pandas.Series":
    """Mark the judged records whose majority of draws is wrong, on the adversarial or on the clean image.

    A sample that is wrong without an attack is robust under no attack (thesis Table 2.6: distance 0), even if a random defense
    happens to be right on its adversarial.
    """
    wrong: pandas.Series = ~(records["majority_correct"] & records["clean_majority_correct"])
    return wrong


def surely_broken(records: "pandas.DataFrame") -> "pandas.Series":
    """Mark the judged records that are broken by a majority that the judge could decide."""
    wrong: pandas.Series = ~records["majority_correct"] & ~_open(records, "undecided")
    return wrong | (~records["clean_majority_correct"] & ~_open(records, "clean_undecided"))


def surely_right(records: "pandas.DataFrame") -> "pandas.Series":
    """Mark the judged records that are not broken, and whose two majorities the judge could decide."""
    right: pandas.Series = ~broken(records) & ~_open(records, "undecided") & ~_open(records, "clean_undecided")
    return right


def _open(records: "pandas.DataFrame", name: str) -> "pandas.Series":
    return records[name].eq(True)  # unknown counts as decided


def _check_frame(records: Any) -> None:
    """Check that records are a table with each column once.

    Raises:
        GenclsError: they are no such table.
    """
    import pandas

    if not isinstance(records, pandas.DataFrame):
        raise GenclsError(f"records: expected a pandas.DataFrame, got {type(records).__name__}")
    if not records.columns.is_unique:
        raise GenclsError(f"records: expected each column once, got {records.columns[records.columns.duplicated()][0]!r} twice")


def _as_floats(records: "pandas.DataFrame", name: str) -> "pandas.Series":
    """Read a column as float64; None becomes NaN.

    Raises:
        GenclsError: the column holds something else than numbers.
    """
    try:
        return records[name].astype("float64")
    except (TypeError, ValueError) as error:
        raise GenclsError(f"records: expected numbers in {name}, got: {error}") from None


def _check_values(records: "pandas.DataFrame") -> None:
    """Check the values that tables and figures are made of.

    Raises:
        GenclsError: a value is bad; the message names the column, what was expected and what came.
    """
    for name in _GROUPS:
        if records[name].isna().any():
            raise GenclsError(
                f"records: expected {with_article(name)} in every row, got none in {int(records[name].isna().sum())}"
            )
    for name in ("defense", "attack"):
        check_names(records[name].unique(), f"records: {name}")
    for name in _SHARES:
        shares = _as_floats(records, name)
        unfit = ~shares.between(0, 1)
        if name == "correct":  # the judge did not judge a sample that broke the rules
            unfit &= ~(shares.isna() & records["valid"].eq(False))
        if unfit.any():
            raise GenclsError(f"records: expected {name} in [0, 1], got {shares[unfit].iloc[0]}")
    for name in ("draws", "forwards", "backwards", "seconds"):
        numbers = _as_floats(records, name)
        if not (numbers.between(0, float("inf"), inclusive="left") | ((name != "draws") & numbers.isna())).all():
            raise GenclsError(f"records: expected finite {name} >= 0, got {numbers.min()} to {numbers.max()}")
    distances, epsilon = _as_floats(records, "distance"), records["epsilon"]
    unfit = (distances < 0) | (distances.isna() & records["valid"].eq(True))
    if unfit.any():
        raise GenclsError(f"records: expected distances >= 0 of valid adversarials, got {distances[unfit].iloc[0]}")
    if (epsilon <= 0).any():
        raise GenclsError(f"records: expected epsilon > 0, or none of minimal-norm attacks, got {epsilon.min():g}")


def _read_back(records: "pandas.DataFrame") -> "dict[str, pandas.Series]":
    """Restore the columns that a CSV file turned into text, or into nothing: empty warnings, and lists of predictions.

    Raises:
        GenclsError: a text is no list of predictions.
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
