"""The HTML page of a study, and the files that lie beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from gencls.core.errors import GenclsError
from gencls.core.files import atomically
from gencls.eval.doctor.diagnosis import Diagnosis
from gencls.eval.judgement.gradient_modes import meanings
from gencls.eval.measures.names import WORST_CASE, isolated
from gencls.eval.measures.records import complete
from gencls.eval.measures.spreadsheet import csv_of
from gencls.eval.measures.success_rates import robust_accuracy
from gencls.eval.report import formats
from gencls.eval.report.study import columns
from gencls.eval.report.study.curves import curve_frame, reading_sizes, study_curves
from gencls.eval.report.study.estimates import attack_label, estimates, norm_label, threats
from gencls.eval.report.study.figures import all_figures
from gencls.eval.report.study.matrix import ALPHA, better, mcnemar_tables
from gencls.eval.report.study.panels import ImagePanel
from gencls.eval.report.study.tables import latex_tables
from gencls.eval.study.settings import MEANINGS

# The lines in the head of the page, each with the setting that it comes from.
_FACTS = (
    ("Data", "data"),
    ("Split", "split"),
    ("Images", "n"),
    ("Seed", "seed"),
    ("Weights", "weights"),
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
    diagnoses: Sequence[Diagnosis] = (),
    partial: str = "",
) -> Path:
    """Write `report.html`, `results.tex`, `curves.csv` and `figures/*.png|pdf` into a study's folder.

    Equal arguments give equal bytes: the page holds no time except those in the settings.

    Args:
        folder: the study's folder; made if it does not exist.
        records: one row per sample, defense, attack, gradient mode and seed, with the columns of
            :func:`gencls.eval.measures.records.complete` and `sample`. Rows without epsilon are minimal perturbations and give
            success-rate curves; without such rows no `curves.csv` is written.
        summary: one row per defense, attack, gradient mode and seed, and rows with attack "worst case"; the columns of
            `gencls.eval.report.study.columns.SUMMARY`. Accuracies in [0, 1], norms in pixel units of [0, 1].
        mcnemar: paired tests from `pairwise_mcnemar`, with columns `norm` and `epsilon` if the study has several threats.
        images: panels of example images.
        settings: everything needed to repeat the study, as JSON types. `title`, `data`, `split`, `n`, `seed`, `machine`,
            `command` and `created`, here or under `about`, are shown at the head of the page.
        warnings: reasons to distrust the study as a whole.
        diagnoses: the diagnoses of `gencls doctor`; a failed check stands in a banner on top and at its defense.
        partial: words on the missing part of an unfinished study; they stand in a banner on top and in `curves.csv`. The rows
            of such a study say so too.

    Returns:
        The path of the page.

    Raises:
        GenclsError: a frame lacks columns, or the summary is empty.
    """
    from jinja2 import Environment, StrictUndefined

    columns.require(summary, (name for column in columns.SUMMARY for name in column.names), "a summary")
    records = complete(records)
    if not mcnemar.empty:
        columns.require(mcnemar, columns.MCNEMAR_COLUMNS, "paired tests")
    if summary.empty:
        raise GenclsError("expected a summary with at least one row, got none")
    folder = Path(folder)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    curves = study_curves(records, summary)
    figures = [figure.write(folder / "figures") for figure in all_figures(summary, curves, mcnemar, images)]
    failed = {diagnosis.defense: diagnosis.failed for diagnosis in diagnoses if diagnosis.failed}
    atomically(folder / "results.tex", latex_tables(summary, failed).encode())
    points = curve_frame(curves)
    if not points.empty:
        points = points.assign(warnings=partial) if partial else points
        atomically(folder / "curves.csv", csv_of(points))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(percent=formats.percent, count=formats.count, measured=formats.measured)
    template = environment.from_string(resources.files(__package__).joinpath("template.html").read_text("utf-8"))
    about = {**settings, **settings.get("about", {})}
    keys, rows = estimates(summary)
    shown = [column for column in columns.SUMMARY if column.shown(summary)]
    text = template.render(
        title=str(about.get("title", "Robustness study")),
        facts=[(head, _fact(key, about, summary)) for head, key in _FACTS if key in about or key != "weights"],
        command=about.get("command"),
        threats=[key.label for key in keys],
        estimates=rows,
        columns=columns.SUMMARY,
        shown=shown,
        table=[(row["attack"] == WORST_CASE, _cells(row, shown)) for row in summary.to_dict("records")],
        distances=_distances(summary),
        readings=_readings(records),
        pairs=_pairs(mcnemar),
        alpha=f"{100 * ALPHA:g}",
        budget=_budget(records),
        diagnoses=diagnoses,
        failed=failed,
        figures=figures,
        gradients=meanings(map(formats.text, summary["gradient"].unique()), _own_gradients(settings)),
        settings=json.dumps(dict(settings), indent=2, sort_keys=True, ensure_ascii=False, default=str),
        warnings=list(warnings),
        partial=partial,
        missing=formats.MISSING,
    )
    page = folder / "report.html"
    atomically(page, text.encode("utf-8", "backslashreplace"))
    return page


def _cells(row: Mapping[Any, Any], shown: Sequence[columns.Column]) -> list[tuple[str, str, Any]]:
    """Make the cells of a row, one per shown column: its kind, its sort key, and its words (a list for warnings)."""
    cells: list[tuple[str, str, Any]] = []
    for column in shown:
        value = row[column.name]
        if column.kind == "warnings":
            words: Any = formats.warning_list(value)
            cells.append((column.kind, str(len(words)), words))
        else:
            words = norm_label(value) if column.name == "norm" else column.words(row)
            cells.append((column.kind, _sort_key(value), words))
    return cells


def _sort_key(value: Any) -> str:
    """Make the sort key of a cell, in the words of the page's script."""
    if isinstance(value, float) and math.isinf(value):
        return "Infinity"
    return "" if formats.is_missing(value) else str(value)


