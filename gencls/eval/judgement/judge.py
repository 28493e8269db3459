"""The judge: it measures an attack's images on the real defense, with draws that the attacker has not seen."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gencls.core import GenclsError, draws, select
from gencls.core.balls import per_image
from gencls.eval.judgement.eight_bit import to_eight_bit
from gencls.eval.judgement.roles import Roles
from gencls.eval.scores.forward import name_of, scores_of
from gencls.eval.scores.probe import undeclared
from gencls.eval.threats.protocol import TOLERANCE, Threat

_NO_DRAW = -1

ROWS = 1024
"""Rows of one forward pass, unless the caller says how many fit into memory."""

_ERROR = 0.05
"""Chance, over all looks at a sample, of calling it decided although exactly half of its draws are right."""


@dataclass(frozen=True)
class Decisions:
    """Decisions of a defense in fresh draws, with further draws while the majority is open.

    Attributes:
        predictions: (N, M) int64, one per draw; -1 if a sample was decided before this draw, or was not judged at all.
        draws: S, the draws that every sample has. Only these count in the fraction of right decisions. The first draws decide
            whether a sample gets more, so a fraction over all draws would be biased (optional stopping).
        looks: number of tests of the majority (Bonferroni).
    """

    predictions: Tensor
    draws: int
    looks: int = 1

    def correct(self, labels: Tensor) -> Tensor:
        """(N,) float64, fraction of the first S draws that are right; NaN for a sample that was not judged."""
        right = (self.predictions[:, : self.draws] == labels.unsqueeze(1)).double().mean(dim=1)
        return right.where(self._counts(labels)[1] > 0, torch.nan)

    def majority_correct(self, labels: Tensor) -> Tensor:
        """(N,) bool, right in more than half of all draws made."""
        right, made = self._counts(labels)
        return 2 * right > made

    def undecided(self, labels: Tensor) -> Tensor:
        """(N,) bool, whether a sign test cannot tell if the rate of right decisions lies above or below one half."""
        from scipy.stats import binom

        right, made = self._counts(labels)
        rarer = torch.minimum(right, made - right)
        p_value = torch.from_numpy(2 * binom.cdf(rarer.cpu().numpy(), made.cpu().numpy(), 0.5))
        return (p_value > _ERROR / self.looks).to(labels.device) & (made > 0)

    def lists(self) -> list[list[int]]:
        """The predictions of each sample, without padding."""
        return [[prediction for prediction in row if prediction != _NO_DRAW] for row in self.predictions.tolist()]

    def cpu(self) -> "Decisions":
        """The same in main memory."""
        return Decisions(self.predictions.cpu(), self.draws, self.looks)

    def _counts(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        made = (self.predictions != _NO_DRAW).sum(dim=1)
        return (self.predictions == labels.unsqueeze(1)).sum(dim=1), made


@dataclass(frozen=True)
class Verdict:
    """The judge's findings, per sample.

    Attributes:
        images: (N, C, H, W), the attack's images: clamped if rounding had left [0, 1], and rounded to k/255 with ``eight_bit``.
            Images that broke the rules are unchanged.
        distances: (N,) float64, norm of the perturbation; NaN if the image broke the rules.
        valid: (N,) bool, whether the image kept to [0, 1] and the ball. Other images are not judged, and no number counts them.
        left_range: (N,) float64, by how much a pixel left [0, 1] beyond the tolerance; infinite for NaN and infinity.
        left_ball: (N,) float64, by how much the distance exceeded epsilon beyond the tolerance; 0 for an image outside
            [0, 1], which has no distance.
        decisions: decisions of the defense on these images; none for an image that broke the rules.
        unrounded: the decisions before rounding to 8 bits; None without ``eight_bit``.
    """

    images: Tensor
    distances: Tensor
    valid: Tensor
    left_range: Tensor
    left_ball: Tensor
    decisions: Decisions
    unrounded: Decisions | None = None

    @property
    def predictions(self) -> Tensor:
        """(N, M) int64, one per draw; -1 if no more draws were needed, or the image broke the rules."""
        return self.decisions.predictions

    def lawful(self, clean: Tensor) -> Tensor:
        """The images (N, C, H, W); the clean ones replace those that broke the rules."""
        return torch.where(per_image(self.valid), self.images, clean)

    def broken(self, labels: Tensor) -> Tensor:
        """(N,) bool, whether a valid image turned the majority of the draws."""
        return self.valid & ~self.decisions.majority_correct(labels)

    def cpu(self) -> "Verdict":
        """The same in main memory."""
        parts = (getattr(self, field.name) for field in fields(self))
        moved: list[Any] = [None if part is None else part.cpu() for part in parts]
        return Verdict(*moved)


def decide(defense: nn.Module, images: Tensor, labels: Tensor, count: int, most: int, *, max_rows: int = ROWS) -> Decisions:
    """Ask for ``count`` draws. Double the draws of samples with an open majority, up to ``most``."""
    looks = 1 + math.ceil(math.log2(most / count))
    decisions = Decisions(predict(defense, images, count, max_rows=max_rows), count, looks)
    open_ = decisions.undecided(labels) if most > count else torch.zeros_like(labels, dtype=torch.bool)
    made = count
    while made < most and bool(open_.any()):
        sample = open_.nonzero().squeeze(1)
        more = min(made, most - made)
        wider = functional.pad(decisions.predictions, (0, more), value=_NO_DRAW)
        with select(sample):
            wider[sample, made:] = predict(defense, images[sample], more, first=made, max_rows=max_rows)
        decisions, made = Decisions(wider, count, looks), made + more
        open_ = open_ & decisions.undecided(labels)
    return decisions


@torch.no_grad()
def predict(defense: nn.Module, images: Tensor, count: int, *, first: int = 0, max_rows: int = ROWS) -> Tensor:
    """Decisions of fresh draws: (N, C, H, W) -> (N, count) int64, in forward passes of at most ``max_rows`` rows.

    Draws are numbered from ``first``; see :func:`gencls.core.draws`.

    Raises:
        GenclsError: for images that the defense does not take, or scores that are not finite, because their argmax means
            nothing.
    """
    if len(images) > max_rows:
        parts = torch.arange(len(images)).split(max_rows)
        return torch.cat([_predict_selected(defense, images, part, count, first, max_rows) for part in parts])
    per_pass = max(1, min(count, max_rows // len(images)))
    decisions = []
    for start in range(first, first + count, per_pass):
        numbers = range(start, min(start + per_pass, first + count))
        with draws(numbers):
            scores = scores_of(defense, images.repeat_interleave(len(numbers), dim=0))
        if not bool(torch.isfinite(scores).all()):
            bad = int((~torch.isfinite(scores)).any(dim=1).sum())
            raise GenclsError(f"{name_of(defense)}: expected finite scores, got NaN or infinity in {bad} rows")
        decisions.append(scores.argmax(dim=1).unflatten(0, (len(images), len(numbers))))
    return torch.cat(decisions, dim=1)


def _predict_selected(defense: nn.Module, images: Tensor, indices: Tensor, count: int, first: int, max_rows: int) -> Tensor:
    with select(indices):
        return predict(defense, images[indices], count, first=first, max_rows=max_rows)


def confirm(
    roles: Roles,
    defense: nn.Module,
    decisions: Decisions,
    images: Tensor,
    *path: object,
    max_rows: int,
    doubtful: bool = False,
) -> None:
    """Ask a defense that is declared deterministic again if it drew: its draws must not change its decisions.

    Raises:
        GenclsError: if they do.
    """
    if roles.probe.stochastic or not (roles.drew or doubtful):
        return
    with roles.judge(*path, "again"):
        again = predict(defense, images, 1, max_rows=max_rows).cpu()
    roles.drew = False
    made = decisions.predictions.cpu()[:, :1]
    if bool(((again != made) & (made >= 0)).any()):
        raise undeclared(roles.probe.name)


def received(found: object, clean: Tensor) -> Tensor:
    """The attack's images in the dtype of the clean images and on their device.

    Half precision is cast. Its rounding moves pixels by up to 2.5e-4 (bfloat16: 2e-3). An image that leaves the ball by this
    rounding has left the ball.

    Raises:
        GenclsError: for something that is no tensor, of another shape, or of integers or complex numbers.
    """
    if not isinstance(found, Tensor):
        raise GenclsError(f"attack: expected a tensor of images, got {type(found).__name__}")
    if found.shape != clean.shape:
        raise GenclsError(f"attack: expected images of shape {tuple(clean.shape)}, got {tuple(found.shape)}")
    if not found.is_floating_point():
        hint = "; divide uint8 images by 255" if found.dtype == torch.uint8 else ""
        raise GenclsError(f"attack: expected floating-point images in [0, 1], got {found.dtype}{hint}")
    return found.detach().to(clean)


@torch.no_grad()
def verdict_of(
    defense: nn.Module,
    clean: Tensor,
    adversarial: Tensor,
    threat: Threat,
    *,
    count: int,
    labels: Tensor | None = None,
    most: int | None = None,
    max_rows: int = ROWS,
    eight_bit: bool = False,
) -> Verdict:
    """Measure adversarial images in the present random streams; every row of a batch is a draw of its own.

    Values that leave [0, 1] by no more than 1e-6 are clamped, and the distance is measured on the clamped image. An image that
    leaves [0, 1] or the ball by more is not judged. The clean image does not take its place, because that is no attack.

    Arguments are the same as for :func:`gencls.eval.judge`. The defense must have the form that
    :meth:`gencls.eval.scores.behaviour.Behaviour.judged` gives it.

    Raises:
        GenclsError: if the attack returned no images of this shape, or for ``most`` without labels.
    """
    if most is not None and labels is None:
        raise GenclsError("judge: expected labels where more draws are made of undecided samples, got none")

    def decided(inspected: Verdict) -> Decisions:
        rows, images = inspected.valid.nonzero().squeeze(1), inspected.images
        if len(rows) == len(images):
            return _asked(defense, images, labels, count, most, max_rows)
        if not len(rows):
            return inspected.decisions
        with select(rows):
            found = _asked(defense, images[rows], None if labels is None else labels[rows], count, most, max_rows)
        every = found.predictions.new_full((len(images), found.predictions.shape[1]), _NO_DRAW)
        every[rows] = found.predictions
        return replace(found, predictions=every)

    inspected = _inspect(clean, received(adversarial, clean), threat, count)
    if not eight_bit:
        return replace(inspected, decisions=decided(inspected))
    rounded = to_eight_bit(inspected.lawful(clean), clean, threat)
    kept = torch.where(per_image(inspected.valid), rounded, inspected.images)
    after = _inspect(clean, kept, threat, count)
    return replace(after, decisions=decided(after), unrounded=decided(inspected))


def _inspect(clean: Tensor, adversarial: Tensor, threat: Threat, count: int) -> Verdict:
    """A verdict without decisions: which images keep to the rules, and by how much the others leave them."""
    beyond = torch.maximum(-adversarial, adversarial - 1).flatten(1).amax(dim=1).double()  # NaN stays NaN
    finite = torch.isfinite(adversarial).flatten(1).all(dim=1)
    in_range = finite & (beyond <= TOLERANCE)
    images = torch.where(per_image(in_range), adversarial.clamp(0, 1), adversarial)
    distances = torch.full((len(images),), torch.nan, dtype=torch.float64, device=images.device)
    if bool(in_range.any()):
        distances[in_range] = threat.distance(clean[in_range], images[in_range]).to(distances)
    allowed = threat.allows(distances)
    valid = in_range & allowed
    outside = distances - (torch.inf if threat.epsilon is None else threat.epsilon)
    return Verdict(
        images,
        distances.where(valid, torch.nan),
        valid,
        left_range=beyond.where(finite, torch.inf).where(~in_range, 0.0),
        left_ball=outside.where(in_range & ~allowed, 0.0),
        decisions=Decisions(torch.full((len(images), count), _NO_DRAW, device=images.device), count),
    )


def _asked(defense: nn.Module, images: Tensor, labels: Tensor | None, count: int, most: int | None, max_rows: int) -> Decisions:
    if labels is None or most is None:
        return Decisions(predict(defense, images, count, max_rows=max_rows), count)
    return decide(defense, images, labels, count, most, max_rows=max_rows)
