"""The discretised mixture of logistics: the distribution of a pixel that the decoder of an NVAE gives."""

import math
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional

from gencls.core.errors import GenclsError

_HALF_BIN = 1 / 255  # half the width of the bin of an 8-bit value on [-1, 1]
_LOWEST_LOG_SCALE = -7.0
_SMALLEST_UNIFORM = 1e-5  # the logistic noise log u - log(1 - u) stays finite


def mixture_channels(mixtures: int, colours: int) -> int:
    """How many numbers describe one pixel: per mixture a logit, a mean and a scale per colour, and RGB's 3 coefficients."""
    return mixtures * (1 + 2 * colours + (3 if colours == 3 else 0))


class LogisticMixture:
    """p(x) = sum_m pi_m prod_c [F((x_c + 1/255 - mu_mc) / s_mc) - F((x_c - 1/255 - mu_mc) / s_mc)], F the logistic function.

    x is the pixel on [-1, 1]; the lowest bin reaches down to minus infinity, the highest up to infinity. In RGB images the
    mean of green depends on red, that of blue on both: mu_g + k_0 x_r and mu_b + k_1 x_r + k_2 x_g.

    Source: PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517), section 2.1, as in NVAE (arXiv:2007.03898).

    Args:
        logits: log pi up to a constant, (N, M, H, W).
        means: mu, (N, M, C, H, W).
        log_scales: log s, (N, M, C, H, W); values below -7 are raised to -7.
        coefficients: k on [-1, 1], (N, M, 3, H, W), for C = 3; None without coefficients.
        upper_edge: pixels above it belong to the highest bin. 0.999 makes this a distribution of the 256 values. The public
            codes of NVAE have 0.99. There 254 counts as 255 does (their values sum to 1 + p(255)).
    """

    def __init__(
        self,
        logits: Tensor,
        means: Tensor,
        log_scales: Tensor,
        coefficients: Tensor | None = None,
        *,
        upper_edge: float = 0.999,
    ) -> None:
        self.logits = logits
        self.means = means
        self.log_scales = log_scales.clamp(min=_LOWEST_LOG_SCALE)
        self.coefficients = coefficients
        self.upper_edge = upper_edge

    @classmethod
    def from_channels(
        cls, channels: Tensor, *, colours: int, order: Literal["mixture", "colour"] = "mixture", upper_edge: float = 0.999
    ) -> Self:
        """Split a network's output.

        Args:
            channels: (N, M * (1 + 2 C + 3), H, W) for C = 3, else without the 3: first the M logits, then all else.
            colours: C, channels of the images.
            order: "mixture" has the means, scales and coefficients of the first mixture, then those of the next
                (NVAE-from-scratch); "colour" has the means of all mixtures, their scales and coefficients for red, then for
                green and blue (NVlabs).
            upper_edge: the class describes it.

        Raises:
            GenclsError: if the number of channels does not fit.
        """
        per_mixture = mixture_channels(1, colours)
        mixtures, rest = divmod(channels.shape[1], per_mixture)
        if rest or not mixtures:
            raise GenclsError(
                f"logistic mixture: expected a multiple of {per_mixture} channels for images of {colours} channels, "
                f"got {channels.shape[1]}"
            )
        logits, others = channels[:, :mixtures], channels[:, mixtures:]
        if order == "mixture":
            parts = others.unflatten(1, (mixtures, -1, colours)).unbind(2)
        else:
            parts = others.unflatten(1, (colours, -1, mixtures)).permute(0, 3, 1, 2, 4, 5).unbind(3)
        coefficients = parts[2].tanh() if colours == 3 else None
        return cls(logits, parts[0], parts[1], coefficients, upper_edge=upper_edge)

    def log_prob(self, images: Tensor) -> Tensor:
        """Log probability of each pixel of images (N, C, H, W) in [0, 1]: (N, H, W)."""
        pixels = (2 * images - 1).unsqueeze(1)
        centred = pixels - self._conditional_means(pixels)
        sharpness = (-self.log_scales).exp()
        middle, above, below = (sharpness * (centred + shift) for shift in (0.0, _HALF_BIN, -_HALF_BIN))
        mass = above.sigmoid() - below.sigmoid()
        # Where the two values of F agree in float32, the density times the width of the bin stands in.
        density = middle - self.log_scales - 2 * functional.softplus(middle)
        inner = torch.where(mass > 1e-5, mass.clamp(min=1e-10).log(), density + math.log(2 * _HALF_BIN))
        highest = torch.where(pixels > self.upper_edge, -functional.softplus(below), inner)
        each = torch.where(pixels < -0.999, above - functional.softplus(above), highest)
        return (each.sum(2) + self.logits.log_softmax(1)).logsumexp(1)

    def mean(self) -> Tensor:
        """Images (N, C, H, W) in [0, 1]: the mean of the undiscretised mixture, each colour given the means before it."""
        weights = self.logits.softmax(1).unsqueeze(2)
        coefficients = None if self.coefficients is None else (weights * self.coefficients).sum(1)
        return _image((weights * self.means).sum(1), coefficients)

    def sample(self) -> Tensor:
        """Images (N, C, H, W) in [0, 1]: one draw, not rounded to 8 bits; no gradients flow through the choice of mixtures."""
        gumbel = self.logits - (-_uniform(self.logits).log()).log()
        chosen = functional.one_hot(gumbel.argmax(1), self.logits.shape[1]).movedim(-1, 1).unsqueeze(2).to(self.means.dtype)
        means, log_scales = ((chosen * part).sum(1) for part in (self.means, self.log_scales))
        coefficients = None if self.coefficients is None else (chosen * self.coefficients).sum(1)
        return _image(means + log_scales.exp() * _uniform(means).logit(), coefficients)

    def _conditional_means(self, pixels: Tensor) -> Tensor:
        """Means (N, M, C, H, W) given the pixels (N, 1, C, H, W)."""
        if self.coefficients is None:
            return self.means
        red, green = pixels[:, :, 0], pixels[:, :, 1]
        first, second, third = self.coefficients.unbind(2)
        return self.means + torch.stack([torch.zeros_like(first), first * red, second * red + third * green], dim=2)


def _image(values: Tensor, coefficients: Tensor | None) -> Tensor:
    """Clamp colour after colour, so that green and blue see what red became: (N, C, H, W) on [-1, 1] to [0, 1]."""
    if coefficients is None:
        return (values.clamp(-1, 1) + 1) / 2
    first, second, third = coefficients.unbind(1)
    red = values[:, 0].clamp(-1, 1)
    green = (values[:, 1] + first * red).clamp(-1, 1)
    blue = (values[:, 2] + second * red + third * green).clamp(-1, 1)
    return (torch.stack([red, green, blue], dim=1) + 1) / 2


def _uniform(like: Tensor) -> Tensor:
    return torch.rand_like(like).mul(1 - 2 * _SMALLEST_UNIFORM).add(_SMALLEST_UNIFORM)
