"""Distortion-distortion curves with their bands and base lines (latent-robustness paper, Figures 3 to 6 and 10 to 12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from gencls.core.errors import GenclsError
from gencls.eval.measures.distortion_intervals import CurveBand
from gencls.eval.report.style import GRID, INK, PALETTE, STYLE, drawn, legend_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["distortion_panels"]

_LIMIT = "#b3261e"
_PANEL = (2.9, 2.35)  # inches
_MARKERS = "osDv^<>P"


def distortion_panels(
    panels: Mapping[str, Mapping[str, CurveBand]],
    *,
    base_lines: Mapping[str, float] = MappingProxyType({}),
    strength: str = "epsilon",
    dotted: Sequence[str] = (),
    shaded: str = "",
    columns: int = 3,
) -> Figure:
    """Draw measures of picture quality against the strength of the attack, one panel per measure, one line per model.

    Args:
        panels: heading -> model -> its curve with a band; a model has the same colour and marker in all panels. Infinite values
            and bands without limits are left out.
        base_lines: heading -> base line of the area; a panel without one has no line.
        strength: the label of the axes.
        dotted: names of models with dotted lines, for instance the variational ones.
        shaded: a model whose area on the good side of the base line is shaded.
        columns: the most panels beside each other.

    Raises:
        GenclsError: there is no curve, the curves of a panel disagree on what is better, or a base line or the model to shade
            belongs to no panel.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    if not names or not all(panels.values()):
        raise GenclsError(f"expected at least one curve in each panel, got {[len(curves) for curves in panels.values()]}")
    if not set(base_lines) <= set(panels):
        raise GenclsError(f"expected base lines of the panels {list(panels)}, got {list(base_lines)}")
    if shaded and shaded not in names:
        raise GenclsError(f"expected a model to shade among {names}, got {shaded!r}")
    for heading, curves in panels.items():
        if len({curve.larger_is_better for curve in curves.values()}) > 1:
            raise GenclsError(f"{heading}: expected curves that agree whether larger is better, got both")
    looks: dict[str, dict[str, Any]] = {
        name: {
            "color": PALETTE[i % len(PALETTE)],
            "linestyle": ":" if name in dotted else "-",
            "linewidth": 1.4,
            "marker": _MARKERS[i % len(_MARKERS)],
            "markersize": 3.2,
        }
        for i, name in enumerate(names)
    }
    across = max(1, min(columns, len(panels)))
    down, width = -(-len(panels) // across), across * _PANEL[0] + 0.3
    labels = [*(drawn(name) for name in names), *(["base line"] if base_lines else [])]
    beside = legend_columns(labels, len(labels), width - 0.6)
    height = down * _PANEL[1] + 0.2 * -(-len(labels) // beside) + 0.1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(down, across, squeeze=False)
        for axis, (heading, curves) in zip(axes.flat, panels.items(), strict=False):
            _draw(axis, curves, looks, base_lines.get(heading), shaded)
            better = next(iter(curves.values())).larger_is_better
            axis.set_title(drawn(heading), fontsize=9)
            axis.set(xlabel=drawn(strength), ylabel="larger is better" if better else "smaller is better")
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
        handles = [Line2D([], [], label=drawn(name), **look) for name, look in looks.items()]
        if base_lines:
            handles.append(Line2D([], [], color=_LIMIT, linestyle="--", linewidth=1.0, label="base line"))
        figure.legend(handles=handles, loc="outside lower center", ncols=beside)
    return figure


def _draw(
    axis: Axes, curves: Mapping[str, CurveBand], looks: Mapping[str, dict[str, Any]], line: float | None, shaded: str
) -> None:
    axis.grid(color=GRID, linewidth=0.8)
    for name, curve in curves.items():
        known = np.isfinite(curve.heights)
        sizes, heights = curve.epsilons[known], curve.heights[known]
        axis.fill_between(curve.epsilons, curve.low, curve.high, color=looks[name]["color"], alpha=0.15, linewidth=0)
        axis.plot(sizes, heights, **looks[name])
        if name == shaded and line is not None:
            good = heights >= line if curve.larger_is_better else heights <= line
            axis.fill_between(
                sizes,
                heights,
                line,
                where=good.tolist(),
                interpolate=True,
                facecolor="none",
                edgecolor=INK,
                hatch="////",
                alpha=0.35,
            )
    if line is not None:
        axis.axhline(line, color=_LIMIT, linestyle="--", linewidth=1.0)
