"""The HTML page of a study, and the files that lie beside it."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from gencls.core.errors import GenclsError
from gencls.eval.report import columns
from gencls.eval.report.figures import NamedFigure, all_figures
from gencls.eval.report.panels import ImagePanel
from gencls.eval.report.tables import latex_tables
from gencls.eval.report.verdict import attack_label, norm_label, threats, verdict
from gencls.eval.summary import WORST_CASE

# What the head of the page shows, with the setting it comes from.
_FACTS = (
    ("Data", "data"),
    ("Split", "split"),
    ("Images", "n"),
    ("Seed", "seed"),
    ("Machine", "machine"),
    ("Made", "created"),
)


def write_report(
    folder: Path,
    *,
    records: pd.DataFrame,
    summary: pd.DataFrame,
    mcnemar: pd.DataFrame,
    images: Sequence[ImagePanel],
    settings: Mapping[str, Any],
    warnings: Sequence[str],
) -> Path:
    """Write `report.html`, `results.tex` and `figures/*.png|pdf` into a study's folder.

    Equal arguments give equal bytes: the page holds no time but what the settings say.

    Args:
        folder: The study's folder; made if it does not exist.
        records: One row per sample, defense, attack, gradient mode and seed. Rows without epsilon are minimal perturbations
            and give success-rate curves.
        summary: One row per defense, attack, gradient mode and seed, and rows with attack "worst case"; the columns of
            `gencls.eval.report.columns.SUMMARY`. Accuracies in [0, 1], norms in pixel units of [0, 1].
        mcnemar: Paired tests as `pairwise_mcnemar` gives them, with `norm` and `epsilon` where there are several threats.
        images: Panels of example images.
        settings: Everything needed to repeat the study, as JSON types. `title`, `data`, `split`, `n`, `seed`, `machine`,
            `command` and `created`, here or under `about`, are shown at the head of the page.
        warnings: Reasons to distrust the study as a whole.

    Returns:
        Path of the page.

    Raises:
        GenclsError: A frame lacks columns, or the summary is empty.
    """
    columns.require(summary, (column.name for column in columns.SUMMARY), "a summary")
    columns.require(records, columns.RECORD_COLUMNS, "records")
    if not mcnemar.empty:
        columns.require(mcnemar, columns.MCNEMAR_COLUMNS, "paired tests")
    if summary.empty:
        raise GenclsError("expected a summary with at least one row, got none")
    folder = Path(folder)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    shown = []
    for figure in all_figures(records, summary, mcnemar, images):
        png = figure.encode("png")
        _replace(folder / "figures" / f"{figure.name}.png", png)
        _replace(folder / "figures" / f"{figure.name}.pdf", figure.encode("pdf"))
        shown.append(_embed(figure, png))
    _replace(folder / "results.tex", latex_tables(summary).encode())
    page = folder / "report.html"
    _replace(page, _render(records, summary, shown, settings, warnings).encode())
    return page


def _render(
    records: pd.DataFrame,
    summary: pd.DataFrame,
    figures: Sequence[Mapping[str, str]],
    settings: Mapping[str, Any],
    warnings: Sequence[str],
) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(percent=columns.percent, count=columns.count)
    template = environment.from_string(resources.files(__package__).joinpath("template.html").read_text("utf-8"))
    about = {**settings, **settings.get("about", {})}
    keys, rows = verdict(summary)
    return template.render(
        title=str(about.get("title", "Robustness study")),
        facts=[(head, _fact(key, about, summary)) for head, key in _FACTS],
        command=about.get("command"),
        threats=[key.label for key in keys],
        verdict=rows,
        columns=columns.SUMMARY,
        table=[(row["attack"] == WORST_CASE, _cells(row)) for row in summary.to_dict("records")],
        budget=_budget(records),
        figures=figures,
        gradients=columns.GRADIENT_MODES,
        settings=json.dumps(dict(settings), indent=2, sort_keys=True, ensure_ascii=False, default=str),
        warnings=list(warnings),
        missing=columns.MISSING,
    )


def _cells(row: Mapping[Any, Any]) -> list[tuple[str, str, Any]]:
    """For each column of the summary: its kind, the key it sorts by, and the words (a list for warnings)."""
    cells: list[tuple[str, str, Any]] = []
    for column in columns.SUMMARY:
        value = row[column.name]
        if column.kind == "warnings":
            words: Any = columns.warning_list(value)
            cells.append((column.kind, str(len(words)), words))
        else:
            words = norm_label(value) if column.name == "norm" else columns.FORMATS[column.kind](value)
            cells.append((column.kind, "" if columns.is_missing(value) else str(value), words))
    return cells


def _budget(records: pd.DataFrame) -> list[dict[str, str]]:
    """What each attack spent on each defense: passes per image and in total, seconds."""
    keys = ["defense", "attack", "gradient", "norm", "epsilon"]
    table = []
    for values, rows in records.groupby(keys, sort=False, dropna=False):
        named = dict(zip(keys, values, strict=True))
        key = threats(rows)[0]
        per_image = rows[["forwards", "backwards"]].mean()
        total = rows[["forwards", "backwards", "seconds"]].sum()
        table.append(
            {
                "defense": columns.text(named["defense"]),
                "attack": attack_label(named),
                "threat": key.label,
                "n": columns.count(len(rows)),
                "draws": columns.text(rows["draws"].max()) if "draws" in rows else columns.MISSING,
                "forwards": columns.count(per_image["forwards"]),
                "backwards": columns.count(per_image["backwards"]),
                "all_forwards": columns.count(total["forwards"]),
                "all_backwards": columns.count(total["backwards"]),
                "seconds": columns.number(total["seconds"]),
            }
        )
    return table


def _fact(key: str, about: Mapping[str, Any], summary: pd.DataFrame) -> str:
    """A line of the page's head: as the study says, or for N and seed from the summary."""
    value = about.get(key)
    if value is None and key == "n":
        smallest, largest = summary["n"].min(), summary["n"].max()
        return columns.count(largest) if smallest == largest else f"{columns.count(smallest)}–{columns.count(largest)}"
    if value is None and key == "seed":
        value = [seed for seed in summary["seed"].unique() if not columns.is_missing(seed) and seed != "all"]
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(columns.text(item) for item in value) or columns.MISSING
    return columns.text(value)


def _embed(figure: NamedFigure, png: bytes) -> dict[str, str]:
    data = base64.b64encode(png).decode("ascii")
    width = str(round(96 * figure.figure.get_figwidth()))  # CSS pixels: the drawn size, whatever the resolution
    return {"section": figure.section, "name": figure.name, "title": figure.title, "width": width, "data": data}


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a second process, sees the old one or the new one and nothing between."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    os.replace(part, path)
