"""The records of a recipe's studies, put into the words of its tables."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

from gencls.eval import read_records, read_study, summarize
from gencls.eval.measures.names import WORST_CASE
from gencls.eval.measures.records import broken, judged
from gencls.eval.measures.statistics import wilson
from gencls.eval.report.formats import MISSING, percent
from gencls.eval.study.files import CELLS
from gencls.eval.study.folder import read_cells

__all__ = [
    "Share",
    "begun",
    "naturally_right",
    "passes",
    "records_of",
    "right_under",
    "share",
    "slug",
    "unfinished",
    "unfinished_notes",
    "warnings_of",
]


@dataclass(frozen=True)
class Share:
    """A count of samples, and how many of them are right."""

    right: float
    total: int

    @property
    def text(self) -> str:
        """Percent with a 95 % Wilson interval."""
        low, high = wilson(self.right, self.total)
        return f"{percent(self.right / self.total)} [{percent(low)}, {percent(high)}]"

    @property
    def rounded(self) -> str:
        """Whole percent with a 95 % Wilson interval."""
        return "{:.0f} [{:.0f}, {:.0f}]".format(
            *(100 * part for part in (self.right / self.total, *wilson(self.right, self.total)))
        )


def share(right: pd.Series) -> str:
    """Write the share of right samples as :attr:`Share.text` does; a dash without any sample."""
    return Share(float(right.sum()), len(right)).text if len(right) else MISSING


def slug(name: str) -> str:
    """Turn a name into a part of a path."""
    return name.lower().replace(" + ", "-").replace(" ", "-")


def passes(records: pd.DataFrame) -> str:
    """Write the forwards + backwards per image, all attacks and the judge together."""
    sums = records.groupby("sample_hash")[["forwards", "backwards"]].sum().mean()
    return f"{sums['forwards']:,.0f} + {sums['backwards']:,.0f}"


def begun(folder: Path) -> bool:
    """Whether the folder holds a study with at least one finished cell."""
    return (folder / "study.json").is_file() and bool(read_cells(folder))


def records_of(out: Path, *folders: str) -> pd.DataFrame:
    """Join the records of several studies of one defense; empty if no cell is finished."""
    frames = [_read(out / folder, _state(out / folder)) for folder in folders if begun(out / folder)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


@lru_cache(maxsize=64)
def _read(folder: Path, state: tuple[tuple[str, int, int], ...]) -> pd.DataFrame:
    """Read a study's records once while its files do not change. A page asks for the same records dozens of times."""
    return read_records(folder)


def _state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, time of writing and length of each file of a study."""
    paths = [folder / "study.json", *(folder / CELLS).glob("*.json"), *(folder / CELLS).glob("*.parquet")]
    return tuple(sorted(map(_stamp, paths)))


def _stamp(path: Path) -> tuple[str, int, int]:
    """Name, time of writing and length of a file; a new stamp at each look while another process replaces the file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return path.name, time.time_ns(), -1
    return path.name, found.st_mtime_ns, found.st_size


def naturally_right(records: pd.DataFrame) -> pd.Series:
    """Say by sample hash whether the judge's majority is right on the clean image."""
    right: pd.Series = records.groupby("sample_hash")["clean_majority_correct"].first()
    return right


def right_under(records: pd.DataFrame, attacks: Sequence[str] = ()) -> pd.Series:
    """Say by sample hash whether the majority is right on the image and on all valid adversarials of these attacks (or all)."""
    rows = judged(records[records["attack"].isin(attacks)] if attacks else records)
    right: pd.Series = ~broken(rows).groupby(rows["sample_hash"]).any()
    return right


def unfinished(out: Path, *folders: str) -> list[str]:
    """Name the attacks that have unfinished cells."""
    left = []
    for folder in folders:
        if (out / folder / "study.json").is_file():
            done = {cell.key for cell in read_cells(out / folder)}
            left += [cell["attack"] for cell in read_study(out / folder)["cells"] if cell["key"] not in done]
    return list(dict.fromkeys(left))


def unfinished_notes(out: Path, folders: Mapping[str, str]) -> list[str]:
    """Write a note below a table for each row whose study has unfinished cells; ``folders`` maps a row's name to its study."""
    return [
        f"{name}: not finished: {', '.join(left)}." for name, folder in folders.items() if (left := unfinished(out, folder))
    ]


def warnings_of(found: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    """Yield each warning once, with the rows that it concerns."""
    concerned: dict[str, list[str]] = {}
    for name, records in found.items():
        for row in summarize(records).itertuples() if len(records) else ():
            for warning in filter(None, str(row.warnings).split("; ")):
                where = f"{name} / {row.attack}" + ("" if row.gradient in ("none", "exact") else f" ({row.gradient})")
                if row.attack != WORST_CASE:
                    said, size = _apart(warning)
                    concerned.setdefault(said, []).append(where + size)
    for warning, rows in concerned.items():
        yield f"⚠ {warning}: {', '.join(dict.fromkeys(rows))}."


def _apart(warning: str) -> tuple[str, str]:
    """Split a warning into its text without the number, which rows may share, and the number in brackets."""
    patterns = (
        (r"(\d+ of \d+) (majorities .*)", r"\2", 1),
        (r"(the attack's own claim.*) is (\S+ points) (from .*)", r"\1 differs \3", 2),
        (r"(\d+ %) of the (gradients were exactly zero.*)", r"\2", 1),
        (r"(weaker than .*, which \D+) (\d+ of \d+) images more: (.*)", r"\1 more images: \3", 2),
        (r"(weaker than .*, which comes far closer on) (\d+ of \d+) images \(.*\): (.*)", r"\1 images: \3", 2),
        (r"(\d+ of \d+) (adversarials broke the rules .*)", r"\2", 1),
    )
    for pattern, words, number in patterns:
        if match := re.fullmatch(pattern, warning):
            return match.expand(words), f" ({match[number]})"
    return warning, ""
