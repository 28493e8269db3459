"""Published classifiers: a file becomes a network, whose sizes are read off the weights.

For CIFAR10 there are GitHub kuangliu/pytorch-cifar and akamaster/pytorch_resnet_cifar10, which normalise images before the
network (here the network does it), and RobustBench, whose package makes the networks. For the MLVGM paper there is GitHub
SerezD/gen_adversarial.

All networks come in eval mode, their parameters frozen.
"""

import re
from collections.abc import Callable
from hashlib import file_digest
from importlib.util import find_spec
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from torch import nn

from gencls.core.errors import GenclsError
from gencls.core.names import did_you_mean
from gencls.zoo.checkpoints.published import State, Weights, weights_in, with_counters, without_prefixes
from gencls.zoo.checkpoints.reading import load_state_dict
from gencls.zoo.networks.classifiers.cifar_resnet import CifarPreActResNet, CifarResNet
from gencls.zoo.networks.classifiers.cifar_vgg import CifarVGG
from gencls.zoo.networks.classifiers.headed_classifier import BACKBONES, HeadedClassifier
from gencls.zoo.networks.classifiers.robustbench import import_robustbench

KUANGLIU = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
"""The normalisation of kuangliu's script."""
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # akamaster's normalisation
_ROBUSTBENCH_CONSTANTS = ("mu", "sigma", "mean", "std")
_AUTOATTACK = "399f52da9f914c323fa5a6096d60f460a3449a59b64a6405200c1e629f8425a7"


def load_kuangliu(path: str | Path, *, normalized: bool = True) -> CifarResNet | CifarPreActResNet | CifarVGG:
    """Read a checkpoint of GitHub kuangliu/pytorch-cifar: a ResNet of basic blocks, a VGG or a PreActResNet.

    Its script writes a dictionary of ``net``, ``acc`` and ``epoch``; other projects that train its networks save the weights
    alone, which are read too. Keys may begin with ``module.``.

    Args:
        path: the file.
        normalized: whether the network was trained on images normalised as by that script, and so must normalise inside;
            False for weights that were trained on images in [0, 1].

    Raises:
        GenclsError: for a file that is missing, damaged or something else; weights that are not those of such a network.
    """
    state = without_prefixes(weights_in(path, "net"), "module.")
    return kuangliu_from_state(state, normalized=normalized)


def load_akamaster(path: str | Path) -> CifarResNet:
    """Read a checkpoint of GitHub akamaster/pytorch_resnet_cifar10: ResNet-20, -32, -44, -56, ... with "option A" shortcuts.

    Such a file is a dictionary of ``state_dict`` and ``best_prec1``; keys begin with ``module.``.

    Raises:
        GenclsError: as :func:`load_kuangliu`.
    """
    return akamaster_from_state(without_prefixes(weights_in(path, "state_dict"), "module."))


