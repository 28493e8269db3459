"""Finds definitions with all that they name, over and over, from file to file. Nothing is imported and nothing runs."""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from gencls.core.keys.origins import PACKAGE, file_of, origin_of_module
from gencls.core.keys.sources import WHOLE, Imported, Source, parsed, references

__all__ = ["Closure", "behind", "closure"]

_AT_IMPORT = {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in PACKAGE.rglob("*.py")}
"""The time and size of each of our files as this process began: the process runs these, whatever the files hold later."""


class _Module(NamedTuple):
    """One file of ours or of the user, with its time and length; it has no source if it is not Python."""

    path: Path
    real: str
    state: tuple[int, int]
    ours: bool
    source: Source | None


def _module(name: str) -> _Module | None:
    """Find a module of ours or of the user; None for a module of a library, or if there is none."""
    path = file_of(name)
    if path is None or origin_of_module(name) == "library":
        return None
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # not there, or no path
        return None
    return _read(name, path, status.st_mtime_ns, status.st_size) if stat.S_ISREG(status.st_mode) else None


@lru_cache(maxsize=1024)
def _read(name: str, path: str, written: int, size: int) -> _Module:
    """Read a file again if it has changed since the last time."""
    file = Path(path)
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    source = parsed(file.read_text("utf-8", "replace"), package) if file.suffix == ".py" else None
    return _Module(file, os.path.realpath(file), (written, size), name.partition(".")[0] == PACKAGE.name, source)


def _says(module: _Module, name: str) -> str:
    """The text that stands for a definition. For a file that is not Python, every byte counts."""
    if module.source is None:
        return f"{module.path.name} {hashlib.sha256(module.path.read_bytes()).hexdigest()}"
    before = _AT_IMPORT.get(module.real)
    changed = before not in (None, module.state)
    return f"{name} {module.source.says(name)}" + (f" as it was at {before}" if changed else "")


class Closure(NamedTuple):
    """Names and digests of definitions, of this package and of the user, and the top-level packages of libraries."""

    ours: list[str]
    user: list[str]
    libraries: set[str]


def closure(roots: Iterable[tuple[str, str]]) -> Closure:
    """Follow names in modules to all that they name; a name that does not exist there stands for the whole module."""
    result = Closure([], [], set())
    todo = [target for module, name in roots for target in list(_resolved(module, name, [])) or [(module, WHOLE)]]
    seen: set[tuple[str, str]] = set()
    while todo:
        where, name = target = todo.pop()
        if target in seen:
            continue
        seen.add(target)
        module = _module(where)
        if module is None:
            if origin_of_module(where) == "library":
                result.libraries.add(where.partition(".")[0])
            continue
        if name != WHOLE and (module.source is None or name not in module.source.bindings):
            todo.append((where, WHOLE))
            continue
        (result.ours if module.ours else result.user).append(_says(module, name))
        if module.source is not None:
            todo += _named_by(where, module.source, name)
    return Closure(sorted(result.ours), sorted(result.user), result.libraries)


@lru_cache(maxsize=8192)
def _named_by(module: str, source: Source, name: str) -> list[tuple[str, str]]:
    """Find the definitions that a definition refers to."""
    found = references(source.statements(name), source.package)
    targets: list[tuple[str, str]] = []
    for first, *rest in found.chains:
        if first in found.imports:
            targets += behind(found.imports[first], rest)
        elif first in source.bindings or first in source.imports or source.stars:
            targets += _resolved(module, first, rest)
    return targets


def _resolved(where: str, name: str, rest: list[str], trail: frozenset[Imported] = frozenset()) -> Iterator[tuple[str, str]]:
    """Follow a name in a module through imports to its definition; a built-in or local name gives nothing."""
    module = _module(where)
    if module is None or module.source is None:
        yield where, name
        return
    if name in module.source.imports:
        yield from behind(module.source.imports[name], rest, trail)
    if name in module.source.bindings:
        yield where, name
    elif name not in module.source.imports:
        for star in module.source.stars:
            imported = Imported(star, name)
            if _module(star) is not None and imported not in trail:  # not a library's: any name could come from there
                yield from _resolved(star, name, rest, trail | {imported})


def behind(imported: Imported, rest: list[str], trail: frozenset[Imported] = frozenset()) -> Iterator[tuple[str, str]]:
    """Follow an import, and attributes taken of it, to their definitions."""
    where, name = imported
    if imported in trail:
        return
    if name is None:
        if not rest:
            yield where, WHOLE
            return
        name, *rest = rest
    module = _module(where)
    source = None if module is None else module.source
    known = source is not None and (name in source.bindings or name in source.imports)
    if source is not None and known and source.imports.get(name) != imported:
        yield from _resolved(where, name, rest, trail | {imported})
    elif origin_of_module(where) != "library" and file_of(f"{where}.{name}") is not None:
        yield from behind(Imported(f"{where}.{name}", None), rest, trail | {imported})
    else:
        yield from _resolved(where, name, rest, trail | {imported})
