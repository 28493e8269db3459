"""LaTeX tables of a study (booktabs): the worst case, one line per attack, and the distances of minimal perturbations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pandas as pd

from gencls.eval.measures.names import WORST_CASE, shortened
from gencls.eval.report.formats import MISSING, count, percent, text, warning_list
from gencls.eval.report.latex import HEAD, escape, table
from gencls.eval.report.study.columns import BY_NAME
from gencls.eval.report.study.estimates import Estimate, attack_label, estimates, norm_latex, select, threats

_MOST = 40
"""The most characters of a name in a table."""


def latex_tables(summary: pd.DataFrame, failed: Mapping[str, Sequence[str]] = MappingProxyType({})) -> str:
    """Write all tables as one file, which a document inputs after loading booktabs; daggers lead to warnings below a table.

    Returns:
        LaTeX source: the worst case, a line per attack with a budget, and the distances of minimal-norm attacks if any.
    """
    tables = [_worst_case_table(summary, failed), _attack_table(summary[summary["epsilon"].notna()])]
    minimal = summary[summary["epsilon"].isna()]
    if not minimal.empty:
        tables.append(_distance_table(minimal))
    return "\n".join([HEAD, *tables])


def _worst_case_table(summary: pd.DataFrame, failed: Mapping[str, Sequence[str]]) -> str:
    (keys, rows), notes = estimates(summary), _Notes()
    heads = ["Defense", "$N$", "Clean"] + [key.latex for key in keys]
    lines = []
    for row in rows:
        counts = sorted({e.n for e in (row.clean, *row.robust) if e is not None})
        cells = [_estimate(row.clean, notes)] + [_estimate(estimate, notes) for estimate in row.robust]
        checks = failed.get(row.defense)
        name = _name(row.defense) + notes.mark([f"diagnosis failed: {', '.join(checks)}"] if checks else [])
        lines.append([name, escape(MISSING.join(count(n) for n in (counts[:1] + counts[1:][-1:]))), *cells])
    caption = r"Clean and worst-case robust accuracy in \%, with 95\,\% Wilson intervals."
    return _table("l" + "r" * (len(heads) - 1), heads, lines, caption, notes)


def _distance_table(summary: pd.DataFrame) -> str:
    notes, lines = _Notes(), []
    for row in summary.to_dict("records"):
        name = r"\emph{worst case}" if row["attack"] == WORST_CASE else _name(attack_label(row))
        cells = [
            _name(text(row["defense"])),
            name,
            norm_latex(row["norm"]) + (", 8-bit" if row["eight_bit"] else ""),
            escape(text(row["seed"])),
            escape(count(row["n"])),
        ]
        cells += [escape(BY_NAME[kind].words(row)) for kind in ("median_distance", "mean_distance")]
        lines.append([*cells, escape(count(row["failures"])) + notes.mark(warning_list(row["warnings"]))])
    heads = ["Defense", "Attack", "Norm", "Seed", "$N$", "Median", "Mean", "Failures"]
    caption = (
        r"Distance of the closest adversarial examples, with 95\,\% bootstrap intervals. Clean errors count as 0; failures are "
        r"infinite in the median and left out of the mean."
    )
    return _table("lll" + "r" * 5, heads, lines, caption, notes)


def _attack_table(summary: pd.DataFrame) -> str:
    notes, lines = _Notes(), []
    for threat in threats(summary):
        for _, row in select(summary, threat).iterrows():
            name = r"\emph{worst case}" if row["attack"] == WORST_CASE else _name(attack_label(row))
            cells = [_name(text(row["defense"])), name, threat.latex, escape(text(row["seed"]))]
            cells += [escape(count(row[column])) for column in ("n", "draws")]
            cells.append(escape(percent(row["clean_accuracy"])))
            cells.append(escape(BY_NAME["robust_accuracy"].words(row)) + notes.mark(warning_list(row["warnings"])))
            cells += [escape(BY_NAME[f"{kind}_accuracy"].words(row)) for kind in ("majority", "any_draw", "claimed_robust")]
            cells += [escape(count(row[column])) for column in ("forwards", "backwards", "seconds")]
            lines.append(cells)
    heads = ["Defense", "Attack", "Threat", "Seed", "$N$", "Draws", "Clean", "Robust", "Majority", "Any draw"]
    heads += ["Claimed", "Forwards", "Backwards", "Seconds"]
    caption = r"Robust accuracy in \% under each attack, as judged on the real defense and as claimed by the attack."
    return _table("lll" + "r" * 11, heads, lines, caption, notes)


def _name(name: str) -> str:
    return escape(shortened(name, _MOST))


class _Notes:
    """The numbered warnings of one table."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def mark(self, warnings: list[str]) -> str:
        """Number these warnings and return the daggers with their numbers."""
        self.words += [warning for warning in warnings if warning not in self.words]
        marks = ",".join(str(self.words.index(warning) + 1) for warning in warnings)
        return rf"$^{{\dagger {marks}}}$" if marks else ""


def _estimate(estimate: Estimate | None, notes: _Notes) -> str:
    if estimate is None:
        return "--"
    words = f"{percent(estimate.value)} [{percent(estimate.low)}, {percent(estimate.high)}]"
    return escape(words) + notes.mark(list(estimate.warnings))


def _table(columns: str, heads: list[str], lines: list[list[str]], caption: str, notes: _Notes) -> str:
    below = [rf"$^{{\dagger {i}}}$ {escape(word)}" for i, word in enumerate(notes.words, start=1)]
    return table(columns, heads, lines, caption, below)
