"""The paired tests of a study as matrices, one per threat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from gencls.eval.report.formats import probability
from gencls.eval.report.study.estimates import select, threats
from gencls.eval.report.style import drawn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALPHA = 0.01
"""Family-wise error rate within a matrix (thesis section 2.3 tests at .01, without a correction)."""

_MOST = 20
"""The most characters of a name at an axis."""

_BETTER, _OPEN, _WORSE = "#b5d7ee", "#f1f3f5", "#f6c7ae"


def mcnemar_tables(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield label, file name and pairs of each threat (and seed, if there are several), or of a whole table without threats."""
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


def better(p_holm: float, ours: int, theirs: int) -> int:
    """Return 1 or -1 if the first or the second of a pair is better at :data:`ALPHA` after Holm's correction, else 0."""
    return 0 if p_holm >= ALPHA else int(np.sign(ours - theirs))


def mcnemar_matrix(table: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Draw row against column: samples that only one of them classifies correctly, and p-values after Holm's correction.

    An arrow points to the name of the better defense: left to the row's, up to the column's.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    size, heads = len(names), [drawn(name, _MOST) for name in names]
    colours: npt.NDArray[np.float64] = np.full((size, size), np.nan)
    longest = max(map(len, heads))
    slanted, beyond = longest > 10, max(0, longest - 16)
    size_of = (max(4.2, 1.6 + 1.12 * size) + 0.1 * beyond, 0.7 + (0.35 if slanted else 0) + 0.68 * size + 0.025 * beyond)
    figure = Figure(figsize=size_of, layout="constrained")
    axis = figure.subplots()
    for row in table.to_dict("records"):
        a, b = names.index(str(row["defense_a"])), names.index(str(row["defense_b"]))
        for i, j, ours, theirs in ((a, b, row["only_a"], row["only_b"]), (b, a, row["only_b"], row["only_a"])):
            side = better(row["p_holm"], ours, theirs)
            colours[i, j] = side
            arrow = {1: "← ", -1: "↑ ", 0: ""}[side]
            axis.text(j, i - 0.22, f"{arrow}{int(ours)} : {int(theirs)}", ha="center", va="center", fontsize=9)
            for height, kind, column in ((0.08, "p", "p_holm"), (0.32, "mid-p", "p_mid_holm")):
                words = probability(float(row[column]))
                words = f"{kind} {words}" if words.startswith("<") else f"{kind} = {words}"
                axis.text(j, i + height, words, ha="center", va="center", fontsize=7)
    axis.imshow(colours, cmap=ListedColormap([_WORSE, _OPEN, _BETTER]), vmin=-1, vmax=1, aspect="auto")
    axis.set(xticks=range(size), yticks=range(size), yticklabels=heads)
    axis.set_xticklabels(heads, rotation=20 if slanted else 0, ha="left" if slanted else "center")
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=2)
    axis.tick_params(which="minor", length=0)
    axis.spines[:].set_visible(False)
    return figure
