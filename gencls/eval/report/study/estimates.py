"""The estimates of a study: clean accuracy and worst-case robust accuracy of each defense under each threat."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from gencls.eval.measures.names import WORST_CASE, file_name, isolated
from gencls.eval.measures.records import PLAIN_MODES
from gencls.eval.measures.statistics import wilson
from gencls.eval.report.formats import epsilon as format_epsilon
from gencls.eval.report.formats import is_missing, text, warning_list
from gencls.eval.report.latex import escape
from gencls.eval.report.study.columns import BY_NAME
from gencls.eval.threats.protocol import kind_of, kinds


class ThreatKey(NamedTuple):
    """The norm and budget that several rows of a study share; epsilon is None for minimal perturbations."""

    norm: str
    epsilon: float | None
    eight_bit: bool = False

    @property
    def label(self) -> str:
        """The threat for pages and figures, such as "L∞, ε = 0.3"."""
        size = "minimal" if self.epsilon is None else f"ε = {format_epsilon(self.epsilon)}"
        return f"{norm_label(self.norm)}, {size}" + (", 8-bit" if self.eight_bit else "")

    @property
    def latex(self) -> str:
        """The threat for LaTeX tables."""
        size = "minimal" if self.epsilon is None else rf"$\varepsilon = {format_epsilon(self.epsilon)}$"
        return f"{norm_latex(self.norm)}, {size}" + (", 8-bit" if self.eight_bit else "")

    @property
    def slug(self) -> str:
        """The threat for file names."""
        size = "minimal" if self.epsilon is None else format_epsilon(self.epsilon).replace("/", "of")
        return file_name(self.norm, size, "8bit" if self.eight_bit else "")


@dataclass(frozen=True)
class Estimate:
    """An accuracy with everything that must stand beside it.

    Args:
        value: accuracy in [0, 1].
        low: lower limit of its 95 % interval.
        high: upper limit of its 95 % interval.
        n: number of samples.
        draws: number of the judge's draws per sample, as text (an en dash if unknown).
        strongest: name of the single attack that came closest to the worst case, with its own accuracy in [0, 1].
        majority: share of samples that the majority of the draws gets right, in percent, or its range, as text; None if there
            is one draw per sample.
        any_draw: share in [0, 1] of samples right in every draw; None if there is one draw per sample.
        claimed: accuracy in [0, 1] by the attacks' own account.
        undecided: number of samples whose majority is open.
        excluded: number of samples that are not counted, because their adversarials broke the rules.
        lost_to_eight_bit: number of samples that rounding to 8 bits has saved; None if nothing was rounded.
        warnings: reasons to distrust the value.
    """

    value: float
    low: float
    high: float
    n: int
    draws: str
    strongest: tuple[str, float] | None = None
    majority: str | None = None
    any_draw: float | None = None
    claimed: float | None = None
    undecided: int = 0
    excluded: int = 0
    lost_to_eight_bit: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class EstimateRow:
    """One defense: its clean accuracy and one estimate per threat; None stands for a missing number."""

    defense: str
    clean: Estimate | None
    robust: tuple[Estimate | None, ...]


def norm_label(norm: Any) -> str:
    """Write a norm's name in the usual typography."""
    return kind_of(norm).label if norm in kinds() else text(norm)


def norm_latex(norm: str) -> str:
    """Write a norm's name in the usual typography for LaTeX."""
    return kind_of(norm).latex if norm in kinds() else escape(norm)


def defenses(summary: pd.DataFrame) -> list[str]:
    """List the names of the defenses in their order of appearance."""
    return [str(name) for name in summary["defense"].unique()]


def threats(summary: pd.DataFrame) -> list[ThreatKey]:
    """List the threats of a study: L∞ first, then the other norms, each by growing budget, minimal attacks last."""
    found = set(_threats_of(summary))
    return sorted(found, key=lambda t: (t.norm != "linf", t.norm, math.inf if t.epsilon is None else t.epsilon, t.eight_bit))


def select(frame: pd.DataFrame, threat: ThreatKey, defense: str | None = None) -> pd.DataFrame:
    """Select the rows of one threat, and of one defense if given."""
    rows = frame[[found == threat for found in _threats_of(frame)]]
    return rows if defense is None else rows[rows["defense"] == defense]


