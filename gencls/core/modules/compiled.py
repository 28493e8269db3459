"""Finds out from which classes ``torch.jit``, ``torch.fx`` or ``torch.export`` made a module that hides what it does."""

import re
import sys
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn

from gencls.core.keys.origins import found

__all__ = ["compiled_from"]

_NUMBER = re.compile(r"___torch_mangle_\d+\.")
"""The number that TorchScript puts in the name of a class that it has compiled more than once."""


def compiled_from(module: nn.Module, kind: type) -> str:
    """The name of a class of the given kind that a compiled module was made of; empty for any other module.

    TorchScript keeps the names of classes, and their modules. ``torch.fx`` keeps both for all parts, but for the whole module
    only the bare name, which counts if all loaded classes of this name are of the kind. TorchScript's parts are modules of
    their own.
    """
    if isinstance(module, torch.jit.ScriptModule):
        full = _NUMBER.sub("", module._c._type().qualified_name()).removeprefix("__torch__.")
        return _is_of(kind, full if "." in full else f"__main__.{full}")
    graph = getattr(sys.modules.get("torch.fx.graph_module"), "GraphModule", None)
    if graph is None or not isinstance(module, graph):
        return ""
    inside = next(filter(None, (_is_of(kind, full) for full in dict.fromkeys(_of_parts(module)))), "")
    name = type(module).__name__
    same = [known for known in _loaded() if known.__name__ == name and not issubclass(known, graph)]
    return inside or (name if same and all(issubclass(known, kind) for known in same) else "")


def _of_parts(module: nn.Module) -> Iterator[str]:
    """Full names of the classes whose modules the steps of a graph come from."""
    for node in cast(Any, module.graph).nodes:
        for _, made in (node.meta.get("nn_module_stack") or {}).values():
            yield made if isinstance(made, str) else f"{made.__module__}.{made.__qualname__}"


def _is_of(kind: type, full: str) -> str:
    """The bare name, if a class of this full name is of the kind. A class within a function has no place to look up."""
    where, _, name = full.rpartition(".")
    value = found(where, name)
    known = [value] if isinstance(value, type) else [one for one in _loaded() if full in _full_names(one)]
    return name if any(issubclass(one, kind) for one in known) else ""


def _full_names(kind: type) -> tuple[str, str]:
    return f"{kind.__module__}.{kind.__qualname__}", f"{kind.__module__}.{kind.__name__}"


def _loaded(kind: type = nn.Module) -> set[type]:
    """All loaded classes of modules."""
    return {kind}.union(*map(_loaded, kind.__subclasses__()))
