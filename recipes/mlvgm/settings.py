"""The tasks (profiles) and how much is spent on them (budgets)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gencls.core import GenclsError
from gencls.eval.attacks.parts.smoothing import SIGMAS

__all__ = ["BUDGETS", "PROFILES", "Budget", "Profile"]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A task of section 4: images, generator, classifier, and what is compared.

    Attributes:
        data: name of the data set.
        splits: of it: on the first one alphas are learned, the last one is attacked.
        generator: name of a training of a generator; of a task of the paper, what its published checkpoint is.
        classifier: name of the defense that is protected.
        baselines: zoo names of the trained baselines: "TRADES", "A-VAE", "ND-VAE".
        highest: alphas reach up to it.
        fgsm: L2 length of the FGSM step of the images on which alphas are learned.
        noise: L2 length of the preprocessing noise.
        resolution: height and width of the images.
        sizes: L2 sizes at which AutoAttack attacks and success rates are read off.
        deepfool: steps of DeepFool in the paper.
        overshoot: of DeepFool.
        candidates: classes that DeepFool looks at.
        rate: learning rate of C&W.
        confidence: of C&W.
        constant: the first c of C&W.
        window: of C&W's early stop.
        least_clean: clean accuracy that the best configuration has to keep, in [0, 1].
        task: of the paper, with published checkpoints; "" for generators of our own.
    """

    data: str
    splits: tuple[str, str] = ("train", "test")
    generator: str
    classifier: str
    baselines: Mapping[str, str] = field(default_factory=dict)
    highest: float = 0.7
    fgsm: float = 1.5
    noise: float = 1.0
    resolution: int = 28
    sizes: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    deepfool: int = 128
    overshoot: float = 0.02
    candidates: int = 4
    rate: float = 5e-3
    confidence: float = 0.05
    constant: float = 16.0
    window: int = 16
    least_clean: float = 0.0
    task: str = ""

    @property
    def start_norm(self) -> float:
        """L2 length of the FGSM step with which C&W starts: 2^(log2 S - 5) for S pixels, as in the public code."""
        return self.resolution / 32


def _ours(name: str, data: str, **changed: Any) -> Profile:
    """Our generators for 28 x 28 images; attacks as on the paper's identities, which are nearest in size.

    Alphas reach up to 1: with linear ones the classifier of FashionMNIST still knows 89 % of the purified images (200 images,
    91 % without). It is trained plainly, as the paper's are.
    """
    baselines = {"TRADES": f"trades-{name}", "A-VAE": f"a-vae-{name}", "ND-VAE": f"nd-vae-{name}"}
    own: dict[str, Any] = {"baselines": baselines, "highest": 1.0, "least_clean": 0.85, **changed}
    return Profile(data=data, generator=f"nvae-{name}", **own)


# Tables 2 and 3 of the supplement, preprocessing of its appendix D.
_GENDER: dict[str, Any] = {
    **{"resolution": 256, "highest": 1.0, "fgsm": 4.0, "noise": 4.0, "sizes": (0.5, 1.0, 2.0, 4.0)},
    **{"deepfool": 1024, "candidates": 2, "overshoot": 0.01, "rate": 1e-3, "confidence": 0.01, "constant": 64.0, "window": 32},
}
_IDS: dict[str, Any] = {"resolution": 64, "fgsm": 2.0, "noise": 2.0, "sizes": (0.5, 1.0, 2.0, 3.0), "candidates": 8}
_CARS: dict[str, Any] = {
    **{"resolution": 128, "fgsm": 4.0, "noise": 4.0, "sizes": (0.5, 1.0, 2.0, 4.0)},
    **{"deepfool": 256, "rate": 2e-3, "confidence": 0.02, "constant": 24.0},
}


def _small(task: dict[str, Any]) -> dict[str, Any]:
    """At 64 pixels: lengths of steps and noise are those of the identities, for their number of pixels."""
    return {**task, "resolution": 64, "fgsm": 2.0, "noise": 2.0}