def _distances(summary: pd.DataFrame) -> list[tuple[str, list[dict[str, Any]]]]:
    """Tabulate for each norm with minimal-norm attacks how far the closest adversarials are (thesis Table 2.6)."""
    minimal, tables = summary[summary["epsilon"].isna()], []
    several = minimal["seed"].nunique() > 1
    for (norm, eight_bit), rows in minimal.groupby(["norm", "eight_bit"], sort=False):
        lines = [
            {
                "defense": formats.text(row["defense"]),
                "attack": attack_label(row) + (f", seed {formats.text(row['seed'])}" if several else ""),
                "worst": row["attack"] == WORST_CASE,
                "cells": [
                    (_sort_key(row[name]), columns.BY_NAME[name].words(row))
                    for name in ("n", "clean_majority_accuracy", "median_distance", "mean_distance", "failures")
                ],
            }
            for row in rows.to_dict("records")
        ]
        tables.append((norm_label(norm) + (", 8-bit" if eight_bit else ""), lines))
    return tables


def _readings(records: pd.DataFrame) -> list[tuple[str, list[str], list[dict[str, Any]]]]:
    """Tabulate for each norm with minimal-norm attacks the accuracy that each attack leaves at some sizes."""
    tables = []
    for norm, sizes in reading_sizes(records).items():
        found = robust_accuracy(records[records["norm"] == norm], sizes)
        lines = [
            {
                "defense": str(defense),
                "attack": str(attack) + (", 8-bit" if eight_bit else ""),
                "worst": attack == WORST_CASE,
                "cells": [(formats.percent(r.accuracy), formats.percent(r.ci_low), formats.percent(r.ci_high)) for r in part],
            }
            for (defense, eight_bit, attack), part in (
                (key, list(rows.itertuples())) for key, rows in found.groupby(["defense", "eight_bit", "attack"], sort=False)
            )
        ]
        tables.append((norm_label(norm), [formats.epsilon(size) for size in sizes], lines))
    return tables


def _pairs(mcnemar: pd.DataFrame) -> list[dict[str, str]]:
    """Tabulate every paired test with all its p-values."""
    lines = []
    for label, _, table in mcnemar_tables(mcnemar):
        for row in table.to_dict("records"):
            side = better(row["p_holm"], row["only_a"], row["only_b"])
            lines.append(
                {
                    "threat": label,
                    "pair": f"{isolated(row['defense_a'])} and {isolated(row['defense_b'])}",
                    "only_a": formats.count(row["only_a"]),
                    "only_b": formats.count(row["only_b"]),
                    **{name: f"{row[name]:.2g}" for name in ("p_value", "p_holm", "p_mid", "p_mid_holm")},
                    "better": {1: str(row["defense_a"]), -1: str(row["defense_b"]), 0: formats.MISSING}[side],
                }
            )
    return lines


def _budget(records: pd.DataFrame) -> list[dict[str, str]]:
    """Tabulate the cost of each attack on each defense: draws, passes per image, seconds in total, memory."""
    keys = ["defense", "attack", "gradient", "norm", "epsilon", "eight_bit"]
    table = []
    for values, rows in records.groupby(keys, sort=False, dropna=False):
        named = dict(zip(keys, values, strict=True))
        per_image = rows[["forwards", "backwards"]].mean()
        judged = float(rows["predictions"].map(len).mean()) if "predictions" in rows else 0.0
        more = f" (mean {formats.count(judged)})" if judged > rows["draws"].max() else ""
        table.append(
            {
                "defense": formats.text(named["defense"]),
                "attack": attack_label(named),
                "threat": threats(rows)[0].label,
                "n": formats.count(len(rows)),
                "attack_draws": formats.count(rows["attack_draws"].max()),
                "draws": formats.count(rows["draws"].max()) + more,
                "forwards": formats.count(per_image["forwards"]),
                "backwards": formats.count(per_image["backwards"]),
                "seconds": formats.number(rows["seconds"].sum()),
                "peak_memory": formats.count(rows["peak_memory"].max()),
            }
        )
    return table


def _own_gradients(settings: Mapping[str, Any]) -> dict[str, Mapping[str, str]]:
    """What the defenses of a study say of gradient modes of their own: defense -> mode -> meaning."""
    defenses = settings.get("defenses", {})  # a list of names in old formats
    named = defenses.items() if isinstance(defenses, Mapping) else ()
    return {name: about.get(MEANINGS, {}) for name, about in named if isinstance(about, Mapping)}


def _fact(key: str, about: Mapping[str, Any], summary: pd.DataFrame) -> str:
    """Write a line of the page's head: from the study's facts, or from the summary for N and seed if these lack it."""
    value = about.get(key)
    if value is None and key == "n":
        smallest, largest = summary["n"].min(), summary["n"].max()
        return formats.count(largest) if smallest == largest else f"{formats.count(smallest)}–{formats.count(largest)}"
    if value is None and key == "seed":
        value = [seed for seed in summary["seed"].unique() if not formats.is_missing(seed) and seed != "all"]
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(formats.text(item) for item in value) or formats.MISSING
    return formats.text(value)
