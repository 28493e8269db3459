"""LaTeX tables of a study (booktabs): the verdict, and one line per attack."""

from __future__ import annotations

import pandas as pd

from gencls.eval.report.columns import MISSING, count, percent, text, warning_list
from gencls.eval.report.verdict import Estimate, attack_label, select, threats, verdict
from gencls.eval.summary import WORST_CASE

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    MISSING: "--",
    "—": "---",
    "\N{NARROW NO-BREAK SPACE}": r"\,",
    "ε": r"$\varepsilon$",
    "∞": r"$\infty$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "\n": " ",
}


def escape(words: str) -> str:
    """Text for LaTeX: every special character printed as itself."""
    return "".join(_ESCAPES.get(character, character) for character in words)


def latex_tables(summary: pd.DataFrame) -> str:
    """Both tables as one file to be input after loading booktabs; daggers lead to the warnings below a table.

    Args:
        summary: Summary of the study, as for `write_report`.

    Returns:
        LaTeX source.
    """
    return "% Needs \\usepackage{booktabs}\n" + _verdict_table(summary) + "\n" + _attack_table(summary)


def _verdict_table(summary: pd.DataFrame) -> str:
    (keys, rows), notes = verdict(summary), _Notes()
    heads = ["Defense", "$N$", "Clean"] + [key.latex for key in keys]
    lines = []
    for row in rows:
        counts = sorted({e.n for e in (row.clean, *row.robust) if e is not None})
        cells = [_estimate(row.clean, notes)] + [_estimate(estimate, notes) for estimate in row.robust]
        lines.append([escape(row.defense), escape(MISSING.join(count(n) for n in (counts[:1] + counts[1:][-1:]))), *cells])
    caption = r"Clean and worst-case robust accuracy in \%, with 95\,\% Wilson intervals."
    return _table("l" + "r" * (len(heads) - 1), heads, lines, caption, notes)


def _attack_table(summary: pd.DataFrame) -> str:
    notes, lines = _Notes(), []
    for threat in threats(summary):
        for _, row in select(summary, threat).iterrows():
            name = r"\emph{worst case}" if row["attack"] == WORST_CASE else escape(attack_label(row))
            interval = f" [{percent(row['ci_low'])}, {percent(row['ci_high'])}]"
            cells = [escape(text(row["defense"])), name, threat.latex, escape(text(row["seed"]))]
            cells += [escape(count(row[column])) for column in ("n", "draws")]
            cells.append(escape(percent(row["clean_accuracy"])))
            cells.append(escape(percent(row["robust_accuracy"]) + interval) + notes.mark(warning_list(row["warnings"])))
            cells.append(escape(percent(row["claimed_robust_accuracy"])))
            cells += [escape(count(row[column])) for column in ("forwards", "backwards", "seconds")]
            lines.append(cells)
    heads = ["Defense", "Attack", "Threat", "Seed", "$N$", "Draws", "Clean", "Robust", "Claimed"]
    heads += ["Forwards", "Backwards", "Seconds"]
    caption = r"Robust accuracy in \% under each attack, as judged on the real defense and as claimed by the attack."
    return _table("lll" + "r" * 9, heads, lines, caption, notes)


class _Notes:
    """Numbered warnings of one table."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def mark(self, warnings: list[str]) -> str:
        """The daggers with the numbers of these warnings."""
        self.words += [warning for warning in warnings if warning not in self.words]
        marks = ",".join(str(self.words.index(warning) + 1) for warning in warnings)
        return rf"$^{{\dagger {marks}}}$" if marks else ""


def _estimate(estimate: Estimate | None, notes: _Notes) -> str:
    if estimate is None:
        return "--"
    words = f"{percent(estimate.value)} [{percent(estimate.low)}, {percent(estimate.high)}]"
    return escape(words) + notes.mark(list(estimate.warnings))


def _table(columns: str, heads: list[str], lines: list[list[str]], caption: str, notes: _Notes) -> str:
    # The braces keep a cell that begins with a bracket from being read as an argument of the line break before it.
    body = ["{}" + " & ".join(line) + r" \\" for line in lines]
    below = [rf"\par\footnotesize $^{{\dagger {i}}}$ {escape(word)}" for i, word in enumerate(notes.words, start=1)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(heads) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *below,
            r"\end{table}",
            "",
        ]
    )
