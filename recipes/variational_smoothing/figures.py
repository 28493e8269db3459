"""The certified curve beside the empirical one, and accuracy along the inner steps."""

from collections.abc import Iterator
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from gencls.eval import certified_accuracy, closest_distances
from gencls.eval.attacks.parts.smoothing import SIGMAS
from gencls.eval.measures.statistics import wilson, wilson_band
from gencls.eval.report.paper.figures import plateau
from gencls.eval.report.paper.page import Cell, PaperTable, Row
from gencls.eval.report.style import NamedFigure
from gencls.eval.threats.protocol import TOLERANCE
from recipes.harness.records import Share, records_of, right_under, warnings_of
from recipes.variational_smoothing import experiments
from recipes.variational_smoothing.runs import Run
from recipes.variational_smoothing.tables import PRINTED_SWEEPS, compared


def certified_curves(run: Run) -> tuple[PaperTable, NamedFigure] | None:
    """Certified accuracy of randomized smoothing, and its accuracy under minimal-norm attacks; None until both are there.

    "Ours too" is DDN along smoothed gradients, in its own study.
    """
    records, ours = records_of(run.out, "certified"), records_of(run.out, "certified", "smoothed")
    if not len(records) or (known := experiments.certificates(run).current) is None:
        return None
    labels = run.data.labels[: run.budget.certified]
    certificate = _Certificate(torch.tensor(known["labels"]), torch.tensor(known["radii"], dtype=torch.float64))
    closest, both = (closest_distances(rows).to_numpy() for rows in (records, ours))
    sizes = run.profile.radii
    certified = certified_accuracy(certificate, labels, sizes)["accuracy"]
    rows = [
        Row(
            f"{size:g}",
            (
                Cell(Share(sure * len(labels), len(labels)).text),
                *(Cell(Share(float((found > size + TOLERANCE).sum()), len(found)).text) for found in (closest, both)),
            ),
        )
        for size, sure in zip(sizes, certified, strict=True)
    ]
    abstained = int((certificate.labels < 0).sum())
    notes = (
        f"Accuracy in % of randomized smoothing (noise {run.profile.certified_sigma:g}) around {run.profile.smoothed}: "
        f"certified by {run.budget.noises:,} draws at confidence 99.9 % on {len(labels)} images, from {abstained} of which it "
        f"abstains, in {known['seconds']:g} s; and left by DDN ({run.budget.minimal} steps, EoT {run.budget.eot}) on "
        f"{len(closest)}; ours too: also along gradients averaged over noise of {', '.join(f'{sigma:g}' for sigma in SIGMAS)}. "
        "The first is a bound for every attack, the others hold for these.",
        *warnings_of({"smoothed": ours}),
    )
    table = PaperTable(
        "certified", "Certified and empirical accuracy", ("L2 radius", "certified", "attacked", "ours too"), tuple(rows), notes
    )
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4.2, 3.0), layout="constrained")
        axis = figure.subplots()
    grid = np.linspace(0, max(sizes[-1], float(certificate.radii.max())), 200)
    left = (closest[None] > grid[:, None] + TOLERANCE).sum(1)
    for name, values, total in (
        ("attacked (DDN)", left, len(closest)),
        ("certified", certified_accuracy(certificate, labels, grid.tolist())["accuracy"].to_numpy() * len(labels), len(labels)),
    ):
        low, high = wilson_band(np.round(values), total)
        (line,) = axis.plot(grid, 100 * values / total, label=name)
        axis.fill_between(grid, 100 * low, 100 * high, color=line.get_color(), alpha=0.15, linewidth=0)
    axis.set(xlabel="L2 radius", ylabel="accuracy in %", ylim=(-3, 103))
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return table, NamedFigure("certified", "certified", "Certified accuracy, and what an attack leaves", figure)


@dataclass(frozen=True)
class _Certificate:
    labels: torch.Tensor
    radii: torch.Tensor


def steps_figure(run: Run) -> Iterator[NamedFigure]:
    """Draw adversarial accuracy along the inner steps."""
    found = {v.steps: records_of(run.out, v.folder) for v in experiments.sweep_variants(run, "steps")}
    right = {steps: right_under(records) for steps, records in found.items() if len(records)}
    if right:
        ours = [(float(own.mean()), *wilson(float(own.sum()), len(own))) for own in right.values()]
        theirs = [(steps, value / 100) for steps, value in PRINTED_SWEEPS["steps"].items()] if compared(run) else []
        drawn = plateau("steps of the inner optimisation", list(right), ours, theirs, chosen=1, source="thesis")
        yield NamedFigure("steps", "steps", "Accuracy under PGD by steps of the inner optimisation", drawn)
