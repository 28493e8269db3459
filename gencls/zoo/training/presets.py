"""The trainings that make the weights of the zoo, by name: ``METHOD-DATA``."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from gencls.core.errors import GenclsError
from gencls.core.names import did_you_mean
from gencls.zoo.networks import find_architecture
from gencls.zoo.training.cifar_presets import CIFAR_PRESETS
from gencls.zoo.training.generator_presets import GENERATOR_PRESETS
from gencls.zoo.training.headed_presets import HEADED_PRESETS
from gencls.zoo.training.purifier_presets import PURIFIER_PRESETS
from gencls.zoo.training.settings import Preset
from gencls.zoo.training.views.perturbations import (
    SMOOTHING_NOISE,
    Adversarial,
    Composed,
    GaussianNoise,
    KLAdversarial,
    Perturbation,
    Plain,
    RandomViews,
)
from gencls.zoo.training.views.photo_views import PhotoViews

__all__ = ["PRESETS", "AutoencoderPreset", "ClassifierPreset", "Preset", "TablePreset", "TradesPreset", "preset", "radii"]


@dataclass(frozen=True, kw_only=True)
class TablePreset(Preset):
    """Training of a network of thesis Table 2.1.

    The thesis trains for 500 epochs (200 more for adversarial training) with batches of 512. The presets are cut to
    minutes on one CPU core: fewer epochs, smaller batches and a learning rate that falls to zero along a cosine.

    Attributes:
        dropout: rate; not given in the thesis.
        architecture: column of Table 2.1.
    """

    dropout: float
    architecture: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that the network takes."""
        column = find_architecture(self.architecture)
        return column.in_channels, column.image_size, column.image_size

    @property
    def recipe(self) -> str:
        """All settings in one sentence, for the card."""
        return (
            f"{self.epochs} epochs of batches of {self.batch_size}, Adam from learning rate {self.learning_rate} along a "
            f"cosine to 0, dropout {self.dropout}, images: {self.perturbation}"
        )


@dataclass(frozen=True, kw_only=True)
class ClassifierPreset(TablePreset):
    """Training of a CNN."""


@dataclass(frozen=True, kw_only=True)
class TradesPreset(ClassifierPreset):
    """Training of a CNN by TRADES.

    Attributes:
        beta: weight of the divergence between the predictions for an image and for one near it.
    """

    beta: float

    @property
    def recipe(self) -> str:
        """All settings in one sentence, for the card."""
        return f"{super().recipe}, beta {self.beta}"


@dataclass(frozen=True, kw_only=True)
class AutoencoderPreset(TablePreset):
    """Training of class-conditional autoencoders (Algorithm 1): ABS, E-ABS and what lies between (Table 2.6).

    Attributes:
        adversarial: extension A, latent discriminators instead of the KL divergence.
        discriminative: extension D, a shared encoder and the discriminative loss.
        beta: weight of the prior term; 1 in the thesis.
        gamma: weight of the discriminative loss where there is one; 10 in the thesis.
        classifier_share: of the epochs, at the start, in which only the shared encoder learns, as a classifier.
        generative_share: of the epochs, after those, that go without the discriminative loss and so cost a fifth to an
            eighth; 0 in the thesis.
        discriminator_rate: learning rate of the discriminators as a multiple of the others'; not given in the thesis.
    """

    adversarial: bool
    discriminative: bool
    beta: float = 1.0
    gamma: float = 10.0
    classifier_share: float = 0.0
    generative_share: float = 0.0
    discriminator_rate: float = 1.0

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        shares = self.classifier_share, self.generative_share
        if min(shares) < 0 or sum(shares) > 1 or self.classifier_share == 1:
            raise GenclsError(
                f"{self.name}: expected shares of the epochs, classifier_share < 1, together at most 1, got {shares}"
            )

    @property
    def recipe(self) -> str:
        """All settings in one sentence, for the card."""
        prior = f"beta {self.beta}"
        if self.adversarial:
            prior += f" on latent discriminators that learn at {self.discriminator_rate} times the rate"
        loss = ""
        if self.discriminative:
            begins = self.classifier_share + self.generative_share
            loss = f", a shared encoder, gamma {self.gamma}" + (f" after {begins:.0%} of the epochs" if begins else "")
            if self.classifier_share:
                loss += f"; in the first {self.classifier_share:.0%} of the epochs the encoder learns as a classifier"
        return f"{super().recipe}, {prior}{loss}"


