"""Balls of Lp norms."""

from gencls.core.balls.lp_ball import L2Ball, LinfBall, LpBall, per_image
from gencls.core.balls.sparse import L0Ball, L1Ball
from gencls.core.errors import GenclsError
from gencls.core.names import did_you_mean

__all__ = ["BALLS", "L0Ball", "L1Ball", "L2Ball", "LinfBall", "LpBall", "ball_of", "per_image"]

BALLS: dict[str, LpBall] = {ball.key: ball for ball in (LinfBall(), L2Ball(), L1Ball(), L0Ball())}
"""Every ball by its key."""


def ball_of(key: str, *, owner: str) -> LpBall:
    """The ball with this key. For an unknown key it raises a GenclsError that begins with the owner of the setting."""
    if key not in BALLS:
        hint = did_you_mean(key, BALLS)
        raise GenclsError(f"{owner}: {hint}expected norm to be one of {', '.join(map(repr, BALLS))}, got {key!r} (str)")
    return BALLS[key]
