"""Figures of a study: accuracies with intervals, success-rate curves, claims against judgement, paired tests."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gencls.core.files import LONGEST, shortened
from gencls.eval.curves import SuccessCurve
from gencls.eval.records import WORST_CASE
from gencls.eval.report.curves import AtBudgets, DefenseCurves
from gencls.eval.report.matrix import mcnemar_matrix, mcnemar_tables
from gencls.eval.report.panels import ImagePanel, image_grid
from gencls.eval.report.verdict import (
    ThreatKey,
    attack_label,
    defenses,
    norm_label,
    select,
    threats,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart by all kinds of colour vision.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#444444", "#b8a800")
_MARKERS = "osD^vPX*"
_WIDTH = 5.75  # inches; two figures stand side by side on a laptop
_GRID, _INK, _FAINT = "#e3e6ea", "#1d2430", "#8a93a0"
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#b4bac4",
    "axes.labelcolor": _INK,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "image.composite_image": False,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "savefig.dpi": 170,
    "text.color": _INK,
    "xtick.color": _INK,
    "xtick.labelsize": 8.5,
    "ytick.color": _INK,
    "ytick.labelsize": 9,
    "ytick.major.size": 0,
}


@dataclass(frozen=True)
class NamedFigure:
    """A figure with what the page needs around it.

    Args:
        section: Which part of the page it belongs to.
        name: File name without ending.
        title: Heading, and the alternative text.
        figure: The matplotlib figure.
    """

    section: str
    name: str
    title: str
    figure: Figure

    def encode(self, kind: str) -> bytes:
        """The figure as "png" or "pdf", without time stamps, so that equal figures give equal bytes."""
        import matplotlib

        stamp: dict[str, Any] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}[kind]
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            self.figure.savefig(buffer, format=kind, metadata=stamp)
            self.figure.set_layout_engine("none")  # the layout is found; a second search would cost as much as the drawing
        return buffer.getvalue()


def all_figures(
    summary: pd.DataFrame,
    curves: Mapping[str, Mapping[str, DefenseCurves]],
    mcnemar: pd.DataFrame,
    images: Sequence[ImagePanel],
) -> Iterator[NamedFigure]:
    """Every figure that the study has data for, in the order of the page."""
    import matplotlib

    taken: Counter[str] = Counter()
    with matplotlib.rc_context(STYLE):
        for figure in _figures(summary, curves, mcnemar, images):
            taken[name := shortened(figure.name, LONGEST - 16)] += 1  # names may differ in what a file name cannot hold
            yield replace(figure, name=name if taken[name] == 1 else f"{name}-{taken[name]}")


def _figures(
    summary: pd.DataFrame,
    curves: Mapping[str, Mapping[str, DefenseCurves]],
    mcnemar: pd.DataFrame,
    images: Sequence[ImagePanel],
) -> Iterator[NamedFigure]:
    known = summary[summary["robust_accuracy"].notna()]
    bounded = [threat for threat in threats(known) if threat.epsilon is not None]
    for threat in bounded:
        yield NamedFigure("accuracy", f"accuracy-{threat.slug}", threat.label, robust_accuracy(summary, threat))
    for norm, by_defense in curves.items():
        title = f"Worst case over all {norm_label(norm)} attacks"
        yield NamedFigure("curves", f"curves-{norm}", title, worst_case_curves(by_defense, norm, defenses(summary)))
        for name, known in by_defense.items():
            if len(known.minimal) > 2:  # with a single attack the worst case says it all
                title = f"{name}, {norm_label(norm)}: each attack"
                yield NamedFigure("curves", f"curves-{norm}-{_slug(name)}", title, attack_curves(known, norm))
    for threat in threats(summary):
        rows = select(summary, threat)
        rows = rows[(rows["attack"] != WORST_CASE) & rows["claimed_robust_accuracy"].notna()]
        if not rows.empty:
            figure = claimed_against_judged(rows, minimal=threat.epsilon is None)
            yield NamedFigure("claims", f"claimed-{threat.slug}", threat.label, figure)
    for label, slug, table in mcnemar_tables(mcnemar):
        matrix = mcnemar_matrix(table, [name for name in defenses(summary) if _occurs(name, table)])
        yield NamedFigure("mcnemar", f"mcnemar-{slug}", label, matrix)
    for panel in images:
        yield NamedFigure("images", f"images-{panel.slug}", panel.title, image_grid(panel))


def robust_accuracy(summary: pd.DataFrame, threat: ThreatKey) -> Figure:
    """Worst case with its interval, the single attacks below it, and the clean accuracy as a tick; one band a defense."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows = select(summary, threat).dropna(subset=["robust_accuracy"])
    names = [name for name in defenses(summary) if (rows["defense"] == name).any()]
    looks = _looks(summary)
    shown = list(dict.fromkeys(attack_label(row) for _, row in rows.iterrows() if row["attack"] != WORST_CASE))
    bands = [_band(rows[rows["defense"] == name]) for name in names]
    height = 0.95 + 0.2 * ((len(shown) + 4) // 3) + 0.19 * sum(len(band) + 1.2 for band in bands)
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axis = figure.subplots()
    y, ticks = 0.0, []
    for band in bands:
        ticks.append(y + (len(band) - 1) / 2)
        axis.vlines(100 * band[0]["clean_accuracy"], y - 0.6, y + len(band) - 0.4, color=_FAINT, linewidth=1.8)
        for row in band:
            worst = row["attack"] == WORST_CASE
            colour, marker = (_INK, "o") if worst else looks[attack_label(row)]
            _interval(axis, row, y, colour, marker, large=worst)
            y += 1
        axis.axhline(y + 0.1, color=_GRID, linewidth=0.8)
        y += 1.2
    axis.set(xlim=(-2, 102), ylim=(y - 1.1, -1.1), yticks=ticks, yticklabels=names, xlabel="accuracy in %")
    axis.grid(axis="x", color=_GRID, linewidth=0.8)
    handles = [Line2D([], [], color=_INK, marker="o", markersize=7, label=WORST_CASE)]
    for name in shown:
        colour, marker = looks[name]
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=5, linewidth=1.2, label=name))
    handles.append(Line2D([], [], color=_FAINT, marker="|", markersize=11, mew=1.8, linestyle="", label="clean"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def worst_case_curves(by_defense: Mapping[str, DefenseCurves], norm: str, order: Sequence[str]) -> Figure:
    """Share of broken samples against the size of the perturbation, one curve a defense; at 0 stand the clean errors."""
    order = [*order, *(name for name in by_defense if name not in order)]  # those under 8-bit images
    drawn = {name: by_defense[name].worst for name in order if name in by_defense}
    figure, axis = _curve_axes(norm, len(drawn), [curve for curve in drawn.values() if curve])
    for i, (name, curve) in enumerate(drawn.items()):
        colour, marker = PALETTE[order.index(name) % len(PALETTE)], _MARKERS[i % len(_MARKERS)]
        if curve is not None:
            _curve(axis, curve, colour, name, marker=marker, band=True)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def attack_curves(known: DefenseCurves, norm: str) -> Figure:
    """One curve for each minimal-norm attack on one defense, and the worst case with its band."""
    figure, axis = _curve_axes(norm, len(known.minimal), list(known.minimal.values()))
    for i, (attack, curve) in enumerate(known.minimal.items()):
        worst = attack == WORST_CASE
        _curve(axis, curve, _INK if worst else PALETTE[i % len(PALETTE)], attack, band=worst)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _curve_axes(norm: str, entries: int, curves: Sequence[SuccessCurve | AtBudgets]) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, 3.3 + 0.2 * ((entries + 1) // 2)), layout="constrained")
    axis = figure.subplots()
    # As far as 98 % of each curve's successes: a single far one must not squeeze the rest.
    ends = [curve.epsilon[np.searchsorted(curve.rate, 0.98 * curve.rate[-1])] for curve in curves]
    budgets = [curve.epsilon[-1] for curve in curves if isinstance(curve, AtBudgets)]
    right = 1.05 * max([*ends, *budgets, 0.0])
    axis.set(xlabel=f"{norm_label(norm)} size of the perturbation, ε", ylabel="success rate in %", ylim=(-2, 102))
    axis.set_xlim(0, right or 1.0)
    axis.grid(color=_GRID, linewidth=0.8)
    return figure, axis


def _curve(
    axis: Axes, curve: SuccessCurve | AtBudgets, colour: str, label: str, *, marker: str = "", band: bool = False
) -> None:
    """Steps that go on to the right border, or marks at the attacked budgets; with the Wilson band if wanted."""
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
        label=label if exact else f"{label} (attacked sizes only)",
    )


def claimed_against_judged(rows: pd.DataFrame, *, minimal: bool = False) -> Figure:
    """One line an attack: the accuracy that it claims (open) and the one that the judge measures (filled).

    For minimal-norm attacks the judge's majority counts, since a minimal perturbation of a randomised defense ends where half
    of the draws are wrong. With a budget the majority is a third mark where the judge drew more than once.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(_WIDTH, 1.1 + 0.22 * len(rows)), layout="constrained")
    axis = figure.subplots()
    drawn = not minimal and bool((rows["draws"] > 1).any())
    for y, (_, row) in enumerate(rows.iterrows()):
        claimed, judged = 100 * row["claimed_robust_accuracy"], 100 * row["majority_accuracy" if minimal else "robust_accuracy"]
        axis.plot([claimed, judged], [y, y], color=_FAINT, linewidth=1.4, zorder=1)
        if not minimal and row["draws"] > 1:
            ends = [100 * row[name] for name in ("majority_low", "majority_high")]  # undecided samples make it a range
            axis.plot(ends, [y, y], color=PALETTE[2], linewidth=1.4, zorder=1)
            axis.plot(100 * row["majority_accuracy"], y, "D", markersize=4.5, color=PALETTE[2])
        axis.plot(claimed, y, "o", markersize=7.5, mfc="white", mec=PALETTE[1], mew=1.4)
        axis.plot(judged, y, "o", markersize=4.5, color=PALETTE[0])
    labels = [f"{row['defense']} · {attack_label(row)}" for _, row in rows.iterrows()]
    if rows["seed"].nunique() > 1:
        labels = [f"{label}, seed {seed}" for label, seed in zip(labels, rows["seed"], strict=True)]
    axis.set(xlim=(-2, 102), ylim=(len(rows) - 0.4, -0.6), yticks=range(len(rows)), yticklabels=labels)
    axis.set_xlabel("robust accuracy in %")
    axis.grid(axis="x", color=_GRID, linewidth=0.8)
    looks: list[dict[str, Any]] = [
        {"markersize": 7.5, "mfc": "white", "mec": PALETTE[1], "mew": 1.4, "label": "claimed by the attack"},
        {"markersize": 4.5, "color": PALETTE[0], "label": f"judged, {'majority' if minimal else 'expected'}"},
    ]
    if drawn:
        looks.append({"marker": "D", "markersize": 4.5, "color": PALETTE[2], "label": "judged, majority"})
    figure.legend(
        handles=[Line2D([], [], **({"marker": "o", "linestyle": ""} | look)) for look in looks],
        loc="outside lower center",
        ncols=3,
    )
    return figure


def _looks(summary: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Colour by attack and marker by gradient mode, the same in all figures of a study."""
    rows = [row for _, row in summary.iterrows() if row["attack"] != WORST_CASE]
    attacks = list(dict.fromkeys(str(row["attack"]) for row in rows))
    modes = list(dict.fromkeys(str(row["gradient"]) for row in rows))
    looks: dict[str, tuple[str, str]] = {}
    for row in rows:
        i, j = attacks.index(str(row["attack"])), modes.index(str(row["gradient"]))
        looks.setdefault(attack_label(row), (PALETTE[i % len(PALETTE)], _MARKERS[j % len(_MARKERS)]))
    return looks


def _band(rows: pd.DataFrame) -> list[Any]:
    """The rows of one defense, the worst case first."""
    ordered = [row for _, row in rows.iterrows()]
    return sorted(ordered, key=lambda row: row["attack"] != WORST_CASE)


def _interval(axis: Axes, row: Any, y: float, colour: str, marker: str, *, large: bool) -> None:
    axis.hlines(y, 100 * row["ci_low"], 100 * row["ci_high"], color=colour, linewidth=2.4 if large else 1.2)
    axis.plot(100 * row["robust_accuracy"], y, marker=marker, color=colour, markersize=7 if large else 5, clip_on=False)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def _occurs(name: str, table: pd.DataFrame) -> bool:
    return bool(((table["defense_a"] == name) | (table["defense_b"] == name)).any())
