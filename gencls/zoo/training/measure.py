"""The figures on a card: what a trained network does on images that it was not trained on."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gencls.core.streams.seeds import seeded
from gencls.zoo.data import ImageData
from gencls.zoo.data.image_data import balanced_subset
from gencls.zoo.training.thesis import radii
from gencls.zoo.training.views.adversarial import Adversarial, pgd

_CHUNK = 500
_NUMBERS = 2**24  # in the images of a chunk, at most


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
    """Measure a classifier: clean accuracy, and under PGD if the thesis has radii for the data set.

    Args:
        network: images to logits (N, K), in eval mode.
        tests: one or more test sets, for clean accuracy; PGD attacks a part of the last one.
        few: size of this part, see :func:`measured_part`.

    Returns:
        Shares in [0, 1] by a description of the measurement.
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
    """A part of a test set for what is slow to measure: images, labels, and what descriptions call it.

    Args:
        test: the test set.
        few: images, with equally many of each class; at most the size of the test set.
    """
    part = balanced_subset(test.labels, few, seed=0)
    return test.images[part], test.labels[part], f"{test.name} {test.split}, {len(part)} images"


def _chunk(images: Tensor) -> int:
    return min(_CHUNK, max(1, _NUMBERS // images[0].numel()))


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images that the model classifies as labelled.

    Args:
        model: images to scores (N, K), in eval mode.
        images: (N, C, H, W) in [0, 1].
        labels: int64 (N,).
    """
    with torch.no_grad():
        correct = [
            (model(batch).argmax(1) == expected).sum()
            for batch, expected in zip(images.split(_chunk(images)), labels.split(_chunk(images)), strict=True)
        ]
    return int(torch.stack(correct).sum()) / len(labels)


def adversarial_accuracy(model: nn.Module, images: Tensor, labels: Tensor, attack: Adversarial, *, seed: int = 0) -> float:
    """Share of images that the model classifies as labelled after PGD with one random start.

    Args:
        model: images to logits (N, K), differentiable, in eval mode.
        images: (N, C, H, W) in [0, 1].
        labels: int64 (N,).
        attack: norm, radius, steps and step size; its warm-up is not used.
        seed: of the random starts.
    """
    with seeded(seed):
        adversarial = [
            pgd(
                model,
                batch,
                expected,
                norm=attack.norm,
                epsilon=attack.epsilon,
                steps=attack.steps,
                step_size=attack.step_size,
            )
            for batch, expected in zip(images.split(_chunk(images)), labels.split(_chunk(images)), strict=True)
        ]
    return accuracy(model, torch.cat(adversarial), labels)
