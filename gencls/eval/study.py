"""A study: a grid of cells (defense x attack x gradient mode x seed x shard) in a folder that survives anything.

Each finished cell is one file that appears atomically, named by its content key: samples, defense, attack, protocol. The same
command after a crash computes only what is missing; processes on one folder share the cells through file locks, which the
system releases when a process dies.
"""

import hashlib
import json
import os
import platform
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from gencls import __version__
from gencls.core import GenclsError, check_images, check_labels, key_of
from gencls.eval.attacks import Attack
from gencls.eval.cell import Protocol, check_defense, gradient_modes, run_cell
from gencls.eval.fingerprint import sample_hashes
from gencls.eval.judge import Decisions
from gencls.eval.study_folder import (
    CELLS,
    FORMAT,
    RESULTS,
    SAMPLES,
    SETTINGS,
    StudyCell,
    atomically,
    cell_path,
    read_records,
    read_study,
    report_study,
)
from gencls.eval.summary import summarize

if TYPE_CHECKING:
    import pandas

__all__ = ["Study"]

_OF_CODE = ("version", "attacks", "cells")
"""Settings that depend on the code: the text of an attack may, its key in ``attack_keys`` does not."""


class Study:
    """Defenses x attacks x gradient modes x seeds on one set of samples, recorded in a folder."""

    def __init__(
        self,
        folder: str | Path,
        *,
        defenses: Mapping[str, nn.Module],
        attacks: Mapping[str, Attack],
        images: Tensor,
        labels: Tensor,
        protocol: Protocol | None = None,
        modes: Sequence[str] | None = None,
        seeds: Sequence[int] = (0,),
        shard_size: int = 50,
        about: Mapping[str, str] | None = None,
    ) -> None:
        """Plan a study and claim its folder. Nothing is computed yet.

        Args:
            folder: made if missing; may hold the same study, begun before.
            defenses: name -> module in eval mode.
            attacks: name -> attack.
            images: (N, C, H, W) in [0, 1].
            labels: int64 (N,).
            protocol: draws and averaging; its seed is replaced by ``seeds``.
            modes: the gradient modes to attack through, of each defense those that it declares; None takes all.
            seeds: one run of everything per seed.
            shard_size: samples per cell; what a crash can lose, and the batch size. Results do not depend on it.
            about: what to say of the study in its report: data set, command, and so on.

        Raises:
            GenclsError: for bad images or labels, an empty grid, a defense that does not take these images, has too few
                classes, declares none of the modes or holds what a key cannot see into, or a folder that holds something else.
        """
        check_images(images)
        check_labels(labels, num_classes=None, count=len(images))
        if not defenses or not attacks or not seeds or shard_size < 1:
            raise GenclsError(
                "study: expected at least one defense, attack and seed and shard_size >= 1, "
                f"got {len(defenses)}, {len(attacks)}, {len(seeds)} and {shard_size}"
            )
        self.folder = Path(folder)
        self.defenses, self.attacks = dict(defenses), dict(attacks)
        self.images, self.labels = images, labels
        self.protocol = protocol or Protocol()
        self.modes = None if modes is None else tuple(modes)
        self.seeds, self.shard_size = tuple(seeds), shard_size
        self.hashes = sample_hashes(images, labels)
        self.about = {
            **(about or {}),
            "machine": f"{platform.machine()}, torch threads: {torch.get_num_threads()}, torch {torch.__version__}",
        }
        # Before anything is asked: a module may keep what it has computed once.
        self._defense_keys = {name: key_of(defense, f"defense {name}") for name, defense in self.defenses.items()}
        self._attack_keys = {name: key_of(attack, f"attack {name}") for name, attack in self.attacks.items()}
        self._code = key_of((run_cell, Protocol), "gencls").whole
        for defense in self.defenses.values():  # before the folder is claimed
            check_defense(defense, images[:1], labels)
        self._claim_folder()

    def cells(self) -> list[StudyCell]:
        """All cells, in the order in which they are run and reported."""
        shards = range(0, len(self.images), self.shard_size)
        return [
            StudyCell(defense, attack, mode, seed, shard, self._key(defense, attack, mode, seed, first))
            for defense, module in self.defenses.items()
            for attack, settings in self.attacks.items()
            for mode in gradient_modes(module, settings, self.modes)
            for seed in self.seeds
            for shard, first in enumerate(shards)
        ]

    def missing(self) -> list[StudyCell]:
        """The cells that are not finished."""
        return [cell for cell in self.cells() if not self._path(cell, "parquet").exists()]

    def run(self, *, progress: Callable[[Sequence[StudyCell]], Any] | None = None) -> "pandas.DataFrame":
        """Compute what is missing, then write ``results.csv``.

        Cells that another process works on are left to it, and waited for at the end.

        Args:
            progress: called with the missing cells; returns a context manager that yields a function to call with each
                finished cell. None shows nothing.

        Returns:
            The table, see :func:`gencls.eval.summarize`.
        """
        from filelock import FileLock, Timeout

        clean: dict[tuple[str, int, int], Decisions] = {}
        todo = self.missing()
        with (progress or _silent)(todo) as finished:
            for patient in (False, True):  # first what is free, then what others have not finished
                for cell in todo:
                    lock = FileLock(self._path(cell, "lock"), timeout=-1 if patient else 0)
                    with suppress(Timeout), lock:
                        if not self._path(cell, "parquet").exists():
                            self._compute(cell, clean)
                            finished(cell)
        for left in [*(self.folder / CELLS).glob("*.lock"), *(self.folder / CELLS).glob(".*")]:
            left.unlink(missing_ok=True)  # nobody writes cells any more: all are finished
        return self._write_results()

    def report(self) -> Path:
        """Write ``report.html`` and its tables and figures beside ``results.csv``; returns the path of the page."""
        return report_study(self.folder)

    def samples(self, cell: StudyCell) -> slice:
        """Which samples of the study a cell is about."""
        return slice(cell.shard * self.shard_size, min((cell.shard + 1) * self.shard_size, len(self.images)))

    def _compute(self, cell: StudyCell, clean: dict[tuple[str, int, int], Decisions]) -> None:
        defense, attack = self.defenses[cell.defense], self.attacks[cell.attack]
        protocol = replace(self.protocol, seed=cell.seed)
        known = (cell.defense, cell.seed, cell.shard)
        where = self.samples(cell)
        result = run_cell(
            defense,
            attack,
            cell.mode,
            self.images[where],
            self.labels[where],
            protocol,
            clean=clean.get(known),
            hashes=self.hashes[where],
        )
        clean[known] = result.clean
        frame = result.frame(defense=cell.defense, attack=cell.attack)
        images = save({"adversarial": result.verdict.images.contiguous()})
        self._publish(cell, "safetensors", lambda path: path.write_bytes(images))
        self._publish(cell, "parquet", lambda path: frame.to_parquet(path, index=False))  # last: it says "finished"

    def _publish(self, cell: StudyCell, kind: str, write: Callable[[Path], object]) -> None:
        """Write under a name of our own, then rename: a reader sees the whole file or none."""
        atomically(self._path(cell, kind), write)

    def _write_results(self) -> "pandas.DataFrame":
        table = summarize(read_records(self.folder))
        atomically(self.folder / RESULTS, lambda path: table.to_csv(path, index=False, float_format="%.10g"))
        return table

    def _path(self, cell: StudyCell, kind: str) -> Path:
        return cell_path(self.folder, cell, kind)

    def _key(self, defense: str, attack: str, mode: str, seed: int, first: int) -> str:
        content = (
            FORMAT,
            self._code,
            self._defense_keys[defense].whole,
            self._attack_keys[attack].whole,
            mode,
            _content(replace(self.protocol, seed=seed)),
            self.hashes[first : first + self.shard_size],
        )
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

    def _settings(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": __version__,
            "defenses": {name: key.content for name, key in self._defense_keys.items()},
            "attacks": {name: repr(attack) for name, attack in self.attacks.items()},
            "attack_keys": {name: key.content for name, key in self._attack_keys.items()},
            "protocol": {k: v for k, v in _content(self.protocol).items() if k != "seed"},
            "modes": None if self.modes is None else list(self.modes),
            "seeds": list(self.seeds),
            "shard_size": self.shard_size,
            "samples": hashlib.sha256("".join(self.hashes).encode()).hexdigest()[:32],
            "n": len(self.images),
            "cells": [asdict(cell) for cell in self.cells()],
        }

    def _claim_folder(self) -> None:
        path = self.folder / SETTINGS
        settings = self._settings()
        names = _names(self.folder) + [f"{CELLS}/{name}" for name in _names(self.folder / CELLS)]  # before looking for path
        if path.exists():
            self._compare(settings)
            return
        if self.folder.exists() and not self.folder.is_dir():
            raise GenclsError(f"{self.folder}: expected a folder, got a file")
        # Another process may be claiming the folder for the same study just now, or have been killed while it did.
        begun = (CELLS, SAMPLES, f".{SAMPLES}.", f".{SETTINGS}.")
        foreign = [name for name in names if name not in begun[:2] and not name.startswith(begun[2:])]
        if foreign:
            raise GenclsError(f"{self.folder}: expected an empty folder or this study, got a folder with {foreign[:5]}")
        (self.folder / CELLS).mkdir(parents=True, exist_ok=True)
        samples = save({"images": self.images.cpu().contiguous(), "labels": self.labels.cpu().contiguous()})
        atomically(self.folder / SAMPLES, lambda p: p.write_bytes(samples))
        own = path.with_name(f".{SETTINGS}.{uuid.uuid4().hex}")
        own.write_text(json.dumps({**settings, "about": self.about}, indent=2) + "\n")
        try:
            os.link(own, path)  # unlike a rename it fails if another process was faster
        except FileExistsError:
            self._compare(settings)
        finally:
            own.unlink()

    def _compare(self, settings: dict[str, Any]) -> None:
        found = read_study(self.folder)
        different = [key for key in settings if found.get(key) != settings[key] and key not in _OF_CODE]
        if different:
            if "attack_keys" in different and found.get("attacks") != settings["attacks"]:  # a reader understands these
                different[different.index("attack_keys")] = "attacks"
            details = "; ".join(f"{key}: expected {settings[key]}, got {found.get(key)}" for key in different)
            raise GenclsError(f"{self.folder} holds another study ({details}); choose another folder")
        if found["cells"] != settings["cells"]:  # other code makes other cells of the same study; the old files are not read
            now = json.dumps({**found, **{key: settings[key] for key in _OF_CODE}}, indent=2) + "\n"
            atomically(self.folder / SETTINGS, lambda path: path.write_text(now))


def _content(protocol: Protocol) -> dict[str, Any]:
    """What of a protocol results depend on: memory only decides about speed."""
    return {name: value for name, value in asdict(protocol).items() if name != "memory"}


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


@contextmanager
def _silent(cells: Sequence[StudyCell]) -> Iterator[Callable[[StudyCell], None]]:
    yield lambda cell: None
