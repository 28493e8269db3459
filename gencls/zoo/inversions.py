"""Rows of the classifiers that invert our conditional GANs: Direct, Enc, Enc-D and their overparameterised forms."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from gencls.core import Defense, GenclsError, ImageDistance
from gencls.defenses import Direct, DirectPlus, Enc, EncD, EncDPlus, EncPlus
from gencls.perceptual import Combined, FeatureDistance, SquaredL2
from gencls.zoo.checkpoints.places import Read
from gencls.zoo.distances import DISTANCES, feature_distance
from gencls.zoo.networks import ResNetEncoder, SelfModulatedGenerator
from gencls.zoo.ready_made import Part, ReadyMade, network_part

_FEATURES = ("features", "features-corruptions", "robust-linf", "contrastive")
"""Words for D: the distance in the zoo is WORD-DATA. The first is the thesis's plain one (its VGG)."""


def _direct(
    method: Callable[..., Defense],
    generator: nn.Module,
    *,
    distance: ImageDistance,
    percept_weight: float = 1.0,
    **settings: Any,
) -> Defense:
    return method(generator, distance=_combined(distance, percept_weight), **settings)


def _encoded(
    method: Callable[..., Defense],
    encoder: nn.Module,
    *,
    generator: nn.Module,
    distance: ImageDistance,
    percept_weight: float = 1.0,
    **settings: Any,
) -> Defense:
    return method(generator, encoder, distance=_combined(distance, percept_weight), **settings)


def _combined(distance: ImageDistance, percept_weight: float) -> ImageDistance:
    """Eq. 3.7, the squared L2 distance and lambda_percept times a distance of features; or pixels alone."""
    if isinstance(distance, FeatureDistance):
        return Combined(SquaredL2(), distance, percept_weight)
    if percept_weight != 1.0:
        raise GenclsError(
            f"expected percept_weight (lambda_percept) only with a distance of features, got {percept_weight} with pixels alone"
        )
    return distance


def _pixels(read: Read, weights: Path | None) -> ImageDistance:
    return SquaredL2()


def _features(name: str, read: Read, weights: Path | None) -> ImageDistance:
    return feature_distance(DISTANCES[name].network(name, read, weights))


def _distances(data: str) -> dict[str, Part]:
    names = {word: f"{word}-{data}" for word in _FEATURES}
    ours = {word: name for word, name in names.items() if name in DISTANCES and DISTANCES[name].trained}
    found = {word: Part(DISTANCES[name].trained, partial(_features, name)) for word, name in ours.items()}
    return {**found, "pixels": Part("", _pixels)}


def _rows(data: str) -> dict[str, ReadyMade]:
    distance = _distances(data)
    direct = {
        kind: ReadyMade(
            partial(_direct, method),
            SelfModulatedGenerator,
            trained=f"cgan-{data}",
            parts={"distance": distance},
            settings=Direct,
        )
        for kind, method in (("direct", Direct), ("direct-plus", DirectPlus))
    }
    generator = network_part(SelfModulatedGenerator, f"cgan-{data}")
    parts: dict[str, Part | Mapping[str, Part]] = {"generator": generator, "distance": distance}
    encoded = {
        kind: ReadyMade(partial(_encoded, method), ResNetEncoder, trained=trained, parts=parts, settings=Enc)
        for kind, method, trained in (
            ("enc", Enc, None),
            ("enc-plus", EncPlus, f"enc-{data}"),
            ("enc-d", EncD, None),
            ("enc-d-plus", EncDPlus, f"enc-d-{data}"),
        )
    }
    return {f"{kind}-{data}": row for kind, row in (direct | encoded).items()}


INVERSIONS: Mapping[str, ReadyMade] = MappingProxyType(
    {name: row for data in ("fashion", "mnist", "cifar10") for name, row in _rows(data).items()}
)
"""Every classifier that inverts a conditional GAN of ours, by name."""
