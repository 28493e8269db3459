"""Published NVAE checkpoints: a file becomes a network, whose sizes are read off the weights.

All networks come in eval mode, their parameters frozen.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from gencls.core.errors import GenclsError
from gencls.core.words import with_article
from gencls.zoo.checkpoints.published import State, Weights, file_content, weights_under
from gencls.zoo.networks.nvae.logistic_mixture import mixture_channels
from gencls.zoo.networks.nvae.nvae import NVAE
from gencls.zoo.networks.nvae.nvlabs import NVlabsNVAE

Network = TypeVar("Network", NVAE, NVlabsNVAE)

_UPPER_EDGE = 0.99  # upper edge of the published likelihood, see LogisticMixture
_REESTIMATED = "state_dict_temp="
_ALIAS = ".weight_normalized"


def load_nvae(path: str | Path, *, temperature: float = 0.6, reestimated: bool = True, image_size: int | None = None) -> NVAE:
    """Read a checkpoint of GitHub SerezD/NVAE-from-scratch.

    Such a file holds the trained weights as ``state_dict``. As ``state_dict_temp=0.6``, ... it holds the same weights with
    batch norm statistics that were estimated again on samples of that temperature.

    Args:
        path: the file.
        temperature: temperature of the network's draws from the prior, >= 0; the MLVGM paper's code has 0.6.
        reestimated: take the statistics that belong to the temperature; False takes the statistics of the training.
        image_size: H = W that the network must have; None takes any.

    Raises:
        GenclsError: for a file that is missing, damaged or something else; for one without weights for this temperature; for
            weights that are not those of an NVAE in this layout, or of another image size.
    """
    content = file_content(path)
    name = f"{_REESTIMATED}{temperature}" if reestimated else "state_dict"
    written = next((key for key in content if reestimated and _temperature(key) == temperature), name)
    network = nvae_from_state(weights_under(path, content, written), temperature=temperature)
    if any(bool(mask.any()) for name, mask in network.named_buffers() if name.endswith("layers.4.mask")):
        raise GenclsError(f"{path}: expected flows that are constant shifts, as published; got other masks")
    return _of_size(network, path, image_size)


def load_nvlabs_nvae(
    path: str | Path, *, temperature: float = 1.0, residual: bool | None = None, image_size: int | None = None
) -> NVlabsNVAE:
    """Read a checkpoint of GitHub NVlabs/NVAE (its licence is non-commercial).

    Args:
        path: the file.
        temperature: temperature of the network's draws from the prior, >= 0.
        residual: whether posteriors are relative to priors, which the weights do not tell; None takes ``res_dist`` of the
            file's ``args``.
        image_size: H = W that the network must have; None takes any.

    Raises:
        GenclsError: for a file that is missing, damaged or something else; one without ``args`` if residual is None; weights
            that are not those of an NVAE in this layout, or of another image size.
    """
    content = file_content(path)
    state = weights_under(path, content, "state_dict")
    if residual is None:
        residual = getattr(content.get("args"), "res_dist", None)
    if residual is None:
        raise GenclsError(f"{path}: expected res_dist in the args of the file, or the argument residual; got neither")
    if not isinstance(residual, int):
        raise GenclsError(f"{path}: expected res_dist as True or False; got {with_article(type(residual).__name__)}")
    return _of_size(nvlabs_nvae_from_state(state, residual=residual, temperature=temperature), path, image_size)


def nvae_from_state(state: State, *, temperature: float = 1.0) -> NVAE:
    """Build the NVAE whose weights these are; the network shares the tensors.

    Args:
        state: a state dict of GitHub SerezD/NVAE-from-scratch.
        temperature: temperature of draws from the prior, >= 0.

    Raises:
        GenclsError: for keys that are missing or surplus, or tensors of an unexpected shape.
    """
    weights = Weights(NVAE, state)
    return weights.build(**_sizes(weights), temperature=temperature, upper_edge=_UPPER_EDGE)


def nvlabs_nvae_from_state(state: State, *, residual: bool = True, temperature: float = 1.0) -> NVlabsNVAE:
    """Build the NVAE whose weights these are; the network shares the tensors.

    Args:
        state: a state dict of GitHub NVlabs/NVAE; it may have the keys of :func:`unused_nvlabs_keys` or not.
        residual: whether posteriors are relative to priors, ``res_dist`` in that code.
        temperature: temperature of draws from the prior, >= 0.

    Raises:
        GenclsError: for keys that are missing or surplus, or tensors of an unexpected shape.
    """
    unused = set(unused_nvlabs_keys(state))
    weights = Weights(NVlabsNVAE, {key: value for key, value in state.items() if key not in unused})
    return weights.build(**_nvlabs_sizes(weights), residual=residual, temperature=temperature, upper_edge=_UPPER_EDGE)


def unused_nvlabs_keys(keys: Iterable[str]) -> tuple[str, ...]:
    """The keys that repeat another one: ``weight_normalized`` beside an equal ``weight``."""
    present = set(keys)
    return tuple(key for key in present if key.endswith(_ALIAS) and f"{key.removesuffix(_ALIAS)}.weight" in present)


def _of_size(network: Network, path: str | Path, image_size: int | None) -> Network:
    if image_size is not None and network.image_shape[1:] != (image_size, image_size):
        raise GenclsError(f"{path}: expected a network for images of {image_size} pixels; got one for {network.image_shape}")
    return network


def _temperature(key: str) -> float | None:
    """T of a key ``state_dict_temp=T``."""
    match = re.fullmatch(rf"{_REESTIMATED}(\d+(?:\.\d+)?)", key)
    return None if match is None else float(match[1])


def _sizes(weights: Weights[NVAE]) -> dict[str, Any]:
    """Arguments of NVAE, from the names and shapes of its weights."""
    channels, colours, *_ = weights.shape("preprocessing_block.init_conv.parametrizations.weight.original1", 4)
    *_, height, width = weights.shape("const_prior", 4)
    scales, blocks = weights.count(r"encoder_tower\.scale_(\d+)\."), weights.count(r"preprocessing_block\.block_(\d+)\.")
    shrink = 2 ** max(blocks + scales - 1, 0)
    return {
        "image_shape": (colours, height * shrink, width * shrink),
        "groups": tuple(weights.count(rf"encoder_tower\.scale_{scale}\.group_(\d+)\.") for scale in range(scales)),
        "cells": weights.count(r"encoder_tower\.scale_\d+\.group_\d+\.cell_(\d+)\."),
        "latent_channels": weights.shape("enc_sampler.sampler_0:0.bias", 1)[0] // 2,
        "channels": channels,
        "blocks": blocks,
        "block_cells": weights.count(r"preprocessing_block\.block_\d+\.cell_(\d+)\.") if blocks else 1,
        "mixtures": weights.shape("to_logits.1.bias", 1)[0] // mixture_channels(1, colours),
        "flows": weights.count(r"nf_cells\.nf_\d+:\d+\.(\d+)\."),
    }


def _nvlabs_sizes(weights: Weights[NVlabsNVAE]) -> dict[str, Any]:
    """Arguments of NVlabsNVAE, from the names and shapes of its weights, whose towers are flat lists."""
    channels, colours, *_ = weights.shape("stem.weight", 4)
    pixels, decoder_channels, *_ = weights.shape("image_conditional.1.weight", 4)
    _, height, width = weights.shape("prior_ftr0", 3)
    encoder, decoder = _tower(weights, "enc_tower"), _tower(weights, "dec_tower")
    before, after = _tower(weights, "pre_process"), _tower(weights, "post_process")
    # Cells "s" change the size. Between them each group of the encoder ends with a combiner "c", except the very last one.
    groups = [part.count("c") for part in reversed(encoder.split("s"))]
    groups[0] += 1
    levels, blocks = sum(groups), before.count("s")
    shrink = 2 ** (blocks + len(groups) - 1)
    return {
        "image_shape": (colours, height * shrink, width * shrink),
        "groups": tuple(groups),
        "cells": (encoder.count(".") // levels, decoder.count(".") // max(levels - 1, 1)),
        "latent_channels": weights.shape("enc_sampler.0.bias", 1)[0] // 2,
        "channels": (channels, decoder_channels),
        "blocks": blocks,
        "block_cells": (len(before) // blocks, len(after) // blocks) if blocks else (1, 1),
        "mixtures": pixels // mixture_channels(1, colours),
        "flows": weights.count(r"nf_cells\.(\d+)\.") // levels,
        "squeeze": any(".se.se." in key for key in weights.state),
    }


def _tower(weights: Weights[NVlabsNVAE], name: str) -> str:
    """One letter per module: "c" combiner, "s" cell that changes the size, "." other cell."""
    letters = ["."] * weights.count(rf"{name}\.(\d+)\.")
    for match in filter(None, map(re.compile(rf"{name}\.(\d+)\.(conv|skip)\.").match, weights.state)):
        letters[int(match[1])] = match[2][0]
    return "".join(letters)
