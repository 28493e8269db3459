"""The families stylegan2, e4e and style_transformer, each through a file in its published layout and our loader."""

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.zoo.networks.stylegan.autoencoders import StyleAutoencoder
from gencls.zoo.networks.stylegan.published import (
    e4e_from_state,
    load_e4e,
    load_style_transformer,
    load_stylegan2,
    style_transformer_from_state,
    stylegan2_from_state,
)
from gencls.zoo.networks.stylegan.stylegan2 import StyleGAN2, published_channels
from tests.golden.vectors import Family, Vectors


def stylegan2(vectors: Vectors) -> dict[str, Tensor]:
    config = settings(vectors, "size", "style_dim", "n_mlp", "channel_multiplier")
    network = loaded(vectors, lambda path: load_stylegan2(path, size=config["size"]), "g_ema", {})
    with torch.device("meta"):
        channels = published_channels(config["size"], multiplier=config["channel_multiplier"])
        ours = StyleGAN2(channels, style_dim=config["style_dim"], mapping_layers=config["n_mlp"])
    assert shapes(network) == shapes(ours)  # the sizes that are read off the weights are those of the configuration
    return from_normal(network, vectors) | from_codes(network, vectors)


def from_normal(network: StyleGAN2, vectors: Vectors) -> dict[str, Tensor]:
    codes, others = network.mapping(vectors.arrays["z"]), network.mapping(vectors.arrays["z_mean"])
    mean = others.mean(0, keepdim=True)
    found = {"w": codes, "mean_latent": mean, "image_from_z": network(codes)}
    for name in vectors.names:
        if match := re.fullmatch(r"image_truncated_(\d+)p(\d+)", name):
            found["w_truncated"] = torch.lerp(mean, codes, float(f"{match[1]}.{match[2]}"))
            found[name] = network(found["w_truncated"])
        if match := re.fullmatch(r"image_mixed_z_and_z_mean_inject(\d+)", name):
            first = (torch.arange(network.num_levels) < int(match[1]))[:, None]
            found[name] = network(torch.where(first, codes[:, None], others[: len(codes), None]))
    return found


