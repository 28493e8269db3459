"""Attacks with a fixed budget: FGSM, PGD and additive Gaussian noise; foolbox does the attacking.

An attack is a frozen dataclass, called as ``attack(model, images, labels)``, and returns adversarial images and nothing else.
Success and distance are the judge's business.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, check_images, check_labels, select
from gencls.eval.attack_model import AttackModel
from gencls.eval.threat import ThreatModel

__all__ = ["FGSM", "PGD", "Attack", "GaussianNoiseAttack"]


@runtime_checkable
class Attack(Protocol):
    """What an evaluation needs of an attack."""

    @property
    def threat(self) -> ThreatModel:
        """The threat model whose ball the adversarial images keep to."""

    @property
    def uses_gradients(self) -> bool:
        """Whether the gradient modes of a defense make a difference."""

    @property
    def passes(self) -> tuple[int, int]:
        """Forward and forward-plus-backward passes per image at most, to predict the cost of a study."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] and labels (N,) -> adversarial images of the same shape."""


def _check(images: Tensor, labels: Tensor) -> None:
    check_images(images)
    check_labels(labels, num_classes=None, count=len(images))


def _fixed(threat: ThreatModel, name: str) -> None:
    if threat.epsilon is None:
        raise GenclsError(f"{name}: expected a threat model with an epsilon, got {threat}")
    if threat.targeted:
        raise GenclsError(f"{name}: expected an untargeted threat model, got {threat}")


def _strongest(
    attempt: Callable[[Tensor, Tensor], Tensor], tries: int, model: AttackModel, images: Tensor, labels: Tensor
) -> Tensor:
    """The first try per sample whose decision is wrong, else the one with the largest loss."""
    adversarial = images.clone()
    worst = torch.full((len(images),), -torch.inf, dtype=torch.float64, device=images.device)
    alive = torch.arange(len(images), device=images.device)
    for _ in range(tries):
        with select(alive):
            candidates = attempt(images[alive], labels[alive])
            with torch.no_grad():
                scores = model(candidates)
                losses = model.loss(scores, labels[alive])
        broken = scores.argmax(dim=1) != labels[alive]
        better = broken | (losses > worst[alive])  # a wrong decision may have a smaller loss than a right one
        adversarial[alive[better]] = candidates[better]
        worst[alive[better]] = losses[better].double()
        alive = alive[~broken]
        if not len(alive):
            break
    return adversarial


@dataclass(frozen=True)
class PGD:
    """Projected gradient descent on the calibrated cross-entropy, with random starts in the ball.

    Source: Madry et al. 2018, arXiv:1706.06083. The thesis (section 2.3) uses 80 steps with 5 or 20 starts.

    Attributes:
        threat: Linf or L2 with an epsilon.
        steps: gradient steps per start, >= 1.
        restarts: random starts; samples broken by one take no part in the next.
        step_size: in [0, 1] pixel units; None takes 2.5 epsilon / steps.
        random_start: False starts at the image itself.
    """

    threat: ThreatModel
    steps: int = 40
    restarts: int = 1
    step_size: float | None = None
    random_start: bool = True
    uses_gradients = True

    def __post_init__(self) -> None:
        """Check the values."""
        _fixed(self.threat, "PGD")
        if self.steps < 1 or self.restarts < 1 or (self.step_size is not None and self.step_size <= 0):
            raise GenclsError(
                "PGD: expected steps >= 1, restarts >= 1 and step_size > 0, "
                f"got {self.steps}, {self.restarts} and {self.step_size}"
            )

    @property
    def passes(self) -> tuple[int, int]:
        """One gradient per step and start, and one forward pass that ends a start."""
        return self.restarts, self.restarts * self.steps

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Attack; see :class:`Attack`."""
        from gencls.eval import foolbox_attacks

        model = AttackModel.of(model)
        _check(images, labels)
        epsilon = self.threat.epsilon or 0.0
        run = foolbox_attacks.pgd(
            self.threat.norm, epsilon, self.steps, self.step_size or 2.5 * epsilon / self.steps, self.random_start
        )
        return _strongest(lambda x, y: run(model, x, y), self.restarts, model, images, labels)


@dataclass(frozen=True)
class FGSM:
    """One gradient step onto the surface of the ball, from the image itself.

    Source: Goodfellow et al. 2015, arXiv:1412.6572.
    """

    threat: ThreatModel
    uses_gradients = True

    def __post_init__(self) -> None:
        """Check the values."""
        _fixed(self.threat, "FGSM")

    @property
    def passes(self) -> tuple[int, int]:
        """One gradient."""
        return 0, 1

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Attack; see :class:`Attack`."""
        from gencls.eval import foolbox_attacks

        model = AttackModel.of(model)
        _check(images, labels)
        epsilon = self.threat.epsilon or 0.0
        return foolbox_attacks.pgd(self.threat.norm, epsilon, 1, epsilon, False)(model, images, labels)


@dataclass(frozen=True)
class GaussianNoiseAttack:
    """Gaussian noise scaled to the surface of the ball; the worst of several draws.

    For L2 the noise has norm epsilon after clipping to [0, 1]; for Linf its largest component has size epsilon.
    It needs no gradient, so a gradient attack that does worse than it is broken.

    Attributes:
        threat: Linf or L2 with an epsilon.
        tries: draws per image.
    """

    threat: ThreatModel
    tries: int = 10
    uses_gradients = False

    def __post_init__(self) -> None:
        """Check the values."""
        _fixed(self.threat, "GaussianNoiseAttack")
        if self.tries < 1:
            raise GenclsError(f"GaussianNoiseAttack: expected tries >= 1, got {self.tries}")

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass per draw."""
        return self.tries, 0

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Attack; see :class:`Attack`."""
        from gencls.eval import foolbox_attacks

        model = AttackModel.of(model)
        _check(images, labels)
        run = foolbox_attacks.gaussian_noise(self.threat.norm, self.threat.epsilon or 0.0)
        return _strongest(lambda x, y: run(model, x, y), self.tries, model, images, labels)
