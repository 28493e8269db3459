"""Finds whose code it is: this package's, a library's, or the user's. Each is keyed in its own way."""

import os
import re
import sys
import sysconfig
from functools import cache
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Literal

__all__ = ["PACKAGE", "Origin", "file_of", "found", "module_name", "origin_of_file", "origin_of_module", "version"]

Origin = Literal["ours", "library", "user"]

PACKAGE = Path(os.path.realpath(__file__)).parents[2]
"""The folder of gencls."""

_STANDARD_LIBRARY = tuple(os.path.realpath(sysconfig.get_path(kind)) + os.sep for kind in ("stdlib", "platstdlib"))


@cache
def origin_of_file(path: str) -> Origin:
    """Find whose file this is. Code without a file (``exec``, a notebook) is the user's."""
    if path.startswith("<frozen "):
        return "library"
    real = os.path.realpath(path)
    if real.startswith(f"{PACKAGE}{os.sep}"):
        return "ours"
    installed = {"site-packages", "dist-packages"} & set(real.split(os.sep))
    return "library" if installed or real.startswith(_STANDARD_LIBRARY) else "user"


def origin_of_module(name: str) -> Origin:
    """Find whose module this is, imported or not: it belongs to its top-level package."""
    top = name.partition(".")[0]
    if top in sys.builtin_module_names:
        return "library"
    path = file_of(top)
    if path is None:  # found by other means than a file
        return "library" if top in sys.stdlib_module_names else "user"
    return origin_of_file(path)


def file_of(name: str) -> str | None:
    """The file of a module, or a folder of a package without one. Nothing is imported."""
    module = sys.modules.get(name)
    if module is not None:
        return getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    spec = _searched(name)
    return None if spec is None else spec.origin or next(iter(spec.submodule_search_locations or ()), None)


def _searched(name: str) -> ModuleSpec | None:
    package = name.rpartition(".")[0]
    if not package:
        return PathFinder.find_spec(name)
    above = sys.modules.get(package)
    spec = getattr(above, "__spec__", None) if above is not None else _searched(package)
    places = None if spec is None else spec.submodule_search_locations
    return None if places is None else PathFinder.find_spec(name, places)


def module_name(path: str) -> str:
    """The dotted name of a file of this package."""
    parts = Path(os.path.realpath(path)).relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def found(module: str, qualified_name: str) -> object:
    """Find the object that is imported under a name; None if nothing is."""
    value: object = sys.modules.get(module)
    for part in qualified_name.split("."):
        value = getattr(value, part, None)
    return value


@cache
def version(top: str) -> str:
    """The version of the distribution behind a library's top-level package, without a local part such as ``+cu128``."""
    if top in sys.stdlib_module_names:
        return ""
    try:
        release = metadata.version(top)
    except metadata.PackageNotFoundError:  # a package may have another name than its distribution, as PIL has
        release = " ".join(sorted(map(metadata.version, set(metadata.packages_distributions().get(top, ())))))
    return re.sub(r"\+\S*", "", release)
