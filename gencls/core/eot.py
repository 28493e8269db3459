"""Makes several draws of each image, and takes the mean over them."""

import math
from collections.abc import Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from gencls.core.derivatives import first_only
from gencls.core.errors import GenclsError
from gencls.core.modules.wrappers import computes_as_its_class, declared, surrogates_of
from gencls.core.rows import draws
from gencls.core.settings import checked
from gencls.core.streams.keyed import repeatable

__all__ = ["EoT", "Reduce", "forward_draws", "repeat_rows"]

Reduce = Literal["logits", "probs", "loss"]


def repeat_rows(rows: Tensor, count: int) -> Tensor:
    """Repeat each row as ``repeat_interleave`` does, (N, ...) -> (N * count, ...), but with a faster backward pass."""
    return rows.unsqueeze(1).expand(-1, count, *rows.shape[1:]).flatten(0, 1)


@runtime_checkable
class _DrawsTogether(Protocol):
    def forward_draws(self, images: Tensor, count: int) -> Tensor: ...


def forward_draws(model: nn.Module, images: Tensor, count: int) -> Tensor:
    """Make ``count`` draws of a model for each image: (N, C, H, W) -> (N * count, ...), draws of one image in consecutive rows.

    The model's own method of this name makes them. The rows are repeated if the module has no such method, if a subclass
    overrides ``forward`` but not the method, or if a hook hangs on the module.
    """
    if isinstance(model, _DrawsTogether) and computes_as_its_class(model, "forward_draws"):
        return model.forward_draws(images, count)
    result: Tensor = model(repeat_rows(images, count))
    return result


class EoT(nn.Module):
    """Expectation over transformation: the mean over S draws of a stochastic model, sample by sample.

    The draws are rows of the batch, S consecutive rows per sample. So a draw costs as much as a row, or less if the defense
    does some of the work once per image (:func:`gencls.core.forward_draws`). Under :func:`gencls.core.keyed` each (sample,
    draw) has its own random stream, and the result does not depend on ``chunk``.

    Source: Athalye et al., "Synthesizing robust adversarial examples", 2018, arXiv:1707.07397.
    """

    @checked
    def __init__(self, model: nn.Module, samples: int, *, reduce: Reduce = "logits", chunk: int | None = None) -> None:
        """Average a model over draws.

        Args:
            model: images (N, C, H, W) -> scores (N, K), a fresh draw for each row.
            samples: S >= 1.
            reduce: "logits": mean of scores; "probs": log of the mean of softmax probabilities; "loss": mean of log
                probabilities, whose label entry is minus the mean cross-entropy, so that gradients of losses are averaged.
            chunk: draws per forward pass; None takes all S at once.

        Raises:
            GenclsError: for numbers below 1 or an unknown reduction.
        """
        super().__init__()
        if samples < 1 or (chunk is not None and chunk < 1):
            raise GenclsError(f"EoT: expected samples >= 1 and chunk >= 1, got samples={samples}, chunk={chunk}")
        self.model = model
        self.samples = samples
        self.reduce: Reduce = reduce
        self.chunk = min(chunk or samples, samples)
        self.training = model.training

    def per_draw(self, images: Tensor) -> Tensor:
        """Scores of the single draws: (N, C, H, W) -> (N, S, K).

        If a pass makes fewer draws than S, the backward pass draws the same numbers again, chunk by chunk. So only one chunk's
        graph exists at a time, and there is no second derivative.
        """
        if self.chunk < self.samples and torch.is_grad_enabled() and images.requires_grad:
            scores: Tensor = _ChunkedDraws.apply(self, images)
            return scores
        if self.chunk == self.samples:
            return self._draw(images, range(self.samples))
        return torch.cat([self._draw(images, numbers) for numbers in self._chunks()], dim=1)

    def _chunks(self) -> list[range]:
        return [range(first, min(first + self.chunk, self.samples)) for first in range(0, self.samples, self.chunk)]

    def _draw(self, images: Tensor, numbers: range) -> Tensor:
        with draws(numbers):
            scores = forward_draws(self.model, images.clone(), len(numbers))  # a first layer may work in place
        return scores.view(images.shape[0], len(numbers), -1)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] -> mean scores (N, K)."""
        return self.average(self.per_draw(images))

    def average(self, scores: Tensor) -> Tensor:
        """The mean over draws: (N, S, K) -> (N, K)."""
        if self.reduce == "logits":
            return scores.mean(dim=1)
        log_probs = scores.log_softmax(dim=-1)
        if self.reduce == "probs":
            return log_probs.logsumexp(dim=1) - math.log(scores.shape[1])
        return log_probs.mean(dim=1)

    @property
    def stochastic(self) -> bool:
        """Whether the model declares itself stochastic: a mean of draws is random, too."""
        return declared(self.model, "stochastic")

    def surrogates(self) -> Mapping[str, nn.Module]:
        """Average over draws in every gradient mode of the model."""

        def averaged(module: nn.Module) -> nn.Module:
            return self if module is self.model else EoT(module, self.samples, reduce=self.reduce, chunk=self.chunk)

        return {name: averaged(module) for name, module in surrogates_of(self.model).items()}

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"samples={self.samples}, reduce={self.reduce!r}"


class _ChunkedDraws(torch.autograd.Function):
    """Computes the scores of all draws without a graph; the backward pass draws the same again, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, eot: EoT, images: Tensor) -> Tensor:
        ctx.eot, ctx.again = eot, []
        ctx.save_for_backward(images)
        scores = []
        for numbers in eot._chunks():
            ctx.again.append(repeatable())
            scores.append(eot._draw(images, numbers))
        return torch.cat(scores, dim=1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor]:
        images = ctx.saved_tensors[0].detach().requires_grad_()
        total = torch.zeros_like(images)
        for numbers, again in zip(ctx.eot._chunks(), ctx.again, strict=True):
            with torch.enable_grad(), again():
                scores = ctx.eot._draw(images, numbers)
            if not scores.requires_grad:
                raise GenclsError("EoT: expected scores with a gradient, got detached ones; declare a gradient in surrogates()")
            total += torch.autograd.grad(scores, images, grad_outputs[0][:, numbers.start : numbers.stop])[0]
        instead = "the draws come in chunks: set chunk=None"
        return None, first_only(total, *ctx.saved_tensors, *grad_outputs, owner="EoT", instead=instead)
