"""The figures of the paper: alphas, success rates, mixed codes, and examples of purification."""

from collections.abc import Iterator, Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from gencls.defenses import alpha_schedule, fgsm_examples
from gencls.eval import closest_distances, success_rate_curve
from gencls.eval.measures.success_rates import SuccessCurve
from gencls.eval.report.paper.figures import Tile, success_panels, tile_grid
from gencls.eval.report.style import PALETTE, STYLE, NamedFigure
from recipes.mlvgm import analyses, experiments
from recipes.mlvgm.runs import ALPHAS, STANDALONE, Run

ATTACKS = {"deepfool": "DeepFool", "cw": "C&W", "autoattack": "AutoAttack"}
"""How the key of an attack begins -> its name."""
WORST = "all attacks"

_PAIRS = 4
"""Pairs of images in the figures of codes."""
_ROWS = 32
"""Images in one forward pass."""
_CASES = 3
"""Successes, and failures, in the figure of purified images."""


def curves(run: Run, names: Sequence[str]) -> dict[str, dict[str, SuccessCurve]]:
    """Attack -> defense -> success rates (eq. 5) from the records; the last entry is all attacks together.

    AutoAttack attacks at a few sizes, so its curve is a lower bound between them.
    """
    found: dict[str, dict[str, SuccessCurve]] = {name: {} for name in (*ATTACKS.values(), WORST)}
    for name in names:
        rows = experiments.records(run, name)
        for key, attack in {**ATTACKS, "": WORST}.items():
            own = rows[rows["attack"].str.startswith(key)] if len(rows) else rows
            if len(own):
                found[attack][name] = success_rate_curve(closest_distances(own))
    return {attack: by_name for attack, by_name in found.items() if by_name}


def pearson(found: pd.DataFrame, column: str = "printed") -> tuple[float, float]:
    """Pearson's coefficient of monotonicity and accuracy, and its p-value."""
    from scipy.stats import pearsonr

    result = pearsonr(found[column], found["accuracy"])
    return float(result.statistic), float(result.pvalue)


def every_figure(run: Run, random: pd.DataFrame | None) -> Iterator[NamedFigure]:
    """All figures that the folder of the run has data for."""
    with matplotlib.rc_context(STYLE):
        yield _replaced(run)
        if random is not None:
            yield NamedFigure("alphas", "figure-3a", "Figures 3 to 5 (a): monotonicity and accuracy", _scatter(random))
        yield NamedFigure("alphas", "figure-3b", "Figures 3 to 5 (b): alphas of the levels", _levels(run))
        if run.learned is not None:
            yield _mixed(run, analyses.class_levels(run.learned))
            yield _purified(run)
    limit = run.profile.sizes[-1]
    ours = experiments.chosen(run)
    named = f", ours: {ours}" if ours else ""
    for name, title, defenses, dotted in (
        ("figure-3c", "Figures 3 to 5 (c), 17 to 19: alphas", ALPHAS, ()),
        ("figure-11", "Figures 11 to 13: preprocessing of the best alphas", experiments.preprocessed(run), STANDALONE),
        ("figure-6", f"Figures 6 to 8, 17 to 19: comparison{named}", experiments.compared(run), ()),
    ):
        if panels := curves(run, defenses):
            yield NamedFigure("attacks", name, title, success_panels(panels, limit=limit, dotted=dotted))


def _scatter(random: pd.DataFrame) -> Figure:
    """Draw Spearman's index against the accuracy of random alphas, with the line of least squares."""
    figure = Figure(figsize=(4.2, 3.2), layout="constrained")
    axis = figure.subplots()
    axis.plot(random["printed"], 100 * random["accuracy"], "o", color=PALETTE[0], markersize=3, alpha=0.5)
    slope, offset = np.polyfit(random["printed"], 100 * random["accuracy"], 1)
    ends = np.array([random["printed"].min(), random["printed"].max()])
    axis.plot(ends, slope * ends + offset, color=PALETTE[1], linewidth=1.5)
    coefficient, _ = pearson(random)
    axis.set(xlabel="Spearman's index, eq. 6 as printed", ylabel="accuracy in %")
    axis.set_title(f"{len(random)} random alphas, Pearson {coefficient:.3f}", fontsize=9)
    return figure


