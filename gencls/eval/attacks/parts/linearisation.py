"""Linearised decision boundaries: the step of DeepFool, and the first and last steps of minimal-norm attacks."""

import torch
from torch import Tensor

from gencls.core import select
from gencls.core.balls import LpBall, per_image
from gencls.eval.attacks.parts.attack_model import AttackModel
from gencls.eval.attacks.parts.base import Response
from gencls.eval.scores.margins import mean_shortfall, shortfall
from gencls.eval.threats.lp_balls import ThreatModel

_OVERSHOOT, _FURTHER = 1.01, 1.5


def nearest_boundary(
    model: AttackModel, images: Tensor, labels: Tensor, ball: LpBall, others: Tensor | int, *, targeted: bool = False
) -> tuple[Response, Tensor, Tensor]:
    """The nearest of the boundaries between the label and other classes, the scores taken as linear.

    With f_k the scores and y the label, the boundary to class k lies |f_k - f_y| / ||grad f_k - grad f_y||_q away, where q is
    the dual norm (Moosavi-Dezfooli et al. 2016, arXiv:1511.04599, eq. 8 to 11). It costs one forward pass, and a backward pass
    per class.

    ``others`` are the classes to consider, (N, k), or the number of best classes. A targeted attack wants to reach the labels
    (N,), so its one boundary lies between the label and the best other class.

    Returns:
        The model's response to the images, the classes considered, and the steps (N, C, H, W), 0 if no step leads on.
    """
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        draws = model.per_draw(images)
        scores, unit = model.average(draws), model.resolution(draws.detach())
        if isinstance(others, int):
            ranked = scores.detach().scatter(1, labels.unsqueeze(1), -torch.inf).argsort(dim=1, descending=True)
            others = ranked[:, : min(others, ranked.shape[1] - 1)]
        targets = [None] if targeted else others.unbind(1)
        if model.stochastic:
            gaps = [-mean_shortfall(draws, labels, targets=target, targeted=targeted) for target in targets]
        else:
            gaps = [-shortfall(scores, labels, targets=target, targeted=targeted) for target in targets]
        nearest = torch.full(labels.shape, torch.inf, dtype=torch.float64, device=images.device)
        step = torch.zeros_like(images)
        for k, gap in enumerate(gaps):
            gradient = model.gradient(gap.sum(), images, keep_graph=k + 1 < len(gaps))
            distance, towards = ball.cross(gap.detach(), gradient, images.detach(), unit)
            closer = distance < nearest
            nearest = distance.where(closer, nearest)
            step = torch.where(per_image(closer), towards, step)
    return model.respond(draws, scores, labels, step, targeted=targeted), others, step


class Closest:
    """The closest adversarial image of each sample so far, from the first linearised boundary to the last refinement.

    Without it, local optima among several classes, and steps that are coarse near a boundary, make an attack miss the minimum
    even on linear classifiers.

    Attributes:
        images: (N, C, H, W), the closest adversarials, or the clean images.
        distance: (N,), infinite if nothing was found, 0 if the clean decision is wrong.
        others: (N, k), the classes whose boundaries were considered.
        first_step: (N, C, H, W), the step from the clean image to the nearest linearised boundary.
        scores: (N, K), averaged scores of the clean images.
    """

    def __init__(self, model: AttackModel, images: Tensor, labels: Tensor, threat: ThreatModel, *, classes: int = 9) -> None:
        """Look at the clean images and linearise the boundaries to the best ``classes`` other classes."""
        self.model, self.clean, self.labels, self.threat = model, images, labels, threat
        self.images = images.clone()
        response, self.others, self.first_step = nearest_boundary(
            model, images, labels, threat.ball, classes, targeted=threat.targeted
        )
        self.scores, self.first_margin, self.unit = response.scores, response.margin, model.resolution(response.draws)
        self.distance = images.new_full((len(images),), torch.inf).where(~response.reached, 0.0)

    @property
    def open(self) -> Tensor:
        """Indices of the samples whose clean decision is right."""
        return (self.distance > 0).nonzero().squeeze(1)

    def cross(self) -> None:
        """Try the first step. If curvature or the box stops it before the boundary, try a longer one."""
        for stretch in (_OVERSHOOT, _FURTHER):
            missed = self.distance.isinf().nonzero().squeeze(1)
            self._try((self.clean[missed] + stretch * self.first_step[missed]).clamp_(0, 1), missed)

    def offer(self, sample: Tensor, images: Tensor, reached: Tensor) -> None:
        """Keep images (M, C, H, W) of some samples (M,) if they reach the goal (M,) and are closer than those kept so far."""
        distance = self.threat.ball.length(images - self.clean[sample])
        better = reached & (distance < self.distance[sample])
        if bool(better.any()):
            self.images[sample[better]], self.distance[sample[better]] = images[better], distance[better]

    def refine(self, *, projections: int = 1) -> Tensor:
        """Improve the closest adversarials, and return them.

        We cut the segment to the clean image where the interpolated margin is zero. Then ``projections`` times we take the
        nearest point of the boundary's tangent plane (as FAB does, Croce and Hein 2020, arXiv:1907.02044), and cut the new
        segment, made long enough for curved boundaries.
        """
        found = (self.distance.isfinite() & (self.distance > 0)).nonzero().squeeze(1)
        if len(found):
            self._cut(found)
            for _ in range(projections):
                self._project(found)
                self._cut(found)
        return self.images

    def _project(self, sample: Tensor) -> None:
        clean, targeted = self.clean[sample], self.threat.targeted
        with select(sample):
            response = self.model.look(
                self.images[sample],
                self.labels[sample],
                lambda draws, y: -self.model.shortfall(draws, y, targeted=targeted),
                targeted=targeted,
            )
        way = clean - self.images[sample]
        ahead = response.margin - (response.gradient * way).flatten(1).sum(dim=1)  # the clean margin, linearised
        length, step = self.threat.ball.cross(ahead, response.gradient, clean, self.model.resolution(response.draws))
        stretch = ((1 + self.distance[sample] / length.clamp_min(1e-12)) / 2).clamp(_OVERSHOOT, 2).where(length.isfinite(), 0.0)
        self._try((clean + per_image(stretch).to(step.dtype) * step).clamp_(0, 1), sample)

    def _cut(self, sample: Tensor, sections: int = 2) -> None:
        clean, labels, targeted = self.clean[sample], self.labels[sample], self.threat.targeted
        far = self.images[sample]
        with select(sample):
            beyond = self.model.look(far, labels, targeted=targeted).margin
        inside, missing = torch.zeros_like(self.distance[sample]), self.first_margin[sample]  # the near end of the segment
        outside, half = torch.ones_like(inside), self.unit[sample] / 2  # a tie lies half a unit on its side of the boundary
        for _ in range(sections):
            share = (missing + half) / (missing - beyond + 2 * half).clamp_min(1e-30)
            share = (share * _OVERSHOOT).clamp(0, 1).to(inside.dtype)
            fraction = inside + (outside - inside) * share
            candidate = self.threat.ball.between(clean, far, fraction)
            with select(sample):
                response = self.model.look(candidate, labels, targeted=targeted)
            self.offer(sample, candidate, response.reached)
            inside, outside = fraction.where(~response.reached, inside), fraction.where(response.reached, outside)
            beyond = response.margin.where(response.reached, beyond)
            missing = response.margin.where(~response.reached, missing)

    def _try(self, candidates: Tensor, sample: Tensor) -> None:
        if len(sample):
            with select(sample):
                response = self.model.look(candidates, self.labels[sample], targeted=self.threat.targeted)
            self.offer(sample, candidates, response.reached)
