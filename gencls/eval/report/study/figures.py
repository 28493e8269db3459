"""Figures of a study: accuracies with intervals, success-rate curves, claims against judgement, paired tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gencls.eval.measures.names import WORST_CASE, file_name, isolated
from gencls.eval.measures.success_rates import SuccessCurve
from gencls.eval.report.study.curves import AtBudgets, Curves, DefenseCurves
from gencls.eval.report.study.estimates import ThreatKey, attack_label, defenses, norm_label, select, threats
from gencls.eval.report.study.matrix import mcnemar_matrix, mcnemar_tables
from gencls.eval.report.study.panels import ImagePanel, image_grid
from gencls.eval.report.style import FAINT, GRID, INK, PALETTE, STYLE, WIDTH, NamedFigure, drawn, legend_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "osD^vPX*"


def all_figures(
    summary: pd.DataFrame, curves: Curves, mcnemar: pd.DataFrame, images: Sequence[ImagePanel]
) -> Iterator[NamedFigure]:
    """Draw every figure that the study has data for, in the order of the page."""
    import matplotlib

    taken: set[str] = set()
    with matplotlib.rc_context(STYLE):
        for figure in _figures(summary, curves, mcnemar, images):
            ways = (f"{figure.name}-{i}" if i > 1 else figure.name for i in count(1))  # "a-b" by "c", "a" by "b-c"
            name = next(name for name in ways if name not in taken)
            taken.add(name)
            yield replace(figure, name=name)


def _figures(
    summary: pd.DataFrame, curves: Curves, mcnemar: pd.DataFrame, images: Sequence[ImagePanel]
) -> Iterator[NamedFigure]:
    known = summary[summary["robust_accuracy"].notna()]
    bounded = [threat for threat in threats(known) if threat.epsilon is not None]
    for threat in bounded:
        yield NamedFigure("accuracy", f"accuracy-{threat.slug}", threat.label, accuracy_figure(summary, threat))
    for norm, by_defense in curves.items():
        title = f"Worst case over all {norm_label(norm)} attacks"
        yield NamedFigure("curves", file_name("curves", norm), title, worst_case_curves(by_defense, norm, defenses(summary)))
        for name, known in by_defense.items():
            if len(known.minimal) > 2:  # a single attack is the worst case
                title = f"{isolated(name)}, {norm_label(norm)}: each attack"
                yield NamedFigure("curves", file_name("curves", norm, name), title, attack_curves(known, norm))
    for threat in threats(summary):
        rows = select(summary, threat)
        rows = rows[(rows["attack"] != WORST_CASE) & rows["claimed_robust_accuracy"].notna()]
        if not rows.empty:
            figure = claimed_against_judged(rows, minimal=threat.epsilon is None)
            yield NamedFigure("claims", f"claimed-{threat.slug}", threat.label, figure)
    for label, slug, table in mcnemar_tables(mcnemar):
        compared = {*table["defense_a"], *table["defense_b"]}
        matrix = mcnemar_matrix(table, [name for name in defenses(summary) if name in compared])
        yield NamedFigure("mcnemar", f"mcnemar-{slug}", label, matrix)
    for panel in images:
        yield NamedFigure("images", f"images-{panel.slug}", panel.title, image_grid(panel))


def accuracy_figure(summary: pd.DataFrame, threat: ThreatKey) -> Figure:
    """Draw the worst case with its interval, single attacks below, and a tick for the clean accuracy; one band a defense."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows = select(summary, threat).dropna(subset=["robust_accuracy"])
    names = [name for name in defenses(summary) if (rows["defense"] == name).any()]
    looks = _looks(summary)
    shown = list(dict.fromkeys(attack_label(row) for _, row in rows.iterrows() if row["attack"] != WORST_CASE))
    worst_first = sorted((row for _, row in rows.iterrows()), key=lambda row: row["attack"] != WORST_CASE)
    bands = [[row for row in worst_first if row["defense"] == name] for name in names]
    columns = legend_columns(map(drawn, shown), 3)
    height = 0.95 + 0.2 * ((len(shown) + 1 + columns) // columns) + 0.19 * sum(len(band) + 1.2 for band in bands)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axis = figure.subplots()
    y, ticks = 0.0, []
    for band in bands:
        ticks.append(y + (len(band) - 1) / 2)
        axis.vlines(100 * band[0]["clean_accuracy"], y - 0.6, y + len(band) - 0.4, color=FAINT, linewidth=1.8)
        for row in band:
            worst = row["attack"] == WORST_CASE
            colour, marker = (INK, "o") if worst else looks[attack_label(row)]
            axis.hlines(y, 100 * row["ci_low"], 100 * row["ci_high"], color=colour, linewidth=2.4 if worst else 1.2)
            size = 7 if worst else 5
            axis.plot(100 * row["robust_accuracy"], y, marker=marker, color=colour, markersize=size, clip_on=False)
            y += 1
        axis.axhline(y + 0.1, color=GRID, linewidth=0.8)
        y += 1.2
    axis.set(xlim=(-2, 102), ylim=(y - 1.1, -1.1), yticks=ticks, yticklabels=list(map(drawn, names)))
    axis.set_xlabel("accuracy in %")
    axis.grid(axis="x", color=GRID, linewidth=0.8)
    handles = [Line2D([], [], color=INK, marker="o", markersize=7, label=WORST_CASE)]
    for name in shown:
        colour, marker = looks[name]
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=5, linewidth=1.2, label=drawn(name)))
    handles.append(Line2D([], [], color=FAINT, marker="|", markersize=11, mew=1.8, linestyle="", label="clean"))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
    return figure


