"""Projected gradient descent as adversarial training needs it."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Norm", "ascend", "pgd"]

Norm = Literal["linf", "l2"]

# Below this length a gradient or a perturbation counts as zero and is not scaled up.
_TINY = 1e-12


def pgd(
    network: nn.Module, images: Tensor, labels: Tensor, *, norm: Norm, epsilon: float, steps: int, step_size: float
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
    start = (images + _random_in_ball(images, norm, epsilon)).clamp(0.0, 1.0)
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
    norm: Norm,
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
    adversarial = start
    with torch.enable_grad():
        for _ in range(steps):
            adversarial = adversarial.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(objective(adversarial), adversarial)
            moved = adversarial.detach() + step_size * _steepest(gradient, norm)
            # The box contains the images, so clamping last brings a point nearer to them and never out of the ball.
            adversarial = (images + _project(moved - images, norm, epsilon)).clamp(0.0, 1.0)
    return adversarial.detach()


def _lengths(values: Tensor) -> Tensor:
    """Euclidean length of each row, shaped (N, 1, ..., 1)."""
    lengths: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return lengths.clamp_min(_TINY).view(-1, *(1,) * (values.ndim - 1))


def _steepest(gradient: Tensor, norm: Norm) -> Tensor:
    return gradient.sign() if norm == "linf" else gradient / _lengths(gradient)


def _project(perturbation: Tensor, norm: Norm, epsilon: float) -> Tensor:
    if norm == "linf":
        return perturbation.clamp(-epsilon, epsilon)
    return perturbation * (epsilon / _lengths(perturbation)).clamp(max=1.0)


def _random_in_ball(like: Tensor, norm: Norm, epsilon: float) -> Tensor:
    if norm == "linf":
        return torch.empty_like(like).uniform_(-epsilon, epsilon)
    direction = torch.randn_like(like)
    # The share of a d-dimensional ball within radius r grows as r^d.
    radius = torch.rand_like(_lengths(like)) ** (1.0 / like[0].numel())
    return direction / _lengths(direction) * (epsilon * radius)
