"""The figures on a card: measurements of a trained network on images that it was not trained on."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from gencls.core.streams.seeds import seeded
from gencls.zoo.data import ImageData
from gencls.zoo.data.image_data import balanced_subset
from gencls.zoo.training.thesis import radii
from gencls.zoo.training.views.adversarial import Adversarial

_CHUNK = 500
_NUMBERS = 2**24  # numbers in the images of a chunk, at most


def _attacks(data: str) -> tuple[Adversarial, ...]:
    known = radii(data)
    if known is None:
        return ()
    linf, l2 = known
    return (
        Adversarial(norm="linf", epsilon=linf, steps=40, step_size=round(linf / 15, 6), warmup_epochs=0),
        Adversarial(norm="l2", epsilon=l2, steps=40, step_size=round(l2 / 15, 6), warmup_epochs=0),
    )


def measure_classifier(network: nn.Module, tests: Sequence[ImageData], *, few: int = 1000) -> dict[str, float]:
    """Measure a classifier: clean accuracy on all test sets, and accuracy under PGD on a part of the last one.

    PGD runs only if the thesis has radii for the data set. Arguments and result are those of
    :meth:`gencls.zoo.training.base.Preset.measure`.
    """
    figures = {
        f"clean accuracy, {test.name} {test.split}, {len(test)} images": accuracy(network, test.images, test.labels)
        for test in tests
    }
    images, labels, where = measured_part(tests[-1], few)
    for attack in _attacks(tests[-1].name):
        described = f"PGD {attack.norm} {attack.epsilon}, {attack.steps} steps of {attack.step_size}, 1 random start"
        figures[f"accuracy under {described}, {where}"] = adversarial_accuracy(network, images, labels, attack)
    return figures


def measured_part(test: ImageData, few: int) -> tuple[Tensor, Tensor, str]:
    """Choose at most ``few`` images of a test set, equally many of each class, with labels and a description."""
    part = balanced_subset(test.labels, few, seed=0)
    return test.images[part], test.labels[part], f"{test.name} {test.split}, {len(part)} images"


def _batches(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    size = min(_CHUNK, max(1, _NUMBERS // images[0].numel()))
    return zip(images.split(size), labels.split(size), strict=True)


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images (N, C, H, W) in [0, 1] that a model in eval mode classifies as labelled, (N,); it gives scores (N, K)."""
    with torch.no_grad():
        correct = [(model(batch).argmax(1) == expected).sum() for batch, expected in _batches(images, labels)]
    return int(torch.stack(correct).sum()) / len(labels)


def adversarial_accuracy(model: nn.Module, images: Tensor, labels: Tensor, attack: Adversarial, *, seed: int = 0) -> float:
    """Accuracy after PGD with one random start, at the full radius of the attack; ``seed`` is the seed of the start."""
    with seeded(seed):
        adversarial = [attack(model, *batch, epoch=math.inf) for batch in _batches(images, labels)]
    return accuracy(model, torch.cat(adversarial), labels)