@dataclass(frozen=True)
class _DataSet:
    """What the thesis fixes per data set (section 2.3, Tables 2.1 to 2.5), and how long we train on it."""

    name: str  # in the names of weights
    data: str
    architecture: str
    noise: float  # standard deviation of the additive noise
    linf: float  # radii of the tables
    l2: float
    long: float = 1.0  # epochs, as a multiple: small sets need more passes
    adversarial: float = 1.0  # those of adversarial training, likewise


_DATA_SETS = (
    _DataSet("mnist", "mnist", "mnist", noise=0.2, linf=0.3, l2=1.5),
    _DataSet("fashion", "fashion-mnist", "fashion-mnist", noise=0.2, linf=0.1, l2=1.5, adversarial=0.5),
    _DataSet("gtsrb10", "gtsrb10", "supertraffic10", noise=0.01, linf=8 / 255, l2=1.5, long=4.0),
    _DataSet("supertraffic10", "supertraffic10", "supertraffic10", noise=0.01, linf=8 / 255, l2=1.5, long=4.0),
    _DataSet("svhn", "svhn", "svhn", noise=0.01, linf=8 / 255, l2=1.5),
)


def radii(data: str) -> tuple[float, float] | None:
    """The Linf and L2 radii of the thesis's table of a data set (Tables 2.2 to 2.5), if there is one.

    The embedded digits are MNIST's.
    """
    return next(((of.linf, of.l2) for of in _DATA_SETS if of.data == data.removesuffix("-embedded")), None)


def _classifiers(data: _DataSet) -> tuple[Preset, ...]:
    """CNN, Adv-Linf and Adv-L2, of which the thesis tunes the last two to E-ABS's clean accuracy; and TRADES."""
    common: dict[str, Any] = {"data": data.data, "architecture": data.architecture, "batch_size": 128, "learning_rate": 2e-3}
    small = data.name == "mnist"
    noisy = "cnn-gaussian-mnist" if small else f"cnn-{data.name}"
    adversarial = data.long * data.adversarial
    from_scratch = "adversarially trained from scratch (thesis: from the plain CNN) with"
    return (
        ClassifierPreset(
            name=noisy,
            what="CNN of thesis Table 2.1, trained with additive Gaussian noise",
            perturbation=GaussianNoise(sigma=data.noise),
            epochs=round(10 * data.long),
            dropout=0.1,
            **common,
        ),
        ClassifierPreset(
            name=f"adv-linf-{data.name}",
            what=f"CNN of thesis Table 2.1, {from_scratch} Linf PGD",
            perturbation=Adversarial(
                norm="linf", epsilon=data.linf, steps=7, step_size=round(data.linf / 3, 6), warmup_epochs=3.0 * adversarial
            ),
            epochs=round(12 * adversarial),
            dropout=0.0,
            **common,
        ),
        ClassifierPreset(
            name=f"adv-l2-{data.name}",
            what=f"CNN of thesis Table 2.1, {from_scratch} L2 PGD",
            perturbation=Adversarial(norm="l2", epsilon=data.l2, steps=5, step_size=0.6, warmup_epochs=2.0 * adversarial),
            epochs=round(7 * adversarial),
            dropout=0.0,
            **common,
        ),
        TradesPreset(
            name=f"trades-{data.name}",
            what="CNN of thesis Table 2.1, trained by TRADES from scratch (MLVGM paper: fine-tuned) on the L2 ball",
            perturbation=KLAdversarial(norm="l2", epsilon=data.l2, steps=5, step_size=round(2 * data.l2 / 5, 6)),
            beta=3.0,
            epochs=round(7 * adversarial),
            dropout=0.0,
            **common,
        ),
    )


# Table 2.6: name -> (A, D). Extension V is a matter of inference.
_AUTOENCODERS = {"abs": (False, False), "a-abs": (True, False), "d-abs": (False, True), "eabs": (True, True)}


