"""Writes and reads tables as CSV that a spreadsheet shows and does not calculate."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gencls.core import GenclsError

if TYPE_CHECKING:
    import pandas

_FORMULA = re.compile(r"'*\s*[=+\-@\t\r\n＝＋－＠].*", re.DOTALL)
"""Text that a spreadsheet would take for a formula, also after the apostrophes that this file puts before it."""


def csv_of(frame: "pandas.DataFrame") -> bytes:
    """Write a table as CSV in UTF-8, with ten digits.

    Text that begins like a formula gets an apostrophe in front, which spreadsheets read as "this is text". Characters that
    UTF-8 cannot hold are written as Python writes them. A carriage return becomes a line feed, since readers end a row there.
    """
    texts = {name: frame[name].map(_quoted) for name in frame if frame[name].dtype.kind not in "biufcmM"}
    written: str = frame.assign(**texts).to_csv(index=False, float_format="%.10g", lineterminator="\n")
    return written.encode("utf-8", "backslashreplace")


def read_csv(path: str | Path) -> "pandas.DataFrame":
    """Read a table that :func:`csv_of` has written: ``results.csv`` or ``curves.csv``, with the names as they were.

    Names of defenses, attacks and gradient modes are text, even if they look like numbers or like nothing ("nan").

    Raises:
        GenclsError: the file cannot be read as a table.
    """
    import pandas

    names = ["defense", "attack", "gradient", "norm"]
    try:
        kept = pandas.read_csv(path, dtype=dict.fromkeys(names, "str"), keep_default_na=False)
        frame = pandas.read_csv(path)
    except (OSError, ValueError) as error:
        raise GenclsError(f"{path}: expected a table as CSV, got: {error}") from None
    frame = frame.assign(**{name: kept[name] for name in names if name in frame})
    texts = {name: frame[name].map(_bare) for name in frame if frame[name].dtype.kind not in "biufcmM"}
    if "warnings" in frame:
        texts["warnings"] = kept["warnings"].map(_bare)
    return frame.assign(**texts)


def _quoted(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    value = value.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{value}" if _FORMULA.fullmatch(value) else value


def _bare(value: Any) -> Any:
    return value[1:] if isinstance(value, str) and value.startswith("'") and _FORMULA.fullmatch(value) else value
