"""The Square attack: random search with squares, from scores alone."""

import bisect
import functools
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, select
from gencls.core.balls import L2, Linf, per_image
from gencls.core.streams.keyed import repeatable
from gencls.eval.attacks.parts.attack_model import prepare
from gencls.eval.attacks.parts.base import DENSE, require
from gencls.eval.attacks.pgd import SURE_DRAWS
from gencls.eval.threats.lp_balls import ThreatModel

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Iterations, of 10,000, after which the share of pixels in a square is halved (the paper's section 4)."""


@dataclass(frozen=True)
class Square:
    """Random search: a square of the perturbation is changed, and kept if that lowers the margin.

    Source: Andriushchenko et al. 2020, arXiv:1912.00049, Algorithms 1 to 3, with AutoAttack's settings. Each image has squares
    of its own. One that would change nothing takes the opposite signs, as the authors' own code does for one channel. A
    stochastic defense is asked about the present and the changed image with the same fresh draws: a margin remembered from an
    earlier look would be that of a lucky draw, which no change beats.

    Attributes:
        threat: Linf or L2 with an epsilon; may be targeted.
        queries: looks at the model per image at most; for a stochastic defense each asks all EoT draws.
        share: of the pixels in the first squares, p of the paper.
    """

    threat: ThreatModel
    queries: int = 5000
    share: float = 0.8
    uses_gradients = False
    norms = DENSE

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
        first, change = (_stripes, _recoloured) if self.threat.norm == "linf" else (_tiles, _moved)
        epsilon, targeted = self.threat.epsilon or 0.0, self.threat.targeted
        best = first(images, epsilon)
        response = model.look(best, labels, targeted=targeted)
        success, missing = response.success, response.margin
        looks = math.ceil(SURE_DRAWS / model.eot.samples) if model.stochastic else 1
        if model.common_draws and model.stochastic:
            looks = self.queries + 1  # never: many looks at the same draws say no more than one
        streak = (success == 1).long()  # looks in a row that found every draw broken
        steps = (self.queries - 1) // (2 if model.stochastic else 1)
        for step in range(steps):
            alive = (streak < looks).nonzero().squeeze(1)
            if not len(alive):
                break
            clean, now, of = images[alive], best[alive], labels[alive]
            with select(alive):
                changed = change(now, clean, epsilon, self._side(step / steps, images.shape))
                again: Callable[[], Any] = nullcontext
                if model.stochastic:
                    again = repeatable()
                    before = model.look(now, of, targeted=targeted)
                    success[alive], missing[alive] = before.success, before.margin
                with again():
                    after = model.look(changed, of, targeted=targeted)
            better = (after.success > success[alive]) | ((after.success == success[alive]) & (after.margin < missing[alive]))
            better &= success[alive] < 1  # one that fools every draw is only looked at again
            best[alive] = torch.where(per_image(better), changed, now)
            success[alive] = after.success.where(better, success[alive])
            missing[alive] = after.margin.where(better, missing[alive])
            streak[alive] = torch.where(success[alive] == 1, streak[alive].where(~better, 0) + 1, 0)
        return best

    def _side(self, progress: float, shape: torch.Size) -> int:
        """Length of a square's side in pixels, for a fraction of the steps made."""
        share = self.share / 2 ** bisect.bisect_left(_HALVINGS, int(10_000 * progress))
        side = max(round(math.sqrt(share * shape[2] * shape[3])), 1)
        if self.threat.norm == "l2":
            side = max(side, 3) // 2 * 2 + 1  # odd: a bump has a centre
        return min(side, shape[2], shape[3])


def _stripes(clean: Tensor, epsilon: float) -> Tensor:
    """Vertical stripes of +-epsilon, a sign for each column and channel."""
    count, channels, _, width = clean.shape
    return Linf().confine(clean + epsilon * _signs(torch.rand(count, channels, 1, width).to(clean)), clean, epsilon)


def _recoloured(now: Tensor, clean: Tensor, epsilon: float, side: int) -> Tensor:
    """Algorithm 2: a square whose perturbation is +-epsilon, a sign for each channel."""
    count, channels, height, width = now.shape
    drawn = torch.rand(count, 2 + channels).to(now)
    rows, columns = _window(drawn[:, 0], side, height), _window(drawn[:, 1], side, width)
    inside = (rows.unsqueeze(2) * columns.unsqueeze(1)).unsqueeze(1)
    colour = 2 * epsilon * _signs(drawn[:, 2:]).view(count, channels, 1, 1) * inside
    changed = Linf().confine(now + colour, clean, epsilon)
    same = (changed == now).flatten(1).all(dim=1)
    return torch.where(per_image(same), Linf().confine(now - colour, clean, epsilon), changed)


def _tiles(clean: Tensor, epsilon: float) -> Tensor:
    """A grid of bumps, five along the shorter side where the image is large enough, each with signs of its own."""
    count, channels, height, width = clean.shape
    side = max(min(height, width) // 5, 1)
    rows, columns = height // side, width // side
    drawn = torch.rand(count, rows, columns, 1 + channels).to(clean)
    bumps = _bumps(side).to(clean)[(drawn[..., 0] < 0.5).long()]  # (N, rows, columns, side, side)
    signs = _signs(drawn[..., 1:]).movedim(3, 1)[..., None, None]  # (N, C, rows, columns, 1, 1)
    grid = (signs * bumps.unsqueeze(1)).transpose(3, 4).reshape(count, channels, rows * side, columns * side)
    top, left = (height - rows * side) // 2, (width - columns * side) // 2
    change = torch.zeros_like(clean)
    change[:, :, top : top + rows * side, left : left + columns * side] = grid
    return _on_sphere(change, clean, epsilon)


def _moved(now: Tensor, clean: Tensor, epsilon: float, side: int) -> Tensor:
    """Algorithm 3: one window gives its share of the norm, with what clipping left unused, to a bump in another."""
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
    bump = _bumps(side).to(now)[kind, down.unsqueeze(2), right.unsqueeze(1)].unsqueeze(1) * to
    change = now - clean
    old = change * to
    new = bump * _signs(drawn[:, 5:]).view(count, channels, 1, 1) + old / _length(old, (2, 3))
    unused = (epsilon**2 - change.square().sum(dim=(1, 2, 3), keepdim=True)).clamp_min(0) / channels
    norm = (unused + (change * to.maximum(away)).square().sum(dim=(2, 3), keepdim=True)).sqrt()
    moved = change * (1 - to) * (1 - away) + new / _length(new, (2, 3)) * norm
    return _on_sphere(moved, clean, epsilon)


def _on_sphere(change: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    return L2().confine(clean + epsilon * change / _length(change, (1, 2, 3)), clean, epsilon)


def _length(change: Tensor, dims: tuple[int, ...]) -> Tensor:
    return change.square().sum(dim=dims, keepdim=True).sqrt().clamp_min(1e-12)


def _signs(drawn: Tensor) -> Tensor:
    """Uniform numbers -> -1 or 1."""
    return (drawn < 0.5).to(drawn) * 2 - 1


def _window(drawn: Tensor, side: int, length: int) -> Tensor:
    """Uniform numbers (N,) -> (N, length), 1 in an interval of ``side`` pixels whose places are all equally likely."""
    first = (drawn * (length - side + 1)).floor().clamp_max(length - side).unsqueeze(1)
    places = torch.arange(length, device=drawn.device)
    return ((places >= first) & (places < first + side)).to(drawn)


@functools.cache
def _bumps(side: int) -> Tensor:
    """The paper's eta: two pyramids of opposite sign, of norm 1, one above the other and side by side; (2, side, side)."""
    bump = torch.cat([_pyramid(side // 2, side), -_pyramid(side - side // 2, side)])
    bump /= bump.norm()
    return torch.stack([bump, bump.T])


def _pyramid(height: int, width: int) -> Tensor:
    """Nested rectangles around the centre, the c-th adding 1 / (c + 1)^2."""
    down, right = (torch.arange(length).sub(length // 2).abs() for length in (height, width))
    rings = torch.maximum(down.unsqueeze(1), right.unsqueeze(0))
    heights = torch.arange(1, max(height, width) // 2 + 2).double().pow(-2)
    return heights.flip(0).cumsum(0).flip(0)[rings]
