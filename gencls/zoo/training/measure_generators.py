"""The figures on the card of a generator with several latent levels."""

import math
import warnings

import torch
from torch import Tensor, nn

from gencls.core import Mix, MultiLatentModel
from gencls.core.streams.seeds import seeded
from gencls.zoo.data import ImageData
from gencls.zoo.data.image_data import balanced_subset
from gencls.zoo.networks import CNN
from gencls.zoo.networks.nvae.hierarchical_vae import HierarchicalVAE
from gencls.zoo.registry import trained_network

__all__ = ["CLASSIFIERS", "autoencoded", "bits_per_dimension", "frechet_distance", "measure_generator", "samples"]

_CHUNK = 100
_MORE = 10  # times as many images for the Frechet distance: covariances of hundreds of features need thousands

CLASSIFIERS = {
    "fashion-mnist": "cnn-fashion",
    "mnist": "cnn-mnist",
    "mnist-embedded": "cnn-mnist",
    "celeba-10k-gender": "cnn-gender",
}
"""The committed classifier of a data set: it judges reconstructions, and its features those of the Frechet distance."""


def measure_generator(network: MultiLatentModel, test: ImageData, *, few: int = 1000) -> dict[str, float]:
    """Measure a generator.

    Args:
        network: in eval mode.
        test: a test set.
        few: images that are measured, equally many of each class, at most the size of the test set; of the Frechet distance up
            to ten times as many.

    Returns:
        The reconstruction error; of a hierarchical VAE the bound on bits per dimension; and where a committed classifier knows
        the data set, its accuracy on the images and on their reconstructions, and the Frechet distances.
    """
    part = balanced_subset(test.labels, few, seed=0)
    images, labels = test.images[part], test.labels[part]
    where = f"{test.name} {test.split}, {len(labels)} images"
    with seeded(0):
        reconstructions = autoencoded(network, images)
        figures = {f"mean squared reconstruction error, alphas 0, {where}": float((reconstructions - images).square().mean())}
        if isinstance(network, HierarchicalVAE):
            figures[f"bits per dimension, at most, one draw, {where}"] = bits_per_dimension(network, images)
        if test.name not in CLASSIFIERS:
            return figures
        name = CLASSIFIERS[test.name]
        classifier = trained_network(CNN, name)
        features = classifier.encoder
        for kind, shown in (("images", images), ("reconstructions, alphas 0", reconstructions)):
            with torch.no_grad():
                share = (classifier(shown).argmax(1) == labels).float().mean()
            figures[f"accuracy of {name} on {kind}, {where}"] = round(float(share), 6)
        many = test.images[balanced_subset(test.labels, min(_MORE * few, len(test)), seed=0)]
        for kind, made in (("samples", samples), ("reconstructions", autoencoded)):
            described = f"FID of {kind} on features of {name} ({features.out_features} before its last layer)"
            where = f"{test.name} {test.split}, {len(many)} images each"
            figures[f"{described}, {where}"] = frechet_distance(features, many, made(network, many))
    return figures


def autoencoded(network: MultiLatentModel, images: Tensor) -> Tensor:
    """Reconstructions from the encoded codes alone, (N, C, H, W) in [0, 1]: all alphas 0."""
    return _made(network, images, lambda level, encoded, sampled: encoded)


def samples(network: MultiLatentModel, like: Tensor) -> Tensor:
    """As many images as there are in ``like`` (N, C, H, W), from sampled codes alone: all alphas 1."""
    return _made(network, like, lambda level, encoded, sampled: sampled)


def _made(network: MultiLatentModel, images: Tensor, mix: Mix) -> Tensor:
    with torch.no_grad():
        return torch.cat([network.autoencode(batch, mix) for batch in images.split(_CHUNK)])


def bits_per_dimension(network: HierarchicalVAE, images: Tensor) -> float:
    """The negative evidence lower bound, from one draw of the posterior, in bits per channel of a pixel.

    Args:
        network: in eval mode.
        images: (N, C, H, W) in [0, 1], of 8 bits.
    """
    bounds: list[Tensor] = []
    with torch.no_grad():
        for batch in images.split(_CHUNK):
            output = network(batch)
            bounds.append(output.kl.sum(1) - output.reconstruction.log_prob(batch).sum((1, 2)))
    return float(torch.cat(bounds).mean()) / (images[0].numel() * math.log(2))


def frechet_distance(features: nn.Module, real: Tensor, made: Tensor) -> float:
    """Frechet distance of two sets of images: |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of means and covariances of features.

    Source: Heusel et al. 2017, arXiv:1706.08500; there with the features of Inception, which nobody should compare with these.

    Args:
        features: images (N, C, H, W) in [0, 1] to (N, d), in eval mode.
        real: (N, C, H, W) in [0, 1].
        made: (M, C, H, W) in [0, 1].
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pkg_resources.*")
        from torchmetrics.image.fid import FrechetInceptionDistance

    distance = FrechetInceptionDistance(feature=features, normalize=True, input_img_size=(*real.shape[1:],))
    with torch.no_grad():
        for images, is_real in ((real, True), (made, False)):
            for batch in images.split(_CHUNK):
                distance.update(batch, real=is_real)
    return float(distance.compute())
