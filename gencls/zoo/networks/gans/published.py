"""Published checkpoints of BigGAN (GitHub ajbrock/BigGAN-PyTorch) and FQ-GAN (GitHub YangNaruto/FQ-GAN).

A file becomes a network whose sizes are read off its weights. All come in eval mode, their parameters frozen.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gencls.core.errors import GenclsError
from gencls.core.settings import checked
from gencls.zoo.checkpoints.published import State, Weights
from gencls.zoo.checkpoints.reading import load_state_dict
from gencls.zoo.networks.gans.biggan import WIDTHS, BigGAN
from gencls.zoo.networks.gans.biggan_discriminator import BigGANDiscriminator
from gencls.zoo.networks.gans.fq_discriminator import FQDiscriminator

IMAGENETTE = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)
"""ImageNet's numbers of Imagenette's classes, in the order of Imagenette's labels: tench, English springer, cassette player,
chain saw, church, French horn, garbage truck, gas pump, golf ball, parachute."""

FILE = "G_ema.pth"
"""The averaged weights, as both projects call them."""

DISCRIMINATOR = "D.pth"
"""The discriminator beside them."""

_SIZES = {len(widths) - 1: size for size, widths in WIDTHS.items()}


@checked
def load_biggan(
    path: str | Path,
    *,
    classes: Sequence[int] | None = None,
    size: int | None = None,
    truncation: float = 1.0,
    bn_eps: float = 1e-5,
    sn_eps: float | None = None,
) -> BigGAN:
    """Read a generator of GitHub ajbrock/BigGAN-PyTorch, for instance the released one of 128 pixels and 1000 classes.

    The file is ``G_ema.pth``, or ``G.pth``, a bare state dict. It does not tell the two eps.

    Args:
        path: the file, or a folder that has it under the name ``G_ema.pth``.
        classes: numbers of K classes, which become labels 0 .. K - 1, for instance :data:`IMAGENETTE`; None takes all.
        size: H = W that the images must have; None takes any.
        truncation: standard deviation of the latents that ``sample_latents`` draws, > 0.
        bn_eps: least variance of the batch norms within blocks.
        sn_eps: least norm of the power steps of spectral norm; None takes that of the project's scripts: 1e-6 with a shared
            embedding, 1e-8 without.

    Raises:
        GenclsError: for a file that is missing, damaged or something else; weights of another layout or size, naming both;
            classes that the generator does not have, or one of them twice.
    """
    path = Path(path) / FILE if Path(path).is_dir() else Path(path)
    state: State = load_state_dict(path)
    name = f"{path}: BigGAN"
    layout = _layout(state, name)
    if size is not None and layout["size"] != size:
        raise GenclsError(f"{path}: expected a BigGAN of {size} pixels; got one of {_described(layout)}")
    if classes is not None:
        state = _chosen(path, state, classes, layout["num_classes"])
    return biggan_from_state(state, bn_eps=bn_eps, sn_eps=sn_eps, truncation=truncation, name=name)


def load_imagenette_biggan(path: str | Path, *, truncation: float = 1.0) -> BigGAN:
    """Read the released generator of 128 pixels for the ten classes of Imagenette, in the order of its labels.

    Args:
        path: the file, or a folder that has it under the name ``G_ema.pth``.
        truncation: standard deviation of the latents that ``sample_latents`` draws, > 0.

    Raises:
        GenclsError: as :func:`load_biggan`.
    """
    return load_biggan(path, classes=IMAGENETTE, size=128, truncation=truncation)


@checked
def load_biggan_discriminator(path: str | Path, *, classes: Sequence[int] | None = None) -> BigGANDiscriminator:
    """Read the discriminator that learned with a generator of GitHub ajbrock/BigGAN-PyTorch of 64 pixels and more.

    The file is ``D.pth``, a bare state dict. The loader takes the least norm of the power steps from the project's script.

    Args:
        path: the file, or a folder that has it under the name ``D.pth``.
        classes: numbers of K classes, which become labels 0 .. K - 1, for instance :data:`IMAGENETTE`; None takes all.

    Raises:
        GenclsError: for a file that is missing, damaged or something else; weights of another layout; classes that it does not
            have, or one of them twice.
    """
    path = Path(path) / DISCRIMINATOR if Path(path).is_dir() else Path(path)
    state = load_state_dict(path)
    weights = Weights(BigGANDiscriminator, state, name=f"{path}: BigGANDiscriminator")
    count = weights.shape("embed.weight", 2)[0]
    if classes is not None:
        _check_classes(path, classes, count, "a discriminator")
    blocks = range(weights.count(r"blocks\.(\d+)\."))
    last = 4 * 2 ** (len(blocks) - 1)
    return weights.build(
        channels=tuple(weights.shape(f"blocks.{index}.0.conv1.weight", 4)[0] for index in blocks),
        num_classes=count,
        attention=tuple(max(last // 2 ** (index + 1), 4) for index in blocks if f"blocks.{index}.1.gamma" in state),
        classes=None if classes is None else tuple(classes),
    )


def load_fqgan(path: str | Path, *, size: int | None = 32, truncation: float = 1.0) -> BigGAN:
    """Read a generator of GitHub YangNaruto/FQ-GAN, folder FQ-BigGAN, which is BigGAN's.

    Args:
        path: the file, or a folder that has it under the name ``G_ema.pth``.
        size: H = W that the images must have, 32 for CIFAR10; None takes any.
        truncation: standard deviation of the latents that ``sample_latents`` draws, > 0.

    Raises:
        GenclsError: as :func:`load_biggan`.
    """
    return load_biggan(path, size=size, truncation=truncation)


@checked
def load_fq_discriminator(path: str | Path) -> FQDiscriminator:
    """Read a discriminator of the same project for images of 32 pixels.

    Args:
        path: the file, or a folder that has it under the name ``D.pth``.

    Raises:
        GenclsError: for a file that is missing, damaged or something else; weights of another layout.
    """
    path = Path(path) / DISCRIMINATOR if Path(path).is_dir() else Path(path)
    return fq_discriminator_from_state(load_state_dict(path), name=f"{path}: FQDiscriminator")


def biggan_from_state(
    state: State, *, bn_eps: float = 1e-5, sn_eps: float | None = None, truncation: float = 1.0, name: str = "BigGAN"
) -> BigGAN:
    """Build the generator of a state dict, whose tensors it shares, see :func:`load_biggan`; errors begin with ``name``.

    Raises:
        GenclsError: for weights of another layout, naming both; keys that are missing or surplus, or tensors of an unexpected
            shape.
    """
    layout = _layout(state, name)
    weights = Weights(BigGAN, state, name=f"{name} ({layout['size']} pixels)")
    widths = [weights.shape(f"blocks.{index}.0.bn1.stored_mean", 1)[0] for index in range(len(WIDTHS[layout["size"]]) - 1)]
    expected = [layout["width"] * factor for factor in WIDTHS[layout["size"]]]
    if widths != expected[:-1]:
        raise GenclsError(
            f"{name} checkpoint: expected blocks of {expected[:-1]} channels, as in the layout of {_described(layout)}; got "
            f"{widths}"
        )
    sn_eps = (1e-8 if layout["shared_dim"] is None else 1e-6) if sn_eps is None else sn_eps
    return weights.build(**layout, bn_eps=bn_eps, sn_eps=sn_eps, truncation=truncation)


def fq_discriminator_from_state(state: State, *, name: str = "FQDiscriminator") -> FQDiscriminator:
    """Build the discriminator of a state dict of GitHub YangNaruto/FQ-GAN, whose tensors it shares; errors begin with ``name``.

    Raises:
        GenclsError: for keys that are missing or surplus, or tensors of an unexpected shape.
    """
    weights = Weights(FQDiscriminator, state, name=name)
    blocks = range(weights.count(r"blocks\.(\d+)\."))
    quantized = tuple(index for index in blocks if f"blocks.{index}.1.embed" in state)
    num_classes, channels = weights.shape("embed.weight", 2)
    codes = weights.shape(f"blocks.{quantized[0]}.1.embed", 2)[1] if quantized else 1
    return weights.build(width=channels // 4, num_classes=num_classes, quantized=quantized, codes=codes)


def _layout(state: State, name: str) -> dict[str, Any]:
    """Arguments of BigGAN, from the names and shapes of its weights."""
    other = _other_network(state)
    if other is not None:
        known = ", ".join(map(str, WIDTHS))
        raise GenclsError(f"{name} checkpoint: expected a generator of BigGAN-PyTorch for {known} pixels; got {other}")
    weights = Weights(BigGAN, state, name=name)
    blocks = weights.count(r"blocks\.(\d+)\.")
    if blocks not in _SIZES:
        counts = ", ".join(f"{count} ({size} pixels)" for count, size in _SIZES.items())
        raise GenclsError(f"{name} checkpoint: expected as many blocks as a layout of {counts} has; got {blocks}")
    size = _SIZES[blocks]
    _, chunk = weights.shape("linear.weight", 2)
    first = weights.shape("blocks.0.0.bn1.gain.weight", 2)
    shared = weights.shape("shared.weight", 2) if "shared.weight" in state else None
    hierarchical = shared is not None and first[1] != shared[1]
    return {
        "size": size,
        "width": max(weights.shape("output_layer.0.gain", 1)[0] // WIDTHS[size][-1], 1),
        "num_classes": first[0] if shared is None else shared[0],
        "latent_dim": chunk * (blocks + 1) if hierarchical else chunk,
        "shared_dim": None if shared is None else shared[1],
        "hierarchical": hierarchical,
        "attention": tuple(2 ** (index + 3) for index in range(blocks) if f"blocks.{index}.1.gamma" in state),
    }


def _other_network(state: State) -> str | None:
    """Say what a file holds instead of BigGAN's generator; None if it may hold that."""
    if "blocks.0.0.conv3.weight" in state or "blocks.0.0.conv4.weight" in state:
        return "BigGAN-deep, whose blocks have four convolutions"
    if "embed.weight" in state and "linear.weight" in state:
        return "a discriminator" + (" of FQ-GAN" if any(key.endswith(".1.embed") for key in state) else "")
    if any(".bn1.bn." in key for key in state):
        return "a generator with another batch norm (cross_replica or mybn)"
    if "output_layer.0.gain" not in state or "linear.weight" not in state:
        return f"keys {', '.join(list(state)[:3])}, ..." if state else "no keys"
    return None


