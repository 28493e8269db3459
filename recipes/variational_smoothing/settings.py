"""What is attacked (profiles) and how much is spent on it (budgets)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gencls.core import GenclsError

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
class Profile:
    """A data set with its base models.

    Attributes:
        data: name of the data set; its test split is attacked.
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

    data: str
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
class Budget:
    """All numbers that decide how long a run takes; the defaults are AutoAttack's.

    Attributes:
        count: N attacked images of Tables 4.1 and 4.3.
        together: attacked images in one batch; what a crash can lose.
        autoattack: steps of AutoAttack's parts.
        targets: of its targeted parts, and of PGD.
        queries: of Square, also alone.
        pgd: steps of PGD.
        restarts: of PGD.
        eot: draws per gradient, each with a start, and noise, of its own.
        judge: draws per decision.
        judge_most: the same where the majority is open.
        sweep: N of Table 4.2, of the steps and of the readings.
        steps: of the inner optimisation.
        certified: N of the curves.
        noises: n of a certificate.
        minimal: steps of the minimal-norm attack on randomized smoothing.
        doctor: seconds for the examination of each defense, roughly; 0 for none.
    """

    count: int = 500
    together: int = 50
    autoattack: int = 100
    targets: int = 9
    queries: int = 5000
    pgd: int = 100
    restarts: int = 5
    eot: int = 20
    judge: int = 32
    judge_most: int = 256
    sweep: int = 500
    steps: tuple[int, ...] = (1, 2, 5, 10)
    certified: int = 500
    noises: int = 10_000
    minimal: int = 100
    doctor: float = 240.0

    def of(self, count: int) -> "Budget":
        """The same with at most so many images in every table.

        Raises:
            GenclsError: for no images.
        """
        if count < 1:
            raise GenclsError(f"expected at least one image, got {count}")
        return replace(self, count=count, sweep=min(self.sweep, count), certified=min(self.certified, count))

    @property
    def spent(self) -> str:
        """The attacks in one sentence."""
        return (
            f"AutoAttack {self.autoattack} steps, {self.targets} targets, {self.queries} queries; PGD on margins "
            f"{self.restarts} x {self.pgd} steps, targeted {self.targets} x {self.pgd}; Square {self.queries} queries; "
            f"EoT {self.eot}; judge {self.judge} to {self.judge_most} draws"
        )


BUDGETS: Mapping[str, Budget] = {
    "paper": Budget(),
    # A gradient through the inference is worth about 60 of the base model's.
    "reduced": Budget(
        count=60,
        together=20,
        autoattack=10,
        targets=2,
        queries=60,
        pgd=20,
        restarts=1,
        eot=4,
        judge=16,
        judge_most=64,
        sweep=40,
        certified=60,
        noises=2000,
        minimal=30,
        doctor=60.0,
    ),
    # Everything once.
    "smoke": Budget(
        count=8,
        together=8,
        autoattack=3,
        targets=1,
        queries=10,
        pgd=5,
        restarts=1,
        eot=2,
        judge=8,
        judge_most=16,
        sweep=8,
        steps=(1, 3),
        certified=20,
        noises=500,
        minimal=5,
        doctor=0.0,
    ),
}
