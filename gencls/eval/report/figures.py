"""Figures of a study: accuracies with intervals, success-rate curves, claims against judgement, paired tests."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gencls.eval.report import curves
from gencls.eval.report.panels import ImagePanel, image_grid
from gencls.eval.report.verdict import (
    ThreatKey,
    attack_label,
    defenses,
    norm_label,
    select,
    threats,
)
from gencls.eval.summary import WORST_CASE

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
    records: pd.DataFrame, summary: pd.DataFrame, mcnemar: pd.DataFrame, images: Sequence[ImagePanel]
) -> Iterator[NamedFigure]:
    """Every figure that the study has data for, in the order of the page."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        bounded = [threat for threat in threats(summary) if threat.epsilon is not None]
        for threat in bounded:
            yield NamedFigure("accuracy", f"accuracy-{threat.slug}", threat.label, robust_accuracy(summary, threat))
        for norm, by_defense in curves.success_rates(records, summary).items():
            title = f"Success rate under {norm_label(norm)} attacks"
            yield NamedFigure("curves", f"curves-{norm}", title, success_curves(by_defense, norm, defenses(summary)))
        for threat in bounded:
            rows = select(summary, threat)
            rows = rows[(rows["attack"] != WORST_CASE) & rows["claimed_robust_accuracy"].notna()]
            if not rows.empty:
                yield NamedFigure("claims", f"claimed-{threat.slug}", threat.label, claimed_against_judged(rows))
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


def success_curves(by_defense: Mapping[str, Sequence[curves.Curve]], norm: str, order: Sequence[str]) -> Figure:
    """Share of misclassified samples against the size of the perturbation; at 0 stand the errors on clean images."""
    from matplotlib.figure import Figure

    drawn = sum(len(by_defense.get(name, ())) for name in order)
    figure = Figure(figsize=(_WIDTH, 3.4 + 0.2 * ((drawn + 1) // 2)), layout="constrained")
    axis = figure.subplots()
    for i, name in enumerate(order):
        colour = PALETTE[i % len(PALETTE)]
        for curve in by_defense.get(name, ()):
            rate = 100 * curve.rate
            if curve.low is None or curve.high is None:
                axis.step(curve.epsilon, rate, where="post", color=colour, linestyle="--", label=f"{name}: {curve.label}")
            else:
                axis.fill_between(curve.epsilon, 100 * curve.low, 100 * curve.high, color=colour, alpha=0.13, linewidth=0)
                marker = _MARKERS[i % len(_MARKERS)]
                axis.plot(curve.epsilon, rate, marker=marker, markersize=4.5, color=colour, label=f"{name}: {curve.label}")
    axis.set(xlabel=f"{norm_label(norm)} size of the perturbation, ε", ylabel="success rate in %", ylim=(-2, 102))
    axis.set_xlim(left=0)
    axis.grid(color=_GRID, linewidth=0.8)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def claimed_against_judged(rows: pd.DataFrame) -> Figure:
    """One line an attack: the accuracy that the attack claims (open) and the one that the judge measures (filled)."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(_WIDTH, 1.1 + 0.22 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for y, (_, row) in enumerate(rows.iterrows()):
        claimed, judged = 100 * row["claimed_robust_accuracy"], 100 * row["robust_accuracy"]
        axis.plot([claimed, judged], [y, y], color=_FAINT, linewidth=1.4, zorder=1)
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
        {"markersize": 4.5, "color": PALETTE[0], "label": "measured by the judge"},
    ]
    figure.legend(
        handles=[Line2D([], [], marker="o", linestyle="", **look) for look in looks],
        loc="outside lower center",
        ncols=2,
    )
    return figure


def mcnemar_tables(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Label, file name and pairs of each threat (and seed, where there are several), or of the whole table without threats."""
    if table.empty:
        return
    if not {"norm", "epsilon"} <= set(table.columns):
        yield "All samples", "all", table
        return
    for threat in threats(table):
        pairs = select(table, threat)
        if "seed" not in pairs or pairs["seed"].nunique() < 2:
            yield threat.label, threat.slug, pairs
        else:
            for seed, part in pairs.groupby("seed", sort=False):
                yield f"{threat.label}, seed {seed}", f"{threat.slug}-seed-{seed}", part


def mcnemar_matrix(table: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Row against column: samples that only one of them classifies correctly, and the p-value after Holm's correction."""
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    size = len(names)
    colours: npt.NDArray[np.float64] = np.full((size, size), np.nan)
    figure = Figure(figsize=(max(_WIDTH, 1.4 + 0.95 * size), 0.6 + 0.55 * size), layout="constrained")
    axis = figure.subplots()
    for row in table.to_dict("records"):
        a, b = names.index(str(row["defense_a"])), names.index(str(row["defense_b"]))
        for i, j, ours, theirs in ((a, b, row["only_a"], row["only_b"]), (b, a, row["only_b"], row["only_a"])):
            decided = row["p_holm"] < 0.05
            colours[i, j] = 0.5 if not decided else float(ours > theirs)
            p = "p < .001" if row["p_holm"] < 0.001 else f"p = {row['p_holm']:.3f}".replace("0.", ".")
            axis.text(j, i - 0.15, f"{int(ours)} : {int(theirs)}", ha="center", va="center", fontsize=9)
            axis.text(j, i + 0.2, p, ha="center", va="center", fontsize=7.5)
    axis.imshow(colours, cmap=ListedColormap(["#f6c7ae", "#f1f3f5", "#b5d7ee"]), vmin=0, vmax=1, aspect="auto")
    axis.set(xticks=range(size), yticks=range(size), xticklabels=names, yticklabels=names)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=2)
    axis.tick_params(which="minor", length=0)
    axis.spines[:].set_visible(False)
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


def _occurs(name: str, table: pd.DataFrame) -> bool:
    return bool(((table["defense_a"] == name) | (table["defense_b"] == name)).any())
