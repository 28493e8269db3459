"""Balls in which few entries move: L1 and L0."""

import math

import torch
from torch import Tensor

from gencls.core.balls.lp_ball import PUSH, ROUNDING, LpBall, Radius, free, inwards, per_image

__all__ = ["L0Ball", "L1Ball"]


class L1Ball(LpBall):
    """The ball of the sum of the absolute changes."""

    key = "l1"

    def length(self, change: Tensor) -> Tensor:
        return change.flatten(1).abs().sum(dim=1)

    def step(self, gradient: Tensor, size: Radius, images: Tensor) -> Tensor:
        """Move the entries with the largest gradients to the end of [0, 1], until the size is used up."""
        rates, room = _slopes(gradient, images)
        sizes = torch.as_tensor(size, dtype=torch.float64, device=images.device).expand(len(images))
        return _signed(gradient, _filled(rates, room, torch.ones_like(rates), sizes))

    def within(self, clean: Tensor, change: Tensor, radius: Radius) -> Tensor:
        """The nearest point in both the ball and [0, 1]: Croce and Hein 2021, arXiv:2103.01208, Proposition 2.1."""
        sizes, room = change.flatten(1).double().abs(), _room(change, clean)
        return (clean + _soft(change, sizes, room, radius)).clamp_(0, 1)

    def confine(self, images: Tensor, clean: Tensor, radius: float) -> Tensor:
        found = self.within(clean, images - clean, radius)
        return inwards(found, clean, self.length((found - clean).double()) > radius)

    def sample(self, like: Tensor, radius: float) -> Tensor:
        count = like.shape[1:].numel()
        sizes = -torch.rand_like(like).clamp_min(1e-30).log()  # directions of exponentials are uniform on the sphere
        share = torch.rand_like(like.flatten(1)[:, 0]).pow(1 / count)
        signs = (torch.rand_like(like) < 0.5).to(like) * 2 - 1
        return signs * sizes * per_image((1 - ROUNDING) * radius * share / self.length(sizes))

    def start(self, clean: Tensor, radius: float) -> Tensor:
        return self.confine(clean + self.sample(clean, radius), clean, radius)

    def cross(self, gap: Tensor, gradient: Tensor, images: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Move the entries with the largest gradients to the end of the range, until the gap is closed."""
        rates, room = _slopes(gradient, images)
        needed = gap.double().abs() + 2 * unit + PUSH * rates.amax(dim=1)
        moves = _filled(rates, room, rates, needed)
        return _crossing(gradient, moves, moves.sum(dim=1), (rates * room).sum(dim=1) >= needed)


class L0Ball(LpBall):
    """The ball of the number of changed entries. Each channel of a pixel counts by itself, as in FMN, arXiv:2102.12827.

    A radius that is no integer is as good as the next smaller one. The ball is not convex, and a step has no length in it: the
    size of a step is its largest entry, also in ``dual``.
    """

    key = "l0"

    def length(self, change: Tensor) -> Tensor:
        return (change != 0).flatten(1).sum(dim=1).to(change.dtype)

    def step(self, gradient: Tensor, size: Radius, images: Tensor) -> Tensor:
        gradient = gradient * free(gradient, images)
        largest = gradient.flatten(1).abs().amax(dim=1)
        return gradient * per_image(size / largest.where(largest > 0, 1.0))

    def within(self, clean: Tensor, change: Tensor, radius: Radius) -> Tensor:
        """Keep the entries that bring the images nearest. An entry's rank is its squared change, less what [0, 1] cuts off."""
        inside = (clean + change).clamp(0, 1)
        gains = (change.square() - (clean + change - inside).square()).flatten(1)
        return torch.where(_largest(gains, radius).view_as(clean), inside, clean)

    def confine(self, images: Tensor, clean: Tensor, radius: float) -> Tensor:
        return self.within(clean, images - clean, radius)

    def sample(self, like: Tensor, radius: float) -> Tensor:
        chosen = _largest(torch.rand_like(like).flatten(1), radius).view_as(like)
        return (2 * torch.rand_like(like) - 1) * chosen

    def start(self, clean: Tensor, radius: float) -> Tensor:
        """Give random entries random values."""
        chosen = _largest(torch.rand_like(clean).flatten(1), radius).view_as(clean)
        return torch.where(chosen, torch.rand_like(clean), clean)

    def between(self, clean: Tensor, far: Tensor, share: Tensor) -> Tensor:
        """Keep the largest changes."""
        change = far - clean
        kept = _largest(change.flatten(1).abs(), (share * self.length(change)).ceil())
        return torch.where(kept.view_as(clean), far, clean)

    def cross(self, gap: Tensor, gradient: Tensor, images: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Move the entries that gain most at the end of the range there, until the gap is closed."""
        rates, room = _slopes(gradient, images)
        needed, gains = gap.double().abs() + 2 * unit + PUSH * rates.amax(dim=1), rates * room
        moved = _filled(gains, torch.ones_like(gains), gains, needed) > 0
        return _crossing(gradient, room * moved, moved.sum(dim=1), gains.sum(dim=1) >= needed)

    def shares(self, change: Tensor) -> Tensor:
        return (change != 0).to(change.dtype)


def _room(change: Tensor, clean: Tensor) -> Tensor:
    """How far each entry can follow the sign of its change within [0, 1]: (N, P), in float64."""
    return torch.where(change > 0, 1 - clean.double(), clean.double()).flatten(1)


def _slopes(gradient: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """The absolute slopes, and the room along them in [0, 1]: (N, P) each, in float64."""
    return gradient.flatten(1).double().abs(), _room(gradient, images)


def _filled(rank: Tensor, room: Tensor, rates: Tensor, budget: Tensor) -> Tensor:
    """Moves (N, P) if the entries with the highest ranks go first, each as far as its room, until the budget (N,) is used up.

    A move of 1 takes its rate from the budget. Entries of rank 0 stay.
    """
    order = rank.argsort(dim=1, descending=True)
    costs = (rates * room).gather(1, order)
    left = (budget.unsqueeze(1) - costs.cumsum(dim=1) + costs).clamp_min(0)  # before each entry
    moves = torch.minimum(room.gather(1, order), left / rates.gather(1, order).clamp_min(1e-300))
    return torch.zeros_like(moves).scatter(1, order, moves) * (rank > 0)


def _signed(gradient: Tensor, moves: Tensor) -> Tensor:
    """Moves (N, P) with the signs of the gradient."""
    return gradient.sign() * moves.view_as(gradient).to(gradient.dtype)


def _crossing(gradient: Tensor, moves: Tensor, distance: Tensor, reached: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (N,) and steps (N, C, H, W); infinity and 0 where the boundary is not ``reached`` (N,)."""
    distance = distance.double().where(reached, torch.inf)
    return distance, _signed(gradient, moves * reached.unsqueeze(1))


def _largest(values: Tensor, count: Radius) -> Tensor:
    """Mark the largest entries of each row (N, P), bool; the count is one number, or one per row (N,)."""
    rank = values.argsort(dim=1, descending=True).argsort(dim=1)
    most = count.unsqueeze(1) if isinstance(count, Tensor) else count
    return rank < (most.floor() if isinstance(most, Tensor) else math.floor(most))


def _soft(change: Tensor, sizes: Tensor, room: Tensor, radius: Radius) -> Tensor:
    """The change with entries min(max(|.| - t, 0), room), with the smallest t >= 0 for which they add up to the radius at most.

    The sum falls with t and is linear between the sorted points |.| - room and |.|; below the first an entry stays at its
    room, from the second on it is 0. ``sizes`` are the absolute values of the change, in float64, (N, P) like ``room``.
    """
    limit = radius.double().unsqueeze(1) if isinstance(radius, Tensor) else radius
    total = torch.minimum(sizes, room).sum(dim=1, keepdim=True)
    points, order = torch.cat([(sizes - room).clamp_min(0), sizes], dim=1).sort(dim=1)
    falling = torch.where(order < sizes.shape[1], 1.0, -1.0).double().cumsum(dim=1)  # how many entries fall after each point
    falls = (points.diff(dim=1) * falling[:, :-1]).cumsum(dim=1)
    sums = total - torch.cat([torch.zeros_like(total), falls], dim=1)  # at each point
    last = ((sums > limit).sum(dim=1, keepdim=True) - 1).clamp_min(0)  # the last point with too much
    threshold = points.gather(1, last) + (sums.gather(1, last) - limit) / falling.gather(1, last).clamp_min(1.0)
    threshold = threshold.where(total > limit, 0.0)
    kept = torch.minimum((sizes - threshold).clamp_min(0), room)
    return change.sign() * kept.view_as(change).to(change.dtype)
