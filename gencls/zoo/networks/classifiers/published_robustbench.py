"""Published RobustBench classifiers: a file to a network of the package robustbench."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from gencls.core.errors import GenclsError
from gencls.core.names import did_you_mean
from gencls.zoo.checkpoints.published import State, Weights, weights_in, with_counters, without_prefixes
from gencls.zoo.networks.classifiers.robustbench import import_robustbench

__all__ = ["load_robustbench", "robustbench_from_state", "wide_resnet_from_state"]

_CONSTANTS = ("mu", "sigma", "mean", "std")


def load_robustbench(path: str | Path, name: str, *, threat: str = "Linf", data: str = "cifar10") -> nn.Module:
    """Read a checkpoint of RobustBench's model zoo, as robustbench 1.1.1 does, but without running code that is in the file.

    Of a file with ``last`` and ``best`` the weights of ``last`` are taken; they may lie under ``state_dict`` in it, and keys
    may begin with ``module.`` and ``model.``. Normalisation is inside the package's networks; where its numbers are not in
    the file they are those of the package.

    Args:
        path: the file.
        name: of the model in RobustBench, for instance "Wong2020Fast".
        threat: the list that has it: "Linf", "L2" or "corruptions".
        data: "cifar10" or "cifar100".

    Returns:
        The package's network, images (N, 3, 32, 32) in [0, 1] to logits (N, K), in eval mode, its parameters frozen.

    Raises:
        GenclsError: for an unknown model, or one that is more than one file; a file that is missing, damaged or something else;
            weights that are not those of this model.
    """
    _model(name, threat, data)  # before a large file is read
    state = without_prefixes(weights_in(path, "last", "state_dict"), "module.", "model.")
    return robustbench_from_state(state, name, threat=threat, data=data)


def robustbench_from_state(state: State, name: str, *, threat: str = "Linf", data: str = "cifar10") -> nn.Module:
    """Build the model of RobustBench whose weights these are; it shares the tensors.

    Args:
        state: keys without ``module.`` and ``model.``; numbers of the normalisation and ``num_batches_tracked`` may be missing.
        name: see :func:`load_robustbench`; the others likewise.
        threat: there.
        data: there.

    Returns:
        The network in eval mode, its parameters frozen.

    Raises:
        GenclsError: for an unknown model; keys that are missing or surplus, or tensors of an unexpected shape.
    """
    build = _model(name, threat, data)
    constants = {key: value for key, value in build().named_buffers() if key.rpartition(".")[2] in _CONSTANTS}
    weights: Weights[nn.Module] = Weights(build, with_counters({**constants, **state}), name=f"RobustBench {name}")
    return weights.build()


def wide_resnet_from_state(state: State) -> nn.Module:
    """Build RobustBench's WideResNet (without sub-block or normalisation) of any depth and width; it shares the tensors.

    Args:
        state: its state dict, as of RobustBench's "Standard" (28-10) or of GitHub yaodongyu/TRADES (34-10).

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


def _model(name: str, threat: str, data: str) -> Callable[[], Any]:
    """What builds a model of one file."""
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
