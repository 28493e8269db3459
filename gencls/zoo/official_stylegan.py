"""Published checkpoints of StyleGAN2, encoder4editing and the Style Transformer: a file to a network, its sizes read off."""

import re
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.zoo.checkpoints import load_torch_file, tensors_by_name
from gencls.zoo.networks.e4e import E4EEncoder
from gencls.zoo.networks.style_autoencoders import E4EAutoencoder, StyleAutoencoder, StyleTransformerAutoencoder
from gencls.zoo.networks.style_transformer import StyleTransformerEncoder
from gencls.zoo.networks.stylegan2 import StyleGAN2

__all__ = [
    "e4e_from_state",
    "load_e4e",
    "load_style_transformer",
    "load_stylegan2",
    "style_transformer_from_state",
    "stylegan2_from_state",
]

State = Mapping[str, Tensor]
Network = TypeVar("Network", StyleGAN2, E4EEncoder, StyleTransformerEncoder)
Autoencoder = TypeVar("Autoencoder", bound=StyleAutoencoder)


def load_stylegan2(path: str | Path, *, size: int | None = None) -> StyleGAN2:
    """Read a generator of GitHub rosinality/stylegan2-pytorch: the averaged weights, ``g_ema`` in the file.

    Args:
        path: the file.
        size: H = W that the images are to have; None takes any.

    Returns:
        The network in eval mode, its parameters frozen.

    Raises:
        GenclsError: for a file that is missing, damaged or something else; weights that are not those of a StyleGAN2 in this
            layout, or of another size.
    """
    network = stylegan2_from_state(_weights(path, _content(path), "g_ema"))
    if size is not None and network.size != size:
        raise GenclsError(f"{path}: expected a generator of {size} pixels; got one of {network.size}")
    return network


def load_e4e(path: str | Path, *, num_levels: int | None = None, image_size: int = 256) -> E4EAutoencoder:
    """Read a checkpoint of GitHub omertov/encoder4editing: encoder, generator and average code.

    Args:
        path: the file, with ``state_dict``, ``opts`` and, if they say ``start_from_latent_avg``, ``latent_avg``.
        num_levels: L that the model is to have, 18 for generators of 1024 pixels; None takes any.
        image_size: H = W of the images.

    Returns:
        The model in eval mode, its parameters frozen.

    Raises:
        GenclsError: for a file that is missing, damaged or something else; weights that are not those of such networks; no
            average code; another number of levels than asked for or of another size than ``opts`` say.
    """
    content = _content(path)
    networks = e4e_from_state(_weights(path, content, "state_dict"))
    average = _average(path, content, networks[1], "stylegan_size")
    return _of_levels(path, E4EAutoencoder(*networks, average, image_size=image_size), num_levels)


def load_style_transformer(
    path: str | Path, *, num_levels: int | None = None, image_size: int = 128
) -> StyleTransformerAutoencoder:
    """Read a checkpoint of GitHub sapphire497/style-transformer: encoder, generator and average code.

    Args:
        path: the file, with ``state_dict``, ``opts`` and, if they say ``start_from_latent_avg``, ``latent_avg``.
        num_levels: L that the model is to have, 16 for generators of 512 pixels; None takes any.
        image_size: H = W of the images.

    Returns:
        The model in eval mode, its parameters frozen.

    Raises:
        GenclsError: as :func:`load_e4e`; for a checkpoint whose ``opts`` say ``learn_in_w``, one code for all levels.
    """
    content = _content(path)
    networks = style_transformer_from_state(_weights(path, content, "state_dict"))
    average = _average(path, content, networks[1], "output_size")
    return _of_levels(path, StyleTransformerAutoencoder(*networks, average, image_size=image_size), num_levels)


def stylegan2_from_state(state: State) -> StyleGAN2:
    """Build the generator whose weights these are; the network shares the tensors.

    Args:
        state: a state dict of GitHub rosinality/stylegan2-pytorch.

    Returns:
        The network in eval mode, its parameters frozen.

    Raises:
        GenclsError: for keys that are missing or surplus, or tensors of an unexpected shape.
    """
    sizes = range(_count(state, r"to_rgbs\.(\d+)\."))
    return _build(
        StyleGAN2,
        state,
        channels=(_length(state, "input.input", 1), *(_length(state, f"convs.{2 * i}.conv.weight", 1) for i in sizes)),
        style_dim=_length(state, "style.1.weight", 1),
        mapping_layers=_count(state, r"style\.(\d+)\.") - 1,
    )


