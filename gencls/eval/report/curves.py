"""Success-rate curves: from several budgets, or from the distances of minimal perturbations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from gencls.eval.report.columns import text
from gencls.eval.statistics import wilson
from gencls.eval.summary import WORST_CASE

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Success rate of an attacker against the size of the perturbation.

    Args:
        label: What was attacked with.
        epsilon: (P,) growing sizes, from 0.
        rate: (P,) success rates in [0, 1]; the errors on clean images count as successes at size 0.
        low: (P,) lower limits of the 95 % intervals, if computed.
        high: (P,) upper limits.
    """

    label: str
    epsilon: Floats
    rate: Floats
    low: Floats | None = None
    high: Floats | None = None


def success_rates(records: pd.DataFrame, summary: pd.DataFrame) -> dict[str, dict[str, list[Curve]]]:
    """The curves of a study, by norm and defense.

    A defense has a curve where its worst case is known for at least two budgets, and one for each attack with minimal
    perturbations (rows without epsilon).
    """
    found: dict[str, dict[str, list[Curve]]] = {}
    worst = summary[(summary["attack"] == WORST_CASE) & summary["epsilon"].notna() & summary["robust_accuracy"].notna()]
    for (norm, defense), rows in worst.groupby(["norm", "defense"], sort=False):
        if rows["epsilon"].nunique() > 1:
            found.setdefault(str(norm), {}).setdefault(str(defense), []).append(_from_budgets(rows))
    minimal = records[records["epsilon"].isna() & records["norm"].notna() & records["distance"].notna()]
    for (norm, defense, attack), rows in minimal.groupby(["norm", "defense", "attack"], sort=False):
        curve = minimal_curve(rows, label=text(attack))
        found.setdefault(str(norm), {}).setdefault(str(defense), []).append(curve)
    return found


def minimal_curve(rows: pd.DataFrame, *, label: str) -> Curve:
    """Success rate at every size, from minimal perturbations, without attacking again.

    At size e a sample counts with its accuracy under the most damaging valid perturbation of size at most e (over gradient
    modes and seeds), or with its clean accuracy where there is none.

    Args:
        rows: Records of one defense and attack: `sample`, `clean_correct`, `correct` (fractions of draws), `distance`, `valid`.
        label: Name of the curve.

    Returns:
        A step function with a step at each distance.
    """
    distance = np.where(rows["valid"].to_numpy(dtype=bool), rows["distance"].to_numpy(dtype=np.float64), np.inf)
    before = rows["clean_correct"].to_numpy(dtype=np.float64)
    after = np.minimum(before, rows["correct"].to_numpy(dtype=np.float64))
    samples, position = np.unique(rows["sample"].to_numpy(), return_inverse=True)
    current: Floats = np.full(len(samples), np.inf)
    np.minimum.at(current, position, before)
    sizes, total = np.unique(np.append(0.0, distance[np.isfinite(distance)])), float(current.sum())
    rate = np.empty(len(sizes))
    order, next_row = np.argsort(distance, kind="stable"), 0
    for i, size in enumerate(sizes):
        while next_row < len(order) and distance[order[next_row]] <= size:
            row = order[next_row]
            total -= max(0.0, current[position[row]] - after[row])
            current[position[row]] = min(current[position[row]], after[row])
            next_row += 1
        rate[i] = 1 - total / len(samples)
    return Curve(label, sizes, rate)


def _from_budgets(rows: pd.DataFrame) -> Curve:
    rows = rows.sort_values("robust_accuracy", kind="stable").drop_duplicates("epsilon").sort_values("epsilon")
    clean, n = float(rows["clean_accuracy"].mean()), int(rows["n"].max())
    clean_low, clean_high = wilson(clean * n, n)
    return Curve(
        WORST_CASE,
        np.append(0.0, rows["epsilon"].to_numpy(dtype=np.float64)),
        1 - np.append(clean, rows["robust_accuracy"].to_numpy(dtype=np.float64)),
        1 - np.append(clean_high, rows["ci_high"].to_numpy(dtype=np.float64)),
        1 - np.append(clean_low, rows["ci_low"].to_numpy(dtype=np.float64)),
    )
