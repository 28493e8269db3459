"""Weights of our own on disk: a safetensors file with its card and SHA-256."""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import torch as safetensors
from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.core.files import atomically
from gencls.core.names import did_you_mean
from gencls.core.settings import checked
from gencls.core.streams.seeds import seeded
from gencls.zoo.checkpoints.cards import Card, card_path, read_card
from gencls.zoo.checkpoints.reading import check_file, parse_safetensors
from gencls.zoo.checkpoints.tensors import fitted, layout_of, tensors_by_name

SAFETENSORS = ".safetensors"
"""The ending of a file with a card."""

Architectures = Mapping[str, Callable[..., nn.Module]]
"""Constructors by the names that cards use; they can build on torch's meta device."""

_LARGEST = 2**24
"""Largest size on a card."""

_SPARE = 2**26
"""Bytes that a network may have beside its weights, for instance of fixed kernels."""


def save_checkpoint(module: nn.Module, path: str | Path, card: Card, *, half: bool = False) -> Card:
    """Write the weights of a module and their card.

    Each file appears complete or not at all. The same weights give the same bytes.

    Args:
        module: The module whose `state_dict` is stored.
        path: Weights file, ending with .safetensors; its folder is made if needed.
        card: What the file holds; `size` and `sha256` are filled in.
        half: Whether to store floating point numbers in half precision.

    Returns:
        The card as stored.

    Raises:
        GenclsError: Another file ending, a weight that is not finite (in half precision: above 65504), or a card that
            cannot be written as JSON.
    """
    path = Path(path)
    if path.suffix != SAFETENSORS:
        raise GenclsError(f"expected a file name that ends with {SAFETENSORS}; got {path.name}")
    tensors = {}
    for key, value in module.state_dict().items():
        tensor = value.detach().cpu()
        tensors[key] = tensor.half() if half and tensor.is_floating_point() else tensor.clone()
        if not tensors[key].isfinite().all():
            precision = " in half precision" if half else ""
            raise GenclsError(f"{path.name}: expected finite weights; {key} has values that are not finite{precision}")
    content = safetensors.save({key: tensor.contiguous() for key, tensor in tensors.items()})
    card = replace(card, size=len(content), sha256=sha256(content).hexdigest())
    try:
        text = json.dumps(asdict(card), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise GenclsError(f"{path.name}: expected a card of JSON values; got something else: {error}") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    atomically(path, content)
    atomically(card_path(path), text.encode())
    return Card(**json.loads(text))


@checked
def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], Card]:
    """Read weights and card of a file that `save_checkpoint` wrote, checked against the card's SHA-256.

    Args:
        path: The .safetensors file; its card lies beside it.

    Returns:
        The state dict on the CPU, half precision turned into float32, and the card.

    Raises:
        GenclsError: A file is missing, truncated, changed, or something else altogether; a tensor is complex, in 8 bit floating
            point or not finite.
    """
    path = Path(path)
    check_file(path)
    if path.suffix != SAFETENSORS:
        raise GenclsError(f"{path}: expected a {SAFETENSORS} file with a card; got {path.suffix or 'no ending'}")
    content, card = path.read_bytes(), read_card(path)
    if len(content) < card.size:
        raise GenclsError(f"{path} is truncated: expected {card.size} bytes, as its card says; got {len(content)}")
    digest = sha256(content).hexdigest()
    if digest != card.sha256:
        raise GenclsError(f"{path}: expected SHA-256 {card.sha256:.64}, as its card says; got {digest}")
    return tensors_by_name(path, parse_safetensors(path, content), size=len(content)), card


def verify_checkpoint(path: str | Path, architectures: Architectures = MappingProxyType({})) -> Card:
    """Check size, SHA-256 and readability of a weights file, and give its card.

    With architectures it also compares the weights with the card's network.

    Raises:
        GenclsError: As `load_checkpoint`; with architectures as `restore`.
    """
    state, card = load_checkpoint(path)
    if architectures:
        _fitted(path, state, card, architectures)
    return card


def restore(path: str | Path, architectures: Architectures) -> tuple[nn.Module, Card]:
    """Build the network that a card describes, by the constructor of its name, and give it its weights.

    Returns:
        The network in eval mode, its parameters frozen, and the card. torch's random state is left as it was.

    Raises:
        GenclsError: As `load_checkpoint`; an unknown architecture or argument; weights that do not fit the network. This is
            found before a network takes memory.
    """
    state, card = load_checkpoint(path)
    fitting = _fitted(path, state, card, architectures)
    with seeded(0):
        network = architectures[card.architecture](**card.arguments)
    network.load_state_dict(fitting)
    return network.eval().requires_grad_(False), card


def _fitted(path: str | Path, state: Mapping[str, Tensor], card: Card, architectures: Architectures) -> dict[str, Tensor]:
    """The weights in the form of the card's network."""
    if card.architecture not in architectures:
        raise GenclsError(
            f"{path}: {did_you_mean(card.architecture[:100], architectures)}expected a network that gencls knows; its card "
            f"says {card.architecture!r:.100}. A new one is known by its row in gencls/zoo/rows.py"
        )
    constructor = architectures[card.architecture]
    signature = inspect.signature(constructor)
    if (wrong := _wrongly_typed(signature, card.arguments)) is not None:
        raise GenclsError(f"{path}: expected the arguments of {card.architecture}{signature}; its card has {wrong:.200}")
    if sizes := [size for size in _numbers(card.arguments) if abs(size) > _LARGEST]:
        raise GenclsError(f"{path}: expected sizes up to {_LARGEST:,}; its card has {sizes[0]:.6g}")
    try:
        signature.bind(**card.arguments)
        with seeded(0):
            layout, total = layout_of(constructor, len(state), **card.arguments)
    except Exception as error:  # each constructor can fail in its own way for a wrong value
        raise GenclsError(
            f"{path}: expected the arguments of {card.architecture}{signature}; its card does not fit: {error}. "
            "A training writes them, by card_arguments of its preset"
        ) from None

    def others(expected: str) -> GenclsError:
        return GenclsError(f"{path}: expected the weights of the network on its card; got others: expected {expected}")

    fitting = fitted(state, layout, others)
    stored = sum(tensor.numel() * tensor.itemsize for tensor in layout.values())
    if total > 4 * stored + _SPARE:
        raise GenclsError(
            f"{path}: expected a network of some {stored:,} bytes, as its weights are; its card has one of {total:,}"
        )
    return fitting


def _wrongly_typed(signature: inspect.Signature, arguments: Mapping[str, Any]) -> str | None:
    """Find an argument that is no number, word or truth value although the constructor wants one."""
    for name, value in arguments.items():
        wanted = signature.parameters[name].annotation if name in signature.parameters else None
        if wanted in (bool, int, float, str):
            fits = (int, float) if wanted is float else wanted
            if not isinstance(value, fits) or (isinstance(value, bool) and wanted is not bool):
                return f"{name}={value!r}"
    return None


def _numbers(value: Any) -> Iterator[float]:
    """All numbers among the arguments of a card."""
    left = [value]
    while left:
        inner = left.pop()
        if isinstance(inner, dict):
            left.extend(inner.values())
        elif isinstance(inner, list):
            left.extend(inner)
        elif isinstance(inner, (int, float)):
            yield inner
