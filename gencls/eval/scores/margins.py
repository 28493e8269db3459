"""By how much scores miss an attack's goal: margins, of one draw and of the draws of a random defense."""

import torch
from torch import Tensor

_SMALLEST_GAP = 1e-30
"""Scores closer than this are equal and have no scale; gradients divided by less would overflow in float32."""

MASKED = 300.0
"""Times the gap of the class before it: a class so far below is masked (-1e9, say), which no image can change."""

_WIDEST = 2.0
"""Times the median scale on which a draw may count. At 1 the margins of two classes, which are the scale, would all be cut."""

_REST = 0.01
"""Share of its slope that a draw keeps which is wrong by far. At 0 the gradient would vanish where an attack has succeeded."""


def margin(scores: Tensor, labels: Tensor) -> Tensor:
    """Score of the label minus the best other score: (N, K), (N,) -> (N,). Positive where the decision is the label."""
    label = scores.gather(1, labels.unsqueeze(1)).squeeze(1)
    return label - scores.scatter(1, labels.unsqueeze(1), -torch.inf).amax(dim=1)


def others_of(scores: Tensor, labels: Tensor, count: int) -> Tensor:
    """The best classes other than the label, best first: (N, K), (N,) -> (N, at most count)."""
    return scores.scatter(1, labels.unsqueeze(1), -torch.inf).argsort(dim=1, descending=True)[:, :-1][:, :count]


def score_gap(scores: Tensor, *, best: Tensor | None = None, equal: float = 1.0) -> Tensor:
    """How far the mean class lies below the best, (..., K) -> (..., 1), without gradient.

    Masked classes do not count: one at -1e9 would make every difference between the others vanish. At least three others must
    be left, or a class far below two that are nearly equal would pass for masked.

    Args:
        scores: (..., K).
        best: (..., 1), their maximum where it is known already.
        equal: what stands where all scores are equal.
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
    """By how much scores (N, K) miss an attack's goal, (N,); negative where they reach it.

    Args:
        scores: (N, K).
        labels: (N,), the classes to leave, or to reach where targeted.
        targets: (N,), the one other class to raise; None takes the best.
        targeted: what the goal is.
    """
    if targets is not None:
        return (scores.gather(1, labels.unsqueeze(1)) - scores.gather(1, targets.unsqueeze(1))).squeeze(1)
    missing = margin(scores, labels)
    return -missing if targeted else missing


def mean_shortfall(draws: Tensor, labels: Tensor, *, targets: Tensor | None = None, targeted: bool = False) -> Tensor:
    """By how much the draws of a random defense miss an attack's goal, on average: (N, S, K), (N,) -> (N,).

    A random defense decides draw by draw. The margin of its mean scores says little about how many draws are wrong: it knows
    one best other class for all of them, and few draws with large scores decide on it. So each draw has a margin of its own. No
    draw counts on more than twice the median scale, where the scale is the gap between the best and the mean class. A draw
    that is wrong by more than the median gap hardly pulls any more. The result is in the unit of the scores.
    """
    gap = score_gap(draws, equal=torch.nan).squeeze(2)  # draws of equal scores say nothing about the scale of the others
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
    """The mean (N,) of what draws (N, S) miss the goal by, in which they hardly count below ``lowest`` (N, 1)."""
    return (missing.maximum(lowest) + _REST * (missing - lowest).clamp_max(0)).mean(dim=1)
