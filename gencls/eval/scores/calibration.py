"""Puts scores of any offset and scale on one scale, so that a cross-entropy has useful gradients."""

import torch
from torch import Tensor, nn

from gencls.eval.scores.margins import MASKED, score_gap

NATS = 10.0
"""The gap between the best class and the mean class of calibrated scores."""


def calibrate(scores: Tensor) -> Tensor:
    """Shift and scale scores (..., K) so that the best class is at 0 and the mean class at -10; see :class:`Calibrated`."""
    fixed = scores.detach()
    best = fixed.amax(dim=-1, keepdim=True)
    return (scores - best) * (NATS / score_gap(fixed, best=best))


def resolution(draws: Tensor) -> Tensor:
    """The smallest difference that the scores of each sample can have: (N, S, K), float64 -> (N,).

    Scores with a large offset are coarse: around 1e6, scores in float32 differ by 1/16 or not at all. Here they are float64
    already. Their bits still tell the type in which they were computed, even half precision that was cast at the end.
    """
    finest = torch.finfo(torch.float64).eps
    share = draws.new_full(draws.shape[:1], finest)
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        exact = (draws.to(kind).double() == draws).flatten(1).all(dim=1)
        share = share.where(~exact, torch.finfo(kind).eps)
    near = draws.amax(dim=2, keepdim=True).abs() + MASKED * score_gap(draws)  # a masked class is coarse, and never decides
    return share * draws.abs().minimum(near).amax(dim=(1, 2))


class Calibrated(nn.Module):
    """Scores on a scale on which a cross-entropy has useful gradients, whatever their offset and scale were.

    Log likelihoods have arbitrary offset and scale. With the scores of ABS per pixel a softmax is flat. With its scores per
    image it is saturated, and its gradient exactly zero in float32. Either way an attack would report robustness that the
    defense does not have. Here each sample's scores are shifted so that the best is 0 and divided by its gap to the mean score
    (a constant for the gradient), so that the mean class lies 10 nats below the best.
    :func:`~gencls.eval.scores.margins.score_gap` leaves out masked classes. The decision does not change, and the result is
    invariant to adding a constant and to multiplying by a positive one.
    """

    def __init__(self, model: nn.Module) -> None:
        """Take a model images -> scores (N, K)."""
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> calibrated scores (N, K), float64, best 0, mean -10."""
        # In float64: in float32 the probability 1 - 1e-9 is 1, and the label's part of the gradient would be zero.
        return calibrate(self.model(images).double())