def worst_case_curves(by_defense: Mapping[str, DefenseCurves], norm: str, order: Sequence[str]) -> Figure:
    """Draw the share of broken samples against the size of the perturbation, one curve a defense; clean errors stand at 0."""
    order = [*order, *(name for name in by_defense if name not in order)]  # defenses under 8-bit images
    shown = {name: by_defense[name].worst for name in order if name in by_defense}
    labels = {name: _said(name, curve) for name, curve in shown.items()}
    figure, axis, columns = _curve_axes(norm, labels.values(), 2, [curve for curve in shown.values() if curve])
    for i, (name, curve) in enumerate(shown.items()):
        colour, marker = PALETTE[order.index(name) % len(PALETTE)], _MARKERS[i % len(_MARKERS)]
        if curve is not None:
            _curve(axis, curve, colour, labels[name], marker=marker, band=True)
    figure.legend(loc="outside lower center", ncols=columns)
    return figure


def attack_curves(known: DefenseCurves, norm: str) -> Figure:
    """Draw one curve for each minimal-norm attack on one defense, and the worst case with its band."""
    figure, axis, columns = _curve_axes(norm, map(drawn, known.minimal), 3, list(known.minimal.values()))
    for i, (attack, curve) in enumerate(known.minimal.items()):
        worst = attack == WORST_CASE
        _curve(axis, curve, INK if worst else PALETTE[i % len(PALETTE)], drawn(attack), band=worst)
    figure.legend(loc="outside lower center", ncols=columns)
    return figure


def _said(name: str, curve: SuccessCurve | AtBudgets | None) -> str:
    return drawn(name) + (" (attacked sizes only)" if isinstance(curve, AtBudgets) else "")


