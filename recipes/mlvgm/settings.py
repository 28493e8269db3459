"""The tasks (profiles), and how much the recipe spends on them (budgets)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gencls.eval.attacks.parts.smoothing import SIGMAS
from recipes.harness import settings
from recipes.harness.settings import at, flag


@dataclass(frozen=True, kw_only=True)
class Profile(settings.Profile):
    """A task of section 4: images, generator, classifier, and the baselines."""

    splits: tuple[str, str] = ("train", "test")  # splits of the data: alphas are learned on the first, the second is attacked
    # name of a training of a generator; of a task of the paper, what its published checkpoint is
    generator: str = flag("--generator", mark=True, help="that purifies, by name; default as the profile says")
    # name of the defense that is protected
    classifier: str = flag("--classifier", mark=True, help="that is protected, by name; default as the profile says")
    # zoo names of the trained baselines: "TRADES", "A-VAE", "ND-VAE"
    baselines: Mapping[str, str] = field(default_factory=dict)
    highest: float = 0.7  # the highest alpha
    fgsm: float = 1.5  # L2 length of the FGSM step of the images on which alphas are learned
    noise: float = 1.0  # L2 length of the preprocessing noise
    resolution: int = 28  # height and width of the images
    sizes: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)  # L2 sizes at which AutoAttack attacks and success rates are read off
    deepfool: int = 128  # steps of DeepFool in the paper
    overshoot: float = 0.02  # overshoot of DeepFool
    candidates: int = 4  # classes that DeepFool looks at
    rate: float = 5e-3  # learning rate of C&W
    confidence: float = 0.05  # confidence of C&W
    constant: float = 16.0  # the first c of C&W
    window: int = 16  # of C&W's early stop
    least_clean: float = 0.0  # clean accuracy that the best configuration has to keep, in [0, 1]
    task: str = ""  # the paper's task with published checkpoints; "" for generators of our own

    @property
    def split(self) -> str:
        """Name of the split to attack."""
        return self.splits[1]

    @property
    def start_norm(self) -> float:
        """L2 length of the FGSM step with which C&W starts: 2^(log2 S - 5) for S pixels, as in the public code."""
        return self.resolution / 32


def _ours(name: str, data: str, **changed: Any) -> Profile:
    """A profile with our generators for 28 x 28 images. The attacks are those on the paper's identities, the nearest in size.

    Alphas reach up to 1. With linear ones the classifier of FashionMNIST still knows 89 % of the purified images (200 images,
    91 % without). It is trained plainly, like the paper's classifiers.
    """
    baselines = {"TRADES": f"trades-{name}", "A-VAE": f"a-vae-{name}", "ND-VAE": f"nd-vae-{name}"}
    own: dict[str, Any] = {"baselines": baselines, "highest": 1.0, "least_clean": 0.85, **changed}
    return Profile(data=data, generator=f"nvae-{name}", **own)


# Tables 2 and 3 of the supplement; the preprocessing is from its appendix D.
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
    """A task at 64 pixels: steps and noise have the lengths of the identities, which have as many pixels."""
    return {**task, "resolution": 64, "fgsm": 2.0, "noise": 2.0}


PROFILES: Mapping[str, Profile] = {
    # Digits take larger perturbations than garments.
    "smoke": _ours("mnist", "mnist-embedded", classifier="cnn-mnist", fgsm=3.0, noise=2.0, sizes=(1.0, 1.5, 2.0, 3.0)),
    "fashion": _ours("fashion", "fashion-mnist", classifier="cnn-plain-fashion", fgsm=1.0),
    # The paper's tasks at a small size, with generators of our own; nvae-faces learns from celeba-10k-gender.
    "faces": Profile(data="celeba-10k-gender", generator="nvae-faces", classifier="cnn-gender", **_small(_GENDER)),
    "identities": Profile(data="celeba-100-identities", generator="nvae-faces", classifier="cnn-identities", **_small(_IDS)),
    "cars": Profile(data="stanford-cars-4", generator="nvae-cars", classifier="cnn-cars", **_CARS),
    # The paper's tasks at full size; their generators are published checkpoints.
    "paper-gender": Profile(data="celeba-hq-gender", generator="e4e", classifier="resnet50-gender", task="gender", **_GENDER),
    "paper-identities": Profile(
        data="celeba-identities", generator="NVAE", classifier="vgg11-identities", task="identities", **_IDS
    ),
    "paper-cars": Profile(
        data="stanford-cars-types", generator="Style Transformer", classifier="resnext50-cars", task="cars", **_CARS
    ),
}


@dataclass(frozen=True, kw_only=True)
class Budget(settings.Budget):
    """What a run may spend. "paper" is also the budget of its public code.

    An EoT gradient of the NVAE takes 0.16 s of a core. So "reduced" takes about two minutes for an image and five
    configurations, and "medium" takes minutes of a large GPU per configuration.
    """

    count: int = at(100, reduced=30, medium=100, smoke=4)
    together: int = at(50, reduced=10)  # attacked images in one batch; a crash loses at most this many
    eot: int = at(32, smoke=8)
    judge: int = at(32, smoke=8)
    judge_most: int = at(256, reduced=128, smoke=16)
    deepfool: int | None = at(None, reduced=10, medium=24, smoke=4)  # steps of DeepFool; None takes the profile's
    cw_restarts: int = at(8, reduced=1, medium=2, smoke=1)  # starts of C&W
    cw_steps: int = at(1024, reduced=48, medium=80, smoke=8)  # steps of each start
    # learning rate of C&W, as a multiple of the profile's: fewer steps must be longer
    cw_rate: float = at(1.0, reduced=6.0, medium=4.0, smoke=12.0)
    autoattack: int = at(64, reduced=8, medium=20, smoke=3)  # steps of AutoAttack's parts
    queries: int = at(5000, reduced=500, medium=1000, smoke=50)  # queries of its Square, on deterministic defenses
    # of the profile's sizes, every how manieth attacks with a budget take, counted from the largest
    sizes: int = at(1, reduced=2, medium=2, smoke=4)
    # steps of PGD along smoothed gradients at each of its deviations; the paper does not have this attack
    smoothed: int = at(64, reduced=8, medium=20, smoke=3)
    # its standard deviations, in [0, 1] pixel units
    smoothing: tuple[float, ...] = at(SIGMAS, reduced=(0.15,), smoke=(0.15,))
    learned_on: int = at(1024, reduced=128, medium=128, smoke=32)  # FGSM images that alphas are measured on
    drawn: int = at(8192, reduced=2048, medium=4096, smoke=256)  # training images that these are made from
    search: int = at(95, smoke=7)  # steps of the Bayesian optimisation
    samples: int = at(32, smoke=8)  # draws per image of each measurement
    random: int = at(512, smoke=32)  # alphas of the correlation study
    random_images: int = at(1024, reduced=64, medium=128, smoke=32)  # FGSM images that random alphas are measured on
    random_samples: int = at(32, reduced=8, medium=8, smoke=4)  # draws per image there
    clean: int = at(1000, smoke=100)  # test images of the clean accuracies
    # seconds to examine each defense, roughly; 0 for no examination
    doctor: float = at(240.0, reduced=90.0, medium=90.0, smoke=0.0)

    @property
    def largest(self) -> int:
        """The largest number of images that a table or figure needs: 200 for figure 14 and the mixed codes."""
        return max(self.count, self.clean, 200)

    def spent_on(self, profile: Profile) -> str:
        """Say the attacks in one sentence."""
        return (
            f"DeepFool {self.deepfool or profile.deepfool} steps, {profile.candidates} classes; C&W {self.cw_restarts} x "
            f"{self.cw_steps} steps at rate {profile.rate * self.cw_rate:g}; AutoAttack {self.autoattack} steps at L2 "
            f'{", ".join(f"{size:g}" for size in self.attacked(profile))}, "rand" on random defenses; PGD along smoothed '
            f"gradients {self.smoothed} steps at each of sigma {', '.join(f'{sigma:g}' for sigma in self.smoothing)}, at these "
            f"sizes too; EoT {self.eot}; judge {self.judge} to {self.judge_most} draws"
        )

    def attacked(self, profile: Profile) -> tuple[float, ...]:
        """The sizes at which attacks with a budget run."""
        return tuple(reversed(tuple(reversed(profile.sizes))[:: self.sizes]))


BUDGETS = Budget.levels()
