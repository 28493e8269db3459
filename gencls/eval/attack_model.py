"""What an attack sees: calibrated, averaged scores of a surrogate, a loss per sample, and a meter of what was spent."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional

from gencls.core import EoT
from gencls.core.surrogate import Reduce

__all__ = ["AttackModel", "Calibrated", "Metered", "frozen"]

_NATS = 10.0
_SMALLEST_GAP = 1e-30
"""Scores closer than this are equal and have no scale; gradients divided by less would overflow in float32."""


class Calibrated(nn.Module):
    """Scores on a scale on which a cross-entropy has useful gradients, whatever their offset and scale were.

    Log likelihoods have arbitrary offset and scale. With the scores of ABS per pixel a softmax is flat, with those per image
    it is saturated and its gradient exactly zero in float32; either way an attack would report robustness that is not there.
    Here each sample's scores are shifted so that the best is 0 and divided by its gap to the mean score (a constant for the
    gradient), so that the mean class lies 10 nats below the best. The decision does not change, and the result is invariant to
    adding a constant and to multiplying by a positive one.
    """

    def __init__(self, model: nn.Module) -> None:
        """Take a model images -> scores (N, K)."""
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> calibrated scores (N, K), float64, best 0, mean -10."""
        # In float64: in float32 the probability 1 - 1e-9 is 1, and the label's part of the gradient would be zero.
        scores: Tensor = self.model(images).double()
        fixed = scores.detach()
        best = fixed.amax(dim=1, keepdim=True)
        gap = best - fixed.mean(dim=1, keepdim=True)
        gap = gap.where(gap > _SMALLEST_GAP, 1.0)
        return (scores - best) * (_NATS / gap)


class Metered(nn.Module):
    """Counts the rows (images x draws) that pass a model forwards and backwards, and how many gradients were zero."""

    def __init__(self, model: nn.Module) -> None:
        """Take the model whose use is to be counted."""
        super().__init__()
        self.model = model
        self.forwards = 0
        self.backwards = 0
        self.gradients = 0
        self.zero_gradients = 0

    def forward(self, images: Tensor) -> Tensor:
        """The model's scores."""
        rows = images.shape[0]
        self.forwards += rows
        scores: Tensor = self.model(images)
        if scores.requires_grad:
            scores.register_hook(lambda _: self._count(rows))
        return scores

    def _count(self, rows: int) -> None:
        self.backwards += rows


class AttackModel(nn.Module):
    """The model an attack differentiates: surrogate, EoT, calibration and loss in one place.

    Success is never judged on it; see :mod:`gencls.eval.judge`.
    """

    def __init__(self, surrogate: nn.Module, *, samples: int = 1, reduce: Reduce = "logits", chunk: int | None = None) -> None:
        """Build the model.

        Args:
            surrogate: images (N, C, H, W) -> scores (N, K).
            samples: EoT draws; 1 for a deterministic defense.
            reduce: what EoT averages: scores, probabilities, or losses (whose gradients are then averaged).
            chunk: EoT draws per forward pass; None takes all.
        """
        super().__init__()
        self.meter = Metered(surrogate)
        self.reduce = reduce
        self.scores: nn.Module
        if samples == 1:
            self.scores = Calibrated(self.meter)
        elif reduce == "logits":  # the ensemble's scores have one scale
            self.scores = Calibrated(EoT(self.meter, samples, reduce=reduce, chunk=chunk))
        else:  # the softmax sees the scores of a draw
            self.scores = EoT(Calibrated(self.meter), samples, reduce=reduce, chunk=chunk)

    @classmethod
    def of(cls, model: nn.Module) -> "AttackModel":
        """The model itself if it is one, else an attack model with the module as surrogate and a single draw."""
        return model if isinstance(model, cls) else cls(model)

    def forward(self, images: Tensor) -> Tensor:
        """Calibrated scores (N, K)."""
        scores: Tensor = self.scores(images)
        return scores

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy per sample (N,) from the scores of :meth:`forward`; the mean over draws for ``reduce="loss"``."""
        if self.reduce == "loss":  # scores are mean log probabilities, or log probabilities up to a constant for one draw
            log_probs = scores if isinstance(self.scores, EoT) else scores.log_softmax(dim=1)
            return functional.nll_loss(log_probs, labels, reduction="none")
        return functional.cross_entropy(scores, labels, reduction="none")


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for parameters inside the block: attacks need those of images only, and libraries call backward()."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
