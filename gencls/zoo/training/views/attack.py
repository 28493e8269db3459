"""Projected gradient descent as adversarial training needs it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core.balls import BALLS, L2

__all__ = ["ascend", "pgd"]

_BALLS = BALLS | {"l2": L2(scaled=False)}
"""Gradients of a training are not so small that their squares vanish."""


def pgd(
    network: nn.Module, images: Tensor, labels: Tensor, *, norm: str, epsilon: float, steps: int, step_size: float
) -> Tensor:
    """Untargeted PGD on the cross-entropy, from a uniformly random start in the ball (Madry et al., arXiv:1706.06083, eq. 2.1).

    Evaluations use the attacks of :mod:`gencls.eval`. This loop exists because training spends nearly all its time
    here, and it computes no gradients of the weights.

    Args:
        network: (N, C, H, W) in [0, 1] to logits (N, K); in eval mode, or batch norm mixes the images.
        images: (N, C, H, W) in [0, 1].
        labels: int64 (N,).
        norm: of the ball.
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
    """Steepest ascent within a ball around images and within [0, 1].

    Args:
        objective: (N, C, H, W) to the sum of what each image gains.
        images: (N, C, H, W) in [0, 1], the centres.
        start: (N, C, H, W).
        norm: of the ball; the others as of :func:`pgd`.
        epsilon: there.
        steps: there.
        step_size: there.

    Returns:
        The last iterate (N, C, H, W), detached; without steps the start.
    """
    adversarial, ball = start, _BALLS[norm]
    with torch.enable_grad():
        for _ in range(steps):
            adversarial = adversarial.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(objective(adversarial), adversarial)
            moved = adversarial.detach() + ball.step(gradient, step_size, adversarial.detach())
            # The box contains the images, so clamping last brings a point nearer to them and never out of the ball.
            adversarial = ball.within(images, moved - images, epsilon)
    return adversarial.detach()
