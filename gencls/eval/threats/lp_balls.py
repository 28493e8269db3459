"""Threats that are balls of Lp norms around the clean image."""

from dataclasses import dataclass
from functools import partial

from torch import Size, Tensor

from gencls.core import GenclsError, check_settings
from gencls.core.balls import BALLS, LpBall, ball_of
from gencls.core.words import with_article
from gencls.eval.threats.protocol import TOLERANCE, Threat, ThreatKind, made, register, searchable

_LONG = 10.0


@dataclass(frozen=True)
class ThreatModel(Threat):
    """An Lp ball around the clean image, within [0, 1].

    Attributes:
        norm: "linf", "l2" or "l1", in [0, 1] pixel units over the whole image; or "l0", the number of changed values, where
            each channel of a pixel counts by itself.
        epsilon: the radius of the ball, > 0; None asks for the smallest perturbation that succeeds.
        targeted: whether success means a given class rather than any wrong one.
    """

    def __post_init__(self) -> None:
        check_settings(self)
        if self.norm not in BALLS and self.norm in searchable():
            maker = type(made(self.norm, None)).__name__
            raise GenclsError(
                f"ThreatModel: expected norm to be one of {', '.join(map(repr, BALLS))}, got {self.norm!r}, "
                f"the norm of {maker}; make {with_article(maker)} instead"
            )
        ball_of(self.norm, owner="ThreatModel")
        super().__post_init__()
        if self.norm == "linf" and self.epsilon is not None and self.epsilon > 1:
            raise GenclsError(f"threat model: expected a linf epsilon in [0, 1] pixel units (8/255, not 8), got {self.epsilon}")
        if self.norm == "l0" and self.epsilon is not None and self.epsilon < 1:
            raise GenclsError(f"threat model: expected a l0 epsilon >= 1, a number of values, got {self.epsilon}")

    @property
    def ball(self) -> LpBall:
        """The geometry of the norm."""
        return BALLS[self.norm]

    @property
    def first_step(self) -> float:
        """The radius. In L0 it is the largest change of an entry, long enough for a projection to follow the slopes."""
        return _LONG if self.norm == "l0" else super().first_step

    def largest(self, shape: Size) -> float:
        """The distance of the two farthest images; see :class:`Threat`."""
        return self.ball.largest(shape[1:].numel())

    def distance(self, clean: Tensor, adversarial: Tensor) -> Tensor:
        """Norms of the perturbations: two batches (N, C, H, W) -> (N,), computed in float64."""
        return self.ball.distance(adversarial.double() - clean.double())

    def step(self, gradient: Tensor, size: float | Tensor, images: Tensor) -> Tensor:
        """The steepest step in the norm; see :class:`Threat`."""
        return self.ball.step(gradient, size, images)

    def project(self, images: Tensor, clean: Tensor) -> Tensor:
        """Project onto the ball and [0, 1]; see :class:`Threat`."""
        return self.ball.confine(images, clean, self.epsilon or 0.0)

    def start(self, clean: Tensor) -> Tensor:
        """Draw uniformly from the balls around the clean images, and clip to [0, 1]."""
        return self.ball.start(clean, self.epsilon or 0.0)

    def turned(self, clean: Tensor, far: Tensor, near: Tensor, regret: Tensor) -> Tensor:
        """Turn as few entries as the bound needs; see :class:`Threat`."""
        centre = clean.double()
        return self.ball.turned(far.double() - centre, near.double() - centre, regret, (self.epsilon or 0.0) + TOLERANCE / 2)


for _key, _label, _latex, _unit in (
    ("linf", "L∞", r"$\ell_\infty$", "[0, 1] pixel units"),
    ("l2", "L2", r"$\ell_2$", "[0, 1] pixel units"),
    ("l1", "L1", r"$\ell_1$", "[0, 1] pixel units"),
    ("l0", "L0", r"$\ell_0$", "changed values"),
):
    register(ThreatKind(_key, _label, _latex, _unit, partial(ThreatModel, _key)))