def e4e_from_state(state: State) -> tuple[E4EEncoder, StyleGAN2]:
    """Build encoder and generator, whose weights stand behind ``encoder.`` and ``decoder.``; they share the tensors.

    Raises:
        GenclsError: as :func:`stylegan2_from_state`.
    """
    weights, generator = _parts(state)
    levels = _count(weights, r"styles\.(\d+)\.")
    return _build(E4EEncoder, weights, num_levels=levels, **_stages(weights)), stylegan2_from_state(generator)


def style_transformer_from_state(state: State) -> tuple[StyleTransformerEncoder, StyleGAN2]:
    """Build encoder and generator, whose weights stand behind ``encoder.module.`` and ``decoder.module.``.

    They share the tensors; ``module.`` may be missing.

    Raises:
        GenclsError: as :func:`stylegan2_from_state`.
    """
    weights, generator = _parts(state)
    hidden = _length(weights, "transformerlayer_coarse.linear1.weight", 0)
    encoder = _build(StyleTransformerEncoder, weights, num_levels=_length(weights, "z", 1), hidden=hidden, **_stages(weights))
    return encoder, stylegan2_from_state(generator)


def _content(path: str | Path) -> Mapping[str, Any]:
    content = load_torch_file(path, allowed=[Namespace])
    return content if isinstance(content, Mapping) else {}


def _weights(path: str | Path, content: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    if name not in content:
        raise GenclsError(f"{path}: expected weights under {name!r}; got {', '.join(map(repr, content)) or 'none'}")
    return tensors_by_name(path, content[name])


def _average(path: str | Path, content: Mapping[str, Any], generator: StyleGAN2, size_option: str) -> Tensor:
    """The average code of a checkpoint, and a look at what its options say."""
    options = content.get("opts", {})
    options = vars(options) if isinstance(options, Namespace) else options
    if not isinstance(options, Mapping):
        raise GenclsError(f"{path}: expected options by name under 'opts'; got a {type(options).__name__}")
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
    return average.clone().float()  # not tied to the file


def _of_levels(path: str | Path, model: Autoencoder, num_levels: int | None) -> Autoencoder:
    if num_levels is not None and model.num_levels != num_levels:
        raise GenclsError(
            f"{path}: expected a model of {num_levels} levels; got one of {model.num_levels}, "
            f"whose generator makes images of {model.generator.size} pixels"
        )
    return model.eval()


def _parts(state: State) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Encoder and generator, without the prefix that torch.nn.DataParallel adds."""
    parts: dict[str, dict[str, Tensor]] = {"encoder": {}, "decoder": {}}
    for key, tensor in state.items():
        part, _, rest = key.partition(".")
        if part not in parts:
            raise GenclsError(f"checkpoint: expected keys encoder. ... and decoder. ... only; got {key}")
        parts[part][rest.removeprefix("module.")] = tensor
    return parts["encoder"], parts["decoder"]


def _stages(state: State) -> dict[str, tuple[int, ...]]:
    """Widths and numbers of units of a backbone, whose units are one list; each stage has a width of its own."""
    widths = (_length(state, f"body.{i}.res_layer.1.weight", 0) for i in range(_count(state, r"body\.(\d+)\.")))
    stages = [(width, len(list(same))) for width, same in groupby(widths)]
    return {"widths": tuple(width for width, _ in stages), "units": tuple(count for _, count in stages)}


def _build(kind: Callable[..., Network], state: State, **sizes: Any) -> Network:
    layout, name = _layout(kind, **sizes), kind.__name__
    missing, surplus = ([key for key in first if key not in second] for first, second in ((layout, state), (state, layout)))
    if missing or surplus:
        parts = (", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "") for keys in (missing, surplus))
        missed, left = (part or "none" for part in parts)
        raise GenclsError(f"{name} checkpoint: expected other keys; missing: {missed}; surplus: {left}")
    for key, shape in layout.items():
        if state[key].shape != shape:
            raise GenclsError(f"{name} checkpoint: expected {key} of shape {tuple(shape)}; got {tuple(state[key].shape)}")
    with torch.device("meta"):  # no time for numbers that the weights replace
        network = kind(**sizes)
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


@lru_cache(maxsize=16)
def _layout(kind: Callable[..., nn.Module], **sizes: Any) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {key: value.shape for key, value in kind(**sizes).state_dict().items()}


def _count(state: State, pattern: str) -> int:
    """One more than the highest number at this place of the keys; 0 without such keys."""
    return max((int(match[1]) + 1 for match in map(re.compile(pattern).match, state) if match), default=0)


def _length(state: State, key: str, dimension: int) -> int:
    if key not in state or state[key].ndim <= dimension:
        found = f"shape {tuple(state[key].shape)}" if key in state else f"{', '.join(list(state)[:3]) or 'no keys'}, ..."
        raise GenclsError(f"checkpoint: expected {key} of rank {dimension + 1} or more; got {found}")
    return state[key].shape[dimension]
