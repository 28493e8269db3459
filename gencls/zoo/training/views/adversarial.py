"""Adversarial examples for training, and the attacks that make them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core.balls import BALLS, L2Ball, ball_of
from gencls.core.errors import GenclsError
from gencls.core.modules.modes import in_mode
from gencls.core.settings import check_settings

_BALLS = BALLS | {"l2": L2Ball(scaled=False)}
"""A training's gradients are large enough that their squares do not vanish."""


def pgd(
    network: nn.Module, images: Tensor, labels: Tensor, *, norm: str, epsilon: float, steps: int, step_size: float
) -> Tensor:
    """Untargeted PGD on the cross-entropy, from a uniformly random start in the ball (Madry et al., arXiv:1706.06083, eq. 2.1).

    Evaluations use the attacks of :mod:`gencls.eval`. This loop exists because training spends nearly all its time here. It
    computes no gradients of the weights.

    Args:
        network: images (N, C, H, W) in [0, 1] to logits (N, K), in eval mode, or batch norm mixes the images.
        images: (N, C, H, W) in [0, 1].
        labels: int64 (N,).
        norm: norm of the ball, "linf" or "l2".
        epsilon: radius of the ball, in [0, 1] pixel units.
        steps: number of steps.
        step_size: length of a step in the norm of the ball, in [0, 1] pixel units.

    Returns:
        Adversarial images (N, C, H, W) in [0, 1], within the ball, detached.
    """
    start = (images + _BALLS[norm].sample(images, epsilon)).clamp(0.0, 1.0)
    return ascend(
        lambda adversarial: F.cross_entropy(network(adversarial), labels, reduction="sum"),
        images,
        start,
        norm=norm,
        epsilon=epsilon,
        steps=steps,
        step_size=step_size,
    )


def ascend(
    objective: Callable[[Tensor], Tensor],
    images: Tensor,
    start: Tensor,
    *,
    norm: str,
    epsilon: float,
    steps: int,
    step_size: float,
) -> Tensor:
    """Steepest ascent from a start (N, C, H, W), which lies in [0, 1] and within the ball around images, as in :func:`pgd`.

    The objective is the sum of each image's gain. The result is the last iterate, detached; without steps it is the start.
    """
    adversarial, ball = start, _BALLS[norm]
    with torch.enable_grad():
        for _ in range(steps):
            adversarial = adversarial.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(objective(adversarial), adversarial)
            moved = adversarial.detach() + ball.step(gradient, step_size, adversarial.detach())
            # The box contains the images. So clamping last brings a point nearer to them, and never out of the ball.
            adversarial = ball.within(images, moved - images, epsilon)
    return adversarial.detach()


@dataclass(frozen=True)
class Adversarial:
    """Adversarial examples of the network itself (Madry et al., arXiv:1706.06083).

    The thesis does not give the settings of the attack. Attacks run in eval mode. So the statistics of batch norm come only
    from the images that the network then trains on.

    Attributes:
        norm: norm of the threat model, "linf" or "l2".
        epsilon: radius, in [0, 1] pixel units.
        steps: PGD steps.
        step_size: length of a step at the full radius, in [0, 1] pixel units.
        warmup_epochs: epochs in which the radius and the step grow linearly from 0. Without them a small network does not learn
            at radius 0.3: it falls into the constant solution.
    """

    norm: str
    epsilon: float
    steps: int
    step_size: float
    warmup_epochs: float

    def __post_init__(self) -> None:
        check_settings(self)
        ball_of(self.norm, owner="Adversarial")

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        scale = min(1.0, epoch / self.warmup_epochs) if self.warmup_epochs > 0 else 1.0
        with in_mode(network, training=False):
            return pgd(
                network,
                images,
                labels,
                norm=self.norm,
                epsilon=scale * self.epsilon,
                steps=self.steps,
                step_size=scale * self.step_size,
            )


@dataclass(frozen=True)
class KLAdversarial:
    """Images near by whose predictions differ most from those of the images: the inner maximisation of TRADES.

        max KL[p(. | x) || p(. | x')]  over  ||x' - x|| <= epsilon,

    It runs projected steepest ascent from x + N(0, start_std^2). Labels have no part in it. Attacks run in eval mode.

    Source: TRADES (Zhang et al. 2019, arXiv:1901.08573), Algorithm 1. The start and the step of 2 epsilon / steps for L2 balls
    are from its public code.

    Attributes:
        norm: norm of the threat model, "linf" or "l2".
        epsilon: radius, in [0, 1] pixel units.
        steps: number of steps of the ascent.
        step_size: length of a step in the norm of the ball, in [0, 1] pixel units.
        start_std: standard deviation of the start, in [0, 1] pixel units, > 0: at the image itself the divergence has no
            gradient.
    """

    norm: str
    epsilon: float
    steps: int
    step_size: float
    start_std: float = 0.001

    def __post_init__(self) -> None:
        check_settings(self)
        ball_of(self.norm, owner="KLAdversarial")
        if min(self.epsilon, self.step_size) <= 0 or self.steps < 1 or self.start_std <= 0:
            raise GenclsError(
                f"KLAdversarial: expected epsilon, step_size and start_std > 0 and steps >= 1, got {self.epsilon}, "
                f"{self.step_size}, {self.start_std} and {self.steps}"
            )

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        with in_mode(network, training=False):
            with torch.no_grad():
                predicted = network(images)
            return ascend(
                lambda moved: prediction_divergence(predicted, network(moved)).sum(),
                images,
                images + self.start_std * torch.randn_like(images),
                norm=self.norm,
                epsilon=self.epsilon,
                steps=self.steps,
                step_size=self.step_size,
            )


@dataclass(frozen=True)
class FastGradient:
    """One step along the sign of the gradient of the cross-entropy (Goodfellow et al. 2015, arXiv:1412.6572).

    It takes no other norms than these two: steps in L1 and L0 choose some of the values, and signs do not rank them.

    Attributes:
        norm: "linf" moves each pixel by epsilon; "l2" scales the signs to the L2 length epsilon (the MLVGM paper's code).
        epsilons: sizes in [0, 1] pixel units; each image draws one of them. ND-VAE's code has 0.25, 0.3, 0.35 and 0.4 (Linf)
            for MNIST and FashionMNIST. The MLVGM paper's code has 4, 2 and 4 (L2) for its tasks.
    """

    norm: Literal["linf", "l2"]
    epsilons: tuple[float, ...]

    def __post_init__(self) -> None:
        check_settings(self)
        if not self.epsilons or min(self.epsilons) <= 0:
            raise GenclsError(f"FastGradient: expected at least one epsilon, all > 0, got {self.epsilons}")

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        """Perturb, see :class:`~gencls.zoo.training.views.perturbations.Perturbation`; the network stays in its mode."""
        with torch.enable_grad():
            point = images.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(network(point), labels, reduction="sum"), point)
        sizes = torch.tensor(self.epsilons, device=images.device, dtype=images.dtype)
        drawn = sizes[torch.randint(len(sizes), (len(images),), device=images.device)]
        return (images + BALLS[self.norm].step(gradient.sign(), drawn, images)).clamp(0.0, 1.0)


def prediction_divergence(predicted: Tensor, others: Tensor) -> Tensor:
    """KL[softmax(predicted) || softmax(others)] of logits (N, K): (N,)."""
    return F.kl_div(others.log_softmax(1), predicted.log_softmax(1), reduction="none", log_target=True).sum(1)
