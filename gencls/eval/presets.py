"""Attacks by name: single ones with their papers' defaults, and the sets of the two papers."""

from collections.abc import Callable, Mapping
from typing import Any

from gencls.core import GenclsError
from gencls.eval.attacks import (
    APGD,
    DDN,
    FAB,
    FGSM,
    NES,
    PGD,
    Attack,
    AutoAttack,
    Boundary,
    CarliniWagner,
    DeepFool,
    GaussianNoiseAttack,
    GrowingNoise,
    LatentDescent,
    RestartedCarliniWagner,
    Square,
)
from gencls.eval.threat import Norm, ThreatModel

__all__ = [
    "FIXED",
    "MINIMAL",
    "PRESETS",
    "attack_by_name",
    "mlvgm_attacks",
    "names",
    "preset_by_name",
    "thesis_attacks",
]

FIXED = ("fgsm", "pgd", "noise", "nes", "square", "apgd", "autoattack", "autoattack-rand")
"""Methods with a budget; with a norm each makes a name, as in pgd-linf."""

MINIMAL = ("deepfool", "ddn", "cw", "fab", "boundary", "growing-noise", "latent-descent")
"""Methods that minimise the distance; those that know one norm only are named with l2."""

PRESETS = ("thesis-linf", "thesis-l2", "mlvgm-gender", "mlvgm-identities", "mlvgm-cars")
"""Sets of attacks with the settings of a paper."""

_L2_ONLY = ("ddn", "cw", "boundary")

_MLVGM = {
    # overshoot, steps, candidates of DeepFool; learning rate, confidence, c, length of the start, window of C&W
    "gender": ((0.01, 1024, 2), (1e-3, 0.01, 64.0, 8.0, 32)),
    "identities": ((0.02, 128, 8), (5e-3, 0.05, 16.0, 2.0, 16)),
    "cars": ((0.02, 256, 4), (2e-3, 0.02, 24.0, 4.0, 16)),
}


def attack_by_name(name: str, epsilon: float | None = None, *, steps: int | None = None, restarts: int | None = None) -> Attack:
    """One attack with its paper's defaults.

    Args:
        name: a method of :data:`FIXED` or :data:`MINIMAL` and a norm, as in "pgd-linf" or "ddn-l2".
        epsilon: radius of the ball for methods with a budget, in [0, 1] pixel units.
        steps: of the methods that make steps, queries or sizes of others; None keeps the default. Methods without take none.
        restarts: starts, draws or searches of the methods that have them; None keeps the default.

    Raises:
        GenclsError: for an unknown name or a missing epsilon.
    """
    method, _, norm_name = name.rpartition("-")
    norms: dict[str, Norm] = {"linf": "linf", "l2": "l2"}
    if norm_name not in norms or method not in (*FIXED, *MINIMAL) or (method in _L2_ONLY and norm_name != "l2"):
        raise GenclsError(f"attack: expected a name among {', '.join(names())}; got {name}")
    if method in FIXED and epsilon is None:
        raise GenclsError(f"attack: expected an epsilon for {name}, got none")
    threat = ThreatModel(norms[norm_name], epsilon if method in FIXED else None)

    def given(**settings: int | None) -> dict[str, Any]:
        return {key: value for key, value in settings.items() if value is not None}

    makers: dict[str, Callable[[], Attack]] = {
        "fgsm": lambda: FGSM(threat),
        "pgd": lambda: PGD(threat, **given(steps=steps, restarts=restarts)),
        "noise": lambda: GaussianNoiseAttack(threat, **given(tries=restarts)),
        "nes": lambda: NES(threat, **given(steps=steps, restarts=restarts)),
        "square": lambda: Square(threat, **given(queries=steps)),
        "apgd": lambda: APGD(threat, **given(steps=steps, restarts=restarts)),
        "autoattack": lambda: AutoAttack(threat, **given(steps=steps)),
        "autoattack-rand": lambda: AutoAttack(threat, version="rand", **given(steps=steps)),
        "deepfool": lambda: DeepFool(threat, **given(steps=steps)),
        "ddn": lambda: DDN(threat, **given(steps=steps)),
        "cw": lambda: CarliniWagner(threat, **given(steps=steps, searches=restarts)),
        "fab": lambda: FAB(threat, **given(steps=steps, restarts=restarts)),
        "boundary": lambda: Boundary(threat, **given(queries=steps)),
        "growing-noise": lambda: GrowingNoise(threat, **given(sizes=steps, tries=restarts)),
        "latent-descent": lambda: LatentDescent(threat, **given(steps=steps)),
    }
    return makers[method]()


