"""Schedules of the step size in the inner optimisation of analysis by synthesis."""

import math
from dataclasses import dataclass
from typing import Literal

from gencls.core import GenclsError, check_settings

__all__ = ["CyclicalRate"]


@dataclass(frozen=True)
class CyclicalRate:
    """The cyclical learning rate of GAN inversion (thesis, section 3.3, "Inference"; Smith 2017, arXiv:1506.01186).

    The rate starts at 1/10 of the maximum and reaches the maximum after 30 % of the steps. It falls to 1/100 of the maximum
    over the next 60 %, and stays there. Of T steps, step t = 1, ..., T takes the rate of the moment (t - 1) / T. The thesis
    does not say how the rate moves in between. Smith's cycle, which it cites, is linear.

    Attributes:
        start: the first rate, as a share of the maximum, > 0.
        end: the last rate, as a share of the maximum, > 0.
        rise: share of the steps in which the rate rises, > 0.
        fall: share of the steps in which it falls, > 0; ``rise + fall`` <= 1.
        shape: "linear", or "cosine" for half a period of a cosine in each part.
    """

    start: float = 0.1
    end: float = 0.01
    rise: float = 0.3
    fall: float = 0.6
    shape: Literal["linear", "cosine"] = "linear"

    def __post_init__(self) -> None:
        """Check the values."""
        check_settings(self)
        if min(self.start, self.end, self.rise, self.fall) <= 0 or self.rise + self.fall > 1 + 1e-9:
            got = f"{self.start}, {self.end}, {self.rise}, {self.fall}"
            raise GenclsError(f"CyclicalRate: expected start, end, rise, fall > 0 and rise + fall <= 1, got {got}")

    def __call__(self, step: int, steps: int) -> float:
        """The rate of one of T steps, counted from 1, as a share of the maximum."""
        moment = (step - 1) / steps
        if moment < self.rise:
            return self._between(self.start, 1.0, moment / self.rise)
        return self._between(1.0, self.end, min(1.0, (moment - self.rise) / self.fall))

    def _between(self, first: float, last: float, share: float) -> float:
        if self.shape == "cosine":
            share = 0.5 * (1 - math.cos(math.pi * share))
        return first + (last - first) * share
