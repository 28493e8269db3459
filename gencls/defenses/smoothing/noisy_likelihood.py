"""The score of variational smoothing: how likely a classifier finds each class under the noise of this class.

A class's score depends on no other class's noise. So one backward pass finds the derivatives of all scores, right after the
forward pass of the same rows, and no graph is kept.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gencls.core import BayesClassifier, GenclsError, checked, frozen, rows_per_stream, select, surrogates_of
from gencls.core.derivatives import first_only

__all__ = ["NoisyLikelihood", "UnrolledByClass", "in_parts", "per_class"]

Result = TypeVar("Result")


def per_class(images: Tensor) -> Tensor:
    """Images (N, C, H, W) as (N, 1, C, H, W); copies for each class, (N, K, C, H, W), stay as they are."""
    return images if images.ndim == 5 else images.unsqueeze(1)


def in_parts(count: int, size: int, work: Callable[[slice], Result]) -> list[Result]:
    """Call ``work`` on ``size`` of the ``count`` images at a time; each image draws from its own stream.

    Images that share a stream are split in the same way, whatever else is in the batch.
    """
    size = max(1, size)
    if count <= size:
        return [work(slice(0, count))]
    shared = rows_per_stream(count) or count
    block = max(1, size // shared) * shared
    results = []
    for start in range(0, count, block):
        for part in torch.arange(start, min(start + block, count)).split(min(block, size)):
            with select(part, count):
                results.append(work(slice(int(part[0]), int(part[-1]) + 1)))
    return results


class NoisyLikelihood(nn.Module):
    """E_{n ~ N(0, I)} L_k(f(c_k + s_k n)) for each class k, estimated by S draws; classes share the noise.

    Memory does not grow with the number of images and draws. There is no second derivative.
    """

    @checked
    def __init__(self, classifier: nn.Module, num_classes: int, *, draws: int, hard: bool, max_rows: int) -> None:
        """Take f and the settings of :class:`~gencls.defenses.VariationalSmoothing`.

        Raises:
            GenclsError: for numbers out of range, or a classifier without an exact gradient mode.
        """
        super().__init__()
        modes = surrogates_of(classifier)
        if any(mode is not classifier for mode in modes.values()):
            raise GenclsError(
                "variational smoothing: expected a classifier whose only gradient mode is exact, because each class looks for "
                f"its noise by that gradient, got {type(classifier).__name__} with {', '.join(modes)}"
            )
        if num_classes < 2 or min(draws, max_rows) < 1:
            raise GenclsError(
                "variational smoothing: expected num_classes >= 2, draws >= 1 and max_rows >= 1, "
                f"got {num_classes}, {draws} and {max_rows}"
            )
        self.classifier = classifier
        self.num_classes = num_classes
        self.draws = draws
        self.hard = hard
        self.max_rows = max_rows

    def log_probs(self, points: Tensor) -> Tensor:
        """L_k(f(point_k)), (M, K, C, H, W) -> (M, K), twice differentiable."""
        return self._all_log_probs(points).diagonal(dim1=1, dim2=2)

    def forward(self, centres: Tensor, spread: Tensor) -> Tensor:
        """The estimates (N, K) for c and s of shape (N, K, C, H, W); without a gradient s may be (N, 1, 1, 1, 1)."""
        if torch.is_grad_enabled() and (centres.requires_grad or spread.requires_grad):
            value: Tensor = _WithSlopes.apply(self, centres, spread)
            return value
        return self.estimate(centres, spread, (False, False))[0]

    def estimate(self, centres: Tensor, spread: Tensor, wanted: tuple[bool, bool]) -> tuple[Tensor, list[Tensor | None]]:
        """The estimates, and the derivatives of the soft ones by centres and spread, each None unless ``wanted``."""
        per_pass = max(1, min(self.draws, self.max_rows // self.num_classes))
        with torch.set_grad_enabled(any(wanted)):
            parts = in_parts(
                len(centres),
                self.max_rows // (self.num_classes * per_pass),
                lambda rows: self._part(centres[rows], spread[rows], wanted, per_pass),
            )
        values, *slopes = zip(*parts, strict=True)
        return torch.cat(values), [None if found[0] is None else torch.cat(found) for found in slopes]

    def search(self, images: Tensor, look: Callable[[Tensor], Result], join: Callable[..., Result]) -> Result:
        """Search for images (N, 1 or K, C, H, W), a few at a time unless the caller keeps the whole graph."""
        if images.requires_grad:
            return look(images)
        return join(*in_parts(len(images), self.max_rows // self.num_classes, lambda rows: look(images[rows])))

    def extra_repr(self) -> str:
        """The settings."""
        return f"draws={self.draws}, hard={self.hard}"

    def _part(self, centres: Tensor, spread: Tensor, wanted: tuple[bool, bool], per_pass: int) -> Any:
        """As :meth:`estimate`, for a few images and some draws at a time."""
        inputs = [tensor.detach().requires_grad_(want) for tensor, want in zip((centres, spread), wanted, strict=True)]
        needed = [tensor for tensor, want in zip(inputs, wanted, strict=True) if want]
        count, _, *shape = centres.shape
        total: Tensor = centres.new_zeros(count, self.num_classes)
        slopes = [torch.zeros_like(tensor) for tensor in needed]
        noise = torch.randn(count, self.draws, 1, *shape, dtype=centres.dtype, device=centres.device)
        for some in noise.split(per_pass, dim=1):
            points = inputs[0].unsqueeze(1) + inputs[1].unsqueeze(1) * some
            every = self._all_log_probs(points.flatten(0, 1))
            soft = every.diagonal(dim1=1, dim2=2)
            if needed:
                for slope, more in zip(slopes, torch.autograd.grad(soft.sum() / self.draws, needed), strict=True):
                    slope += more
            counted = self._votes(every.detach()) if self.hard else soft.detach()
            total += counted.view(count, -1, self.num_classes).sum(1)
        value = ((total + 0.5) / (self.draws + 1)).log() if self.hard else total / self.draws
        found = iter(slopes)
        return value, *(next(found) if want else None for want in wanted)

    def _votes(self, every: Tensor) -> Tensor:
        """Votes of draws (M, K, K) for their class, (M, K).

        If all classes find noise that speaks for them, all may have all votes. Probabilities then decide, for half a vote.
        """
        own = torch.arange(self.num_classes, device=every.device)
        return (every.argmax(2) == own) + every.diagonal(dim1=1, dim2=2).exp() / (2 * self.draws)

    def _all_log_probs(self, points: Tensor) -> Tensor:
        """(M, K, C, H, W) -> (M, K, K); the last dimension holds the log-softmax."""
        count = len(points)
        with frozen(self.classifier):
            scores: Tensor = self.classifier(points.flatten(0, 1))
        if scores.shape != (count * self.num_classes, self.num_classes):
            raise GenclsError(
                f"variational smoothing: expected {self.num_classes} scores for each of {count * self.num_classes} images, "
                f"got shape {tuple(scores.shape)}"
            )
        if torch.is_grad_enabled() and points.requires_grad and not scores.requires_grad:
            raise GenclsError(
                "variational smoothing: expected a classifier whose scores have a gradient, got detached ones (votes, or "
                "no_grad inside); wrap one that has an approximate gradient, for instance BPDA"
            )
        return scores.log_softmax(1).view(count, self.num_classes, self.num_classes)


class _WithSlopes(torch.autograd.Function):
    """The estimates, with the derivatives from the forward pass."""

    @staticmethod
    def forward(ctx: Any, likelihood: NoisyLikelihood, centres: Tensor, spread: Tensor) -> Tensor:
        value, slopes = likelihood.estimate(centres, spread, ctx.needs_input_grad[1:])
        ctx.save_for_backward(centres, spread, *slopes)
        return value

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gradient, (centres, spread, *slopes) = grad_outputs[0][..., None, None, None], ctx.saved_tensors
        return None, *(None if s is None else _only(gradient.detach() * s, gradient, centres, spread) for s in slopes)


class UnrolledByClass(nn.Module):
    """A smoothing with the gradient through its search, like :class:`~gencls.core.Unrolled`, for a few images at a time."""

    @checked
    def __init__(self, defense: BayesClassifier[Any], rows_per_image: int, max_rows: int) -> None:
        """Take the smoothing. Its ``infer`` and ``log_joint`` must also take a copy of each image for each class.

        A graph holds at most ``max_rows`` noisy images, but at least the ``rows_per_image`` of one image.
        """
        super().__init__()
        self.defense = defense
        self.per_graph = max(1, max_rows // rows_per_image)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] -> scores (N, K)."""
        if not (torch.is_grad_enabled() and images.requires_grad):
            return self.defense(images)
        scores: Tensor = _UnrolledWithSlopes.apply(self, images)
        return scores

    def scores_and_slopes(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (N, K) and their derivatives (N, K, C, H, W)."""
        parts = in_parts(len(images), self.per_graph, lambda rows: self._part(images[rows]))
        scores, slopes = zip(*parts, strict=True)
        return torch.cat(scores), torch.cat(slopes)

    @torch.enable_grad()
    def _part(self, images: Tensor) -> tuple[Tensor, Tensor]:
        copies = images.detach().unsqueeze(1).repeat(1, self.defense.num_classes, 1, 1, 1).requires_grad_()
        score = self.defense.log_joint(copies, self.defense.infer(copies))
        return score.detach(), torch.autograd.grad(score.sum(), copies)[0]


class _UnrolledWithSlopes(torch.autograd.Function):
    """As :class:`_WithSlopes`, from images to scores."""

    @staticmethod
    def forward(ctx: Any, module: UnrolledByClass, images: Tensor) -> Tensor:
        scores, slopes = module.scores_and_slopes(images)
        ctx.save_for_backward(images, slopes)
        return scores

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor]:
        images, slopes = ctx.saved_tensors
        return None, _only(torch.einsum("nk,nkchw->nchw", grad_outputs[0].detach(), slopes), grad_outputs[0], images)


def _only(gradient: Tensor, *inputs: Tensor) -> Tensor:
    """A gradient that is made of derivatives from the forward pass."""
    instead = "they come from the forward pass, which keeps no graph"
    return first_only(gradient, *inputs, owner="variational smoothing", instead=instead)
