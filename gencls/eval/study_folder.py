"""The folder of a study: what is in it, and how to read it without the defenses that filled it.

study.json           settings and the list of cells      samples.safetensors      images and labels
cells/KEY.parquet    records of a finished cell          cells/KEY.safetensors    its adversarial images
cells/KEY.json       its mark: the checksums of both     doctor.json              the diagnosis, if one was made
results.csv          the table                           report.html, figures/    the report
curves.csv           success rates at every size

Whatever is read is verified first: study.json and doctor.json by checksums of their own, cells by their marks, samples by the
hashes that study.json lists. The last two lines are outputs: they are written anew, and never read.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import warn

import torch
from torch import Tensor

from gencls.core import GenclsError, checked
from gencls.core.files import atomically, check_seal, read_object
from gencls.eval.cell_files import CELLS, RUN_AGAIN, StudyCell, cell_path, is_marked, read_frame, read_images, read_tensors
from gencls.eval.fingerprint import sample_hashes
from gencls.eval.records import complete
from gencls.eval.spreadsheet import csv_of
from gencls.eval.summary import WORST_CASE, compare, summarize

if TYPE_CHECKING:
    import pandas

__all__ = [
    "CELLS",
    "StudyCell",
    "UnfinishedWarning",
    "cell_path",
    "read_adversarials",
    "read_cells",
    "read_records",
    "read_samples",
    "read_study",
    "report_study",
]

FORMAT = 3
"""2: the judge draws sequentially, so records hold different numbers of draws, and majorities of their own. 3: checksums."""
_READABLE = (1, 2, 3)  # to report; only a study of the present format is continued, since an older judge decided otherwise
_CHECKSUMS = 3
"""The first format with checksums."""

SETTINGS, SAMPLES, RESULTS, DIAGNOSIS = "study.json", "samples.safetensors", "results.csv", "doctor.json"

_PANEL_IMAGES = 8


class UnfinishedWarning(UserWarning):
    """What was written is partial: cells of the study are missing."""


@checked
def read_study(folder: str | Path) -> dict[str, Any]:
    """The settings of the study in a folder.

    Raises:
        GenclsError: if the folder holds no study, one of a format that is not known here, or one whose settings were changed.
    """
    path = Path(folder) / SETTINGS
    if not path.is_file():
        raise GenclsError(f"{folder}: expected a study folder with {SETTINGS}, got none")
    advice = "; remove it and run the study again, finished cells are kept"
    settings = read_object(path, "the settings of a study", advice)
    if not {"format", "shard_size", "cells", "seeds"} <= settings.keys():
        raise GenclsError(f"{path}: expected the settings of a study, got JSON of another kind")
    if settings["format"] not in _READABLE:
        raise GenclsError(f"{path}: expected a study of format {_READABLE}, got {settings['format']!r}; update gencls")
    if has_checksums(settings) or "checksum" in settings:  # one flipped bit makes a 2 of a 3
        check_seal(settings, path, advice)
    return settings


def has_checksums(settings: Mapping[str, Any]) -> bool:
    """Whether the files of a study carry checksums; those of formats 1 and 2 do not."""
    return bool(settings["format"] >= _CHECKSUMS)


def read_cells(folder: str | Path) -> list[StudyCell]:
    """The finished cells of the study in a folder, in order. Their files are verified by whoever reads them."""
    folder, settings = Path(folder), read_study(folder)
    return finished(folder, settings, planned(settings))


def planned(settings: Mapping[str, Any]) -> list[StudyCell]:
    """All cells of a study, in order."""
    return [StudyCell(**cell) for cell in settings["cells"]]


def finished(folder: Path, settings: Mapping[str, Any], cells: Sequence[StudyCell]) -> list[StudyCell]:
    """Which of the cells are finished."""
    if has_checksums(settings):
        return [cell for cell in cells if is_marked(folder, cell)]
    return [cell for cell in cells if cell_path(folder, cell, "parquet").exists()]


@checked
def read_samples(folder: str | Path) -> tuple[Tensor, Tensor]:
    """The images (N, C, H, W) and labels (N,) of the study in a folder.

    Raises:
        GenclsError: if they are missing or damaged.
    """
    folder, settings = Path(folder), read_study(folder)
    path = folder / SAMPLES
    tensors = read_tensors(path, "images", "labels")
    images, labels = tensors["images"], tensors["labels"]
    if has_checksums(settings) and sample_hashes(images, labels) != settings["sample_hashes"]:
        raise GenclsError(f"{path}: expected the samples that {SETTINGS} lists, got others; {RUN_AGAIN}")
    return images, labels


@checked
def read_records(folder: str | Path) -> "pandas.DataFrame":
    """One row per sample and finished cell, see :func:`gencls.eval.run_cell`, with the index ``sample`` into the samples.

    While cells are missing, the ``warnings`` of every row say so. Records of format 1 get the columns that they lack, see
    :func:`gencls.eval.records.complete`.

    Raises:
        GenclsError: if the folder holds no study, none of its cells is finished, a cell lacks columns, or cells are damaged.
    """
    folder, settings = Path(folder), read_study(folder)
    cells = planned(settings)
    return records_of(folder, settings, finished(folder, settings, cells), cells)


def records_of(
    folder: Path, settings: Mapping[str, Any], done: Sequence[StudyCell], cells: Sequence[StudyCell]
) -> "pandas.DataFrame":
    """The records of the cells that are done, out of all cells; see :func:`read_records`."""
    import pandas

    if not done:
        raise GenclsError(f"{folder}: expected at least one finished cell, got none; run the study first")
    frames, damaged = [], []
    for cell in done:
        try:
            frames.append(_records_of_cell(folder, settings, cell))
        except GenclsError as error:
            damaged.append(str(error))
    if damaged:
        more = f" ... {len(damaged) - 3} more cells are damaged" if len(damaged) > 3 else ""
        raise GenclsError("; ".join(damaged[:3]) + more)
    records = pandas.concat(frames, ignore_index=True)
    if partial := _partial(done, cells):
        records["warnings"] = [f"{said}; {partial}" if said else partial for said in records["warnings"]]
    return records


def _records_of_cell(folder: Path, settings: Mapping[str, Any], cell: StudyCell) -> "pandas.DataFrame":
    frame, path = read_frame(folder, cell, marked=has_checksums(settings)), cell_path(folder, cell, "parquet")
    try:
        frame = complete(frame.assign(defense=cell.defense, attack=cell.attack))
    except GenclsError as error:
        raise GenclsError(f"{path}: {error}") from error
    first = cell.shard * settings["shard_size"]
    if has_checksums(settings):
        samples = settings["sample_hashes"][first : first + settings["shard_size"]]
        if frame["sample_hash"].to_list() != samples:
            raise GenclsError(f"{path}: expected the {len(samples)} samples of its cell, got others; {RUN_AGAIN}")
    return frame.assign(sample=range(first, first + len(frame)))


def _partial(done: Sequence[StudyCell], cells: Sequence[StudyCell]) -> str:
    """What is to be said while cells are missing."""
    missing = len(cells) - len(done)
    return f"partial: {missing} of {len(cells)} cells are not finished" if missing else ""


@checked
def read_adversarials(folder: str | Path, cell: StudyCell) -> Tensor:
    """The images (n, C, H, W) of a finished cell, as judged.

    Raises:
        GenclsError: if they are missing or damaged.
    """
    folder = Path(folder)
    return read_images(folder, cell, marked=is_marked(folder, cell) or has_checksums(read_study(folder)))


def write_results(folder: Path, records: "pandas.DataFrame") -> "pandas.DataFrame":
    """Write ``results.csv``, the table of the records; returns it, see :func:`gencls.eval.summarize`."""
    table = summarize(records)
    content = csv_of(table)
    atomically(folder / RESULTS, lambda part: part.write_bytes(content))
    return table


@checked
def report_study(folder: str | Path) -> Path:
    """Write ``report.html``, ``results.csv``, ``results.tex``, ``curves.csv`` and the figures of a study from its records.

    While cells are missing all of them say that they are partial, and there is an :class:`UnfinishedWarning`.

    Returns:
        The path of the page.

    Raises:
        GenclsError: if the folder holds no study, none of its cells is finished, or what it shows is malformed or damaged.
    """
    from gencls.eval.report import read_diagnoses, write_report
    from gencls.eval.report.curves import reading_sizes

    folder, settings = Path(folder), read_study(folder)
    cells = planned(settings)
    done = finished(folder, settings, cells)  # once: another process may finish more of them meanwhile
    records, partial = records_of(folder, settings, done, cells), _partial(done, cells)
    diagnosis, images = folder / DIAGNOSIS, _panels(folder, settings, done, records)
    diagnoses = read_diagnoses(diagnosis, strict=has_checksums(settings)) if diagnosis.exists() else ()
    for found in diagnoses if has_checksums(settings) else ():
        if found.defense_key and found.defense_key != settings.get("defenses", {}).get(found.defense):
            raise GenclsError(
                f"{diagnosis}: expected the diagnosis of the study's defense {found.defense}, got that of another one of this "
                "name; remove it and diagnose again"
            )
    summary = write_results(folder, records)
    if partial:
        warn(f"{folder}: {partial}; the report shows the others", UnfinishedWarning, stacklevel=2)
    return write_report(
        folder,
        records=records,
        summary=summary,
        mcnemar=compare(records, at=reading_sizes(records)),
        images=images,
        settings={name: value for name, value in settings.items() if name != "sample_hashes"},
        warnings=list(_reasons(settings, summary, partial)),
        diagnoses=diagnoses,
        partial=partial,
    )


def _reasons(settings: Mapping[str, Any], summary: "pandas.DataFrame", partial: str) -> Iterator[str]:
    """To distrust the study: what is to be said of all of it, then what its rows say, but that they are partial."""
    if not has_checksums(settings):
        yield f"the study has format {settings['format']}, without checksums: damage to its files would not be seen"
    for run in summary[summary["attack"] != WORST_CASE].itertuples():
        said = [warning for warning in run.warnings.split("; ") if warning not in ("", partial)]
        if said:
            yield f"{run.defense}, {run.attack} ({run.gradient}): {'; '.join(said)}"


def _panels(folder: Path, settings: Mapping[str, Any], done: Sequence[StudyCell], records: "pandas.DataFrame") -> list[Any]:
    """For each defense, attack and gradient mode the first images of the first shard."""
    from gencls.eval.report import ImagePanel

    images, labels = read_samples(folder)
    panels = []
    for cell in done:
        if cell.shard or cell.seed != settings["seeds"][0]:
            continue
        adversarial = read_adversarials(folder, cell)[:_PANEL_IMAGES]
        chosen = records[(records["defense"] == cell.defense) & (records["attack"] == cell.attack)]
        chosen = chosen[(chosen["gradient"] == cell.mode) & (chosen["seed"] == cell.seed)].head(len(adversarial))
        panels.append(
            ImagePanel(
                defense=cell.defense,
                attack=cell.attack,
                gradient=cell.mode,
                clean=images[: len(adversarial)],
                adversarial=adversarial,
                labels=labels[: len(adversarial)],
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
