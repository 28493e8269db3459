"""What is to be tested is found where it is written, also before it is exported; a missing row is told with its file."""

import inspect
from collections.abc import Callable, Collection, Iterator
from importlib import import_module
from pkgutil import walk_packages
from types import ModuleType
from typing import Any, get_type_hints


def public_classes(package: ModuleType, kind: type = object) -> dict[str, Callable[..., Any]]:
    """Name -> concrete class of a kind, or named constructor of one, in all files of a package."""
    return {name: item for name, item, made in _public(package) if issubclass(made, kind) and not inspect.isabstract(made)}


def _public(package: ModuleType) -> Iterator[tuple[str, Callable[..., Any], type]]:
    for file in walk_packages(package.__path__, f"{package.__name__}."):
        for name, item in vars(import_module(file.name)).items():
            if name[0].isupper() and getattr(item, "__module__", None) == file.name:
                made = get_type_hints(item).get("return") if inspect.isfunction(item) else item
                if isinstance(made, type):
                    yield name, item, made


def check_rows(found: Collection[str], table: Collection[str], *, where: str, row: str) -> None:
    """Fail where a name has no row; variants have the name with a comma behind it.

    Args:
        found: names.
        table: keys of the rows.
        where: the table and its file, for the message.
        row: what to add, with {name} in it.
    """
    rows = {key.partition(",")[0] for key in table}
    missing = [f"{where} has no row for {name}; add {row.format(name=name)}" for name in sorted(set(found) - rows)]
    assert not missing, "\n".join(missing)
