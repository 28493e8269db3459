"""The attack of Carlini and Wagner in its two forms: binary search over c, and restarts that adapt c."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, select
from gencls.core.balls import L2Ball, per_image
from gencls.eval.attacks.parts.attack_model import AttackModel, prepare
from gencls.eval.attacks.parts.base import require, taken
from gencls.eval.attacks.parts.linearisation import Closest
from gencls.eval.scores.margins import score_gap
from gencls.eval.threats.lp_balls import ThreatModel

_NATS = 10.0
"""Unit of the margin: the mean class of the clean scores lies this far below the best."""


@dataclass(frozen=True)
class CarliniWagner:
    """Adam on ||x' - x||^2 + c max(margin(x') + kappa, 0) with x' = (tanh w + 1) / 2, and a binary search over c per sample.

    The margin (the label's score minus the best other) is divided by the spread of the clean scores, so that c and kappa mean
    the same for every classifier. Samples that no longer improve leave the batch.

    Source: Carlini and Wagner 2017, arXiv:1608.04644, section V and VI. The thesis (section 2.3) uses 5 x 100 steps.

    Attributes:
        threat: L2 without epsilon; may be targeted.
        searches: number of values of c, >= 1.
        steps: steps of Adam for each c, >= 1.
        learning_rate: step size of Adam, in the tanh space.
        confidence: kappa, in nats of the calibrated scores.
        first_constant: the first c.
        patience: steps without improvement of the objective after which a sample leaves; None takes a tenth of the steps.
    """

    threat: ThreatModel
    searches: int = 5
    steps: int = 100
    learning_rate: float = 0.05
    confidence: float = 0.0
    first_constant: float = 1.0
    patience: int | None = None
    uses_gradients = True
    norms = ("l2",)

    def __post_init__(self) -> None:
        require(self, minimal=True, targeted=True, norms=self.norms)
        if min(self.searches, self.steps, self.patience or 1) < 1:
            raise GenclsError(
                "CarliniWagner: expected searches, steps and patience >= 1, "
                f"got {self.searches}, {self.steps} and {self.patience}"
            )
        if self.learning_rate <= 0 or self.first_constant <= 0 or self.confidence < 0:
            raise GenclsError(
                "CarliniWagner: expected learning_rate > 0, first_constant > 0 and confidence >= 0, "
                f"got {self.learning_rate}, {self.first_constant} and {self.confidence}"
            )

    @property
    def passes(self) -> tuple[int, int]:
        """One gradient per step and search, and the linearisations at both ends."""
        return 8, self.searches * self.steps + 10

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        search = _Search(self, prepare(model, images, labels), images, labels)
        constant = torch.full_like(search.scale, self.first_constant)
        start = (images + search.closest.first_step).clamp(0, 1)
        low, high = torch.zeros_like(constant), torch.full_like(constant, torch.inf)
        for _ in range(self.searches):
            won = search.descend(start, constant, patience=self.patience or max(1, self.steps // 10))
            low, high = low.where(won, constant), constant.where(won, high)
            constant = torch.where(high.isinf(), 10 * constant, (low + high) / 2)
        return search.result()


@dataclass(frozen=True)
class RestartedCarliniWagner:
    """The form of the MLVGM paper: each restart begins at a noisy FGSM step, and its outcome changes c.

    c is multiplied by 1.2 after a failure, 0.8 after a success that is closer than before and 0.9 after another, within
    [0.1, 1000]. Gradients are clipped to norm 1. A sample leaves a restart when it is adversarial and its objective exceeds
    its mean over the last ``window`` steps. The closest *successful* iterate is kept (the authors' code lets closer failures
    replace it).

    Source: the MLVGM paper's supplement C; settings of the three tasks in :mod:`gencls.eval.attacks.mlvgm_set`.

    Attributes:
        threat: L2 without epsilon.
        restarts: number of restarts, >= 1; 8 in the paper.
        steps: steps of Adam per restart, >= 1; 1024 in the paper.
        learning_rate: step size of Adam, in the tanh space.
        confidence: kappa, in nats of the calibrated scores.
        regularisation: the first c.
        start_norm: L2 length of the FGSM step of a start, in [0, 1] pixel units. Gaussian noise of an eighth of it is added.
        window: number of steps in the mean of the objective.
    """

    threat: ThreatModel
    restarts: int = 8
    steps: int = 1024
    learning_rate: float = 1e-3
    confidence: float = 0.01
    regularisation: float = 64.0
    start_norm: float = 8.0
    window: int = 32
    uses_gradients = True
    norms = ("l2",)

    def __post_init__(self) -> None:
        require(self, minimal=True, norms=self.norms)
        if min(self.restarts, self.steps, self.window) < 1:
            raise GenclsError(
                "RestartedCarliniWagner: expected restarts, steps and window >= 1, "
                f"got {self.restarts}, {self.steps} and {self.window}"
            )
        if min(self.learning_rate, self.regularisation, self.start_norm) <= 0 or self.confidence < 0:
            raise GenclsError(
                "RestartedCarliniWagner: expected learning_rate, regularisation and start_norm > 0 and confidence >= 0, "
                f"got {self.learning_rate}, {self.regularisation}, {self.start_norm} and {self.confidence}"
            )

    @property
    def passes(self) -> tuple[int, int]:
        """One gradient per step and restart, the gradients of the starts, and the linearisations at both ends."""
        return 8, self.restarts * (self.steps + 1) + 10

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        model = prepare(model, images, labels)
        search = _Search(self, model, images, labels)
        constant = torch.full_like(search.scale, self.regularisation)
        for _ in range(self.restarts):
            before = search.closest.distance.clone()
            response = model.look(images, labels, model.cross_entropy)
            noise = self.start_norm / 8 * L2Ball().direction(torch.randn_like(images))
            start = images + self.start_norm * L2Ball().direction(response.gradient.sign()) + noise
            won = search.descend(start.clamp(0, 1), constant, window=self.window, clip=True)
            factor = torch.where(won, torch.where(search.closest.distance < before, 0.8, 0.9), 1.2)
            constant = (constant * factor).clamp_(0.1, 1000.0)
        return search.result()


@dataclass
class _Rows:
    """The rows that still descend, with the state of their Adam."""

    sample: Tensor
    w: Tensor
    first_moment: Tensor
    second_moment: Tensor
    constant: Tensor
    scale: Tensor
    won: Tensor  # an adversarial was found in this descent
    lowest: Tensor  # objective
    stalled: Tensor  # steps since it fell
    recent: Tensor  # (M, window) objectives


class _Search:
    """The closest adversarial images so far, and the descent that improves them."""

    def __init__(
        self, attack: CarliniWagner | RestartedCarliniWagner, model: AttackModel, images: Tensor, labels: Tensor
    ) -> None:
        self.attack, self.model, self.images, self.labels = attack, model, images, labels
        self.targeted = attack.threat.targeted
        # Here a success needs kappa; in the MLVGM paper's form kappa only pulls.
        self.needed = attack.confidence if isinstance(attack, CarliniWagner) else 0.0
        self.closest = Closest(model, images, labels, attack.threat)
        if self.needed == 0:
            self.closest.cross()
        self.scale = _NATS / score_gap(self.closest.scores).squeeze(1)

    def result(self) -> Tensor:
        """The closest adversarials; refined, unless they must keep a distance from the boundary."""
        return self.closest.refine() if self.needed == 0 else self.closest.images

    def descend(
        self, start: Tensor, constant: Tensor, *, patience: int | None = None, window: int = 1, clip: bool = False
    ) -> Tensor:
        """One run of Adam from the start images; (N,) bool, whether it found an adversarial of the sample."""
        rows = self._rows(start, constant, window)
        found = torch.zeros(len(self.images), dtype=torch.bool, device=start.device)
        for step in range(self.attack.steps):
            if not len(rows.sample):
                break
            objective = self._step(rows, step, clip)
            found[rows.sample] |= rows.won
            improved = objective < rows.lowest * (1 - 1e-4)
            rows.lowest = rows.lowest.minimum(objective)
            rows.stalled = torch.where(improved, 0, rows.stalled + 1)
            if patience is None:
                filled = step + 1 >= window
                leaving = rows.won & filled & (objective > rows.recent.mean(dim=1))
                rows.recent[:, step % window] = objective
            else:
                leaving = rows.stalled >= patience
            if bool(leaving.any()):
                rows = taken(rows, ~leaving)
        return found

    def _rows(self, start: Tensor, constant: Tensor, window: int) -> _Rows:
        sample = self.closest.open
        # At 0 and 1 themselves the arctanh is infinite.
        w = torch.atanh((2 * start[sample] - 1) * (1 - 1e-6))
        none = torch.zeros(len(sample), device=start.device)
        return _Rows(
            sample=sample,
            w=w,
            first_moment=torch.zeros_like(w),
            second_moment=torch.zeros_like(w),
            constant=constant[sample],
            scale=self.scale[sample],
            won=none.bool(),
            lowest=torch.full_like(none, torch.inf, dtype=torch.float64),
            stalled=none.long(),
            recent=torch.full((len(sample), window), torch.inf, dtype=torch.float64, device=start.device),
        )

    def _loss(self, draws: Tensor, labels: Tensor) -> Tensor:
        return -self.model.shortfall(draws, labels, targeted=self.targeted)

    def _step(self, rows: _Rows, step: int, clip: bool) -> Tensor:
        """Look, keep closer adversarials, and make one step of Adam; returns the objectives (M,) before the step."""
        tanh = rows.w.tanh()
        current, clean, labels = (tanh + 1) / 2, self.images[rows.sample], self.labels[rows.sample]
        with select(rows.sample):  # the margin has a gradient even if the hinge is at rest, so it is never zero
            response = self.model.look(current, labels, self._loss, targeted=self.targeted)
        change = current - clean
        squared = change.flatten(1).square().sum(dim=1)
        hinge = response.margin * rows.scale + self.attack.confidence
        reached = response.reached & ((self.needed == 0) | (response.margin * rows.scale <= -self.needed))
        rows.won = rows.won | reached
        self.closest.offer(rows.sample, current, reached)
        # Also at a tie of coarse scores.
        pull = (rows.constant * rows.scale * ((hinge >= 0) | ~response.reached)).to(change.dtype)
        gradient = (2 * change - per_image(pull) * response.gradient).mul_(1 - tanh.square()).mul_(0.5)
        if clip:  # to norm 1 at most
            gradient = gradient * per_image((1 / gradient.flatten(1).norm(dim=1).clamp_min(1e-30)).clamp_max(1.0))
        rows.first_moment = torch.lerp(rows.first_moment, gradient, 0.1)
        rows.second_moment = rows.second_moment.mul(0.999).addcmul_(gradient, gradient, value=0.001)
        rate = self.attack.learning_rate * (1 - 0.999 ** (step + 1)) ** 0.5 / (1 - 0.9 ** (step + 1))
        # A tiny epsilon: at saturated pixels the derivative of the tanh, and so the gradient, is about 1e-6.
        rows.w = rows.w - rate * rows.first_moment / rows.second_moment.sqrt().add_(1e-12)
        return squared.double() + rows.constant * hinge.clamp_min(0)
