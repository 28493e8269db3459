"""Weights on disk: safetensors with a card and a SHA-256, and other people's files read without running their code."""

import inspect
import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, get_origin
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.core.files import atomically
from gencls.core.generators import seeded
from gencls.core.settings import checked

SAFETENSORS = ".safetensors"
TORCH_SUFFIXES = (".pt", ".pth", ".th", ".net", ".model", ".ckpt", ".bin")
"""File names that `load_state_dict` hands to `torch.load` with ``weights_only=True``."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a weights file holds and where it comes from; all values can be written as JSON.

    Attributes:
        name: Name of the weights.
        architecture: Name of the network's class.
        arguments: Its constructor's arguments.
        what: One sentence for people.
        trained_on: Data set and split.
        command: The command that makes the file again.
        metrics: Measured values by name.
        licence: SPDX identifier or what the origin states.
        seed: Seed of the training.
        torch_version: torch that wrote it.
        size: Size of the weights file in bytes, filled in by `save_checkpoint`.
        sha256: SHA-256 of the weights file, filled in by `save_checkpoint`.

    Raises:
        GenclsError: A value has another type.
    """

    name: str
    architecture: str
    arguments: dict[str, Any]
    what: str
    trained_on: str
    command: str
    metrics: dict[str, Any]
    licence: str
    seed: int
    torch_version: str = field(default=str(torch.__version__))
    size: int = 0
    sha256: str = ""

    def __post_init__(self) -> None:
        for entry in fields(self):
            expected: Any = get_origin(entry.type) or entry.type
            value = getattr(self, entry.name)
            if not isinstance(value, expected):
                raise GenclsError(f"card: expected {entry.name} as {expected.__name__}; got {value!r}")


def card_path(path: str | Path) -> Path:
    """Path of the card that belongs to a weights file: the same name, ending with .json."""
    return Path(path).with_suffix(".json")


def save_checkpoint(module: nn.Module, path: str | Path, card: Card, *, half: bool = False) -> Card:
    """Write the weights of a module and their card.

    Each file appears complete or not at all. The same weights give the same bytes.

    Args:
        module: Its `state_dict` is stored.
        path: Weights file, ending with .safetensors; its folder is made if needed.
        card: What the file holds; `size` and `sha256` are filled in.
        half: Store floating point numbers in half precision.

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
    except (TypeError, ValueError) as error:
        raise GenclsError(f"{path.name}: expected a card of JSON values; got something else: {error}") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    atomically(path, lambda part: part.write_bytes(content))
    atomically(card_path(path), lambda part: part.write_bytes(text.encode()))
    return Card(**json.loads(text))


@checked
def read_card(path: str | Path) -> Card:
    """Read the card of a weights file without looking at the weights.

    Raises:
        GenclsError: The card is missing or is not a card.
    """
    place = card_path(path)
    if not place.is_file():
        raise GenclsError(f"{path}: expected its card {place.name} beside it; got no such file")
    try:
        values = json.loads(place.read_bytes())
    except ValueError as error:
        raise GenclsError(f"{place}: expected a JSON card; got something else: {error}") from None
    names = {entry.name for entry in fields(Card)}
    found = set(values) if isinstance(values, dict) else set()
    if found != names:
        missing, unknown = (", ".join(sorted(some)) or "none" for some in (names - found, found - names))
        raise GenclsError(f"{place}: expected the fields of a card; missing: {missing}; unknown: {unknown}")
    return Card(**values)


@checked
def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], Card]:
    """Read weights and card of a file that `save_checkpoint` wrote, checked against the card's SHA-256.

    Args:
        path: The .safetensors file; its card lies beside it.

    Returns:
        The state dict on the CPU, half precision turned into float32, and the card.

    Raises:
        GenclsError: A file is missing, truncated, changed, or something else altogether.
    """
    path = Path(path)
    content = _read(path)
    if path.suffix != SAFETENSORS:
        raise GenclsError(f"{path}: expected a {SAFETENSORS} file with a card; got {path.suffix or 'no ending'}")
    card = read_card(path)
    if len(content) < card.size:
        raise GenclsError(f"{path} is truncated: expected {card.size} bytes, as its card says; got {len(content)}")
    digest = sha256(content).hexdigest()
    if digest != card.sha256:
        raise GenclsError(f"{path}: expected SHA-256 {card.sha256}, as its card says; got {digest}")
    return _parse_safetensors(path, content), card


def verify_checkpoint(path: str | Path) -> Card:
    """Check size, SHA-256 and readability of a weights file, and give its card.

    Raises:
        GenclsError: As `load_checkpoint`.
    """
    return load_checkpoint(path)[1]


def restore(path: str | Path, architectures: Mapping[str, Callable[..., nn.Module]]) -> tuple[nn.Module, Card]:
    """Build the network that a card describes and give it its weights.

    Args:
        path: The .safetensors file.
        architectures: Constructors by the names that cards use.

    Returns:
        The network in eval mode, its parameters frozen, and the card. torch's random state is left as it was.

    Raises:
        GenclsError: As `load_checkpoint`; an unknown architecture or argument; weights that do not fit the network.
    """
    state, card = load_checkpoint(path)
    if card.architecture not in architectures:
        known = ", ".join(architectures)
        raise GenclsError(f"{path}: expected an architecture among {known}; its card says {card.architecture!r}")
    constructor = architectures[card.architecture]
    signature = inspect.signature(constructor)
    try:
        signature.bind(**card.arguments)
    except TypeError as error:
        described = f"{card.architecture}{signature}"
        raise GenclsError(f"{path}: expected the arguments of {described}; its card does not fit: {error}") from None
    with seeded(0):
        network = constructor(**card.arguments)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise GenclsError(f"{path}: expected the weights of the network on its card; got others: {error}") from None
    return network.eval().requires_grad_(False), card


@checked
def load_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of any weights file, never running code that is in it.

    Args:
        path: A .safetensors file, or one that `torch.save` wrote (`TORCH_SUFFIXES`); a dictionary under the key
            ``state_dict`` is taken out of what surrounds it.

    Returns:
        The state dict on the CPU, half precision turned into float32.

    Raises:
        GenclsError: The file is missing, empty, truncated, an HTML page, of an unknown kind, or holds code or anything
            else than tensors by name.
    """
    path = Path(path)
    if path.suffix == SAFETENSORS:
        return _parse_safetensors(path, _read(path))
    values = load_torch_file(path)
    if isinstance(values, Mapping) and isinstance(values.get("state_dict"), Mapping):
        values = values["state_dict"]
    return tensors_by_name(path, values)


