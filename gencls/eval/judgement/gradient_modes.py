"""The gradient through which an attack sees a defense."""

from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from gencls.core import GenclsError, checked, did_you_mean, surrogates_of
from gencls.core.gradient_modes import BETWEEN, KNOWN, GradientMode, mode_named
from gencls.eval.attacks import Attack
from gencls.eval.attacks.parts.base import check_attacks
from gencls.eval.measures.names import check_meaning, check_names, isolated
from gencls.eval.measures.records import ALL_MODES, NO_GRADIENT

_MEANINGS = {NO_GRADIENT: "The attack uses no gradient.", ALL_MODES: "Worst over every mode above that the study ran."}


def declared_modes(defense: nn.Module) -> Mapping[str, nn.Module]:
    """The gradient modes of a defense, or of a network or wrapper, see :func:`gencls.core.surrogates_of`.

    Raises:
        GenclsError: for a wrapper that hides modes; for modes that are no modules by name; for a mode whose name cannot be
            printed or is reserved by tables, and a mode of the package to which the defense gives another meaning.
    """
    modes, owner = surrogates_of(defense), type(defense).__name__
    check_names(modes, f"{owner}, gradient modes")
    for mode in modes:
        if mode in (NO_GRADIENT, ALL_MODES):
            raise GenclsError(
                f"{owner}: expected another name for the gradient mode {mode!r}, which tables have for rows without a gradient "
                "and for the worst case"
            )
        if not all(mode.split(BETWEEN)):
            raise GenclsError(f"{owner}: expected the name of a gradient mode on both sides of {BETWEEN!r}, got {mode!a}")
        if isinstance(mode, GradientMode):
            _check_said(mode, owner)
    return modes


def _check_said(mode: GradientMode, owner: str) -> None:
    """Check what a mode says of itself: a defense may not say something else of a mode of the package."""
    check_meaning(mode.meaning, f"{owner}, gradient mode {mode.name!a}")
    for known in KNOWN:
        if mode == known and (mode.exact, mode.meaning) != (known.exact, known.meaning):
            raise GenclsError(
                f"{owner}: expected another name than {mode.name!a} for a gradient mode of its own, because that one means: "
                f"{known.meaning}"
            )


def own_meanings(defense: nn.Module, modes: Iterable[str]) -> dict[str, str]:
    """What a defense says of those of these modes whose name alone does not say it: name -> meaning."""
    asked = set(modes) - {NO_GRADIENT}
    said = [mode for mode in declared_modes(defense) if mode in asked and isinstance(mode, GradientMode)] if asked else []
    return {mode.name: mode.meaning for mode in said if mode.meaning != mode_named(mode.name).meaning}


@checked
def gradient_modes(defense: nn.Module, attack: Attack, modes: Sequence[str] | None = None) -> tuple[str, ...]:
    """The gradient modes in which an attack runs against a defense: all declared ones, or only those among ``modes``.

    Raises:
        GenclsError: if the attack uses gradients and the defense declares none of ``modes``, or hides some.
    """
    check_attacks({"attack": attack}, "gradient_modes")
    if not attack.uses_gradients:
        return (NO_GRADIENT,)
    declared = tuple(map(str, declared_modes(defense)))
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


def meanings(names: Iterable[str], own: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The meaning of each gradient mode: the package's modes, then others among these names, then further words of tables.

    Args:
        names: names of modes.
        own: the :func:`own_meanings` of each defense. If two defenses give one name different meanings, each is named.
    """
    modes = dict.fromkeys([*(mode.name for mode in KNOWN), *names])
    found = {name: _told_by(name, own) or mode_named(name).meaning for name in modes if name not in _MEANINGS}
    return found | _MEANINGS


def _told_by(mode: str, own: Mapping[str, Mapping[str, str]]) -> str:
    told = {defense: said[mode] for defense, said in own.items() if mode in said}
    if len(set(told.values())) < 2:
        return next(iter(told.values()), "")
    return " ".join(f"{isolated(defense)}: {meaning}" for defense, meaning in told.items())
