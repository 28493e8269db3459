"""What the recipe attacks (profiles), and how much it spends (budgets)."""

from collections.abc import Mapping
from dataclasses import dataclass

from recipes.harness import settings
from recipes.harness.settings import at, flag

WONG = "Wong2020Fast"
"""The thesis's robust base model, from RobustBench."""

BASES = {
    "pretrained": "Bare pretrained",
    "gaussian": "Bare Gaussian",
    "robust": "Robust",
    "combined": "Robust Gaussian",
}
"""Kind of base model -> name in the tables; section 4.6 proposes the last one."""


@dataclass(frozen=True, kw_only=True)
class Profile(settings.Profile):
    """A data set with its base models."""

    data: str = flag("--data", help="another data set for the same base models, such as cifar10-lossless for cifar10")
    bases: Mapping[str, str]  # kind -> name of its training
    epsilon: float  # Linf size of the attacks on bare models, and radius of their inference (Tables 4.1 and 4.2)
    robust_epsilon: float  # the same for adversarially trained models (Table 4.3)
    smoothed: str  # name of the training of the classifier to certify
    certified_sigma: float  # standard deviation of its noise, about that of its training
    strengths: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)  # sizes of Table 4.2 as multiples of ``epsilon``
    sigma: float = 0.05  # standard deviation of the noise around the means
    radii: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # L2 radii of the certified and the empirical curve
    printed: bool = False  # whether the thesis's numbers, which are for CIFAR10, stand beside ours

    def size(self, kind: str) -> float:
        """Size of the attacks on a base model, and radius of its inference."""
        return self.robust_epsilon if kind in ("robust", "combined") else self.epsilon


PROFILES: Mapping[str, Profile] = {
    "smoke": Profile(
        data="mnist-embedded",
        bases={"pretrained": "cnn-mnist", "gaussian": "cnn-gaussian-mnist", "robust": "adv-linf-mnist"},
        epsilon=0.08,
        robust_epsilon=0.3,
        smoothed="cnn-gaussian-mnist",
        certified_sigma=0.2,
        strengths=(1.0, 2.0, 4.0),
        radii=(0.0, 0.25, 0.5, 1.0),
    ),
    "fashion": Profile(
        data="fashion-mnist",
        bases={
            "pretrained": "cnn-plain-fashion",
            "gaussian": "cnn-gaussian-fashion",
            "robust": "adv-linf-fashion",
            "combined": "adv-linf-gaussian-fashion",
        },
        epsilon=0.03,
        robust_epsilon=0.1,
        smoothed="cnn-fashion",
        certified_sigma=0.2,
    ),
    "cifar10": Profile(
        data="cifar10",
        # The first one comes with pyautoattack. The last one is RobustBench's file, Wong2020Fast.pt in the folder of weights.
        bases={"pretrained": "resnet18-autoattack-cifar10", "gaussian": "resnet18-gaussian-cifar10", "robust": WONG},
        epsilon=2 / 255,
        robust_epsilon=8 / 255,
        smoothed="resnet18-gaussian-cifar10",
        certified_sigma=0.05,
        strengths=(1.0, 2.0, 4.0),
        printed=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Budget(settings.Budget):
    """What a run may spend. Each draw has its own start and noise.

    A gradient through the inference costs about 60 of the base model's.
    """

    count: int = at(500, reduced=60, smoke=8)
    together: int = at(50, reduced=20, smoke=8)  # attacked images in one batch; a crash loses at most this many
    autoattack: int = at(100, reduced=10, smoke=3)  # steps of AutoAttack's parts
    targets: int = at(9, reduced=2, smoke=1)  # targets of its targeted parts, and of PGD
    queries: int = at(5000, reduced=60, smoke=10)  # queries of Square, also when it runs alone
    pgd: int = at(100, reduced=20, smoke=5)  # steps of PGD
    restarts: int = at(5, reduced=1, smoke=1)  # starts of PGD
    eot: int = at(20, reduced=4, smoke=2)
    judge: int = at(32, reduced=16, smoke=8)
    judge_most: int = at(256, reduced=64, smoke=16)
    sweep: int = at(500, reduced=40, smoke=8)  # N of Table 4.2, of the steps and of the readings
    steps: tuple[int, ...] = at((1, 2, 5, 10), smoke=(1, 3))  # steps of the inner optimisation
    certified: int = at(500, reduced=60, smoke=20)  # N of the curves
    noises: int = at(10_000, reduced=2000, smoke=500)  # n of a certificate
    minimal: int = at(100, reduced=30, smoke=5)  # steps of the minimal-norm attack on randomized smoothing
    doctor: float = at(240.0, reduced=60.0, smoke=0.0)  # seconds to examine each defense, roughly; 0 for no examination

    capped = ("sweep", "certified")

    @property
    def largest(self) -> int:
        """The largest number of images that a table or the doctor needs."""
        return max(super().largest, 20)

    @property
    def spent(self) -> str:
        """Say the attacks in one sentence."""
        return (
            f"AutoAttack {self.autoattack} steps, {self.targets} targets, {self.queries} queries; PGD on margins "
            f"{self.restarts} x {self.pgd} steps, targeted {self.targets} x {self.pgd}; Square {self.queries} queries; "
            f"EoT {self.eot}; judge {self.judge} to {self.judge_most} draws"
        )


BUDGETS = Budget.levels()
