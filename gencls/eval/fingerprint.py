"""Content keys: what a result belongs to."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["fingerprint", "sample_hashes"]


def sample_hashes(images: Tensor, labels: Tensor) -> list[str]:
    """One key per sample from its pixels (float32) and label; equal on every machine and for every order."""
    arrays = images.detach().cpu().float().contiguous().numpy()
    return [
        hashlib.blake2b(array.tobytes() + str((array.shape, int(label))).encode(), digest_size=12).hexdigest()
        for array, label in zip(arrays, labels, strict=True)
    ]


def fingerprint(module: nn.Module) -> str:
    """A key of a module: classes, ``extra_repr``, public plain attributes and tensors of all its parts.

    Plain are numbers, strings, and containers and dataclasses of them. Two modules that behave differently have different
    keys as long as what distinguishes them is found there, and not in a closure or a private attribute.
    """
    digest = hashlib.sha256()
    for name, part in module.named_modules():
        kind = f"{type(part).__module__}.{type(part).__qualname__}"
        digest.update(f"\n{name}: {kind}({part.extra_repr()}) {_plain(vars(part))}".encode())
        for key, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            digest.update(f"\n  {key} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:24]


def _plain(value: Any) -> str:
    """The settings among attributes: numbers, strings and containers and dataclasses of them, in a fixed order."""
    if value is None or isinstance(value, (bool, int, float, str, torch.Size, torch.dtype)):
        return repr(value)
    if isinstance(value, Mapping):
        items = ((str(k), _plain(v)) for k, v in value.items() if not (isinstance(k, str) and k.startswith("_")))
        return "{" + ", ".join(f"{k}={v}" for k, v in sorted(items) if v and k != "training") + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_plain(item) for item in _some(value)) + "]"
    if hasattr(value, "__dataclass_fields__"):
        return type(value).__qualname__ + _plain(vars(value))
    return ""


def _some(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if not isinstance(value, (nn.Module, Tensor))]
