"""The certified curve beside the empirical one, and accuracy along the inner steps."""

from collections.abc import Iterator

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from gencls.eval import closest_distances
from gencls.eval.report.columns import percent
from gencls.eval.report.figures import NamedFigure
from gencls.eval.report.paper import Cell, PaperTable, Row
from gencls.eval.report.paper_figures import plateau
from gencls.eval.statistics import wilson, wilson_band
from gencls.eval.threat import TOLERANCE
from recipes.records import records_of, warnings_of
from recipes.smoothing import experiments
from recipes.smoothing.runs import Run
from recipes.smoothing.tables import PRINTED_STEPS, right_under

__all__ = ["certified_curves", "steps_figure"]


def certified_curves(run: Run) -> tuple[PaperTable, NamedFigure] | None:
    """Certified accuracy of randomized smoothing, and what a minimal-norm attack leaves of it; None before both are there."""
    records = records_of(run.out, "certified")
    if not len(records):
        return None
    known = experiments.certificates(run)
    labels = run.data.labels[: run.budget.certified].numpy()
    right, radii = np.array(known["labels"]) == labels, np.array(known["radii"])
    closest = closest_distances(records).to_numpy()
    sizes = np.array(run.profile.radii)
    certified = [(right & (radii >= size)).sum() if size else right.sum() for size in sizes]
    left = [(closest > size + TOLERANCE).sum() for size in sizes]
    rows = [
        Row(f"{size:g}", (Cell(_share(int(sure), len(labels))), Cell(_share(int(kept), len(closest)))))
        for size, sure, kept in zip(sizes, certified, left, strict=True)
    ]
    abstained = int((np.array(known["labels"]) < 0).sum())
    notes = (
        f"Accuracy in % of randomized smoothing (noise {run.profile.certified_sigma:g}) around the base model trained with "
        f"noise: certified by {run.budget.noises:,} draws at confidence 99.9 % on {len(labels)} images, {abstained} of which "
        f"it abstains from, in {known['seconds']:g} s; and left by DDN ({run.budget.minimal} steps, EoT {run.budget.eot}) on "
        f"{len(closest)}. The first is a bound for every attack, the second holds for this one.",
        *warnings_of({"smoothed": records}),
    )
    table = PaperTable(
        "certified", "Certified and empirical accuracy", ("L2 radius", "certified", "attacked"), tuple(rows), notes
    )
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4.2, 3.0), layout="constrained")
        axis = figure.subplots()
    grid = np.linspace(0, max(sizes[-1], float(radii.max(initial=0.0))), 200)
    for name, values, total in (
        ("attacked (DDN)", [(closest > size + TOLERANCE).sum() for size in grid], len(closest)),
        ("certified", [(right & (radii >= size)).sum() for size in grid], len(labels)),
    ):
        low, high = wilson_band(values, total)
        (line,) = axis.plot(grid, 100 * np.array(values) / total, label=name)
        axis.fill_between(grid, 100 * low, 100 * high, color=line.get_color(), alpha=0.15, linewidth=0)
    axis.set(xlabel="L2 radius", ylabel="accuracy in %", ylim=(-3, 103))
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return table, NamedFigure("certified", "certified", "Certified accuracy, and what an attack leaves", figure)


def _share(right: int, total: int) -> str:
    low, high = wilson(right, total)
    return f"{percent(right / total)} [{percent(low)}, {percent(high)}]"


def steps_figure(run: Run) -> Iterator[NamedFigure]:
    """Adversarial accuracy along the inner steps."""
    found = {v.steps: records_of(run.out, v.folder) for v in experiments.sweep_variants(run, "steps")}
    right = {steps: right_under(records) for steps, records in found.items() if len(records)}
    if right:
        ours = [(float(own.mean()), *wilson(float(own.sum()), len(own))) for own in right.values()]
        theirs = [(steps, value / 100) for steps, value in PRINTED_STEPS.items()] if run.profile.printed else []
        drawn = plateau("steps of the inner optimisation", list(right), ours, theirs, chosen=1, source="thesis")
        yield NamedFigure("steps", "steps", "Accuracy under PGD by steps of the inner optimisation", drawn)
