"""Attacks that a gradient attack must not be weaker than, and what is said where it is.

An attack without the defense's gradient (noise, queries, transfer) has less to go by, and a minimal-norm attack looks for
something else than success within the budget. Where such an attack breaks more all the same, the gradients of the other one
led astray: they are masked (Athalye, Carlini, Wagner 2018, arXiv:1802.00420, section 3.1), or it made too few steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gencls.eval.curves import record_distances
from gencls.eval.records import NO_GRADIENT
from gencls.eval.statistics import mcnemar
from gencls.eval.threat import TOLERANCE

if TYPE_CHECKING:
    import pandas

__all__ = ["Rival", "closest", "rivals", "weakness"]

_MORE = 2
"""Images that a rival must break beyond the attack, on balance, before anything is said."""

_LEVEL = 0.05
"""Of McNemar's exact one-sided test, below which it is not taken for chance."""

_CLOSER = 0.99
"""Of two minimal-norm attacks one comes closer if its distance is below this share of the other's."""


@dataclass(frozen=True)
class Rival:
    """An attack that others are held against.

    Attributes:
        attack: name.
        blind: it uses no gradient of the defense.
        minimal: it minimises the distance.
        distances: by sample hash, of the closest adversarial in any gradient mode; infinite where there is none.
    """

    attack: str
    blind: bool
    minimal: bool
    distances: "pandas.Series"


def rivals(records: "pandas.DataFrame") -> list[Rival]:
    """The attacks without gradients and the minimal-norm attacks among the judged records of one defense, norm and seed."""
    found = []
    for attack, own in records.groupby("attack", sort=False):
        blind, minimal = bool((own["gradient"] == NO_GRADIENT).all()), bool(own["epsilon"].isna().all())
        if blind or minimal:
            found.append(Rival(str(attack), blind, minimal, closest(own)))
    return found


def closest(records: "pandas.DataFrame") -> "pandas.Series":
    """Of judged records, by sample hash: the distance of the closest adversarial, infinite where there is none."""
    return record_distances(records).groupby(records["sample_hash"]).min()


def weakness(own: "pandas.Series", against: Sequence[Rival], size: float | None, *, together: bool = False) -> str:
    """What is to be said of a gradient attack, because of the rival that outdoes it on most images; empty for nothing.

    Within a budget a rival outdoes it on an image that it breaks at no more than this size and the attack does not. Without one
    it must come closer, and use no gradient. Said is a surplus of at least two images, and called chance unless McNemar's exact
    one-sided test gives p < .05.

    Args:
        own: by sample hash, the distances that the attack found, infinite where none; within the budget if there is one.
        against: the rivals, other attacks than this one.
        size: epsilon of the budget; None for a minimal-norm attack.
        together: ``own`` is of all gradient attacks of the threat.
    """
    best, most = "", _MORE - 1
    for rival in against:
        both = own.index.intersection(rival.distances.index)
        ours, theirs = own.loc[both], rival.distances.loc[both]
        if not len(both) or (size is None and not (rival.blind and rival.minimal)):
            continue
        if size is None:
            ahead, behind, does = ours < _CLOSER * theirs, theirs < _CLOSER * ours, "comes closer on"
        else:
            ahead, behind, does = ours < float("inf"), theirs <= size + TOLERANCE, "breaks"
        test = mcnemar(ahead.to_numpy(), behind.to_numpy())
        surplus = test.c - test.b
        if surplus > most:
            most = surplus
            who = rival.attack + (" (no gradient)" if rival.blind else "")
            what = "all gradient attacks together are weaker than" if together else "weaker than"
            doubt = "suspect masked gradients" if test.p_value / 2 < _LEVEL else "it may be chance"
            best = f"{what} {who}, which {does} {surplus} of {len(both)} images more: {doubt}"
    return best
