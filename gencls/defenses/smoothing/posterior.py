"""Variational smoothing in full: it optimises mean and variance of each class's noise (thesis, eq. 4.6 to 4.8).

Algorithm 5 fixes the covariance and drops the KL term, see :mod:`gencls.defenses.smoothing.variational`. This file keeps both:

    score_y = max_q E_{eps ~ q} L_y(f(x + eps)) - KL[q || N(0, sigma^2 I)],    q = N(mu, diag(s^2)),

The score bounds log p(y | x) from below. Randomized smoothing estimates this p(y | x) (eq. 4.3).
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from gencls.core import BayesClassifier, GenclsError, Latents, checked, minimize
from gencls.core.inference import Optimizer
from gencls.defenses.smoothing.noisy_likelihood import NoisyLikelihood, UnrolledByClass, per_class
from gencls.defenses.smoothing.sigma import check_sigma
from gencls.defenses.synthesis.posterior import Posterior, Q, moved, together, variables
from gencls.defenses.synthesis.regularizers import GaussianKL

__all__ = ["VariationalPosteriorSmoothing"]


class VariationalPosteriorSmoothing(BayesClassifier[Q]):
    """The class with the greatest evidence lower bound, found by the reparameterisation trick.

    q is kept in units of the prior: eps = sigma (m + e^t n), n ~ N(0, I). The KL term is then KL[N(m, e^{2t}) || N(0, I)], with
    curvature 1 in m: a gradient step of length 1 goes to where it balances a linear L_y. The descent starts at the prior, where
    the bound belongs to randomized smoothing. Each step draws once, and all classes of an image share the noise. Eq. 4.7 prints
    arg min, which has no finite solution. Noisy images are not clipped. Gradient modes are "frozen" and "unrolled".
    """

    stochastic = True
    _shown = ("sigma", "steps", "lr", "optimizer")

    @checked
    def __init__(
        self,
        classifier: nn.Module,
        num_classes: int,
        *,
        sigma: float = 0.05,
        draws: int = 5,
        steps: int = 10,
        lr: float = 0.2,
        optimizer: Optimizer = "gradient",
        max_rows: int = 256,
    ) -> None:
        """Take the classifier. The thesis gives only sigma and the draws.

        Args:
            classifier: f, images (M, C, H, W) -> scores (M, K), normalising inside, in eval mode. Its input leaves [0, 1].
            num_classes: K >= 2.
            sigma: standard deviation of the prior, in (0, 4] in [0, 1] pixel units.
            draws: S >= 1, draws of the noise for the score.
            steps: steps of the search, >= 0; 0 keeps the prior, which is randomized smoothing with mean log probabilities.
            lr: step size in units of the prior, > 0.
            optimizer: "gradient" or "adam".
            max_rows: noisy images per pass of the classifier, but at least one draw of an image for every class.

        Raises:
            GenclsError: for numbers out of range or an unknown optimizer.
        """
        super().__init__()
        check_sigma(sigma, name="VariationalPosteriorSmoothing")
        if steps < 0 or lr <= 0:
            raise GenclsError(f"VariationalPosteriorSmoothing: expected steps >= 0 and lr > 0, got {steps} and {lr}")
        self.likelihood = NoisyLikelihood(classifier, num_classes, draws=draws, hard=False, max_rows=max_rows)
        self.kl = GaussianKL()
        self.num_classes = num_classes
        self.sigma, self.steps, self.lr = sigma, steps, lr
        self.optimizer: Optimizer = optimizer

    def infer(self, images: Tensor) -> Q:
        """Mean m and log standard deviation t in units of the prior, (N, K, C, H, W); unrolled if the images require grad.

        Raises:
            GenclsError: for a classifier without a gradient.
        """
        return self.likelihood.search(per_class(images), self._ascend, partial(together, lambda *parts: torch.cat(parts)))

    def log_joint(self, images: Tensor, q: Q) -> Tensor:
        """The evidence lower bound of each class, (N, K), from fresh noise."""
        (level,) = q
        expected: Tensor = self.likelihood(per_class(images) + self.sigma * level.mean, self.sigma * level.std)
        return expected - self.divergence(q)

    def divergence(self, q: Q) -> Tensor:
        """KL[q || N(0, sigma^2 I)], (N, K)."""
        return self.kl.expected(q, ())

    def surrogates(self) -> Mapping[str, nn.Module]:
        """``frozen`` and ``unrolled``."""
        rows = self.num_classes * max(1, self.steps)
        return {"frozen": self, "unrolled": UnrolledByClass(self, rows, self.likelihood.max_rows)}

    def _ascend(self, images: Tensor) -> Q:
        """The q of all classes, from images (N, 1 or K, C, H, W)."""
        zeros = images.new_zeros(len(images), self.num_classes, *images.shape[2:])
        prior = (Posterior(zeros, zeros),)

        def loss(found: Latents) -> Tensor:
            q = moved(prior, found)
            noise = q[0].sample()
            return self.divergence(q) - self.likelihood.log_probs(images + self.sigma * noise)

        unroll = images.requires_grad
        found = minimize(loss, variables(prior), steps=self.steps, lr=self.lr, optimizer=self.optimizer, unroll=unroll)
        return moved(prior, found)