def from_codes(network: StyleGAN2, vectors: Vectors) -> dict[str, Tensor]:
    codes = vectors.arrays["w_plus"]
    with recorded(network, vectors, {}) as seen:
        image = network(codes)
    sides = [2 ** ((number + 5) // 2) for number in range(network.num_levels - 1)]
    silent = network(codes, [torch.zeros(1, 1, side, side) for side in sides])
    return {"image_from_w_plus": image, "image_w_plus_zero_noise": silent, **seen}


def e4e(vectors: Vectors) -> dict[str, Tensor]:
    options = {"encoder_type": "Encoder4Editing", **settings(vectors, "stylegan_size", "start_from_latent_avg")}
    model = loaded(vectors, lambda path: load_e4e(path, image_size=size_of_images(vectors)), "state_dict", options)
    if "alphas" in vectors.names:
        return purified(model, vectors)
    found = reconstructed(model, vectors, {})
    stages = [match for match in map(re.compile(r"codes_stage_(?:W|Delta(\d+))Training").fullmatch, vectors.names) if match]
    return found | {m[0]: model.encoder(vectors.arrays["image"], stage=int(m[1] or 0)) for m in stages}


def style_transformer(vectors: Vectors) -> dict[str, Tensor]:
    options = settings(vectors, "output_size", "n_latent", "input_nc", "learn_in_w", "start_from_latent_avg")
    size, levels = size_of_images(vectors), options.pop("n_latent")
    model = loaded(
        vectors, lambda path: load_style_transformer(path, num_levels=levels, image_size=size), "state_dict", options
    )
    if "alphas" in vectors.names:
        return purified(model, vectors)
    queries = model.generator.mapping(model.encoder.z)
    outputs_of = {f"after_{scale}": f"transformerlayer_{scale}" for scale in ("coarse", "medium", "fine")}
    count = len(vectors.arrays["image"])
    return reconstructed(model, vectors, outputs_of, queries) | {"query": queries.expand(count, -1, -1)}


def settings(vectors: Vectors, *known: str) -> dict[str, Any]:
    """What the configuration says of the network."""
    found = {key: value for key, value in vectors.config.items() if key != "procedure"}  # the arrays tell the procedure
    assert not set(found) - set(known), f"settings without a meaning here: {set(found) - set(known)}"
    return found


def shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in network.state_dict().items()}


def size_of_images(vectors: Vectors) -> int:
    return vectors.arrays["image"].shape[-1]


def loaded(vectors: Vectors, load: Callable[[Path], Any], name: str, options: Mapping[str, Any]) -> Any:
    """As one reads a published checkpoint."""
    content = {name: dict(vectors.state), "opts": dict(options)}
    if "latent_avg" in vectors.arrays:
        content["latent_avg"] = vectors.arrays["latent_avg"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        torch.save(content, path)
        return load(path)


@contextmanager
def recorded(network: nn.Module, vectors: Vectors, outputs_of: Mapping[str, str]) -> Iterator[dict[str, Tensor]]:
    """Outputs of modules as act.{module}, cut down as in the file: first rows and channels, every so many pixels."""
    found: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> None:
        shape = vectors.arrays[name].shape
        output = output[tuple(slice(length) for length in shape[:2])]
        found[name] = (
            output if output.ndim < 4 else output[:, :, :: output.shape[2] // shape[2], :: output.shape[3] // shape[3]]
        )

    hooks = []
    for name in vectors.names:
        if name.startswith("act."):
            module = name.removeprefix("act.")
            hook = network.get_submodule(outputs_of.get(module, module)).register_forward_hook
            hooks.append(hook(lambda module, inputs, output, name=name: keep(name, output)))
    yield found
    for hook in hooks:
        hook.remove()


def reconstructed(
    model: StyleAutoencoder, vectors: Vectors, outputs_of: Mapping[str, str], *queries: Tensor
) -> dict[str, Tensor]:
    with recorded(model.encoder, vectors, outputs_of) as seen:
        codes = model.encoder(vectors.arrays["image"], *queries)
    shifted = codes + model.latent_avg
    image = model.generator(shifted)
    pooled = F.adaptive_avg_pool2d(image, 256)
    return {
        "codes": codes,
        "latent_avg": model.latent_avg,
        "codes_plus_latent_avg": shifted,
        **cut(vectors, "recon", image, pooled),
        **seen,
    }


def purified(model: StyleAutoencoder, vectors: Vectors) -> dict[str, Tensor]:
    alphas, unit, seen = vectors.arrays["alphas"], vectors.arrays["noise_unit"], {}

    def mix(level: int, encoded: Tensor, sampled: Tensor) -> Tensor:
        return (1 - alphas[level]) * encoded + alphas[level] * sampled

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen["codes"], seen["image"] = *inputs, output

    hook = model.generator.register_forward_hook(look)
    with patch.object(model, "noise", lambda like: unit.transpose(0, 1).reshape(like.shape)):
        result = model.autoencode((vectors.arrays["image"] + 1) / 2, mix)
    hook.remove()
    framed = model.frame(seen["image"])  # the published code does not clamp
    torch.testing.assert_close(result, framed.add(1).div(2).clamp(0, 1))
    return {
        "mixed_codes": seen["codes"],
        "noise_std": torch.tensor(model.noise_std),
        "latent_avg": model.latent_avg,
        **cut(vectors, "recon", seen["image"], framed),
        **cut(vectors, "purified", seen["image"], framed),
    }


def cut(vectors: Vectors, kind: str, image: Tensor, framed: Tensor) -> dict[str, Tensor]:
    """The generator's image and what is made of it, as the names of the arrays say."""
    found = {}
    for name in vectors.names:
        match = re.fullmatch(rf"{kind}_(?:(avgpool)_|(full_centre_crop)_|)(\d+)", name)
        if match and match[1]:
            found[name] = F.adaptive_avg_pool2d(framed, int(match[3]))
        elif match and match[2]:
            top, left = ((side - int(match[3])) // 2 for side in image.shape[-2:])
            found[name] = image[:, :, top : top + int(match[3]), left : left + int(match[3])]
        elif match:
            found[name] = framed
    return found


def tolerance(name: str, expected: Tensor) -> float:
    return 1e-4 * max(1.0, float(expected.abs().max()))  # convolutions of other backends differ by 1e-6 of the largest value


def family(inputs: set[str], outputs: Callable[[Vectors], dict[str, Tensor]], load: Callable[[Any], object]) -> Family:
    def without_gradients(vectors: Vectors) -> dict[str, Tensor]:
        with torch.no_grad():
            return outputs(vectors)

    return Family(frozenset(inputs), without_gradients, {}, tolerance, load, unused=lambda state: (), initial=filters)


def filters(key: str, zeros: Tensor) -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / 16 if key.endswith(".kernel") else zeros


STYLEGAN2 = family({"z", "z_mean", "w_plus"}, stylegan2, stylegan2_from_state)
E4E = family({"image", "alphas", "noise_unit"}, e4e, e4e_from_state)
STYLE_TRANSFORMER = family({"image", "alphas", "noise_unit"}, style_transformer, style_transformer_from_state)
