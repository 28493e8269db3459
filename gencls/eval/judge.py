"""The judge: it measures what an attack returned on the real defense, with draws that the attacker has not seen."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, draws, select
from gencls.eval.threat import ThreatModel

__all__ = ["Verdict", "judge", "predict", "scores_of"]


@dataclass(frozen=True)
class Verdict:
    """What the judge found, per sample.

    Attributes:
        images: (N, C, H, W), what was judged: the adversarial images, or the clean ones where those broke the rules.
        distances: (N,) float64, norm of the perturbation.
        valid: (N,) bool, whether the image kept to [0, 1] and the ball; where not, the clean image was judged.
        predictions: (N, S) int64, one per draw.
    """

    images: Tensor
    distances: Tensor
    valid: Tensor
    predictions: Tensor


@torch.no_grad()
def predict(defense: nn.Module, images: Tensor, count: int, *, max_rows: int = 1024) -> Tensor:
    """Decisions of fresh draws: (N, C, H, W) -> (N, count) int64, in forward passes of at most ``max_rows`` rows.

    Raises:
        GenclsError: for images that the defense does not take, or scores that are not finite: their argmax would be a
            decision made of nothing.
    """
    if len(images) > max_rows:
        parts = torch.arange(len(images)).split(max_rows)
        return torch.cat([_predict_selected(defense, images, part, count, max_rows) for part in parts])
    per_pass = max(1, min(count, max_rows // len(images)))
    decisions = []
    for first in range(0, count, per_pass):
        numbers = range(first, min(first + per_pass, count))
        with draws(numbers):
            scores = scores_of(defense, images.repeat_interleave(len(numbers), dim=0))
        if not bool(torch.isfinite(scores).all()):
            bad = int((~torch.isfinite(scores)).any(dim=1).sum())
            raise GenclsError(f"{type(defense).__name__}: expected finite scores, got NaN or infinity in {bad} rows")
        decisions.append(scores.argmax(dim=1).unflatten(0, (len(images), len(numbers))))
    return torch.cat(decisions, dim=1)


def _predict_selected(defense: nn.Module, images: Tensor, indices: Tensor, count: int, max_rows: int) -> Tensor:
    with select(indices):
        return predict(defense, images[indices], count, max_rows=max_rows)


def scores_of(defense: nn.Module, images: Tensor) -> Tensor:
    """The defense's scores (N, K).

    Raises:
        GenclsError: for images of a shape that the defense does not take.
    """
    try:
        scores: Tensor = defense(images)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        if isinstance(error, torch.OutOfMemoryError) or "memory" in reason:
            raise
        raise GenclsError(
            f"{type(defense).__name__}: expected images of the shape that it was made for, "
            f"got (N, C, H, W) = {tuple(images.shape)}: {reason}"
        ) from error
    return scores


def judge(defense: nn.Module, clean: Tensor, adversarial: Tensor, threat: ThreatModel, *, count: int) -> Verdict:
    """Measure adversarial images.

    Args:
        defense: the real defense, never its surrogate.
        clean: (N, C, H, W) in [0, 1].
        adversarial: what the attack returned.
        threat: norm and ball to check against.
        count: draws S; 1 for a deterministic defense.

    Returns:
        The verdict.

    Raises:
        GenclsError: if the attack returned another shape.
    """
    if adversarial.shape != clean.shape:
        raise GenclsError(f"attack: expected images of shape {tuple(clean.shape)}, got {tuple(adversarial.shape)}")
    distances = threat.distance(clean, adversarial.nan_to_num(nan=torch.inf))
    in_range = ((adversarial >= 0) & (adversarial <= 1)).flatten(1).all(dim=1)
    valid = in_range & threat.allows(distances)
    judged = torch.where(valid.view(-1, 1, 1, 1), adversarial, clean)
    distances = torch.where(valid, distances, torch.zeros_like(distances))
    return Verdict(judged, distances, valid, predict(defense, judged, count))
