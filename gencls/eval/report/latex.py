"""Words and tables for LaTeX: ASCII that pdfLaTeX, XeLaTeX and LuaLaTeX all read, with every character printed as itself."""

import unicodedata
from collections.abc import Sequence

__all__ = ["HEAD", "OTHER_SCRIPTS", "escape", "table"]

OTHER_SCRIPTS = r"\providecommand{\otherscript}[2]{\ifdefined\Umathcode#2\else\texttt{U+#1}\fi}"
"""Defines what :func:`escape` writes for other scripts: the character for XeLaTeX and LuaLaTeX, its number for pdfLaTeX."""

HEAD = "% Needs \\usepackage{booktabs}\n" + OTHER_SCRIPTS
"""What a file of tables begins with."""

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
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "\N{EN DASH}": "--",
    "\N{EM DASH}": "---",
    "\N{HORIZONTAL ELLIPSIS}": r"\dots{}",
    "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}": "(",
    "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}": ")",
    "\N{NARROW NO-BREAK SPACE}": r"\,",
    "\N{NO-BREAK SPACE}": "~",
    "∞": r"$\infty$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "°": r"$^\circ$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "→": r"$\rightarrow$",
    "µ": r"$\mu$",
    "ε": r"$\varepsilon$",
    "φ": r"$\varphi$",
    "ς": r"$\varsigma$",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
    "§": r"\S{}",
    "†": r"\dag{}",
    "©": r"\copyright{}",
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
    "\n": " ",
    "\t": " ",
    "\r": " ",
}
_GREEK = [
    *("alpha", "beta", "gamma", "delta", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu"),
    *("nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "chi", "psi", "omega"),
]
_ESCAPES |= {
    unicodedata.lookup(f"GREEK SMALL LETTER {word}".upper().replace("LAMBDA", "LAMDA")): rf"$\{word}$" for word in _GREEK
}
_ACCENTS = {
    "\N{COMBINING GRAVE ACCENT}": "`",
    "\N{COMBINING ACUTE ACCENT}": "'",
    "\N{COMBINING CIRCUMFLEX ACCENT}": "^",
    "\N{COMBINING TILDE}": "~",
    "\N{COMBINING MACRON}": "=",
    "\N{COMBINING BREVE}": "u",
    "\N{COMBINING DOT ABOVE}": ".",
    "\N{COMBINING DIAERESIS}": '"',
    "\N{COMBINING RING ABOVE}": "r",
    "\N{COMBINING DOUBLE ACUTE ACCENT}": "H",
    "\N{COMBINING CARON}": "v",
    "\N{COMBINING CEDILLA}": "c",
}
_LIGATURES = "-`',<>?!"
"""Characters that a font may join with the one before."""


def escape(words: str) -> str:
    """Text for LaTeX: every special character printed as itself."""
    parts: list[str] = []
    before = ""
    for character in unicodedata.normalize("NFC", words):
        parts += ["{}"] if before in _LIGATURES and character in "-`'," and before else []
        parts.append(_escaped(character))
        before = character
    return "".join(parts)


def _escaped(character: str) -> str:
    if character in _ESCAPES or " " <= character <= "~":
        return _ESCAPES.get(character, character)
    letter, *accents = list(unicodedata.normalize("NFD", character))
    if letter.isascii() and letter.isprintable() and len(accents) == 1 and accents[0] in _ACCENTS:
        dotless = {"i": r"\i", "j": r"\j"} if accents[0] != "\N{COMBINING CEDILLA}" else {}
        return rf"\{_ACCENTS[accents[0]]}{{{dotless.get(letter, letter)}}}"
    if character.isprintable():
        return rf"\otherscript{{{ord(character):04X}}}{{{character}}}"
    return rf"\texttt{{U+{ord(character):04X}}}"


def table(columns: str, heads: Sequence[str], lines: Sequence[Sequence[str]], caption: str, notes: Sequence[str]) -> str:
    """A table in booktabs' form.

    Args:
        columns: their alignment, as tabular takes it.
        heads: of the columns.
        lines: cells of each row, in LaTeX like everything here; one cell alone spans all columns.
        caption: above the table.
        notes: below it.
    """
    # The braces keep a cell that begins with a bracket from being read as an argument of the line break before it.
    body = ["{}" + " & ".join(line) if len(line) > 1 else rf"\multicolumn{{{len(heads)}}}{{l}}{{{line[0]}}}" for line in lines]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(heads) + r" \\",
            r"\midrule",
            *(rf"{line} \\" for line in body),
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\footnotesize {note}" for note in notes),
            r"\end{table}",
            "",
        ]
    )
