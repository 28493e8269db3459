"""The base of trainings of purifying autoencoders: the methods that the MLVGM paper compares with."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gencls.core import Transform
from gencls.core.streams.seeds import seeded
from gencls.zoo.data import ImageData
from gencls.zoo.registry import load
from gencls.zoo.training.base import NetworkPreset
from gencls.zoo.training.measure import accuracy, measured_part
from gencls.zoo.training.views.adversarial import FastGradient

_CHUNK = 100


@dataclass(frozen=True, kw_only=True)
class PurifierPreset(NetworkPreset):
    """Training of an autoencoder that purifies.

    Attributes:
        classifier: name of the classifier to defend.
        length: L2 length of the gradient step in the measurements, in [0, 1] pixel units.
    """

    classifier: str
    length: float

    def card_arguments(self, num_classes: int) -> dict[str, Any]:
        return self.arguments

    @abstractmethod
    def transform(self, network: Any) -> Transform:
        """Make the purification from a trained network."""

    def measure(self, network: Any, tests: Sequence[ImageData], *, few: int = 1000) -> dict[str, float]:
        """Measure the purifier in front of its classifier, on a part of the last test set.

        Returns:
            Mean squared errors of purified images, and accuracies of the classifier, by a description of the measurement.
        """
        test = tests[-1]
        transform = self.transform(network)
        settings = transform.extra_repr()
        purified = f"purified ({settings})" if settings else "purified"
        classifier = load(self.classifier)
        attack = FastGradient(norm="l2", epsilons=(self.length,))
        images, labels, _ = measured_part(test, few)
        with seeded(0):
            batches = zip(images.split(_CHUNK), labels.split(_CHUNK), strict=True)
            attacked = torch.cat([attack(classifier, *batch, epoch=0.0) for batch in batches])
            figures: dict[str, float] = {}
            for kind, inputs in (("clean", images), (f"FGSM L2 {self.length}", attacked)):
                with torch.no_grad():
                    outputs = torch.cat([transform(batch) for batch in inputs.split(_CHUNK)])
                    rows = {"as they are": inputs, purified: outputs}
                    for state, shown in rows.items():
                        what = f"{test.name} {test.split}, {len(labels)} {kind} images {state}"
                        figures[f"accuracy of {self.classifier}, {what}"] = accuracy(classifier, shown, labels)
                        if shown is not images:
                            error = float((shown - images).square().mean())
                            figures[f"mean squared error to clean images, {what}"] = round(error, 6)
        return figures
