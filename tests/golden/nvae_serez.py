"""The family nvae_serez: NVAE-from-scratch and the purification with it, by our loader."""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gencls.zoo.networks.nvae.nvae import NVAE, adaptive_groups
from gencls.zoo.networks.nvae.published import load_nvae, nvae_from_state
from tests.golden.nvae import Inputs, encoded_only, given_draws, prefixed, prior_samples, recorded, tolerance
from tests.golden.vectors import Family, Vectors

NOT_OF_THE_NETWORK = ("resolution", "procedure", "temperature")


def outputs(vectors: Vectors) -> dict[str, Tensor]:
    network = through_a_file(vectors)
    found = {"temperature": torch.tensor(network.temperature), "kl_alpha": kl_balance(network.groups)[None]}
    images = vectors.arrays["image"]
    with torch.no_grad():
        if any(name.startswith(("det.", "reconstruct_")) for name in vectors.names):
            found |= deterministic(network, images)
        if "eps.forward.0" in vectors.names:
            found |= forward(network, vectors, images)
        if "alphas" in vectors.names:
            found |= purified(network, vectors, images)
        found |= prior_samples(network, network.to_logits, vectors)
    return found


def kl_balance(groups: Sequence[int]) -> Tensor:
    """(L,): weights of the KL terms in early training as published, the least 1; our training has other ones.

    4^i / n_i for scale i, where n_i counts the groups of the scale that is i-th from the *finest*; with different numbers of
    groups the weights are therefore not those of their levels.
    """
    weights = [4.0**i / count for i, count in enumerate(reversed(groups)) for _ in range(count)]
    return torch.tensor(weights) / min(weights)


def through_a_file(vectors: Vectors) -> NVAE:
    """As one reads a published checkpoint; the sizes that are read off the weights are those of the configuration."""
    config = vectors.config
    temperature = float(config.get("temperature", 0.6))
    autoencoder = {key: value for key, value in config.items() if key not in NOT_OF_THE_NETWORK}
    content = {
        "configuration": {"autoencoder": autoencoder, "resolution": tuple(config["resolution"])},
        "state_dict": dict.fromkeys(vectors.state, torch.zeros(())),  # not to be read
        f"state_dict_temp={temperature}": dict(vectors.state),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        torch.save(content, path)
        network = load_nvae(path, temperature=temperature, image_size=config["resolution"][-1])
    ours = NVAE(**arguments(config)).state_dict()
    assert {key: value.shape for key, value in network.state_dict().items()} == {key: ours[key].shape for key in ours}
    assert network.image_shape == tuple(config["resolution"])
    return network


def arguments(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the published code in the words of our constructor."""
    scales, groups = config["num_scales"], config["num_groups_per_scale"]
    adaptive = config.get("is_adaptive", False)
    return {
        "image_shape": tuple(config["resolution"]),
        "groups": adaptive_groups(scales, groups, least=config["min_groups_per_scale"]) if adaptive else (groups,) * scales,
        "cells": config["num_cells_per_group"],
        "latent_channels": config["num_latent_per_group"],
        "channels": config["initial_channels"],
        "blocks": config["num_pre-post_process_blocks"],
        "block_cells": config["num_pre-post_process_cells"],
        "mixtures": config["num_logistic_mixtures"],
        "flows": config["num_nf_cells"] or 0,
    }


def deterministic(network: NVAE, images: Tensor) -> dict[str, Tensor]:
    with recorded(network, network.to_logits) as seen:
        image = network.autoencode(images, encoded_only)
    logits = seen.pop("logits")
    return {
        "reconstruct_deterministic": image,
        "reconstruct_deterministic_logits": logits,
        **prefixed("det.", seen),
    }


def forward(network: NVAE, vectors: Vectors, images: Tensor) -> dict[str, Tensor]:
    with given_draws(network, vectors, "eps.forward."), recorded(network, network.to_logits) as seen:
        mixture, kl = network(images)
    pixels = mixture.log_prob(images)
    return {
        "forward_logits": seen.pop("logits"),
        "forward_kl_per_latent": kl,
        "log_prob_per_pixel": pixels,
        "reconstruction_loss": -pixels.sum((1, 2)),
        "mixture_mean_minus1_to_1": 2 * mixture.mean() - 1,
        **prefixed("forward.", seen),
    }


def purified(network: NVAE, vectors: Vectors, images: Tensor) -> dict[str, Tensor]:
    found = {}
    others = [re.fullmatch(r"purified_alpha([\d.]+)", name) for name in vectors.names]
    runs = {"purified": vectors.arrays["alphas"], **{m[0]: torch.full((network.num_levels,), float(m[1])) for m in others if m}}
    for name, alphas in runs.items():

        def mix(level: int, encoded: Tensor, sampled: Tensor, name: str = name, alphas: Tensor = alphas) -> Tensor:
            mixed = (1 - alphas[level]) * encoded + alphas[level] * sampled
            if name == "purified":
                found[f"mixed_z{level}"] = mixed
            return mixed

        with given_draws(network, vectors, "eps."):
            found[name] = network.autoencode(images, mix)
    return found


NVAE_SEREZ = Family(
    inputs=Inputs(),
    outputs=outputs,
    left_out={},
    tolerance=tolerance,
    load=nvae_from_state,
    unused=lambda state: (),
)
