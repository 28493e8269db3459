"""The fast minimum-norm attack."""

import math
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, branch, select
from gencls.core.balls import L2Ball
from gencls.eval.attacks.parts.attack_model import AttackModel, prepare
from gencls.eval.attacks.parts.base import ALL, require
from gencls.eval.attacks.parts.linearisation import Closest
from gencls.eval.attacks.parts.smoothing import check_smoothing, descents, smoothed_look
from gencls.eval.attacks.parts.starting_images import check_shape, repr_with_starts
from gencls.eval.threats.lp_balls import ThreatModel

_LAST_STEP, _LAST_GAMMA = 0.01, 0.001
"""Ends of the cosines: a share of the first step, and the last gamma."""

_HALVINGS = 10
"""Halvings of the line from the image to its start, as in the paper."""


@dataclass(frozen=True, eq=False)
class FMN:
    """Gradient steps in a ball whose radius follows the distance to the boundary.

    With L(x) the label's score minus the best other, and delta* the smallest perturbation that was wrong so far,

        epsilon = ||delta||_p + |L(x + delta)| / ||g||_q        until something is wrong (the linearised boundary),
        epsilon = (1 + gamma) epsilon                           if x + delta is right,
        epsilon = min((1 - gamma) epsilon, ||delta*||_p)        if x + delta is wrong;
        delta   = clip(project(delta - alpha g / ||g||_2, epsilon)),

    and alpha and gamma fall along a cosine. Like the other attacks that minimise a distance, it tries the nearest linearised
    boundaries of the image first, and refines the closest adversarial at the end.

    Source: Pintor et al. 2021, arXiv:2102.12827, Algorithm 1.

    Attributes:
        threat: Linf, L2, L1 or L0 without epsilon; may be targeted.
        steps: gradient steps per run.
        restarts: number of runs, >= 1; more than one make sense with ``starts`` or with smoothing.
        first_step: alpha, the L2 length of the first step, in [0, 1] pixel units.
        gamma: first share of the radius by which the radius changes in a step.
        starts: images (M, C, H, W) in [0, 1]. Each run begins at a random one with another decision, moved to the boundary
            along the line to the image. Its gradient may lead on even if the image's own gradient leads nowhere. None begins
            at the image itself.
        tries: most images to look at in search of a start.
        smoothing: standard deviations of the noise for the mean loss, in [0, 1] pixel units, each with all runs; 0 is the plain
            loss, see :func:`gencls.eval.attacks.parts.smoothing.smoothed_gradient`.
        smoothing_draws: noisy images per gradient.
    """

    threat: ThreatModel
    steps: int = 100
    restarts: int = 1
    first_step: float = 1.0
    gamma: float = 0.05
    starts: Tensor | None = None
    tries: int = 20
    smoothing: tuple[float, ...] = (0.0,)
    smoothing_draws: int = 16
    _repr: str = field(init=False, repr=False)
    uses_gradients = True
    norms = ALL

    def __post_init__(self) -> None:
        require(self, minimal=True, targeted=True, norms=self.norms)
        if min(self.steps, self.restarts, self.tries) < 1 or self.first_step <= 0 or not _LAST_GAMMA <= self.gamma < 1:
            raise GenclsError(
                f"FMN: expected steps, restarts and tries >= 1, first_step > 0 and {_LAST_GAMMA} <= gamma < 1, "
                f"got {self.steps}, {self.restarts}, {self.tries}, {self.first_step} and {self.gamma}"
            )
        check_smoothing("FMN", self.smoothing, self.smoothing_draws)
        object.__setattr__(self, "_repr", repr_with_starts(self, self.starts))

    def __repr__(self) -> str:
        """The repr with the content of the starts, because it keys the cells of a study."""
        return self._repr

    @property
    def passes(self) -> tuple[int, int]:
        """One gradient per step and noisy image, the looks in search of a start, and the linearisations."""
        forwards, backwards = descents(self.steps, self.smoothing, self.smoothing_draws)
        looks = 0 if self.starts is None else (self.tries + _HALVINGS) * len(self.smoothing)
        return self.restarts * (forwards + looks) + 8, self.restarts * backwards + 10

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        model = prepare(model, images, labels)
        check_shape("FMN", self.starts, images)
        closest = Closest(model, images, labels, self.threat)
        closest.cross()
        for number, (sigma, _) in enumerate(product(self.smoothing, range(self.restarts))):
            rows = closest.open
            if len(rows):
                with branch(rows, [number] * len(rows)):
                    self._descend(model, closest, rows, sigma)
        return closest.refine()

    def _descend(self, model: AttackModel, closest: Closest, rows: Tensor, sigma: float) -> None:
        """One run of some samples, in their random streams."""
        ball, targeted = self.threat.ball, self.threat.targeted
        clean, labels = closest.clean[rows], closest.labels[rows]
        farthest = ball.length(torch.maximum(clean, 1 - clean))  # no image of [0, 1] is farther away
        change = self._first(model, clean, labels) - clean
        radius, best = farthest, torch.full_like(farthest, torch.inf)
        if self.threat.norm == "l0":
            radius = closest.distance[rows].where(closest.distance[rows].isfinite(), ball.length(change).clamp_min(1.0))
        for step in range(self.steps):
            response = smoothed_look(
                model,
                clean + change,
                labels,
                lambda draws, y: -model.shortfall(draws, y, targeted=targeted),
                sigma=sigma,
                count=self.smoothing_draws,
                targeted=targeted,
            )
            reached, gradient = response.reached, response.gradient
            closest.offer(rows, clean + change, reached)
            length = ball.length(change)
            best = length.minimum(best).where(reached, best)
            fall = (1 + math.cos(math.pi * step / self.steps)) / 2
            gamma = _LAST_GAMMA + (self.gamma - _LAST_GAMMA) * fall
            missing = response.margin.abs() + 2 * model.resolution(response.draws)  # to cross a tie of coarse scores
            smaller, larger = radius * (1 - gamma), radius * (1 + gamma)
            if self.threat.norm == "l0":  # by one entry at least, because a boundary's distance does not count entries
                smaller = smaller.floor().minimum(radius - 1).clamp_min(1.0)
                larger = larger.floor().maximum(radius + 1)
            else:
                dual = ball.dual(gradient)
                boundary = (missing / dual).where(dual > 0, torch.inf).to(gradient.dtype)
                larger = larger.where(best.isfinite(), length + boundary)
            radius = torch.where(reached, smaller.minimum(best), larger).minimum(farthest)
            alpha = self.first_step * (_LAST_STEP + (1 - _LAST_STEP) * fall)
            change = ball.within(clean, change + alpha * L2Ball().direction(gradient), radius) - clean

    def _first(self, model: AttackModel, clean: Tensor, labels: Tensor) -> Tensor:
        """The images (N, C, H, W) at which a run begins."""
        if self.starts is None:
            return clean
        first, open_ = clean.clone(), torch.arange(len(clean), device=clean.device)
        for _ in range(self.tries):
            with select(open_):
                drawn = torch.randint(len(self.starts), (len(open_),)).to(self.starts.device)
                candidates = self.starts[drawn].to(clean)
                hit = model.look(candidates, labels[open_], targeted=self.threat.targeted).reached
            first[open_[hit]], open_ = candidates[hit], open_[~hit]
            if not len(open_):
                break
        low, high = torch.zeros_like(labels, dtype=clean.dtype), torch.ones_like(labels, dtype=clean.dtype)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            hit = model.look(self.threat.ball.between(clean, first, middle), labels, targeted=self.threat.targeted).reached
            low, high = low.where(hit, middle), middle.where(hit, high)
        return self.threat.ball.between(clean, first, high)
