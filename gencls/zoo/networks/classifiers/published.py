"""Published CIFAR10 classifiers of GitHub kuangliu/pytorch-cifar and akamaster/pytorch_resnet_cifar10: a file to a network.

Sizes are read off the weights. Both projects normalise images before the network; here it is done inside.
"""

import re
from hashlib import file_digest
from importlib.util import find_spec
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from gencls.core.errors import GenclsError
from gencls.zoo.checkpoints.published import State, Weights, weights_in, with_counters, without_prefixes
from gencls.zoo.networks.classifiers.cifar_resnet import CifarPreActResNet, CifarResNet
from gencls.zoo.networks.classifiers.cifar_vgg import CifarVGG

__all__ = [
    "KUANGLIU",
    "akamaster_from_state",
    "kuangliu_from_state",
    "load_akamaster",
    "load_autoattack_resnet18",
    "load_kuangliu",
]

KUANGLIU = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
"""The normalisation of kuangliu's script."""
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # akamaster's
_AUTOATTACK = "399f52da9f914c323fa5a6096d60f460a3449a59b64a6405200c1e629f8425a7"


def load_kuangliu(path: str | Path, *, normalized: bool = True) -> CifarResNet | CifarPreActResNet | CifarVGG:
    """Read a checkpoint of GitHub kuangliu/pytorch-cifar: a ResNet of basic blocks, a VGG or a PreActResNet.

    Its script writes a dictionary of ``net``, ``acc`` and ``epoch``; other projects that train its networks save the weights
    alone, which are read too. Keys may begin with ``module.``.

    Args:
        path: the file.
        normalized: whether the network was trained on images normalised as by that script, and so is to normalise inside;
            False for weights that were trained on images in [0, 1].

    Returns:
        The network in eval mode, its parameters frozen.

    Raises:
        GenclsError: for a file that is missing, damaged or something else; weights that are not those of such a network.
    """
    state = without_prefixes(weights_in(path, "net"), "module.")
    return kuangliu_from_state(state, normalized=normalized)


def load_akamaster(path: str | Path) -> CifarResNet:
    """Read a checkpoint of GitHub akamaster/pytorch_resnet_cifar10: ResNet-20, -32, -44, -56, ... with "option A" shortcuts.

    Such a file is a dictionary of ``state_dict`` and ``best_prec1``; keys begin with ``module.``.

    Args:
        path: the file.

    Returns:
        The network in eval mode, its parameters frozen.

    Raises:
        GenclsError: as :func:`load_kuangliu`.
    """
    return akamaster_from_state(without_prefixes(weights_in(path, "state_dict"), "module."))


def load_autoattack_resnet18() -> CifarResNet:
    """The example of the dependency pyautoattack: kuangliu's ResNet-18, trained plainly on images in [0, 1].

    The package says nothing of its training. It is 100 % right on 300 of CIFAR10's training images and 95 % on 200 of its test
    images (cifar10-lossless), and not robust.

    Returns:
        The network in eval mode, its parameters frozen.

    Raises:
        GenclsError: the file is missing or not that of pyautoattack 0.2.0.
    """
    package = find_spec("pyautoattack")
    if package is None or package.origin is None:
        raise GenclsError("resnet18-autoattack-cifar10: expected the package pyautoattack, whose example it is; got none")
    path = Path(package.origin).parent / "examples" / "model_test.pt"
    network = load_kuangliu(path, normalized=False)
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    if digest != _AUTOATTACK or not isinstance(network, CifarResNet):
        raise GenclsError(f"{path}: expected the file of pyautoattack 0.2.0, SHA-256 {_AUTOATTACK}; got {digest}")
    return network


def kuangliu_from_state(state: State, *, normalized: bool = True) -> CifarResNet | CifarPreActResNet | CifarVGG:
    """Build the network whose weights these are; the network shares the tensors.

    Args:
        state: a state dict of GitHub kuangliu/pytorch-cifar; ``num_batches_tracked`` may be missing.
        normalized: see :func:`load_kuangliu`.

    Returns:
        The network in eval mode, its parameters frozen.

    Raises:
        GenclsError: for keys that are missing or surplus, or tensors of an unexpected shape.
    """
    state = with_counters(state)
    normalization: dict[str, Any] = KUANGLIU if normalized else {}
    if any(key.startswith("features.") for key in state):
        vgg = Weights(CifarVGG, state)
        return vgg.build(groups=_groups(vgg), num_classes=vgg.shape("classifier.weight", 2)[0], **normalization)
    plain = any(key.startswith("bn1.") for key in state)
    weights: Weights[CifarResNet | CifarPreActResNet] = Weights(CifarResNet if plain else CifarPreActResNet, state)
    return weights.build(**_sizes(weights), **normalization)


def akamaster_from_state(state: State) -> CifarResNet:
    """Build the network whose weights these are; the network shares the tensors.

    Args:
        state: a state dict of GitHub akamaster/pytorch_resnet_cifar10; ``num_batches_tracked`` may be missing.

    Returns:
        The network in eval mode, its parameters frozen.

    Raises:
        GenclsError: as :func:`kuangliu_from_state`.
    """
    weights = Weights(CifarResNet, with_counters(state))
    return weights.build(**_sizes(weights), projections=False, **_IMAGENET)


def _sizes(weights: Weights[Any]) -> dict[str, Any]:
    """Arguments of a residual network, from the names and shapes of its weights."""
    blocks = (weights.count(rf"layer{stage}\.(\d+)\.") for stage in count(1))
    return {
        "width": weights.shape("conv1.weight", 4)[0],
        "blocks": tuple(takewhile(bool, blocks)),
        "num_classes": weights.shape("linear.weight", 2)[0],
    }


def _groups(weights: Weights[CifarVGG]) -> tuple[tuple[int, ...], ...]:
    """Channels of the convolutions between two poolings, which have no weights but take a number of the list each."""
    groups: list[list[int]] = []
    convolutions = {
        int(match[1]): key
        for key in weights.state
        if (match := re.fullmatch(r"features\.(\d+)\.weight", key)) and weights.state[key].ndim == 4
    }
    for number, key in sorted(convolutions.items()):
        if number - 3 not in convolutions:  # convolution, batch norm and ReLU are three
            groups.append([])
        groups[-1].append(weights.shape(key, 4)[0])
    return tuple(map(tuple, groups))
