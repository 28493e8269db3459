"""A study: a grid of cells (defense x attack x gradient mode x seed x shard) in a folder that survives anything.

A cell is named by its content key: samples, defense, attack, protocol. It is finished when its mark appears, which carries the
checksums of its files. The same command after a crash computes what is missing, or damaged; processes on one folder share the
cells through file locks, which the system releases when a process dies.
"""

import hashlib
import json
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from warnings import warn
from weakref import WeakKeyDictionary

import torch
from safetensors.torch import save
from torch import nn

from gencls import __version__
from gencls.core import GenclsError, Key, checked, key_of
from gencls.core.files import atomically, held, remove_dead, remove_leftovers, write_sealed
from gencls.core.samples import samples_of
from gencls.eval.attacks import Attack
from gencls.eval.behaviour import Behaviour
from gencls.eval.cell import Protocol, gradient_modes, run_cell
from gencls.eval.cell_files import CELLS, StudyCell, cell_path, damage, is_marked, write_cell
from gencls.eval.fingerprint import sample_hashes
from gencls.eval.judge import Decisions
from gencls.eval.names import check_names
from gencls.eval.probe import Probe, probe_defense
from gencls.eval.study_folder import (
    FORMAT,
    RESULTS,
    SAMPLES,
    SETTINGS,
    finished,
    read_samples,
    read_study,
    records_of,
    report_study,
    write_results,
)

if TYPE_CHECKING:
    import pandas

__all__ = ["Study"]

_BEGUN = re.compile(rf"{CELLS}(/[0-9a-f]+\.(json|parquet|safetensors|lock))?|{SAMPLES}|({CELLS}/)?\..+~[0-9a-f]{{32}}\.part")
_OUTPUTS = (RESULTS, "results.tex", "curves.csv", "report.html", "figures")
"""Names that a study may have left in a folder without ``study.json``, the outputs only where there are cells."""
_SEEN: WeakKeyDictionary[nn.Module, dict[tuple[str, ...], Behaviour]] = WeakKeyDictionary()
"""Defense -> its key, and those of the images by which it was observed -> its behaviour."""

_PLANNED = {
    "defenses",
    "attacks",
    "images",
    "labels",
    "protocol",
    "modes",
    "seeds",
    "shard_size",
    "hashes",
    "probes",
    "defense_keys",
}
"""What the keys of the cells are made of, and the list of cells."""
_OF_CODE = ("version", "attacks", "cells")
"""Settings that depend on the code: the text of an attack may, its key in ``attack_keys`` does not."""


