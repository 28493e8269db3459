"""Measures how far scores miss an attack's goal: margins of one draw, and of the draws of a random defense."""

import torch
from torch import Tensor

_SMALLEST_GAP = 1e-30
"""Scores closer than this are equal and have no scale; gradients divided by less would overflow in float32."""

MASKED = 300.0
"""A class that is this many times farther below the best than the class before it is masked: no image can change it."""

_WIDEST = 2.0
"""The largest scale at which a draw counts, in median scales. 1 would cut all margins of two classes: they are the scale."""

_REST = 0.01
"""The share of its slope that a draw keeps if it is wrong by far. At 0 the gradient would vanish after a success."""


def margin(scores: Tensor, labels: Tensor) -> Tensor:
    """Score of the label minus the best other score: (N, K), (N,) -> (N,). It is positive if the decision is the label."""
    label = scores.gather(1, labels.unsqueeze(1)).squeeze(1)
    return label - scores.scatter(1, labels.unsqueeze(1), -torch.inf).amax(dim=1)


def others_of(scores: Tensor, labels: Tensor, count: int) -> Tensor:
    """The best classes other than the label, best first: (N, K), (N,) -> (N, at most count)."""
    return scores.scatter(1, labels.unsqueeze(1), -torch.inf).argsort(dim=1, descending=True)[:, :-1][:, :count]


def score_gap(scores: Tensor, *, best: Tensor | None = None, equal: float = 1.0) -> Tensor:
    """Measure how far the mean class lies below the best, (..., K) -> (..., 1), without gradient.

    Masked classes do not count: one at -1e9 would make every difference between the others vanish. At least three classes must
    stay unmasked, or a class far below two nearly equal ones would pass for masked.

    Args:
        scores: the scores (..., K).
        best: their maximum (..., 1); None computes it.
        equal: the gap that stands for samples whose scores are all equal.
    """
    fixed = scores.detach()
    best = fixed.amax(dim=-1, keepdim=True) if best is None else best
    gap = best - fixed.mean(dim=-1, keepdim=True)
    if fixed.shape[-1] > 3:
        below = (best - fixed).sort(dim=-1).values  # from 0 on
        masked = (below[..., 3:] > MASKED * below[..., 2:-1]) & (below[..., 2:-1] > 0)
        if bool(masked.any()):
            kept = torch.cat([torch.ones_like(below[..., :3]), 1 - masked.cumsum(dim=-1).clamp_max(1)], dim=-1)
            among = (below * kept).sum(dim=-1, keepdim=True) / kept.sum(dim=-1, keepdim=True)
            gap = torch.where(masked.any(dim=-1, keepdim=True), among, gap)
    return gap.where(gap > _SMALLEST_GAP, equal)


def shortfall(scores: Tensor, labels: Tensor, *, targets: Tensor | None = None, targeted: bool = False) -> Tensor:
    """Measure how far scores (N, K) miss an attack's goal, (N,); the result is negative for samples that reach it.

    Args:
        scores: the scores (N, K).
        labels: the classes (N,) to leave, or to reach in a targeted attack.
        targets: the one other class (N,) to raise; None takes the best.
        targeted: whether the goal is to reach the label rather than to leave it.
    """
    if targets is not None:
        return (scores.gather(1, labels.unsqueeze(1)) - scores.gather(1, targets.unsqueeze(1))).squeeze(1)
    missing = margin(scores, labels)
    return -missing if targeted else missing


def mean_shortfall(draws: Tensor, labels: Tensor, *, targets: Tensor | None = None, targeted: bool = False) -> Tensor:
    """Measure how far the draws of a random defense miss an attack's goal, on average: (N, S, K), (N,) -> (N,).

    A random defense decides draw by draw. The margin of its mean scores says little about how many draws are wrong: it has one
    best other class for all draws, and few draws with large scores decide which. So each draw has a margin of its own. No draw
    counts on more than twice the median scale, where the scale is the gap between the best and the mean class. A draw that is
    wrong by more than the median gap hardly pulls any more. The result is in the unit of the scores.
    """
    gap = score_gap(draws, equal=torch.nan).squeeze(2)  # a draw of equal scores says nothing about the scale of the others
    usual = gap.nanmedian(dim=1, keepdim=True).values.nan_to_num(1.0)
    widest = _WIDEST * usual
    even = draws * (widest / gap.fmax(widest)).unsqueeze(2)
    each = draws.shape[1]
    missing = shortfall(
        even.flatten(0, 1),
        labels.repeat_interleave(each),
        targets=None if targets is None else targets.repeat_interleave(each),
        targeted=targeted,
    )
    return mean_over_draws(missing.view(draws.shape[:2]), lowest=-usual)


def mean_over_draws(missing: Tensor, lowest: Tensor) -> Tensor:
    """The mean (N,) over draws of the misses (N, S). A draw hardly counts for the part of its miss below ``lowest`` (N, 1)."""
    return (missing.maximum(lowest) + _REST * (missing - lowest).clamp_max(0)).mean(dim=1)
