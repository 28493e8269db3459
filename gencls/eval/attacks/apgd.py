"""APGD: projected gradient descent whose step size halves itself."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gencls.core import GenclsError, select
from gencls.eval.attacks.parts.attack_model import AttackModel, Loss, prepare, sure_looks
from gencls.eval.attacks.parts.base import CONVEX, require
from gencls.eval.attacks.parts.smoothing import check_smoothing, descents
from gencls.eval.scores.calibration import calibrate
from gencls.eval.scores.margins import margin, mean_over_draws, others_of, score_gap
from gencls.eval.threats.protocol import Threat


@dataclass(frozen=True)
class APGD:
    """Projected gradient descent with momentum and a step size that halves itself, from pyautoattack.

    The loop compares losses between iterates, so the clean image sets the scale on which a softmax sees the scores. Each
    iterate sets the scale of its own slope, so that this does not vanish. DLR is invariant to offset and scale. If a defense
    has too few classes for DLR, the difference of the two scores takes its place.

    On a deterministic defense a sample leaves the batch at its first wrong iterate. Without one, the iterate with the largest
    loss counts. The library believes a single look. On a stochastic defense a look is the mean of the EoT draws, and may be a
    lucky one. There the iterate with the largest loss and the last one that looked wrong get 64 fresh draws each, and the one
    that is wrong more often counts.

    Source: Croce and Hein 2020, arXiv:2003.01690, Algorithm 1; in L1, Croce and Hein 2021, arXiv:2103.01208.

    Attributes:
        threat: Linf, L2 or L1 with an epsilon.
        loss: "cross-entropy"; "dlr", eq. 6; "targeted-dlr", eq. 7, against each of the best other classes in turn; or
            "multi-targeted", the scores' difference against each in turn (Gowal et al. 2019, arXiv:1910.09338).
        steps: gradient steps per run.
        restarts: random starts; samples broken by one take no part in the next.
        targets: number of other classes that the targeted losses try; all if there are fewer.
        smoothing: standard deviations of the noise for the mean loss, in [0, 1] pixel units, each with all runs; 0 is the plain
            loss, see :func:`gencls.eval.attacks.parts.smoothing.smoothed_gradient`.
        smoothing_draws: noisy images per gradient.
    """

    threat: Threat
    loss: Literal["cross-entropy", "dlr", "targeted-dlr", "multi-targeted"] = "cross-entropy"
    steps: int = 100
    restarts: int = 1
    targets: int = 9
    smoothing: tuple[float, ...] = (0.0,)
    smoothing_draws: int = 16
    uses_gradients = True
    norms = CONVEX

    def __post_init__(self) -> None:
        require(self, norms=self.norms)
        if self.steps < 1 or self.restarts < 1 or self.targets < 1:
            raise GenclsError(
                "APGD: expected steps >= 1, restarts >= 1 and targets >= 1, "
                f"got {self.steps}, {self.restarts} and {self.targets}"
            )
        check_smoothing("APGD", self.smoothing, self.smoothing_draws)

    @property
    def passes(self) -> tuple[int, int]:
        """A gradient per step and at the start of each ball, with smoothing per noisy image too, and one look at the end."""
        runs = self.restarts * (self.targets if "targeted" in self.loss else 1)
        forwards, backwards = descents(self.steps + len(self._balls), self.smoothing, self.smoothing_draws)
        return runs * (forwards + len(self.smoothing)) + 1, runs * backwards

    @property
    def _balls(self) -> list[tuple[float, int]]:
        """The radii of the balls of a run, and the steps in each (Croce and Hein 2021, section 3.3)."""
        epsilon, first = self.threat.epsilon or 0.0, math.ceil(0.3 * self.steps)
        if self.threat.norm != "l1" or self.steps < 4:
            return [(epsilon, self.steps)]
        return [(3 * epsilon, first), (2 * epsilon, first), (epsilon, self.steps - 2 * first)]

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        from gencls.eval.attacks.parts import pyautoattack_attacks

        model = prepare(model, images, labels, self.threat)
        with torch.no_grad():
            clean = model.mean_scores(model.per_draw(images))
        others = others_of(clean, labels, self.targets if "targeted" in self.loss else 1)
        worst = Worst(model, images, labels)
        for sigma, target, _ in product(self.smoothing, others.unbind(1), range(self.restarts)):
            rows = worst.alive
            if not len(rows):
                break
            with select(rows):
                candidates = pyautoattack_attacks.apgd(
                    model,
                    images[rows],
                    labels[rows],
                    self._loss(model, clean[rows], target[rows]),
                    norm=self.threat.norm,
                    balls=self._balls,
                    sigma=sigma,
                    draws=self.smoothing_draws,
                )
                for candidate in candidates:
                    worst.offer(rows, self.threat.project(candidate, images[rows]))
        return worst.images

    def _loss(self, model: AttackModel, clean: Tensor, target: Tensor) -> Loss:
        classes = clean.shape[1]
        if self.loss == "cross-entropy":
            return _cross_entropy(model, clean)
        if self.loss == "dlr" and classes >= 3:
            return lambda draws, labels: _ratio(model, draws, labels, dlr)
        if self.loss == "targeted-dlr" and classes >= 4:
            return lambda draws, labels: _ratio(model, draws, labels, targeted_dlr, target)
        targets = target if "targeted" in self.loss else None
        return lambda draws, labels: -model.shortfall(draws, labels, targets=targets)


class Worst:
    """The worst perturbation of each sample so far, by fresh looks at the model."""

    def __init__(self, model: AttackModel, images: Tensor, labels: Tensor) -> None:
        self.model, self.labels, self.images = model, labels, images.clone()
        self.looks = sure_looks(model)
        self.success = torch.full((len(images),), -1.0, dtype=torch.float64, device=images.device)
        self.margin = torch.full_like(self.success, torch.inf)

    @property
    def alive(self) -> Tensor:
        """The samples with at least one right draw."""
        return (self.success < 1).nonzero().squeeze(1)

    def offer(self, rows: Tensor, candidates: Tensor) -> None:
        """Keep candidates for some rows if they are wrong in more draws, or in as many with a smaller margin."""
        looks = [self.model.look(candidates, self.labels[rows], fresh=True) for _ in range(self.looks)]
        success = torch.stack([look.success for look in looks]).mean(dim=0)
        missing = torch.stack([look.margin for look in looks]).mean(dim=0)
        better = (success > self.success[rows]) | ((success == self.success[rows]) & (missing < self.margin[rows]))
        rows = rows[better]
        self.images[rows], self.success[rows], self.margin[rows] = candidates[better], success[better], missing[better]


def dlr(scores: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio, eq. 6: -(z_y - max_j z_j) / (z_1st - z_3rd), for (N, K >= 3), (N,) -> (N,)."""
    ranked = scores.sort(dim=1, descending=True).values
    return -margin(scores, labels) / _positive(ranked[:, 0] - ranked[:, 2])


