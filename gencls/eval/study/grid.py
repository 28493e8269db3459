"""A study: a grid of cells (defense x attack x gradient mode x seed x shard) in a folder that survives anything, and grows.

The content key of a cell is its name: samples, defense, attack, protocol. A cell is finished when its mark appears, with the
checksums of its files. After a crash the same command computes missing and damaged cells. Processes on one folder share the
cells through file locks, which the system releases when a process dies. Another command adds its cells to the folder, see
:mod:`gencls.eval.study.growth`.
"""

import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from warnings import warn
from weakref import WeakKeyDictionary

import torch
from torch import nn

from gencls.core import GenclsError, Key, checked, key_of
from gencls.core.files import held, remove_dead, remove_leftovers
from gencls.core.foreign import as_samples
from gencls.core.images import sample_hashes
from gencls.core.samples import samples_of
from gencls.eval.attacks import Attack
from gencls.eval.attacks.parts.base import check_attacks
from gencls.eval.judgement.gradient_modes import gradient_modes
from gencls.eval.judgement.judge import Decisions
from gencls.eval.judgement.runner import Runner
from gencls.eval.judgement.trial import Protocol
from gencls.eval.measures.names import check_names
from gencls.eval.scores.behaviour import Behaviour
from gencls.eval.scores.probe import Probe, probe_defense
from gencls.eval.study.files import CELLS, StudyCell, cell_path, damage, is_marked, write_cell, write_samples
from gencls.eval.study.folder import finished, records_of, write_results
from gencls.eval.study.growth import Order, claim, without_samples
from gencls.eval.study.plan import Plan, check_grid, relevant
from gencls.eval.study.settings import FORMAT, planned, read_study
from gencls.eval.threats.answers import check_threat

if TYPE_CHECKING:
    import pandas

_SEEN: WeakKeyDictionary[nn.Module, dict[tuple[str, ...], Behaviour]] = WeakKeyDictionary()
"""Behaviour of each defense, by its key and the keys of the images by which it was observed."""

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
"""The settings that the keys of the cells are made of, and the list of cells."""


