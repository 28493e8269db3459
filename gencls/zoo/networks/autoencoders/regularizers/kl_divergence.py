"""The Kullback-Leibler divergence of the ordinary variational autoencoder."""

from typing import ClassVar

from torch import Tensor

from gencls.zoo.networks.autoencoders.code_posterior import CodePosterior
from gencls.zoo.networks.autoencoders.regularizers.base import CodeRegularizer
from gencls.zoo.networks.parts.gaussians import divergence


class KLDivergence(CodeRegularizer):
    """KL[q(z | x) || N(0, I)] in nats: the sum over dimensions, the mean over images.

        1/2 sum_k (mu_k^2 + sigma_k^2 - log sigma_k^2 - 1)

    It looks at the posterior of each image by itself and not at the draws. The negative evidence lower bound is the sum of this
    and the expected -log p(x | z).

    Source: Lu and Chen, "On the adversarial robustness of generative autoencoders in the latent space", eq. 1; Kingma and
    Welling 2013, arXiv:1312.6114, appendix B.
    """

    needs_variance: ClassVar[bool] = True

    def penalty(self, codes: Tensor, posterior: CodePosterior) -> Tensor:
        """Compute the mean of the closed form over the images; the codes are not read."""
        return divergence(posterior.mean, self.log_variance_of(posterior)).mean()
