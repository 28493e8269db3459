"""The family nvae_nvlabs: NVAE by its authors' code, by our loader."""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gencls.zoo.networks.nvae.nvae import adaptive_groups
from gencls.zoo.networks.nvae.nvlabs import NVlabsNVAE
from gencls.zoo.networks.nvae.published import load_nvlabs_nvae, nvlabs_nvae_from_state, unused_nvlabs_keys
from tests.golden.nvae import Inputs, encoded_only, given_draws, prefixed, prior_samples, recorded, tolerance
from tests.golden.vectors import Family, Vectors


def outputs(vectors: Vectors) -> dict[str, Tensor]:
    network = through_a_file(vectors)
    images = vectors.arrays["image"]
    with torch.no_grad():
        found = posterior_means(network, images)
        if "eps.forward.0" in vectors.names:
            found |= forward(network, vectors, images)
        found |= prior_samples(network, network.image_conditional, vectors)
    return found


def through_a_file(vectors: Vectors) -> NVlabsNVAE:
    """As one reads a published checkpoint; the sizes that are read off the weights are those of the arguments."""
    config = vectors.config
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        content = {"epoch": 1, "state_dict": dict(vectors.state), "args": argparse.Namespace(**config), "arch_instance": {}}
        torch.save(content, path)
        network = load_nvlabs_nvae(path, image_size=config["image_size"])
    ours = NVlabsNVAE(**arguments(config)).state_dict()
    assert {key: value.shape for key, value in network.state_dict().items()} == {key: ours[key].shape for key in ours}
    assert network.residual == config["res_dist"]
    return network


def arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the published code in the words of our constructor."""
    assert config["arch"] == "res_mbconv"
    assert config["num_preprocess_blocks"] == config["num_postprocess_blocks"]
    scales, groups = config["num_latent_scales"], config["num_groups_per_scale"]
    return {
        "image_shape": (3, config["image_size"], config["image_size"]),
        "groups": adaptive_groups(scales, groups, least=config["min_groups_per_scale"])
        if config["ada_groups"]
        else (groups,) * scales,
        "cells": (config["num_cell_per_cond_enc"], config["num_cell_per_cond_dec"]),
        "latent_channels": config["num_latent_per_group"],
        "channels": (config["num_channels_enc"], config["num_channels_dec"]),
        "blocks": config["num_preprocess_blocks"],
        "block_cells": (config["num_preprocess_cells"], config["num_postprocess_cells"]),
        "mixtures": config["num_mixture_dec"],
        "flows": config["num_nf"],
        "squeeze": config["use_se"],
        "residual": config["res_dist"],
    }


def posterior_means(network: NVlabsNVAE, images: Tensor) -> dict[str, Tensor]:
    with recorded(network, network.image_conditional) as seen:
        image = network.autoencode(images, encoded_only)
    return {"logits_posterior_mean": seen["logits"], "mixture_mean_posterior_mean": image}


def forward(network: NVlabsNVAE, vectors: Vectors, images: Tensor) -> dict[str, Tensor]:
    with given_draws(network, vectors, "eps.forward."), recorded(network, network.image_conditional) as seen:
        mixture, kl = network(images)
    log_q, log_p = torch.zeros(len(images)), torch.zeros(len(images))
    for level in range(network.num_levels):
        code = seen[f"z{level}_q_mu"] + seen[f"z{level}_q_sigma"] * vectors.arrays[f"eps.forward.{level}"]
        log_q += log_density(seen, f"z{level}_q", code)
        log_p += log_density(seen, f"z{level}_p", network.flow(level, code))
    return {
        "forward_logits": seen.pop("logits"),
        "forward_kl_all": kl,
        "forward_log_q": log_q,
        "forward_log_p": log_p,
        "mixture_mean_0_to_1": mixture.mean(),
        "log_prob_per_pixel": mixture.log_prob(images),
        **prefixed("forward.", seen),
    }


def log_density(seen: Mapping[str, Tensor], name: str, code: Tensor) -> Tensor:
    return torch.distributions.Normal(seen[f"{name}_mu"], seen[f"{name}_sigma"]).log_prob(code).flatten(1).sum(1)


NVAE_NVLABS = Family(
    inputs=Inputs(),
    outputs=outputs,
    left_out={},
    tolerance=tolerance,
    load=nvlabs_nvae_from_state,
    unused=unused_nvlabs_keys,
)
