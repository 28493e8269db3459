"""Formulas that several trainings share."""

import torch
from torch import Tensor, nn


def squared_error(images: Tensor, reconstructions: Tensor) -> Tensor:
    """c(x, G(z)) = ||x - G(z)||_2^2, summed over channels and pixels: (..., C, H, W) to (...), broadcasting."""
    return (images - reconstructions).square().sum(dim=(-3, -2, -1))


def move_average(average: nn.Module, current: nn.Module, *, decay: float, buffers: bool = False) -> None:
    """A <- decay * a + (1 - decay) * w for all parameters of two networks of the same kind, the average a and the current w.

    With ``buffers`` also for those of their buffers that are no whole numbers, such as the statistics of batch norms.
    """
    with torch.no_grad():
        if buffers:
            for mean, buffer in zip(average.buffers(), current.buffers(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(buffer, 1 - decay)
        for mean, parameter in zip(average.parameters(), current.parameters(), strict=True):
            mean.lerp_(parameter, 1 - decay)


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """E[(||grad D(x^)||_2 - 1)^2], x^ = t x + (1 - t) x~ with t uniform on [0, 1] for each image.

    The critic D maps images (N, C, H, W) to (N,); x are real images, x~ as many fake ones.

    Source: Gulrajani et al. 2017, arXiv:1704.00028, eq. 3.
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    between = torch.lerp(fake.detach(), real, share).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    lengths = (gradient.flatten(1).square().sum(1) + 1e-12).sqrt()  # at 0 the square root has no gradient
    return (lengths - 1).square().mean()


def r1_penalty(discriminator: nn.Module, images: Tensor) -> Tensor:
    """The mean of ||grad D(x)||^2 over real images (N, C, H, W), differentiable in the weights; D gives logits (N,).

    Source: R1 (Mescheder et al. 2018, arXiv:1801.04406).
    """
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def path_lengths(images: Tensor, codes: Tensor) -> Tensor:
    """How far images (N, C, H, W) move when their codes (N, L, D) change, (N,).

    This is ||J^T y||, y normal with unit variance over all pixels. Source: Karras et al. 2020, arXiv:1912.04958, section 3.2;
    the mean over levels is from their public code.
    """
    direction = torch.randn_like(images) / (images.shape[2] * images.shape[3]) ** 0.5
    (gradient,) = torch.autograd.grad((images * direction).sum(), codes, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()
