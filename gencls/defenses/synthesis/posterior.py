"""The result of inference for each class: a latent, or a Gaussian over latents, at every level."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gencls.core import Latents, checked

__all__ = ["Posterior", "Q", "interpolated", "means", "moved", "together", "variables"]


@dataclass(frozen=True)
class Posterior:
    """The q of one latent level: the Gaussian N(mean, diag(exp(log_std))^2), or the point ``mean`` without a ``log_std``.

    Attributes:
        mean: (N, K, *shape).
        log_std: (N, K, *shape), or None for a point.
        start: z_init, where the descent began, (N, K, *shape); None if the regulariser does not ask for it.
    """

    mean: Tensor
    log_std: Tensor | None = None
    start: Tensor | None = None

    @property
    def std(self) -> Tensor:
        """The standard deviation, (N, K, *shape); 0 of a point."""
        return torch.zeros_like(self.mean) if self.log_std is None else self.log_std.exp()

    def sample(self) -> Tensor:
        """A latent for each class, (N, K, *shape); differentiable.

        All classes of an image share one draw, so it hardly changes the differences of their losses.
        """
        if self.log_std is None:
            return self.mean
        return self.mean + self.log_std.exp() * torch.randn_like(self.mean[:, :1])


Q = tuple[Posterior, ...]
"""One per latent level."""


def means(q: Q) -> Latents:
    """The means of all levels."""
    return tuple(level.mean for level in q)


def variables(q: Q) -> Latents:
    """The variables of a descent: the means of all levels, then their log standard deviations if they have any."""
    return *means(q), *(level.log_std for level in q if level.log_std is not None)


def moved(q: Q, found: Latents) -> Q:
    """The same q with other :func:`variables`."""
    spreads = found[len(q) :] or (None,) * len(q)
    return tuple(replace(level, mean=mean, log_std=std) for level, mean, std in zip(q, found, spreads, strict=False))


def together(function: Callable[..., Tensor], *qs: Q) -> Q:
    """Call a function on the same tensor of every q, tensor by tensor; the results form a q."""

    def each(*tensors: Tensor | None) -> Tensor | None:
        return None if tensors[0] is None else function(*tensors)

    return tuple(
        Posterior(function(*(q.mean for q in level)), each(*(q.log_std for q in level)), each(*(q.start for q in level)))
        for level in zip(*qs, strict=True)
    )


@checked
def interpolated(first: Q, second: Q, share: float) -> Q:
    """The q between two of the same classifier: ``share`` a of the first, a q_1 + (1 - a) q_2, at every level (section 3.4)."""
    return together(lambda one, two: share * one + (1 - share) * two, first, second)
