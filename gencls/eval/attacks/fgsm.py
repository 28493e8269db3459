"""The fast gradient sign method."""

from dataclasses import dataclass

from torch import Tensor, nn

from gencls.eval.attacks.parts.attack_model import prepare
from gencls.eval.attacks.parts.base import ANY, require
from gencls.eval.threats.protocol import Threat


@dataclass(frozen=True)
class FGSM:
    """One gradient step onto the surface of the ball, from the image itself, on the calibrated cross-entropy.

    Source: Goodfellow et al. 2015, arXiv:1412.6572. For L2 the step follows the gradient's direction.
    """

    threat: Threat
    uses_gradients = True
    norms = ANY

    def __post_init__(self) -> None:
        require(self, targeted=True)

    @property
    def passes(self) -> tuple[int, int]:
        """One gradient."""
        return 0, 1

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        model = prepare(model, images, labels, self.threat)
        sign = -1.0 if self.threat.targeted else 1.0
        response = model.look(images, labels, lambda draws, y: sign * model.cross_entropy(draws, y))
        return self.threat.project(images + self.threat.step(response.gradient, self.threat.first_step, images), images)
