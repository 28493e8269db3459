"""Figures in the form of a paper: adversarial examples in a grid, and accuracies along a setting of an attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from gencls.core.errors import GenclsError
from gencls.eval.measures.success_rates import SuccessCurve
from gencls.eval.report.style import PALETTE, STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GOOD, _BAD, _NEUTRAL, _LINE, _THEIRS = "#1b6e3c", "#b3261e", "#3b4252", "#0072b2", "#8a93a0"
_SIDE, _GAP, _CAPTION, _HEAD, _BLOCK, _MARGIN = 0.78, 0.08, 0.17, 0.24, 0.16, 0.1  # inches


@dataclass(frozen=True)
class Tile:
    """One image of a grid.

    Args:
        image: (C, H, W) in [0, 1], C = 1 or 3; None leaves the place empty.
        caption: printed below it.
        wrong: whether the decision on it is wrong; None if the tile shows no decision.
    """

    image: Tensor | None
    caption: str = ""
    wrong: bool | None = None


def tile_grid(rows: Sequence[Sequence[Tile]], heads: Sequence[str], groups: Sequence[tuple[str, int]] = ()) -> Figure:
    """Draw images in rows and columns.

    Args:
        rows: tiles, equally many in each row.
        heads: one heading per column, or none at all.
        groups: headings above the columns with the number of columns each spans, from the left; a gap sets them apart.

    Raises:
        GenclsError: there are no tiles, or numbers do not fit together.
    """
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False}):
        return _tile_grid(rows, heads, groups)


def _tile_grid(rows: Sequence[Sequence[Tile]], heads: Sequence[str], groups: Sequence[tuple[str, int]]) -> Figure:
    from matplotlib.figure import Figure

    columns = len(rows[0]) if rows else 0
    spans = list(groups) or [("", columns)]
    if not columns or {len(row) for row in rows} != {columns} or (heads and len(heads) != columns):
        raise GenclsError(f"expected rows of equally many tiles and a head for each, got {[len(row) for row in rows]} tiles")
    if sum(span for _, span in spans) != columns:
        raise GenclsError(f"expected groups that span {columns} columns, got {spans}")
    lefts, place, starts = [], _MARGIN, []
    for _, span in spans:
        starts.append(place)
        lefts += [place + i * (_SIDE + _GAP) for i in range(span)]
        place += span * (_SIDE + _GAP) + _BLOCK
    top = _GAP + (_HEAD if groups else 0) + (_HEAD if heads else 0)
    width, height = place - _BLOCK + _MARGIN, top + len(rows) * (_SIDE + _CAPTION + _GAP)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))  # one for all images, in inches with y downwards: faster than one for each
    for (words, span), left in zip(spans, starts, strict=True):
        middle = left + (span * (_SIDE + _GAP) - _GAP) / 2
        axes.text(middle, _GAP, words, ha="center", va="top", fontsize=9, color=_NEUTRAL, fontweight="bold")
    for left, words in zip(lefts, heads, strict=False):
        axes.text(left + _SIDE / 2, top - 0.06, words, ha="center", va="bottom", fontsize=8, color=_NEUTRAL)
    for i, row in enumerate(rows):
        upper = top + i * (_SIDE + _CAPTION + _GAP)
        for left, tile in zip(lefts, row, strict=True):
            if tile.image is not None:
                pixels = tile.image.detach().cpu().float().clamp(0, 1).permute(1, 2, 0).numpy()
                shape = (left, left + _SIDE, upper + _SIDE, upper)
                look: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1} if pixels.shape[-1] == 1 else {}
                axes.imshow(pixels.squeeze(-1) if look else pixels, extent=shape, interpolation="none", aspect="auto", **look)
            colour = _NEUTRAL if tile.wrong is None else _BAD if tile.wrong else _GOOD
            axes.text(left + _SIDE / 2, upper + _SIDE + 0.03, tile.caption, ha="center", va="top", fontsize=6.5, color=colour)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return figure


def plateau(
    setting: str,
    values: Sequence[float],
    accuracies: Sequence[tuple[float, float, float]],
    theirs: Sequence[tuple[float, float]] = (),
    *,
    chosen: float | None = None,
    source: str = "paper",
) -> Figure:
    """Draw accuracy under attack along one of the attack's settings, with intervals.

    Args:
        setting: the name of the setting, which grows along the axis.
        values: (P,) its values, evenly spaced in the figure.
        accuracies: (P,) triples: our accuracy and the two limits of its interval, each in [0, 1].
        theirs: pairs (value, accuracy in [0, 1]) that the paper prints.
        chosen: the value that the experiments use, marked by a line.
        source: the owner of the accuracies ``theirs``.
    """
    import matplotlib
    from matplotlib.figure import Figure

    ticks = sorted({*values, *(value for value, _ in theirs)})
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2, 3.0), layout="constrained")
        axis = figure.subplots()
    if chosen in ticks:
        axis.axvline(ticks.index(chosen), color="#e3e6ea", linewidth=6)
    places = [ticks.index(value) for value in values]
    ours, low, high = ([100 * entry[i] for entry in accuracies] for i in range(3))
    axis.vlines(places, low, high, color=_LINE, linewidth=1.4)
    axis.plot(places, ours, "o-", color=_LINE, markersize=5, linewidth=1.2, label="ours, 95 % interval")
    if theirs:
        printed = [100 * value for _, value in theirs]
        axis.plot([ticks.index(value) for value, _ in theirs], printed, "s--", color=_THEIRS, markersize=4, label=source)
    axis.set(xticks=range(len(ticks)), xticklabels=[f"{tick:g}" for tick in ticks], xlabel=setting, ylabel="accuracy in %")
    axis.set_ylim(-3, 103)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def success_panels(
    panels: Mapping[str, Mapping[str, SuccessCurve]], *, limit: float, size: str = "L2 size", dotted: Sequence[str] = ()
) -> Figure:
    """Draw success rates of attackers against the perturbation's size, one panel per attack, one line per defense.

    Args:
        panels: attack -> defense -> curve; a defense has the same colour in all panels.
        limit: the largest size shown, in the unit of the curves.
        size: the label of the axis.
        dotted: names of the defenses with dotted lines.

    Raises:
        GenclsError: there is no curve.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    if not names:
        raise GenclsError(f"expected at least one curve, got none in {len(panels)} panels")
    looks: dict[str, dict[str, Any]] = {
        name: {"color": PALETTE[i % len(PALETTE)], "linestyle": ":" if name in dotted else "-", "linewidth": 1.5}
        for i, name in enumerate(names)
    }
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    legend = 0.2 * -(-len(names) // 3) + 0.1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.1 * columns + 0.4, 2.3 * rows + legend), layout="constrained")
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axis, (attack, curves) in zip(axes.flat, panels.items(), strict=False):
            for name, curve in curves.items():
                inside = curve.epsilon <= limit
                sizes, rates = np.append(curve.epsilon[inside], limit), np.append(curve.rate[inside], curve.rate[inside][-1])
                axis.plot(sizes, 100 * rates, drawstyle="steps-post", **looks[name])
            axis.set_title(attack, fontsize=9)
            axis.grid(color="#e3e6ea", linewidth=0.8)
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
        axes.flat[0].set(xlim=(0, limit), ylim=(-2, 102))
        for axis in axes[:, 0]:
            axis.set_ylabel("success rate in %")
        for axis in axes[-1]:
            axis.set_xlabel(size)
        figure.legend(
            handles=[Line2D([], [], label=name, **look) for name, look in looks.items()],
            loc="outside lower center",
            ncols=min(3, len(names)),
            frameon=False,
        )
    return figure
