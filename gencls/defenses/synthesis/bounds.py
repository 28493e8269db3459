"""Lower bounds on the distance of adversarials of ABS and E-ABS: thesis eq. 2.7, corrected (derivation: docs/bounds.md).

Let the classifier decide by argmin_k l_k*(x) with l_k*(x) = min_z ||x - G_k(z)||_2^2 + lambda R(z) and R >= 0, and let
z_y* be the minimiser of the class y of the image. No perturbation of L2 norm below

    eps* = min_{k != y} (s_k^2 - l_y*) / (2 s_k + 2 ||x - G_y(z_y*)||_2),     0 where this is negative,

changes the decision y, with s_k = d_k = min_z ||x - G_k(z)||_2. The thesis prints the square of the last norm; its proof has
the norm. The condition eps* < d_k of its Claim 2 always holds, because eps* <= d_k / 2. The sharper bound has s_k = sqrt(l_k*).

R must not change with the image: with the price of the way from an encoder's code (Enc, Enc-D) Claims 1 and 2 are false.

**The bounds assume exact inference.** If a descent searches the minima, the bounds are estimates. An s_k above sqrt(l_k*) makes
them too large. The classifier may err below them if its own inference misses the minimum of class y at the attacked image.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gencls.core import GenclsError, Latents, check_eval_mode, check_images, check_labels, checked, minimize, seeded
from gencls.defenses.synthesis.engine import AnalysisBySynthesis
from gencls.defenses.synthesis.posterior import Q, means
from gencls.perceptual import SquaredL2

if TYPE_CHECKING:
    import pandas

__all__ = ["RobustnessBound", "compare_to_bound", "lower_bound", "robustness_bound"]

_TINY = 1e-30  # keeps 0 / 0 at 0, if both classes generate the image itself


@dataclass(frozen=True, kw_only=True)
class RobustnessBound:
    """No adversarial lies closer in L2 than ``bound`` or ``sharper``, if ``assumption`` holds.

    Attributes:
        bound: (N,) float64, eq. 2.7 corrected, s_k = d_k, in [0, 1] pixel units; 0 if the classifier errs on the image.
        sharper: (N,) float64, the same with s_k = sqrt(l_k*), never below ``bound``; see docs/bounds.md.
        distances: (N, K), d_k, the smallest found, in [0, 1] pixel units.
        losses: (N, K), l_k*, the smallest found.
        error: (N,), ||x - G_y(z_y*)||_2, in [0, 1] pixel units.
        correct: (N,) bool, whether the classifier, with its own inference, is right on the image.
        assumption: a sentence with the assumption of the bound and the search for the minima.
    """

    bound: Tensor
    sharper: Tensor
    distances: Tensor
    losses: Tensor
    error: Tensor
    correct: Tensor
    assumption: str


@checked
def lower_bound(distances: Tensor, losses: Tensor, error: Tensor, labels: Tensor) -> Tensor:
    """Eq. 2.7 corrected, from exact minima.

    Any z_y bounds the loss of class y at the perturbed image (Claim 1). So ``losses`` of y and ``error`` need not be minimal,
    if they belong to the same z_y. ``distances`` must be minimal.

    Args:
        distances: (N, K), s_k: d_k = min_z ||x - G_k(z)||_2, or sqrt(l_k*) for the sharper bound.
        losses: (N, K), l_k*; only the entries of the labels are used.
        error: (N,), ||x - G_y(z_y*)||_2.
        labels: int64 (N,), y.

    Returns:
        (N,) float64 in the unit of the distances; 0 if another class explains the image as well. This is always so if an exact
        classifier errs.

    Raises:
        GenclsError: for labels or shapes that do not fit, fewer than two classes, or terms that are negative or NaN.
    """
    shape = tuple(distances.shape)
    if distances.ndim != 2 or shape[1] < 2 or tuple(losses.shape) != shape or tuple(error.shape) != shape[:1]:
        got = f"{shape}, {tuple(losses.shape)} and {tuple(error.shape)}"
        raise GenclsError(f"lower_bound: expected distances and losses (N, K), K >= 2, and error (N,), got shapes {got}")
    check_labels(labels, num_classes=shape[1], count=shape[0])
    terms = (distances.double(), losses.double(), error.double())
    for name, term in zip(("distances", "losses", "error"), terms, strict=True):
        if not bool((term >= 0).all()):
            raise GenclsError(f"lower_bound: expected {name} >= 0, got {float(term[~(term >= 0)][0])}")
    own, of = labels.unsqueeze(1), terms[0]
    radii = (of.square() - terms[1].gather(1, own)) / (2 * of + 2 * terms[2].unsqueeze(1)).clamp_min(_TINY)
    return radii.scatter(1, own, torch.inf).amin(1).clamp_min(0.0)


@checked
def robustness_bound(
    defense: AnalysisBySynthesis,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 300,
    lr: float = 0.05,
    starts: int = 4,
    codes: int = 1000,
    seed: int = 0,
    nearest: Callable[[Tensor], Latents] | None = None,
    exact: bool = False,
    chunk: int = 32,
) -> RobustnessBound:
    """The bounds of a classifier by synthesis, per sample.

    Both searches, for d_k and for l_k*, start from the codes that the classifier itself inferred and from the nearest of random
    codes. The best code among the starts and the ends of the stages counts. d_k needs a search of its own: ||x - G_k(z_k*)|| at
    the z_k* of the *regularised* problem is larger, and the thesis's proof does not cover it. The search costs as much as
    2 (starts + 1) steps / defense.steps inferences.

    Args:
        defense: in eval mode, with point inference, the squared L2 distance and a regulariser that is never negative and does
            not depend on the image. That elimination never sends out the winner is one more assumption.
        images: (N, C, H, W) in [0, 1].
        labels: int64 (N,), the true classes y.
        steps: Adam steps from each start, >= 0, a third each with lr, lr / 4 and lr / 16; 0 evaluates the starts.
        lr: Adam's first step size, > 0.
        starts: number of further starts for each image and class, besides the classifier's own code, from 0 to ``codes``.
        codes: number of random codes of the prior, shared by images and classes. The nearest ones are the further starts.
        seed: seed of these codes; the global random state does not change.
        nearest: function of images that returns latents (N, K, *shape) per level, a further start of d_k, for instance the
            closed form of a linear generator.
        exact: True promises that ``nearest`` and ``defense.infer`` give global minima. It is passed on, not checked. A defense
            with elimination cannot keep the promise.
        chunk: images per search, >= 1. Results depend on it only by rounding.

    Returns:
        The bounds and their terms.

    Raises:
        GenclsError: for bad images, labels or numbers, ``exact`` without ``nearest``, or a defense to which the proof does not
            apply.
    """
    _check_defense(defense)
    if min(steps, starts) < 0 or codes < starts or chunk < 1 or lr <= 0:
        got = f"steps={steps}, starts={starts}, codes={codes}, chunk={chunk}, lr={lr}"
        raise GenclsError(f"robustness_bound: expected steps >= 0, 0 <= starts <= codes, chunk >= 1 and lr > 0, got {got}")
    if exact and nearest is None:
        raise GenclsError("robustness_bound: expected nearest, the minimisers of the plain distance, for exact=True, got None")
    if exact and defense.elimination:
        raise GenclsError(
            "robustness_bound: expected a defense that infers all classes to the end for exact=True, got elimination"
        )
    check_images(images)
    check_labels(labels, num_classes=defense.num_classes, count=len(images))
    with torch.inference_mode(False), torch.enable_grad():
        near = _NearestCodes(defense, codes, seed) if starts else None
        parts = []
        for some, of in zip(images.detach().clone().split(chunk), labels.split(chunk), strict=True):
            further = [nearest(some)] if nearest else []
            search = _Search(defense, some, steps, lr)
            parts.append(search.terms(defense.infer(some), near(some, starts) if near else [], further, of.to(some.device)))
    distances, losses, error, correct = (torch.cat(found) for found in zip(*parts, strict=True))
    kept = ", elimination keeps the winner" if defense.elimination else ""
    searched = f"minima are the smallest of the starts and ends of {starts + 1} x {steps} Adam steps, first rate {lr}"
    return RobustnessBound(
        bound=lower_bound(distances, losses, error, labels.to(losses.device)) * correct,
        sharper=lower_bound(losses.sqrt(), losses, error, labels.to(losses.device)) * correct,
        distances=distances,
        losses=losses,
        error=error,
        correct=correct,
        assumption=f"exact inference{kept}; {'minima are exact, on the word of the caller' if exact else searched}",
    )


@checked
def compare_to_bound(bound: Tensor, distances: Mapping[str, Tensor], *, tolerance: float = 1e-5) -> "pandas.DataFrame":
    """The bound beside the attacked distance, sample by sample.

    Args:
        bound: (N,), ``bound`` or ``sharper`` of a :class:`RobustnessBound`.
        distances: L2 distances (N,) by attack, in the order of the images, of the adversarials that the judge verified; 0 for a
            misclassified clean image, infinite if the attack found nothing.
        tolerance: L2 length by which a distance may lie below the bound, because float32 rounds losses.

    Returns:
        One row per sample: ``bound``; ``distance`` and ``attack`` of the closest adversarial (empty if no attack found one);
        ``ratio`` distance / bound, at least 1 up to rounding (NaN for 0 / 0); ``violation``, whether the distance lies below
        the bound. If the bound's assumption holds, a violation is a bug. Otherwise it shows an inference that failed.

    Raises:
        GenclsError: for no attacks, or shapes and values that do not fit.
    """
    import pandas

    if bound.ndim != 1 or not bool((bound >= 0).all()):
        raise GenclsError(f"compare_to_bound: expected bounds (N,) >= 0, got shape {tuple(bound.shape)} or negative values")
    if not distances:
        raise GenclsError("compare_to_bound: expected the distances of at least one attack, got none")
    for name, found in distances.items():
        if not isinstance(found, Tensor):
            raise GenclsError(f"compare_to_bound: expected distances of {name} as a tensor, got {type(found).__name__}")
        if found.shape != bound.shape or not bool((found >= 0).all()):
            got = f"shape {tuple(found.shape)}" if found.shape != bound.shape else "negative or NaN ones"
            raise GenclsError(f"compare_to_bound: expected {len(bound)} distances >= 0 of {name}, got {got}")
    closest, by = torch.stack([found.detach().cpu().double() for found in distances.values()]).min(dim=0)
    low, names = bound.detach().cpu().double(), list(distances)
    return pandas.DataFrame(
        {
            "bound": low.numpy(),
            "distance": closest.numpy(),
            "attack": [names[i] if finite else "" for i, finite in zip(by.tolist(), closest.isfinite().tolist(), strict=True)],
            "ratio": (closest / low).numpy(),
            "violation": (closest < low - tolerance).numpy(),
        }
    )


def _check_defense(defense: AnalysisBySynthesis) -> None:
    if not isinstance(defense, AnalysisBySynthesis) or not isinstance(defense.distance, SquaredL2):
        part = defense.distance if isinstance(defense, AnalysisBySynthesis) else defense
        raise GenclsError(f"robustness_bound: expected AnalysisBySynthesis with SquaredL2, got {type(part).__name__}")
    if defense.stochastic:
        raise GenclsError(
            "robustness_bound: expected point inference, of which the bound is, got inference of distributions; build the "
            "defense from the same parts with variational=False"
        )
    if defense.regularizer.from_start:
        raise GenclsError(
            "robustness_bound: expected a regularizer that does not depend on the image, got "
            f"{type(defense.regularizer).__name__}, taken from a start that moves with it: Enc and Enc-D have no such bound"
        )
    if defense.project is not None and defense.steps < 1:
        raise GenclsError("robustness_bound: expected steps >= 1 of a defense with a projection, which follows a step, got 0")
    check_eval_mode(defense, name="robustness_bound")


class _NearestCodes:
    """The nearest of shared random codes, for each image and class."""

    def __init__(self, defense: AnalysisBySynthesis, count: int, seed: int) -> None:
        generator, classes = defense.generator, defense.num_classes
        with seeded(seed), torch.no_grad():
            shared = tuple(z.unsqueeze(1).expand(-1, classes, *z.shape[1:]) for z in generator.sample_latents(count))
            codes = defense.project(shared) if defense.project else shared
            pieces = zip(*(level.clone().split(64) for level in codes), strict=True)  # the generator may work in place
            self.images = torch.cat([generator.decode_all(piece).flatten(2) for piece in pieces])  # (S, K, C * H * W)
        self.codes = tuple(level[:, 0] for level in codes)

    def __call__(self, images: Tensor, count: int) -> list[Latents]:
        """Images (N, C, H, W) -> ``count`` times latents (N, K, *shape) per level, the nearest first."""
        flat = images.flatten(1).to(self.images.dtype)
        order = [torch.cdist(flat, own).topk(count, largest=False).indices for own in self.images.unbind(1)]
        return [tuple(level[best] for level in self.codes) for best in torch.stack(order, dim=1).unbind(2)]


class _Search:
    """The smallest values of both problems for some images."""

    def __init__(self, defense: AnalysisBySynthesis, images: Tensor, steps: int, lr: float) -> None:
        self.defense, self.images = defense, images
        self.stages = [(steps - 2 * (steps // 3), lr), (steps // 3, lr / 4), (steps // 3, lr / 16)]

    def terms(self, q: Q, near: list[Latents], further: list[Latents], labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """d_k (N, K), l_k* (N, K), ||x - G_y(z_y*)|| (N,), and whether the decision from the inferred q is right (N,)."""
        starts = [means(q), *near]
        with torch.no_grad():
            scores = self.defense.log_joint(self.images, q)
            expected = torch.add(*self._parts(starts[0]))
        if not torch.allclose(-scores, expected, rtol=1e-3, atol=1e-5):
            raise GenclsError(
                "robustness_bound: expected scores -(||x - G_k(z)||^2 + lambda R(z)), of one scale for all classes, "
                f"got scores that differ from it by up to {float((scores + expected).abs().max()):.4g}"
            )
        losses, squared = self._lowest(starts, 1.0)
        distances = torch.minimum(self._lowest([*starts, *further], 0.0)[0], squared).sqrt()
        error = squared.gather(1, labels.unsqueeze(1)).squeeze(1).sqrt()
        return distances, losses, error, scores.argmax(1) == labels

    def _parts(self, latents: Latents) -> tuple[Tensor, Tensor]:
        """||x - G_k(z)||^2 and lambda R(z), (N, K) each."""
        decoded = self.defense._decode(latents)
        penalty: Tensor = self.defense.weight * self.defense.regularizer(latents)
        return (self.images.unsqueeze(1) - decoded).flatten(2).square().sum(2), penalty

    def _lowest(self, starts: list[Latents], weight: float) -> tuple[Tensor, Tensor]:
        """The smallest ||x - G_k(z)||^2 + weight lambda R(z) on the way, and ||x - G_k(z)||^2 at this z, (N, K) each."""
        project = self.defense.project
        best = at = torch.full((), torch.inf).to(self.images)
        for start in starts:
            latents = project(start) if project else start  # the classifier never uses codes outside the ball
            for steps, lr in [(0, self.stages[0][1]), *self.stages]:
                latents = minimize(
                    lambda z: torch.add(*self._parts(z), alpha=weight), latents, steps=steps, lr=lr, project=project
                )
                with torch.no_grad():
                    squared, penalty = self._parts(latents)
                if not bool((penalty >= 0).all()):
                    got = f"lambda R(z) = {float(penalty.min()):.4g}"
                    raise GenclsError(f"robustness_bound: expected a regularizer that is never negative, got {got}")
                value = squared + weight * penalty
                best, at = value.where(value < best, best), squared.where(value < best, at)
        return best, at