def targeted_dlr(scores: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Targeted DLR, eq. 7: -(z_y - z_t) / (z_1st - (z_3rd + z_4th) / 2), for (N, K >= 4), (N,), (N,) -> (N,)."""
    ranked = scores.sort(dim=1, descending=True).values
    return (_entry(scores, targets) - _entry(scores, labels)) / _positive(ranked[:, 0] - (ranked[:, 2] + ranked[:, 3]) / 2)


def _ratio(model: AttackModel, draws: Tensor, labels: Tensor, ratio: Callable[..., Tensor], *targets: Tensor) -> Tensor:
    """A ratio of differences of scores (N,): of the mean scores, or for a random defense the mean over the draws.

    A right draw has a ratio of at least -1, and a wrong draw has no bound. So the mean hardly counts values beyond 1.
    """
    if not model.stochastic:
        return ratio(model.mean_scores(draws), labels, *targets)
    count, each = draws.shape[:2]
    reached = ratio(draws.flatten(0, 1), *(classes.repeat_interleave(each) for classes in (labels, *targets)))
    return -mean_over_draws(-reached.view(count, each), lowest=-torch.ones_like(draws[:, :1, 0]))


def _positive(values: Tensor) -> Tensor:
    return values.where(values > 1e-30, 1.0)


def _entry(scores: Tensor, labels: Tensor) -> Tensor:
    return scores.gather(1, labels.unsqueeze(1)).squeeze(1)


def _cross_entropy(model: AttackModel, clean: Tensor) -> Loss:
    """The value on the scale of the clean scores (N, K), and the slope on the scale of each look."""
    if model.eot.samples > 1 and model.eot.reduce == "loss":
        return model.cross_entropy
    scale = score_gap(clean)

    def loss(draws: Tensor, labels: Tensor) -> Tensor:
        scores = model.mean_scores(draws)
        calibrated = calibrate(scores)
        slope = functional.cross_entropy(calibrated, labels, reduction="none")
        value = functional.cross_entropy(calibrated.detach() * (score_gap(scores) / scale), labels, reduction="none")
        return value + (slope - slope.detach())

    return loss
