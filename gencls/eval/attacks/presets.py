"""Attacks by name: single ones with their papers' defaults, and sets."""

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gencls.eval.attacks as methods
from gencls.core import GenclsError, checked, did_you_mean
from gencls.eval.attacks.default_set import TARGETS, default_attacks
from gencls.eval.attacks.mlvgm_set import mlvgm_attacks
from gencls.eval.attacks.parts.base import norms_of
from gencls.eval.attacks.parts.smoothing import SIGMAS
from gencls.eval.attacks.thesis_set import thesis_attacks
from gencls.eval.threats.protocol import kinds, made

PRESETS = (
    *("default-linf", "default-l2", "default-l1", "default-l0"),
    *("thesis-linf", "thesis-l2", "mlvgm-gender", "mlvgm-identities", "mlvgm-cars"),
)
"""Sets of attacks: ours, and those with the settings of a paper."""

_STEPS, _STARTS = {"steps": "steps"}, {"restarts": "restarts"}

_Method = tuple[Callable[..., methods.Attack], Mapping[str, str]]

_FIXED: Mapping[str, _Method] = {
    # the function that makes the attack, and the fields that ``steps`` and ``restarts`` set, if it has such fields
    "fgsm": (methods.FGSM, {}),
    "pgd": (methods.PGD, _STEPS | _STARTS),
    "pgd-margin": (partial(methods.PGD, loss="margin"), _STEPS | _STARTS),
    "pgd-multi-targeted": (partial(methods.PGD, loss="multi-targeted", restarts=TARGETS), _STEPS | _STARTS),
    "pgd-smoothed": (partial(methods.PGD, smoothing=SIGMAS), _STEPS | _STARTS),
    "noise": (methods.GaussianNoiseAttack, {"restarts": "tries"}),
    "nes": (methods.NES, _STEPS | _STARTS),
    "square": (methods.Square, {"steps": "queries"}),
    "sparse-rs": (methods.SparseRS, {"steps": "queries"}),
    "apgd": (methods.APGD, _STEPS | _STARTS),
    "apgd-dlr": (partial(methods.APGD, loss="dlr"), _STEPS | _STARTS),
    "apgd-targeted-dlr": (partial(methods.APGD, loss="targeted-dlr"), _STEPS | _STARTS),
    "apgd-multi-targeted": (partial(methods.APGD, loss="multi-targeted"), _STEPS | _STARTS),
    "apgd-smoothed": (partial(methods.APGD, smoothing=SIGMAS), _STEPS | _STARTS),
    "autoattack": (methods.AutoAttack, _STEPS),
    "autoattack-rand": (partial(methods.AutoAttack, version="rand"), _STEPS),
}

_MINIMAL: Mapping[str, _Method] = {
    "deepfool": (methods.DeepFool, _STEPS),
    "ddn": (methods.DDN, _STEPS),
    "ddn-smoothed": (partial(methods.DDN, smoothing=SIGMAS), _STEPS),
    "cw": (methods.CarliniWagner, {"steps": "steps", "restarts": "searches"}),
    "fab": (methods.FAB, _STEPS | _STARTS),
    "fmn": (methods.FMN, _STEPS | _STARTS),
    "fmn-smoothed": (partial(methods.FMN, smoothing=SIGMAS), _STEPS | _STARTS),
    "boundary": (methods.Boundary, {"steps": "queries"}),
    "growing-noise": (methods.GrowingNoise, {"steps": "sizes", "restarts": "tries"}),
    "latent-descent": (methods.LatentDescent, _STEPS),
}

_METHODS = {**_FIXED, **_MINIMAL}

FIXED = tuple(_FIXED)
"""Methods with a budget; with a norm each makes a name, as in pgd-linf."""

MINIMAL = tuple(_MINIMAL)
"""Methods that minimise the distance."""


def _pairs() -> dict[str, tuple[str, str]]:
    """Method and key of the threat by the name of the attack. If two pairs make one name, the longer method gets it."""
    classes: dict[str, Any] = {method: getattr(make, "func", make) for method, (make, _) in _METHODS.items()}
    return {f"{method}-{norm}": (method, norm) for method in classes for norm in norms_of(classes[method])}


@checked
def attack_by_name(
    name: str, epsilon: float | None = None, *, steps: int | None = None, restarts: int | None = None
) -> methods.Attack:
    """One attack with its paper's defaults.

    Args:
        name: a method of :data:`FIXED` or :data:`MINIMAL` and the key of a threat, as in "pgd-linf" or "ddn-l2".
        epsilon: bound of the threat for methods with a budget, in its unit.
        steps: number of steps, or of queries or sizes for methods without steps; None keeps the default.
        restarts: number of starts, draws or searches, for methods that have them; None keeps the default.

    Raises:
        GenclsError: for an unknown name, a missing epsilon, or a setting that the method does not take.
    """
    given = {"epsilon": epsilon, "steps": steps, "restarts": restarts}
    _refuse_others(name, given)
    method, norm = _parts(name)
    if method in FIXED and epsilon is None:
        raise GenclsError(f"attack: expected an epsilon for {name}, got none")
    make, fields = _METHODS[method]
    settings = {field: given[setting] for setting, field in fields.items() if given[setting] is not None}
    return make(made(norm, epsilon), **settings)


def settings_of(name: str) -> frozenset[str]:
    """The settings among "epsilon", "steps" and "restarts" that an attack or a set of attacks takes.

    Raises:
        GenclsError: for an unknown name.
    """
    if name in PRESETS:
        return frozenset() if name.startswith("mlvgm") else frozenset({"epsilon"})
    method, _ = _parts(name)
    return frozenset(_METHODS[method][1]) | ({"epsilon"} if method in FIXED else set())


def _refuse_others(name: str, given: Mapping[str, float | None]) -> None:
    for setting, value in given.items():
        if value is not None and setting not in settings_of(name):
            why = "because it minimises the distance" if setting == "epsilon" else "which has none"
            why = "whose attacks have the settings of the paper" if name in PRESETS else why
            raise GenclsError(f"attack: expected no {setting} for {name}, {why}, got {value:g}; leave it out")


def _parts(name: str) -> tuple[str, str]:
    if name in (pairs := _pairs()):
        return pairs[name]
    for method, norm in itertools.product(reversed(_METHODS), kinds()):
        if name == f"{method}-{norm}":
            served = ", ".join(other for of, other in pairs.values() if of == method)
            raise GenclsError(f"attack: expected a threat that {method} searches, one of {served}; got {norm} in {name}")
    hint = did_you_mean(name, [*pairs, *PRESETS])
    raise GenclsError(f"attack: {hint}expected a name among {', '.join(pairs)}; got {name}")


def names() -> list[str]:
    """All names that :func:`attack_by_name` takes."""
    return list(_pairs())


@checked
def preset_by_name(name: str, epsilon: float | None = None) -> Mapping[str, methods.Attack]:
    """A set of attacks, by a name of :data:`PRESETS`.

    Raises:
        GenclsError: for an unknown name, a missing epsilon if a method needs one, or an epsilon if none does.
    """
    if name not in PRESETS:
        raise GenclsError(f"attack: {did_you_mean(name, PRESETS)}expected a set among {', '.join(PRESETS)}; got {name}")
    _refuse_others(name, {"epsilon": epsilon})
    paper, _, rest = name.partition("-")
    if paper == "mlvgm":
        return mlvgm_attacks(rest)
    if epsilon is None:
        raise GenclsError(f"attack: expected an epsilon for {name}, got none")
    return (default_attacks if paper == "default" else thesis_attacks)(rest, epsilon)
