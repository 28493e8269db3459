"""Randomized smoothing: the class that wins most often under Gaussian noise, and an L2 ball in which it cannot lose.

Source: Cohen, Rosenfeld, Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019, arXiv:1902.02918;
public code locuslab/smoothing. Soft votes: Salman et al., "Provably Robust Deep Learning via Adversarially Trained Smoothed
Classifiers", NeurIPS 2019, arXiv:1906.04584.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gencls.core import BPDA, Defense, GenclsError, check_eval_mode, check_images, checked, select, surrogates_of
from gencls.defenses.smoothing.confidence import clopper_pearson, empirical_bernstein, majority_p_value
from gencls.defenses.smoothing.sigma import check_sigma

__all__ = ["Certificate", "RandomizedSmoothing"]

Votes = Literal["hard", "soft"]

_ABSTAIN = -1


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A proof for each image: with probability 1 - alpha over its own draws, the decision is constant within a radius.

    Attributes:
        labels: (N,) int64, the class; -1 if the certifier abstains.
        radii: (N,) float64, sigma Phi^-1(lower), L2 in [0, 1] pixel units; 0 if it abstains.
        lower: (N,) float64, lower confidence bound of p_A. If drawing ended early it is 0, which is always a bound.
        candidates: (N,) int64, the class A that the first n0 draws chose, even if the certifier abstains.
        counts: (N,) float64, votes for A in the further draws; sums of its probabilities for soft votes.
        draws: (N,) int64, number of further draws: n, or fewer if abstention was certain.
        sigma: standard deviation of the noise, in [0, 1] pixel units.
        alpha: failure probability per image, in (0, 1).
        bound: name of the bound ``lower``: "Clopper-Pearson" (hard votes) or "empirical Bernstein" (soft votes).
    """

    labels: Tensor
    radii: Tensor
    lower: Tensor
    candidates: Tensor
    counts: Tensor
    draws: Tensor
    sigma: float
    alpha: float
    bound: str


