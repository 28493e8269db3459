"""Modules that ``torch.jit``, ``torch.fx`` or ``torch.export`` has made of others: of what? What they do cannot be seen."""

import re
import sys
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn

from gencls.core.keys.origins import found

__all__ = ["compiled_from"]

_NUMBER = re.compile(r"___torch_mangle_\d+\.")
"""In the name of a class that TorchScript has compiled more than once."""


def compiled_from(module: nn.Module, kind: type) -> str:
    """The name of a class of the given kind that a compiled module was made of; empty for any other module.

    TorchScript keeps the names of classes, and where they are from. ``torch.fx`` keeps those of all parts, and of the whole the
    bare name; that counts if all loaded classes of this name are of the kind. Parts of TorchScript's are modules of their own.
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
    """The full names of the classes of the modules that the steps of a graph come from."""
    for node in cast(Any, module.graph).nodes:
        for _, made in (node.meta.get("nn_module_stack") or {}).values():
            yield made if isinstance(made, str) else f"{made.__module__}.{made.__qualname__}"


def _is_of(kind: type, full: str) -> str:
    """The bare name, if a class with a full name is of the given kind. What is defined within functions lies nowhere."""
    where, _, name = full.rpartition(".")
    value = found(where, name)
    known = [value] if isinstance(value, type) else [one for one in _loaded() if full in _full_names(one)]
    return name if any(issubclass(one, kind) for one in known) else ""


def _full_names(kind: type) -> tuple[str, str]:
    return f"{kind.__module__}.{kind.__qualname__}", f"{kind.__module__}.{kind.__name__}"


def _loaded(kind: type = nn.Module) -> set[type]:
    """All classes of modules."""
    return {kind}.union(*map(_loaded, kind.__subclasses__()))
