"""What the recipe inverts and attacks (profiles), and how much it spends (budgets)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recipes.harness import settings
from recipes.harness.settings import at

METHODS = {
    "direct": "Direct",
    "enc": "Enc",
    "enc-d": "Enc-D",
    "direct+": "Direct+",
    "enc+": "Enc+",
    "enc-d+": "Enc-D+",
}
"""Inference methods by key; those with "+" have a code for each block of the generator."""
REGULAR = ("direct", "enc", "enc-d")

DISTANCES = {
    "lpips": "LPIPS",
    "plain": "plain features",
    "linf": "Robust-L∞",
    "corruptions": "Robust-Corruptions",
    "st-lpips": "LPIPS, shift-tolerant",
    "e-lpips": "E-LPIPS",
    "e-plain": "plain features, transformed as in E-LPIPS",
    "contrastive": "contrastive features",
    "pixels": "pixels alone",
}
"""Perceptual distances by key, in the order of Table 3.5; those after the fourth are not in the thesis.

"plain" stands where the thesis has its VGG: on Imagenette that of LPIPS, elsewhere the network that the profile names.
"""

CIFAR_TABLES = ("selection", "3.1", "3.2", "3.3", "3.4", "3.5", "examples", "elimination", "attacks", "doctor")
"""The parts on small images."""
IMAGENETTE_TABLES = ("3.7", "3.8", "examples")

_ENCODERS = {"3.2": "enc-d", "3.5": "enc-d", "3.8": "enc", "examples": "enc-d"}
"""Part -> the encoder that it needs whatever methods are chosen."""


@dataclass(frozen=True, kw_only=True)
class Profile(settings.Profile):
    """A data set with its generator, encoders, distances, and with the defenses beside it under attack."""

    splits: tuple[str, str] = ("train", "test")  # real images of Table 3.3, and the images that are inverted
    generator: str  # name of the training of the conditional GAN, or "biggan" for the published file
    encoders: Mapping[str, str]  # "enc" and "enc-d" -> name of the training
    features: Mapping[str, str]  # distance of deep features -> its name in the zoo
    options: tuple[str, ...] = ()  # further distances of Table 3.5
    tables: tuple[str, ...] = CIFAR_TABLES  # parts that this profile has
    # for each distance of the main tables the key in ``features``, or "lpips": the thesis's VGG, and Robust-Corruptions
    main: tuple[str, ...] = ("plain", "corruptions")
    judge: str = ""  # name of the classifier whose features KID and FID take; "" if none are measured
    beside: Mapping[str, str] = field(default_factory=dict)  # name in the tables -> name of a defense under the same attacks
    linf: float = 0.1  # size of the Linf attacks, in [0, 1] pixel units
    l2: float = 1.5  # size of the L2 attacks
    size: int | None = None  # height and width to which images are scaled; None leaves them
    printed: bool = False  # whether the thesis had these images, so that its numbers are to be compared with ours

    @property
    def split(self) -> str:
        """Name of the split whose images are inverted."""
        return self.splits[1]

    @property
    def own_examples(self) -> bool:
        """Whether the part "examples" inverts images, for Figure 3.6; Figure 3.11 of Imagenette is made of Table 3.7's."""
        return "3.7" not in self.tables

    def encoder_of(self, part: str) -> str:
        """The encoder that a part needs whatever methods are chosen, "enc" or "enc-d"; "" if it needs none."""
        return "" if part == "examples" and not self.own_examples else _ENCODERS.get(part, "")


def _beside(data: str, cnn: str) -> dict[str, str]:
    return {"CNN": cnn, "Adv-L∞": f"adv-linf-{data}", "ABS": f"abs-{data}", "E-ABS": f"eabs-{data}"}


def _small(data: str, name: str, cnn: str, **changed: Any) -> Profile:
    """A profile with networks of our own."""
    made: dict[str, Any] = {
        "generator": f"cgan-{name}",
        "encoders": {"enc": f"enc-{name}", "enc-d": f"enc-d-{name}"},
        "features": {
            "plain": f"features-{name}",
            "linf": f"robust-linf-{name}",
            "corruptions": f"features-corruptions-{name}",
            "contrastive": f"contrastive-{name}",
        },
        "options": ("lpips", "st-lpips", "e-lpips", "e-plain", "pixels"),
        "judge": cnn,
        "beside": _beside(name, cnn),
        **changed,
    }
    return Profile(data=data, **made)


