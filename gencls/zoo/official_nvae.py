"""Published NVAE checkpoints: a file to a network, its sizes read off the weights."""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gencls.core.errors import GenclsError
from gencls.zoo.checkpoints import load_torch_file, tensors_by_name
from gencls.zoo.networks.logistic_mixture import mixture_channels
from gencls.zoo.networks.nvae import NVAE

__all__ = ["load_nvae", "nvae_from_state"]

_UPPER_EDGE = 0.99  # of the published likelihood, see LogisticMixture
_REESTIMATED = "state_dict_temp="


def load_nvae(path: str | Path, *, temperature: float = 0.6, reestimated: bool = True, image_size: int | None = None) -> NVAE:
    """Read a checkpoint of GitHub SerezD/NVAE-from-scratch.

    Such a file holds the trained weights as ``state_dict`` and, as ``state_dict_temp=0.6``, ..., the same weights with batch
    norm statistics estimated again on samples of that temperature.

    Args:
        path: the file.
        temperature: of the network's draws from the prior; the MLVGM paper's code has 0.6.
        reestimated: take the statistics that belong to the temperature; False takes those of the training.
        image_size: H = W that the network is to have; None takes any.

    Returns:
        The network in eval mode, its parameters frozen.

    Raises:
        GenclsError: for a file that is missing, damaged or something else; one without weights for this temperature; weights
            that are not those of an NVAE in this layout, or of another image size.
    """
    content = load_torch_file(path)
    found = {key: value for key, value in content.items() if "state_dict" in str(key)} if isinstance(content, Mapping) else {}
    if reestimated:
        wanted = [key for key in found if _temperature(key) == temperature]
    else:
        wanted = [key for key in found if key == "state_dict"]
    if not wanted:
        name = f"{_REESTIMATED}{temperature}" if reestimated else "state_dict"
        raise GenclsError(f"{path}: expected weights under {name!r}; got {', '.join(map(repr, found)) or 'none'}")
    try:
        network = nvae_from_state(tensors_by_name(path, found[wanted[0]]), temperature=temperature)
    except GenclsError as error:
        raise GenclsError(f"{path}: {error}") from None
    if any(bool(mask.any()) for name, mask in network.named_buffers() if name.endswith("layers.4.mask")):
        raise GenclsError(f"{path}: expected flows that are constant shifts, as published; got other masks")
    if image_size is not None and network.image_shape[1:] != (image_size, image_size):
        raise GenclsError(f"{path}: expected a network for images of {image_size} pixels; got one for {network.image_shape}")
    return network


def nvae_from_state(state: Mapping[str, Tensor], *, temperature: float = 1.0) -> NVAE:
    """Build the NVAE whose weights these are; the network shares the tensors.

    Args:
        state: a state dict of GitHub SerezD/NVAE-from-scratch.
        temperature: of draws from the prior.

    Returns:
        The network in eval mode, its parameters frozen.

    Raises:
        GenclsError: for keys that are missing or surplus, or tensors of an unexpected shape.
    """
    sizes = _sizes(state)
    check_layout(state, _layout(**sizes))
    with torch.device("meta"):  # no time for numbers that the weights replace
        network = NVAE(**sizes, temperature=temperature, upper_edge=_UPPER_EDGE)
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def check_layout(state: Mapping[str, Tensor], layout: Mapping[str, torch.Size]) -> None:
    """Compare keys and shapes with those of a network.

    Raises:
        GenclsError: naming the first that differ.
    """
    missing, surplus = ([key for key in first if key not in second] for first, second in ((layout, state), (state, layout)))
    if missing or surplus:
        names = (", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "") for keys in (missing, surplus))
        raise GenclsError(
            "NVAE checkpoint: expected other keys; missing: {}; surplus: {}".format(*(n or "none" for n in names))
        )
    for key, shape in layout.items():
        if state[key].shape != shape:
            raise GenclsError(f"NVAE checkpoint: expected {key} of shape {tuple(shape)}; got {tuple(state[key].shape)}")


def _temperature(key: object) -> float | None:
    """T of a key ``state_dict_temp=T``."""
    match = re.fullmatch(rf"{_REESTIMATED}(\d+(?:\.\d+)?)", str(key))
    return None if match is None else float(match[1])


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of the network, from the names and shapes of its weights."""
    first = "preprocessing_block.init_conv.parametrizations.weight.original1"
    colours, channels = shape(state, first, 4)[1], shape(state, first, 4)[0]
    *_, height, width = shape(state, "const_prior", 4)
    scales, blocks = count(state, r"encoder_tower\.scale_(\d+)\."), count(state, r"preprocessing_block\.block_(\d+)\.")
    shrink = 2 ** (blocks + scales - 1)
    return {
        "image_shape": (colours, height * shrink, width * shrink),
        "groups": tuple(count(state, rf"encoder_tower\.scale_{scale}\.group_(\d+)\.") for scale in range(scales)),
        "cells": count(state, r"encoder_tower\.scale_\d+\.group_\d+\.cell_(\d+)\."),
        "latent_channels": shape(state, "enc_sampler.sampler_0:0.bias", 1)[0] // 2,
        "channels": channels,
        "blocks": blocks,
        "block_cells": count(state, r"preprocessing_block\.block_\d+\.cell_(\d+)\.") if blocks else 1,
        "mixtures": shape(state, "to_logits.1.bias", 1)[0] // mixture_channels(1, colours),
        "flows": count(state, r"nf_cells\.nf_\d+:\d+\.(\d+)\."),
    }


def count(state: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the highest number at this place of the keys; 0 without such keys."""
    return max((int(match[1]) + 1 for match in map(re.compile(pattern).match, state) if match), default=0)


def shape(state: Mapping[str, Tensor], key: str, rank: int) -> torch.Size:
    """Shape of a tensor.

    Raises:
        GenclsError: it is missing or has another rank.
    """
    if key not in state or state[key].ndim != rank:
        found = f"shape {tuple(state[key].shape)}" if key in state else "nothing"
        raise GenclsError(f"NVAE checkpoint: expected {key} of rank {rank}; got {found}")
    return state[key].shape


@lru_cache(maxsize=16)
def _layout(**sizes: Any) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {key: value.shape for key, value in NVAE(**sizes).state_dict().items()}