class Study:
    """Defenses x attacks x gradient modes x seeds on one set of samples, recorded in a folder.

    What was planned stays as it is: another choice is another study.
    """

    @checked
    def __init__(
        self,
        folder: str | Path,
        *,
        defenses: Mapping[str, nn.Module],
        attacks: Mapping[str, Attack],
        images: object,
        labels: object = None,
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
            images: (N, C, H, W) in [0, 1], or any source of samples, see :mod:`gencls.core.samples`.
            labels: int64 (N,); None where the source has them.
            protocol: draws and averaging; its seed is replaced by ``seeds``.
            modes: the gradient modes to attack through, of each defense those that it declares; None takes all.
            seeds: one run of everything per seed.
            shard_size: samples per cell; what a crash can lose, and the batch size. Results do not depend on it.
            about: what to say of the study in its report: data set, command, and so on.

        Raises:
            GenclsError: for bad images or labels, an empty grid, repeated seeds, a defense that does not take these images, has
                too few classes, declares none of the modes or hides some, a ball that no image can leave, a name that tables
                have for something else, something that a key cannot see into, or a folder that holds something else.
        """
        self.images, self.labels = samples_of(images, labels)
        if not defenses or not attacks or not seeds or shard_size < 1:
            raise GenclsError(
                "study: expected at least one defense, attack and seed and shard_size >= 1, "
                f"got {len(defenses)}, {len(attacks)}, {len(seeds)} and {shard_size}"
            )
        if len(set(seeds)) < len(seeds):  # each sample would count as often as a seed is named
            raise GenclsError(f"study: expected different seeds, got {', '.join(map(str, seeds))}")
        check_names([*defenses, *attacks], "study", about=about)
        for settings in attacks.values():
            settings.threat.check_reach(self.images)
        self.folder = Path(folder)
        self.defenses, self.attacks = MappingProxyType(dict(defenses)), MappingProxyType(dict(attacks))
        self.protocol = protocol or Protocol()
        self.modes = None if modes is None else tuple(modes)
        self.seeds, self.shard_size = tuple(seeds), shard_size
        self.hashes = sample_hashes(self.images, self.labels)
        self.about = {
            **(about or {}),
            "machine": f"{platform.machine()}, torch threads: {torch.get_num_threads()}, torch {torch.__version__}",
        }
        # Before anything is asked: a module may keep what it has computed once.
        self.defense_keys = {name: key_of(defense, f"defense {name}") for name, defense in self.defenses.items()}
        self._attack_keys = self._keys_of_attacks()
        self._attacks_now = self._attack_keys
        self._code = key_of((run_cell, Protocol), "gencls").whole
        # Before the folder is claimed.
        self.probes = {name: self._probe(name) for name in self.defenses}
        self._claim_folder()

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, but none that the plan is made of.

        Raises:
            GenclsError: for such a one.
        """
        if name in _PLANNED and name in vars(self):
            raise GenclsError(f"study: expected the {name} that it was planned with, got others; plan another study")
        super().__setattr__(name, value)

    def _probe(self, name: str) -> Probe:
        """What is known of a defense; further studies of the same one do not look again while nothing in it has changed."""
        known, seen = (self.defense_keys[name].whole, *self.hashes[:8]), _SEEN.setdefault(self.defenses[name], {})
        gradients = any(attack.uses_gradients for attack in self.attacks.values())
        probe = probe_defense(self.defenses[name], self.images, self.labels, behaviour=seen.get(known), gradients=gradients)
        seen[known] = probe.behaviour
        return probe

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
        """The cells that are not finished, or whose files are not what was written."""
        return [cell for cell in self.cells() if not is_marked(self.folder, cell) or damage(self.folder, cell)]

    def run(self, *, progress: Callable[[Sequence[StudyCell]], Any] | None = None) -> "pandas.DataFrame":
        """Compute what is missing or damaged, then write ``results.csv``. A warning names each damaged file.

        Cells that another process works on are left to it, and waited for at the end.

        Args:
            progress: called with the missing cells; returns a context manager that yields a function to call with each
                finished cell. None shows nothing.

        Returns:
            The table, see :func:`gencls.eval.summarize`.

        Raises:
            GenclsError: if cells are missing or damaged again at the end, no table is written then; if images, labels or what
                an attack holds have changed since the study was planned, nothing is computed then. A defense that has changed
                is found after its first cell, which is not kept.
        """
        self._check_plan()
        clean: dict[tuple[str, int, int], Decisions] = {}
        self._mend_samples()
        todo = self.missing()
        try:
            with (progress or _silent)(todo) as tell:
                for patient in (False, True):  # first what is free, then what others have not finished
                    others = []
                    for cell in todo:
                        with held(cell_path(self.folder, cell, "lock"), wait=patient) as mine:
                            if not mine:
                                others.append(cell)
                            elif self._is_open(cell):
                                self._compute(cell, clean)
                                tell(cell)
                    todo = others
        finally:  # what an attack holds, for instance a source model, may keep what it has computed once
            self._attacks_now = self._keys_of_attacks()
        remove_leftovers(self.folder)
        remove_leftovers(self.folder / CELLS)
        remove_dead((self.folder / CELLS).glob("*.lock"))
        return self._write_results()

    def report(self) -> Path:
        """Write ``report.html`` and its tables and figures beside ``results.csv``; returns the path of the page."""
        return report_study(self.folder)

    def samples(self, cell: StudyCell) -> slice:
        """Which samples of the study a cell is about."""
        return slice(cell.shard * self.shard_size, min((cell.shard + 1) * self.shard_size, len(self.images)))

    def _keys_of_attacks(self) -> dict[str, Key]:
        return {name: key_of(attack, f"attack {name}") for name, attack in self.attacks.items()}

    def _check_plan(self) -> None:
        """The tensors and models are the caller's, who may have used them for something else since they were planned with."""
        if sample_hashes(self.images, self.labels) != self.hashes:
            raise GenclsError("study: expected the samples that the study was planned with, got others")
        now = self._keys_of_attacks()
        if changed := [name for name in now if now[name] != self._attacks_now[name]]:
            raise GenclsError(f"study: expected the attacks that the study was planned with, got others: {', '.join(changed)}")

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
            probe=self.probes[cell.defense],
        )
        clean[known] = result.clean
        write_cell(
            self.folder, cell, result.frame(defense=cell.defense, attack=cell.attack), result.verdict.images.contiguous()
        )

    def _is_open(self, cell: StudyCell) -> bool:
        """Whether a cell that we hold is to be computed; if it is damaged it is named and loses its mark."""
        if is_marked(self.folder, cell):
            found = damage(self.folder, cell)
            if found is None:
                return False
            warn(f"{found}; computing the cell again", stacklevel=3)
            cell_path(self.folder, cell, "json").unlink()
        return True

    def _mend_samples(self) -> None:
        try:
            read_samples(self.folder)
        except GenclsError as error:
            warn(f"{error}; writing them again", stacklevel=3)
            self._write_samples()

    def _write_samples(self) -> None:
        content = save({"images": self.images.cpu().contiguous(), "labels": self.labels.cpu().contiguous()})
        atomically(self.folder / SAMPLES, lambda part: part.write_bytes(content))

    def _write_results(self) -> "pandas.DataFrame":
        """The table of what is finished: of all cells, unless a subclass leaves some for later."""
        cells, settings = self.cells(), read_study(self.folder)
        done = finished(self.folder, settings, cells)
        if len(done) < len(cells):
            if gone := self.missing():
                raise GenclsError(
                    f"{self.folder}: expected all cells finished by now, got {len(gone)} missing; run the study again"
                )
            done = finished(self.folder, settings, cells)  # again: another process may have finished some in between
        return write_results(self.folder, records_of(self.folder, settings, done, cells))

    def _key(self, defense: str, attack: str, mode: str, seed: int, first: int) -> str:
        content = (
            FORMAT,
            self._code,
            self.defense_keys[defense].whole,
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
            "defenses": {name: key.content for name, key in self.defense_keys.items()},
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
        # Another process may be claiming the folder for the same study just now, or was killed while it did; or study.json was
        # damaged and removed: the cells, which know their content, are kept.
        own = _OUTPUTS if CELLS in names else ()
        if foreign := [name for name in names if name not in own and not _BEGUN.fullmatch(name)]:
            raise GenclsError(f"{self.folder}: expected an empty folder or this study, got a folder with {foreign[:5]}")
        (self.folder / CELLS).mkdir(parents=True, exist_ok=True)
        self._write_samples()
        try:
            write_sealed(path, {**settings, "about": self.about, "sample_hashes": self.hashes}, overwrite=False)
        except FileExistsError:
            self._compare(settings)

    def _compare(self, settings: dict[str, Any]) -> None:
        found = read_study(self.folder)
        different = [key for key in settings if found.get(key) != settings[key] and key not in _OF_CODE]
        if different:
            if "attack_keys" in different and found.get("attacks") != settings["attacks"]:  # a reader understands these
                different[different.index("attack_keys")] = "attacks"
            details = "; ".join(f"{key}: expected {settings[key]}, got {found.get(key)}" for key in different)
            raise GenclsError(f"{self.folder} holds another study ({details}); choose another folder")
        if found["cells"] != settings["cells"]:  # other code makes other cells of the same study; the old files are not read
            write_sealed(self.folder / SETTINGS, {**found, **{key: settings[key] for key in _OF_CODE}})


def _content(protocol: Protocol) -> dict[str, Any]:
    """What of a protocol results depend on: memory only decides about speed."""
    return {name: value for name, value in asdict(protocol).items() if name != "memory"}


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


@contextmanager
def _silent(cells: Sequence[StudyCell]) -> Iterator[Callable[[StudyCell], None]]:
    yield lambda cell: None
