"""The look of figures: colours, letters, names that fit, and files of equal bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gencls.core.files import atomically
from gencls.eval.measures.names import shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart by all kinds of colour vision.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#444444", "#b8a800")
WIDTH = 5.75  # inches; two figures stand side by side on a laptop
GRID, INK, FAINT = "#e3e6ea", "#1d2430", "#8a93a0"
_FONT = "DejaVu Sans"
_MOST = 32
"""The most characters of a name in a figure."""

STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#b4bac4",
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": _FONT,
    "font.size": 9,
    "image.composite_image": False,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "savefig.dpi": 170,
    "text.color": INK,
    "text.parse_math": False,  # a name may hold dollars
    "xtick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.color": INK,
    "ytick.labelsize": 9,
    "ytick.major.size": 0,
}


@dataclass(frozen=True)
class NamedFigure:
    """A figure with what the page needs around it: its section, file name without ending, and heading."""

    section: str
    name: str
    title: str
    figure: Figure

    def write(self, folder: Path) -> dict[str, str]:
        """Write NAME.png and NAME.pdf; return what a page shows: names, the PNG in base64, and its width in CSS pixels."""
        png = self.encode("png")
        width = str(round(96 * self.figure.get_figwidth()))  # the drawn size, whatever the resolution
        atomically(folder / f"{self.name}.png", png)
        atomically(folder / f"{self.name}.pdf", self.encode("pdf"))
        words = {"section": self.section, "name": self.name, "title": self.title}
        return {**words, "data": base64.b64encode(png).decode("ascii"), "width": width}

    def encode(self, kind: str) -> bytes:
        """Encode the figure as "png" or "pdf", without time stamps, so that equal figures give equal bytes."""
        import matplotlib

        stamp: dict[str, Any] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}[kind]
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            self.figure.savefig(buffer, format=kind, metadata=stamp)
            self.figure.set_layout_engine("none")  # the layout is found; a second search would cost as much as the drawing
        return buffer.getvalue()


def drawn(name: str, most: int = _MOST) -> str:
    """Write a name for a figure: characters that its font lacks become numbers, and a long name is shortened."""
    known = _letters()
    return shortened("".join(c if ord(c) in known else f"U+{ord(c):04X}" for c in name), most)


def legend_columns(labels: Iterable[str], most: int, width: float = WIDTH) -> int:
    """Choose how many columns of a legend with these labels fit beside each other."""
    longest = max(map(len, labels), default=0)
    return max(1, min(most, int(width / (0.45 + 0.067 * longest))))  # inches for a handle and for a letter


@cache
def _letters() -> frozenset[int]:
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(findfont(_FONT)).get_charmap())
