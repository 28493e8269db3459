"""The inner optimisation: every classifier that infers by descent calls it."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from gencls.core.errors import GenclsError
from gencls.core.generator import Latents
from gencls.core.settings import checked

__all__ = ["Optimizer", "Rate", "minimize", "where"]

Optimizer = Literal["adam", "gradient"]

Rate = Callable[[int, int], float]
"""A schedule of the step size: (step, from 1; number of steps) -> the factor, >= 0, of the step size in this step."""

# Below this a squared gradient counts as zero: the derivative of sqrt at 0 is infinite, and an unrolled Adam would be NaN.
_TINY = 1e-30


@checked
def minimize(
    objective: Callable[[Latents], Tensor],
    start: Latents,
    *,
    steps: int,
    lr: float,
    optimizer: Optimizer = "adam",
    rate: Rate | None = None,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    direction: Callable[[Latents], Latents] | None = None,
    project: Callable[[Latents], Latents] | None = None,
    unroll: bool = False,
    keep: Callable[[int, Tensor], Tensor | None] | None = None,
) -> Latents:
    """Minimise an objective over latents, all problems of a batch at once (thesis, Algorithm 2, the inner loop).

    The problems do not mix: the gradient of the *sum* of their objectives with respect to one problem's latents is that
    problem's own gradient, and Adam works element by element. Call it with gradients enabled
    (:class:`~gencls.core.BayesClassifier` sees to it).

    Args:
        objective: a function latents -> values of any shape, one value per problem.
        start: the first latents, one tensor (..., *shape) per level; the function does not change them.
        steps: number of descent steps, >= 0. 0 returns the start.
        lr: step size, > 0.
        optimizer: "adam", or "gradient" for plain gradient descent (whose iterates have closed forms to test against).
        rate: schedule of the step size; None keeps ``lr`` in all steps.
        betas: Adam's decay rates.
        eps: Adam's denominator constant.
        direction: a function gradients -> directions that the optimiser takes in their place, for instance the signs; both have
            the shapes of the latents.
        project: a function applied to the latents after each step, for instance a projection onto a ball.
        unroll: whether to keep the graph, so that the result is differentiable in everything that the objective depends on.
            Otherwise the result is detached.
        keep: a function that chooses the problems that go on. Each step calls it with the step's number, from 1, and the
            objective's present values. It returns bool of their shape, whose dimensions are the first ones of the latents, or
            None for all. The other problems keep their latents.

    Returns:
        The last iterate, one tensor per level.

    Raises:
        GenclsError: for a negative number of steps, a step size that is not positive, an unknown optimiser, or a schedule with
            a factor that is negative or not finite.
    """
    if steps < 0 or lr <= 0:
        raise GenclsError(f"minimize: expected steps >= 0 and lr > 0, got steps={steps}, lr={lr}")
    sizes = [lr if rate is None else lr * _factor(rate, step, steps) for step in range(1, steps + 1)]
    latents = tuple(level if unroll else level.detach().clone() for level in start)
    mean = tuple(torch.zeros_like(level) for level in latents)
    square = tuple(torch.zeros_like(level) for level in latents)
    for step, size in enumerate(sizes, start=1):
        latents = tuple(level if unroll and level.requires_grad else level.detach().requires_grad_() for level in latents)
        before, values = latents, objective(latents)
        going = None if keep is None else keep(step, values.detach())
        gradients = torch.autograd.grad(values.sum(), latents, create_graph=unroll)
        with torch.set_grad_enabled(unroll):
            if direction is not None:
                gradients = direction(gradients)
            if optimizer == "gradient":
                latents = tuple(z - size * g for z, g in zip(latents, gradients, strict=True))
            else:
                mean = tuple(betas[0] * m + (1 - betas[0]) * g for m, g in zip(mean, gradients, strict=True))
                square = tuple(betas[1] * v + (1 - betas[1]) * g * g for v, g in zip(square, gradients, strict=True))
                scale, correction = size / (1 - betas[0] ** step), 1 - betas[1] ** step
                latents = tuple(
                    z - scale * m / ((v / correction).clamp_min(_TINY).sqrt() + eps)
                    for z, m, v in zip(latents, mean, square, strict=True)
                )
            if project is not None:
                latents = project(latents)
            if going is not None:
                latents = tuple(where(going, new, old) for new, old in zip(latents, before, strict=True))
    return latents if unroll else tuple(level.detach() for level in latents)


def where(chosen: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Choose problem by problem: ``chosen`` (...) bool takes ``new``, the others ``old``; latents are (..., *shape)."""
    return torch.where(chosen.view(*chosen.shape, *(1,) * (new.ndim - chosen.ndim)), new, old)


def _factor(rate: Rate, step: int, steps: int) -> float:
    factor = rate(step, steps)
    if not 0 <= factor < math.inf:
        raise GenclsError(f"minimize: expected a rate with finite factors >= 0, got {factor} in step {step} of {steps}")
    return factor
