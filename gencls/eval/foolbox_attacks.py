"""The foolbox attacks with our loss: cross-entropy on calibrated, averaged scores, one value per sample.

Imported lazily: foolbox is not needed to use a defense. It is untyped, so this file is the border of the type checks.
"""

from collections.abc import Callable
from typing import Any

import eagerpy as ep
import foolbox
import torch
from torch import Tensor

from gencls.core import GenclsError
from gencls.eval.attack_model import AttackModel, frozen
from gencls.eval.threat import Norm

__all__ = ["gaussian_noise", "pgd"]

Run = Callable[[AttackModel, Tensor, Tensor], Tensor]


class _OurLoss:
    """Replaces foolbox's cross-entropy, which knows neither per-draw losses nor calibration, and looks at the gradients.

    A NaN would pass through a sign or a projection as "no step" and be reported as robustness.
    """

    def get_loss_fn(self, model: Any, labels: Any) -> Callable[[Any], Any]:
        self.attack_model: AttackModel = model.attack_model
        return lambda images: self.attack_model.loss(self.attack_model(images), labels.raw).sum()

    def value_and_grad(self, loss_fn: Any, x: Any) -> tuple[Any, Any]:
        images = x.raw.detach().clone().requires_grad_()
        loss: Tensor = loss_fn(images)
        if not loss.requires_grad:
            raise GenclsError(
                "attack: expected scores with a gradient, got detached ones; a defense without a useful gradient declares "
                "one in surrogates(), for instance BPDA"
            )
        (gradient,) = torch.autograd.grad(loss, images)
        sizes = gradient.flatten(1).abs().amax(dim=1)
        if not bool(torch.isfinite(sizes).all()):
            bad = int((~torch.isfinite(sizes)).sum())
            raise GenclsError(f"attack: expected finite gradients, got NaN or infinity for {bad} of {len(sizes)} images")
        self.attack_model.meter.gradients += len(sizes)
        self.attack_model.meter.zero_gradients += int((sizes == 0).sum())
        return ep.astensor(loss), ep.astensor(gradient)


class _LinfPGD(_OurLoss, foolbox.attacks.LinfPGD):  # type: ignore[misc]
    pass


class _L2PGD(_OurLoss, foolbox.attacks.L2PGD):  # type: ignore[misc]
    pass


class _LinfGaussianNoise(foolbox.attacks.LinfAdditiveUniformNoiseAttack):  # type: ignore[misc]
    """Gaussian noise whose largest component has size epsilon; foolbox divides by the largest *signed* component."""

    def sample_noise(self, x: Any) -> Any:
        return x.normal(x.shape)

    def get_epsilons(self, x: Any, p: Any, epsilon: float, min_: float, max_: float) -> Any:
        return super().get_epsilons(x, p.abs(), epsilon, min_, max_)


def pgd(norm: Norm, epsilon: float, steps: int, step_size: float, random_start: bool) -> Run:
    """PGD from one start; FGSM is one step of size epsilon without a random start."""
    kind = _LinfPGD if norm == "linf" else _L2PGD
    return _runner(kind(steps=steps, abs_stepsize=step_size, random_start=random_start), epsilon)


def gaussian_noise(norm: Norm, epsilon: float) -> Run:
    """One draw of Gaussian noise on the surface of the ball; in L2 after clipping to [0, 1]."""
    kind = _LinfGaussianNoise if norm == "linf" else foolbox.attacks.L2ClippingAwareAdditiveGaussianNoiseAttack
    return _runner(kind(), epsilon)


def _runner(attack: Any, epsilon: float) -> Run:
    def run(model: AttackModel, images: Tensor, labels: Tensor) -> Tensor:
        wrapped = foolbox.PyTorchModel(model.eval(), bounds=(0, 1), device=images.device)
        wrapped.attack_model = model
        # foolbox's __call__ would judge and clip as well, at the price of another forward pass
        with frozen(model):
            adversarial: Tensor = attack.run(wrapped, images, foolbox.Misclassification(labels), epsilon=epsilon)
        return adversarial.detach()

    return run