def _levels(run: Run) -> Figure:
    """Draw the alphas before ``highest``, level by level."""
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axis = figure.subplots()
    count = run.generator.num_levels
    shown: Mapping[str, Sequence[float] | None] = {
        "linear": alpha_schedule("linear", count),
        "cosine": alpha_schedule("cosine", count),
        "learned": run.learned,
    }
    for i, (name, alphas) in enumerate(shown.items()):
        if alphas is not None:
            axis.plot(range(count), alphas, "o-", color=PALETTE[i], markersize=4, linewidth=1.2, label=name)
    axis.set(xlabel="level, coarse to fine", ylabel="alpha", xticks=range(count), ylim=(-0.03, 1.03))
    if run.profile.highest < 1:
        axis.set_ylabel(f"alpha, before the maximum of {run.profile.highest:g}")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _replaced(run: Run) -> NamedFigure:
    images = run.images(_PAIRS)
    columns = analyses.replaced_codes(run.generator, images, seed=run.seed)
    rows = [[Tile(images[i]), *(Tile(column[i]) for column in columns)] for i in range(len(images))]
    heads = ["image", "as coded", *(f"level {level}" for level in range(run.generator.num_levels))]
    return NamedFigure("codes", "figure-1c", "Figure 1 (c): the code of one level sampled anew", tile_grid(rows, heads))


@torch.no_grad()
def _decided(run: Run, images: Tensor) -> list[str]:
    decisions = torch.cat([run.classifier(batch).argmax(dim=1) for batch in images.split(_ROWS)])
    return [run.data.class_names[k] for k in decisions.tolist()]


def _mixed(run: Run, levels: Sequence[int]) -> NamedFigure:
    """Draw pairs of different classes, with the classifier's decision on each image."""
    labels, pairs = run.data.labels.tolist(), list[tuple[int, int]]()
    for i in range(len(labels)):
        used = {k for pair in pairs for k in pair}
        other = next((j for j in range(i + 1, len(labels)) if j not in used and labels[j] != labels[i]), None)
        if i not in used and other is not None and len(pairs) < _PAIRS:
            pairs.append((i, other))
    first, second = (run.data.images[[pair[k] for pair in pairs]].to(run.device) for k in (0, 1))
    columns = [first, *analyses.mixed_codes(run.generator, first, second, levels), second]
    words = [_decided(run, column) for column in columns]
    rows = [[Tile(column[i], said[i]) for column, said in zip(columns, words, strict=True)] for i in range(len(pairs))]
    heads = ["A", "class of A,\ndetails of B", "class of B,\ndetails of A", "B"]
    kept = ", ".join(map(str, levels))
    return NamedFigure(
        "codes", "figure-9", f"Figures 9 and 10: class codes (levels {kept}) and details mixed", tile_grid(rows, heads)
    )


def _purified(run: Run) -> NamedFigure:
    """Draw successes and failures of purification on FGSM images of the base model, beside ND-VAE and A-VAE."""
    ours = experiments.chosen(run) or "learned"
    count = min(len(run.data), 200)
    images, labels = run.images(count), run.data.labels[:count].to(run.device)
    purification = run.purification("linear")
    adversarial, _ = fgsm_examples(purification, run.classifier, images, labels, epsilon=run.profile.fgsm, keep="all")
    columns = {"clean": images, "adversarial": adversarial}
    for name in (ours, "ND-VAE", "A-VAE"):
        transform = run.transform(name) if name == ours or name in run.profile.baselines else None
        if transform is not None:
            columns[name] = analyses.every_draw(transform, adversarial, 1, run.seed, "shown", rows=_ROWS).squeeze(1)
    words = {name: _decided(run, column) for name, column in columns.items()}
    truth = [run.data.class_names[k] for k in labels.tolist()]
    chosen = [i for i in range(count) if words["clean"][i] == truth[i] != words["adversarial"][i]]
    right = [i for i in chosen if words[ours][i] == truth[i]][:_CASES]
    wrong = [i for i in chosen if words[ours][i] != truth[i]][:_CASES]
    rows = [
        [Tile(column[i], words[name][i], wrong=words[name][i] != truth[i]) for name, column in columns.items()]
        for i in (*right, *wrong)
    ]
    cases = f"{len(right)} successes, then {len(wrong)} failures"
    title = f"Figures 14 to 16: purification of FGSM images (L2 {run.profile.fgsm:g}): {cases}"
    return NamedFigure("examples", "figure-14", title, tile_grid(rows or [[Tile(None)] * len(columns)], list(columns)))
