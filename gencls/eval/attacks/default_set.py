"""The default set of attacks, for every number that is reported."""

from collections.abc import Mapping
from dataclasses import dataclass

from gencls.core import check_settings, checked
from gencls.eval.attacks import APGD, DDN, FMN, PGD, Attack, SparseRS, Square
from gencls.eval.attacks.parts.smoothing import SIGMAS
from gencls.eval.threats.lp_balls import ThreatModel

SMOOTHED = ("l2",)
"""Keys of the threats whose default attacks also follow smoothed gradients."""

TARGETS = 9
"""Other classes that multi-targeted PGD aims at, each with a start of its own."""


@dataclass(frozen=True, kw_only=True)
class DefaultBudget:
    """The effort of the default attacks for an image.

    Attributes:
        steps: gradient steps per start.
        restarts: random starts for each of the cross-entropy and the margin.
        targets: other classes that multi-targeted PGD aims at, the most likely first, each from a start of its own.
        smoothing: L2 only: standard deviations of the noise for the mean loss, in [0, 1] pixel units, each from a start of its
            own. The attack that minimises the distance takes the middle one.
        smoothing_steps: L2 only: gradient steps per start of PGD along smoothed gradients.
        smoothing_draws: L2 only: noisy images per gradient.
        queries: looks of Square per image, in L0 of SparseRS.
    """

    steps: int = 40
    restarts: int = 5
    targets: int = TARGETS
    smoothing: tuple[float, ...] = SIGMAS
    smoothing_steps: int = 80
    smoothing_draws: int = 16
    queries: int = 1000

    def __post_init__(self) -> None:
        check_settings(self)

    @classmethod
    def quick(cls, steps: int = 10) -> "DefaultBudget":
        """An effort for a first look in minutes: every loss from one start. It finds less, so it flatters a defense."""
        return cls(
            steps=steps,
            restarts=1,
            targets=1,
            smoothing=SIGMAS[1:2],
            smoothing_steps=steps,
            smoothing_draws=4,
            queries=2 * steps,
        )


@checked
def default_attacks(norm: str, epsilon: float, *, budget: DefaultBudget | None = None) -> Mapping[str, Attack]:
    """The default attacks for any defense: deterministic or random, Bayes classifier or not.

    Several losses from several starts, because each of them fails on some defense: the cross-entropy, the margin, and the
    difference to one other class after the other. In L2 also along gradients averaged over noise: networks that are trained in
    Linf often have L2 gradients that lead nowhere. One attack that minimises the distance, so that accuracy can be read off at
    other sizes; and one without gradients, which should never be the strongest: Square, in L0 SparseRS. L0 is the exception,
    where random search may beat gradients. In L1 APGD is there for its sparse steps (Croce and Hein 2021, arXiv:2103.01208).

    An evaluation runs each of them in every gradient mode of a defense; draws of random defenses are a matter of the protocol.

    Args:
        norm: key of the threat: "linf", "l2", "l1" or "l0".
        epsilon: radius of the ball, in [0, 1] pixel units; in L0 a number of values.
        budget: steps, starts and queries; None takes the defaults (docs/attacks.md has their cost).
    """
    spent, ball = budget or DefaultBudget(), ThreatModel(norm, epsilon)
    found: dict[str, Attack] = {
        "pgd": PGD(ball, steps=spent.steps, restarts=spent.restarts),
        "pgd-margin": PGD(ball, steps=spent.steps, restarts=spent.restarts, loss="margin"),
        "pgd-multi-targeted": PGD(ball, steps=spent.steps, restarts=spent.targets, loss="multi-targeted"),
    }
    if norm == "l1":
        found["apgd"] = APGD(ball, steps=2 * spent.steps)
    if norm not in SMOOTHED:
        found["fmn"] = FMN(ThreatModel(norm), steps=spent.steps)
    else:
        sigmas, draws = spent.smoothing, spent.smoothing_draws
        found["pgd-smoothed"] = PGD(ball, steps=spent.smoothing_steps, smoothing=sigmas, smoothing_draws=draws)
        both = (0.0, sigmas[len(sigmas) // 2])
        found["ddn"] = DDN(ThreatModel(norm), steps=spent.steps, smoothing=both, smoothing_draws=draws)
    if norm in Square.norms:
        found["square"] = Square(ball, queries=spent.queries)
    else:
        found["sparse-rs"] = SparseRS(ball, queries=spent.queries)
    return found
