"""The families biggan and fqgan: generators, each through a file in its published layout and our loader."""

import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gencls.zoo.networks import BigGAN
from gencls.zoo.networks.gans.published import biggan_from_state, fq_discriminator_from_state, load_biggan
from tests.golden.stylegan import family, recorded, settings, shapes
from tests.golden.vectors import State, Vectors

KNOWN = ("resolution", "G_ch", "n_classes", "dim_z", "G_shared", "shared_dim", "hier", "G_attn", "BN_eps", "SN_eps")
BEFORE_RELU = "act.output_layer.0"
SLICE = re.compile(r"(.+)_weight_normalised_slice")


def sizes(vectors: Vectors) -> dict[str, Any]:
    """Our arguments for what the configuration says of the network."""
    config = settings(vectors, *KNOWN)
    return {
        "size": config["resolution"],
        "width": config["G_ch"],
        "num_classes": config["n_classes"],
        "latent_dim": config["dim_z"],
        "shared_dim": config["shared_dim"] if config["G_shared"] else None,
        "hierarchical": config["hier"],
        "attention": [side for side in map(int, config["G_attn"].split("_")) if side],
    }


def generator(vectors: Vectors) -> dict[str, Tensor]:
    config, eps = sizes(vectors), {"bn_eps": vectors.config["BN_eps"], "sn_eps": vectors.config["SN_eps"]}
    with tempfile.TemporaryDirectory() as folder:
        torch.save(dict(vectors.state), Path(folder) / "G_ema.pth")
        network = load_biggan(folder, size=config["size"], **eps)
    with torch.device("meta"):
        assert shapes(network) == shapes(BigGAN(**config))  # what is read off the weights is what the configuration says
    labels = vectors.arrays["y"]
    with recorded(network, vectors, {"pre_tanh": "output_layer"}) as seen:
        images = network((vectors.arrays["z"],), labels)
    if bool((vectors.arrays.get(BEFORE_RELU, torch.tensor(-1)) >= 0).all()):
        seen[BEFORE_RELU] = seen[BEFORE_RELU].relu()  # a ReLU that works in place went over the record of the published code
    after = network((vectors.arrays["z"][:1],), (labels[:1] + 1) % network.num_classes)
    found = {"image": 2 * images - 1, "image_next_class": 2 * after - 1, **seen}
    if network.shared is not None:
        found["y_embedded"] = network.shared(labels)
    for match in filter(None, map(SLICE.fullmatch, vectors.names)):
        weight = network.get_submodule(match[1]).normalized_weight()
        found[match[0]] = weight[tuple(slice(length) for length in vectors.arrays[match[0]].shape)]
    return found


def fq_state(state: State) -> nn.Module:
    """By what only one of the networks has."""
    return fq_discriminator_from_state(state) if "embed.weight" in state else biggan_from_state(state)


BIGGAN = family({"z", "y"}, generator, biggan_from_state)
FQGAN = family({"z", "y"}, generator, fq_state)
