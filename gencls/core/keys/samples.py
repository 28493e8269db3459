"""Content keys of samples, and where a module lies."""

import hashlib
from collections import Counter

import torch
from torch import Tensor, nn

__all__ = ["device_of", "sample_hashes"]


def sample_hashes(images: Tensor, labels: Tensor, seen: Counter[str] | None = None) -> list[str]:
    """One key per sample from its pixels (float32) and label; equal on every machine and for every order.

    Repeated samples are told apart by a number at the end: ``seen`` counts how often a sample came before, and is counted on.
    """
    seen = Counter() if seen is None else seen
    arrays = images.detach().cpu().float().contiguous().numpy()
    keys = []
    for array, label in zip(arrays, labels, strict=True):
        key = hashlib.blake2b(array.tobytes() + str((array.shape, int(label))).encode(), digest_size=12).hexdigest()
        keys.append(f"{key}-{seen[key]}" if seen[key] else key)
        seen[key] += 1
    return keys


def device_of(module: nn.Module) -> torch.device | None:
    """Where a module's parameters or buffers lie; None for a module without any."""
    return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), None)
