"""What is done to the images of a training batch."""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core.balls import L2, ball_of
from gencls.core.errors import GenclsError
from gencls.core.modules.modes import in_mode
from gencls.core.settings import check_settings
from gencls.zoo.training.views.attack import ascend, pgd

__all__ = [
    "SMOOTHING_NOISE",
    "Adversarial",
    "Composed",
    "FastGradient",
    "GaussianNoise",
    "KLAdversarial",
    "Perturbation",
    "Plain",
    "RandomViews",
    "prediction_divergence",
]


class Perturbation(Protocol):
    """Images of a training batch to the images that the network is trained on."""

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        """Perturb.

        Args:
            network: the network that is being trained.
            images: (N, C, H, W) in [0, 1].
            labels: int64 (N,).
            epoch: how many epochs have passed, with a fraction.

        Returns:
            Images (N, C, H, W).
        """


@dataclass(frozen=True)
class Plain:
    """The images as they are."""

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        """See :class:`Perturbation`."""
        return images


@dataclass(frozen=True)
class GaussianNoise:
    """Additive Gaussian noise (thesis, section 2.3: "a standard deviation 0.2 for MNIST").

    Attributes:
        sigma: standard deviation, in [0, 1] pixel units.
        clip: whether to clip to [0, 1] as the noise defense does. Clipped noise lightens a black background by 0.4 sigma on
            average, and an autoencoder would learn to reconstruct that.
    """

    sigma: float
    clip: bool = True

    def __post_init__(self) -> None:
        """Check the types."""
        check_settings(self)

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        """See :class:`Perturbation`."""
        noisy = images + self.sigma * torch.randn_like(images)
        return noisy.clamp(0.0, 1.0) if self.clip else noisy


SMOOTHING_NOISE = GaussianNoise(sigma=0.05, clip=False)
"""What classifiers behind smoothing are trained with (thesis, section 4.3), not clipped since smoothing does not clip."""


@dataclass(frozen=True)
class Composed:
    """One perturbation after another.

    Attributes:
        parts: the first is applied to the images, each other one to what the one before it gives.
    """

    parts: tuple[Perturbation, ...]

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        """See :class:`Perturbation`."""
        for part in self.parts:
            images = part(network, images, labels, epoch=epoch)
        return images


@dataclass(frozen=True)
class RandomViews:
    """Each image a little displaced, turned, scaled and lit in another way, then Gaussian noise; not in the thesis.

    For small sets of photos of few objects: the 5,605 training photos of GTSRB-10 show 653 signs.

    Attributes:
        sigma: standard deviation of the noise, in [0, 1] pixel units; not clipped.
        shift: at most so many pixels along each axis.
        degrees: largest rotation.
        scale: largest relative change of size, and half of it of the ratio of the sides.
        light: largest change of the logarithms of contrast and mean.
    """

    sigma: float
    shift: float = 1.0
    degrees: float = 3.0
    scale: float = 0.05
    light: float = 0.2

    def __post_init__(self) -> None:
        """Check the types."""
        check_settings(self)

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        """See :class:`Perturbation`."""
        angle, size, ratio, contrast, mean, right, down = (2 * torch.rand(7, len(images), device=images.device) - 1).unbind()
        angle, width = math.radians(self.degrees) * angle, 1 + self.scale * size
        height = width * (1 + 0.5 * self.scale * ratio)
        shifts = (2 * self.shift / images.shape[3] * right, 2 * self.shift / images.shape[2] * down)
        rows = [(width * angle.cos(), -height * angle.sin(), shifts[0]), (width * angle.sin(), height * angle.cos(), shifts[1])]
        where = F.affine_grid(torch.stack([torch.stack(row, 1) for row in rows], 1), list(images.shape), align_corners=False)
        views = F.grid_sample(images, where, padding_mode="border", align_corners=False)
        level = views.mean(dim=(1, 2, 3), keepdim=True)
        lit = (views - level) * _factor(self.light * contrast) + level * _factor(self.light * mean)
        return lit.clamp(0.0, 1.0) + self.sigma * torch.randn_like(lit)


