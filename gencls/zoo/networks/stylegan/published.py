"""Published checkpoints of StyleGAN2, encoder4editing and the Style Transformer: a file becomes a network of its sizes.

All networks come in eval mode, their parameters frozen.
"""

from argparse import Namespace
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from gencls.core.errors import GenclsError
from gencls.core.weights import check_state
from gencls.core.words import with_article
from gencls.zoo.checkpoints.published import State, Weights, file_content, weights_under
from gencls.zoo.networks.stylegan.autoencoders import E4EAutoencoder, StyleAutoencoder, StyleTransformerAutoencoder
from gencls.zoo.networks.stylegan.e4e import E4EEncoder
from gencls.zoo.networks.stylegan.style_transformer import StyleTransformerEncoder
from gencls.zoo.networks.stylegan.stylegan2 import StyleGAN2

Encoder = TypeVar("Encoder", E4EEncoder, StyleTransformerEncoder)
Autoencoder = TypeVar("Autoencoder", bound=StyleAutoencoder)


def load_stylegan2(path: str | Path, *, size: int | None = None) -> StyleGAN2:
    """Read a generator of GitHub rosinality/stylegan2-pytorch: the averaged weights, ``g_ema`` in the file.

    Args:
        path: the file.
        size: H = W that the images must have; None takes any.

    Raises:
        GenclsError: for a file that is missing, damaged or something else; weights that are not those of a StyleGAN2 in this
            layout, or of another size.
    """
    network = stylegan2_from_state(weights_under(path, file_content(path), "g_ema"))
    if size is not None and network.size != size:
        raise GenclsError(f"{path}: expected a generator of {size} pixels; got one of {network.size}")
    return network


def load_e4e(path: str | Path, *, num_levels: int | None = None, image_size: int = 256) -> E4EAutoencoder:
    """Read a checkpoint of GitHub omertov/encoder4editing: encoder, generator and average code.

    Args:
        path: the file, with ``state_dict``, ``opts`` and, if they say ``start_from_latent_avg``, ``latent_avg``.
        num_levels: L that the model must have, 18 for generators of 1024 pixels; None takes any.
        image_size: H = W of the images.

    Raises:
        GenclsError: for a file that is missing, damaged or something else; for weights of other networks; without an average
            code; for another number of levels than ``num_levels`` or another size than ``opts`` say.
    """
    content = file_content(path)
    networks = e4e_from_state(weights_under(path, content, "state_dict"))
    average = _average(path, content, networks[1], "stylegan_size")
    return _of_levels(path, E4EAutoencoder(*networks, average, image_size=image_size), num_levels)


def load_style_transformer(
    path: str | Path, *, num_levels: int | None = None, image_size: int = 128
) -> StyleTransformerAutoencoder:
    """Read a checkpoint of GitHub sapphire497/style-transformer: encoder, generator and average code.

    Args:
        path: the file, with ``state_dict``, ``opts`` and, if they say ``start_from_latent_avg``, ``latent_avg``.
        num_levels: L that the model must have, 16 for generators of 512 pixels; None takes any.
        image_size: H = W of the images.

    Raises:
        GenclsError: as :func:`load_e4e`; for a checkpoint whose ``opts`` say ``learn_in_w``, one code for all levels.
    """
    content = file_content(path)
    networks = style_transformer_from_state(weights_under(path, content, "state_dict"))
    average = _average(path, content, networks[1], "output_size")
    return _of_levels(path, StyleTransformerAutoencoder(*networks, average, image_size=image_size), num_levels)


def stylegan2_from_state(state: State) -> StyleGAN2:
    """Build the generator of a state dict of GitHub rosinality/stylegan2-pytorch, whose tensors it shares.

    Raises:
        GenclsError: for keys that are missing or surplus, or tensors of an unexpected shape.
    """
    weights = Weights(StyleGAN2, state)
    sizes = range(weights.count(r"to_rgbs\.(\d+)\."))
    return weights.build(
        channels=(weights.shape("input.input", 4)[1], *(weights.shape(f"convs.{2 * i}.conv.weight", 5)[1] for i in sizes)),
        style_dim=weights.shape("style.1.weight", 2)[1],
        mapping_layers=weights.count(r"style\.(\d+)\.") - 1,
    )


