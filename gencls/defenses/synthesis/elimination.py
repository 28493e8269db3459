"""Hopeless classes leave the descent early: the fast path of analysis by synthesis."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gencls.core import GenclsError, check_settings

__all__ = ["Contest", "Elimination"]


@dataclass(frozen=True)
class Elimination:
    """When a class leaves: at ``step``, if its lowest loss so far is above 1 + margin times the lowest of its image.

    A class that is out keeps its latents and its last loss, an upper bound on its minimum. The remaining classes make exactly
    the same steps as without elimination, with the same random numbers. So a decision changes only if the rule sends out the
    winner. The rule is scale-free. It needs losses that are not negative, such as those of ABS and E-ABS. The margins are ours;
    docs/performance.md has their cost and effect.

    Attributes:
        rounds: pairs (step, margin). Steps count from 1, and step 1 sees the losses of the start.
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
        """Begin with all classes; ``target`` holds the embeddings (N, K, ...) that reconstructions are compared with."""
        self.pairs: tuple[Tensor, Tensor] | None = None
        """Remaining images and classes, each (M,), sorted by class; None stands for all."""
        self.target = target
        self._all, self._margins = target, dict(rule.rounds)
        self._active: Tensor | None = None
        self._last = self._lowest = torch.empty(0)

    def losses(self, present: Tensor) -> Tensor:
        """Losses of the remaining classes (M,) or of all (N, K) -> of all, (N, K); a class that is out keeps its last loss."""
        return present if self.pairs is None else self._last.index_put(self.pairs, present)

    def keep(self, step: int, losses: Tensor) -> Tensor | None:
        """The classes that go on after the losses (N, K) of a step: (N, K) bool, or None for all; for ``minimize``."""
        self._last = losses
        # The lowest so far: in variational inference a single loss may be unlucky.
        self._lowest = losses if step == 1 else torch.minimum(self._lowest, losses)
        margin = self._margins.get(step)
        if margin is not None:
            best = self._lowest.amin(dim=1, keepdim=True)
            out = self._lowest > best + margin * best.abs()  # false for NaN, so some class always remains
            self._active = ~out if self._active is None else self._active & ~out
            labels, images = self._active.T.nonzero(as_tuple=True)  # waits for a GPU, but not at every step
            self.pairs = images, labels
            self.target = tuple(part[images, labels] for part in self._all)
        return self._active