PROFILES: Mapping[str, Profile] = {
    # Digits take larger perturbations than garments.
    "smoke": _ours("mnist", "mnist-embedded", classifier="cnn-mnist", fgsm=3.0, noise=2.0, sizes=(1.0, 1.5, 2.0, 3.0)),
    "fashion": _ours("fashion", "fashion-mnist", classifier="cnn-plain-fashion", fgsm=1.0),
    # The paper's tasks in small, with generators of our own; nvae-faces learns from celeba-10k-gender.
    "faces": Profile(data="celeba-10k-gender", generator="nvae-faces", classifier="cnn-gender", **_small(_GENDER)),
    "identities": Profile(data="celeba-100-identities", generator="nvae-faces", classifier="cnn-identities", **_small(_IDS)),
    "cars": Profile(data="stanford-cars-4", generator="nvae-cars", classifier="cnn-cars", **_CARS),
    # The tasks themselves; the generators are published checkpoints.
    "paper-gender": Profile(data="celeba-hq-gender", generator="e4e", classifier="resnet50-gender", task="gender", **_GENDER),
    "paper-identities": Profile(
        data="celeba-identities", generator="NVAE", classifier="vgg11-identities", task="identities", **_IDS
    ),
    "paper-cars": Profile(
        data="stanford-cars-types", generator="Style Transformer", classifier="resnext50-cars", task="cars", **_CARS
    ),
}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """All numbers that decide how long a run takes; the defaults are the paper's and its public code's.

    Attributes:
        count: N attacked images.
        together: attacked images in one batch; what a crash can lose.
        eot: draws per gradient.
        judge: draws per decision.
        judge_most: the same where the majority is open.
        deepfool: steps of DeepFool; None takes the profile's.
        cw_restarts: of C&W.
        cw_steps: of each.
        cw_rate: learning rate of C&W, as a multiple of the profile's: fewer steps have to be longer.
        autoattack: steps of AutoAttack's parts.
        queries: of its Square, against deterministic defenses.
        sizes: of the profile's sizes, every how manieth attacks with a budget take, counted from the largest.
        smoothed: steps of PGD along smoothed gradients, which is not in the paper, for each of its deviations.
        smoothing: these standard deviations, in [0, 1] pixel units.
        learned_on: FGSM images on which alphas are measured.
        drawn: training images of which they are made.
        search: steps of the Bayesian optimisation.
        samples: draws per image of each measurement.
        random: alphas of the correlation study.
        random_images: FGSM images on which these are measured.
        random_samples: draws per image there.
        clean: test images of the clean accuracies.
        doctor: seconds for the examination of each defense, roughly; 0 for none.
    """

    count: int = 100
    together: int = 50
    eot: int = 32
    judge: int = 32
    judge_most: int = 256
    deepfool: int | None = None
    cw_restarts: int = 8
    cw_steps: int = 1024
    cw_rate: float = 1.0
    autoattack: int = 64
    queries: int = 5000
    sizes: int = 1
    smoothed: int = 64
    smoothing: tuple[float, ...] = SIGMAS
    learned_on: int = 1024
    drawn: int = 8192
    search: int = 95
    samples: int = 32
    random: int = 512
    random_images: int = 1024
    random_samples: int = 32
    clean: int = 1000
    doctor: float = 240.0

    def of(self, count: int) -> "Budget":
        """The same with ``count`` attacked images.

        Raises:
            GenclsError: for no images.
        """
        if count < 1:
            raise GenclsError(f"expected at least one image, got {count}")
        return replace(self, count=count)

    def spent(self, profile: Profile) -> str:
        """The attacks in one sentence."""
        return (
            f"DeepFool {self.deepfool or profile.deepfool} steps, {profile.candidates} classes; C&W {self.cw_restarts} x "
            f"{self.cw_steps} steps at rate {profile.rate * self.cw_rate:g}; AutoAttack {self.autoattack} steps at L2 "
            f'{", ".join(f"{size:g}" for size in self.attacked(profile))}, "rand" on random defenses; PGD along smoothed '
            f"gradients {self.smoothed} steps at each of sigma {', '.join(f'{sigma:g}' for sigma in self.smoothing)}, at these "
            f"sizes too; EoT {self.eot}; judge {self.judge} to {self.judge_most} draws"
        )

    def attacked(self, profile: Profile) -> tuple[float, ...]:
        """The sizes of attacks with a budget."""
        return tuple(reversed(tuple(reversed(profile.sizes))[:: self.sizes]))


BUDGETS: Mapping[str, Budget] = {
    "paper": Budget(),
    # An EoT gradient of the NVAE takes 0.16 s of a core: about two minutes an image and five configurations.
    "reduced": Budget(
        count=30,
        together=10,
        judge_most=128,
        deepfool=10,
        cw_restarts=1,
        cw_steps=48,
        cw_rate=6.0,
        autoattack=8,
        queries=500,
        sizes=2,
        smoothed=8,
        smoothing=(0.15,),
        learned_on=128,
        drawn=2048,
        random_images=64,
        random_samples=8,
        doctor=90.0,
    ),
    # Minutes of a large GPU per configuration.
    "medium": Budget(
        deepfool=24,
        cw_restarts=2,
        cw_steps=80,
        cw_rate=4.0,
        autoattack=20,
        queries=1000,
        sizes=2,
        smoothed=20,
        learned_on=128,
        drawn=4096,
        random_images=128,
        random_samples=8,
        doctor=90.0,
    ),
    # Everything once.
    "smoke": Budget(
        count=4,
        eot=8,
        judge=8,
        judge_most=16,
        deepfool=4,
        cw_restarts=1,
        cw_steps=8,
        cw_rate=12.0,
        autoattack=3,
        queries=50,
        sizes=4,
        smoothed=3,
        smoothing=(0.15,),
        learned_on=32,
        drawn=256,
        search=7,
        samples=8,
        random=32,
        random_images=32,
        random_samples=4,
        clean=100,
        doctor=0.0,
    ),
}
