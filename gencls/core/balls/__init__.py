"""Balls of Lp norms."""

from gencls.core.balls.dense import L2, Linf
from gencls.core.balls.lp_ball import LpBall, per_image
from gencls.core.balls.sparse import L0, L1
from gencls.core.errors import GenclsError
from gencls.core.names import did_you_mean

__all__ = ["BALLS", "L0", "L1", "L2", "Linf", "LpBall", "ball_of", "per_image"]

BALLS: dict[str, LpBall] = {ball.key: ball for ball in (Linf(), L2(), L1(), L0())}
"""By their keys."""


def ball_of(key: str, *, owner: str) -> LpBall:
    """The ball of a norm, or a GenclsError, which the owner of the setting begins, for an unknown key."""
    if key not in BALLS:
        hint = did_you_mean(key, BALLS)
        raise GenclsError(f"{owner}: {hint}expected norm to be one of {', '.join(map(repr, BALLS))}, got {key!r} (str)")
    return BALLS[key]
