"""Hopeless classes leave the descent early: the fast path of analysis by synthesis."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gencls.core import GenclsError, check_settings

__all__ = ["Contest", "Elimination"]


@dataclass(frozen=True)
class Elimination:
    """When a class leaves: at ``step``, if its lowest loss so far is above 1 + margin times the lowest of its image.

    A class that is out keeps its latents, and with them its last loss, an upper bound on its minimum. Those that are left make
    exactly the steps that they make without elimination, with the same random numbers, so a decision changes only where the
    winner would have been sent out. The rule is scale-free and needs losses that are not negative, as those of ABS and E-ABS.
    The margins are ours; docs/performance.md has what they cost and change.

    Attributes:
        rounds: (step, margin), steps counted from 1, whose losses are those of the start.
    """

    rounds: tuple[tuple[int, float], ...] = ((1, 1.0), (4, 0.5))

    def __post_init__(self) -> None:
        """Check the values."""
        check_settings(self)
        if not self.rounds or any(step < 1 or margin < 0 for step, margin in self.rounds):
            raise GenclsError(f"Elimination: expected rounds of a step >= 1 and a margin >= 0, got {self.rounds}")


class Contest:
    """Which classes are still in, image by image, during one descent; see :class:`Elimination`."""

    def __init__(self, rule: Elimination, target: tuple[Tensor, ...]) -> None:
        """Begin with all classes; the reconstructions are compared with the target, tensors (N, K, ...)."""
        self.pairs: tuple[Tensor, Tensor] | None = None
        """Images and classes that are left, each (M,), sorted by class; None: all."""
        self.target = target
        self._all, self._margins = target, dict(rule.rounds)
        self._active: Tensor | None = None
        self._last = self._lowest = torch.empty(0)

    def losses(self, present: Tensor) -> Tensor:
        """Losses of those that are left (M,), or of all (N, K), to those of all, (N, K): who is out keeps the last."""
        return present if self.pairs is None else self._last.index_put(self.pairs, present)

    def keep(self, step: int, losses: Tensor) -> Tensor | None:
        """Which of all classes go on after the losses (N, K) of a step: (N, K) bool, or None for all; for ``minimize``."""
        self._last = losses
        # The lowest so far: in variational inference a single loss may be unlucky.
        self._lowest = losses if step == 1 else torch.minimum(self._lowest, losses)
        margin = self._margins.get(step)
        if margin is not None:
            best = self._lowest.amin(dim=1, keepdim=True)
            out = self._lowest > best + margin * best.abs()  # false for NaN: there is always somebody left
            self._active = ~out if self._active is None else self._active & ~out
            labels, images = self._active.T.nonzero(as_tuple=True)  # waits for a GPU, but not at every step
            self.pairs = images, labels
            self.target = tuple(part[images, labels] for part in self._all)
        return self._active