def names() -> list[str]:
    """All names that :func:`attack_by_name` takes."""
    return [
        f"{method}-{norm}" for method in (*FIXED, *MINIMAL) for norm in ("linf", "l2") if norm == "l2" or method not in _L2_ONLY
    ]


def preset_by_name(name: str, epsilon: float | None = None) -> Mapping[str, Attack]:
    """The set of a paper's attacks, by a name of :data:`PRESETS`.

    Raises:
        GenclsError: for an unknown name, or a missing epsilon where a method needs one.
    """
    if name not in PRESETS:
        raise GenclsError(f"attack: expected a set among {', '.join(PRESETS)}; got {name}")
    paper, _, rest = name.partition("-")
    if paper == "mlvgm":
        return mlvgm_attacks(rest)
    if epsilon is None:
        raise GenclsError(f"attack: expected an epsilon for {name}, got none")
    return thesis_attacks("linf" if rest == "linf" else "l2", epsilon)


def thesis_attacks(norm: Norm, epsilon: float, *, restarts: int = 5, black_box: bool = True) -> Mapping[str, Attack]:
    """The attacks of the thesis, section 2.3; EoT with 5 draws is a matter of the protocol.

    Args:
        norm: of the threat.
        epsilon: of PGD and NES; the others minimise the distance and are read at this size.
        restarts: 5 random starts for MNIST and FashionMNIST, 20 for SuperTraffic-10 and SVHN.
        black_box: with Boundary (100,000 queries, L2) and PGD with estimated gradients (50 steps), which take long.
    """
    ball, minimal = ThreatModel(norm, epsilon), ThreatModel(norm)
    found: dict[str, Attack] = {
        "pgd": PGD(ball, steps=80, restarts=restarts),
        "deepfool": DeepFool(minimal, steps=100),
    }
    if norm == "l2":
        found |= {"ddn": DDN(minimal, steps=80), "cw": CarliniWagner(minimal, searches=5, steps=100)}
        found |= {"noise": GrowingNoise(minimal)}
    if black_box:
        found |= {"nes": NES(ball, steps=50)}
        found |= {"boundary": Boundary(minimal, queries=100_000)} if norm == "l2" else {}
    return found


def mlvgm_attacks(task: str) -> Mapping[str, Attack]:
    """The attacks of the MLVGM paper (supplement C, tables 2 and 3); EoT with 32 draws is a matter of the protocol.

    Its AutoAttack (supplement F) is a reduced one at growing epsilons in the authors' code; :class:`~gencls.eval.AutoAttack` is
    the whole.

    Args:
        task: "gender" (256 px, 2 classes), "identities" (64 px, 100 classes) or "cars" (128 px, 4 classes).

    Raises:
        GenclsError: for another task.
    """
    if task not in _MLVGM:
        raise GenclsError(f"mlvgm_attacks: expected a task among {', '.join(_MLVGM)}, got {task!r}")
    (overshoot, steps, candidates), (rate, confidence, constant, length, window) = _MLVGM[task]
    minimal = ThreatModel("l2")
    return {
        "deepfool": DeepFool(minimal, steps=steps, overshoot=overshoot, candidates=candidates),
        "cw": RestartedCarliniWagner(
            minimal,
            restarts=8,
            steps=1024,
            learning_rate=rate,
            confidence=confidence,
            regularisation=constant,
            start_norm=length,
            window=window,
        ),
    }
