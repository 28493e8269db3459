"""Loss smoothing: gradients of a loss averaged over Gaussian noise, for networks whose plain gradient leads nowhere."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from gencls.core import GenclsError, draws, repeat_rows, repeated
from gencls.eval.attacks.parts.attack_model import AttackModel, Loss
from gencls.eval.attacks.parts.base import Response

SIGMAS = (0.1, 0.15, 0.2)
"""Standard deviations that find most under L2, on networks for 28 x 28 images that were trained in Linf."""


def check_smoothing(name: str, sigmas: Sequence[float], count: int) -> None:
    """Check the settings of an attack.

    Raises:
        GenclsError: for no standard deviation, a negative one, or no noisy image.
    """
    if not sigmas or min(sigmas) < 0 or count < 1:
        raise GenclsError(
            f"{name}: expected standard deviations >= 0 in smoothing, at least one, and smoothing_draws >= 1, "
            f"got {sigmas} and {count}"
        )


def descents(steps: int, sigmas: Sequence[float], count: int) -> tuple[int, int]:
    """Forward and forward-plus-backward passes per image of a descent for each standard deviation."""
    noisy = sum(sigma > 0 for sigma in sigmas)
    return noisy * steps, (len(sigmas) - noisy + noisy * count) * steps


def smoothed_look(
    model: AttackModel, images: Tensor, labels: Tensor, loss: Loss, *, sigma: float, count: int, targeted: bool = False
) -> Response:
    """The model's response to the images themselves, with the gradient of the smoothed loss; sigma 0 is the plain loss."""
    if sigma == 0:
        return model.look(images, labels, loss, targeted=targeted)
    response = model.look(images, labels, targeted=targeted)
    return replace(response, gradient=smoothed_gradient(model, images, labels, loss, sigma=sigma, count=count))


def smoothed_gradient(
    model: AttackModel, images: Tensor, labels: Tensor, loss: Loss, *, sigma: float, count: int = 16
) -> Tensor:
    """The gradient (N, C, H, W) of the loss's mean over noisy images, clipped to [0, 1] as defenses expect.

        g = grad_x 1/S sum_s l(clip(x + sigma n_s)),   n_s ~ N(0, 1)

    Adversarial training in one norm may leave a network whose gradients are useless in another. The loss has a slope at the
    scale of a perturbation, but none, or a wrong one, at the scale of a pixel's last bit (Tramèr and Boneh 2019,
    arXiv:1904.13000, on networks for MNIST trained in Linf and attacked in L2). A mean over noise sees the slope at the scale
    of the noise. It is expectation over transformation (Athalye et al. 2018, arXiv:1707.07397) with the attacker's own noise. A
    random defense makes a draw of its own for each noisy image, so its randomness is averaged at no further cost: S is the
    larger of ``count`` and its EoT draws.

    Args:
        model: model under attack. It differentiates ``model.max_rows`` noisy images at once, at least one per image. If one
            draw serves a whole pass, it differentiates one per image.
        images: (N, C, H, W) in [0, 1].
        labels: true classes, int64 (N,).
        loss: function of the scores of one noisy image, (N, 1, K), and labels.
        sigma: standard deviation of the noise, in [0, 1] pixel units.
        count: noisy images per image, >= 1.

    Raises:
        GenclsError: for scores without a gradient, or gradients that are not finite.
    """
    total, samples, plain = torch.zeros_like(images), max(count, model.eot.samples), model.eot.samples
    at_once = samples if model.max_rows is None else max(1, min(samples, model.max_rows // max(1, len(images))))
    if model.shared_draws:
        at_once = 1
    with repeated() if model.common_draws else nullcontext():
        for first in range(0, samples, at_once):
            # Numbers behind the draws of plain looks, so that streams and warm inference of these do not change.
            numbers = range(plain + first, plain + min(first + at_once, samples))
            with torch.enable_grad(), draws(numbers):
                clean = images.detach().requires_grad_()
                noisy = repeat_rows(clean, len(numbers))
                noisy = (noisy + sigma * torch.randn_like(noisy)).clamp(0, 1)
                scores = model.meter(noisy).double().unflatten(0, (len(images), len(numbers)))
                losses = [loss(one, labels) for one in scores.split(1, dim=1)]
                total += model.differentiate(torch.stack(losses).sum(), clean)
    return model.counted(total / samples)