def _curve_axes(
    norm: str, labels: Iterable[str], most: int, curves: Sequence[SuccessCurve | AtBudgets]
) -> tuple[Figure, Axes, int]:
    """Make empty axes for these curves, and choose the number of columns of their legend."""
    from matplotlib.figure import Figure

    labels = list(labels)
    columns = legend_columns(labels, most)
    figure = Figure(figsize=(WIDTH, 3.3 + 0.2 * -(-len(labels) // min(2, columns))), layout="constrained")
    axis = figure.subplots()
    # The axis ends at 98 % of each curve's successes: a single far one must not squeeze the rest.
    ends = [curve.epsilon[np.searchsorted(curve.rate, 0.98 * curve.rate[-1])] for curve in curves]
    budgets = [curve.epsilon[-1] for curve in curves if isinstance(curve, AtBudgets)]
    right = 1.05 * max([*ends, *budgets, 0.0])
    axis.set(xlabel=f"{norm_label(norm)} size of the perturbation, ε", ylabel="success rate in %", ylim=(-2, 102))
    axis.set_xlim(0, right or 1.0)
    axis.grid(color=GRID, linewidth=0.8)
    return figure, axis, columns


def _curve(
    axis: Axes, curve: SuccessCurve | AtBudgets, colour: str, label: str, *, marker: str = "", band: bool = False
) -> None:
    """Draw steps that go on to the right border, or marks at the attacked budgets; ``band`` adds the Wilson band."""
    exact = isinstance(curve, SuccessCurve)
    points = [curve.epsilon, 100 * curve.rate, 100 * curve.low, 100 * curve.high]
    if exact:
        points[0] = np.append(points[0], max(axis.get_xlim()[1], points[0][-1]))
        points[1:] = [np.append(values, values[-1]) for values in points[1:]]
    size, rate, low, high = points
    if band:
        axis.fill_between(size, low, high, step="post" if exact else None, color=colour, alpha=0.15, linewidth=0)
    axis.plot(
        size,
        rate,
        drawstyle="steps-post" if exact else "default",
        color=colour,
        linewidth=1.8 if band else 1.2,
        marker="" if exact else marker,
        markersize=4.5,
        label=label,
    )


def claimed_against_judged(rows: pd.DataFrame, *, minimal: bool = False) -> Figure:
    """Draw one line an attack: the accuracy that it claims (open) and the accuracy that the judge measures (filled).

    For minimal-norm attacks the judge's majority counts, since a minimal perturbation of a randomised defense ends where half
    of the draws are wrong. With a budget the majority is a third mark if the judge drew more than once.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    labels = [_claimant(row, seed=rows["seed"].nunique() > 1) for _, row in rows.iterrows()]
    figure = Figure(figsize=(WIDTH, 1.1 + sum(0.22 + 0.14 * label.count("\n") for label in labels)), layout="constrained")
    axis = figure.subplots()
    voted = not minimal and bool((rows["draws"] > 1).any())
    for y, (_, row) in enumerate(rows.iterrows()):
        claimed, judged = 100 * row["claimed_robust_accuracy"], 100 * row["majority_accuracy" if minimal else "robust_accuracy"]
        axis.plot([claimed, judged], [y, y], color=FAINT, linewidth=1.4, zorder=1)
        if not minimal and row["draws"] > 1:
            ends = [100 * row[name] for name in ("majority_low", "majority_high")]  # undecided samples make it a range
            axis.plot(ends, [y, y], color=PALETTE[2], linewidth=1.4, zorder=1)
            axis.plot(100 * row["majority_accuracy"], y, "D", markersize=4.5, color=PALETTE[2])
        axis.plot(claimed, y, "o", markersize=7.5, mfc="white", mec=PALETTE[1], mew=1.4)
        axis.plot(judged, y, "o", markersize=4.5, color=PALETTE[0])
    axis.set(xlim=(-2, 102), ylim=(len(rows) - 0.4, -0.6), yticks=range(len(rows)), yticklabels=labels)
    axis.set_xlabel("robust accuracy in %")
    axis.grid(axis="x", color=GRID, linewidth=0.8)
    looks: list[dict[str, Any]] = [
        {"markersize": 7.5, "mfc": "white", "mec": PALETTE[1], "mew": 1.4, "label": "claimed by the attack"},
        {"markersize": 4.5, "color": PALETTE[0], "label": f"judged, {'majority' if minimal else 'expected'}"},
    ]
    if voted:
        looks.append({"marker": "D", "markersize": 4.5, "color": PALETTE[2], "label": "judged, majority"})
    figure.legend(
        handles=[Line2D([], [], **({"marker": "o", "linestyle": ""} | look)) for look in looks],
        loc="outside lower center",
        ncols=3,
    )
    return figure


def _claimant(row: Any, *, seed: bool) -> str:
    """Name the attack that claims, in two lines if one would be long."""
    words = [drawn(str(row["defense"])), drawn(attack_label(row)) + (f", seed {row['seed']}" if seed else "")]
    return (" · " if len("".join(words)) < 44 else "\n").join(words)


def _looks(summary: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Choose a colour by attack and a marker by gradient mode, the same in all figures of a study."""
    rows = [row for _, row in summary.iterrows() if row["attack"] != WORST_CASE]
    attacks = list(dict.fromkeys(str(row["attack"]) for row in rows))
    modes = list(dict.fromkeys(str(row["gradient"]) for row in rows))
    looks: dict[str, tuple[str, str]] = {}
    for row in rows:
        i, j = attacks.index(str(row["attack"])), modes.index(str(row["gradient"]))
        looks.setdefault(attack_label(row), (PALETTE[i % len(PALETTE)], _MARKERS[j % len(_MARKERS)]))
    return looks
