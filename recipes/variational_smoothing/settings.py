"""What is attacked (profiles) and how much is spent on it (budgets)."""

from collections.abc import Mapping
from dataclasses import dataclass

from recipes.harness import settings
from recipes.harness.settings import at, flag

__all__ = ["BASES", "BUDGETS", "PROFILES", "WONG", "Budget", "Profile"]

WONG = "Wong2020Fast"
"""The thesis's robust base model, of RobustBench."""

BASES = {
    "pretrained": "Bare pretrained",
    "gaussian": "Bare Gaussian",
    "robust": "Robust",
    "combined": "Robust Gaussian",
}
"""Kind of base model -> name in the tables; the last one is what section 4.6 proposes."""


@dataclass(frozen=True, kw_only=True)
class Profile(settings.Profile):
    """A data set with its base models.

    Attributes:
        bases: kind -> name of its training.
        epsilon: Linf size of the attacks on bare models, and radius of their inference (Tables 4.1 and 4.2).
        robust_epsilon: the same for adversarially trained ones (Table 4.3).
        strengths: sizes of Table 4.2 as multiples of ``epsilon``.
        sigma: standard deviation of the noise around the means.
        smoothed: name of the training of the classifier that is certified.
        certified_sigma: standard deviation of its noise, about that of its training.
        radii: L2 radii of the certified and of the empirical curve.
        printed: whether the thesis's numbers stand beside ours: they are CIFAR10's.
    """

    data: str = flag("--data", help="another data set for the same base models, such as cifar10-lossless for cifar10")
    bases: Mapping[str, str]
    epsilon: float
    robust_epsilon: float
    smoothed: str
    certified_sigma: float
    strengths: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    sigma: float = 0.05
    radii: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
    printed: bool = False

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
        # The first one comes with pyautoattack, the last one is RobustBench's file, Wong2020Fast.pt in the folder of weights.
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
    """Each draw has a start, and noise, of its own. A gradient through the inference is worth about 60 of the base model's.

    Attributes:
        together: attacked images in one batch; what a crash can lose.
        autoattack: steps of AutoAttack's parts.
        targets: of its targeted parts, and of PGD.
        queries: of Square, also alone.
        pgd: steps of PGD.
        restarts: of PGD.
        sweep: N of Table 4.2, of the steps and of the readings.
        steps: of the inner optimisation.
        certified: N of the curves.
        noises: n of a certificate.
        minimal: steps of the minimal-norm attack on randomized smoothing.
        doctor: seconds for the examination of each defense, roughly; 0 for none.
    """

    count: int = at(500, reduced=60, smoke=8)
    together: int = at(50, reduced=20, smoke=8)
    autoattack: int = at(100, reduced=10, smoke=3)
    targets: int = at(9, reduced=2, smoke=1)
    queries: int = at(5000, reduced=60, smoke=10)
    pgd: int = at(100, reduced=20, smoke=5)
    restarts: int = at(5, reduced=1, smoke=1)
    eot: int = at(20, reduced=4, smoke=2)
    judge: int = at(32, reduced=16, smoke=8)
    judge_most: int = at(256, reduced=64, smoke=16)
    sweep: int = at(500, reduced=40, smoke=8)
    steps: tuple[int, ...] = at((1, 2, 5, 10), smoke=(1, 3))
    certified: int = at(500, reduced=60, smoke=20)
    noises: int = at(10_000, reduced=2000, smoke=500)
    minimal: int = at(100, reduced=30, smoke=5)
    doctor: float = at(240.0, reduced=60.0, smoke=0.0)

    capped = ("sweep", "certified")

    @property
    def largest(self) -> int:
        """The most images that a table or the doctor needs."""
        return max(super().largest, 20)

    @property
    def spent(self) -> str:
        """The attacks in one sentence."""
        return (
            f"AutoAttack {self.autoattack} steps, {self.targets} targets, {self.queries} queries; PGD on margins "
            f"{self.restarts} x {self.pgd} steps, targeted {self.targets} x {self.pgd}; Square {self.queries} queries; "
            f"EoT {self.eot}; judge {self.judge} to {self.judge_most} draws"
        )


BUDGETS = Budget.levels()
