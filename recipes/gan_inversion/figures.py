"""Figures 3.5 and 3.8 to 3.10: error against distance, codes of the methods, and the lines between two runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from gencls.eval.measures.statistics import wilson
from gencls.eval.report.paper.figures import plateau
from gencls.eval.report.style import FAINT, PALETTE, STYLE, NamedFigure
from recipes.gan_inversion import experiments, printed
from recipes.gan_inversion.codes import agreement, block_codes, true_codes, unrelated_distance
from recipes.gan_inversion.interpolation import ORDERS, interpolations
from recipes.gan_inversion.intervals import mean_estimate
from recipes.gan_inversion.inversions import Found, Inversion
from recipes.gan_inversion.runs import Run
from recipes.gan_inversion.settings import DISTANCES, METHODS
from recipes.gan_inversion.tables import Results, finished

_MARKS = ("o", "s", "^")


def trade_off(run: Run) -> Iterator[NamedFigure]:
    """Draw the error rate against the perceptual distance in domain (Figure 3.5) and out of domain.

    A line joins the lambdas of a method.
    """
    panels = {distance: finished(run, experiments.main_settings(run, distance)) for distance in run.profile.main}
    panels = {distance: found for distance, found in panels.items() if found}
    weights = ", ".join(f"{weight:g}" for weight in run.budget.weights)
    about = f"perceptual distance, λ = {weights} along each line, 95 % intervals"
    if panels:
        inside = _against(panels, "in-domain perceptual distance", lambda one: one.in_domain(one.percept))
        yield NamedFigure("trade-off", "figure-3.5", f"Figure 3.5: error rate and in-domain {about}", inside)
        outside = _against(panels, "out-of-domain perceptual distance", lambda one: one.out_of_domain(one.percept))
        title = f"Beside Figure 3.5: error rate and out-of-domain {about}"
        yield NamedFigure("trade-off", "figure-3.5-out-of-domain", title, outside)


def _against(panels: Mapping[str, Results], label: str, place: Callable[[Found], Tensor]) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.4 * len(panels) + 0.3, 3.5), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        looks: dict[str, Any] = {}
        for axis, (distance, found) in zip(axes, panels.items(), strict=True):
            for number, method in enumerate(METHODS):
                own = sorted((inversion for inversion in found if inversion.method == method), key=lambda one: one.weight)
                if own:
                    looks |= {METHODS[method]: _drawn(axis, [found[one] for one in own], place, **_look(number, method))}
            axis.set_title(DISTANCES[distance], fontsize=9)
            axis.set(xlabel=label, ylim=(-3, 103))
        axes[0].set_ylabel("error rate in %")
        figure.legend([*looks.values()], [*looks], loc="outside lower center", ncols=3, frameon=False)
    return figure


def _look(number: int, method: str) -> dict[str, Any]:
    plus = method.endswith("+")
    filled = "none" if plus else None
    return {
        "color": PALETTE[number % 3],
        "marker": _MARKS[number % 3],
        "linestyle": "--" if plus else "-",
        "markerfacecolor": filled or PALETTE[number % 3],
        "label": METHODS[method],
    }


def _drawn(axis: Any, found: Sequence[Found], place: Callable[[Found], Tensor], **look: Any) -> Any:
    """Draw the settings of a method with their intervals, and return the line for the legend."""
    places = np.array([float(place(one).mean()) for one in found])
    wrong = [(float((~one.right).sum()), len(one.labels)) for one in found]
    limits = np.array([wilson(number, count) for number, count in wrong])
    rates = np.array([100 * number / count for number, count in wrong])
    (line,) = axis.plot(places, rates, markersize=4, **look)
    thin = {"color": look["color"], "linewidth": 0.8, "alpha": 0.5}
    axis.vlines(places, 100 * limits[:, 0], 100 * limits[:, 1], **thin)
    spans = [mean_estimate(place(one)) for one in found]
    axis.hlines(rates, [one.low for one in spans], [one.high for one in spans], **thin)
    return line


def steps_figure(run: Run) -> Iterator[NamedFigure]:
    """Draw Table 3.2 as a curve: accuracy along the steps."""
    found = finished(run, experiments.steps(run))
    if not found:
        return
    counts = [(float(one.right.sum()), len(one.labels)) for one in found.values()]
    ours = [(right / total, *wilson(right, total)) for right, total in counts]
    theirs = [(steps, 1 - values[0] / 100) for steps, values in printed.STEPS.items()]
    drawn = plateau("optimisation steps", [one.steps for one in found], ours, theirs, chosen=run.budget.steps, source="thesis")
    yield NamedFigure("steps", "steps", "Table 3.2 as a curve: accuracy by steps", drawn)


def codes_figure(run: Run) -> Iterator[NamedFigure]:
    """Draw Figure 3.8: the mean cosine similarity and L2 distance of optimal codes, method by method, with lambda 1.

    The second run of Direct differs from the first in its random starts alone. Codes are those of the true class, by block.
    In brackets stands the distance of unrelated codes of the same lengths.
    """
    chosen = [one for one in experiments.main_settings(run, run.profile.main[0]) if one.weight == _middle(run)]
    again = Inversion(method="direct", weight=1.0, distance=run.profile.main[0], steps=run.budget.steps, again=1)
    found = finished(run, [*chosen, again])
    if len(found) < 2:
        return
    blocks = max(len(one.codes([0])) for one in found.values()) - 1
    codes = [block_codes(true_codes(one), blocks) for one in found.values()]
    names = [METHODS[one.method] + (", again" if one.again else "") for one in found]
    pairs = np.array([[agreement(first, second) for second in codes] for first in codes])
    unrelated = [[unrelated_distance(first, second) for second in codes] for first in codes]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3.9), layout="constrained")
        axes = figure.subplots(1, 2)
        heads = ("cosine similarity", "L2 distance\n(in brackets: unrelated codes of the same lengths)")
        scales: tuple[dict[str, Any], ...] = ({"cmap": "RdBu", "vmin": -1, "vmax": 1}, {"cmap": "Blues", "vmin": 0})
        for axis, values, head, scale in zip(axes, (pairs[..., 0], pairs[..., 1]), heads, scales, strict=True):
            axis.imshow(values, aspect="equal", **scale)
            axis.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
            axis.set_yticks(range(len(names)), names)
            axis.set_title(head, fontsize=9)
            axis.spines[:].set_visible(False)
            for (i, j), value in np.ndenumerate(values):
                dark = abs(value) > 0.6 * abs(values).max()
                beside = f"\n({unrelated[i][j]:.1f})" if axis is axes[1] and i != j else ""
                color = "white" if dark else "black"
                axis.text(j, i, f"{value:.2f}{beside}", ha="center", va="center", fontsize=7, color=color)
    title = f"Figure 3.8: optimal codes of two methods, λ = {_middle(run):g}, true class"
    yield NamedFigure("codes", "figure-3.8", title, figure)


def _middle(run: Run) -> float:
    return sorted(run.budget.weights)[len(run.budget.weights) // 2]


def interpolation_figure(run: Run) -> Iterator[NamedFigure]:
    """Draw Figure 3.10: the mean distance along the line with its interval, and the mean distance out of domain."""
    known = interpolations(run)
    if not known:
        return
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.4 * len(known) + 0.3, 3.0), layout="constrained")
        axes = figure.subplots(1, len(known), squeeze=False)[0]
        for axis, (distance, kept) in zip(axes, known.items(), strict=True):
            orders, means, halves = range(ORDERS), np.array(kept["mean"]), np.array(kept["half"])
            axis.plot(orders, means, "o-", color=PALETTE[0], markersize=4)
            axis.fill_between(orders, means - halves, means + halves, color=PALETTE[0], alpha=0.2, linewidth=0)
            axis.axhline(kept["reference"], color=FAINT, linestyle="--")
            axis.text(ORDERS - 1, kept["reference"], "out of domain", ha="right", va="bottom", fontsize=8, color=FAINT)
            axis.set_title(DISTANCES[distance], fontsize=9)
            axis.set(xlabel="order of interpolation", xticks=orders)
        axes[0].set_ylabel("perceptual distance")
    title = "Figure 3.10: perceptual distance between two runs of Direct, λ = 1"
    yield NamedFigure("interpolation", "figure-3.10", title, figure)
