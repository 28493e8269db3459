"""Golden vectors: outputs of published networks' own code on deterministic weights.

GENCLS_GOLDEN names a folder with fill.py and one folder per network; each of those has an index.json that lists its files of
arrays with manifest, seed, gain and configuration.
"""

import importlib.util
import json
import os
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOT = Path(os.environ.get("GENCLS_GOLDEN") or Path(__file__).parents[3] / "shared" / "golden")
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Vectors:
    """One entry of an index.json."""

    folder: Path
    entry: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.folder.name}/{self.entry['file']}"

    @property
    def config(self) -> Mapping[str, Any]:
        return self.entry["config"]

    @cached_property
    def names(self) -> list[str]:
        with np.load(self.folder / self.entry["file"]) as arrays:
            return list(arrays)

    @cached_property
    def arrays(self) -> dict[str, Tensor]:
        with np.load(self.folder / self.entry["file"]) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays}

    @cached_property
    def manifest(self) -> list[tuple[str, list[int], str]]:
        return json.loads((self.folder / self.entry["manifest"]).read_text())

    @cached_property
    def state(self) -> State:
        """The weights that the arrays were made with."""
        spec = importlib.util.spec_from_file_location("golden_fill", self.folder.parent / "fill.py")
        fill = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(fill)
        assert fill.self_check(), "this numpy draws other numbers than the golden files were made with"
        empty = {key: torch.zeros(shape, dtype=getattr(torch, dtype)) for key, shape, dtype in self.manifest}
        return fill.fill_(empty, self.entry["seed"], self.entry.get("gain", 1.0))


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
    """

    inputs: Container[str]
    outputs: Callable[[Vectors], Mapping[str, Tensor]]
    left_out: Mapping[str, str]
    tolerance: Callable[[str, Tensor], float]
    load: Callable[[State], object]
    unused: Callable[[State], tuple[str, ...]]
    optional: tuple[str, ...] = ()


def folders(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob("*/index.json"))


def entries(folder: Path) -> list[Vectors]:
    return [Vectors(folder, entry) for entry in json.loads((folder / "index.json").read_text())]