def _factor(logarithms: Tensor) -> Tensor:
    """(N,) -> (N, 1, 1, 1)."""
    return logarithms.exp().view(-1, 1, 1, 1)


@dataclass(frozen=True)
class Adversarial:
    """Adversarial examples of the network itself (Madry et al., arXiv:1706.06083).

    The thesis does not give the settings of the attack. Attacks are made in eval mode, so that the statistics of batch norm
    come only from the images that the network is then trained on.

    Attributes:
        norm: of the threat model.
        epsilon: radius, in [0, 1] pixel units.
        steps: PGD steps.
        step_size: in [0, 1] pixel units at the full radius.
        warmup_epochs: over these the radius and the step grow linearly from 0. From the start a small network does
            not learn at radius 0.3: it falls into the constant solution.
    """

    norm: str
    epsilon: float
    steps: int
    step_size: float
    warmup_epochs: float

    def __post_init__(self) -> None:
        """Check the values."""
        check_settings(self)
        ball_of(self.norm, owner="Adversarial")

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        """See :class:`Perturbation`."""
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

    by projected steepest ascent from x + N(0, start_std^2). Labels have no part in it. Attacks are made in eval mode.

    Source: TRADES (Zhang et al. 2019, arXiv:1901.08573), Algorithm 1; the start is its public code's, and so is a step of
    2 epsilon / steps for L2 balls.

    Attributes:
        norm: of the threat model.
        epsilon: radius, in [0, 1] pixel units.
        steps: of the ascent.
        step_size: length of a step in the norm of the ball, in [0, 1] pixel units.
        start_std: in [0, 1] pixel units, > 0: at the image itself the gradient of the divergence is zero.
    """

    norm: str
    epsilon: float
    steps: int
    step_size: float
    start_std: float = 0.001

    def __post_init__(self) -> None:
        """Check the values."""
        check_settings(self)
        ball_of(self.norm, owner="KLAdversarial")
        if min(self.epsilon, self.step_size) <= 0 or self.steps < 1 or self.start_std <= 0:
            raise GenclsError(
                f"KLAdversarial: expected epsilon, step_size and start_std > 0 and steps >= 1, got {self.epsilon}, "
                f"{self.step_size}, {self.start_std} and {self.steps}"
            )

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        """See :class:`Perturbation`."""
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

    Attributes:
        norm: "linf" moves each pixel by epsilon; "l2" scales the signs to the L2 length epsilon (the MLVGM paper's code).
        epsilons: sizes in [0, 1] pixel units, of which one is drawn for each image. ND-VAE's code has 0.25, 0.3, 0.35 and 0.4
            (Linf) for MNIST and FashionMNIST, the MLVGM paper's code 4, 2 and 4 (L2) for its tasks.
    """

    norm: Literal["linf", "l2"]
    epsilons: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the values."""
        check_settings(self)
        if not self.epsilons or min(self.epsilons) <= 0:
            raise GenclsError(f"FastGradient: expected at least one epsilon, all > 0, got {self.epsilons}")

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        """See :class:`Perturbation`; the network is taken in the mode that it is in."""
        with torch.enable_grad():
            point = images.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(network(point), labels, reduction="sum"), point)
        sign = gradient.sign()
        if self.norm == "l2":
            sign = L2().direction(sign)
        sizes = torch.tensor(self.epsilons, device=images.device, dtype=images.dtype)
        drawn = sizes[torch.randint(len(sizes), (len(images),), device=images.device)]
        return (images + drawn.view(-1, 1, 1, 1) * sign).clamp(0.0, 1.0)


def prediction_divergence(predicted: Tensor, others: Tensor) -> Tensor:
    """KL[softmax(predicted) || softmax(others)] of logits (N, K): (N,)."""
    return F.kl_div(others.log_softmax(1), predicted.log_softmax(1), reduction="none", log_target=True).sum(1)
