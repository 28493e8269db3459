"""Random search from scores alone: a changed image takes the place of the best one if it is nearer to the goal."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from gencls.core import select
from gencls.core.balls import per_image
from gencls.core.streams.keyed import repeatable
from gencls.eval.attacks.parts.attack_model import AttackModel, sure_looks


def random_search(
    model: AttackModel,
    images: Tensor,
    labels: Tensor,
    first: Tensor,
    change: Callable[[Tensor, Tensor, float], Tensor],
    *,
    queries: int,
    targeted: bool,
) -> Tensor:
    """The best images found in so many queries.

    A deterministic defense is done with at its first wrong decision. A stochastic one is asked about the present and the
    changed image with the same fresh draws: a margin remembered from an earlier look would be that of a lucky draw, which no
    change beats.

    Args:
        model: the attack model.
        images: (N, C, H, W), the clean images.
        labels: (N,), classes to leave, or to reach.
        first: (N, C, H, W), where the search begins.
        change: the best images of some rows, their clean images and the fraction of the steps made -> other images to try.
        queries: looks at the model per image at most; for a stochastic defense each asks all EoT draws.
        targeted: whether the goal is to reach the labels rather than to leave them.
    """
    best = first
    response = model.look(best, labels, targeted=targeted)
    success, missing = response.success, response.margin
    looks = sure_looks(model)
    if model.common_draws and model.stochastic:
        looks = queries + 1  # never: many looks at the same draws say no more than one
    streak = (success == 1).long()  # looks in a row that found every draw broken
    steps = (queries - 1) // (2 if model.stochastic else 1)
    for step in range(steps):
        alive = (streak < looks).nonzero().squeeze(1)
        if not len(alive):
            break
        clean, now, of = images[alive], best[alive], labels[alive]
        with select(alive):
            changed = change(now, clean, step / steps)
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