PROFILES: Mapping[str, Profile] = {
    "smoke": _small("mnist-embedded", "mnist", "cnn-mnist", linf=0.3),
    "fashion": _small("fashion-mnist", "fashion", "cnn-plain-fashion"),
    "cifar10": _small(
        "cifar10",
        "cifar10",
        "resnet18-autoattack-cifar10",
        beside={"CNN": "resnet18-autoattack-cifar10"},
        linf=8 / 255,
        l2=0.5,
        printed=True,
    ),
    "imagenette": Profile(
        data="imagenette",
        splits=("train", "val"),
        generator="biggan",
        encoders={"enc": "enc-imagenette", "enc-d": "enc-d-imagenette"},
        features={},
        options=("lpips", "plain"),
        tables=IMAGENETTE_TABLES,
        main=("lpips", "plain"),
        size=128,
        printed=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Budget(settings.Budget):
    """What a run may spend. "paper" has the thesis's numbers where it gives them; ``count`` is N of all its tables.

    One step of the inversion of one image costs K passes, forward and backward, through generator and feature network.
    """

    # The thesis inverts all 10,000 test images; here the last 1,000 choose the best setting, so no table may have them.
    count: int = at(9000, reduced=200, smoke=20)
    together: int = at(100, reduced=25, smoke=10)  # images inverted or attacked in one batch; a crash loses at most this many
    weights: tuple[float, ...] = (0.1, 1.0, 10.0)  # lambda in Tables 3.1, 3.3 and 3.6
    steps: int = at(100, smoke=8)  # optimisation steps of Tables 3.1, 3.3, 3.4, 3.6 and 3.7
    sweep: tuple[int, ...] = at((10, 50, 100, 500), smoke=(2, 8, 24))  # steps of Table 3.2
    large_sweep: tuple[int, ...] = at((1, 10, 50, 100, 300, 800), smoke=(1, 4))  # steps of Table 3.8
    compared: int = at(200, reduced=100, smoke=8)  # steps of Table 3.5
    ensembled: int = at(8, reduced=4, smoke=2)  # transformations that E-LPIPS averages over
    shown: int = at(8, reduced=4, smoke=4)  # images of the grids of reconstructions
    shown_steps: tuple[int, ...] = at((10, 200), smoke=(2, 16))  # steps of the grids of Figure 3.6
    real: int = at(60_000, reduced=60_000, smoke=2000)  # training images of Table 3.3, all classes together
    selected: int = at(1000, reduced=200, smoke=10)  # images, none of them in the tables, on which the best setting is chosen
    tried_methods: tuple[str, ...] = at(("enc-d", "enc"), smoke=("enc-d",))  # the candidates: every combination of these,
    tried_weights: tuple[float, ...] = at((10.0, 1.0), reduced=(10.0,), smoke=(10.0,))  # with each distance of the main tables
    tried_steps: tuple[int, ...] = at((10, 20, 50, 100), reduced=(10, 20, 100), smoke=(4,))
    attacked_steps: int = at(100, reduced=10)  # most steps of the setting that is attacked: each look is an inversion
    timed: int = at(100, reduced=25, smoke=5)  # images on which early elimination is timed
    attacked: int = at(1000, reduced=30, smoke=2)  # N under attack
    black_box: int = at(1000, reduced=30, smoke=2)  # N of the attacks without gradients
    unrolled: int = at(1000, reduced=30, smoke=2)  # N of PGD through the unrolled inference
    pgd: int = at(80, reduced=20, smoke=3)  # steps of PGD
    restarts: int = at(5, reduced=1, smoke=1)  # starts of PGD
    unrolled_steps: int = at(80, reduced=20, smoke=2)  # steps of PGD through the unrolled inference, from one start
    queries: int = at(5000, reduced=100, smoke=6)  # looks of Square
    boundary: int = at(100_000, reduced=100, smoke=20)  # looks of the Boundary attack
    # steps of the inversion at each look of PGD in the gradient mode "warm"
    warm_steps: int = at(10, smoke=2)
    # keyword arguments of ABS and E-ABS under attack
    synthesis: Mapping[str, Any] = at(
        {},
        reduced={"steps": 20, "lr": 0.1, "starts": 2000, "fast": True},
        smoke={"steps": 4, "starts": 200, "fast": True},
    )
    eot: int = at(5, reduced=2, smoke=2)  # E-ABS alone is stochastic
    judge: int = at(32, reduced=4, smoke=4)
    judge_most: int = at(128, reduced=8, smoke=8)
    # seconds to examine the best setting, roughly; the quickest examination may take more
    doctor: float = at(900.0, smoke=20.0)

    capped = ("shown", "selected", "timed", "attacked", "black_box", "unrolled")

    @property
    def spent(self) -> str:
        """Say the budget in one sentence."""
        return (
            f"{self.steps} steps of inversion (Table 3.2: {_listed(self.sweep)}; Table 3.5: {self.compared}) on {self.count:,} "
            f"images; attacks on {self.attacked}: {self.attack}"
        )

    @property
    def attack(self) -> str:
        """Say the attacks in one sentence."""
        return (
            f"PGD {self.restarts} x {self.pgd} steps; with {self.warm_steps} warm inner steps a look, in full at every tenth "
            f"and new decisions, and in full; through the unrolled inference {self.unrolled_steps} steps on {self.unrolled} "
            f"images; without gradients, on {self.black_box} images, Square {self.queries:,} and Boundary {self.boundary:,} "
            f"queries; EoT {self.eot} and judge {self.judge} to {self.judge_most} draws for E-ABS"
        )


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


BUDGETS = Budget.levels()
