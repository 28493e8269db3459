"""Through which gradient an attack sees a defense."""

from collections.abc import Sequence

from torch import nn

from gencls.core import Defense, GenclsError
from gencls.eval.attacks import Attack

__all__ = ["NO_GRADIENT", "asked_by", "gradient_modes"]

NO_GRADIENT = "none"
"""The gradient mode of attacks that use none."""


def gradient_modes(defense: nn.Module, attack: Attack, modes: Sequence[str] | None = None) -> tuple[str, ...]:
    """The gradient modes in which an attack is run against a defense: all that it declares, or those among ``modes``.

    Raises:
        GenclsError: if the attack uses gradients and the defense declares none of ``modes``.
    """
    if not attack.uses_gradients:
        return (NO_GRADIENT,)
    declared = tuple(defense.surrogates()) if isinstance(defense, Defense) else ("exact",)
    chosen = tuple(mode for mode in declared if modes is None or mode in modes)
    if not chosen:
        expected = ", ".join(declared)
        raise GenclsError(f"{type(defense).__name__}: expected gradient modes among {expected}; got {', '.join(modes or ())}")
    return chosen


def asked_by(mode: str, defense: nn.Module) -> nn.Module:
    """What an attack in this mode asks: the surrogate, or the defense itself where no gradient is used."""
    return defense.surrogate(mode) if isinstance(defense, Defense) and mode != NO_GRADIENT else defense
