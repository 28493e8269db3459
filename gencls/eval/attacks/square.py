"""The Square attack: random search with squares, from scores alone."""

import bisect
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from gencls.core import GenclsError
from gencls.core.balls import L1Ball, L2Ball, LinfBall, per_image
from gencls.eval.attacks.parts.attack_model import prepare
from gencls.eval.attacks.parts.base import CONVEX, require
from gencls.eval.attacks.parts.random_search import random_search
from gencls.eval.threats.protocol import Threat

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Iterations, of 10,000, after which the share of pixels in a square is halved (the paper's section 4)."""


@dataclass(frozen=True)
class Square:
    """Random search: a square of the perturbation is changed, and kept if that lowers the margin.

    Source: Andriushchenko et al. 2020, arXiv:1912.00049, Algorithms 1 to 3, with AutoAttack's settings; in L1 as in the
    AutoAttack of Croce and Hein 2021, arXiv:2103.01208. Each image has squares of its own. One that would change nothing takes
    the opposite signs, as the authors' own code does for one channel. In L2 the halves of a bump keep the norms of their
    pyramids, which are up to 7 % apart at odd sides; the paper's are equal.
    :func:`~gencls.eval.attacks.parts.random_search.random_search` says what a search keeps and when it ends.

    Attributes:
        threat: Linf, L2 or L1 with an epsilon; may be targeted.
        queries: looks at the model per image at most; for a stochastic defense each asks all EoT draws.
        share: p of the paper, the share in (0, 1] of the pixels that the first squares cover.
    """

    threat: Threat
    queries: int = 5000
    share: float = 0.8
    uses_gradients = False
    norms = CONVEX

    def __post_init__(self) -> None:
        require(self, targeted=True, norms=self.norms)
        if self.queries < 1 or not 0 < self.share <= 1:
            raise GenclsError(f"Square: expected queries >= 1 and a share in (0, 1], got {self.queries} and {self.share}")

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass per query."""
        return self.queries, 0

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        model = prepare(model, images, labels, self.threat)
        first, change = _SEARCHES[self.threat.norm]
        epsilon, targeted = self.threat.epsilon or 0.0, self.threat.targeted

        def changed(now: Tensor, clean: Tensor, progress: float) -> Tensor:
            return change(now, clean, epsilon, self._side(progress, images.shape))

        found = first(images, epsilon)
        return random_search(model, images, labels, found, changed, queries=self.queries, targeted=targeted)

    def _side(self, progress: float, shape: torch.Size) -> int:
        """Length of a square's side in pixels, for a fraction of the steps made."""
        share = self.share / 2 ** bisect.bisect_left(_HALVINGS, int(10_000 * progress))
        side = max(round(math.sqrt(share * shape[2] * shape[3])), 1)
        if self.threat.norm != "linf":
            side = max(side, 3) // 2 * 2 + 1  # odd: a bump has a centre
        return min(side, shape[2], shape[3])


def _stripes(clean: Tensor, epsilon: float) -> Tensor:
    """Vertical stripes of +-epsilon, a sign for each column and channel."""
    count, channels, _, width = clean.shape
    return LinfBall().confine(clean + epsilon * _signs(torch.rand(count, channels, 1, width).to(clean)), clean, epsilon)


def _recoloured(now: Tensor, clean: Tensor, epsilon: float, side: int) -> Tensor:
    """Algorithm 2: a square whose perturbation is +-epsilon, a sign for each channel."""
    count, channels, height, width = now.shape
    drawn = torch.rand(count, 2 + channels).to(now)
    rows, columns = _window(drawn[:, 0], side, height), _window(drawn[:, 1], side, width)
    inside = (rows.unsqueeze(2) * columns.unsqueeze(1)).unsqueeze(1)
    colour = 2 * epsilon * _signs(drawn[:, 2:]).view(count, channels, 1, 1) * inside
    changed = LinfBall().confine(now + colour, clean, epsilon)
    same = (changed == now).flatten(1).all(dim=1)
    return torch.where(per_image(same), LinfBall().confine(now - colour, clean, epsilon), changed)


def _tiles(clean: Tensor, epsilon: float, *, power: int) -> Tensor:
    """A grid of bumps, five along the shorter side where the image is large enough, each with signs of its own."""
    count, channels, height, width = clean.shape
    side = max(min(height, width) // 5, 1)
    rows, columns = height // side, width // side
    drawn = torch.rand(count, rows, columns, 1 + channels).to(clean)
    bumps = _bumps(side, power).to(clean)[(drawn[..., 0] < 0.5).long()]  # (N, rows, columns, side, side)
    signs = _signs(drawn[..., 1:]).movedim(3, 1)[..., None, None]  # (N, C, rows, columns, 1, 1)
    grid = (signs * bumps.unsqueeze(1)).transpose(3, 4).reshape(count, channels, rows * side, columns * side)
    top, left = (height - rows * side) // 2, (width - columns * side) // 2
    change = torch.zeros_like(clean)
    change[:, :, top : top + rows * side, left : left + columns * side] = grid
    return _confined(change, clean, epsilon, power)


def _moved(now: Tensor, clean: Tensor, epsilon: float, side: int, *, power: int) -> Tensor:
    """Algorithm 3: one window gives its share of the norm, with what clipping left unused, to a bump in another.

    In L1 each channel of the bump asks for as much as all have, and the projection decides which values get it.
    """
    count, channels, height, width = now.shape
    drawn = torch.rand(count, 5 + channels).to(now)
    rows, columns, rows_from, columns_from = (
        _window(drawn[:, i], side, length) for i, length in enumerate((height, width, height, width))
    )
    to = (rows.unsqueeze(2) * columns.unsqueeze(1)).unsqueeze(1)  # (N, 1, H, W), 1 inside
    away = (rows_from.unsqueeze(2) * columns_from.unsqueeze(1)).unsqueeze(1)
    # Each pixel of the window reads its place in the bump: its position less the window's.
    down, right = (rows.cumsum(1).long() - 1).clamp_min(0), (columns.cumsum(1).long() - 1).clamp_min(0)
    kind = (drawn[:, 4] < 0.5).long().view(-1, 1, 1)
    bump = _bumps(side, power).to(now)[kind, down.unsqueeze(2), right.unsqueeze(1)].unsqueeze(1) * to
    change = now - clean
    old = change * to
    new = bump * _signs(drawn[:, 5:]).view(count, channels, 1, 1) + old / _length(old, (2, 3), power)
    unused = (epsilon**power - _powers(change, (1, 2, 3), power)).clamp_min(0) / channels
    norm = unused + _powers(change * to.maximum(away), (2, 3), power)
    norm = norm.sqrt() if power == 2 else channels * norm
    moved = change * (1 - to) * (1 - away) + new / _length(new, (2, 3), power) * norm
    return _confined(moved, clean, epsilon, power)


def _confined(change: Tensor, clean: Tensor, epsilon: float, power: int) -> Tensor:
    """On the sphere in L2; in L1, whose projection keeps the largest values, at most there."""
    if power == 1:
        return L1Ball().confine(clean + change, clean, epsilon)
    return L2Ball().confine(clean + epsilon * change / _length(change, (1, 2, 3), power), clean, epsilon)


def _powers(change: Tensor, dims: tuple[int, ...], power: int) -> Tensor:
    """The sum of the absolute values, or of their squares."""
    return (change.square() if power == 2 else change.abs()).sum(dim=dims, keepdim=True)


def _length(change: Tensor, dims: tuple[int, ...], power: int) -> Tensor:
    total = _powers(change, dims, power)
    return (total.sqrt() if power == 2 else total).clamp_min(1e-12)


def _signs(drawn: Tensor) -> Tensor:
    """Uniform numbers -> -1 or 1."""
    return (drawn < 0.5).to(drawn) * 2 - 1


def _window(drawn: Tensor, side: int, length: int) -> Tensor:
    """Uniform numbers (N,) -> (N, length), 1 in an interval of ``side`` pixels whose places are all equally likely."""
    first = (drawn * (length - side + 1)).floor().clamp_max(length - side).unsqueeze(1)
    places = torch.arange(length, device=drawn.device)
    return ((places >= first) & (places < first + side)).to(drawn)


@functools.cache
def _bumps(side: int, power: int) -> Tensor:
    """The paper's eta: two pyramids of opposite sign, of norm 1, one above the other and side by side; (2, side, side).

    In L1 the pyramids are steeper, and of equal weight.
    """
    halves = [_pyramid(height, side, 2 if power == 2 else 4) for height in (side // 2, side - side // 2)]
    if power == 1:
        halves = [half / half.sum() for half in halves]
    bump = torch.cat([halves[0], -halves[1]])
    bump /= bump.norm(p=power)
    return torch.stack([bump, bump.T])


def _pyramid(height: int, width: int, slope: int) -> Tensor:
    """Nested rectangles around the centre, the c-th adding 1 / (c + 1)^slope."""
    down, right = (torch.arange(length).sub(length // 2).abs() for length in (height, width))
    rings = torch.maximum(down.unsqueeze(1), right.unsqueeze(0))
    heights = torch.arange(1, max(height, width) // 2 + 2).double().pow(-slope)
    return heights.flip(0).cumsum(0).flip(0)[rings]


_SEARCHES: Mapping[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "linf": (_stripes, _recoloured),
    "l2": (partial(_tiles, power=2), partial(_moved, power=2)),
    "l1": (partial(_tiles, power=1), partial(_moved, power=1)),
}
"""Two functions for each norm: one makes the first images of the search, the other the images to try."""
