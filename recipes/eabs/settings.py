"""What is attacked (profiles), by what, and how much is spent on it (budgets)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gencls.eval.attacks.thesis_set import ThesisBudget
from recipes.harness import settings
from recipes.harness.settings import at

__all__ = [
    "ATTACKS",
    "BLACK_BOX",
    "BUDGETS",
    "FOLDERS",
    "L2_ONLY",
    "MINIMAL",
    "NORMS",
    "PROFILES",
    "SMOOTHED",
    "THESIS",
    "Budget",
    "Profile",
]


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
"""Key -> name; in this order they stand in the tables."""
THESIS = ("pgd", "ddn", "cw", "deepfool", "noise")
"""Those whose worst case the thesis prints; the gradient-free ones it only mentions (SVHN)."""
MINIMAL = ("ddn", "cw", "deepfool", "noise", "latent-descent")
"""They walk along the decision boundary of what they look at, so they look at the defense itself, not at a warm inference."""
L2_ONLY = ("ddn", "cw", "smoothed", "latent-descent", "boundary")
BLACK_BOX = ("nes", "boundary")
"""They know the decisions or scores of the defense only, and ask thousands of times: on fewer samples."""
SMOOTHED = ("smoothed",)
"""It differentiates many noisy images per step: ABS and E-ABS meet it with fewer of them, and fewer steps."""
FOLDERS = {"main": (), "minimal": MINIMAL, "smoothed": SMOOTHED, "black-box": BLACK_BOX}
"""Of the table of accuracies -> their attacks; in the first one are those that are in no other."""


@dataclass(frozen=True, kw_only=True)
class Profile(settings.Profile):
    """A data set of section 2.3 with its threats.

    Attributes:
        weights: how the names of its networks end.
        table: number of the table of accuracies.
        figure: number of the figure of adversarial examples.
        linf: size of the table's Linf attacks.
        l2: size of its L2 attacks.
        starts: random starts of the thesis's PGD.
        linf_sizes: sizes among which the closest adversarials of Table 2.6 and of the figures are looked for.
        l2_sizes: the same for L2.
        cnn: what the name of the unprotected network begins with.
    """

    weights: str
    table: str
    figure: str
    linf: float
    l2: float = 1.5
    starts: int = 5
    linf_sizes: tuple[float, ...] = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6)
    l2_sizes: tuple[float, ...] = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    cnn: str = "cnn"

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


_REDUCED = ThesisBudget(
    restarts=1,
    pgd_steps=40,
    deepfool_steps=20,
    ddn_steps=30,
    cw_searches=3,
    cw_steps=30,
    noise_sizes=12,
    nes_steps=10,
    nes_pairs=10,
    boundary_queries=300,
    targets=2,
    smoothed_steps=80,
    descent_steps=20,
    descent_rate=0.15,
)
_SMOKE = ThesisBudget(
    restarts=1,
    pgd_steps=8,
    deepfool_steps=4,
    ddn_steps=18,
    cw_searches=2,
    cw_steps=8,
    noise_sizes=8,
    nes_steps=3,
    nes_pairs=5,
    boundary_queries=40,
    targets=2,
    smoothed_steps=8,
    smoothed_draws=4,
    smoothing=(0.15,),
    descent_steps=8,
    descent_rate=0.2,
)
_FEW = {"smoothed_steps": 20, "smoothed_draws": 4, "smoothing": (0.15,)}


@dataclass(frozen=True, kw_only=True)
class Budget(settings.Budget):
    """The paper's is the thesis's where it names it; ``count`` is N of Tables 2.2 to 2.5.

    With the reduced one the defenses infer on their fast path with fewer and larger steps: half the cost for a loss of the true
    class that is 0.1 higher (E-ABS for MNIST, docs/reproduction/eabs-settings.md). For smoke they infer with less still.

    Attributes:
        attacks: steps, starts and queries of their attacks; PGD makes no more starts than the profile says.
        warm_steps: PGD on ABS and E-ABS infers with so many steps from where its last look ended (gradient mode "warm");
            None: each look infers in full (mode "frozen"). Both differentiate as eq. 2.9 says.
        fast: ABS and E-ABS drop hopeless classes early.
        unrolled_steps: of PGD through the unrolled inference, from as many starts as PGD.
        smoothed: what is spent on ABS and E-ABS by PGD along smoothed gradients, where it is not what the CNNs meet.
        black_box: N of PGD with estimated gradients and of the Boundary attack.
        ablation: N of Table 2.6.
        examples: N of the figures.
        ladder: PGD steps at each of the sizes of Table 2.6 and of the figures, from one start.
        every: each how manieth of the profile's sizes.
        sweeps: N of Tables 2.7 and 2.8; of Table 2.9 at most 200.
        sweep_steps: PGD steps in Tables 2.7 and 2.8.
        sweep_starts: random starts in Table 2.9, and in Table 2.7 at most 5.
        eot_runs: columns of Table 2.7.
        starts: columns of Table 2.8.
        steps: columns of Table 2.9.
        bound: N of the lower bounds.
        bound_steps: descent steps of the search for their minima.
        inference: other keyword arguments of ABS and E-ABS.
    """

    count: int = at(1000, reduced=50, smoke=10)
    attacks: ThesisBudget = at(ThesisBudget(restarts=20), reduced=_REDUCED, smoke=_SMOKE)
    warm_steps: int | None = at(None, reduced=5)
    fast: bool = at(False, reduced=True, smoke=True)
    unrolled_steps: int = at(80, reduced=20, smoke=4)
    eot: int = at(5, reduced=2, smoke=2)
    judge: int = at(32, reduced=4, smoke=4)
    judge_most: int = at(128, reduced=8, smoke=8)
    smoothed: Mapping[str, Any] = at({}, reduced=_FEW, smoke={"smoothed_draws": 2})
    black_box: int = at(1000, reduced=10, smoke=4)
    ablation: int = at(1000, reduced=32, smoke=4)
    examples: int = at(10, smoke=4)
    ladder: int = at(80, reduced=15, smoke=8)
    every: int = at(1, reduced=2, smoke=4)
    sweeps: int = at(1000, reduced=30, smoke=4)
    sweep_steps: int = at(100, reduced=20, smoke=5)
    sweep_starts: int = at(20, reduced=2, smoke=1)
    eot_runs: tuple[int, ...] = at((1, 2, 3, 5, 10), smoke=(1, 3))
    starts: tuple[int, ...] = at((5, 10, 15, 20, 50), reduced=(1, 2, 5), smoke=(1, 2))
    steps: tuple[int, ...] = at((0, 10, 30, 50, 100, 200, 500), reduced=(0, 5, 10, 20, 40, 80), smoke=(0, 5, 10))
    bound: int = at(500, reduced=20, smoke=4)
    bound_steps: int = at(300, reduced=100, smoke=30)
    inference: Mapping[str, Any] = at({}, reduced={"steps": 20, "lr": 0.1, "starts": 2000}, smoke={"steps": 5, "starts": 1000})

    capped = ("black_box", "ablation", "examples", "sweeps", "bound")

    @property
    def synthesis(self) -> dict[str, Any]:
        """All keyword arguments of ABS and E-ABS."""
        return {**self.inference, "warm_steps": self.warm_steps, "fast": self.fast}

    @property
    def gradient(self) -> str:
        """How ABS and E-ABS are differentiated, in words."""
        if self.warm_steps is None:
            return "eq. 2.9"
        return f"eq. 2.9, for PGD with {self.warm_steps} warm inner steps a look, in full at every tenth and new decisions"

    @property
    def spent(self) -> str:
        """The budget of the table of accuracies in one sentence."""
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
