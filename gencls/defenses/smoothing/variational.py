"""Variational smoothing: each class may choose the noise that speaks for it (thesis, chapter 4).

Randomized smoothing averages a classifier over Gaussian noise around the image. Here every class y looks for a distribution
of noise q_y under which the classifier f sees y. Its score is

    E_{eps ~ q_y} L_y(f(x + eps)),    L_y = log-softmax, eq. 4.2,

Less KL[q_y || p] this is a lower bound of log p(y | x) (eq. 4.6), with the prior p = N(0, sigma^2 I).
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from gencls.core import BayesClassifier, GenclsError, checked, minimize
from gencls.defenses.smoothing.noisy_likelihood import NoisyLikelihood, UnrolledByClass, per_class
from gencls.defenses.smoothing.sigma import check_sigma

__all__ = ["VariationalSmoothing"]

Norm = Literal["linf", "l2"]
Objective = Literal["maximize", "minimize"]

_TINY = 1e-24  # squares below it count as zero: sqrt has no gradient at 0


class VariationalSmoothing(BayesClassifier[Tensor]):
    r"""Algorithm 5, the simplified method: a search for the mean of q_y, with a fixed covariance.

        mu_y = arg max_{||eps||_p <= d} L_y(f(x + eps)),
        score_y = 1/S sum_s L_y(f(x + eps_s)),    eps_s ~ N(mu_y, sigma^2 I).

    The search starts at random in the ball and makes few steps. Eq. 4.9 prints arg min, but describes a targeted attack, which
    maximises a log-softmax. Eq. 4.8 subtracts KL[q_y || p] = ||mu_y||^2 / (2 sigma^2), Algorithm 5 does not. The thesis writes
    N(mu, sigma I) and says that its 0.05 is a standard deviation. All classes of an image share the start and the noise, so
    these hardly change the differences of scores. Noisy images are not clipped.

    Gradient modes. "frozen" takes mu_y for a constant. For L2 "unrolled" differentiates through the steps, and is exact. For
    Linf the steps go by signs. The derivative of a sign is zero, so "frozen" is exact unless a sign changes. "unrolled-bpda"
    replaces two functions in the backward pass only: tanh(g / rms(g)) stands for sign(g), with the rms over the pixels of g,
    and the identity for the clip to the ball. With hard labels both differentiate the soft score and are called "bpda" and
    "unrolled-bpda".
    """

    stochastic = True
    _shown = ("radius", "norm", "sigma", "steps", "step_size", "objective", "kl")

    @checked
    def __init__(
        self,
        classifier: nn.Module,
        num_classes: int,
        *,
        radius: float,
        norm: Norm = "linf",
        sigma: float = 0.05,
        draws: int = 5,
        steps: int = 1,
        step_size: float | None = None,
        objective: Objective = "maximize",
        kl: bool = False,
        hard: bool = False,
        max_rows: int = 256,
    ) -> None:
        """Take the classifier.

        Args:
            classifier: f, images (M, C, H, W) -> scores (M, K), normalising inside, in eval mode. Its input leaves [0, 1].
            num_classes: K >= 2.
            radius: d >= 0 in [0, 1] pixel units, for Linf at most 1. The thesis takes the size of the attacks. 0 does not
                search: mu_y = 0.
            norm: p, "linf" or "l2".
            sigma: standard deviation of the noise, in (0, 4]; 0.05 in the thesis.
            draws: S >= 1, draws of the noise for the score; 5 in the thesis.
            steps: steps of the search, >= 1; 1 in the thesis.
            step_size: length of a step, > 0: per pixel for Linf, as an L2 length for L2. Not in the thesis. None takes 1.25 d
                for one step, as Fast-AT does (Wong et al. 2020, arXiv:2001.03994), and 2.5 d / steps for several.
            objective: "maximize", or "minimize" for eq. 4.9 as printed, which gives each class its worst noise.
            kl: True subtracts KL[q_y || p] from the scores, eq. 4.8. The search is the same.
            hard: True counts votes (section 4.1): log((v + 1/2) / (S + 1)) if y has the largest score in v of S draws. To break
                ties, half the mean probability of y is added to v.
            max_rows: noisy images per pass of the classifier, but at least one draw of an image for every class.

        Raises:
            GenclsError: for numbers out of range, or an unknown norm or objective.
        """
        super().__init__()
        check_sigma(sigma, name="VariationalSmoothing")
        if radius < 0 or (norm == "linf" and radius > 1):
            raise GenclsError(
                "VariationalSmoothing: expected a radius >= 0 in [0, 1] pixel units (8/255, not 8), for linf at most 1, "
                f"got {radius}"
            )
        if steps < 1 or (step_size is not None and step_size <= 0):
            raise GenclsError(
                f"VariationalSmoothing: expected steps >= 1 and step_size > 0 or None, got {steps} and {step_size}"
            )
        self.likelihood = NoisyLikelihood(classifier, num_classes, draws=draws, hard=hard, max_rows=max_rows)
        self.num_classes = num_classes
        self.radius, self.norm, self.sigma = radius, norm, sigma
        self.steps = steps
        self.step_size = min(1.25, 2.5 / steps) * radius if step_size is None else step_size
        self.objective: Objective = objective
        self.kl = kl

    def infer(self, images: Tensor) -> Tensor:
        """mu_y, (N, K, C, H, W), each in the ball; unrolled if the images require grad.

        Raises:
            GenclsError: for a classifier without a gradient.
        """
        return self.likelihood.search(per_class(images), self._search, lambda *parts: torch.cat(parts))

    def log_joint(self, images: Tensor, q: Tensor) -> Tensor:
        """The score of each class with the means q, (N, K), from fresh noise."""
        scores: Tensor = self.likelihood(per_class(images) + q, images.new_full((len(images), 1, 1, 1, 1), self.sigma))
        return scores - q.flatten(2).square().sum(2) / (2 * self.sigma**2) if self.kl else scores

    def surrogates(self) -> Mapping[str, nn.Module]:
        """``frozen`` (with hard labels ``bpda``), and ``unrolled`` (for Linf or hard labels ``unrolled-bpda``)."""
        hard = self.likelihood.hard
        unrolled = "unrolled-bpda" if hard or self.norm == "linf" else "unrolled"
        rows = self.num_classes * self.steps
        return {"bpda" if hard else "frozen": self, unrolled: UnrolledByClass(self, rows, self.likelihood.max_rows)}

    def _search(self, images: Tensor) -> Tensor:
        """The means of all classes, from images (N, 1 or K, C, H, W)."""
        start = self._start(images[:, 0]).unsqueeze(1).expand(-1, self.num_classes, -1, -1, -1)
        if self.radius == 0:
            return start
        sign = -1.0 if self.objective == "maximize" else 1.0
        (found,) = minimize(
            lambda q: sign * self.likelihood.log_probs(images + q[0]),
            (start,),
            steps=self.steps,
            lr=self.step_size,
            optimizer="gradient",
            direction=lambda gradients: (self._direction(gradients[0]),),
            project=lambda q: (self._project(q[0]),),
            unroll=images.requires_grad,
        )
        return found

    def _start(self, images: Tensor) -> Tensor:
        """Uniform in the ball, (N, C, H, W)."""
        if self.norm == "linf":
            return self.radius * (2 * torch.rand_like(images) - 1)
        normal = torch.randn_like(images)
        share = torch.rand(len(images), dtype=images.dtype, device=images.device).pow(1 / images[0].numel())
        lengths: Tensor = self.radius * share / normal.flatten(1).norm(dim=1)
        return normal * lengths.view(-1, 1, 1, 1)

    def _direction(self, gradient: Tensor) -> Tensor:
        """The gradient's sign, or the gradient with L2 norm 1, for each image and class; zero stays zero."""
        if self.norm == "linf" and not gradient.requires_grad:
            return gradient.sign()
        largest = gradient.detach().abs().amax((2, 3, 4), keepdim=True)
        scaled: Tensor = gradient / largest.where(largest > 0, 1.0)  # the squares of small gradients would be zero
        if self.norm == "l2":
            return scaled / _length(scaled)
        smooth: Tensor = (scaled / _length(scaled.detach()) * scaled[0, 0].numel() ** 0.5).tanh()
        return gradient.sign() + (smooth - smooth.detach())

    def _project(self, noise: Tensor) -> Tensor:
        """Onto the ball, (N, K, C, H, W)."""
        if self.norm == "linf":
            inside = noise.clamp(-self.radius, self.radius)
            return inside.detach() + (noise - noise.detach()) if noise.requires_grad else inside
        factor: Tensor = self.radius / _length(noise)
        return noise * factor.clamp(max=1.0)


def _length(noise: Tensor) -> Tensor:
    """L2 norms, (N, K, C, H, W) -> (N, K, 1, 1, 1)."""
    return noise.square().sum((2, 3, 4), keepdim=True).clamp_min(_TINY).sqrt()
