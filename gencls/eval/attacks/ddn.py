"""The decoupled direction and norm attack."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, select
from gencls.core.balls import L2Ball, per_image
from gencls.eval.attacks.parts.attack_model import AttackModel, prepare
from gencls.eval.attacks.parts.base import require
from gencls.eval.attacks.parts.linearisation import Closest
from gencls.eval.attacks.parts.smoothing import check_smoothing, descents, smoothed_look
from gencls.eval.threats.lp_balls import ThreatModel

_AROUND = 12
"""Passes of the first linearisation (up to nine backward passes) and the last refinement, paid from the budget of steps."""


@dataclass(frozen=True)
class DDN:
    """Gradient steps on a sphere whose radius shrinks while the decision is wrong and grows while it is right.

    The attack enters the first sphere towards the nearest linearised boundary, and refines the closest adversarial at the end.
    If there are more than a dozen steps, these pay for both.

    Source: Rony et al. 2019, arXiv:1811.09600, algorithm 1, without quantisation. The thesis (section 2.3) uses 80 steps.

    Attributes:
        threat: L2 without epsilon; may be targeted.
        steps: gradient steps, or passes that cost as much, >= 1.
        first_norm: L2 radius of the first sphere, in [0, 1] pixel units.
        gamma: mean share by which the radius changes in one step. The share falls from twice this value along the same cosine
            as the steps. The paper keeps it constant; on an adversarially trained CNN the cosine makes the median distance 14 %
            smaller.
        smoothing: standard deviations of the noise for the mean loss, in [0, 1] pixel units, each with a descent of its own; 0
            is the plain loss, see :func:`gencls.eval.attacks.parts.smoothing.smoothed_gradient`.
        smoothing_draws: noisy images per gradient.
    """

    threat: ThreatModel
    steps: int = 80
    first_norm: float = 1.0
    gamma: float = 0.05
    smoothing: tuple[float, ...] = (0.0,)
    smoothing_draws: int = 16
    uses_gradients = True
    norms = ("l2",)

    def __post_init__(self) -> None:
        require(self, minimal=True, targeted=True, norms=self.norms)
        if self.steps < 1 or self.first_norm <= 0 or not 0 < self.gamma < 0.5:
            raise GenclsError(
                "DDN: expected steps >= 1, first_norm > 0 and 0 < gamma < 0.5, "
                f"got {self.steps}, {self.first_norm} and {self.gamma}"
            )
        check_smoothing("DDN", self.smoothing, self.smoothing_draws)

    @property
    def passes(self) -> tuple[int, int]:
        """One gradient per step and noisy image, the linearisations included, and a few looks."""
        forwards, backwards = descents(max(1, self.steps - _AROUND), self.smoothing, self.smoothing_draws)
        return forwards + 8, backwards + 10

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        model = prepare(model, images, labels)
        closest = Closest(model, images, labels, self.threat)
        closest.cross()
        for sigma in self.smoothing:
            self._descend(model, closest, sigma)
        return closest.refine()

    def _descend(self, model: AttackModel, closest: Closest, sigma: float) -> None:
        sign = -1.0 if self.threat.targeted else 1.0
        alive = closest.open
        clean, labels = closest.clean[alive], closest.labels[alive]
        farthest = torch.maximum(clean, 1 - clean).flatten(1).norm(dim=1)  # no image of [0, 1] is farther away
        radius = torch.full_like(farthest, self.first_norm).minimum(farthest)
        change = _onto_sphere(clean, closest.first_step[alive], radius)
        steps = max(1, self.steps - _AROUND)
        for step in range(steps if len(alive) else 0):
            with select(alive):
                response = smoothed_look(
                    model,
                    clean + change,
                    labels,
                    lambda draws, y: sign * model.cross_entropy(draws, y),
                    sigma=sigma,
                    count=self.smoothing_draws,
                    targeted=self.threat.targeted,
                )
            closest.offer(alive, clean + change, response.reached)
            length = 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2  # alpha: from 1 to 0.01 along a cosine
            share = 2 * self.gamma * length  # of the radius; constant shares keep jumping across the boundary
            radius = (radius * torch.where(response.reached, 1 - share, 1 + share)).minimum(farthest)
            change = _onto_sphere(clean, change + length * L2Ball().direction(response.gradient), radius)


def _onto_sphere(clean: Tensor, change: Tensor, radius: Tensor) -> Tensor:
    """The change (N, C, H, W) with norm radius (N,), then clipped so that the image stays in [0, 1]."""
    stretch = radius / change.flatten(1).norm(dim=1).clamp_min(1e-12)
    return change.mul_(per_image(stretch)).add_(clean).clamp_(0, 1).sub_(clean)
