"""From a preset of a purifier to its training, and what its card says."""

from typing import Any

import torch
from torch import nn

from gencls.core import GenclsError, Transform
from gencls.core.streams.seeds import seeded
from gencls.defenses import AVAEPurification, NDVAEPurification
from gencls.zoo.data import ImageData
from gencls.zoo.data.image_data import balanced_subset
from gencls.zoo.networks import AVAE, NDVAE, AVAECritic
from gencls.zoo.registry import load
from gencls.zoo.training.measure import accuracy
from gencls.zoo.training.methods.a_vae import AVAETraining
from gencls.zoo.training.methods.modules import NetworkTraining
from gencls.zoo.training.methods.nd_vae import NDVAETraining
from gencls.zoo.training.purifier_presets import AVAEPreset, NDVAEPreset, PurifierPreset
from gencls.zoo.training.views.perturbations import FastGradient

__all__ = ["measure_purifier", "purifier_training"]

_CHUNK = 100


def purifier_training(settings: PurifierPreset, **shared: Any) -> NetworkTraining:
    """Build the training.

    Args:
        settings: of the purifier.
        **shared: see :class:`~gencls.zoo.training.methods.modules.NetworkTraining`.

    Raises:
        GenclsError: for a preset of an unknown kind.
    """
    if isinstance(settings, AVAEPreset):
        critic = AVAECritic(settings.shape[0], settings.channels)
        return AVAETraining(AVAE(**settings.arguments), critic, reconstruction=settings.reconstruction, **shared)
    if isinstance(settings, NDVAEPreset):
        return NDVAETraining(
            NDVAE(**settings.arguments),
            load(settings.classifier),
            sigma=settings.sigma,
            warm_up_share=settings.warm_up_share,
            **shared,
        )
    raise GenclsError(f"{settings.name}: expected a preset of a known kind, got a {type(settings).__name__}")


def measure_purifier(network: nn.Module, settings: PurifierPreset, test: ImageData, *, few: int = 1000) -> dict[str, float]:
    """Measure a purifier in front of the classifier that it is for.

    Args:
        network: in eval mode.
        settings: it was trained with.
        test: the test set.
        few: so many of its images, with equally many of each class.

    Returns:
        By a description of the measurement: mean squared errors of purified images, and accuracies of the classifier.

    Raises:
        GenclsError: for a network of an unknown kind.
    """
    transform: Transform
    if isinstance(network, AVAE):
        transform = AVAEPurification(network, realisations=16)
    elif isinstance(network, NDVAE) and isinstance(settings, NDVAEPreset):
        transform = NDVAEPurification(network, sigma=settings.sigma)
    else:
        raise GenclsError(f"{settings.name}: expected an AVAE, or an NDVAE and its preset, got a {type(network).__name__}")
    classifier = load(settings.classifier)
    attack = FastGradient(norm="l2", epsilons=(settings.length,))
    part = balanced_subset(test.labels, few, seed=0)
    images, labels = test.images[part], test.labels[part]
    with seeded(0):
        batches = zip(images.split(_CHUNK), labels.split(_CHUNK), strict=True)
        attacked = torch.cat([attack(classifier, *batch, epoch=0.0) for batch in batches])
        figures: dict[str, float] = {}
        for kind, inputs in (("clean", images), (f"FGSM L2 {settings.length}", attacked)):
            with torch.no_grad():
                purified = torch.cat([transform(batch) for batch in inputs.split(_CHUNK)])
                rows = {"as they are": inputs, f"purified ({transform.extra_repr()})": purified}
                for state, shown in rows.items():
                    what = f"{test.name} {test.split}, {len(labels)} {kind} images {state}"
                    figures[f"accuracy of {settings.classifier}, {what}"] = accuracy(classifier, shown, labels)
                    if shown is not images:
                        error = float((shown - images).square().mean())
                        figures[f"mean squared error to clean images, {what}"] = round(error, 6)
    return figures
