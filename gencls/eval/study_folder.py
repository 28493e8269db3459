"""The folder of a study: what is in it, and how to read it without the defenses that filled it.

study.json           settings and the list of cells      samples.safetensors      images and labels
cells/KEY.parquet    records of a finished cell          cells/KEY.safetensors    its adversarial images
results.csv          the table                           report.html, figures/    the report
curves.csv           success rates at every size         doctor.json              the diagnosis, if one was made
"""

import json
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from gencls.core import GenclsError
from gencls.eval.records import complete
from gencls.eval.summary import WORST_CASE, compare, summarize

if TYPE_CHECKING:
    import pandas

__all__ = ["StudyCell", "atomically", "cell_path", "read_adversarials", "read_records", "read_study", "report_study"]

FORMAT = 2
"""2: the judge draws sequentially, so records hold different numbers of draws, and majorities of their own."""
_READABLE = (1, 2)  # to report; only a study of the present format is continued, since an older judge decided otherwise

SETTINGS, SAMPLES, RESULTS, CELLS, DIAGNOSIS = "study.json", "samples.safetensors", "results.csv", "cells", "doctor.json"

_PANEL_IMAGES = 8


@dataclass(frozen=True)
class StudyCell:
    """One unit of work: an attack in one gradient mode on one shard of samples, by name and content key."""

    defense: str
    attack: str
    mode: str
    seed: int
    shard: int
    key: str


def cell_path(folder: Path, cell: StudyCell, kind: str) -> Path:
    """Where a file of a cell lies; kind is "parquet" (exists only when the cell is finished), "safetensors" or "lock"."""
    return folder / CELLS / f"{cell.key}.{kind}"


def read_study(folder: str | Path) -> dict[str, Any]:
    """The settings of the study in a folder.

    Raises:
        GenclsError: if the folder holds no study, or one of a format that is not known here.
    """
    path = Path(folder) / SETTINGS
    if not path.is_file():
        raise GenclsError(f"{folder}: expected a study folder with {SETTINGS}, got none")
    try:
        settings: Any = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise GenclsError(f"{path}: expected the settings of a study in JSON, got {error}") from None
    if not isinstance(settings, dict) or not {"format", "shard_size", "cells", "seeds"} <= settings.keys():
        raise GenclsError(f"{path}: expected the settings of a study, got JSON of another kind")
    if settings["format"] not in _READABLE:
        raise GenclsError(f"{path}: expected a study of format {_READABLE}, got {settings['format']!r}; update gencls")
    return settings


def read_cells(folder: str | Path) -> list[StudyCell]:
    """The finished cells of the study in a folder, in order."""
    folder = Path(folder)
    cells = [StudyCell(**cell) for cell in read_study(folder)["cells"]]
    return [cell for cell in cells if cell_path(folder, cell, "parquet").exists()]


def read_records(folder: str | Path) -> "pandas.DataFrame":
    """One row per sample and finished cell, see :func:`gencls.eval.run_cell`, with the index ``sample`` into the samples.

    Records of format 1 get the columns that they lack, see :func:`gencls.eval.records.complete`.

    Raises:
        GenclsError: if the folder holds no study, none of its cells is finished, or a cell lacks columns.
    """
    import pandas

    folder = Path(folder)
    shard_size = read_study(folder)["shard_size"]
    frames = []
    for cell in read_cells(folder):
        path = cell_path(folder, cell, "parquet")
        try:
            frame = complete(pandas.read_parquet(path).assign(defense=cell.defense, attack=cell.attack))
        except (OSError, ValueError) as error:  # so are Arrow's errors
            raise GenclsError(f"{path}: expected the records of a cell, got {error}; remove the file and run again") from error
        first = cell.shard * shard_size
        frames.append(frame.assign(sample=range(first, first + len(frame))))
    if not frames:
        raise GenclsError(f"{folder}: expected at least one finished cell, got none; run the study first")
    return pandas.concat(frames, ignore_index=True)


def read_adversarials(folder: str | Path, cell: StudyCell) -> Tensor:
    """The images (n, C, H, W) of a finished cell, as judged."""
    return load_file(cell_path(Path(folder), cell, "safetensors"))["adversarial"]


def report_study(folder: str | Path) -> Path:
    """Write ``report.html``, ``results.tex``, ``curves.csv`` and the figures from the records in a study folder.

    Returns:
        The path of the page.

    Raises:
        GenclsError: if the folder holds no study, none of its cells is finished, or its ``doctor.json`` is malformed.
    """
    from gencls.eval.report import read_diagnoses, write_report
    from gencls.eval.report.curves import reading_sizes

    folder = Path(folder)
    settings, records = read_study(folder), read_records(folder)
    summary = summarize(records)
    missing = len(settings["cells"]) - len(read_cells(folder))
    warnings = [f"{missing} of {len(settings['cells'])} cells are not finished; the table is partial"] if missing else []
    runs = summary[summary["attack"] != WORST_CASE]
    warnings += [f"{run.defense}, {run.attack} ({run.gradient}): {run.warnings}" for run in runs.itertuples() if run.warnings]
    return write_report(
        folder,
        records=records,
        summary=summary,
        mcnemar=compare(records, at=reading_sizes(records)),
        images=_panels(folder, records),
        settings=settings,
        warnings=warnings,
        diagnoses=read_diagnoses(folder / DIAGNOSIS) if (folder / DIAGNOSIS).exists() else (),
    )


def _panels(folder: Path, records: "pandas.DataFrame") -> list[Any]:
    """For each defense, attack and gradient mode the first images of the first shard."""
    from gencls.eval.report import ImagePanel

    samples = load_file(folder / SAMPLES)
    panels = []
    for cell in read_cells(folder):
        if cell.shard or cell.seed != read_study(folder)["seeds"][0]:
            continue
        adversarial = read_adversarials(folder, cell)[:_PANEL_IMAGES]
        chosen = records[(records["defense"] == cell.defense) & (records["attack"] == cell.attack)]
        chosen = chosen[(chosen["gradient"] == cell.mode) & (chosen["seed"] == cell.seed)].head(len(adversarial))
        panels.append(
            ImagePanel(
                defense=cell.defense,
                attack=cell.attack,
                gradient=cell.mode,
                clean=samples["images"][: len(adversarial)],
                adversarial=adversarial,
                labels=samples["labels"][: len(adversarial)],
                predictions=_padded(chosen["predictions"]),
                clean_predictions=_padded(chosen["clean_predictions"]),
                norm=chosen["norm"].iloc[0],
                eight_bit=bool(chosen["eight_bit"].iloc[0]),
                epsilon=None if chosen["epsilon"].isna().iloc[0] else chosen["epsilon"].iloc[0],
            )
        )
    return panels


def _padded(predictions: "pandas.Series") -> Tensor:
    """Lists of predictions, some longer than others -> (n, S), filled up with -1."""
    rows = [torch.tensor(list(row), dtype=torch.int64) for row in predictions]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


def atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a name of its own, then rename it: readers see the whole file or none."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