class Grid:
    """Defenses x attacks x gradient modes x seeds on one set of samples, recorded in a folder.

    One call asks for this grid. The folder keeps rows of other calls, and the table and the report show them. A plan does not
    change, and rows of the folder keep their meaning. Another meaning is another study.
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
        """Plan a study and claim its folder, without computing anything.

        Args:
            folder: folder of the study, made if missing. It may hold rows of other calls, finished or not.
            defenses: modules in eval mode, by name.
            attacks: attacks, by name.
            images: (N, C, H, W) in [0, 1], or any source of samples, see :mod:`gencls.core.samples`; all images of the folder,
                and perhaps more.
            labels: true classes, int64 (N,); None if the source has them.
            protocol: draws and averaging; ``seeds`` replace its seed.
            modes: gradient modes to attack through; each defense takes those that it declares. None takes all.
            seeds: seeds of the random streams; everything runs once per seed.
            shard_size: samples per new cell, and the batch size. A crash loses at most one cell. Only with streams of the
                device results depend on it.
            about: facts for the report, such as data set and command; it lists a ``warning`` among its warnings.

        Raises:
            GenclsError: for bad samples, an empty grid, repeated seeds; for a defense that does not take the images, has too
                few classes, declares none of the modes or hides some; for a threat that does not answer as one, a name that
                tables reserve, an object without a key; for a folder of others, or whose rows would change their meaning.
        """
        self.images, self.labels = samples_of(images) if labels is None else as_samples(images, labels)
        check_grid(defenses, attacks, seeds, shard_size)
        check_names([*defenses, *attacks], "study", about=about)
        check_attacks(attacks, "study")
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
        # Before the first question to a module, because a module may keep results.
        self._plan = Plan.of(self.defenses, self.attacks, self.hashes, shard_size, self.protocol, self.about)
        self.defense_keys = {name: key for name, (_, key) in self._plan.defenses.items()}
        self._attack_keys = {name: key_of(attack, f"attack {name}") for name, attack in self.attacks.items()}
        self._runners: dict[tuple[str, str], Runner] = {}
        # Before the folder is claimed.
        for attack in self.attacks.values():
            check_threat(attack.threat, self.images)
        self.probes = {name: self._probe(name) for name in self.defenses}
        self._now = self._keys()
        self._claim_folder()

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute that is not part of the plan.

        Raises:
            GenclsError: for an attribute of the plan.
        """
        if name in _PLANNED and name in vars(self):
            raise GenclsError(f"study: expected the {name} that it was planned with, got others; plan another study")
        super().__setattr__(name, value)

    def _probe(self, name: str) -> Probe:
        """The probe of a defense; further studies of the same defense do not observe it again unless it has changed."""
        known, seen = (self.defense_keys[name].whole, *self.hashes[:8]), _SEEN.setdefault(self.defenses[name], {})
        gradients = any(attack.uses_gradients for attack in self.attacks.values())
        probe = probe_defense(self.defenses[name], self.images, self.labels, behaviour=seen.get(known), gradients=gradients)
        seen[known] = probe.behaviour
        return probe

    def cells(self) -> list[StudyCell]:
        """The cells that this call asks for, in the order in which they run."""
        return [
            self._cell(defense, attack, mode, seed, shard)
            for defense, module in self.defenses.items()
            for attack, settings in self.attacks.items()
            for mode in gradient_modes(module, settings, self.modes)
            for seed in self.seeds
            for shard in range(len(self._order.shards))
        ]

    def missing(self) -> list[StudyCell]:
        """The unfinished or damaged ones among :meth:`cells`."""
        return [cell for cell in self.cells() if not is_marked(self.folder, cell) or damage(self.folder, cell)]

    def run(self, *, progress: Callable[[Sequence[StudyCell]], Any] | None = None) -> "pandas.DataFrame":
        """Compute missing and damaged cells, then write ``results.csv``. A warning names each damaged file.

        Cells of another process are left to it. At the end this process waits for them.

        Args:
            progress: called with the missing cells; returns a context manager that yields a function to call with each
                finished cell. None shows nothing.

        Returns:
            The table of all rows of the folder, see :func:`gencls.eval.summarize`. If cells of other calls are missing, the
            ``warnings`` of every row say that it is partial.

        Raises:
            GenclsError: if cells are missing or damaged again at the end, no table is written then; if images, labels, a
                defense or what an attack holds have changed since the study was planned, nothing is computed then.
        """
        self._check_plan()
        clean: dict[tuple[str, int, int], Decisions] = {}
        self._write_samples(without_samples(self.folder, self._plan))
        todo = self.missing()
        try:
            with nullcontext(lambda cell: None) if progress is None else progress(todo) as tell:
                for patient in (False, True):  # first the free cells, then those that others have not finished
                    others = []
                    for cell in todo:
                        with held(cell_path(self.folder, cell, "lock"), wait=patient) as mine:
                            if not mine:
                                others.append(cell)
                            elif self._is_open(cell):
                                self._compute(cell, clean)
                                tell(cell)
                    todo = others
        finally:
            self._now = self._keys()
        remove_leftovers(self.folder)
        remove_leftovers(self.folder / CELLS)
        remove_dead((self.folder / CELLS).glob("*.lock"))
        return self._write_results()

    def runner(self, cell: StudyCell) -> Runner:
        """The runner of attacks on the cell's defense in its gradient mode; cells of the same two share it."""
        known = cell.defense, cell.mode
        if known not in self._runners:
            self._runners[known] = Runner(self.defenses[cell.defense], cell.mode, self.protocol, self.probes[cell.defense])
        return self._runners[known]

    def samples(self, cell: StudyCell) -> list[int]:
        """The places of a cell's samples among ``images``."""
        return self._order.places[slice(*self._order.shards[cell.shard])]

    def _keys(self) -> dict[tuple[str, str], Key]:
        """Keys of everything that may change in place. Asking a defense, or the contents of an attack, may change them too."""
        held: dict[str, Mapping[str, object]] = {"defense": self.defenses, "attack": self.attacks}
        return {(kind, name): key_of(it, f"{kind} {name}") for kind, its in held.items() for name, it in its.items()}

    def _check_plan(self) -> None:
        """Check that images, labels, defenses and attacks are as planned, because the caller may have changed them since."""
        if sample_hashes(self.images, self.labels) != self.hashes:
            raise GenclsError("study: expected the samples that the study was planned with, got others")
        now = self._keys()
        for kind in ("defense", "attack"):
            if changed := [name for part, name in now if part == kind and now[part, name] != self._now[part, name]]:
                raise GenclsError(
                    f"study: expected the {kind}s that the study was planned with, got others: {', '.join(changed)}"
                )

    def _compute(self, cell: StudyCell, clean: dict[tuple[str, int, int], Decisions]) -> None:
        known = (cell.defense, cell.seed, cell.shard)
        where = self.samples(cell)
        result = self.runner(cell).run(
            self.attacks[cell.attack],
            self.images[where],
            self.labels[where],
            clean=clean.get(known),
            hashes=[self.hashes[place] for place in where],
            seed=cell.seed,
        )
        clean[known] = result.clean
        write_cell(self.folder, cell, result.frame(defense=cell.defense, attack=cell.attack), result.verdict.images)

    def _is_open(self, cell: StudyCell) -> bool:
        """Whether to compute a cell that we hold; a warning names a damaged cell, which loses its mark."""
        if is_marked(self.folder, cell):
            found = damage(self.folder, cell)
            if found is None:
                return False
            warn(f"{found}; computing the cell again", stacklevel=3)
            cell_path(self.folder, cell, "json").unlink()
        return True

    def _write_results(self) -> "pandas.DataFrame":
        """The table of the finished cells: all of this call, unless a subclass leaves some for later."""
        mine = set(self.cells())
        if not mine <= set(planned(read_study(self.folder))):
            self._claim_folder()  # without locks another process may have written study.json over ours
        settings = read_study(self.folder)
        cells = planned(settings)
        done = finished(self.folder, settings, cells)
        if not mine <= set(done):
            if gone := self.missing():
                raise GenclsError(
                    f"{self.folder}: expected all cells finished by now, got {len(gone)} missing; run the study again"
                )
            done = finished(self.folder, settings, cells)  # again, because another process may have finished some since
        return write_results(self.folder, records_of(self.folder, settings, done, cells))

    def _cell(self, defense: str, attack: str, mode: str, seed: int, shard: int) -> StudyCell:
        code, of_defense, of_attack = self._plan.code, self.defense_keys[defense].whole, self._attack_keys[attack].whole
        protocol, samples = replace(self.protocol, seed=seed), self._order.samples[slice(*self._order.shards[shard])]
        epsilon = self.attacks[attack].threat.epsilon  # beside the attack's key, which may be one that its author chose
        content = (FORMAT, code, of_defense, of_attack, epsilon, mode, relevant(protocol), samples)
        key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
        return StudyCell(defense, attack, mode, seed, shard, key, epsilon, self._plan.made_by(defense, attack))

    def _claim_folder(self) -> None:
        with claim(self.folder, self._plan, self._take) as settings:
            self._write_samples(settings)

    def _write_samples(self, settings: Mapping[str, Any] | None) -> None:
        """Write the samples that the settings list, if any."""
        if settings is not None:
            write_samples(self.folder, settings, self.images, self.labels, self.hashes)

    def _take(self, order: Order) -> list[StudyCell]:
        """The cells once the samples have an order."""
        self._order = order
        return self.cells()
