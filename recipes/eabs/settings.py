"""What is attacked (profiles) and how much is spent on it (budgets)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gencls.core import GenclsError
from gencls.eval.attacks.thesis_set import ThesisBudget

__all__ = ["BUDGETS", "PROFILES", "Budget", "Profile"]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A data set of section 2.3 with its threats.

    Attributes:
        data: name of the data set; its test split is attacked.
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

    data: str
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


@dataclass(frozen=True, kw_only=True)
class Budget:
    """All numbers that decide how long a run takes; the defaults are the thesis's where it names them.

    Attributes:
        count: N of Tables 2.2 to 2.5.
        attacks: steps, starts and queries of their attacks; PGD makes no more starts than the profile says.
        warm_steps: PGD on ABS and E-ABS infers with so many steps from where its last look ended (gradient mode "warm");
            None: each look infers in full (mode "frozen"). Both differentiate as eq. 2.9 says.
        fast: ABS and E-ABS drop hopeless classes early.
        unrolled_steps: of PGD through the unrolled inference, from as many starts as PGD.
        eot: draws per gradient of a stochastic defense.
        judge: draws per decision of a stochastic defense.
        judge_most: the same where the majority is open.
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

    count: int = 1000
    attacks: ThesisBudget = field(default_factory=lambda: ThesisBudget(restarts=20))
    warm_steps: int | None = None
    fast: bool = False
    unrolled_steps: int = 80
    eot: int = 5
    judge: int = 32
    judge_most: int = 128
    smoothed: Mapping[str, Any] = field(default_factory=dict)
    black_box: int = 1000
    ablation: int = 1000
    examples: int = 10
    ladder: int = 80
    every: int = 1
    sweeps: int = 1000
    sweep_steps: int = 100
    sweep_starts: int = 20
    eot_runs: tuple[int, ...] = (1, 2, 3, 5, 10)
    starts: tuple[int, ...] = (5, 10, 15, 20, 50)
    steps: tuple[int, ...] = (0, 10, 30, 50, 100, 200, 500)
    bound: int = 500
    bound_steps: int = 300
    inference: Mapping[str, Any] = field(default_factory=dict)

    def of(self, count: int) -> "Budget":
        """The same with ``count`` images in Tables 2.2 to 2.5, and no more in the others.

        Raises:
            GenclsError: for no images.
        """
        if count < 1:
            raise GenclsError(f"expected at least one image, got {count}")
        return replace(self, count=count, **{name: min(count, getattr(self, name)) for name in _SMALLER})

    @property
    def largest(self) -> int:
        """The most images that a table needs."""
        return max(self.count, self.black_box, self.ablation, self.examples, self.sweeps, self.bound)

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


_SMALLER = ("black_box", "ablation", "examples", "sweeps", "bound")

BUDGETS = {
    "paper": Budget(),
    # Attacked with less, and the defenses infer on their fast path with fewer and larger steps: half the cost for a loss of
    # the true class that is 0.1 higher (E-ABS for MNIST, docs/reproduction/eabs-settings.md).
    "reduced": Budget(
        count=50,
        attacks=ThesisBudget(
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
        ),
        warm_steps=5,
        fast=True,
        unrolled_steps=20,
        eot=2,
        judge=4,
        judge_most=8,
        smoothed={"smoothed_steps": 20, "smoothed_draws": 4, "smoothing": (0.15,)},
        black_box=10,
        ablation=32,
        ladder=15,
        every=2,
        sweeps=30,
        sweep_steps=20,
        sweep_starts=2,
        starts=(1, 2, 5),
        steps=(0, 5, 10, 20, 40, 80),
        bound=20,
        bound_steps=100,
        inference={"steps": 20, "lr": 0.1, "starts": 2000},
    ),
    # Everything once, in minutes; the defenses infer with less as well.
    "smoke": Budget(
        count=10,
        attacks=ThesisBudget(
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
        ),
        fast=True,
        unrolled_steps=4,
        eot=2,
        judge=4,
        judge_most=8,
        smoothed={"smoothed_draws": 2},
        black_box=4,
        ablation=4,
        examples=4,
        ladder=8,
        every=4,
        sweeps=4,
        sweep_steps=5,
        sweep_starts=1,
        eot_runs=(1, 3),
        starts=(1, 2),
        steps=(0, 5, 10),
        bound=4,
        bound_steps=30,
        inference={"steps": 5, "starts": 1000},
    ),
}
