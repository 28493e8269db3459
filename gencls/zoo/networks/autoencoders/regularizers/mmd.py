"""The maximum mean discrepancy between a batch of codes and draws from the prior."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from gencls.core.errors import GenclsError
from gencls.core.settings import checked
from gencls.zoo.networks.autoencoders.code_posterior import CodePosterior
from gencls.zoo.networks.autoencoders.regularizers.base import CodeRegularizer


class MMD(CodeRegularizer):
    """The squared maximum mean discrepancy of the codes z and as many fresh draws z_s from N(0, I).

        E k(z, z') + E k(z_s, z_s') - 2 E k(z, z_s)

    The kernel is a sum over several widths c, with D = ||a - b||^2:

        gaussian                sum_c exp(-D / c)
        inverse-multiquadratic  sum_c c / (c + D), whose tails also draw codes that lie far from the prior

    Two draws of d numbers from the prior are on average at D = 2 d, so the widths are c = 2 d s with the ``scales`` s. The
    biased estimate lies in [0, 2 S] for S scales, and shrinks like 1 / N for codes that are draws from the prior.

    Source: Lu and Chen, "On the adversarial robustness of generative autoencoders in the latent space", eq. 2; Gretton et al.
    2012, "A kernel two-sample test", eq. 3 (unbiased) and 5 (biased). The paper names neither kernel nor estimator. Wasserstein
    autoencoders (Tolstikhin et al. 2018, arXiv:1711.01558) consider both kernels; the default scales are those of their code.

    Args:
        kernel: "gaussian" or "inverse-multiquadratic".
        scales: the factors s, each > 0.
        estimator: "biased" takes the mean over all pairs (the V-statistic), which is never negative. "unbiased" leaves out the
            pairs of a row with itself (the U-statistic). Its expectation is 0 for draws from the prior, so single values are
            negative.

    Raises:
        GenclsError: no scale, or one that is not positive. A call with one code alone raises it as well, because there is no
            pair.
    """

    fewest: ClassVar[int] = 2

    @checked
    def __init__(
        self,
        *,
        kernel: Literal["gaussian", "inverse-multiquadratic"] = "gaussian",
        scales: Sequence[float] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
        estimator: Literal["biased", "unbiased"] = "biased",
    ) -> None:
        super().__init__()
        if not scales or min(scales) <= 0:
            raise GenclsError(f"MMD: expected at least one scale, each > 0, got {tuple(scales)}")
        self.kernel = kernel
        self.scales = tuple(scales)
        self.estimator = estimator

    def extra_repr(self) -> str:
        """The settings, for the printed form."""
        return f"kernel={self.kernel!r}, scales={self.scales}, estimator={self.estimator!r}"

    def penalty(self, codes: Tensor, posterior: CodePosterior) -> Tensor:
        """Compare the codes (N, d) with N fresh draws from the prior."""
        return self.discrepancy(codes, torch.randn_like(codes))

    def discrepancy(self, codes: Tensor, others: Tensor) -> Tensor:
        """Compare two sets of codes, (N, d) and (M, d), N and M >= 2; the result, (), is differentiable in both."""
        return self._within(codes) + self._within(others) - 2 * self._similarities(codes, others).mean()

    def _within(self, codes: Tensor) -> Tensor:
        """The mean similarity of the pairs of one set."""
        found = self._similarities(codes, codes)
        if self.estimator == "biased":
            return found.mean()
        return (found.sum() - found.diagonal().sum()) / (len(codes) * (len(codes) - 1))

    def _similarities(self, first: Tensor, second: Tensor) -> Tensor:
        """Similarities k of all pairs: (N, d) and (M, d) to (N, M)."""
        lengths = first.square().sum(1, keepdim=True) + second.square().sum(1)
        distances = (lengths - 2 * first @ second.T).clamp_min(0.0)  # rounding makes some negative
        widths = [2.0 * first.shape[1] * scale for scale in self.scales]
        if self.kernel == "gaussian":
            return torch.stack([(distances / -width).exp() for width in widths]).sum(0)
        return torch.stack([width / (width + distances) for width in widths]).sum(0)
