"""The trainings that make the committed weights, by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gencls.core.errors import GenclsError
from gencls.zoo.training.perturbations import Adversarial, GaussianNoise, Perturbation, Plain

__all__ = ["PRESETS", "ClassifierPreset", "Preset", "VAEPreset", "preset"]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A training: everything but the data and the seed.

    The thesis trains for 500 epochs (200 more for adversarial training) with batches of 512. The presets are cut to
    minutes on one CPU core: fewer epochs, smaller batches and a learning rate that falls to zero along a cosine.

    Attributes:
        name: of the weights.
        what: one sentence for the card.
        perturbation: of the training images.
        epochs: passes over the training set.
        batch_size: images per step.
        learning_rate: of Adam, at the start.
        dropout: rate; not given in the thesis.
        architecture: column of Table 2.1.
    """

    name: str
    what: str
    perturbation: Perturbation
    epochs: int
    batch_size: int
    learning_rate: float
    dropout: float
    architecture: str = "mnist"

    @property
    def recipe(self) -> str:
        """All settings in one sentence, for the card."""
        return (
            f"{self.epochs} epochs of batches of {self.batch_size}, Adam from learning rate {self.learning_rate} along a "
            f"cosine to 0, dropout {self.dropout}, images: {self.perturbation}"
        )


@dataclass(frozen=True, kw_only=True)
class ClassifierPreset(Preset):
    """Training of a CNN."""


@dataclass(frozen=True, kw_only=True)
class VAEPreset(Preset):
    """Training of class-conditional VAEs.

    Attributes:
        beta: weight of the KL divergence (thesis, eq. 2.2).
    """

    beta: float = 1.0

    @property
    def recipe(self) -> str:
        """All settings in one sentence, for the card."""
        return f"{super().recipe}, beta {self.beta}"


_ALL: tuple[Preset, ...] = (
    ClassifierPreset(
        name="cnn-mnist",
        what="CNN of thesis Table 2.1, trained plainly",
        perturbation=Plain(),
        epochs=10,
        batch_size=128,
        learning_rate=2e-3,
        dropout=0.1,
    ),
    ClassifierPreset(
        name="cnn-gaussian-mnist",
        what="CNN of thesis Table 2.1, trained with additive Gaussian noise",
        perturbation=GaussianNoise(sigma=0.2),
        epochs=10,
        batch_size=128,
        learning_rate=2e-3,
        dropout=0.1,
    ),
    ClassifierPreset(
        name="adv-linf-mnist",
        what="CNN of thesis Table 2.1, adversarially trained from scratch (thesis: from the plain CNN) with Linf PGD",
        perturbation=Adversarial(norm="linf", epsilon=0.3, steps=7, step_size=0.1, warmup_epochs=3.0),
        epochs=12,
        batch_size=128,
        learning_rate=2e-3,
        dropout=0.0,
    ),
    ClassifierPreset(
        name="adv-l2-mnist",
        what="CNN of thesis Table 2.1, adversarially trained from scratch (thesis: from the plain CNN) with L2 PGD",
        perturbation=Adversarial(norm="l2", epsilon=1.5, steps=5, step_size=0.6, warmup_epochs=2.0),
        epochs=7,
        batch_size=128,
        learning_rate=2e-3,
        dropout=0.0,
    ),
    VAEPreset(
        name="abs-mnist",
        what=(
            "Ten decoders of ABS with the layers of thesis Table 2.1, trained as class-conditional VAEs without the noise "
            "of the thesis: on 300 MNIST test digits ABS had, after 3 epochs, 87 % with noise 0.2 and 89 % without"
        ),
        perturbation=Plain(),
        epochs=15,
        batch_size=256,
        learning_rate=5e-3,
        dropout=0.0,
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({item.name: item for item in _ALL})
"""All presets by name."""


def preset(name: str) -> Preset:
    """Look up a preset.

    Raises:
        GenclsError: for an unknown name, listing the known ones.
    """
    if name not in PRESETS:
        raise GenclsError(f"unknown training {name!r}; expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
