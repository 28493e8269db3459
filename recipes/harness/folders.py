"""Folders of the recipes: where weights lie, and where runs keep their results."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gencls.core import GenclsError
from gencls.core.files import atomically, read_object, read_sealed, write_sealed
from gencls.zoo.checkpoints.places import WEIGHTS, weights_places

__all__ = ["Kept", "claim", "read_measured", "require_weights", "weights_path"]


def weights_path(name: str, weights: Path | None) -> Path:
    """Say where the weights of a training lie or should lie: in the folder of `gencls train --out`, or committed.

    Args:
        name: name of the training.
        weights: folder of further weights; None for the committed ones alone.
    """
    places: list[Path] = [*(weights_places(name, weights) if weights else ()), WEIGHTS / f"{name}.safetensors"]
    return next((path for path in places if path.is_file()), places[-1])


def require_weights(paths: Mapping[str, Path], weights: Path | None, *, hint: str = "") -> None:
    """Check that weights are there.

    Args:
        paths: name of a training -> where its weights should lie.
        weights: folder of further weights; None for the committed ones alone.
        hint: what else the user can do, for the message.

    Raises:
        GenclsError: if weights are missing, with the commands that make them; if the folder of weights is missing.
    """
    if weights and not weights.is_dir():
        raise GenclsError(f"--weights: expected a folder, got {weights}, which is none")
    missing = [name for name, path in paths.items() if not path.is_file()]
    if missing:
        commands = "\n".join(f"    gencls train {name} --data-root DATA --out FOLDER" for name in missing)
        raise GenclsError(
            f"expected the weights of {', '.join(missing)}, got no such files. Make them with\n{commands}\n"
            f"and pass --weights FOLDER{hint}"
        )


def claim(out: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder of a run, or check that it belongs to this run, since tables join the results of several calls.

    Args:
        out: the folder.
        settings: the run's settings by name; values that JSON can hold.

    Raises:
        GenclsError: if the folder holds a run with other settings; the message names the first of them.
    """
    path, text = out / "run.json", json.dumps(settings, indent=2)
    out.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        with suppress(FileExistsError):  # another call was faster
            atomically(path, text.encode(), overwrite=False)
    found, wanted = read_object(path, "the settings of a run"), json.loads(text)
    if found != wanted:
        other = next((name for name in wanted if found.get(name) != wanted[name]), "settings")
        raise GenclsError(f"{out}: expected a folder for this run, got one of another {other}; take another --out")


def read_measured(path: Path) -> dict[str, Any]:
    """Read what a call of a recipe has measured, a file of :func:`gencls.core.files.write_sealed`.

    Raises:
        GenclsError: if the file has changed since it was written.
    """
    return read_sealed(path, "what a run has measured", "; delete it and run again")


@dataclass(frozen=True)
class Kept:
    """A measurement that is made once and kept in a file. It is made again for another subject, or after a change of code.

    Attributes:
        path: the file; its folder is made if missing.
        key: gives the key of all that the measurement depends on, code included, see :func:`gencls.core.key_of`. The file
            holds it as ``key``.
        measure: makes the measurement: a dictionary that JSON can hold.
    """

    path: Path
    key: Callable[[], str]
    measure: Callable[[], Mapping[str, Any]]

    @property
    def known(self) -> dict[str, Any] | None:
        """The content of the file; None without a file.

        Raises:
            GenclsError: if the file has changed since it was written.
        """
        return read_measured(self.path) if self.path.is_file() else None

    @property
    def current(self) -> dict[str, Any] | None:
        """The content of the file, if it was measured of the same subject by the same code; else None. The key is computed.

        Raises:
            GenclsError: if the file has changed since it was written.
        """
        known = self.known
        return known if known and known.get("key") == self.key() else None

    def get(self) -> dict[str, Any]:
        """Read the measurement from the file, or make it now.

        Raises:
            GenclsError: if the file has changed since it was written.
        """
        key, known = self.key(), self.known
        if known and known.get("key") == key:
            return known
        if known:
            print(f"  {self.path}: measured of something else or by other code; measuring again", flush=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(self.path, {**self.measure(), "key": key})
        return read_measured(self.path)
