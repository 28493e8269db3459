"""Attacks by name: single ones with their papers' defaults, the sets of the two papers, and the set that we stand behind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from gencls.core import GenclsError, check_settings, checked, did_you_mean
from gencls.eval.attacks import (
    APGD,
    DDN,
    FAB,
    FGSM,
    FMN,
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
from gencls.eval.attacks.default_set import TARGETS, default_attacks
from gencls.eval.attacks.parts.smoothing import SIGMAS
from gencls.eval.threats.lp_balls import ThreatModel

__all__ = [
    "FIXED",
    "MINIMAL",
    "PRESETS",
    "ThesisBudget",
    "attack_by_name",
    "mlvgm_attacks",
    "names",
    "preset_by_name",
    "settings_of",
    "thesis_attacks",
]

FIXED = (
    *("fgsm", "pgd", "pgd-margin", "pgd-multi-targeted", "pgd-smoothed", "noise", "nes", "square"),
    *("apgd", "apgd-dlr", "apgd-targeted-dlr", "apgd-multi-targeted", "apgd-smoothed", "autoattack", "autoattack-rand"),
)
"""Methods with a budget; with a norm each makes a name, as in pgd-linf."""

MINIMAL = (
    *("deepfool", "ddn", "ddn-smoothed", "cw", "fab", "fmn", "fmn-smoothed", "boundary", "growing-noise"),
    "latent-descent",
)
"""Methods that minimise the distance; those that know one norm only are named with l2."""

PRESETS = ("default-linf", "default-l2", "thesis-linf", "thesis-l2", "mlvgm-gender", "mlvgm-identities", "mlvgm-cars")
"""Sets of attacks: ours, and those with the settings of a paper."""

_L2_ONLY = ("ddn", "ddn-smoothed", "cw", "boundary")

_MLVGM = {
    # overshoot, steps, candidates of DeepFool; learning rate, confidence, c, length of the start, window of C&W
    "gender": ((0.01, 1024, 2), (1e-3, 0.01, 64.0, 8.0, 32)),
    "identities": ((0.02, 128, 8), (5e-3, 0.05, 16.0, 2.0, 16)),
    "cars": ((0.02, 256, 4), (2e-3, 0.02, 24.0, 4.0, 16)),
}


_STEPS, _STARTS = {"steps": "steps"}, {"restarts": "restarts"}

_METHODS: Mapping[str, tuple[Callable[..., Attack], Mapping[str, str]]] = {
    # what makes the attack; which of its fields ``steps`` and ``restarts`` set, where it has something of the kind
    "fgsm": (FGSM, {}),
    "pgd": (PGD, _STEPS | _STARTS),
    "pgd-margin": (partial(PGD, loss="margin"), _STEPS | _STARTS),
    "pgd-multi-targeted": (partial(PGD, loss="multi-targeted", restarts=TARGETS), _STEPS | _STARTS),
    "pgd-smoothed": (partial(PGD, smoothing=SIGMAS), _STEPS | _STARTS),
    "noise": (GaussianNoiseAttack, {"restarts": "tries"}),
    "nes": (NES, _STEPS | _STARTS),
    "square": (Square, {"steps": "queries"}),
    "apgd": (APGD, _STEPS | _STARTS),
    "apgd-dlr": (partial(APGD, loss="dlr"), _STEPS | _STARTS),
    "apgd-targeted-dlr": (partial(APGD, loss="targeted-dlr"), _STEPS | _STARTS),
    "apgd-multi-targeted": (partial(APGD, loss="multi-targeted"), _STEPS | _STARTS),
    "apgd-smoothed": (partial(APGD, smoothing=SIGMAS), _STEPS | _STARTS),
    "autoattack": (AutoAttack, _STEPS),
    "autoattack-rand": (partial(AutoAttack, version="rand"), _STEPS),
    "deepfool": (DeepFool, _STEPS),
    "ddn": (DDN, _STEPS),
    "ddn-smoothed": (partial(DDN, smoothing=SIGMAS), _STEPS),
    "cw": (CarliniWagner, {"steps": "steps", "restarts": "searches"}),
    "fab": (FAB, _STEPS | _STARTS),
    "fmn": (FMN, _STEPS | _STARTS),
    "fmn-smoothed": (partial(FMN, smoothing=SIGMAS), _STEPS | _STARTS),
    "boundary": (Boundary, {"steps": "queries"}),
    "growing-noise": (GrowingNoise, {"steps": "sizes", "restarts": "tries"}),
    "latent-descent": (LatentDescent, _STEPS),
}


@checked
def attack_by_name(name: str, epsilon: float | None = None, *, steps: int | None = None, restarts: int | None = None) -> Attack:
    """One attack with its paper's defaults.

    Args:
        name: a method of :data:`FIXED` or :data:`MINIMAL` and a norm, as in "pgd-linf" or "ddn-l2".
        epsilon: radius of the ball for methods with a budget, in [0, 1] pixel units.
        steps: of the methods that make steps, queries or sizes of others; None keeps the default.
        restarts: starts, draws or searches of the methods that have them; None keeps the default.

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
    return make(ThreatModel(norm, epsilon), **settings)


