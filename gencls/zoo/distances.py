"""Feature distances by name: of which network, with which weights, and of which layers.

The thesis (section 3.3) compares features of a plain VGG, of a network that is robust against Linf attacks and of one that is
robust against corruptions. Published networks of this kind are for CIFAR10. For grey digits and clothes they are our own.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from gencls.core import GenclsError
from gencls.core.words import with_article
from gencls.perceptual import FeatureDistance
from gencls.zoo.checkpoints.places import WEIGHTS, Read
from gencls.zoo.networks import CNN, CifarPreActResNet, CifarVGG
from gencls.zoo.networks.classifiers.published import load_autoattack_resnet18, load_kuangliu, load_robustbench

__all__ = ["DISTANCES", "TRAINED_FOR_DISTANCES", "NamedDistance", "feature_distance", "feature_layers"]


@dataclass(frozen=True)
class NamedDistance:
    """Where the network of a distance comes from.

    Attributes:
        make: makes the network, from how those of trainings are read and from ``weights``: a training's weights or None, a
            file of others, None for a dependency's.
        trained: name of the training, if it is one of ours.
        file: which file of others it needs, in words.
    """

    make: Callable[[Read, Any], nn.Module]
    trained: str = ""
    file: str = ""

    def network(self, name: str, read: Read, weights: str | Path | None) -> nn.Module:
        """The network in eval mode, its parameters frozen; see :func:`gencls.zoo.load_distance`."""
        if self.file and weights is None:
            raise GenclsError(f"{name}: expected weights=PATH, {self.file}; got none")
        if not self.file and not self.trained and weights is not None:
            raise GenclsError(f"{name}: expected no weights, they come with a dependency; got {weights}")
        return self.make(read, weights)

    @property
    def is_here(self) -> bool:
        """Whether the weights are committed, or come with a dependency."""
        return (WEIGHTS / f"{self.trained}.safetensors").is_file() if self.trained else not self.file


def _vgg(read: Read, path: str | Path) -> nn.Module:
    network = load_kuangliu(path)
    if not isinstance(network, CifarVGG):
        raise GenclsError(f"{path}: expected a VGG of kuangliu/pytorch-cifar, got its {type(network).__name__}")
    return network


def _robustbench(name: str, threat: str, read: Read, path: str | Path) -> nn.Module:
    return load_robustbench(path, name=name, threat=threat)


def _ours(kind: type[nn.Module], name: str) -> NamedDistance:
    return NamedDistance(lambda read, weights: read(kind, name, weights), trained=name)


_GREY = ("mnist", "fashion")

TRAINED_FOR_DISTANCES: Mapping[str, type[nn.Module]] = MappingProxyType(
    {f"contrastive-{data}": CifarPreActResNet for data in (*_GREY, "cifar10")}
)
"""The network of each training that only serves a distance."""

DISTANCES: Mapping[str, NamedDistance] = MappingProxyType(
    {
        **{
            name: _ours(CifarPreActResNet, name)
            for data in (*_GREY, "cifar10")
            for name in (f"features-{data}", f"features-corruptions-{data}")
        },
        **{f"robust-linf-{data}": _ours(CNN, f"adv-linf-{data}") for data in _GREY},
        **{name: _ours(kind, name) for name, kind in TRAINED_FOR_DISTANCES.items()},
        "vgg-cifar10": NamedDistance(_vgg, file="a VGG of GitHub kuangliu/pytorch-cifar"),
        "resnet18-autoattack-cifar10": NamedDistance(lambda read, weights: load_autoattack_resnet18()),
        "robust-linf-cifar10": NamedDistance(
            partial(_robustbench, "Wong2020Fast", "Linf"), file="RobustBench's file of Wong2020Fast"
        ),
        "robust-corruptions-cifar10": NamedDistance(
            partial(_robustbench, "Kireev2021Effectiveness_RLATAugMix", "corruptions"),
            file="RobustBench's file of Kireev2021Effectiveness_RLATAugMix",
        ),
    }
)
"""Every named distance.

The thesis names the authors of its robust networks. Of the five by Kireev et al. in RobustBench it does not say which it took.
"""


def feature_distance(network: nn.Module, *, normalize: bool = True) -> FeatureDistance:
    """The squared distance of eq. 3.6 over the layers of :func:`feature_layers`."""
    return FeatureDistance(network, feature_layers(network), normalize=normalize)


def feature_layers(network: nn.Module) -> tuple[str, ...]:
    """The names of the layers whose maps are compared.

    These are the stages of a residual network, the last ReLU before each pooling of a VGG (as LPIPS takes them), and the
    activations of our CNN. The thesis does not name its layers.

    Raises:
        GenclsError: for a network of another kind.
    """
    parts = dict(network.named_modules())
    if isinstance(network, CifarVGG):
        pooled = [number for number, part in enumerate(network.features) if isinstance(part, nn.MaxPool2d)]
        return tuple(f"features.{number - 1}" for number in pooled)
    if isinstance(network, CNN):
        return tuple(name for name, part in parts.items() if isinstance(part, nn.LeakyReLU))
    stages = tuple(name for name in parts if re.fullmatch(r"layer\d+", name))
    if not stages:
        raise GenclsError(
            f"feature layers: expected a residual network, a CifarVGG or a CNN, got {with_article(type(network).__name__)}"
        )
    return stages
