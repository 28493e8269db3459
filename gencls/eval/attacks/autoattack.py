"""AutoAttack: several attacks one after the other, for any number of classes, any scale of scores, and random defenses."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from gencls.core import GenclsError, select
from gencls.eval.attacks.apgd import APGD, Worst
from gencls.eval.attacks.fab import FAB
from gencls.eval.attacks.parts.attack_model import prepare
from gencls.eval.attacks.parts.base import CONVEX, Attack, require
from gencls.eval.attacks.square import Square
from gencls.eval.threats.protocol import Threat


@dataclass(frozen=True)
class AutoAttack:
    """The ensemble: "standard" is APGD-CE, targeted APGD-DLR, targeted FAB and Square; "rand" is APGD-CE and APGD-DLR.

    A part works on the samples that are still right after the parts before it. For a stochastic defense, a sample is right if
    any of 64 fresh draws is right. A part's result replaces an earlier one only if it is wrong in more of its draws. The
    protocol, not the attack, sets the draws per gradient; the authors' "rand" takes 20.

    Source: Croce and Hein 2020, arXiv:2003.01690, and in L1 2021, arXiv:2103.01208; the parts as in pyautoattack 0.2.0. In L1,
    as there, APGD-CE of "standard" has five starts, and targeted APGD at most five targets. If the defense has fewer than
    ``targets`` other classes, all are targets. Some losses are not defined for two or three classes, and are replaced, see
    :class:`APGD`.

    Attributes:
        threat: Linf, L2 or L1 with an epsilon.
        version: "standard" or "rand", which names the parts.
        steps: gradient steps of APGD and FAB per run.
        queries: looks of Square per image.
        targets: number of other classes that the targeted parts try.
    """

    threat: Threat
    version: Literal["standard", "rand"] = "standard"
    steps: int = 100
    queries: int = 5000
    targets: int = 9
    uses_gradients = True
    norms = CONVEX

    def __post_init__(self) -> None:
        require(self, norms=self.norms)
        if self.targets < 1:
            raise GenclsError(f"AutoAttack: expected targets >= 1, got {self.targets}")
        _ = self.parts  # they check the rest

    @property
    def parts(self) -> tuple[Attack, ...]:
        """The attacks in their order."""
        if self.version == "rand":
            return APGD(self.threat, steps=self.steps), APGD(self.threat, loss="dlr", steps=self.steps)
        starts, most = (5, 5) if self.threat.norm == "l1" else (1, self.targets)
        return (
            APGD(self.threat, steps=self.steps, restarts=starts),
            APGD(self.threat, loss="targeted-dlr", steps=self.steps, targets=min(self.targets, most)),
            FAB(self.threat, steps=self.steps, restarts=1, targets=self.targets),
            Square(self.threat, queries=self.queries),
        )

    @property
    def passes(self) -> tuple[int, int]:
        """The passes of all parts, and a look after each."""
        both = [part.passes for part in self.parts]
        return sum(forward for forward, _ in both) + len(both), sum(gradient for _, gradient in both)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        model = prepare(model, images, labels, self.threat)
        worst = Worst(model, images, labels)
        for part in self.parts:
            rows = worst.alive
            if not len(rows):
                break
            with select(rows):
                worst.offer(rows, part(model, images[rows], labels[rows]))
        return worst.images