def _described(layout: dict[str, Any]) -> str:
    """Words for a layout."""
    shared, places = layout["shared_dim"], ", ".join(map(str, layout["attention"]))
    parts = (
        f"{layout['size']} pixels",
        f"width {layout['width']}",
        f"{layout['num_classes']} classes",
        f"latents of {layout['latent_dim']} numbers" + (" in chunks" if layout["hierarchical"] else ""),
        "no shared embedding" if shared is None else f"a shared embedding of {shared}",
        f"attention at {places}" if places else "no attention",
    )
    return ", ".join(parts)


def _chosen(path: Path, state: State, classes: Sequence[int], count: int) -> State:
    """The weights of a generator of these classes alone: rows of all embeddings."""
    _check_classes(path, classes, count, "a generator")
    rows = list(classes)
    if "shared.weight" in state:
        return {**state, "shared.weight": state["shared.weight"][rows]}
    embeddings = (".gain.weight", ".bias.weight")
    return {key: tensor[rows] if key.endswith(embeddings) else tensor for key, tensor in state.items()}


def _check_classes(path: Path, classes: Sequence[int], count: int, owner: str) -> None:
    if not classes or len(set(classes)) < len(classes) or min(classes) < 0:
        raise GenclsError(f"{path}: expected classes as different numbers >= 0, at least one; got {tuple(classes)}")
    if max(classes) >= count:
        raise GenclsError(
            f"{path}: expected {owner} with at least {max(classes) + 1} classes, since class {max(classes)} is asked for; "
            f"got one with {count}"
        )
