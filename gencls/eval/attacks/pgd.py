"""Projected gradient descent; broken samples leave the batch at once."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, branch
from gencls.core.balls import per_image
from gencls.eval.attacks.parts.attack_model import AttackModel, Loss, prepare, sure_looks
from gencls.eval.attacks.parts.base import ANY, joined, require, taken
from gencls.eval.attacks.parts.smoothing import check_smoothing, descents, smoothed_look
from gencls.eval.scores.margins import others_of
from gencls.eval.threats.protocol import Threat

_FILL = {"cpu": 32, "cuda": 2048}
"""Rows of small images that fill a device; with fewer, the next restart joins the batch."""


@dataclass(frozen=True)
class PGD:
    """Projected gradient descent on the calibrated cross-entropy, with random starts in the ball.

    On a deterministic defense a sample ends at its first wrong decision. Without one, the attack returns the perturbation with
    the smallest margin. On a stochastic defense, fresh draws compare the last iterates of the starts. Restarts share the batch
    while it is too small to fill the device. The result does not depend on that.

    Source: Madry et al. 2018, arXiv:1706.06083. The thesis (section 2.3) uses 80 steps with 5 or 20 starts.

    Attributes:
        threat: any with an epsilon; may be targeted.
        steps: gradient steps per start, >= 1.
        restarts: random starts; samples broken by one take no part in the next.
        step_size: length of every step, in [0, 1] pixel units. None goes from epsilon to 0 along half a cosine, which finds up
            to a quarter more than constant steps of 2.5 epsilon / steps (docs/attacks.md).
        random_start: False starts at the image itself.
        loss: "cross-entropy"; "margin", the label's score minus the best other; or "multi-targeted", where start r lowers the
            label's score against the r-th best other class (Gowal et al. 2019, arXiv:1910.09338).
        to_the_end: True goes on after the first wrong decision, for the largest loss, for instance to transfer.
        smoothing: standard deviations of the noise for the mean loss, in [0, 1] pixel units, each with ``restarts`` starts; 0
            is the plain loss. Some networks' plain gradients lead nowhere, see
            :func:`gencls.eval.attacks.parts.smoothing.smoothed_gradient`. Success and margin come from images without noise.
        smoothing_draws: noisy images per gradient.
    """

    threat: Threat
    steps: int = 40
    restarts: int = 1
    step_size: float | None = None
    random_start: bool = True
    loss: Literal["cross-entropy", "margin", "multi-targeted"] = "cross-entropy"
    to_the_end: bool = False
    smoothing: tuple[float, ...] = (0.0,)
    smoothing_draws: int = 16
    uses_gradients = True
    norms = ANY

    def __post_init__(self) -> None:
        require(self, targeted=self.loss != "multi-targeted")
        if self.steps < 1 or self.restarts < 1 or (self.step_size is not None and self.step_size <= 0):
            raise GenclsError(
                "PGD: expected steps >= 1, restarts >= 1 and step_size > 0, "
                f"got {self.steps}, {self.restarts} and {self.step_size}"
            )
        check_smoothing("PGD", self.smoothing, self.smoothing_draws)

    @property
    def passes(self) -> tuple[int, int]:
        """One gradient per step and start, with smoothing per noisy image too, and one forward pass that ends a start."""
        forwards, backwards = descents(self.steps, self.smoothing, self.smoothing_draws)
        return self.restarts * (forwards + len(self.smoothing)), self.restarts * backwards

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return _Run(self, prepare(model, images, labels, self.threat), images, labels).result()


@dataclass
class _Rows:
    """The rows of the batch: (sample, start) pairs, each in its own step."""

    sample: Tensor
    clean: Tensor
    labels: Tensor
    start: Tensor
    step: Tensor
    streak: Tensor  # looks in a row that found every draw broken
    current: Tensor
    best: Tensor
    success: Tensor  # success of the best iterate
    margin: Tensor


class _Run:
    """One call of the attack."""

    def __init__(self, attack: PGD, model: AttackModel, images: Tensor, labels: Tensor) -> None:
        self.attack, self.model, self.images, self.labels = attack, model, images, labels
        self.threat = attack.threat
        self.looks = sure_looks(model)
        if model.common_draws and model.stochastic:
            self.looks = attack.steps + 2  # never: many looks at the same draws say no more than one
        self.fill = _FILL.get(images.device.type, 32)
        if model.max_rows is not None:  # a start adds at most one row per sample
            self.fill = max(1, min(self.fill, model.max_rows // model.eot.chunk + 1 - len(images)))
        self.step_sizes = self._step_sizes().to(images.device)
        self.targets = self._targets()
        self.next_start, self.starts = 0, attack.restarts * len(attack.smoothing)
        # At the end of a start; a single start needs no comparison.
        self.last = sure_looks(model) if self.starts > 1 else 1
        self.sigma = attack.smoothing[0]  # standard deviation of all rows in the batch
        self.rows = self._new_rows(torch.arange(0, device=images.device))
        # Per sample: the first start by number that broke it. The first in time would depend on the rest of the batch.
        self.broken_by = torch.full((len(images),), self.starts, device=images.device)
        self.found = self._new_rows(torch.arange(len(images), device=images.device))

    def result(self) -> Tensor:
        while True:
            self._admit()
            if not len(self.rows.sample):
                return self.found.best
            self._finish()
            if len(self.rows.sample):
                self._step()

    def _step_sizes(self) -> Tensor:
        """One per step."""
        if self.attack.step_size is not None:
            return torch.full((self.attack.steps,), self.attack.step_size)
        return self.threat.first_step * (1 + torch.cos(math.pi * torch.arange(self.attack.steps) / self.attack.steps)) / 2

    def _new_rows(self, sample: Tensor) -> _Rows:
        zero, least = torch.zeros_like(sample), torch.full(sample.shape, -1.0, dtype=torch.float64, device=sample.device)
        clean = self.images[sample]
        return _Rows(sample, clean, self.labels[sample], zero, zero, zero, clean, clean.clone(), least, least * -torch.inf)

    def _admit(self) -> None:
        """While the device is not full, begin the next start of the samples that are still right."""
        while self.next_start < self.starts:
            sigma, present = self.attack.smoothing[self.next_start // self.attack.restarts], len(self.rows.sample)
            draws = self.attack.smoothing_draws if sigma else 1
            if present and (sigma != self.sigma or present * draws >= self.fill):
                return
            self.sigma = sigma
            new = self._new_rows((self.broken_by > self.next_start).nonzero().squeeze(1))
            new.start = new.start + self.next_start
            if self.attack.random_start:
                with branch(new.sample, new.start.tolist()):
                    new.current = self.threat.start(new.current)
            self.rows = joined(self.rows, new)
            self.next_start += 1

    def _step(self) -> None:
        broken = self._look(self.rows, self._loss())
        rows = self.rows
        move = self.threat.step(self.gradient, self.step_sizes[rows.step], rows.current)
        rows.current = self.threat.project(rows.current + move, rows.clean)
        rows.step = rows.step + 1
        if bool(broken.any()):
            self._merge(taken(rows, broken), broken=True)
            self.rows = taken(rows, rows.start < self.broken_by[rows.sample])

    def _finish(self) -> None:
        """Look once more at the rows that have made all their steps."""
        last = self.rows.step == self.attack.steps
        if not bool(last.any()):
            return
        done = taken(self.rows, last)
        broken = self._look(done, None)
        self._merge(taken(done, broken), broken=True)
        self._merge(taken(done, ~broken), broken=False)
        self.rows = taken(self.rows, ~last & (self.rows.start < self.broken_by[self.rows.sample]))

    def _look(self, rows: _Rows, loss: Loss | None) -> Tensor:
        """Ask the model about the current images and remember the best of each row; (M,) bool, whether it is finally broken."""
        targeted = self.threat.targeted
        with branch(rows.sample, rows.start.tolist()):
            if loss is None:
                looks = [self.model.look(rows.current, rows.labels, targeted=targeted, fresh=True) for _ in range(self.last)]
            else:
                smoothed = partial(smoothed_look, self.model, sigma=self.sigma, count=self.attack.smoothing_draws)
                ask = smoothed if self.sigma else self.model.look
                looks = [ask(rows.current, rows.labels, loss, targeted=targeted)]
        self.gradient = looks[0].gradient
        success = torch.stack([look.success for look in looks]).mean(dim=0)
        missing = torch.stack([look.margin for look in looks]).mean(dim=0)
        # To the end only the margin counts. One noisy look at a random defense says little, so there the last iterate counts.
        success = torch.zeros_like(success) if self.attack.to_the_end else success
        rows.streak = torch.where(success == 1, rows.streak + len(looks), 0)
        broken = rows.streak >= self.looks
        if not self.model.stochastic:
            better = broken | _better(success, missing, rows)
        else:
            better = broken if loss is not None else torch.ones_like(broken)
        if bool(better.any()):
            rows.best = torch.where(per_image(better), rows.current, rows.best)
            rows.success, rows.margin = success.where(better, rows.success), missing.where(better, rows.margin)
        return broken

    def _merge(self, rows: _Rows, *, broken: bool) -> None:
        """Let finished rows compete for their samples' results, start by start, so that no sample occurs twice at once."""
        for start in rows.start.unique().tolist():
            mine = taken(rows, rows.start == start)
            before = taken(self.found, mine.sample)
            free = self.broken_by[mine.sample] == self.starts
            wins = start < self.broken_by[mine.sample] if broken else free & _better(mine.success, mine.margin, before)
            mine = taken(mine, wins)
            self.found.best[mine.sample], self.found.success[mine.sample] = mine.best, mine.success
            self.found.margin[mine.sample] = mine.margin
            if broken:
                self.broken_by[mine.sample] = start

    def _targets(self) -> Tensor:
        """The class to raise for each sample and start, in the order of the clean scores: (N, restarts)."""
        if self.attack.loss != "multi-targeted":
            return self.labels.unsqueeze(1)
        with torch.no_grad():
            scores = self.model.average(self.model.per_draw(self.images))
        order = others_of(scores, self.labels, self.attack.restarts)
        return order[:, torch.arange(self.attack.restarts, device=order.device) % order.shape[1]]

    def _loss(self) -> Loss:
        if self.attack.loss == "cross-entropy":
            sign = -1.0 if self.threat.targeted else 1.0
            return lambda draws, labels: sign * self.model.cross_entropy(draws, labels)
        if self.attack.loss == "margin":
            return lambda draws, labels: -self.model.shortfall(draws, labels, targeted=self.threat.targeted)
        targets = self.targets[self.rows.sample, self.rows.start % self.attack.restarts]
        return lambda draws, labels: -self.model.shortfall(draws, labels, targets=targets)


def _better(success: Tensor, missing: Tensor, than: _Rows) -> Tensor:
    """Whether more draws reach the goal, or as many with a smaller margin."""
    return (success > than.success) | ((success == than.success) & (missing < than.margin))
