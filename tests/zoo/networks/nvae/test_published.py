"""Reading published NVAE checkpoints: sizes, statistics, bad input. Their numbers: tests/golden."""

import argparse
from fractions import Fraction

import pytest
import torch

from gencls.core import GenclsError, seeded
from gencls.zoo.networks import NVAE, NVlabsNVAE, adaptive_groups
from gencls.zoo.networks.nvae.published import (
    load_nvae,
    load_nvlabs_nvae,
    nvae_from_state,
    nvlabs_nvae_from_state,
    unused_nvlabs_keys,
)

SIZES = {
    "plain": {"image_shape": (3, 16, 16), "groups": (2, 1), "channels": 4, "cells": 1, "latent_channels": 2, "mixtures": 2},
    "adaptive, flows, wide images": {
        "image_shape": (3, 16, 32),
        "groups": adaptive_groups(3, 2),
        "cells": 2,
        "latent_channels": 3,
        "channels": 2,
        "blocks": 2,
        "block_cells": 3,
        "mixtures": 1,
        "flows": 2,
    },
    "gray, no blocks": {"image_shape": (1, 8, 8), "groups": (1,), "channels": 4, "blocks": 0, "flows": 1},
}
ENCODED = dict(mix=lambda level, encoded, sampled: encoded)


@pytest.fixture(params=SIZES)
def original(request):
    with seeded(0):
        return NVAE(**SIZES[request.param]).eval()


@pytest.fixture
def plain():
    with seeded(0):
        return NVAE(**SIZES["plain"]).eval()


@pytest.fixture
def state(plain):
    return dict(plain.state_dict())


@pytest.fixture
def file(state, tmp_path):
    """As published: the statistics of each temperature differ."""
    content = {"configuration": {"autoencoder": {"num_nf_cells": None}, "resolution": (3, 16, 16)}, "state_dict": state}
    for temperature in (0.6, 1.0):
        content[f"state_dict_temp={temperature}"] = {
            key: value + temperature if key.endswith("running_mean") else value for key, value in state.items()
        }
    torch.save(content, tmp_path / "nvae.pt")
    return tmp_path / "nvae.pt"


def test_sizes_are_read_off_the_weights(original):
    network = nvae_from_state(original.state_dict(), temperature=0.3)
    images = torch.rand(2, *original.image_shape)
    assert torch.equal(network.autoencode(images, **ENCODED), original.autoencode(images, **ENCODED))
    assert network.latent_shapes == original.latent_shapes
    assert network.temperature == 0.3
    assert network.upper_edge == 0.99  # of the published likelihood
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_statistics_are_those_of_the_temperature(file, state):
    name = "encoder_tower.scale_1.group_0.cell_0.residual.0.running_mean"
    for temperature in (0.6, 1.0):
        network = load_nvae(file, temperature=temperature, image_size=16)
        assert network.temperature == temperature
        assert torch.equal(network.state_dict()[name], state[name] + temperature)
    trained = load_nvae(file, temperature=0.7, reestimated=False)
    assert trained.temperature == 0.7
    assert torch.equal(trained.state_dict()[name], state[name])


def test_half_precision_is_turned_into_float32(state, tmp_path):
    torch.save({"state_dict": {key: value.half() for key, value in state.items()}}, tmp_path / "nvae.pth")
    network = load_nvae(tmp_path / "nvae.pth", reestimated=False)
    assert network.autoencode(torch.rand(1, 3, 16, 16), **ENCODED).dtype == torch.float32


def test_a_temperature_that_the_file_does_not_have(file):
    with pytest.raises(
        GenclsError,
        match=r"expected weights under 'state_dict_temp=0.8'; got 'configuration', 'state_dict', 'state_dict_temp=0.6'",
    ):
        load_nvae(file, temperature=0.8)


def test_another_resolution(file):
    with pytest.raises(GenclsError, match=r"expected a network for images of 64 pixels; got one for \(3, 16, 16\)"):
        load_nvae(file, image_size=64)


def test_missing_and_surplus_keys(state):
    first, *_, last = state
    for key in (first, last, "enc_sampler.sampler_0:0.bias", "preprocessing_block.init_conv.parametrizations.weight.original1"):
        with pytest.raises(GenclsError, match=key):
            nvae_from_state({other: value for other, value in state.items() if other != key})
    with pytest.raises(GenclsError, match=r"missing: none; surplus: head.weight$"):
        nvae_from_state({**state, "head.weight": torch.zeros(1)})
    with pytest.raises(GenclsError, match=r"missing: encoder_tower.* and \d+ more; surplus: none"):
        nvae_from_state({**state, "encoder_tower.scale_1.group_7.cell_0.residual.0.bias": state["const_prior"][0, :, 0, 0]})


def test_a_shape_that_does_not_fit(state):
    key = "decoder_combiners.combiner_1:0.conv.bias"
    with pytest.raises(GenclsError, match=rf"expected {key} of shape \(8,\); got \(9,\)"):
        nvae_from_state({**state, key: torch.zeros(9)})
    with pytest.raises(GenclsError, match=r"expected const_prior of rank 4; got shape \(3,\)"):
        nvae_from_state({**state, "const_prior": torch.zeros(3)})


def test_integers_as_parameters(state):
    with pytest.raises(GenclsError, match="expected const_prior of floating point numbers; got torch.int64"):
        nvae_from_state({**state, "const_prior": state["const_prior"].long()})


