"""The Shapiro-Wilk statistic of codes, as a penalty."""

from typing import ClassVar

import torch
from torch import Tensor

from gencls.zoo.networks.autoencoders.code_posterior import CodePosterior
from gencls.zoo.networks.autoencoders.regularizers.base import CodeRegularizer

_LAST = (-2.706056, 4.434685, -2.071190, -0.147981, 0.221157, 0.0)
_NEXT_TO_LAST = (-3.582633, 5.682633, -1.752461, -0.293762, 0.042981, 0.0)
"""Royston's polynomials in N^(-1/2), highest power first: what the two largest weights are more than their normal scores."""


class ShapiroWilk(CodeRegularizer):
    """1 - W, the mean over dimensions, where W is the Shapiro-Wilk statistic of each dimension's N codes.

        W = (sum_i a_i z_(i))^2 / sum_i (z_i - mean)^2,        z_(1) <= ... <= z_(N)

    W is a squared correlation between the sorted codes and the weights a, which are close to the expected order of N normal
    draws. It lies in (0, 1]; draws from any normal distribution come close to 1 (1 - W is 0.02 on average for N = 64).

    W does not change when codes are shifted or scaled. So the penalty fixes the shape of each dimension's distribution but
    neither its mean nor its spread: the codes of such a model have a unit of their own, and an epsilon around them means
    something else than around the codes of a model with :class:`KLDivergence` or :class:`MMD`. Compare such models at an
    epsilon relative to the spread of their codes as well. The decoder cannot be fed with draws from N(0, I) either, unless they
    are brought to the mean and spread of the codes. W does not see dependence between dimensions.

    All codes of a dimension may be equal, up to rounding. W is 0 / 0 then; here it counts as 0, so that the penalty of this
    dimension is 1, without a gradient. Near this point the gradient grows like 1 / spread, as W does not depend on the scale.
    Equal codes share their gradients in an order that sorting picks.

    What the paper leaves open: it takes W "with the method proposed in [33]", an extension of the test. The printed reference
    33 (Jin and Lai 2020, "On the adversarial robustness of hypothesis testing") is about attacks against tests, by its title.
    Palmer, Dey and Bi 2018 ("Reforming generative autoencoders via goodness-of-fit hypothesis testing", UAI) do penalise codes
    by W, and generalise it to several dimensions. Lu and Chen say neither which form they use nor how d dimensions become one
    number. Here each dimension has its W, and the penalty is the mean of 1 - W over dimensions. The weights a are those of
    Royston, their reference 34. The sample is the N codes of a batch, because eq. 3 is a term of the loss of a batch.

    Source: Lu and Chen, "On the adversarial robustness of generative autoencoders in the latent space", eq. 3; Royston 1992,
    "Approximating the Shapiro-Wilk W-test for non-normality"; Royston 1995, Algorithm AS R94, which scipy runs too.

    Raises:
        GenclsError: a call gets fewer than 3 codes, or more than the 5,000 for which the weights were fitted.
    """

    fewest: ClassVar[int] = 3
    most: ClassVar[int | None] = 5000

    def penalty(self, codes: Tensor, posterior: CodePosterior) -> Tensor:
        """Compute the mean of 1 - W over the dimensions of codes (N, d)."""
        return _misfit(codes).mean()

    def statistic(self, codes: Tensor) -> Tensor:
        """Compute W of each dimension: codes (N, d), 3 <= N <= 5000, to (d,), differentiable.

        Raises:
            GenclsError: for anything else than N codes of floating-point numbers.
        """
        self.check(codes)
        return 1.0 - _misfit(codes)


def _misfit(codes: Tensor) -> Tensor:
    """1 - W of each column: (N, d) to (d,).

    Let u be the sorted column, centred, of length 1. The weights have length 1 as well, so with h = ||u - a||^2 / 2 we get
    W = (1 - h)^2 and 1 - W = h (2 - h), which loses no digits where W is close to 1.
    """
    limits = torch.finfo(codes.dtype)
    ordered = codes.sort(dim=0).values
    fixed = ordered.detach()
    spread, largest = fixed[-1] - fixed[0], torch.maximum(fixed[0].abs(), fixed[-1].abs())
    constant = (spread <= (limits.eps * largest).clamp_min(limits.tiny)) & spread.isfinite()  # NaN stays NaN
    unit = torch.where(constant, 1.0, spread)  # squares of very small or large codes would leave the range of the type
    relative = torch.where(constant, 0.0, ordered - fixed[len(codes) // 2]) / unit
    centred = relative - relative.mean(0)
    length = torch.where(constant, 1.0, centred.square().sum(0)).sqrt()
    half = 0.5 * (centred / length - _weights(codes)).square().sum(0)
    return torch.where(constant, 1.0, half * (2.0 - half))


def _weights(codes: Tensor) -> Tensor:
    """The weights a of N sorted values, ascending and of length 1, (N, 1); all work stays on the device of the codes."""
    count = len(codes)
    places = torch.arange(1, count + 1, device=codes.device, dtype=torch.float64)
    scores = torch.special.ndtri((places - 0.375) / (count + 0.25))
    normal: Tensor = scores / scores.norm()
    if count > 3:  # three scores differ from -1, 0, 1 in scale only
        largest = [normal[-1] + _polynomial(_LAST, count)]
        if count > 5:
            largest.append(normal[-2] + _polynomial(_NEXT_TO_LAST, count))
        outer, ends = torch.stack(largest[::-1]), len(largest)
        inner = normal[ends:-ends]
        inner = inner * ((1.0 - 2.0 * outer.square().sum()) / inner.square().sum()).sqrt()  # so that the length of all is 1
        normal = torch.cat([-outer.flip(0), inner, outer])
    return normal.to(codes.dtype).unsqueeze(1)


def _polynomial(coefficients: tuple[float, ...], count: int) -> float:
    """The polynomial in N^(-1/2)."""
    value = 0.0
    for coefficient in coefficients:
        value = value / count**0.5 + coefficient
    return value
