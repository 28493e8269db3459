"""The families cifar_resnet_vgg and robustbench_preact: CIFAR10 classifiers, each through a file in its published layout."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gencls.zoo.networks.classifiers.published import (
    kuangliu_from_state,
    load_kuangliu,
    load_robustbench,
    robustbench_from_state,
    wide_resnet_from_state,
)
from tests.golden.stylegan import family, recorded
from tests.golden.vectors import State, Vectors

ROBUSTBENCH = {
    "wong2020fast": ("Wong2020Fast", "Linf"),
    "kireev2021_rlataugmix": ("Kireev2021Effectiveness_RLATAugMix", "corruptions"),
    "andriushchenko2020": ("Andriushchenko2020Understanding", "Linf"),
}
LAST_AND_BEST = ("kireev2021_rlataugmix", "andriushchenko2020")  # files with two sets of weights


def through_file(content: Any, load: Callable[[Path], nn.Module]) -> nn.Module:
    with tempfile.TemporaryDirectory() as folder:
        torch.save(content, Path(folder) / "checkpoint.pth")
        return load(Path(folder) / "checkpoint.pth")


def kuangliu(vectors: Vectors) -> dict[str, Tensor]:
    assert vectors.network in vectors.config["models"]
    content = {"net": {f"module.{key}": tensor for key, tensor in vectors.state.items()}, "acc": 95.5, "epoch": 199}
    network, bare = (
        through_file(content, lambda path, inside=inside: load_kuangliu(path, normalized=inside)) for inside in (True, False)
    )
    images = vectors.shared["image"]
    with recorded(network, vectors, {}) as seen:
        logits = network(images)
    return {
        "logits": logits,
        "logits_unnormalised_input": bare(images),
        **{name: torch.tensor(vectors.entry[name]) for name in ("seed", "gain")},
        **seen,
    }


def robustbench(vectors: Vectors) -> dict[str, Tensor]:
    if not vectors.network:
        network = wide_resnet_from_state(vectors.state)
        depth, width = vectors.config["depth"], vectors.config["widen_factor"]
        assert sum(isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3) for part in network.modules()) == depth - 3
        assert network.fc.in_features == 64 * width
        return {"logits": network(vectors.shared["image"])}
    assert vectors.network in vectors.config["models"]
    name, threat = ROBUSTBENCH[vectors.network]
    state = {f"module.model.{key}": tensor for key, tensor in vectors.state.items() if key not in ("mu", "sigma")}
    content = {"state_dict": state}
    if vectors.network in LAST_AND_BEST:
        content = {"last": state, "best": {key: torch.zeros_like(tensor) for key, tensor in state.items()}}
    network = through_file(content, lambda path: load_robustbench(path, name, threat=threat))
    return {"logits": network(vectors.shared["image"])}


def constants(key: str, zeros: Tensor) -> Tensor:
    """Numbers of the normalisation, which are in the manifests and not in the files."""
    known = {"mu": (0.4914, 0.4822, 0.4465), "sigma": (0.2471, 0.2435, 0.2616)}
    return torch.tensor(known[key]).view_as(zeros) if key in known else zeros


def robustbench_state(state: State) -> nn.Module:
    """By what only one of the models has."""
    if any(key.startswith("block1.") for key in state):
        return wide_resnet_from_state(state)
    network = "kireev2021_rlataugmix" if any(key.startswith("bn.") for key in state) else "wong2020fast"
    network = network if "mu" in state or "sigma" in state else "andriushchenko2020"
    name, threat = ROBUSTBENCH[network]
    return robustbench_from_state(state, name, threat=threat)


CIFAR_RESNET_VGG = replace(family({"image"}, kuangliu, kuangliu_from_state), optional=("num_batches_tracked",))
ROBUSTBENCH_PREACT = replace(
    family({"image"}, robustbench, robustbench_state), optional=("num_batches_tracked", "mu", "sigma"), initial=constants
)