def settings_of(name: str) -> frozenset[str]:
    """Which of "epsilon", "steps" and "restarts" an attack or a set of attacks takes.

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
    if name not in (known := names()):
        hint = did_you_mean(name, [*known, *PRESETS])
        raise GenclsError(f"attack: {hint}expected a name among {', '.join(known)}; got {name}")
    method, _, norm = name.rpartition("-")
    return method, "linf" if norm == "linf" else "l2"


def names() -> list[str]:
    """All names that :func:`attack_by_name` takes."""
    return [
        f"{method}-{norm}" for method in (*FIXED, *MINIMAL) for norm in ("linf", "l2") if norm == "l2" or method not in _L2_ONLY
    ]


@checked
def preset_by_name(name: str, epsilon: float | None = None) -> Mapping[str, Attack]:
    """A set of attacks, by a name of :data:`PRESETS`.

    Raises:
        GenclsError: for an unknown name, a missing epsilon where a method needs one, or one where none does.
    """
    if name not in PRESETS:
        raise GenclsError(f"attack: {did_you_mean(name, PRESETS)}expected a set among {', '.join(PRESETS)}; got {name}")
    _refuse_others(name, {"epsilon": epsilon})
    paper, _, rest = name.partition("-")
    if paper == "mlvgm":
        return mlvgm_attacks(rest)
    if epsilon is None:
        raise GenclsError(f"attack: expected an epsilon for {name}, got none")
    return (default_attacks if paper == "default" else thesis_attacks)("linf" if rest == "linf" else "l2", epsilon)


@dataclass(frozen=True, kw_only=True)
class ThesisBudget:
    """How much the attacks of the thesis spend; the defaults are those of its section 2.3.

    Attributes:
        restarts: random starts of PGD; 5 for MNIST and FashionMNIST, 20 for SuperTraffic-10 and SVHN.
        pgd_steps: gradient steps per start.
        deepfool_steps: linearisations of DeepFool.
        ddn_steps: gradient steps of DDN.
        cw_searches: binary searches of C&W.
        cw_steps: gradient steps per search.
        noise_sizes: standard deviations of the growing noise from 0.002 to 1, one draw each; their number is not given.
        nes_steps: steps of PGD with estimated gradients.
        nes_pairs: pairs of images per estimated gradient; not given.
        boundary_queries: looks of the Boundary attack.
        targets: beyond the thesis: classes that multi-targeted PGD aims at, the most likely first.
        smoothed_steps: beyond the thesis: steps of PGD along smoothed gradients, for each standard deviation.
        smoothed_draws: beyond the thesis: noisy images per gradient of it.
        smoothing: beyond the thesis: its standard deviations, in [0, 1] pixel units.
        descent_steps: beyond the thesis: steps of the latent descent attack; 500 in the paper of ABS.
        descent_rate: beyond the thesis: share of the way to the reconstruction in one of these; 0.01 in the paper of ABS.
    """

    restarts: int = 5
    pgd_steps: int = 80
    deepfool_steps: int = 100
    ddn_steps: int = 80
    cw_searches: int = 5
    cw_steps: int = 100
    noise_sizes: int = 50
    nes_steps: int = 50
    nes_pairs: int = 50
    boundary_queries: int = 100_000
    targets: int = TARGETS
    smoothed_steps: int = 80
    smoothed_draws: int = 16
    smoothing: tuple[float, ...] = SIGMAS
    descent_steps: int = 500
    descent_rate: float = 0.01

    def __post_init__(self) -> None:
        """Check the types; the attacks check their ranges."""
        check_settings(self)


@checked
def thesis_attacks(
    norm: str,
    epsilon: float,
    *,
    budget: ThesisBudget | None = None,
    black_box: bool = True,
    beyond: bool = False,
    synthesis: bool = True,
    starts: Tensor | None = None,
) -> Mapping[str, Attack]:
    """The attacks of the thesis, section 2.3; EoT with 5 draws is a matter of the protocol.

    Eq. 2.9, the adaptive gradient, is the gradient mode "frozen" of a Bayes classifier; its other modes go beyond the thesis.

    Args:
        norm: of the threat.
        epsilon: of PGD and NES; the others minimise the distance and are read at this size.
        budget: steps, starts and queries; None takes the thesis's.
        black_box: with Boundary (L2) and PGD with estimated gradients, which take long.
        beyond: with what the thesis does not have: multi-targeted PGD, and in L2 PGD along smoothed gradients and the latent
            descent attack.
        synthesis: the defense is a Bayes classifier with reconstructions, as the latent descent attack needs.
        starts: images (M, C, H, W) in [0, 1] of all classes, from which Boundary starts as in the thesis; None takes noise.
    """
    spent, ball, minimal = budget or ThesisBudget(), ThreatModel(norm, epsilon), ThreatModel(norm)
    found: dict[str, Attack] = {
        "pgd": PGD(ball, steps=spent.pgd_steps, restarts=spent.restarts),
        "deepfool": DeepFool(minimal, steps=spent.deepfool_steps),
    }
    if norm == "l2":
        found["ddn"] = DDN(minimal, steps=spent.ddn_steps)
        found["cw"] = CarliniWagner(minimal, searches=spent.cw_searches, steps=spent.cw_steps)
    found["noise"] = GrowingNoise(minimal, sizes=spent.noise_sizes)
    if black_box:
        found["nes"] = NES(ball, steps=spent.nes_steps, samples=spent.nes_pairs)
        found |= {"boundary": Boundary(minimal, queries=spent.boundary_queries, starts=starts)} if norm == "l2" else {}
    if beyond:
        found["multi-targeted"] = PGD(ball, steps=spent.pgd_steps, restarts=spent.targets, loss="multi-targeted")
        if norm == "l2":
            found["smoothed"] = PGD(
                ball, steps=spent.smoothed_steps, smoothing=spent.smoothing, smoothing_draws=spent.smoothed_draws
            )
        if norm == "l2" and synthesis:
            found["latent-descent"] = LatentDescent(minimal, steps=spent.descent_steps, step_size=spent.descent_rate)
    return found


@checked
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