def attack_label(row: Any) -> str:
    """Name an attack, with its gradient mode if that tells something, such as "PGD, unrolled"."""
    attack, gradient = text(row["attack"]), text(row["gradient"])
    return attack if gradient in (*PLAIN_MODES, text(None)) else f"{attack}, {gradient}"


def estimates(summary: pd.DataFrame) -> tuple[list[ThreatKey], list[EstimateRow]]:
    """Collect clean and worst-case robust accuracies: one row per defense, with one estimate for each of the returned threats.

    It leaves out minimal perturbations, since a success at any distance says little: their curves say more.

    If a study has several worst-case rows for a threat (one per seed), the lowest counts. The estimate carries the warnings of
    all rows of its defense and threat, since each of these attacks entered it.
    """
    attacked = summary[(summary["attack"] == WORST_CASE) & summary["robust_accuracy"].notna() & summary["epsilon"].notna()]
    keys = threats(attacked)
    rows = [
        EstimateRow(name, _clean(summary[summary["defense"] == name]), tuple(_worst(summary, key, name) for key in keys))
        for name in defenses(summary)
    ]
    return keys, rows


def _threats_of(frame: pd.DataFrame) -> list[ThreatKey]:
    """Read the threat of each row."""
    rows = frame[[name for name in ("norm", "epsilon", "eight_bit") if name in frame]].to_dict("records")
    return [
        ThreatKey(
            text(row["norm"]),
            None if is_missing(row["epsilon"]) else round(float(row["epsilon"]), 9),
            bool(row.get("eight_bit", False)),
        )
        for row in rows
    ]


def _clean(rows: pd.DataFrame) -> Estimate | None:
    rows = rows.dropna(subset=["clean_accuracy"])
    if rows.empty:
        return None
    widest = rows[rows["n"] == rows["n"].max()]
    n, value = int(widest["n"].iloc[0]), float(widest["clean_accuracy"].mean())
    drawn = widest["draws"].max() > 1
    majority = BY_NAME["clean_majority_accuracy"].words(widest.iloc[0]) if drawn else None
    return Estimate(value, *wilson(value * n, n), n, text(widest["draws"].max()), majority=majority)


def _worst(summary: pd.DataFrame, threat: ThreatKey, defense: str) -> Estimate | None:
    rows = select(summary, threat, defense).dropna(subset=["robust_accuracy"])
    worst = rows[rows["attack"] == WORST_CASE]
    if worst.empty:
        return None
    lowest = worst.iloc[int(worst["robust_accuracy"].argmin())]
    single = rows[(rows["attack"] != WORST_CASE) & (rows["excluded"] == 0)]  # others are about fewer samples
    strongest = None
    if not single.empty:
        best = single.iloc[int(single["robust_accuracy"].argmin())]
        strongest = (attack_label(best), float(best["robust_accuracy"]))
    drawn = lowest["draws"] > 1
    return Estimate(
        float(lowest["robust_accuracy"]),
        float(lowest["ci_low"]),
        float(lowest["ci_high"]),
        int(lowest["n"]),
        text(lowest["draws"]),
        strongest,
        majority=BY_NAME["majority_accuracy"].words(lowest) if drawn else None,
        any_draw=float(lowest["any_draw_accuracy"]) if drawn else None,
        claimed=None if is_missing(lowest["claimed_robust_accuracy"]) else float(lowest["claimed_robust_accuracy"]),
        undecided=0 if is_missing(lowest["undecided"]) else int(lowest["undecided"]),
        excluded=int(lowest["excluded"]),
        lost_to_eight_bit=None if is_missing(lowest["lost_to_eight_bit"]) else int(lowest["lost_to_eight_bit"]),
        warnings=_warnings(rows),
    )


def _warnings(rows: pd.DataFrame) -> tuple[str, ...]:
    """List each warning once, after the names of the attacks that it concerns."""
    concerned: dict[str, list[str]] = {}
    for _, row in rows.iterrows():
        for warning in warning_list(row["warnings"]):
            names = concerned.setdefault(warning, [])
            if row["attack"] != WORST_CASE and attack_label(row) not in names:
                names.append(attack_label(row))
    return tuple(f"{'; '.join(map(isolated, names or [WORST_CASE]))}: {warning}" for warning, names in concerned.items())
