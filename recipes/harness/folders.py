"""Where the recipes find weights, and the folders of their runs."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gencls.core import GenclsError
from gencls.core.files import atomically, read_object, read_sealed, write_sealed
from gencls.zoo.trained import WEIGHTS, weights_places

__all__ = ["Kept", "claim", "read_measured", "require_weights", "weights_path"]


def weights_path(name: str, weights: Path | None) -> Path:
    """Where the weights of a training lie, or should: as `gencls train --out` leaves them, or committed.

    Args:
        name: of the training.
        weights: folder of further weights.
    """
    places: list[Path] = [*(weights_places(name, weights) if weights else ()), WEIGHTS / f"{name}.safetensors"]
    return next((path for path in places if path.is_file()), places[-1])


def require_weights(paths: Mapping[str, Path], weights: Path | None, *, hint: str = "") -> None:
    """Check that weights are there.

    Args:
        paths: name of a training -> where its weights should lie.
        weights: folder of further weights.
        hint: what else the user can do.

    Raises:
        GenclsError: naming the commands that make what is missing; for a folder of weights that is not there.
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
    """Make the folder of a run, or check that it is this run's: tables join what several calls have computed.

    Args:
        out: the folder.
        settings: of the run, by name; anything that JSON can say.

    Raises:
        GenclsError: if it holds a run with other settings, naming the first of them.
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
    """What a call of a recipe has measured for further ones, see :func:`gencls.core.files.write_sealed`.

    Raises:
        GenclsError: if it is not what was written.
    """
    return read_sealed(path, "what a run has measured", "; delete it and run again")


@dataclass(frozen=True)
class Kept:
    """What is measured once and kept in a file; if that is of something else or was made by other code, it is measured again.

    Attributes:
        path: of the file; its folder is made if missing.
        key: of all that the measurement depends on, the code included, see :func:`gencls.core.key_of`; ``key`` in the file.
        measure: returns what goes into the file, anything that JSON can say.
    """

    path: Path
    key: Callable[[], str]
    measure: Callable[[], Mapping[str, Any]]

    @property
    def known(self) -> dict[str, Any] | None:
        """What the file holds; None without one.

        Raises:
            GenclsError: if it is not what was written.
        """
        return read_measured(self.path) if self.path.is_file() else None

    def get(self) -> dict[str, Any]:
        """What was measured, from the file or now.

        Raises:
            GenclsError: for a file that is not what was written.
        """
        key, known = self.key(), self.known
        if known and known.get("key") == key:
            return known
        if known:
            print(f"  {self.path}: measured of something else or by other code; measuring again", flush=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(self.path, {**self.measure(), "key": key})
        return read_measured(self.path)
