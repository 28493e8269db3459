"""Balls of Lp norms."""

from gencls.core.balls.lp_ball import L2Ball, LinfBall, LpBall, per_image
from gencls.core.balls.sparse import L0Ball, L1Ball
from gencls.core.errors import GenclsError
from gencls.core.names import did_you_mean

__all__ = ["BALLS", "L0Ball", "L1Ball", "L2Ball", "LinfBall", "LpBall", "ball_of", "per_image"]

BALLS: dict[str, LpBall] = {ball.key: ball for ball in (LinfBall(), L2Ball(), L1Ball(), L0Ball())}
"""By their keys."""


def ball_of(key: str, *, owner: str) -> LpBall:
    """The ball of a norm, or a GenclsError, which the owner of the setting begins, for an unknown key."""
    if key not in BALLS:
        hint = did_you_mean(key, BALLS)
        raise GenclsError(f"{owner}: {hint}expected norm to be one of {', '.join(map(repr, BALLS))}, got {key!r} (str)")
    return BALLS[key]
