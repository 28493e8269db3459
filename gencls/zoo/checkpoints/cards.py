"""Cards of weights files: what a file holds and where it comes from, as JSON beside it."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_origin

import torch

from gencls.core.errors import GenclsError
from gencls.core.settings import checked

_LARGEST = 2**20
"""Most bytes of a card; ours have some 1,500."""


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
            if not isinstance(value, expected) or isinstance(value, bool):
                raise GenclsError(f"card: expected {entry.name} as {expected.__name__}; got {value!r:.100}")
        if self.size < 0:
            raise GenclsError(f"card: expected size as a number of bytes; got {self.size}")


def card_path(path: str | Path) -> Path:
    """Path of the card that belongs to a weights file: the same name, ending with .json."""
    if not Path(path).name:
        raise GenclsError(f"expected the path of a weights file, got {str(path)!r}")
    return Path(path).with_suffix(".json")


@checked
def read_card(path: str | Path) -> Card:
    """Read the card of a weights file without looking at the weights.

    Raises:
        GenclsError: The card is missing or is not a card.
    """
    place = card_path(path)
    if not place.is_file():
        raise GenclsError(f"{path}: expected its card {place.name} beside it; got no such file")
    if place.stat().st_size > _LARGEST:
        raise GenclsError(f"{place}: expected a card of at most {_LARGEST:,} bytes; got {place.stat().st_size:,}")
    try:
        values = json.loads(place.read_bytes(), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise GenclsError(f"{place}: expected a JSON card; got something else: {error}") from None
    names = {entry.name for entry in fields(Card)}
    found = set(values) if isinstance(values, dict) else set()
    if found != names:
        missing, unknown = (", ".join(sorted(some)) or "none" for some in (names - found, found - names))
        raise GenclsError(f"{place}: expected the fields of a card; missing: {missing}; unknown: {unknown:.200}")
    try:
        return Card(**values)
    except GenclsError as error:
        raise GenclsError(f"{place}: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object whose names differ; Python's reader would keep the last of two equal names."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return values


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")
