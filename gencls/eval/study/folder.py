"""The folder of a study: its files, and functions that read them without the defenses.

study.json           settings and the list of cells      samples.safetensors      images, labels, bounds of the shards
cells/KEY.parquet    records of a finished cell          cells/KEY.safetensors    its adversarial images
cells/KEY.json       its mark: the checksums of both     doctor.json              the diagnosis, if one was made
results.csv          the table                           report.html, figures/    the report
curves.csv           success rates at every size

Every file is verified before it is used: study.json and doctor.json carry checksums, marks have the checksums of cells, and
study.json lists the hashes of samples. The last two lines are outputs: each call writes them anew, and nothing reads them.

A folder may grow: calls add rows and samples, see :mod:`gencls.eval.study.growth`. Samples are written before the study.json
that lists them, so the file may hold more samples than study.json lists.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from gencls.core import GenclsError, checked
from gencls.core.files import atomically
from gencls.core.images import sample_hashes
from gencls.eval.measures.records import complete
from gencls.eval.measures.spreadsheet import csv_of
from gencls.eval.measures.summary import summarize
from gencls.eval.study.files import RUN_AGAIN, SAMPLES, StudyCell, cell_path, is_marked, read_frame, read_images, read_tensors
from gencls.eval.study.settings import SETTINGS, first_sample, has_checksums, is_outdated, planned, read_study

if TYPE_CHECKING:
    import pandas

RESULTS, DIAGNOSIS = "results.csv", "doctor.json"

_OUTDATED = "computed by other code of gencls or libraries than the newest rows: name it again to compute it anew"


def read_cells(folder: str | Path) -> list[StudyCell]:
    """The finished cells of the study in a folder, in order. The functions that read their files verify them."""
    folder, settings = Path(folder), read_study(folder)
    return finished(folder, settings, planned(settings))


def finished(folder: Path, settings: Mapping[str, Any], cells: Sequence[StudyCell]) -> list[StudyCell]:
    """The finished ones among the cells."""
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
    if not has_checksums(settings):
        return images, labels
    listed = settings["sample_hashes"]
    images, labels = images[: len(listed)], labels[: len(listed)]
    if len(images) != len(labels) or sample_hashes(images, labels) != listed:
        raise GenclsError(f"{path}: expected the samples that {SETTINGS} lists, got others; {RUN_AGAIN}")
    return images, labels


@checked
def read_records(folder: str | Path) -> "pandas.DataFrame":
    """One row per sample and finished cell, see :func:`gencls.eval.run_cell`, with the index ``sample`` into the samples.

    While cells are missing, the ``warnings`` of every row say so. Records of format 1 get the columns that they lack, see
    :func:`gencls.eval.measures.records.complete`.

    Raises:
        GenclsError: if the folder holds no study, none of its cells is finished, a cell lacks columns, or cells are damaged.
    """
    folder, settings = Path(folder), read_study(folder)
    cells = planned(settings)
    return records_of(folder, settings, finished(folder, settings, cells), cells)


def records_of(
    folder: Path, settings: Mapping[str, Any], done: Sequence[StudyCell], cells: Sequence[StudyCell]
) -> "pandas.DataFrame":
    """The records of the cells ``done``, out of all cells; see :func:`read_records`."""
    import pandas

    if not done:
        raise GenclsError(f"{folder}: expected at least one finished cell, got none; run the study first")
    frames, damaged = [], []
    for cell in done:
        try:
            frames.append(records_of_cell(folder, settings, cell))
        except GenclsError as error:
            damaged.append(str(error))
    if damaged:
        more = f" ... {len(damaged) - 3} more cells are damaged" if len(damaged) > 3 else ""
        raise GenclsError("; ".join(damaged[:3]) + more)
    records = pandas.concat(frames, ignore_index=True)
    if partial := partly(done, cells):
        records["warnings"] = [f"{said}; {partial}" if said else partial for said in records["warnings"]]
    return records


def records_of_cell(folder: Path, settings: Mapping[str, Any], cell: StudyCell) -> "pandas.DataFrame":
    """The records of one finished cell; see :func:`read_records`."""
    frame, path = read_frame(folder, cell, marked=has_checksums(settings)), cell_path(folder, cell, "parquet")
    try:
        frame = complete(frame.assign(defense=cell.defense, attack=cell.attack))
    except GenclsError as error:
        raise GenclsError(f"{path}: {error}") from error
    first = first_sample(settings, cell)
    if has_checksums(settings):
        stop = settings["shards"][cell.shard][1] if "shards" in settings else first + settings["shard_size"]
        samples = settings["sample_hashes"][first:stop]
        if frame["sample_hash"].to_list() != samples:
            raise GenclsError(f"{path}: expected the {len(samples)} samples of its cell, got others; {RUN_AGAIN}")
    if is_outdated(settings, cell):
        frame["warnings"] = [f"{said}; {_OUTDATED}" if said else _OUTDATED for said in frame["warnings"]]
    return frame.assign(sample=range(first, first + len(frame)))


def partly(done: Sequence[StudyCell], cells: Sequence[StudyCell]) -> str:
    """The warning while cells are missing."""
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
    atomically(folder / RESULTS, csv_of(table))
    return table
