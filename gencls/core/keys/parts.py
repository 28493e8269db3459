"""Takes a value apart: into a word for its kind, and the values that it holds, each with the way that leads to it.

One function per kind of value, chosen by type. Any other object has the parts that ``pickle`` would save.
"""

import copyreg
import logging
import random
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import cached_property, singledispatch
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy
import torch
from torch.utils.hooks import RemovableHandle

from gencls.core.keys.origins import found

__all__ = ["Defined", "Library", "Parts", "Unordered", "attributes", "parts", "parts_of"]

Held = Iterable[tuple[str, Any]]
"""Pairs: the way to a value (``.name``, ``[3]``; not part of the key) and the value."""

Parts = tuple[str, Held]


class Library(NamedTuple):
    """The name of an object that a library defines, in its place. The version of the library counts as well."""

    name: str


class Defined(NamedTuple):
    """The name of an object in its module, in its place. The module's source counts with all that the object names."""

    module: str
    name: str


class Unordered(NamedTuple):
    """The elements of a set."""

    of: set[Any] | frozenset[Any]


_OF_THE_PROCESS = (random._inst, numpy.random.mtrand._rand, torch.default_generator)
"""Random generators whose state belongs to no module."""


def parts_of(value: Any) -> Parts:
    """Take a value apart.

    Raises:
        Exception: any kind, for a value that cannot be taken apart.
    """
    if any(value is generator for generator in _OF_THE_PROCESS):
        return "generator of the process", [("", type(value))]
    exact = _EXACT.get(type(value))
    return parts(value) if exact is None else exact(value)


def _items(values: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"[{number}]", value) for number, value in enumerate(values))


def _entries(values: Iterable[tuple[Any, Any]]) -> Iterator[tuple[str, Any]]:
    for key, value in values:
        yield ".keys()", key
        yield f"[{key!r}]" if isinstance(key, (str, int)) else "[...]", value


_EXACT: dict[type, Callable[[Any], Parts]] = {
    list: lambda value: ("list", _items(value)),
    tuple: lambda value: ("tuple", _items(value)),
    dict: lambda value: ("dict", _entries(value.items())),
    bytearray: lambda value: ("bytearray", [("", bytes(value))]),
    range: lambda value: ("range", _items((value.start, value.stop, value.step))),
    slice: lambda value: ("slice", _items((value.start, value.stop, value.step))),
    Library: lambda value: ("library", [("", value.name)]),
    Defined: lambda value: ("defined", [("", value.name)]),
}
"""Exact types only: a subclass holds more, so it counts as an object."""


@singledispatch
def parts(value: Any) -> Parts:
    """Take a value apart by its type; any other object has the parts that ``pickle`` would save."""
    reducer = copyreg.dispatch_table.get(type(value))
    saved = value.__reduce_ex__(2) if reducer is None else reducer(value)
    if isinstance(saved, str):
        return "global", [("", _global(value, saved))]
    whole: tuple[Any, ...] = (*saved, None, None, None)
    function, arguments, state, items, entries = whole[:5]
    held = [("", function), *(("", argument) for argument in arguments), *attributes(value, state)]
    return "object", [*held, *_items(items or ()), *_entries(entries or ())]


def _global(value: Any, name: str) -> Library:
    module = getattr(value, "__module__", None) or type(value).__module__
    if found(module, name) is not value:
        raise TypeError(f"it calls itself {module}.{name}, where something else is found")
    return Library(f"{module}.{name}")


def attributes(value: Any, state: Any) -> Iterator[tuple[str, Any]]:
    """The state of an object by the names of its attributes, without what ``functools.cached_property`` keeps."""
    named = state if isinstance(state, tuple) else (state,)
    if not all(part is None or isinstance(part, dict) for part in named):
        yield "", state
        return
    classes = [vars(kind) for kind in type(value).__mro__]
    for name, held in sorted((str(name), held) for part in named for name, held in (part or {}).items()):
        defined = next((names[name] for names in classes if name in names), None)
        if not isinstance(defined, cached_property):
            yield "", name
            yield f".{name}", held


@parts.register(set | frozenset)
def _set(value: set[Any] | frozenset[Any]) -> Parts:
    return "set", [("", type(value)), *attributes(value, getattr(value, "__dict__", None)), ("", Unordered(value))]


parts.register(Enum, lambda value: ("enum", [("", type(value)), ("", value.name), (".value", value.value)]))
parts.register(PurePath, lambda value: ("path", [("", str(value))]))
parts.register(MappingProxyType, lambda value: ("mapping", _entries(value.items())))
parts.register(weakref.ReferenceType, lambda value: ("reference", [("()", value())]))
parts.register(torch.dtype | torch.layout | torch.memory_format, lambda value: ("torch", [("", str(value))]))
parts.register(torch.Generator, lambda value: ("generator", [(".get_state()", value.get_state())]))


@parts.register(type(threading.Lock()) | type(threading.RLock()))
@parts.register(logging.Logger | torch.device | RemovableHandle)
def _no_part_of_the_result(value: object) -> Parts:
    """Nothing: the value changes no output. A device must not count, and a hook counts where it is registered."""
    return type(value).__name__, ()


@parts.register
def _numpy_scalar(value: numpy.generic) -> Parts:
    return "scalar", [("", str(value.dtype)), ("", value.item() if value.dtype.hasobject else value.tobytes())]


@parts.register
def _array(value: numpy.ndarray) -> Parts:
    content = value.tolist() if value.dtype.hasobject else value.tobytes()
    extra = () if isinstance(value, numpy.memmap) else attributes(value, getattr(value, "__dict__", None))
    return "array", [("", type(value)), ("", str(value.dtype)), ("", value.shape), *extra, ("[...]", content)]
