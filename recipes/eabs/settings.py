"""What the recipe attacks (profiles), with which attacks, and how much it spends (budgets)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gencls.eval.attacks.parts.smoothing import SIGMAS
from gencls.eval.attacks.thesis_set import ThesisBudget
from recipes.harness import settings
from recipes.harness.settings import at

NORMS = {"linf": "L∞", "l2": "L2"}
ATTACKS = {
    "pgd": "PGD",
    "ddn": "DDN",
    "cw": "CW",
    "deepfool": "DeepFool",
    "noise": "Noise",
    "unrolled": "PGD, unrolled gradient",
    "multi-targeted": "PGD, multi-targeted",
    "smoothed": "PGD, smoothed gradient",
    "latent-descent": "Latent descent",
    "nes": "PGD, estimated gradient",
    "boundary": "Boundary",
}
"""Key of an attack -> its name; the tables list the attacks in this order."""
THESIS = ("pgd", "ddn", "cw", "deepfool", "noise")
"""The attacks whose worst case the thesis prints. It only mentions the gradient-free ones (SVHN)."""
MINIMAL = ("ddn", "cw", "deepfool", "noise", "latent-descent")
"""These attacks walk along the decision boundary of their target, so they attack the defense itself, not a warm inference."""
L2_ONLY = ("ddn", "cw", "smoothed", "latent-descent", "boundary")
BLACK_BOX = ("nes", "boundary")
"""These attacks know only decisions or scores and ask thousands of times, so they get fewer samples."""
SMOOTHED = ("smoothed",)
"""This attack differentiates many noisy images per step. On ABS and E-ABS it gets fewer noisy images and fewer steps."""
FOLDERS = {"main": (), "minimal": MINIMAL, "smoothed": SMOOTHED, "black-box": BLACK_BOX}
"""Folder of the table of accuracies -> its attacks; "main" has all attacks that no other folder has."""


@dataclass(frozen=True, kw_only=True)
class Profile(settings.Profile):
    """A data set of section 2.3 with its threats."""

    weights: str  # how the names of its networks end
    table: str  # number of the table of accuracies
    figure: str  # number of the figure of adversarial examples
    linf: float  # size of the table's Linf attacks
    l2: float = 1.5  # size of its L2 attacks
    starts: int = 5  # random starts of the thesis's PGD
    # Table 2.6 and the figures look for the closest adversarials at these sizes
    linf_sizes: tuple[float, ...] = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6)
    l2_sizes: tuple[float, ...] = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # the same for L2
    cnn: str = "cnn"  # how the name of the unprotected network begins

    @property
    def threats(self) -> tuple[tuple[str, float], ...]:
        """Norms and sizes of the table."""
        return ("linf", self.linf), ("l2", self.l2)

    def network(self, kind: str) -> str:
        """The name of a network; ``kind`` is "cnn", "adv-linf", "abs" and so on."""
        return f"{self.cnn if kind == 'cnn' else kind}-{self.weights}"


_DIGITS: dict[str, Any] = {"weights": "mnist", "table": "2.2", "figure": "2.5", "linf": 0.3, "cnn": "cnn-gaussian"}
_COLOUR: dict[str, Any] = {
    "linf": 8 / 255,
    "starts": 20,
    "linf_sizes": tuple(level / 255 for level in (1, 2, 4, 8, 12, 16, 24, 32)),
    "l2_sizes": (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0),
}

PROFILES = {
    "smoke": Profile(data="mnist-embedded", **_DIGITS),
    "mnist": Profile(data="mnist", **_DIGITS),
    "fashion": Profile(data="fashion-mnist", weights="fashion", table="2.3", figure="2.6", linf=0.1),
    "gtsrb": Profile(data="gtsrb10", weights="gtsrb10", table="2.4", figure="2.7", **_COLOUR),
    "supertraffic": Profile(data="supertraffic10", weights="supertraffic10", table="2.4", figure="2.7", **_COLOUR),
    "svhn": Profile(data="svhn", weights="svhn", table="2.5", figure="2.8", **_COLOUR),
}


_SPENT: Mapping[str, tuple[Any, Any]] = {  # attacks of Tables 2.2 to 2.5: reduced, smoke
    "restarts": (1, 1),
    "pgd_steps": (40, 8),
    "deepfool_steps": (20, 4),
    "ddn_steps": (30, 18),
    "cw_searches": (3, 2),
    "cw_steps": (30, 8),
    "noise_sizes": (12, 8),
    "nes_steps": (10, 3),
    "nes_pairs": (10, 5),
    "boundary_queries": (300, 40),
    "targets": (2, 2),
    "smoothed_steps": (80, 8),
    "smoothed_draws": (16, 4),
    "smoothing": (SIGMAS, (0.15,)),
    "descent_steps": (20, 8),
    "descent_rate": (0.15, 0.2),
}
_REDUCED, _SMOKE = (ThesisBudget(**{name: both[i] for name, both in _SPENT.items()}) for i in (0, 1))
_FEW = {"smoothed_steps": 20, "smoothed_draws": 4, "smoothing": (0.15,)}


@dataclass(frozen=True, kw_only=True)
class Budget(settings.Budget):
    """What a run may spend. "paper" has the thesis's numbers where it gives them; ``count`` is N of Tables 2.2 to 2.5.

    With "reduced" the defenses infer on their fast path, with fewer and larger steps. That costs half as much, and the loss of
    the true class is 0.1 higher (E-ABS for MNIST, docs/reproduction/eabs-settings.md). With "smoke" they infer with less still.
    """

    count: int = at(1000, reduced=50, smoke=10)
    # steps, starts and queries of these attacks; PGD makes no more starts than the profile says
    attacks: ThesisBudget = at(ThesisBudget(restarts=20), reduced=_REDUCED, smoke=_SMOKE)
    # PGD on ABS and E-ABS infers with this many steps from where its last look ended (gradient mode "warm"). None: each look
    # infers in full (mode "frozen"). Both modes differentiate as eq. 2.9 says.
    warm_steps: int | None = at(None, reduced=5)
    fast: bool = at(False, reduced=True, smoke=True)  # ABS and E-ABS drop hopeless classes early
    unrolled_steps: int = at(80, reduced=20, smoke=4)  # steps of PGD through the unrolled inference; starts are PGD's
    eot: int = at(5, reduced=2, smoke=2)
    judge: int = at(32, reduced=4, smoke=4)
    judge_most: int = at(128, reduced=8, smoke=8)
    # settings that PGD along smoothed gradients has on ABS and E-ABS instead of those for the CNNs
    smoothed: Mapping[str, Any] = at({}, reduced=_FEW, smoke={"smoothed_draws": 2})
    black_box: int = at(1000, reduced=10, smoke=4)  # N of PGD with estimated gradients and of the Boundary attack
    ablation: int = at(1000, reduced=32, smoke=4)  # N of Table 2.6
    examples: int = at(10, smoke=4)  # N of the figures
    ladder: int = at(80, reduced=15, smoke=8)  # PGD steps at each of the sizes of Table 2.6 and of the figures, from one start
    every: int = at(1, reduced=2, smoke=4)  # 1: all of the profile's sizes, 2: every second one, and so on
    sweeps: int = at(1000, reduced=30, smoke=4)  # N of Tables 2.7 and 2.8; of Table 2.9 at most 200
    sweep_steps: int = at(100, reduced=20, smoke=5)  # PGD steps in Tables 2.7 and 2.8
    sweep_starts: int = at(20, reduced=2, smoke=1)  # random starts in Table 2.9, and in Table 2.7 at most 5
    eot_runs: tuple[int, ...] = at((1, 2, 3, 5, 10), smoke=(1, 3))  # columns of Table 2.7
    starts: tuple[int, ...] = at((5, 10, 15, 20, 50), reduced=(1, 2, 5), smoke=(1, 2))  # columns of Table 2.8
    # columns of Table 2.9
    steps: tuple[int, ...] = at((0, 10, 30, 50, 100, 200, 500), reduced=(0, 5, 10, 20, 40, 80), smoke=(0, 5, 10))
    bound: int = at(500, reduced=20, smoke=4)  # N of the lower bounds
    bound_steps: int = at(300, reduced=100, smoke=30)  # descent steps of the search for their minima
    # other keyword arguments of ABS and E-ABS
    inference: Mapping[str, Any] = at({}, reduced={"steps": 20, "lr": 0.1, "starts": 2000}, smoke={"steps": 5, "starts": 1000})

    capped = ("black_box", "ablation", "examples", "sweeps", "bound")

    @property
    def synthesis(self) -> dict[str, Any]:
        """All keyword arguments of ABS and E-ABS."""
        return {**self.inference, "warm_steps": self.warm_steps, "fast": self.fast}

    @property
    def gradient(self) -> str:
        """Say how ABS and E-ABS are differentiated."""
        if self.warm_steps is None:
            return "eq. 2.9"
        return f"eq. 2.9, for PGD with {self.warm_steps} warm inner steps a look, in full at every tenth and new decisions"

    @property
    def spent(self) -> str:
        """Say the budget of the table of accuracies in one sentence."""
        a = self.attacks
        changed = ", ".join(f"{name} {value}" for name, value in self.inference.items())
        early = ", hopeless classes dropped early" if self.fast else ""
        few = f", on ABS and E-ABS {_smoothed(replace(a, **self.smoothed))}" if self.smoothed else ""
        return (
            f"PGD {a.pgd_steps} steps, at most {a.restarts} starts; DDN {a.ddn_steps}; C&W {a.cw_searches} x {a.cw_steps}; "
            f"DeepFool {a.deepfool_steps}; noise of {a.noise_sizes} sizes; unrolled PGD {self.unrolled_steps} steps; "
            f"multi-targeted PGD at {a.targets} classes; PGD along smoothed gradients {_smoothed(a)}{few}; "
            f"latent descent {a.descent_steps} x {a.descent_rate:g}; PGD with an estimated gradient {a.nes_steps} steps of "
            f"{a.nes_pairs} pairs; Boundary {a.boundary_queries:,} queries; EoT {self.eot}; judge {self.judge} to "
            f"{self.judge_most} draws; gradient of ABS and E-ABS: {self.gradient}; their "
            f"inference: {changed or '50 steps from the best of 8,000 starts'}{early}"
        )


def _smoothed(spent: ThesisBudget) -> str:
    sigmas = ", ".join(f"{sigma:g}" for sigma in spent.smoothing)
    return f"{spent.smoothed_steps} steps of {spent.smoothed_draws} draws at each of sigma {sigmas}"


BUDGETS = Budget.levels()
