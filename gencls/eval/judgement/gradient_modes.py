"""The gradient through which an attack sees a defense."""

from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from gencls.core import GenclsError, checked, did_you_mean, surrogates_of
from gencls.core.gradient_modes import KNOWN, mode_named
from gencls.eval.attacks import Attack
from gencls.eval.attacks.parts.base import check_attacks
from gencls.eval.measures.records import ALL_MODES, NO_GRADIENT

_MEANINGS = {NO_GRADIENT: "The attack uses no gradient.", ALL_MODES: "Worst over every mode above that the study ran."}


def declared_modes(defense: nn.Module) -> Mapping[str, nn.Module]:
    """The gradient modes of a defense, or of a network or wrapper, see :func:`gencls.core.surrogates_of`.

    Raises:
        GenclsError: for a wrapper that hides modes, or a mode with a name that tables reserve.
    """
    modes = surrogates_of(defense)
    for name in (NO_GRADIENT, ALL_MODES):
        if name in modes:
            raise GenclsError(
                f"{type(defense).__name__}: expected another name for the gradient mode {name!r}, which tables have for rows "
                "without a gradient and for the worst case"
            )
    return modes


@checked
def gradient_modes(defense: nn.Module, attack: Attack, modes: Sequence[str] | None = None) -> tuple[str, ...]:
    """The gradient modes in which an attack runs against a defense: all declared ones, or only those among ``modes``.

    Raises:
        GenclsError: if the attack uses gradients and the defense declares none of ``modes``, or hides some.
    """
    check_attacks({"attack": attack}, "gradient_modes")
    if not attack.uses_gradients:
        return (NO_GRADIENT,)
    declared = tuple(declared_modes(defense))
    chosen = tuple(mode for mode in declared if modes is None or mode in modes)
    if not chosen:
        expected, got = ", ".join(declared), ", ".join(modes or ())
        hint = next(filter(None, (did_you_mean(mode, declared) for mode in modes or ())), "")
        raise GenclsError(f"{type(defense).__name__}: {hint}expected gradient modes among {expected}; got {got}")
    return chosen


def asked_by(mode: str, defense: nn.Module) -> nn.Module:
    """The module that an attack in this mode asks: the surrogate, or without gradients the defense itself.

    Raises:
        GenclsError: for a mode that the defense does not declare.
    """
    if mode == NO_GRADIENT:
        return defense
    declared = declared_modes(defense)
    if mode not in declared:
        raise GenclsError(f"{type(defense).__name__}: expected a gradient mode among {', '.join(declared)}, got {mode!r}")
    return declared[mode]


def meanings(names: Iterable[str]) -> dict[str, str]:
    """The meaning of each gradient mode: the package's modes, then others among these names, then further words of tables."""
    modes = dict.fromkeys([*(mode.name for mode in KNOWN), *names])
    return {name: mode_named(name).meaning for name in modes if name not in _MEANINGS} | _MEANINGS
