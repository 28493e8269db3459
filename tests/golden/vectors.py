"""Golden vectors: outputs of published networks' own code on deterministic weights.

GENCLS_GOLDEN names a folder with fill.py and one folder per network; each of those has an index.json that lists its files of
arrays with manifest, seed, gain and configuration.
"""

import importlib.util
import json
import math
import os
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOT = Path(os.environ.get("GENCLS_GOLDEN") or Path(__file__).parents[3] / "shared" / "golden")
State = Mapping[str, Tensor]
Initial = Callable[[str, Tensor], Tensor]
"""(key, zeros of its shape) -> what stands there before the weights are filled in; fill.py keeps what no weight replaces."""


def nothing_fixed(key: str, zeros: Tensor) -> Tensor:
    return zeros


@dataclass(frozen=True)
class Vectors:
    """One entry of an index.json, or one network of an entry whose arrays are named ``network.array``."""

    folder: Path
    entry: Mapping[str, Any]
    network: str = ""
    initial: Initial = nothing_fixed

    @property
    def name(self) -> str:
        return f"{self.folder.name}/{self.entry['file']}" + (f":{self.network}" if self.network else "")

    @property
    def config(self) -> Mapping[str, Any]:
        return self.entry["config"]

    @cached_property
    def names(self) -> list[str]:
        with np.load(self.folder / self.entry["file"]) as arrays:
            return [name.removeprefix(self._prefix) for name in arrays if name.startswith(self._prefix)]

    @property
    def _prefix(self) -> str:
        return f"{self.network}." if self.network else ""

    @cached_property
    def arrays(self) -> dict[str, Tensor]:
        with np.load(self.folder / self.entry["file"]) as arrays:
            return {name: torch.from_numpy(arrays[self._prefix + name]) for name in self.names}

    @cached_property
    def shared(self) -> dict[str, Tensor]:
        """The arrays of the file that belong to all its networks."""
        with np.load(self.folder / self.entry["file"]) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays if "." not in name}

    @cached_property
    def manifest(self) -> list[tuple[str, list[int], str]]:
        return json.loads((self.folder / self.entry["manifest"]).read_text())

    @cached_property
    def state(self) -> State:
        """The weights that the arrays were made with."""
        return filled(self.folder / self.entry["manifest"], self.entry["seed"], self.entry.get("gain", 1.0), self.initial)

    @property
    def parameters(self) -> int:
        """How many numbers the weights have."""
        return sum(math.prod(shape) for _, shape, _ in self.manifest)


@lru_cache(maxsize=2)  # for files of arrays that share large weights
def filled(manifest: Path, seed: int, gain: float, initial: Initial) -> State:
    spec = importlib.util.spec_from_file_location("golden_fill", manifest.parents[1] / "fill.py")
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    assert fill.self_check(), "this numpy draws other numbers than the golden files were made with"
    rows = json.loads(manifest.read_text())
    zeros = {key: torch.zeros(shape, dtype=getattr(torch, dtype)) for key, shape, dtype in rows}
    return fill.fill_({key: initial(key, tensor) for key, tensor in zeros.items()}, seed, gain)


@dataclass(frozen=True)
class Family:
    """How this repository makes the arrays of one folder again.

    Attributes:
        inputs: names of arrays that go in.
        outputs: the other arrays by name, computed by our network from config, weights and inputs.
        left_out: end of an array's name -> why ours has no such output.
        tolerance: name and expected array -> the largest absolute difference.
        load: our loader, state -> network; it raises GenclsError for a state that does not fit.
        unused: our loader's account of the keys that it does not use; it raises GenclsError for unknown keys.
        optional: ends of keys that may be missing.
        initial: gives the tensors that the architecture fixes, as filters and masks are.
    """

    inputs: Container[str]
    outputs: Callable[[Vectors], Mapping[str, Tensor]]
    left_out: Mapping[str, str]
    tolerance: Callable[[str, Tensor], float]
    load: Callable[[State], object]
    unused: Callable[[State], tuple[str, ...]]
    optional: tuple[str, ...] = ()
    initial: Initial = nothing_fixed


def folders(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob("*/index.json"))


def entries(folder: Path, family: Family) -> list[Vectors]:
    index = json.loads((folder / "index.json").read_text())
    return [replace(vectors, initial=family.initial) for entry in index for vectors in _networks(folder, entry)]


def _networks(folder: Path, entry: Mapping[str, Any]) -> list[Vectors]:
    """One for each manifest: an entry has one, or several by the name of the network, then perhaps several gains."""
    if isinstance(entry["manifest"], str):
        return [Vectors(folder, entry)]
    gain = entry.get("gain", 1.0)
    gains = gain if isinstance(gain, dict) else dict.fromkeys(entry["manifest"], gain)
    return [
        Vectors(folder, {**entry, "manifest": manifest, "gain": gains[network]}, network)
        for network, manifest in entry["manifest"].items()
    ]
