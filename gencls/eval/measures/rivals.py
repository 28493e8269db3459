"""Rivals of a gradient attack: if one of them breaks more, the row of the gradient attack carries a warning.

An attack without the defense's gradient (noise, queries, transfer) knows less. A minimal-norm attack looks for something else
than success within the budget. If such an attack breaks more, the gradients led the other one astray: they are masked (Athalye,
Carlini, Wagner 2018, arXiv:1802.00420, section 3.1), or the attack made too few steps. Two minimal-norm attacks are compared in
the same way, by their distances: behind a softmax, for instance, the linearisations of DeepFool and the margins of Carlini and
Wagner vanish.

:func:`unmet` also names a worst case over fewer attacks than other defenses have met.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gencls.eval.measures.records import NO_GRADIENT
from gencls.eval.measures.statistics import mcnemar
from gencls.eval.measures.success_rates import record_distances
from gencls.eval.threats.protocol import TOLERANCE

if TYPE_CHECKING:
    import pandas

_MORE = 2
"""The surplus of images that a rival must break before its attack gets a warning."""

_LEVEL = 0.05
"""The p-value of McNemar's exact one-sided test below which a surplus counts as more than chance."""

_CLOSER = 0.99
"""A minimal-norm attack without gradients comes closer if its distance is below this share of the other's."""

_FAR = 1.5
"""A minimal-norm attack is far off on an image if its distance is above this multiple of another's.

Usual attacks differ by a median factor of up to 1.26 (DeepFool and FMN on ``adv-l2-mnist``, where DeepFool is above 1.5 on 16
of 100 images). On ``cnn-mnist`` behind a softmax C&W and DeepFool are above it on 19 of 20 images, at a median factor of 2.8.
"""


@dataclass(frozen=True)
class Rival:
    """An attack that others are compared with.

    Attributes:
        attack: the attack's name.
        blind: whether it uses no gradient of the defense.
        minimal: whether it minimises the distance.
        distances: the distance >= 0 of the closest adversarial in any gradient mode, by sample hash; infinite if there is none.
    """

    attack: str
    blind: bool
    minimal: bool
    distances: "pandas.Series"


def rivals(records: "pandas.DataFrame") -> list[Rival]:
    """List the attacks without gradients and the minimal-norm attacks in the judged records of one defense, norm and seed."""
    found = []
    for attack, own in records.groupby("attack", sort=False):
        blind, minimal = bool((own["gradient"] == NO_GRADIENT).all()), bool(own["epsilon"].isna().all())
        if blind or minimal:
            found.append(Rival(str(attack), blind, minimal, closest(own)))
    return found


def closest(records: "pandas.DataFrame") -> "pandas.Series":
    """Find for each sample hash in judged records the distance of the closest adversarial; infinite if there is none."""
    return record_distances(records).groupby(records["sample_hash"]).min()


def weakness(own: "pandas.Series", against: Sequence[Rival], size: float | None, *, together: bool = False) -> str:
    """Word the warning for a gradient attack that rivals outdo, by the rival that does so on most images; empty if none does.

    Within a budget, a rival outdoes the attack on an image if the rival breaks it at no more than this size and the attack does
    not. Without a budget, the rival must minimise the distance, too, and come closer. A rival without gradients may come closer
    by any margin; a rival with gradients must come far closer, because such attacks always differ a little. A surplus of at
    least two images brings a warning. It says that this may be chance, unless McNemar's exact one-sided test gives p < .05. An
    attack that is far off gets a warning only if the test does so.

    Args:
        own: the distances that the attack found, by sample hash; infinite if it found nothing.
        against: the rivals.
        size: the budget in the unit of the norm; None without a budget.
        together: whether ``own`` holds the distances of all gradient attacks of the threat.

    Returns:
        The warning; empty if there is none.
    """
    found = [said for rival in against if (said := _outdone(own, rival, size))]
    if not found:
        return ""
    words = max(found, key=lambda said: said[:2])[2]
    return f"{'all gradient attacks together are ' if together else ''}weaker than {words}"


def unmet(records: "pandas.DataFrame", group: "pandas.DataFrame") -> str:
    """Warn that a group of records (one defense and seed under a threat) lacks attacks that others have met; else empty."""
    of = group.iloc[0]
    size = records["epsilon"].isna() if math.isnan(of["epsilon"]) else records["epsilon"] == of["epsilon"]
    alike = size & (records["norm"] == of["norm"]) & (records["eight_bit"] == of["eight_bit"])
    lacking = sorted(set(records.loc[alike, "attack"]) - set(group["attack"]))
    return f"not comparable: without {', '.join(lacking)}, which others have met under this threat" if lacking else ""


def _outdone(own: "pandas.Series", rival: Rival, size: float | None) -> tuple[int, float, str] | None:
    """The images by which a rival outdoes an attack, minus its median distance, and the words; None if it does not."""
    both = own.index.intersection(rival.distances.index)
    ours, theirs = own.loc[both], rival.distances.loc[both]
    far = size is None and rival.minimal and not rival.blind
    if size is not None:
        ahead, behind, does = ours < float("inf"), theirs <= size + TOLERANCE, "breaks"
    elif far:
        behind = ours > _FAR * theirs
        ahead, does = ~behind & ((ours > 0) | (theirs > 0)), "comes far closer on"  # both are 0 if the image needs no attack
    else:
        ahead, behind, does = ours < _CLOSER * theirs, theirs < _CLOSER * ours, "comes closer on"
    if not len(both) or (size is None and not rival.minimal):
        return None
    test = mcnemar(ahead.to_numpy(), behind.to_numpy())
    surplus, sure = test.c - test.b, test.p_value / 2 < _LEVEL
    if surplus < _MORE or (far and not sure):
        return None
    count = f"{surplus} of {len(both)} images more"
    if far:
        count = f"{test.c} of {len(both)} images (median distance {theirs.median():.3g}, here {ours.median():.3g})"
    who = rival.attack + (" (no gradient)" if rival.blind else "")
    doubt = "suspect masked gradients" if sure else "it may be chance"
    return surplus, -float(theirs.median()), f"{who}, which {does} {count}: {doubt}"
