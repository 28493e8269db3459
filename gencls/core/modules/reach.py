"""Finds what code can reach: items, attributes and variables by which a forward pass may come to another module.

Nothing of the user's runs: neither ``__iter__`` nor a property. Objects written in C, such as iterators and queues, tell
Python's garbage collector what they hold.
"""

import dis
import gc
import logging
import sys
import types
import weakref
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from functools import lru_cache, partial
from inspect import Signature
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from gencls.core.keys.classes import origin_of_class
from gencls.core.keys.origins import origin_of_file, origin_of_module

__all__ = ["CONTAINERS", "LEAVES", "parts"]

LEAVES = frozenset({types.NoneType, str, bytes, bool, int, float, complex, Tensor, nn.Parameter, torch.device, torch.dtype})
"""Types of values that hold nothing; most values in a module have one of them."""

CONTAINERS = frozenset({dict, OrderedDict, list, tuple, set, frozenset})
"""Containers. Most of those in a module are empty, and an empty one holds nothing."""

_CLOSED_TYPES = (types.FrameType, types.TracebackType, types.GenericAlias, types.UnionType)
_CLOSED = (Tensor, ModuleType, CodeType, *_CLOSED_TYPES, Signature, logging.Logger, array)
"""Types of values that hold only numbers, or nothing that an output could depend on."""

_CONSTRUCTORS = ("__init__", "__new__")
"""Methods that have done their work: what they left behind lies in attributes."""


def parts(item: Any) -> Iterator[tuple[str, Any]]:
    """The values that an object holds, by name; the name is empty if the object only passes the value on."""
    kind = type(item)
    if kind in (list, tuple):
        yield from zip(map(str, range(len(item))), item, strict=True)
    elif kind in (dict, OrderedDict):
        yield from _entries(item)
    elif isinstance(item, nn.Module):
        yield "", kind
        yield from vars(item).items()
    elif isinstance(item, type):
        yield from _of_class(item)
    elif isinstance(item, FunctionType):
        yield from _variables(item)
        yield from vars(item).items()
    elif isinstance(item, types.MethodType):
        yield from (("", item.__self__), ("", item.__func__))
    elif not isinstance(item, _CLOSED) and kind.__module__ != "typing":
        yield from _of_object(item)


def _of_object(item: Any) -> Iterator[tuple[str, Any]]:
    yield "", type(item)
    yield from getattr(item, "__dict__", {}).items()
    if isinstance(item, dict):
        yield from _entries(item)
    elif isinstance(item, partial):
        yield from (("func", item.func), ("args", item.args), ("keywords", item.keywords))
    elif isinstance(item, weakref.ReferenceType):
        yield "", item()
    elif isinstance(item, numpy.ndarray):
        yield from (("", value) for value in (item.ravel().tolist() if item.dtype.hasobject else ()))
    yield from (("", value) for value in gc.get_referents(item))


def _entries(item: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in item.items():
        if type(key) is str:
            yield key, value
        else:
            yield "keys()", key
            yield str(key) if isinstance(key, int) else type(key).__name__, value


def _of_class(kind: type) -> Iterator[tuple[str, Any]]:
    """Attributes and methods of a class. A library's class counts only if it is a module, and torch's classes never."""
    for base in kind.__mro__:
        network = issubclass(base, nn.Module) and base.__module__.partition(".")[0] not in ("torch", "builtins")
        if network or origin_of_class(base) == "user":
            for name, value in vars(base).items():
                if not name.startswith("__") or (callable(value) and name not in _CONSTRUCTORS):
                    yield name, value


def _variables(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The values that a function closes over, its defaults, and the globals that it names.

    A function of the user's leads to all that it names. Functions of libraries are many, so they lead to modules only.
    """
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not filled yet
            continue
    yield from (("defaults", function.__defaults__), ("defaults", function.__kwdefaults__))
    (variables, imports), known = _names(function.__code__), function.__globals__
    if origin_of_file(function.__code__.co_filename) != "user":
        yield from ((name, known[name]) for name, *_ in variables if isinstance(known.get(name), nn.Module))
        return
    for name, *attributes in variables:
        yield from _taken(name, known.get(name), attributes)
    above = str(known.get("__package__") or "").split(".")
    for module, name in imports:
        for depth in range(len(above) + 1):  # a relative import begins somewhere above
            yield from _taken("", sys.modules.get(".".join(filter(None, (*above[:depth], module)))), [name])


def _taken(name: str, value: Any, attributes: list[str]) -> Iterator[tuple[str, Any]]:
    """The value of a name; if it is a module of the user's, the value of the attribute that the function takes."""
    for attribute in attributes:
        if isinstance(value, ModuleType) and origin_of_module(value.__name__) == "user":
            name, value = f"{name}.{attribute}", vars(value).get(attribute)
    yield name, value


@lru_cache(maxsize=4096)
def _names(code: CodeType) -> tuple[list[tuple[str, ...]], list[tuple[str, str]]]:
    """Globals, each with the attributes taken of it at once, and modules with the names imported from them, also within."""
    variables: list[tuple[str, ...]] = []
    imports: list[tuple[str, str]] = []
    taken, module = False, ""
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            variables.append((step.argval,))
        elif taken and step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            variables[-1] = (*variables[-1], step.argval)
        elif step.opname == "IMPORT_NAME":
            module = step.argval
        elif step.opname == "IMPORT_FROM":
            imports.append((module, step.argval))
        taken = step.opname in ("LOAD_GLOBAL", "LOAD_NAME") or (taken and step.opname in ("LOAD_ATTR", "LOAD_METHOD"))
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            more_variables, more_imports = _names(inner)
            variables, imports = variables + more_variables, imports + more_imports
    return list(dict.fromkeys(variables)), list(dict.fromkeys(imports))
