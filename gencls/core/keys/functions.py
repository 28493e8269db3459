"""Parts of a function: its source, or bytecode, what it was made with, and the globals that it names."""

import dis
import functools
import linecache
import types
from functools import lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import Any, cast

import torch

from gencls.core.keys.classes import origin_of_class
from gencls.core.keys.closures import behind
from gencls.core.keys.origins import Origin, found, module_name, origin_of_file, origin_of_module
from gencls.core.keys.parts import Defined, Held, Library, Parts, attributes, parts
from gencls.core.keys.sources import WHOLE, Imported, References, Source, digest_of, nested, parsed, references

_NAMED = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}


@parts.register
def _function(function: FunctionType) -> Parts:
    code = function.__code__
    module = str(function.__globals__.get("__name__"))
    whose = origin_of_file(code.co_filename)
    if whose == "user":
        return "function", [*_written(function), *_made_with(function)]
    if whose == "ours":
        head: Library | Defined = Defined(module_name(code.co_filename), code.co_qualname.partition(".")[0])
    else:
        head = Library(f"{module}.{code.co_qualname}")
    own = found(module, code.co_qualname) is function  # then the name says all
    return "function", [("", head), *(() if own else _made_with(function))]


def _made_with(function: FunctionType) -> Held:
    """The parts of a function that its source does not show."""
    if function.__code__.co_qualname == "singledispatch.<locals>.wrapper":  # the rest of it is a cache
        yield ".registry", function.registry  # type: ignore[attr-defined]
        return
    if "_torchdynamo_orig_callable" in vars(function):  # torch.compile
        yield "", vars(function)["_torchdynamo_orig_callable"]
        return
    yield ".__defaults__", function.__defaults__
    yield ".__kwdefaults__", function.__kwdefaults__
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield f": {name}", cell
    yield from attributes(function, vars(function))


def _written(function: FunctionType) -> Held:
    """The source of a function, or its bytecode if it has none, and the globals that it names."""
    code, package = function.__code__, str(function.__globals__.get("__package__") or "")
    linecache.checkcache(code.co_filename)
    source = parsed("".join(linecache.getlines(code.co_filename, function.__globals__)), package)
    node = None if source is None else source.node(code)
    if source is None or node is None:
        source = Source("", package)
        found = _guessed(code, package)
        yield "", code
    else:
        found = references([node], package)
        yield "", digest_of([node])
    for name in sorted(_global_names(code)):
        if name in function.__globals__:
            yield "", name
            chains = [chain[1:] for chain in found.chains if chain[0] == name]
            yield from _named(name, function.__globals__[name], chains, source.imports.get(name))
    inside = {
        target for first, *rest in found.chains if first in found.imports for target in behind(found.imports[first], rest)
    }
    yield from ((f": {name}", _defined(module, name)) for module, name in sorted(inside))


@lru_cache(maxsize=4096)
def _global_names(code: CodeType) -> frozenset[str]:
    instructions = (instruction for part in nested(code) for instruction in dis.get_instructions(part))
    return frozenset(instruction.argval for instruction in instructions if instruction.opname in _NAMED)


def _guessed(code: CodeType, package: str) -> References:
    """The references that bytecode may have: each name as an attribute of each global, and imported modules as a whole."""
    found = References(package)
    names = {name for part in nested(code) for name in part.co_names}
    found.chains = {(name, attribute) for name in _global_names(code) for attribute in names}
    for part in nested(code):
        for instruction in dis.get_instructions(part):
            if instruction.opname == "IMPORT_NAME":
                found.imports[instruction.argval] = Imported(instruction.argval, None)
                found.chains.add((instruction.argval,))
    return found


def _named(name: str, value: Any, chains: list[tuple[str, ...]], imported: Imported | None) -> Held:
    """The meaning of a global in a function; if it is a module, the meaning of the attributes that the function takes."""
    if isinstance(value, ModuleType):
        for chain in sorted(chains):
            yield from _taken(value, chain, f": {'.'.join((name, *chain))}")
    elif imported is not None and imported.name is not None and origin_of_module(imported.module) == "library":
        yield from _of_library(f"{imported.module}.{imported.name}", value, f": {name}")
    else:
        yield f": {name}", value


def _taken(module: ModuleType, chain: tuple[str, ...], path: str) -> Held:
    """The meaning of attributes of a module."""
    whose, value = origin_of_module(module.__name__), cast(Any, module)
    if whose == "ours":
        yield from ((path, _defined(*target)) for target in sorted(behind(Imported(module.__name__, None), list(chain))))
        return
    for attribute in chain:
        if isinstance(value, ModuleType):
            value = vars(value).get(attribute)
    if whose == "library":
        yield from _of_library(module.__name__, value, path)
    else:
        yield path, value


def _of_library(name: str, value: Any, path: str) -> Held:
    """The name of a library's object, unless the user has put something else in its place."""
    yield "", Library(name)
    whose: Origin = "library"
    if isinstance(value, FunctionType):
        whose = origin_of_file(value.__code__.co_filename)
    elif isinstance(value, type):
        whose = origin_of_class(value)
    if whose != "library":
        yield path, value


def _defined(module: str, name: str) -> Library | Defined:
    return Library(module) if origin_of_module(module) == "library" else Defined(module, name)


@parts.register
def _code(code: CodeType) -> Parts:
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    return "bytecode", [("", code.co_code), ("", counts), ("", names), ("", code.co_consts)]


@parts.register
def _cell(cell: types.CellType) -> Parts:
    try:
        return "cell", [("", cell.cell_contents)]
    except ValueError:
        return "empty cell", ()


parts.register(types.MethodType, lambda method: ("method", [("", method.__func__), (".__self__", method.__self__)]))
parts.register(functools._lru_cache_wrapper, lambda function: ("cached", [("", function.__wrapped__)]))


@parts.register(types.BuiltinFunctionType | types.MethodWrapperType)
def _builtin(function: Any) -> Parts:
    of = function.__self__
    name = function.__qualname__
    if of is None or isinstance(of, ModuleType | type) or type(of).__name__.startswith(("PyCapsule", "pybind11_")):
        module = getattr(of, "__name__" if isinstance(of, ModuleType) else "__module__", None) or function.__module__
        return "built-in", [("", _defined(str(module), WHOLE)), ("", name)]
    return "built-in", [("", name), (".__self__", of)]


@parts.register(torch._ops.OpOverload | torch._ops.OpOverloadPacket)
def _operator(operator: Any) -> Parts:
    name = str(operator)
    if not name.startswith("aten."):
        raise TypeError(f"the code of {name} stands elsewhere")
    return "operator", [("", Library(f"torch.ops.{name}"))]


@parts.register(types.ClassMethodDescriptorType | types.MethodDescriptorType | types.WrapperDescriptorType)
@parts.register(types.GetSetDescriptorType | types.MemberDescriptorType)
def _descriptor(descriptor: Any) -> Parts:
    return "descriptor", [("", Library(f"{descriptor.__objclass__.__module__}.{descriptor.__qualname__}"))]


@parts.register
def _imported(module: ModuleType) -> Parts:
    if origin_of_module(module.__name__) != "user":
        return "module of", [("", _defined(module.__name__, WHOLE))]
    own = {name: value for name, value in vars(module).items() if not name.startswith("__")}
    return "module", attributes(module, own)
