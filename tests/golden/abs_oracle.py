"""The published ABS procedure once more, one class after the other, from its description alone: it makes other vectors."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.golden.vectors import Vectors

FACTORS = (1, 0.96, 1.001, 1.06, 0.98, 0.96, 1.03, 1, 1, 1)


def manifest(latent: int, encoder: tuple[int, ...], decoder: tuple[int, ...], classes: int = 10) -> list[list[object]]:
    """Keys, shapes and types for these widths of the inner layers."""
    rows: list[list[object]] = []

    def layer(prefix: str, index: int, weight: list[int], channels: int, normed: bool) -> None:
        rows.extend(
            [[f"{prefix}conv_{index}.weight", weight, "float32"], [f"{prefix}conv_{index}.bias", [channels], "float32"]]
        )
        for leaf in ("weight", "bias", "running_mean", "running_var") if normed else ():
            rows.append([f"{prefix}bn_{index}.{leaf}", [channels], "float32"])
        if normed:
            rows.append([f"{prefix}bn_{index}.num_batches_tracked", [], "int64"])

    for k in range(classes):
        widths = (1, *encoder, 2 * latent)
        for i, kernel in enumerate((5, 4, 3, 5)):
            layer(f"VAE_{k}.Encoder.", i, [widths[i + 1], widths[i], kernel, kernel], widths[i + 1], i < 3)
        widths = (latent, *decoder, 1)
        for i, kernel in enumerate((4, 5, 5, 4)):
            layer(f"VAE_{k}.Decoder.", i, [widths[i], widths[i + 1], kernel, kernel], widths[i + 1], i < 3)
    return rows


def make_arrays(vectors: Vectors, images: Tensor, starts: Tensor, number: int) -> dict[str, Tensor]:
    """The arrays of one entry, from its config and weights."""
    config, network = vectors.config, f"VAE_{number}"
    encoded = encode(vectors, network, images)
    logits = decode(vectors, network, starts[:1])
    arrays = {
        "image": images,
        "start_latents": starts,
        "n_iter": torch.tensor(config["n_iter"]),
        f"vae{number}.encoder_out": encoded,
        f"vae{number}.decode_of_mu": decode(vectors, network, encoded[:1, : starts.shape[1]]).sigmoid(),
        f"vae{number}.decoder_logits_start0": logits,
    }
    for variant, seen, factors in (("base", images, (1,) * 10), ("binary", (images >= 0.5).float(), FACTORS)):
        rows = [infer(vectors, f"VAE_{k}", seen, starts, factor) for k, factor in enumerate(factors)]
        elbo, latents, pictures, start_elbo, start = (torch.stack(part, dim=1) for part in zip(*rows, strict=True))
        likelihood = (-440 * elbo).exp()
        results = {
            "elbo": elbo,
            "logits": -elbo,
            "latents": latents,
            "reconstructions": pictures[:1],
            "confidence": (likelihood + 3.9e-5) / (likelihood.sum(1, keepdim=True) + 10 * 3.9e-5),
            "start_elbo_min": start_elbo,
            "start_latent_best": start,
        }
        arrays |= {f"{variant}.{name}": array for name, array in results.items()}
    return arrays


def infer(vectors: Vectors, network: str, images: Tensor, starts: Tensor, factor: float) -> tuple[Tensor, ...]:
    config = vectors.config

    def bound(seen: Tensor, latents: Tensor) -> Tensor:
        pictures = decode(vectors, network, latents).sigmoid()
        error = ((seen - pictures) ** 2).sum((1, 2, 3))
        return factor * (error + config["beta"] * 0.5 * (latents**2).sum(1)) / images[0].numel()

    candidates = torch.stack([bound(image, starts) for image in images])
    start_elbo, best = candidates.min(dim=1)
    latents = starts[best].clone().requires_grad_()
    adam = torch.optim.Adam([latents], lr=config["lr"])
    for _ in range(config["n_iter"] - 1):
        adam.zero_grad()
        bound(images, latents).sum().backward()
        adam.step()
        with torch.no_grad():
            for row in latents:
                if (norm := row.norm()) > config["clip"]:
                    row.copy_((row**2 / norm**2 * config["clip"] ** 2).sqrt())
    latents = latents.detach()
    return bound(images, latents), latents, decode(vectors, network, latents).sigmoid(), start_elbo, starts[best]


def decode(vectors: Vectors, network: str, latents: Tensor) -> Tensor:
    """Latents (M, d) -> logits of pixels (M, 1, 28, 28)."""
    maps = latents[:, :, None, None]
    for i, stride in enumerate((1, 2, 2, 1)):
        prefix = f"{network}.Decoder."
        weight, bias = (vectors.state[f"{prefix}conv_{i}.{leaf}"] for leaf in ("weight", "bias"))
        maps = F.conv_transpose2d(maps, weight, bias, stride)
        if i < 3:
            maps = F.elu(norm(vectors, f"{prefix}bn_{i}.", maps))
    return maps


def encode(vectors: Vectors, network: str, images: Tensor) -> Tensor:
    """Images (M, 1, 28, 28) -> means and log variances (M, 2 d)."""
    maps = images
    for i, stride in enumerate((1, 2, 2, 1)):
        prefix = f"{network}.Encoder."
        weight, bias = (vectors.state[f"{prefix}conv_{i}.{leaf}"] for leaf in ("weight", "bias"))
        maps = F.conv2d(maps, weight, bias, stride)
        if i < 3:
            maps = F.elu(norm(vectors, f"{prefix}bn_{i}.", maps))
    return maps.flatten(1)


def norm(vectors: Vectors, prefix: str, maps: Tensor) -> Tensor:
    mean, variance, weight, bias = (
        vectors.state[f"{prefix}{leaf}"][:, None, None] for leaf in ("running_mean", "running_var", "weight", "bias")
    )
    return (maps - mean) / (variance + 1e-5).sqrt() * weight + bias


def write(folder: Path, entries: list[dict], manifests: dict[str, list], images: Tensor, numbers: list[int]) -> None:
    """A folder of vectors; fill.py must lie beside it."""
    folder.mkdir()
    for name, rows in manifests.items():
        (folder / name).write_text(json.dumps(rows))
    for entry, number in zip(entries, numbers, strict=True):
        vectors = Vectors(folder, entry)
        latent = next(shape[0] for key, shape, _ in vectors.manifest if key.endswith("Decoder.conv_0.weight"))
        source = torch.Generator().manual_seed(entry["seed"])
        starts = torch.randn(entry["config"]["n_samples"], latent, generator=source)
        arrays = make_arrays(vectors, images, starts, number)
        np.savez(folder / entry["file"], **{name: array.numpy() for name, array in arrays.items()})
    (folder / "index.json").write_text(json.dumps(entries))
