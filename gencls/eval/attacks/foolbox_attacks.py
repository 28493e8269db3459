"""The attacks that foolbox does: on calibrated, averaged scores.

Imported lazily: foolbox is not needed to use a defense. It is untyped, so this file is the border of the type checks.
"""

from collections.abc import Callable
from typing import Any

import foolbox
from torch import Tensor

from gencls.eval.attack_model import AttackModel, frozen
from gencls.eval.threat import Norm

__all__ = ["gaussian_noise"]

Run = Callable[[AttackModel, Tensor, Tensor], Tensor]


class _LinfGaussianNoise(foolbox.attacks.LinfAdditiveUniformNoiseAttack):  # type: ignore[misc]
    """Gaussian noise whose largest component has size epsilon; foolbox divides by the largest *signed* component."""

    def sample_noise(self, x: Any) -> Any:
        return x.normal(x.shape)

    def get_epsilons(self, x: Any, p: Any, epsilon: float, min_: float, max_: float) -> Any:
        return super().get_epsilons(x, p.abs(), epsilon, min_, max_)


def gaussian_noise(norm: Norm, epsilon: float) -> Run:
    """One draw of Gaussian noise on the surface of the ball; in L2 after clipping to [0, 1]."""
    kind = _LinfGaussianNoise if norm == "linf" else foolbox.attacks.L2ClippingAwareAdditiveGaussianNoiseAttack
    return _runner(kind(), epsilon)


def _runner(attack: Any, epsilon: float) -> Run:
    def run(model: AttackModel, images: Tensor, labels: Tensor) -> Tensor:
        wrapped = foolbox.PyTorchModel(model.eval(), bounds=(0, 1), device=images.device)
        # foolbox's __call__ would judge and clip as well, at the price of another forward pass
        with frozen(model):
            adversarial: Tensor = attack.run(wrapped, images, foolbox.Misclassification(labels), epsilon=epsilon)
        return adversarial.detach()

    return run
