"""Parts of a class: the user's counts as a whole, as it stands now; others count by name, with what the user put into them."""

import builtins
import dataclasses
from enum import EnumMeta
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import Any

from gencls.core.keys.origins import Origin, found, origin_of_file, origin_of_module
from gencls.core.keys.parts import Defined, Held, Library, Parts, parts

__all__ = ["origin_of_class"]

_BOOKKEEPING = {
    "__abstractmethods__",
    "__annotate__",
    "__annotate_func__",
    "__annotations__",
    "__annotations_cache__",
    "__callable_proto_members_only__",
    "__dataclass_params__",
    "__dict__",
    "__doc__",
    "__firstlineno__",
    "__module__",
    "__non_callable_proto_members__",
    "__orig_bases__",
    "__parameters__",
    "__protocol_attrs__",
    "__qualname__",
    "__replace__",
    "__static_attributes__",
    "__type_params__",
    "__weakref__",
    "_abc_impl",
    "_backward_cls",  # a torch.autograd.Function has one, made of it with a number of the process
}
"""Attributes of classes that follow from the rest; some differ between versions of Python."""


_MAKERS = {"abc", "collections", "dataclasses", "enum", "typing"}
"""Modules that write functions into the classes that they help to make."""

_HEAP = 1 << 9
"""The bit in ``__flags__`` of a class that was made while the process ran (Py_TPFLAGS_HEAPTYPE)."""


@parts.register
def _class(cls: type) -> Parts:
    whose = origin_of_class(cls)
    if whose == "user":
        return "class", _body(cls)
    if whose == "ours":
        name: Library | Defined = Defined(cls.__module__, cls.__qualname__.partition(".")[0])
    else:
        name = Library(f"{cls.__module__}.{cls.__qualname__}")
    others = [base for base in cls.__mro__[1:] if origin_of_class(base) not in (whose, "library")]
    return "class", [("", name), ("", cls.__qualname__), *(("", base) for base in others), *_patches(cls)]


def origin_of_class(cls: type) -> Origin:
    """Find whose class this is. A class from ``exec`` calls itself a built-in, but is the user's."""
    if cls.__module__ == builtins.__name__ and cls.__flags__ & _HEAP and found(builtins.__name__, cls.__qualname__) is not cls:
        return "user"
    return origin_of_module(cls.__module__)


def _patches(cls: type) -> Held:
    """The functions that the user put into a class of a library or of ours, or into one of its base classes."""
    for base in cls.__mro__:
        if origin_of_class(base) != "user":
            for name, entry in sorted(vars(base).items()):
                inner = entry.fget if isinstance(entry, property) else getattr(entry, "__func__", entry)
                written = isinstance(inner, FunctionType) and origin_of_file(inner.__code__.co_filename) == "user"
                if written and not _is_generated(inner):
                    yield "", f"{base.__qualname__}.{name}"
                    yield f" (class {base.__name__}).{name}", entry


def _body(cls: type) -> Held:
    """The parts of a user's class, as it stands now."""
    yield "", cls.__name__
    yield "", (type(cls), *cls.__bases__)
    entries = {name: entry for name, entry in vars(cls).items() if name not in _BOOKKEEPING and not _is_generated(entry)}
    if isinstance(cls, EnumMeta):
        members: dict[str, Any] = {name: cls[name].value for name in cls.__members__}
        sunder = {name for name in entries if name.startswith("_") and not name.startswith("__")}
        entries = members | {name: entry for name, entry in entries.items() if name not in {*members, *sunder}}
    for name, entry in sorted(entries.items()):
        yield "", name
        yield f" (class {cls.__name__}).{name}", entry


def _is_generated(entry: Any) -> bool:
    function = getattr(entry, "__func__", entry)
    if not isinstance(function, FunctionType):
        return isinstance(entry, GetSetDescriptorType | MemberDescriptorType)
    module = str(function.__globals__.get("__name__"))
    made = module in _MAKERS or module.startswith("namedtuple_")
    return made or function.__code__.co_qualname.startswith("__create_fn__.")  # a dataclass made it


parts.register(property, lambda value: ("property", [(f".{name}", getattr(value, name)) for name in ("fget", "fset", "fdel")]))
parts.register(staticmethod | classmethod, lambda method: (type(method).__name__, [("", method.__func__)]))


@parts.register
def _field(field: dataclasses.Field) -> Parts:  # type: ignore[type-arg]
    made = (field.init, field.kw_only)
    return "field", [(".default", field.default), (".default_factory", field.default_factory), ("", made)]
