"""The success-rate curves of a study: minimal-norm attacks at every size, other worst cases at their budgets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from gencls.eval.measures.names import WORST_CASE
from gencls.eval.measures.records import complete
from gencls.eval.measures.statistics import wilson_band
from gencls.eval.measures.success_rates import MinimalRun, SuccessCurve, minimal_runs, round_sizes, success_rate_curve

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AtBudgets:
    """Success rates (P,) of the worst case at the budgets that were attacked, from 0 on, with 95 % Wilson intervals.

    They are one minus the expected accuracy. Figures draw them if no minimal-norm attack ran. At size 0 stand the clean errors.
    """

    epsilon: Floats
    rate: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class DefenseCurves:
    """All curves of one defense in one norm.

    Args:
        minimal: attack -> its curve, with the worst case last; empty without minimal-norm attacks.
        budgets: the worst case at the attacked budgets, if there are two or more.
    """

    minimal: dict[str, SuccessCurve]
    budgets: AtBudgets | None = None

    @property
    def worst(self) -> SuccessCurve | AtBudgets | None:
        """The worst case over all attacks: at every size if a minimal-norm attack ran, else at the budgets."""
        return self.minimal.get(WORST_CASE, self.budgets)


Curves = dict[str, dict[str, DefenseCurves]]
"""Curves by norm and defense."""


def study_curves(records: pd.DataFrame, summary: pd.DataFrame) -> Curves:
    """Collect the curves of a study by norm and defense, in the order of the summary; 8-bit images have their own."""
    runs: dict[tuple[str, str, bool], list[MinimalRun]] = {}
    for run in minimal_runs(records):
        runs.setdefault((run.norm, run.defense, run.eight_bit), []).append(run)
    found: Curves = {}
    for (norm, defense, eight_bit), rows in summary.groupby(["norm", "defense", "eight_bit"], sort=False):
        curves = {run.attack: success_rate_curve(run.distances) for run in runs.get((norm, defense, eight_bit), ())}
        worst = rows[(rows["attack"] == WORST_CASE) & rows["epsilon"].notna() & rows["robust_accuracy"].notna()]
        budgets = _at_budgets(worst) if worst["epsilon"].nunique() > 1 else None
        if curves or budgets:
            name = f"{defense}, 8-bit" if eight_bit else str(defense)
            found.setdefault(str(norm), {})[name] = DefenseCurves(curves, budgets)
    return found


def curve_frame(curves: Curves) -> pd.DataFrame:
    """Put all curves of minimal-norm attacks with both bands into a table for curves.csv, one row per point."""
    parts = [
        curve.frame().assign(norm=norm, defense=defense, attack=attack)
        for norm, by_defense in curves.items()
        for defense, known in by_defense.items()
        for attack, curve in known.minimal.items()
    ]
    if not parts:
        return pd.DataFrame()
    frame = pd.concat(parts, ignore_index=True)
    head = ["norm", "defense", "attack"]
    return frame[head + [name for name in frame.columns if name not in head]]


def reading_sizes(records: pd.DataFrame) -> dict[str, list[float]]:
    """Choose for each norm the sizes at which a table reads off the curves: the study's budgets, or round sizes without any."""
    records = complete(records)
    distances: dict[str, list[Floats]] = {}
    for run in minimal_runs(records):
        if run.attack == WORST_CASE:
            distances.setdefault(run.norm, []).append(run.distances)
    sizes = {}
    for norm, parts in distances.items():
        budgets = records.loc[(records["norm"] == norm) & records["epsilon"].notna(), "epsilon"]
        sizes[norm] = sorted(float(budget) for budget in budgets.unique()) or round_sizes(np.concatenate(parts))
    return {norm: found for norm, found in sizes.items() if found}


def _at_budgets(rows: pd.DataFrame) -> AtBudgets:
    rows = rows.sort_values("robust_accuracy", kind="stable").drop_duplicates("epsilon").sort_values("epsilon")
    clean, n = float(rows["clean_accuracy"].mean()), int(rows["n"].max())
    (clean_low,), (clean_high,) = wilson_band([clean * n], n)
    return AtBudgets(
        np.append(0.0, rows["epsilon"].to_numpy(dtype=np.float64)),
        1 - np.append(clean, rows["robust_accuracy"].to_numpy(dtype=np.float64)),
        1 - np.append(clean_high, rows["ci_high"].to_numpy(dtype=np.float64)),
        1 - np.append(clean_low, rows["ci_low"].to_numpy(dtype=np.float64)),
    )