def _autoencoders(data: _DataSet) -> tuple[Preset, ...]:
    made = []
    for name, (adversarial, discriminative) in _AUTOENCODERS.items():
        extensions = " and ".join(
            ["a latent discriminator"] * adversarial + ["a shared encoder with the discriminative loss"] * discriminative
        )
        signs = data.long > 1
        schedule: dict[str, Any] = {"epochs": round(15 * data.long), "batch_size": 64 if signs else 256, "learning_rate": 5e-3}
        if discriminative and signs:
            schedule = {"epochs": 50, "batch_size": 64, "learning_rate": 1.5e-3, "classifier_share": 1 / 5}
        elif discriminative:
            schedule = {"epochs": 15, "batch_size": 128, "learning_rate": 3e-3, "generative_share": 0.75}
        perturbation: Perturbation = RandomViews(sigma=data.noise) if signs else GaussianNoise(sigma=data.noise, clip=False)
        what = f"ABS with {extensions} (thesis, section 2.2)" if extensions else "ABS: one VAE per class (thesis, section 2.1)"
        plain = name == "abs" and data.name == "mnist"
        if plain:
            what += (
                ", without the noise of the thesis: on 300 MNIST test digits ABS had, after 3 epochs, 87 % with noise 0.2 and "
                "89 % without"
            )
        made.append(
            AutoencoderPreset(
                name=f"{name}-{data.name}",
                what=what,
                data=data.data,
                architecture=data.architecture,
                perturbation=Plain() if plain else perturbation,
                dropout=0.1 if discriminative else 0.0,
                adversarial=adversarial,
                discriminative=discriminative,
                discriminator_rate=0.1 if signs else 1.0,
                **schedule,
            )
        )
    return tuple(made)


def _small_photo_cnn(task: str, data: str, architecture: str, *, epochs: int, dropout: float) -> Preset:
    return ClassifierPreset(
        name=f"cnn-{task}",
        what=f"CNN in the manner of thesis Table 2.1 for a small set of the MLVGM paper's task {task}, sized for one CPU core",
        data=data,
        architecture=architecture,
        perturbation=PhotoViews(),
        epochs=epochs,
        batch_size=64,
        learning_rate=2e-3,
        dropout=dropout,
    )


_FASHION = {item.name: item for data in _DATA_SETS if data.name == "fashion" for item in _classifiers(data)}

_ALL: tuple[Preset, ...] = (
    ClassifierPreset(
        name="cnn-mnist",
        what="CNN of thesis Table 2.1, trained plainly",
        data="mnist",
        architecture="mnist",
        perturbation=Plain(),
        epochs=10,
        batch_size=128,
        learning_rate=2e-3,
        dropout=0.1,
    ),
    replace(
        _FASHION["cnn-fashion"],
        name="cnn-plain-fashion",
        what="CNN of thesis Table 2.1, trained plainly",
        perturbation=Plain(),
        epochs=5,
    ),
    replace(
        _FASHION["cnn-fashion"],
        name="cnn-gaussian-fashion",
        what="CNN of thesis Table 2.1, trained with the Gaussian noise of thesis section 4.3",
        perturbation=SMOOTHING_NOISE,
    ),
    replace(
        _FASHION["adv-linf-fashion"],
        name="adv-linf-gaussian-fashion",
        what="CNN of thesis Table 2.1, trained from scratch on Linf PGD with the Gaussian noise of thesis section 4.3 added "
        "(the combination that its section 4.6 proposes)",
        perturbation=Composed((_FASHION["adv-linf-fashion"].perturbation, SMOOTHING_NOISE)),
    ),
    *(item for data in _DATA_SETS for item in (*_classifiers(data), *_autoencoders(data))),
    _small_photo_cnn("gender", "celeba-10k-gender", "photo-64", epochs=30, dropout=0.1),
    _small_photo_cnn("identities", "celeba-100-identities", "photo-64", epochs=40, dropout=0.3),
    _small_photo_cnn("cars", "stanford-cars-4", "photo-128", epochs=30, dropout=0.3),
    *HEADED_PRESETS,
    *CIFAR_PRESETS,
    *PURIFIER_PRESETS,
    *GENERATOR_PRESETS,
)

PRESETS: Mapping[str, Preset] = MappingProxyType({item.name: item for item in _ALL})
"""All presets by name."""


def preset(name: str) -> Preset:
    """Look up a preset.

    Raises:
        GenclsError: for an unknown name, listing the known ones.
    """
    if name not in PRESETS:
        raise GenclsError(f"unknown training {name!r}; {did_you_mean(name, PRESETS)}expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
