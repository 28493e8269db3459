"""The kinds of threats, by the keys under which records and names of attacks know them."""

import functools
import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gencls.core import GenclsError, did_you_mean

_KINDS: dict[str, "ThreatKind"] = {}


@dataclass(frozen=True)
class ThreatKind:
    """What is known of a threat by its key alone.

    Attributes:
        key: stands in the column ``norm`` of records, in names of files, and in names of attacks like pgd-linf: small letters,
            digits, and hyphens between them.
        label: on pages and in figures.
        latex: in LaTeX tables.
        unit: of distances and epsilon.
        make: epsilon (None for the smallest perturbation) to a threat; None where more must be known than epsilon.
    """

    key: str
    label: str
    latex: str
    unit: str
    make: Callable[[float | None], Any] | None = None


def register(kind: ThreatKind) -> None:
    """Make a kind known; the file that defines a threat does it when it is imported.

    Raises:
        GenclsError: for a key that cannot stand in the name of an attack.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", kind.key):
        raise GenclsError(
            f"register: expected a key of small letters, digits and hyphens between them, as in 'linf', got {kind.key!r}"
        )
    _KINDS[kind.key] = kind


def kinds() -> Mapping[str, ThreatKind]:
    """All kinds by key: those of the files beside this one, and what other modules have registered."""
    _import_all()
    return _KINDS


@functools.cache
def _import_all() -> None:
    """Let every file beside this one register its threats."""
    import gencls.eval.threats as package

    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)


def kind_of(key: Any) -> ThreatKind:
    """The kind of a key. Records may hold keys whose file is not there: they are labelled by the key."""
    name = str(key)
    return kinds().get(name) or ThreatKind(name, name, name, "")


def searchable() -> tuple[str, ...]:
    """Keys of the kinds that epsilon alone makes: attacks of any threat search them, by name."""
    return tuple(key for key, kind in kinds().items() if kind.make is not None)


def made(key: str, epsilon: float | None) -> Any:
    """The threat of a key.

    Raises:
        GenclsError: for an unknown key, or one whose threat needs more than epsilon.
    """
    make = kind_of(key).make
    if make is None:
        known = searchable()
        raise GenclsError(f"threat model: {did_you_mean(key, known)}expected a norm among {', '.join(known)}, got {key!r}")
    return make(epsilon)
