"""Writes the report of a study from the files in its folder."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import warn

import torch
from torch import Tensor

from gencls.core import GenclsError, checked
from gencls.eval.doctor.diagnosis import read_diagnoses
from gencls.eval.measures.comparison import compare
from gencls.eval.measures.names import WORST_CASE
from gencls.eval.study.files import StudyCell
from gencls.eval.study.folder import (
    DIAGNOSIS,
    finished,
    partly,
    read_adversarials,
    read_samples,
    records_of,
    records_of_cell,
    write_results,
)
from gencls.eval.study.settings import has_checksums, planned, read_study

if TYPE_CHECKING:
    import pandas

_PANEL_IMAGES = 8


class UnfinishedWarning(UserWarning):
    """The written report is partial: cells of the study are missing."""


@checked
def report_study(folder: str | Path) -> Path:
    """Write ``report.html``, ``results.csv``, ``results.tex``, ``curves.csv`` and the figures of a study from its records.

    While cells are missing, all of these say that they are partial, and the function gives an :class:`UnfinishedWarning`.

    Returns:
        The path of the page.

    Raises:
        GenclsError: the folder holds no study, none of its cells is finished, or a file is malformed or damaged.
    """
    from gencls.eval.report.study.curves import reading_sizes
    from gencls.eval.report.study.page import write_report

    folder, settings = Path(folder), read_study(folder)
    cells = planned(settings)
    done = finished(folder, settings, cells)  # read once: another process may finish more cells meanwhile
    records, partial = records_of(folder, settings, done, cells), partly(done, cells)
    diagnosis, images = folder / DIAGNOSIS, _panels(folder, settings, done)
    diagnoses = read_diagnoses(diagnosis, strict=has_checksums(settings)) if diagnosis.exists() else ()
    for found in diagnoses if has_checksums(settings) else ():
        known = settings.get("defenses", {}).get(found.defense)
        if found.defense_key and found.defense_key != (known["content"] if isinstance(known, dict) else known):
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
    """Yield reasons to distrust the study: warnings about all of it, then those of its rows except that they are partial."""
    if not has_checksums(settings):
        yield f"the study has format {settings['format']}, without checksums: damage to its files would not be seen"
    if said := settings.get("about", {}).get("warning"):
        yield said
    several = summary.groupby(["defense", "attack"])["epsilon"].nunique()
    for run in summary[summary["attack"] != WORST_CASE].itertuples():
        said = [warning for warning in run.warnings.split("; ") if warning not in ("", partial)]
        if said:
            size = f", ε = {run.epsilon:.4g}" if several[run.defense, run.attack] > 1 else ""
            yield f"{run.defense}, {run.attack} ({run.gradient}{size}): {'; '.join(said)}"


def _panels(folder: Path, settings: Mapping[str, Any], done: Sequence[StudyCell]) -> list[Any]:
    """Take for each defense, attack, epsilon and gradient mode the first images of the first shard, under its first seed."""
    from gencls.eval.report.study.panels import ImagePanel

    images, labels = read_samples(folder)
    first = {(cell.defense, cell.attack, cell.epsilon, cell.mode): cell for cell in reversed(done) if not cell.shard}
    panels = []
    for cell in reversed(first.values()):
        adversarial = read_adversarials(folder, cell)[:_PANEL_IMAGES]
        chosen = records_of_cell(folder, settings, cell).head(len(adversarial))
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
    """Turn lists of predictions of different lengths into a tensor (n, S), filled up with -1."""
    rows = [torch.tensor(list(row), dtype=torch.int64) for row in predictions]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
