"""A call of a study joins its folder.

A folder holds rows (defense, attack, epsilon, gradient mode, seed) x shards of one ordered list of samples. A call may add rows
and samples. New samples get new shards. A call may not change the meaning of the folder's rows: that is another study.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from warnings import warn

from safetensors import SafetensorError, safe_open

from gencls import __version__
from gencls.core import GenclsError
from gencls.core.files import held, write_sealed
from gencls.core.images import sample_hashes
from gencls.eval.judgement.gradient_modes import own_meanings
from gencls.eval.measures.names import check_names
from gencls.eval.measures.records import same_size
from gencls.eval.study.files import CELLS, SAMPLES, StudyCell, read_tensors
from gencls.eval.study.folder import RESULTS, read_samples
from gencls.eval.study.plan import Plan, described, differences, other_protocol
from gencls.eval.study.settings import FORMAT, MEANINGS, SETTINGS, planned, read_study

_LOCK = "study.lock"
"""File lock of every process that changes study.json."""

_BEGUN = re.compile(
    rf"{CELLS}(/[0-9a-f]+\.(json|parquet|safetensors|lock))?|{SAMPLES}|{_LOCK}|({CELLS}/)?\..+~[0-9a-f]{{32}}\.part", re.DOTALL
)
_OUTPUTS = (RESULTS, "results.tex", "curves.csv", "report.html", "figures")
"""Names that a study may have left in a folder without ``study.json``; the outputs only beside cells."""


class Order(NamedTuple):
    """The samples in the order of the folder.

    Attributes:
        samples: keys of the samples.
        places: place of each sample among the samples of the call.
        shards: bounds of the shards, one after the other.
    """

    samples: list[str]
    places: list[int]
    shards: list[list[int]]


@contextmanager
def claim(folder: Path, plan: Plan, cells: Callable[[Order], Sequence[StudyCell]]) -> Iterator[dict[str, Any] | None]:
    """Join a folder: make it if it is missing, and add the rows and samples of a call that it lacks.

    ``cells`` takes the order of the samples and returns the cells of the call: its rows x all shards.

    Yields:
        The settings with what the call adds; None if it adds nothing. The caller writes the samples that they list. The
        settings are written after the block.

    Raises:
        GenclsError: if the folder holds other files, samples that the call lacks, or rows whose meaning this plan would change;
            the message names the settings that differ.
    """
    _check_free(folder)
    if _joined(folder, plan, cells) is None:  # the usual case; errors come here, before anything is made
        yield None
        return
    (folder / CELLS).mkdir(parents=True, exist_ok=True)
    with held(folder / _LOCK):  # another process may join at the same time
        settings = _joined(folder, plan, cells)
        yield settings
        if settings is not None:
            write_sealed(folder / SETTINGS, settings)


def without_samples(folder: Path, plan: Plan) -> dict[str, Any] | None:
    """The settings of a folder whose samples are damaged; a warning names the damage. None if they are not damaged.

    Raises:
        GenclsError: if another call has added samples that this one lacks.
    """
    try:
        read_samples(folder)
    except GenclsError as error:
        settings = read_study(folder)
        _check_samples(folder, settings, plan.hashes)
        warn(f"{error}; writing them again", stacklevel=4)
        return settings
    return None


def _joined(folder: Path, plan: Plan, cells: Callable[[Order], Sequence[StudyCell]]) -> dict[str, Any] | None:
    """The settings of a folder once a call has joined it; None if it adds nothing."""
    found, hashes = read_study(folder) if (folder / SETTINGS).exists() else None, plan.hashes
    if found:
        _check_rows(folder, found, plan)
        _check_samples(folder, found, hashes)
    order = _grown(found or _recovered(folder / SAMPLES, hashes), hashes, plan.shard_size)
    settings = _merged(found, plan, cells(order), order)
    return None if settings == found else settings


def _check_free(folder: Path) -> None:
    """Check that a folder holds a study, the remains of one, or nothing.

    Remains have three causes: another process is claiming the folder now, or was killed while claiming it, or somebody removed
    a damaged study.json. The cells know their content, so they are kept.

    Raises:
        GenclsError: for other files, or a file in place of the folder.
    """
    names = _names(folder) + [f"{CELLS}/{name}" for name in _names(folder / CELLS)]  # before looking for study.json
    if (folder / SETTINGS).exists():
        return
    if folder.exists() and not folder.is_dir():
        raise GenclsError(f"{folder}: expected a folder, got a file")
    own = _OUTPUTS if CELLS in names else ()
    if foreign := [name for name in names if name not in own and not _BEGUN.fullmatch(name)]:
        raise GenclsError(f"{folder}: expected an empty folder or this study, got a folder with {foreign[:5]}")


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def _recovered(path: Path, hashes: Sequence[str]) -> dict[str, Any] | None:
    """Samples and shards of a folder without study.json, from its samples.safetensors; None if that does not fit."""
    try:
        tensors = read_tensors(path, "images", "labels")
        with safe_open(path, "pt") as file:
            shards = json.loads(file.metadata()["shards"])
        there = sample_hashes(tensors["images"], tensors["labels"])
        bounds = [0, *(stop for _, stop in shards)]
    except (GenclsError, SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None
    whole = shards == [[*pair] for pair in pairwise(bounds)] and bounds[-1] == len(there)
    return {"sample_hashes": there, "shards": shards} if whole and set(there) <= set(hashes) else None


def _grown(found: Mapping[str, Any] | None, hashes: Sequence[str], shard_size: int) -> Order:
    """The samples and shards of a folder after a call has added its own."""
    samples, shards = (list(found["sample_hashes"]), list(found["shards"])) if found else ([], [])
    known, place = set(samples), {key: place for place, key in enumerate(hashes)}
    first = len(samples)
    samples += [key for key in hashes if key not in known]
    while first < len(samples):
        shards.append([first, min(first + shard_size, len(samples))])
        first += shard_size
    return Order(samples, [place[key] for key in samples], shards)


def _check_rows(folder: Path, found: Mapping[str, Any], plan: Plan) -> None:
    """Check that the rows of a folder keep their meaning under the settings of a call, and that all names fit in one table.

    Raises:
        GenclsError: if the meaning would change; the message names the settings that differ. Also for a folder of an old
            format, and for names that look like others in it.
    """
    if found["format"] != FORMAT:
        raise GenclsError(
            f"{folder} holds a study of format {found['format']}, made by another version: expected format {FORMAT}; it can be "
            "reported, but not continued: choose another folder"
        )
    if different := list(differences(found, plan)):
        other = "" if any(other_protocol(found, plan)) else ", or another name (of a threat: its norm)"
        raise GenclsError(
            f"{folder} holds another study: {'; '.join(different)}; expected what is there to stay as it is: choose another "
            f"folder{other}"
        )
    check_names([*found["defenses"], *plan.defenses, *found["attacks"], *plan.attacks], f"{folder}")


def _check_samples(folder: Path, found: Mapping[str, Any], hashes: Sequence[str]) -> None:
    """Check that a call has all samples of a folder.

    Raises:
        GenclsError: if some are missing.
    """
    there, mine = found["sample_hashes"], set(hashes)
    shared = sum(key in mine for key in there)
    if shared == len(there):
        return
    if shared == len(mine):
        raise GenclsError(
            f"{folder} holds {len(there)} images: expected all of them, and perhaps more, got {shared} of them; a study can "
            "grow, but not shrink: take them all, or choose another folder"
        )
    raise GenclsError(
        f"{folder} holds another study (samples: expected the {len(there)} images there with their labels, and perhaps more, "
        f"got {shared} of them and {len(mine) - shared} others); choose another folder"
    )


def _merged(found: Mapping[str, Any] | None, plan: Plan, cells: Sequence[StudyCell], order: Order) -> dict[str, Any]:
    """The settings of a folder with the cells of a call; equal to those found if it adds nothing."""
    found = found or {"defenses": {}, "attacks": {}, "seeds": [], "cells": [], "about": {}}
    settings = {
        "format": FORMAT,
        "version": __version__,
        "code": plan.code,
        "defenses": dict(found["defenses"]),
        "attacks": dict(found["attacks"]),
        "protocol": dict(plan.protocol),
        "seeds": list(dict.fromkeys([*found["seeds"], *(cell.seed for cell in cells)])),
        "shards": order.shards,
        "n": len(order.samples),
        "cells": [],
        "about": found["about"],
        "sample_hashes": order.samples,
    }
    for kind, parts in (("defenses", plan.defenses), ("attacks", plan.attacks)):
        for name, (value, key) in parts.items():
            known = settings[kind].get(name) or described(value, key)
            settings[kind][name] = {**known, "code": key.whole}
    for name, (defense, _) in plan.defenses.items():
        if meanings := own_meanings(defense, {cell.mode for cell in cells if cell.defense == name}):
            settings["defenses"][name][MEANINGS] = {**settings["defenses"][name].get(MEANINGS, {}), **meanings}
    mine = {norm: described(threat, key) for norm, (threat, key) in plan.threats.items()}
    settings["threats"] = mine | found.get("threats", {})
    settings["cells"] = [asdict(cell) for cell in _all_cells(planned(found), cells, settings)]
    if any(settings[name] != found.get(name) for name in settings if name not in ("about", "version")):
        said = [text for about in (found["about"], plan.about) if (text := about.get("command"))]
        command = {"command": "\n".join(dict.fromkeys("\n".join(said).splitlines()))} if said else {}
        return {**settings, "about": {**found["about"], **plan.about, **command}}
    return dict(found)


def _all_cells(there: Sequence[StudyCell], mine: Sequence[StudyCell], settings: Mapping[str, Any]) -> list[StudyCell]:
    """Every row x every shard, in the order of the folder; cells that no call has asked for have no key."""
    sizes = {cell.epsilon for cell in there if cell.epsilon is not None}
    rows: dict[tuple[Any, ...], dict[int, StudyCell]] = {}
    for cell in (*there, *mine):
        size = None if cell.epsilon is None else next((size for size in sizes if same_size(size, cell.epsilon)), cell.epsilon)
        rows.setdefault((cell.defense, cell.attack, size, cell.mode, cell.seed), {})[cell.shard] = cell
    places = {name: {key: i for i, key in enumerate(settings[name])} for name in ("defenses", "attacks", "seeds")}
    modes = {key: i for i, key in enumerate(dict.fromkeys((row[0], row[3]) for row in rows))}

    def place(row: tuple[Any, ...]) -> tuple[float, ...]:
        defense, attack, size, mode, seed = row
        first = (places["defenses"][defense], places["attacks"][attack], -1.0 if size is None else size)
        return (*first, modes[defense, mode], places["seeds"][seed])

    return [
        rows[row].get(shard) or replace(next(iter(rows[row].values())), shard=shard, key="", code="")
        for row in sorted(rows, key=place)
        for shard in range(len(settings["shards"]))
    ]
