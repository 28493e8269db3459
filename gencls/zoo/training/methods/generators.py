"""The figures on the cards of generators with several latent levels; all their trainings share them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gencls.core import Mix, MultiLatentModel
from gencls.core.streams.seeds import seeded
from gencls.eval.measures.fid import Penultimate, frechet_distance
from gencls.zoo.data import ImageData
from gencls.zoo.data.image_data import balanced_subset
from gencls.zoo.networks import CNN
from gencls.zoo.networks.classifiers.published import load_autoattack_resnet18
from gencls.zoo.trained import trained_network
from gencls.zoo.training.base import NetworkPreset
from gencls.zoo.training.measure import accuracy, measured_part

_CHUNK = 100
_MORE = 10  # The Frechet distance takes this many times more images: covariances of hundreds of features need thousands.

_AUTOATTACK = "resnet18-autoattack-cifar10"

CLASSIFIERS = {
    "fashion-mnist": "cnn-fashion",
    "mnist": "cnn-mnist",
    "mnist-embedded": "cnn-mnist",
    "celeba-10k-gender": "cnn-gender",
    **dict.fromkeys(("cifar10", "cifar10-jpeg", "cifar10-lossless"), _AUTOATTACK),
}
"""The classifier of a data set, committed or in a dependency. It judges reconstructions, and gives the features of the Frechet
distance."""


def judge(name: str) -> tuple[nn.Module, Penultimate]:
    """A classifier of :data:`CLASSIFIERS`, images to scores, and its features before the last layer."""
    classifier = load_autoattack_resnet18() if name == _AUTOATTACK else trained_network(CNN, name)
    return classifier, Penultimate(classifier)


class GeneratorPreset(NetworkPreset):
    """Training of a :class:`gencls.core.MultiLatentModel`."""

    def card_arguments(self, num_classes: int) -> dict[str, Any]:
        return self.arguments

    def measure(self, network: Any, tests: Sequence[ImageData], *, few: int = 1000) -> dict[str, float]:
        """Measure the generator on the last test set. The Frechet distance takes up to ten times as many images as the others.

        Returns:
            The reconstruction error; the bound on the likelihood, if the generator has one. If a committed classifier knows the
                data set, also its accuracy on the images and on their reconstructions, and the Frechet distances.
        """
        test = tests[-1]
        images, labels, where = measured_part(test, few)
        with seeded(0):
            reconstructions = autoencoded(network, images)
            figures = {
                f"mean squared reconstruction error, alphas 0, {where}": float((reconstructions - images).square().mean())
            }
            figures |= {f"{bound}, {where}": value for bound, value in self.bounds(network, images).items()}
            if test.name not in CLASSIFIERS:
                return figures
            name = CLASSIFIERS[test.name]
            classifier, features = judge(name)
            for kind, shown in (("images", images), ("reconstructions, alphas 0", reconstructions)):
                figures[f"accuracy of {name} on {kind}, {where}"] = round(accuracy(classifier, shown, labels), 6)
            many = test.images[balanced_subset(test.labels, min(_MORE * few, len(test)), seed=0)]
            for kind, made in (("samples", samples), ("reconstructions", autoencoded)):
                described = f"FID of {kind} on features of {name} ({features.num_features} before its last layer)"
                where = f"{test.name} {test.split}, {len(many)} images each"
                figures[f"{described}, {where}"] = frechet_distance(features, many, made(network, many))
        return figures

    def bounds(self, network: Any, images: Tensor) -> dict[str, float]:
        """Bounds on the likelihood of images (N, C, H, W), by their descriptions."""
        return {}


def autoencoded(network: MultiLatentModel, images: Tensor) -> Tensor:
    """Reconstructions from the encoded codes alone, (N, C, H, W) in [0, 1]: all alphas 0."""
    return _made(network, images, lambda level, encoded, sampled: encoded)


def samples(network: MultiLatentModel, like: Tensor) -> Tensor:
    """Images from sampled codes alone, as many as in ``like`` (N, C, H, W): all alphas 1."""
    return _made(network, like, lambda level, encoded, sampled: sampled)


def _made(network: MultiLatentModel, images: Tensor, mix: Mix) -> Tensor:
    with torch.no_grad():
        return torch.cat([network.autoencode(batch, mix) for batch in images.split(_CHUNK)])