def e4e_from_state(state: State) -> tuple[E4EEncoder, StyleGAN2]:
    """Build encoder and generator, whose weights stand behind ``encoder.`` and ``decoder.``; they share the tensors.

    Raises:
        GenclsError: as :func:`stylegan2_from_state`.
    """
    weights, generator = _parts(E4EEncoder, state)
    levels = weights.count(r"styles\.(\d+)\.")
    return weights.build(num_levels=levels, **_stages(weights)), stylegan2_from_state(generator)


def style_transformer_from_state(state: State) -> tuple[StyleTransformerEncoder, StyleGAN2]:
    """Build encoder and generator, whose weights stand behind ``encoder.module.`` and ``decoder.module.``.

    They share the tensors; ``module.`` may be missing.

    Raises:
        GenclsError: as :func:`stylegan2_from_state`.
    """
    weights, generator = _parts(StyleTransformerEncoder, state)
    levels, hidden = weights.shape("z", 3)[1], weights.shape("transformerlayer_coarse.linear1.weight", 2)[0]
    return weights.build(num_levels=levels, hidden=hidden, **_stages(weights)), stylegan2_from_state(generator)


def _average(path: str | Path, content: Mapping[str, Any], generator: StyleGAN2, size_option: str) -> Tensor:
    """The average code of a checkpoint; this also checks the checkpoint's options."""
    options = content.get("opts", {})
    options = vars(options) if isinstance(options, Namespace) else options
    if not isinstance(options, Mapping):
        raise GenclsError(f"{path}: expected options by name under 'opts'; got {with_article(type(options).__name__)}")
    for name in (size_option, "learn_in_w", "start_from_latent_avg"):
        if not isinstance(options.get(name, 0), int):
            raise GenclsError(f"{path}: expected opts.{name} as a number; got {with_article(type(options[name]).__name__)}")
    size = options.get(size_option, generator.size)
    if size != generator.size:
        raise GenclsError(f"{path}: expected a generator of {size} pixels, as its opts say; got one of {generator.size}")
    if options.get("learn_in_w", False):
        raise GenclsError(f"{path}: expected a code per level; got a checkpoint of one code for all (learn_in_w)")
    if not options.get("start_from_latent_avg", True):
        return torch.zeros(1, generator.style_dim)
    average = content.get("latent_avg")
    if not isinstance(average, Tensor):
        raise GenclsError(f"{path}: expected the average code as a tensor under 'latent_avg'; got {type(average).__name__}")
    check_state(path, {"latent_avg": average})
    return average.clone().float()  # not tied to the file


def _of_levels(path: str | Path, model: Autoencoder, num_levels: int | None) -> Autoencoder:
    if num_levels is not None and model.num_levels != num_levels:
        raise GenclsError(
            f"{path}: expected a model of {num_levels} levels; got one of {model.num_levels}, "
            f"whose generator makes images of {model.generator.size} pixels"
        )
    return model.eval()


def _parts(kind: type[Encoder], state: State) -> tuple[Weights[Encoder], dict[str, Tensor]]:
    """Encoder and generator, without the prefix that torch.nn.DataParallel adds."""
    parts: dict[str, dict[str, Tensor]] = {"encoder": {}, "decoder": {}}
    for key, tensor in state.items():
        part, _, rest = key.partition(".")
        if part not in parts:
            raise GenclsError(f"{kind.__name__} checkpoint: expected keys encoder. ... and decoder. ... only; got {key}")
        parts[part][rest.removeprefix("module.")] = tensor
    return Weights(kind, parts["encoder"]), parts["decoder"]


def _stages(weights: Weights[Any]) -> dict[str, tuple[int, ...]]:
    """Widths and numbers of units of a backbone. Its units are one list, and each stage has its own width."""
    units = range(weights.count(r"body\.(\d+)\."))
    widths = (weights.shape(f"body.{i}.res_layer.1.weight", 4)[0] for i in units)
    stages = [(width, len(list(same))) for width, same in groupby(widths)]
    return {"widths": tuple(width for width, _ in stages), "units": tuple(count for _, count in stages)}
