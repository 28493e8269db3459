"""Content keys of modules: what a result belongs to."""

import hashlib
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy
import torch
from torch import Tensor, nn

__all__ = ["fingerprint"]


def fingerprint(module: nn.Module) -> str:
    """A key of a module: classes, ``extra_repr``, public attributes, parameters and buffers of all its parts.

    Attributes count if they are numbers, strings, tensors, arrays, functions, or containers or dataclasses of these. Functions
    of torch and of this package count by name, as classes do; others with bytecode, which differs between versions of Python,
    defaults and what they close over. What is stored in other objects or in private attributes is not seen: a module that
    keeps settings there names them in ``extra_repr``.
    """
    digest = hashlib.sha256()
    for name, part in module.named_modules():
        kind = f"{type(part).__module__}.{type(part).__qualname__}"
        digest.update(f"\n{name}: {kind}({part.extra_repr()}) {_plain(vars(part))}".encode())
        for key, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            digest.update(f"\n  {key} {_plain(tensor)}".encode())
    return digest.hexdigest()[:24]


def _plain(value: Any) -> str:
    """A text that changes with the value, equal in every process; empty for objects that are not understood."""
    if value is None or isinstance(value, (bool, int, float, str, torch.Size, torch.dtype)):
        return repr(value)
    if isinstance(value, Tensor):
        return _plain(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()) + str((value.dtype, value.shape))
    if isinstance(value, (numpy.ndarray, numpy.generic)):
        return hashlib.sha256(value.tobytes()).hexdigest() + str((value.dtype, value.shape))
    if isinstance(value, Mapping):
        items = sorted((str(k), _plain(v)) for k, v in value.items() if not str(k).startswith("_") and k != "training")
        return "{" + ", ".join(f"{k}={v}" for k, v in items if v) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_plain, value)) + "]"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(_plain, value))) + "}"
    if isinstance(value, partial):
        return f"partial({_plain(value.func)}, {_plain(value.args)}, {_plain(value.keywords)})"
    if hasattr(value, "__dataclass_fields__"):
        return type(value).__qualname__ + _plain(vars(value))
    if hasattr(value, "__qualname__"):  # a function or a class
        code = None if _known(value) else getattr(value, "__code__", None)
        body = "" if code is None else hashlib.sha256(code.co_code + _constants(code)).hexdigest()
        return f"{value.__module__}.{value.__qualname__} {body}{_bound(value)}"
    return ""


def _known(function: Any) -> bool:
    """Whether a function, or class, of torch or of this package can be found under its name, which then says all."""
    name = str(function.__module__)
    found: Any = sys.modules.get(name)
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    return name.partition(".")[0] in ("torch", "gencls") and found is function  # not what only bears its name


def _bound(function: Any) -> str:
    """What a function has beside its code: defaults and the variables it closes over; empty without any."""
    cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    plain = [content for content in cells if not callable(content)]  # a function may close over itself
    parts = [getattr(function, "__defaults__", None), getattr(function, "__kwdefaults__", None), plain]
    return "".join(_plain(part) for part in parts if part)


def _constants(code: Any) -> bytes:
    """Constants and names of a function's code; of functions within it the same, since their repr holds an address."""
    return b"".join(
        _constants(item) + item.co_code if hasattr(item, "co_code") else repr(item).encode()
        for item in (*code.co_consts, code.co_names)
    )
