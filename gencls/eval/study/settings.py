"""``study.json``: the settings of a study and the list of its cells."""

import hashlib
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from gencls.core import GenclsError, checked
from gencls.core.files import check_seal, read_object
from gencls.eval.study.files import StudyCell

SETTINGS = "study.json"

MEANINGS = "gradients"
"""In the description of a defense: what it says of gradient modes of its own, by name; only where it has some."""

FORMAT = 4
"""2: the judge draws sequentially, so records hold different numbers of draws, and their own majorities. 3: checksums.
4: a folder grows, so it lists the bounds of its shards, and each row has its epsilon."""
_READABLE = (1, 2, 3, 4)  # to report; only a study of the present format is continued
_CHECKSUMS = 3
"""The first format with checksums."""

_DEEPEST = 20
"""Most levels of lists and objects; settings have six."""


@checked
def read_study(folder: str | Path) -> dict[str, Any]:
    """The settings of the study in a folder.

    Raises:
        GenclsError: if the folder holds no study, or one of an unknown format or with changed settings.
    """
    path = Path(folder) / SETTINGS
    if not path.is_file():
        raise GenclsError(f"{folder}: expected a study folder with {SETTINGS}, got none")
    advice = "; remove it and run the study again, all calls of it: finished cells are kept"
    settings = read_object(path, "the settings of a study", advice)
    if not {"format", "cells", "seeds"} <= settings.keys() or not {"shard_size", "shards"} & settings.keys():
        raise GenclsError(f"{path}: expected the settings of a study, got JSON of another kind")
    if "checksum" in settings:  # without it, one flipped bit could make a 4 a 5
        check_seal(settings, path, advice)
    if settings["format"] not in _READABLE:
        raise GenclsError(f"{path}: expected a study of format {_READABLE}, got {settings['format']!r}; update gencls")
    _check(settings, path, advice)
    if has_checksums(settings):
        check_seal(settings, path, advice)
    return settings


def has_checksums(settings: Mapping[str, Any]) -> bool:
    """Whether the files of a study carry checksums; formats 1 and 2 have none."""
    return bool(settings["format"] >= _CHECKSUMS)


def planned(settings: Mapping[str, Any]) -> list[StudyCell]:
    """All cells of a study, in order: its rows x its shards."""
    return [StudyCell(**cell) for cell in settings["cells"]]


def first_sample(settings: Mapping[str, Any], cell: StudyCell) -> int:
    """The number of a cell's first sample among those of the folder."""
    return int(settings["shards"][cell.shard][0] if "shards" in settings else cell.shard * settings["shard_size"])


def made_by(code: str, defense: str, attack: str) -> str:
    """Digest of the code of a row, from three digests: of attacking and judging, of its defense and of its attack."""
    return hashlib.sha256("\n".join((code, defense, attack)).encode()).hexdigest()[:12]


def is_outdated(settings: Mapping[str, Any], cell: StudyCell) -> bool:
    """Whether a later call has brought other code, but has not named the row of this cell."""
    if not cell.code:
        return False
    parts = (settings["defenses"][cell.defense]["code"], settings["attacks"][cell.attack]["code"])
    return cell.code != made_by(settings["code"], *parts)


def _check(settings: Mapping[str, Any], path: Path, advice: str) -> None:
    """Check the types in ``study.json``, because the file may come from elsewhere, or somebody may have edited it.

    Raises:
        GenclsError: for a value of another type, the first one by name; for too many levels of lists and objects.
    """
    if _depth(settings) > _DEEPEST:
        raise GenclsError(f"{path}: expected at most {_DEEPEST} levels of lists and objects, got more{advice}")
    for name, (fits, what) in _FIELDS.items():
        if name in settings and not fits(settings[name]):
            raise GenclsError(f"{path}: expected {name} to be {what}, got {reprlib.repr(settings[name])}{advice}")
    for name in _NEEDED if settings["format"] > 3 else _NEEDED[:1] if settings["format"] == 3 else ():
        if name not in settings:
            raise GenclsError(f"{path}: expected {name}, got none{advice}")
    shards = len(settings["shards"]) if "shards" in settings else None
    for cell in settings["cells"]:
        parts = [settings.get(kind, {}) for kind in ("defenses", "attacks")] if cell.get("code") else []
        named = all(isinstance(part.get(cell[kind]), dict) for part, kind in zip(parts, ("defense", "attack"), strict=False))
        if not named or (shards is not None and cell["shard"] >= shards):
            raise GenclsError(f"{path}: expected cells of the listed defenses, attacks and shards, got {cell}{advice}")


def _depth(content: Any) -> int:
    level, depth = [content], 0
    while level and depth <= _DEEPEST:
        level = [inner for one in level if isinstance(one, dict | list) for inner in _inside(one)]
        depth += 1
    return depth


def _inside(content: dict[str, Any] | list[Any]) -> list[Any]:
    return list(content.values()) if isinstance(content, dict) else content


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _word(value: Any) -> bool:
    return isinstance(value, str)


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _named(value: Any) -> bool:
    """Whether a value is an object with a text, or a description made of texts, under each name."""
    return isinstance(value, dict) and all(
        _word(part) or (isinstance(part, dict) and _described(part)) for part in value.values()
    )


def _described(part: dict[str, Any]) -> bool:
    return all(_word(part.get(key, "")) for key in _TEXTS) and _texts(part.get(MEANINGS, {}))


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_word, value.values()))


def _cell(value: Any) -> bool:
    if not isinstance(value, dict) or not _REQUIRED <= value.keys() <= _KNOWN:
        return False
    texts = all(_word(value[name]) for name in ("defense", "attack", "mode", "key"))
    numbers = _whole(value["seed"]) and _whole(value["shard"]) and value["shard"] >= 0
    plain = not any(isinstance(part, dict | list) for part in value.values())
    # A key is part of a path, so it must not lead out of the folder.
    return texts and numbers and plain and re.fullmatch(r"[\w-]{0,64}", value["key"], re.ASCII) is not None


_REQUIRED = {field.name for field in fields(StudyCell) if field.default is MISSING}
_KNOWN = {field.name for field in fields(StudyCell)}
_TEXTS = ("kind", "content", "code")
_NEEDED = ("sample_hashes", "shards")
"""Settings that format 4 must have; format 3 must have the first."""

_FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "format": (_whole, "a whole number"),
    "shard_size": (lambda value: _whole(value) and value >= 1, "a whole number >= 1"),
    "shards": (_list_of(lambda value: _list_of(_whole)(value) and len(value) == 2), "a list of pairs of whole numbers"),
    "seeds": (lambda value: value != [] and _list_of(_whole)(value), "a list of whole numbers"),
    "cells": (_list_of(_cell), "a list of cells, each with defense, attack, mode, seed, shard and key"),
    "sample_hashes": (_list_of(_word), "a list of hashes"),
    "defenses": (lambda value: _list_of(_word)(value) or _named(value), "descriptions by name"),
    "attacks": (_named, "descriptions by name"),
    "threats": (_named, "descriptions by norm"),
    "attack_keys": (_named, "keys by name"),
    "protocol": (lambda value: isinstance(value, dict), "settings by name"),
    "code": (_word, "a text"),
    "modes": (lambda value: value is None or _list_of(_word)(value), "a list of names, or null"),
    "about": (_texts, "texts by name"),
}