def load_autoattack_resnet18() -> CifarResNet:
    """The example of the dependency pyautoattack: kuangliu's ResNet-18, trained plainly on images in [0, 1].

    The package says nothing of its training. The network is right on all of 300 of CIFAR10's training images and on 95 % of 200
    test images (cifar10-lossless), and it is not robust.

    Raises:
        GenclsError: if the file is missing or not that of pyautoattack 0.2.0.
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
    """Build the network of a state dict of GitHub kuangliu/pytorch-cifar, whose tensors it shares, see :func:`load_kuangliu`.

    ``num_batches_tracked`` may be missing.

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
    """Build the network of a state dict of GitHub akamaster/pytorch_resnet_cifar10, whose tensors it shares.

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
    """Channels of the convolutions between two poolings. Poolings have no weights, but each takes a number of the list."""
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


def load_headed_classifier(path: str | Path) -> HeadedClassifier:
    """Read a classifier of GitHub SerezD/gen_adversarial.

    Raises:
        GenclsError: for a file that is missing, damaged or something else; weights that are not those of such a classifier.
    """
    return headed_classifier_from_state(load_state_dict(path))


def headed_classifier_from_state(state: State) -> HeadedClassifier:
    """Build the classifier of a state dict of GitHub SerezD/gen_adversarial, whose tensors it shares.

    Raises:
        GenclsError: for keys that are missing or surplus, tensors of an unexpected shape, or integers as parameters.
    """
    weights = Weights(HeadedClassifier, state)
    if any(key.startswith("model.classifier.") for key in weights.state):
        backbone = "vgg11_bn"
    else:  # the middle convolutions of resnext50_32x4d have groups
        whole = weights.shape("model.layer1.0.conv2.weight", 4)[1] == 64
        backbone = "resnet50" if whole else "resnext50_32x4d"
    num_classes, hidden = weights.shape(f"model.{BACKBONES[backbone]}.3.weight", 2)
    return weights.build(backbone=backbone, num_classes=num_classes, hidden=hidden)


def load_robustbench(path: str | Path, name: str, *, threat: str = "Linf", data: str = "cifar10") -> nn.Module:
    """Read a checkpoint of RobustBench's model zoo, as robustbench 1.1.1 does, but without running code that is in the file.

    If a file has ``last`` and ``best``, the weights of ``last`` are taken. They may lie under ``state_dict`` in it, and keys
    may begin with ``module.`` and ``model.``. The package's networks normalise inside. If the numbers for it are not in the
    file, they are the package's.

    Args:
        path: the file.
        name: name of the model in RobustBench, for instance "Wong2020Fast".
        threat: the list that has it: "Linf", "L2" or "corruptions".
        data: "cifar10" or "cifar100".

    Returns:
        The package's network, images (N, 3, 32, 32) in [0, 1] to logits (N, K), in eval mode, its parameters frozen.

    Raises:
        GenclsError: for an unknown model, or one of more than one file; for a file that is missing, damaged or something else;
            for weights that are not those of this model.
    """
    _robustbench_model(name, threat, data)  # before a large file is read
    state = without_prefixes(weights_in(path, "last", "state_dict"), "module.", "model.")
    return robustbench_from_state(state, name, threat=threat, data=data)


def robustbench_from_state(state: State, name: str, *, threat: str = "Linf", data: str = "cifar10") -> nn.Module:
    """Build the model of RobustBench whose weights these are, see :func:`load_robustbench`; it shares the tensors.

    Keys are without ``module.`` and ``model.``; numbers of the normalisation and ``num_batches_tracked`` may be missing.

    Raises:
        GenclsError: for an unknown model; keys that are missing or surplus, or tensors of an unexpected shape.
    """
    build = _robustbench_model(name, threat, data)
    constants = {key: value for key, value in build().named_buffers() if key.rpartition(".")[2] in _ROBUSTBENCH_CONSTANTS}
    weights: Weights[nn.Module] = Weights(build, with_counters({**constants, **state}), name=f"RobustBench {name}")
    return weights.build()


def wide_resnet_from_state(state: State) -> nn.Module:
    """Build RobustBench's WideResNet (without sub-block or normalisation) of any depth and width; it shares the tensors.

    Such weights are those of RobustBench's "Standard" (28-10) and of GitHub yaodongyu/TRADES (34-10).

    Returns:
        The network, images (N, 3, 32, 32) to logits (N, K), in eval mode, its parameters frozen.

    Raises:
        GenclsError: for keys that are missing or surplus, or tensors of an unexpected shape.
    """
    import_robustbench()
    from robustbench.model_zoo.architectures.wide_resnet import WideResNet

    weights: Weights[nn.Module] = Weights(WideResNet, with_counters(state))
    num_classes, channels = weights.shape("fc.weight", 2)
    blocks = weights.count(r"block1\.layer\.(\d+)\.")
    return weights.build(depth=6 * blocks + 4, widen_factor=channels // 64, num_classes=num_classes)


def _robustbench_model(name: str, threat: str, data: str) -> Callable[[], Any]:
    """The function that builds a model of one file."""
    import_robustbench()
    from robustbench.model_zoo import model_dicts

    lists = {of.value: {kind.value: models for kind, models in kinds.items()} for of, kinds in model_dicts.items()}
    del lists["imagenet"]  # its networks are timm's, with weights of other names
    if data not in lists or threat not in lists[data]:
        known = ", ".join(f"{of} {kind}" for of, kinds in lists.items() for kind in kinds)
        raise GenclsError(f"RobustBench: expected data and threat to be one of {known}; got {data} {threat}")
    models = {key: entry["model"] for key, entry in lists[data][threat].items() if isinstance(entry["gdrive_id"], str)}
    if name not in models:
        hint, known = did_you_mean(name, models), ", ".join(models)
        raise GenclsError(f"RobustBench: {hint}expected a model of one file for {data} {threat}, one of {known}; got {name!r}")
    build: Callable[[], Any] = models[name]
    return build
