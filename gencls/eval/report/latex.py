"""Writes words and tables for LaTeX: ASCII that pdfLaTeX, XeLaTeX and LuaLaTeX all read; every character prints as itself."""

import unicodedata
from collections.abc import Sequence

OTHER_SCRIPTS = r"\providecommand{\otherscript}[2]{\ifdefined\Umathcode#2\else\texttt{U+#1}\fi}"
"""Defines the macro of :func:`escape` for other scripts: XeLaTeX and LuaLaTeX print the character, pdfLaTeX its number."""

HEAD = "% Needs \\usepackage{booktabs}\n" + OTHER_SCRIPTS
"""The beginning of a file of tables."""

_GREEK = (
    *("ALPHA", "BETA", "GAMMA", "DELTA", "ZETA", "ETA", "THETA", "IOTA", "KAPPA", "LAMDA", "MU"),
    *("NU", "XI", "PI", "RHO", "SIGMA", "TAU", "UPSILON", "CHI", "PSI", "OMEGA"),
)
_WORDS = {
    **{
        "\\": "textbackslash",
        "~": "textasciitilde",
        "^": "textasciicircum",
        "<": "textless",
        ">": "textgreater",
        "|": "textbar",
    },
    **{"\N{HORIZONTAL ELLIPSIS}": "dots", "§": "S", "†": "dag", "©": "copyright", '"': "char34"},
    **{"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "ı": "i"},
}
_SYMBOLS = {
    **{"∞": "infty", "×": "times", "±": "pm", "·": "cdot", "≥": "geq", "≤": "leq", "→": "rightarrow"},
    **{"µ": "mu", "ε": "varepsilon", "φ": "varphi", "ς": "varsigma"},
    **{unicodedata.lookup(f"GREEK SMALL LETTER {word}"): word.lower().replace("lamda", "lambda") for word in _GREEK},
}
_ESCAPES = {
    **{character: rf"\{character}" for character in "&%$#_{}"},
    **{character: rf"\{word}{{}}" for character, word in _WORDS.items()},
    **{character: rf"$\{word}$" for character, word in _SYMBOLS.items()},
    **{"\N{EN DASH}": "--", "\N{EM DASH}": "---", "“": "``", "”": "''", "‘": "`", "’": "'", "°": r"$^\circ$"},
    **{"\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}": "(", "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}": ")"},
    **{"\N{NARROW NO-BREAK SPACE}": r"\,", "\N{NO-BREAK SPACE}": "~", "\n": " ", "\t": " ", "\r": " "},
}
_MARKS = (
    *("GRAVE ACCENT", "ACUTE ACCENT", "CIRCUMFLEX ACCENT", "TILDE", "MACRON", "BREVE", "DOT ABOVE", "DIAERESIS"),
    *("RING ABOVE", "DOUBLE ACUTE ACCENT", "CARON", "CEDILLA"),
)
_ACCENTS = {unicodedata.lookup(f"COMBINING {mark}"): sign for mark, sign in zip(_MARKS, "`'^~=u.\"rHvc", strict=True)}
_LIGATURES = "-`',<>?!"
"""Characters that a font may join with the one before."""


def escape(words: str) -> str:
    """Write text for LaTeX, so that every special character prints as itself."""
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
    """Write a table in booktabs' form, all in LaTeX; one cell alone spans all columns. Notes stand below."""
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
