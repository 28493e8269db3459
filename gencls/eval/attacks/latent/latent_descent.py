"""The latent descent attack: towards another class's reconstruction of the image."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gencls.core import BayesClassifier, GenclsError, TransformedClassifier, Unrolled, check_labels, select
from gencls.core.balls import per_image
from gencls.eval.attacks.parts.attack_model import AttackModel, prepare
from gencls.eval.attacks.parts.base import CONVEX, require
from gencls.eval.scores.forward import answered
from gencls.eval.threats.protocol import Threat


@dataclass(frozen=True)
class LatentDescent:
    """Small steps towards the reconstruction of the best other class, until the decision is wrong; then bisection.

    For a Bayes classifier with reconstructions x_k = G_k(z_k*(x)); a transform in front comes before the inference of z_k*:

        x_{t+1} = x_t + eta (x_k(x_t) - x_t),      k the best class other than the label at x_t,

    until the decision changes. Then the attack bisects the last step, and the line from the image to the adversarial. An image
    that keeps its class to the end stays the clean one.

    Source: Schott et al. 2018, arXiv:1805.09190, section 5 and its defaults. The authors' published code walks along a line
    instead, in 3 or 51 steps to the reconstruction.

    Attributes:
        threat: Linf, L2 or L1 without epsilon. The walk is the same, and the norm tells which of its images is closest.
        steps: most steps towards the reconstruction, >= 1; each infers anew.
        step_size: eta, in (0, 1].
        bisections: halvings of each of the two intervals, >= 0.
    """

    threat: Threat
    steps: int = 500
    step_size: float = 0.01
    bisections: int = 10
    uses_gradients = False
    norms = CONVEX

    def __post_init__(self) -> None:
        require(self, minimal=True, norms=self.norms)
        if self.steps < 1 or not 0 < self.step_size <= 1 or self.bisections < 0:
            raise GenclsError(
                "LatentDescent: expected steps >= 1, a step_size in (0, 1] and bisections >= 0, "
                f"got {self.steps}, {self.step_size} and {self.bisections}"
            )

    @property
    def passes(self) -> tuple[int, int]:
        """One inference per step, one for the clean image, and one per halving."""
        return self.steps + 1 + 2 * self.bisections, 0

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Attack; see :class:`Attack`.

        Raises:
            GenclsError: for a model that is no Bayes classifier, or has no reconstructions.
        """
        model = prepare(model, images, labels)
        transform, classifier = _parts(model)
        current, before = images.clone(), images.clone()
        found = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        for step in range(self.steps + 1):
            alive = (~found).nonzero().squeeze(1)
            if not len(alive):
                break
            with select(alive):
                reached, target = _look(transform, classifier, model, current[alive], labels[alive])
            found[alive] = reached
            if step == self.steps:
                break
            moving = alive[~reached]
            before[moving] = current[moving]
            current[moving] = current[moving].lerp(target[~reached], self.step_size).clamp_(0, 1)
        rows = (found & (current != images).flatten(1).any(dim=1)).nonzero().squeeze(1)  # the others began wrong
        best = images.clone()
        if len(rows):
            with select(rows):
                clean, of = images[rows], labels[rows]
                first = self._bisect(model, clean, before[rows], current[rows], of)
                best[rows] = self._bisect(model, clean, clean, first, of)
        return best

    def _bisect(self, model: AttackModel, clean: Tensor, right: Tensor, wrong: Tensor, labels: Tensor) -> Tensor:
        """The closest image on the line from a right image to a wrong one, by bisection."""
        best, low, high = wrong, *torch.tensor([[0.0], [1.0]]).to(wrong).expand(2, len(wrong))
        for _ in range(self.bisections):
            middle = (low + high) / 2
            candidates = right.lerp(wrong, per_image(middle))
            reached = model.look(candidates, labels).reached
            low, high = low.where(reached, middle), middle.where(reached, high)
            closer = reached & (self.threat.distance(clean, candidates) < self.threat.distance(clean, best))
            best = torch.where(per_image(closer), candidates, best)
        return best


def _parts(model: AttackModel) -> tuple[nn.Module, BayesClassifier[Any]]:
    """The transform in front of the Bayes classifier that the attack model asks, and the classifier."""
    asked = model.meter.model
    inner = asked.defense if isinstance(asked, Unrolled) else asked
    transform: nn.Module = nn.Identity()
    if isinstance(inner, TransformedClassifier):
        transform, inner = inner.transform, inner.classifier
    if not isinstance(inner, BayesClassifier):
        raise GenclsError(f"LatentDescent: expected a BayesClassifier, got {type(inner).__name__}")
    return transform, inner


def _look(
    transform: nn.Module, classifier: BayesClassifier[Any], model: AttackModel, images: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Whether the decisions are wrong, (N,) bool, and the best other class's reconstructions (N, C, H, W), in one inference."""
    inferred: list[Any] = []

    def ask() -> Tensor:
        with torch.no_grad():
            seen = transform(images)
        with torch.inference_mode(False), torch.enable_grad():
            inferred[:] = seen, classifier.infer(seen.detach().clone())
        with torch.no_grad():
            return classifier.log_joint(*inferred)

    scores = answered(classifier, images, ask)
    check_labels(labels, num_classes=scores.shape[1])
    with torch.no_grad():
        reconstructions = classifier.reconstruct(*inferred)
    model.meter.forwards += len(images)
    # The decision of a stochastic defense is a vote of several draws.
    reached = model.look(images, labels).reached if model.stochastic else scores.argmax(dim=1) != labels
    others = scores.scatter(1, labels.unsqueeze(1), -torch.inf).argmax(dim=1)
    return reached, reconstructions[torch.arange(len(images), device=images.device), others].to(images)