def load_torch_file(path: str | Path, *, allowed: Sequence[type] = ()) -> Any:
    """Read all that a file of `torch.save` holds, never running code that is in it; tensors stay tied to the file.

    Args:
        path: The file (`TORCH_SUFFIXES`).
        allowed: Classes without behaviour of their own, of which the file may hold instances beside tensors and plain values.

    Raises:
        GenclsError: The file is missing, empty, truncated, an HTML page, of an unknown kind, or holds code or other objects.
    """
    path = Path(path)
    size = _check_file(path)
    if path.suffix not in TORCH_SUFFIXES:
        known = ", ".join((SAFETENSORS, *TORCH_SUFFIXES))
        raise GenclsError(f"{path}: expected a file name that ends with one of {known}; got {path.suffix or 'no ending'}")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(allowed)):
            warnings.simplefilter("ignore")  # about pickle protocols, before an error that says the same
            # A file may hold several networks of gigabytes: what is not used is not read.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except Exception as error:  # a damaged file can fail anywhere in the readers of zip, tar and pickle
        raise GenclsError(_refusal(path, size, error)) from None


def tensors_by_name(path: str | Path, values: object) -> dict[str, Tensor]:
    """A state dict out of a file, copied, half precision turned into float32.

    Raises:
        GenclsError: It is anything else.
    """
    if not isinstance(values, Mapping):
        raise GenclsError(f"{path}: expected tensors by name; got a {type(values).__name__}")
    for key, value in values.items():
        if not isinstance(value, Tensor):
            raise GenclsError(f"{path}: expected tensors by name; got a {type(value).__name__} under {key!r}")
    return {str(key): _single(value) for key, value in values.items()}


def _read(path: Path) -> bytes:
    """Content of a file that is there and is not a well-known impostor."""
    _check_file(path)
    return path.read_bytes()


def _check_file(path: Path) -> int:
    """Size of a file that is there and is not a well-known impostor."""
    if not path.is_file():
        raise GenclsError(f"{path}: expected a weights file; got no such file")
    size = path.stat().st_size
    if not size:
        raise GenclsError(f"{path}: expected a weights file; got an empty file")
    with path.open("rb") as file:
        start = file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype", b"<!--", b"<html", b"<head", b"<?xml")):
        raise GenclsError(
            f"{path}: expected a weights file; got an HTML page of {size} bytes. The server answered the "
            f"download with a page (a login, a confirmation or an error): open the address in a browser and fetch the file"
        )
    if start.startswith(b"version https://git-lfs"):
        raise GenclsError(f"{path}: expected a weights file; got a Git LFS pointer. Fetch the file with git lfs pull")
    return size


def _parse_safetensors(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        return {key: _single(value) for key, value in safetensors.load(content).items()}
    except SafetensorError as error:
        raise GenclsError(f"{path}: expected a complete safetensors file; got {len(content)} bytes: {error}") from None


def _single(tensor: Tensor) -> Tensor:
    """A copy; half precision as float32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor.clone()


def _refusal(path: Path, size: int, error: Exception) -> str:
    """Why `torch.load` did not read a file, without its advice to switch the safety off."""
    reason = str(error).splitlines()[0] if str(error) else ""
    if isinstance(error, UnpicklingError):
        called = re.search(r"GLOBAL ([\w.]+)", str(error))
        name = f" ({called[1]})" if called else ""
        return f"{path}: expected tensors only; got a pickle with code or other objects{name}. Nothing in it was run"
    return (
        f"{path}: expected a complete file of torch.save; got {size} bytes that cannot be read as one "
        f"({type(error).__name__}: {reason})"
    )
