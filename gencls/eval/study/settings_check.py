"""What the settings of a study must look like: its file may come from elsewhere, or have been changed by hand."""

import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from gencls.core import GenclsError
from gencls.eval.study.cell_files import StudyCell

__all__ = ["check_study_settings"]

_DEEPEST = 20
"""Levels of lists and objects; settings have six."""


def check_study_settings(settings: Mapping[str, Any], path: Path, advice: str = "") -> None:
    """Check the types of what was read from ``study.json``.

    Args:
        settings: as JSON has them.
        path: they come from, for the message.
        advice: what to do if they are wrong, for the message.

    Raises:
        GenclsError: naming the first one that is of another type; for too many levels of lists and objects.
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
    """By name a text or a description, whose contents are texts."""
    parts = value.values() if isinstance(value, dict) else [None]
    return all(_word(part) or (isinstance(part, dict) and all(_word(part.get(key, "")) for key in _TEXTS)) for part in parts)


def _cell(value: Any) -> bool:
    if not isinstance(value, dict) or not _REQUIRED <= value.keys() <= _KNOWN:
        return False
    texts = all(_word(value[name]) for name in ("defense", "attack", "mode", "key"))
    numbers = _whole(value["seed"]) and _whole(value["shard"]) and value["shard"] >= 0
    plain = not any(isinstance(part, dict | list) for part in value.values())
    # A key is part of a path: nothing in it may lead out of the folder.
    return texts and numbers and plain and re.fullmatch(r"[\w-]{0,64}", value["key"], re.ASCII) is not None


_REQUIRED = {field.name for field in fields(StudyCell) if field.default is MISSING}
_KNOWN = {field.name for field in fields(StudyCell)}
_TEXTS = ("kind", "content", "code")
_NEEDED = ("sample_hashes", "shards")
"""From format 4 on; the first one from format 3 on."""

_FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "format": (_whole, "a whole number"),
    "shard_size": (lambda value: _whole(value) and value >= 1, "a whole number >= 1"),
    "shards": (_list_of(lambda value: _list_of(_whole)(value) and len(value) == 2), "a list of pairs of whole numbers"),
    "seeds": (lambda value: value != [] and _list_of(_whole)(value), "a list of whole numbers"),
    "cells": (_list_of(_cell), "a list of cells, each with defense, attack, mode, seed, shard and key"),
    "sample_hashes": (_list_of(_word), "a list of hashes"),
    "defenses": (lambda value: _list_of(_word)(value) or _named(value), "descriptions by name"),
    "attacks": (_named, "descriptions by name"),
    "attack_keys": (_named, "keys by name"),
    "protocol": (lambda value: isinstance(value, dict), "settings by name"),
    "code": (_word, "a text"),
    "modes": (lambda value: value is None or _list_of(_word)(value), "a list of names, or null"),
    "about": (lambda value: isinstance(value, dict) and all(map(_word, value.values())), "texts by name"),
}
