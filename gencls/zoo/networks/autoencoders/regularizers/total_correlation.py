"""The total correlation of beta-TCVAE."""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from gencls.core.errors import GenclsError
from gencls.core.settings import checked
from gencls.zoo.networks.autoencoders.code_posterior import CodePosterior
from gencls.zoo.networks.autoencoders.regularizers.base import CodeRegularizer
from gencls.zoo.networks.parts.gaussians import log_density


class TotalCorrelation(CodeRegularizer):
    """The KL term of a variational autoencoder, cut into three parts, of which the total correlation counts beta times.

        I(z; n) + beta KL[q(z) || prod_k q(z_k)] + sum_k KL[q(z_k) || N(0, 1)]

    q(z) = 1/M sum_n q(z | x_n) is the posterior of the whole data set of M images. The parts are the mutual information of
    codes and images, the total correlation of the dimensions, and the divergence of each dimension. With beta = 1 their sum is
    the mean over images of log q(z | x) - log p(z), whatever estimates q(z). Its expectation is :class:`KLDivergence`.

    A batch of N images estimates q(z) at its codes:

    - weighted: 1/(N M) sum_j q(z_i | x_j), the method's own. It takes each image of the batch for one that has nothing to do
      with z_i, though one of them made it. The weights add up to 1/M and not to 1. So if the posteriors were all the same, the
      parts would come out log M and (d - 1) log M too large and d log M too small. These are constants, without a gradient.
    - stratified: 1/M q(z_i | x_i) + (M - 1)/(M (N - 1)) sum_(j != i) q(z_i | x_j), unbiased for q(z), and exact if the batch is
      the whole data set. The method's appendix gives one other image of the batch a weight of its own. Here all others take
      that part in turn, and the mean over turns does not depend on the order of the batch.

    Time and memory grow with N^2 d.

    Source: beta-TCVAE (Chen et al. 2018, arXiv:1802.04942), eq. 2 for the parts, appendix C for the estimates. The paper on
    latent robustness (Lu and Chen, section 4.2) does not name the estimate.

    Args:
        beta: the weight of the total correlation, >= 0; 1 gives the evidence lower bound.
        dataset_size: M, the number of images that the encoder is trained on, >= 2.
        sampling: "weighted" or "stratified".

    Raises:
        GenclsError: beta or dataset_size is out of its range. A call raises it as well for a posterior without variance, for
            fewer than two codes and for more than the data set holds.
    """

    needs_variance: ClassVar[bool] = True
    fewest: ClassVar[int] = 2

    @checked
    def __init__(self, beta: float, dataset_size: int, *, sampling: Literal["weighted", "stratified"] = "weighted") -> None:
        super().__init__()
        if beta < 0 or dataset_size < 2:
            raise GenclsError(f"TotalCorrelation: expected beta >= 0 and dataset_size >= 2, got {beta} and {dataset_size}")
        self.beta = beta
        self.dataset_size = dataset_size
        self.sampling = sampling

    def extra_repr(self) -> str:
        """The settings, for the printed form."""
        return f"beta={self.beta}, dataset_size={self.dataset_size}, sampling={self.sampling!r}"

    def check(self, codes: Tensor) -> None:
        """Refuse a batch that is larger than the data set, besides what every penalty refuses.

        Raises:
            GenclsError: an expectation does not hold.
        """
        super().check(codes)
        if len(codes) > self.dataset_size:
            raise GenclsError(
                f"TotalCorrelation: expected at most the {self.dataset_size} codes of the data set at once (dataset_size), got "
                f"{len(codes)}"
            )

    def penalty(self, codes: Tensor, posterior: CodePosterior) -> Tensor:
        """Compute the weighted sum of the three parts."""
        information, correlation, dimensions = self._parts(codes, posterior)
        return information + self.beta * correlation + dimensions

    def decompose(self, codes: Tensor, posterior: CodePosterior) -> tuple[Tensor, Tensor, Tensor]:
        """Estimate the three parts, each () in nats, without beta.

        Args:
            codes: draws from the posterior of each image, (N, d).
            posterior: the posterior of the same images.

        Returns:
            Mutual information, total correlation and the divergence of the dimensions. They add up to the mean over images of
            log q(z | x) - log p(z).

        Raises:
            GenclsError: for what a call of this module refuses.
        """
        self.check_both(codes, posterior)
        return self._parts(codes, posterior)

    def _parts(self, codes: Tensor, posterior: CodePosterior) -> tuple[Tensor, Tensor, Tensor]:
        pairs = log_density(codes.unsqueeze(1), posterior.mean, self.log_variance_of(posterior))  # z_i under x_j, (N, N, d)
        joint = pairs.sum(2)
        weights = self._log_weights(codes)
        whole = (joint + weights).logsumexp(1)
        each = (pairs + weights.unsqueeze(2)).logsumexp(1).sum(1)
        own = joint.diagonal()
        prior = log_density(codes, codes.new_zeros(()), codes.new_zeros(())).sum(1)
        return (own - whole).mean(), (whole - each).mean(), (each - prior).mean()

    def _log_weights(self, codes: Tensor) -> Tensor:
        """Logarithms of what q(z_i | x_j) counts in q(z_i): (N, N)."""
        count, size = len(codes), self.dataset_size
        weighted = self.sampling == "weighted"
        other = 1 / (count * size) if weighted else (size - 1) / (size * (count - 1))
        weights = torch.full((count, count), math.log(other), device=codes.device, dtype=codes.dtype)
        return weights if weighted else weights.fill_diagonal_(-math.log(size))
