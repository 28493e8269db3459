"""Gradients estimated from scores by natural evolution strategies, and PGD that follows them."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, branch, checked
from gencls.core.balls import per_image
from gencls.core.streams.keyed import repeatable
from gencls.eval.attacks.parts.attack_model import AttackModel, Loss, prepare
from gencls.eval.attacks.parts.base import DENSE, Response, require
from gencls.eval.attacks.pgd import PGD
from gencls.eval.threats.protocol import Threat


@dataclass(frozen=True)
class NES:
    """PGD with gradients estimated from the scores; see :func:`estimate_gradient`.

    Source: Ilyas et al. 2018, arXiv:1804.08598, with its population and deviation as defaults. The thesis (section 2.3) uses 50
    steps.

    Attributes:
        threat: Linf or L2 with an epsilon; may be targeted.
        steps: estimated gradients per start, >= 1.
        restarts: random starts; samples broken by one take no part in the next.
        step_size: length of a step, in [0, 1] pixel units; None goes from epsilon to 0 along half a cosine, as in PGD.
        random_start: False starts at the image itself.
        loss: "cross-entropy", or "margin", the label's score minus the best other.
        samples: pairs of images per gradient, n of the paper's Algorithm 1.
        sigma: standard deviation of the pairs around the image, in [0, 1] pixel units.
    """

    threat: Threat
    steps: int = 50
    restarts: int = 1
    step_size: float | None = None
    random_start: bool = True
    loss: Literal["cross-entropy", "margin"] = "cross-entropy"
    samples: int = 50
    sigma: float = 0.001
    uses_gradients = False
    norms = DENSE

    def __post_init__(self) -> None:
        require(self, targeted=True, norms=self.norms)
        _check(self.samples, self.sigma)
        self._descent()

    @property
    def passes(self) -> tuple[int, int]:
        """Per step two passes for each pair and one that looks at the image itself; one ends a start."""
        return self.restarts * (self.steps * (2 * self.samples + 1) + 1), 0

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return self._descent()(
            _Estimated(prepare(model, images, labels, self.threat), self.samples, self.sigma), images, labels
        )

    def _descent(self) -> PGD:
        return PGD(self.threat, self.steps, self.restarts, self.step_size, self.random_start, self.loss)


class _Estimated(AttackModel):
    """An attack model that estimates its gradients from its scores."""

    def __init__(self, model: AttackModel, samples: int, sigma: float) -> None:
        super().__init__(model.meter, **model.settings)
        self.samples = samples
        self.sigma = sigma

    def look(
        self, images: Tensor, labels: Tensor, loss: Loss | None = None, *, targeted: bool = False, fresh: bool = False
    ) -> Response:
        response = super().look(images, labels, targeted=targeted)
        if loss is None:
            return response
        gradient = estimate_gradient(self, images, labels, loss, samples=self.samples, sigma=self.sigma)
        self.meter.gradients += len(images)
        self.meter.zero_gradients += int((gradient.flatten(1).abs().amax(dim=1) == 0).sum())
        return replace(response, gradient=gradient)


@torch.no_grad()
@checked
def estimate_gradient(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    loss: Loss,
    *,
    samples: int = 50,
    sigma: float = 0.001,
    max_rows: int = 1024,
) -> Tensor:
    """The gradient of a loss, smoothed by Gaussian noise, from losses at antithetic pairs (the paper's Algorithm 1).

    For each image on its own, with u_j drawn from N(0, 1),

        g = 1 / (2 n sigma) sum_j (l(x + sigma u_j) - l(x - sigma u_j)) u_j.

    Three things differ from the paper. We take differences of scores, and the exact slope of the loss in the scores. So the
    scale of calibrated scores stays constant in a pair, as in the loss. Images stay in [0, 1], as defenses may expect. The loss
    follows a pixel only if x + sigma u is not clipped, so we divide its entry by this probability (Stein's lemma), 1/2 at the
    border. Both images of a pair meet the same draws of a stochastic defense. Otherwise its noise would be divided by sigma.

    Args:
        model: module of images -> scores, or an attack model.
        images: (N, C, H, W) in [0, 1].
        labels: int64 (N,).
        loss: function of the scores of the draws (N, S, K) and labels (N,) that returns (N,).
        samples: n, pairs per image, >= 1.
        sigma: standard deviation of the noise, > 0, in [0, 1] pixel units.
        max_rows: images x pairs x EoT draws per forward pass, at least one pair per image. The result does not depend on it.

    Returns:
        Estimates (N, C, H, W).

    Raises:
        GenclsError: for samples below 1, sigma that is not positive, or losses that are not finite.
    """
    _check(samples, sigma)
    model = prepare(model, images, labels)
    max_rows = min(max_rows, model.max_rows or max_rows)
    at_once = max(1, max_rows // (len(images) * model.eot.samples))
    total = torch.zeros_like(images, dtype=torch.float64)
    for first in range(0, samples, at_once):
        numbers = range(first, min(first + at_once, samples))
        repeat = len(numbers)
        centers, of = images.repeat_interleave(repeat, dim=0), labels.repeat_interleave(repeat)
        noise = torch.randn_like(centers)
        with branch(torch.arange(len(images)).repeat_interleave(repeat), [*numbers] * len(images)):
            again = repeatable()
            above = model.per_draw((centers + sigma * noise).clamp_(0, 1))
            with again():
                below = model.per_draw((centers - sigma * noise).clamp_(0, 1))
        change = _change(model, loss, above, below, of)
        total += (per_image(change) * noise).unflatten(0, (len(images), repeat)).sum(dim=1)
    if not bool(torch.isfinite(total).all()):
        raise GenclsError("NES: expected finite losses, got NaN or infinity")
    places = images.double()
    unclipped = torch.special.ndtr((1 - places) / sigma) - torch.special.ndtr(-places / sigma)
    estimate: Tensor = total / (2 * samples * sigma * unclipped)
    return estimate.to(images.dtype)


def _change(model: AttackModel, loss: Loss, above: Tensor, below: Tensor, labels: Tensor) -> Tensor:
    """The difference of a loss between two sets of scores (M, S, K), by its slope in the middle; (M,)."""
    with torch.enable_grad():
        middle = ((above + below) / 2).requires_grad_()
        value = loss(middle, labels)
        if not isinstance(value, Tensor) or not value.requires_grad:
            raise GenclsError(f"NES: expected a loss that is a differentiable tensor, got {type(value).__name__}")
        (slope,) = torch.autograd.grad(value.sum(), middle)
    return (slope * (above - below)).sum(dim=(1, 2))


def _check(samples: int, sigma: float) -> None:
    if samples < 1 or not sigma > 0:
        raise GenclsError(f"NES: expected samples >= 1 and sigma > 0, got {samples} and {sigma}")