class RandomizedSmoothing(Defense):
    """g(x) = argmax_k P[f(x + e) = k] with e ~ N(0, sigma^2 I) (eq. 1), f being any classifier.

    If P[f(x + e) = A] >= p_A > 1/2, then g(x + d) = A for every ||d||_2 < sigma Phi^-1(p_A) (Theorem 1 with p_B = 1 - p_A).
    ``forward`` estimates the probabilities from few draws. :meth:`predict` says which class wins, and :meth:`certify` in what
    radius.

    Soft votes replace the indicator by softmax probabilities, g(x) = argmax_k E[softmax_k f(x + e)]. The same radius holds with
    p_A = E[softmax_A f(x + e)] (Salman et al., appendix A). f must then return logits.

    Noisy images are not clamped, as published, so f meets values outside [0, 1]. f may itself be random. The guarantee assumes
    exact arithmetic: an adversary can exploit floating-point noise (Voracek and Hein 2022, arXiv:2207.07209).

    Under :func:`gencls.core.keyed` an image's noise comes from its own stream, draw after draw. No result depends on the batch,
    the chunk, or on the end of drawing for another image. If f draws numbers of its own, they depend on the chunk.
    """

    stochastic = True
    _shown = ("sigma", "draws", "votes")

    @checked
    def __init__(
        self, classifier: nn.Module, num_classes: int, *, sigma: float, draws: int = 100, votes: Votes = "hard"
    ) -> None:
        """Smooth a classifier; train it with the same noise.

        Args:
            classifier: images (N, C, H, W) around [0, 1] -> scores (N, K).
            num_classes: K >= 2.
            sigma: standard deviation of the noise in [0, 1] pixel units: 0.25, never 64; in (0, 4].
            draws: noisy copies per image in ``forward``, >= 1, all in one pass. EoT multiplies this number by its own draws.
            votes: "hard" (published) counts decisions, "soft" averages probabilities.

        Raises:
            GenclsError: for settings out of range.
        """
        super().__init__()
        check_sigma(sigma, name="RandomizedSmoothing")
        if num_classes < 2 or draws < 1:
            raise GenclsError(f"RandomizedSmoothing: expected num_classes >= 2 and draws >= 1, got {num_classes} and {draws}")
        self.classifier = classifier
        self.num_classes = num_classes
        self.sigma = sigma
        self.draws = draws
        self.votes: Votes = votes

    def forward(self, images: Tensor) -> Tensor:
        """Fractions of votes, or mean probabilities, (N, K); without a gradient for hard votes."""
        sums, _ = self._sums(self._scores(images, self.draws))
        return (sums / self.draws).to(images.dtype)

    def surrogates(self) -> Mapping[str, nn.Module]:
        """Soft votes over every mode of the classifier; with hard votes this gradient is called "bpda".

        The gradient is of mean probabilities, as in the attack of Salman et al.
        """
        modes: dict[str, nn.Module] = {}
        for name, module in surrogates_of(self.classifier).items():
            soft = RandomizedSmoothing(module, self.num_classes, sigma=self.sigma, draws=self.draws, votes="soft")
            if self.votes == "hard":
                modes["bpda" if name == "exact" else f"bpda+{name}"] = BPDA(self, soft)
            else:
                modes[name] = self if module is self.classifier else soft
        return modes

    @torch.no_grad()
    @checked
    def predict(self, images: Tensor, *, n: int = 1000, alpha: float = 0.001, chunk: int = 200) -> Tensor:
        """The class that wins, or none: "Predict" of the paper.

        A two-sided binomial test compares the counts n_A >= n_B of the two leading classes: n_A in n_A + n_B against 1/2. It
        returns a class other than g(x) with probability at most alpha (Proposition 1). Drawing for an image ends when the
        remaining draws cannot change the answer. So the answer is exactly that of all n.

        Args:
            images: (N, C, H, W) in [0, 1].
            n: draws per image; enough that the test can reject, 11 for alpha = 0.001.
            alpha: failure probability, in (0, 1).
            chunk: rows of a pass, >= 1. Drawing can end between passes.

        Returns:
            Labels int64 (N,); -1 if the test does not reject.

        Raises:
            GenclsError: for images or numbers out of range, a classifier in training mode or whose scores are not finite or not
                (N, K), or soft votes, which cannot be counted.
        """
        if self.votes == "soft":
            raise GenclsError(
                "RandomizedSmoothing.predict: expected hard votes, which the test counts, got soft ones; see certify"
            )
        self._check("predict", images, alpha, chunk, n, lambda m: bool(majority_p_value(m, 0) <= alpha))

        def settled(_: int, counts: Tensor, left: int) -> bool:
            # Worst case of the leader: all remaining draws go to the second. Best case of any class: all go to the leader.
            first, second = counts.topk(2).values.tolist()
            return bool(majority_p_value(first, second + left) <= alpha or majority_p_value(first + left, second) > alpha)

        leading, classes = self._tally(images, n, chunk, settled)[0].topk(2)
        rejected = torch.from_numpy(majority_p_value(*leading.cpu().numpy().T) <= alpha).to(classes.device)
        return torch.where(rejected, classes[:, 0], _ABSTAIN)

    @torch.no_grad()
    @checked
    def certify(
        self, images: Tensor, *, n0: int = 100, n: int = 100_000, alpha: float = 0.001, chunk: int = 400
    ) -> Certificate:
        """The class and a radius within which it cannot change: "Certify" of the paper.

        n0 draws choose a class A. n further draws give a lower bound of p_A, which holds with probability 1 - alpha, and the
        radius sigma Phi^-1(lower) (Proposition 2). Hard votes take the one-sided bound of Clopper and Pearson, soft votes the
        empirical Bernstein bound. If the bound is not above 1/2, the certifier abstains.

        Drawing for an image ends early only if it must abstain: the bound stays at or below 1/2 even if all remaining draws are
        votes for A. So every answer is exactly that of all n, and the draws never decide how many of them a bound rests on.

        Args:
            images: (N, C, H, W) in [0, 1].
            n0: draws per image that choose the class, >= 1.
            n: draws per image for the bound; enough that it can certify, 10 for alpha = 0.001 (soft votes: 37). The radius is
                at most sigma Phi^-1(alpha^(1/n)): 3.8 sigma for the defaults.
            alpha: failure probability per image, in (0, 1).
            chunk: rows of a pass, >= 1; on a CPU 400 to 1,000 are fastest (docs/performance.md).

        Raises:
            GenclsError: for images or numbers out of range, or a classifier in training mode or whose scores are not finite or
                not (N, K).
        """
        if n0 < 1:
            raise GenclsError(f"RandomizedSmoothing.certify: expected n0 >= 1, got {n0}")
        self._check("certify", images, alpha, chunk, n, lambda m: bool(self._lower(m, 0.0, m, alpha) > 0.5))
        candidates = self._tally(images, n0, chunk, lambda *_: False)[0].argmax(1)
        of = candidates.tolist()

        def settled(i: int, sums: Tensor, left: int) -> bool:
            return bool(self._lower(float(sums[of[i]]) + left, 0.0, n, alpha) <= 0.5)

        sums, squares, made = self._tally(images, n, chunk, settled)
        total, square = (part.gather(1, candidates.unsqueeze(1)).squeeze(1) for part in (sums, squares))
        variance = ((square - total.square() / n) / max(n - 1, 1)).clamp_min(0.0)
        bounds = torch.from_numpy(self._lower(total.cpu().numpy(), variance.cpu().numpy(), n, alpha)).to(total.device)
        lower = torch.where(made == n, bounds, 0.0)
        return Certificate(
            labels=torch.where(lower > 0.5, candidates, _ABSTAIN),
            radii=torch.where(lower > 0.5, self.sigma * torch.special.ndtri(lower), 0.0),
            lower=lower,
            candidates=candidates,
            counts=total,
            draws=made,
            sigma=self.sigma,
            alpha=alpha,
            bound="Clopper-Pearson" if self.votes == "hard" else "empirical Bernstein",
        )

    def _scores(self, images: Tensor, draws: int) -> Tensor:
        """Scores of noisy copies, (N, draws, K)."""
        noisy = images.new_empty((len(images) * draws, *images.shape[1:])).normal_(0.0, self.sigma)
        noisy = noisy.unflatten(0, (len(images), draws)).add_(images.unsqueeze(1)).flatten(0, 1)
        scores: Tensor = self.classifier(noisy)
        if scores.shape != (len(noisy), self.num_classes):
            raise GenclsError(
                f"RandomizedSmoothing: expected scores of shape {(len(noisy), self.num_classes)}, got {tuple(scores.shape)}"
            )
        by_image: Tensor = scores.unflatten(0, (len(images), draws))
        return by_image

    def _sums(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of votes and of their squares over draws, (N, draws, K) -> float64 (N, K) each."""
        if self.votes == "soft":
            probabilities = scores.double().softmax(2)
            return probabilities.sum(1), probabilities.square().sum(1)
        winners = scores.argmax(2)  # also among NaN, so that a NaN stays visible as a vote
        ones = torch.where(scores.isnan().any(2), torch.nan, 1.0).double()
        counts = ones.new_zeros(len(scores), self.num_classes).scatter_add_(1, winners, ones)
        return counts, counts

    def _tally(
        self, images: Tensor, n: int, chunk: int, settled: Callable[[int, Tensor, int], bool]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sums of votes and of their squares, (N, K) each, and the draws made, (N,).

        Images share a pass if all draws of each fit into it. Others have passes of their own, after each of which
        ``settled(image, sums, draws left)`` may end them.
        """
        parts = []
        for index in torch.arange(len(images)).split(max(1, chunk // n)):
            sums = squares = torch.zeros((), dtype=torch.float64, device=images.device)
            made = 0
            with select(index):
                while made < n and not (made and settled(int(index[0]), sums[0], n - made)):
                    scores = self._scores(images[index], min(chunk, n - made))
                    if not bool(torch.isfinite(scores).all()):
                        raise GenclsError("RandomizedSmoothing: expected finite scores, got NaN or infinity")
                    more, more_squares = self._sums(scores)
                    sums, squares, made = sums + more, squares + more_squares, made + scores.shape[1]
            parts.append((sums, squares, torch.full((len(index),), made, device=images.device)))
        sums, squares, draws = (torch.cat(part) for part in zip(*parts, strict=True))
        return sums, squares, draws

    def _lower(self, total: Any, variance: Any, n: int, alpha: float) -> Any:
        """The lower confidence bound of p_A from the sum of n votes and their variance."""
        return clopper_pearson(total, n, alpha) if self.votes == "hard" else empirical_bernstein(total / n, variance, n, alpha)

    def _check(self, name: str, images: Tensor, alpha: float, chunk: int, n: int, enough: Callable[[int], bool]) -> None:
        """Refuse bad input, and an n at which even n equal votes decide nothing."""
        name = f"RandomizedSmoothing.{name}"
        if n < 1 or chunk < 1 or not 0 < alpha < 1:
            raise GenclsError(
                f"{name}: expected n >= 1, chunk >= 1 and alpha in (0, 1), got n={n}, chunk={chunk} and alpha={alpha}"
            )
        if not enough(n):
            least = next(m for m in count(n + 1) if enough(m))
            raise GenclsError(f"{name}: expected n >= {least}: fewer draws always abstain for alpha={alpha}, got n={n}")
        check_images(images)
        check_eval_mode(self.classifier, name=name, what="a classifier")