def test_weights_of_something_else():
    for state in ({}, {"conv.weight": torch.zeros(2, 2, 3, 3)}):
        with pytest.raises(GenclsError, match="NVAE checkpoint: expected .* of rank 4; got (no keys|keys conv.weight, ...)"):
            nvae_from_state(state)


def test_flows_that_are_not_constant_shifts(tmp_path):
    state = NVAE(**SIZES["gray, no blocks"]).state_dict()
    state["nf_cells.nf_0:0.0.cell2.layers.4.mask"] += 1
    torch.save({"state_dict": state}, tmp_path / "nvae.pt")
    with pytest.raises(GenclsError, match="expected flows that are constant shifts"):
        load_nvae(tmp_path / "nvae.pt", reestimated=False)


def test_an_html_page(tmp_path):
    (tmp_path / "nvae.pt").write_text("<!DOCTYPE html><html>Sign in</html>")
    with pytest.raises(GenclsError, match="got an HTML page"):
        load_nvae(tmp_path / "nvae.pt")


@pytest.mark.parametrize("content", [[1, 2], {}, {"state_dict_temp=0.6": 3}, {"state_dict_temp=0.6": {"const_prior": "no"}}])
def test_files_of_something_else(content, tmp_path):
    torch.save(content, tmp_path / "nvae.pt")
    with pytest.raises(GenclsError, match="nvae.pt: expected (weights under|tensors by name)"):
        load_nvae(tmp_path / "nvae.pt")


def test_code_in_the_file_is_not_run(file):
    content = torch.load(file, weights_only=True)
    torch.save({**content, "configuration": Fraction(1, 2)}, file)
    with pytest.raises(GenclsError, match=r"got a pickle with code or other objects \(fractions.Fraction\)"):
        load_nvae(file)


NVLABS_SIZES = {
    "plain": {"image_shape": (3, 8, 8), "groups": (1, 2), "channels": (4, 4), "cells": (1, 1), "flows": 0},
    "two flows": {
        "image_shape": (1, 16, 32),
        "groups": (2, 3, 1),
        "channels": (4, 2),
        "cells": (1, 2),
        "block_cells": (1, 3),
        "flows": 2,
    },
    "one scale": {"image_shape": (3, 8, 8), "groups": (3,), "channels": (4, 4), "cells": (1, 1), "blocks": 0, "squeeze": False},
}


@pytest.fixture(params=NVLABS_SIZES)
def nvlabs(request):
    with seeded(0):
        return NVlabsNVAE(latent_channels=2, mixtures=2, **NVLABS_SIZES[request.param]).eval()


def test_sizes_of_the_other_layout(nvlabs):
    network = nvlabs_nvae_from_state(nvlabs.state_dict(), temperature=0.3)
    images = torch.rand(2, *nvlabs.image_shape)
    assert torch.equal(network.autoencode(images, **ENCODED), nvlabs.autoencode(images, **ENCODED))
    assert network.latent_shapes == nvlabs.latent_shapes
    assert (network.temperature, network.upper_edge) == (0.3, 0.99)


@pytest.mark.parametrize("residual", [True, False])
def test_whether_posteriors_are_residual_is_in_the_arguments(nvlabs, residual, tmp_path):
    content = {"state_dict": nvlabs.state_dict(), "args": argparse.Namespace(res_dist=residual), "epoch": 3}
    torch.save(content, tmp_path / "checkpoint.pt")
    assert load_nvlabs_nvae(tmp_path / "checkpoint.pt").residual == residual
    assert load_nvlabs_nvae(tmp_path / "checkpoint.pt", residual=not residual).residual != residual
    del content["args"]
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(GenclsError, match="expected res_dist in the args of the file, or the argument residual; got neither"):
        load_nvlabs_nvae(tmp_path / "checkpoint.pt")


def test_repeated_weights_are_not_used(nvlabs):
    state = nvlabs.state_dict()
    key = (
        "dec_tower.1._ops.0.conv.2.conv.0"
        if "dec_tower.1._ops.0.conv.0.bn.weight" in state
        else "dec_tower.2._ops.0.conv.2.conv.0"
    )
    alias = f"{key}.weight_normalized"
    state[alias] = torch.zeros(())
    assert unused_nvlabs_keys(state) == (alias,)
    nvlabs_nvae_from_state(state)
    del state[f"{key}.weight"]
    with pytest.raises(GenclsError, match=f"missing: {key}.weight; surplus: {alias}"):
        nvlabs_nvae_from_state(state)


def test_bad_files_of_the_other_layout(nvlabs, tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"state_dict": nvlabs.state_dict()}, path)
    with pytest.raises(GenclsError, match="expected a network for images of 64 pixels; got one for"):
        load_nvlabs_nvae(path, residual=True, image_size=64)
    for content in ([1], {"weights": 2}):
        torch.save(content, path)
        with pytest.raises(GenclsError, match="expected weights under 'state_dict'; got ('weights'|none)"):
            load_nvlabs_nvae(path)
    for key in ("stem.weight", "prior_ftr0", "enc_tower.1.conv.weight", "image_conditional.1.bias"):
        with pytest.raises(GenclsError, match=key):
            nvlabs_nvae_from_state({other: value for other, value in nvlabs.state_dict().items() if other != key})
    for state in ({}, NVAE(**SIZES["plain"]).state_dict()):
        with pytest.raises(
            GenclsError, match="NVlabsNVAE checkpoint: expected stem.weight of rank 4; got (no keys|keys .*, ...)"
        ):
            nvlabs_nvae_from_state(state)
