"""Sparse-RS in L0: random search over which values of an image change, from scores alone."""

import bisect
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gencls.core import GenclsError
from gencls.eval.attacks.parts.attack_model import prepare
from gencls.eval.attacks.parts.base import require
from gencls.eval.attacks.parts.random_search import random_search
from gencls.eval.threats.protocol import Threat

_FALLS = (0, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Iterations, of 10,000, after which fewer values are exchanged (the paper's schedule, in the authors' code)."""

_DIVISORS = (1, 2, 4, 5, 6, 8, 10, 12, 15, 20)


@dataclass(frozen=True)
class SparseRS:
    """Random search: some of the k changed values become clean again, as many others go to 0 or 1; kept if better.

    Source: Croce et al. 2022, arXiv:2006.12834, Algorithms 1 and 2, in what the authors' code calls the feature space: like the
    threat it counts each channel of a pixel by itself. ``pixels`` is the paper's pixel space, where whole pixels change. A
    value that would keep its clean colour takes the opposite one: on a digit half of the tries would change nothing. Targeted
    searches go by the margin too; the authors' take the cross-entropy there.
    :func:`~gencls.eval.attacks.parts.random_search.random_search` says what a search keeps and when it ends.

    Attributes:
        threat: L0 with an epsilon, the number of values k; may be targeted.
        queries: looks at the model per image at most; for a stochastic defense each asks all EoT draws.
        share: alpha of the paper, the share in (0, 1] of the k values that the first step exchanges; the paper takes 0.1 if
            targeted.
        pixels: whether to change all channels of epsilon / C pixels.
    """

    threat: Threat
    queries: int = 10_000
    share: float = 0.3
    pixels: bool = False
    uses_gradients = False
    norms = ("l0",)

    def __post_init__(self) -> None:
        require(self, targeted=True, norms=self.norms)
        if self.queries < 1 or not 0 < self.share <= 1:
            raise GenclsError(f"SparseRS: expected queries >= 1 and a share in (0, 1], got {self.queries} and {self.share}")

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass per query."""
        return self.queries, 0

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        model, group = prepare(model, images, labels, self.threat), images.shape[1] if self.pixels else 1
        most = math.floor(self.threat.epsilon or 0.0) // group
        if most < 1:
            raise GenclsError(f"SparseRS: expected an epsilon of at least one pixel of {group} values, got {self.threat}")

        def change(now: Tensor, clean: Tensor, progress: float) -> Tensor:
            count = max(int(self._alpha(progress) * most), 1)
            return _image(_exchanged(_entries(now, group), _entries(clean, group), count), clean)

        first = _image(_random(_entries(images, group), most), images)
        return random_search(model, images, labels, first, change, queries=self.queries, targeted=self.threat.targeted)

    def _alpha(self, progress: float) -> float:
        """The share of the k values that are exchanged, for a fraction of the steps made."""
        return self.share / _DIVISORS[bisect.bisect_left(_FALLS, int(10_000 * progress))]


def _entries(images: Tensor, group: int) -> Tensor:
    """(N, C, H, W) -> (N, P, c): P values that change one by one (c = 1), or pixels with their channels."""
    return images.flatten(1).unsqueeze(2) if group == 1 else images.flatten(2).transpose(1, 2)


def _image(entries: Tensor, like: Tensor) -> Tensor:
    """The reverse of :func:`_entries`."""
    return entries.transpose(1, 2).reshape(like.shape)


def _random(clean: Tensor, most: int) -> Tensor:
    """So many entries (N, P, c), drawn at random, in random corners of the colours."""
    chosen = _drawn(clean).topk(most, dim=1).indices
    return _written(clean, chosen, _corners(clean, chosen))


def _exchanged(now: Tensor, clean: Tensor, count: int) -> Tensor:
    """As many changed entries become clean as others change; where all are changed, some take new colours."""
    changed, drawn = (now != clean).any(dim=2), _drawn(clean)
    others = clean.shape[1] - int(changed[0].sum()) if len(changed) else 0
    count = min(count, others or count)
    leaving = drawn.where(changed, -1.0).topk(count, dim=1).indices
    entering = drawn.where(~changed, -1.0).topk(count, dim=1).indices if others else leaving
    return _written(_written(now, leaving, _at(clean, leaving)), entering, _corners(clean, entering))


def _drawn(entries: Tensor) -> Tensor:
    """A uniform number for each entry: (N, P)."""
    return torch.rand(entries.shape[:2]).to(entries)


def _corners(clean: Tensor, chosen: Tensor) -> Tensor:
    """Random corners of the colours, others than the clean ones: (N, count, c)."""
    colours = (torch.rand(*chosen.shape, clean.shape[2]).to(clean) < 0.5).to(clean)
    same = (colours == _at(clean, chosen)).all(dim=2, keepdim=True)
    return torch.where(same, 1 - colours, colours)


def _at(entries: Tensor, chosen: Tensor) -> Tensor:
    return entries.gather(1, chosen.unsqueeze(2).expand(-1, -1, entries.shape[2]))


def _written(entries: Tensor, chosen: Tensor, values: Tensor) -> Tensor:
    return entries.scatter(1, chosen.unsqueeze(2).expand_as(values), values)
