"""Checks the types of settings: a NaN, boolean or word that passes for a number would silently change results.

One check serves all of them and reads the annotations: :func:`check_settings` for dataclasses, :func:`checked` for constructors
and functions. The owner of a setting checks its range: a number that passes here is finite, so a comparison means something.
"""

import functools
import inspect
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, NoReturn, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.core.words import with_article

__all__ = ["check_settings", "checked", "plain"]

P = ParamSpec("P")
R = TypeVar("R")

_PLAIN = {bool: "True or False", int: "an int", float: "a finite number", str: "a string", NoneType: "None"}
"""The types with a strict check, and their names in messages."""

_LARGEST = torch.finfo(torch.float32).max
"""The largest number allowed: a larger one would be infinite among images."""


def check_settings(owner: Any) -> None:
    """Check the fields of a dataclass against their annotations; call it first in ``__post_init__``.

    ``int`` takes no bool and no float, ``float`` any real number that is finite. Numbers of numpy and torch become Python's
    own, see :func:`plain`, an int that stands for a float becomes a float and a list that stands for a tuple a tuple, so that
    equal settings have one ``repr`` and one key.

    Args:
        owner: an instance of the dataclass, which may be frozen.

    Raises:
        GenclsError: a field does not fit; the message names the class, the field, what was expected and what came.
    """
    made: Any = type(owner)
    hints = _hints(made)
    for item in fields(owner):
        if item.init:
            value = _fitted(made.__name__, item.name, getattr(owner, item.name), hints[item.name])
            object.__setattr__(owner, item.name, value)


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function or constructor to check its arguments against their annotations, as :func:`check_settings` does.

    The message names the function, the method, or the class that is made. Signature and docstring stay visible.

    Raises:
        GenclsError: a call passes another kind of setting than the function expects.
    """
    signature = inspect.signature(function)
    single = {name for name, one in signature.parameters.items() if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # Python refuses the call too, and its message names the function
        hints = _hints(function)
        owner = function.__name__
        if next(iter(signature.parameters)) == "self":
            owner = type(args[0]).__name__ + (f".{owner}" if owner != "__init__" else "")
        for name, value in bound.arguments.items():
            if name in single and hints.get(name, object) is not object:  # an argument that may be anything needs no check
                bound.arguments[name] = _fitted(owner, name, value, hints[name])
        return function(*bound.args, **bound.kwargs)

    return wrapper


def plain(value: Any) -> Any:
    """Turn a number, truth value or word of numpy or torch into Python's own; anything else stays as it is.

    Arrays and tensors without dimensions are such numbers. Those of one dimension are not, also with one element: a list is no
    number. The value stays exactly the same: ``numpy.float32(0.3)`` gives 0.30000001192092896.
    """
    if getattr(value, "ndim", None) != 0 or not hasattr(value, "item"):
        return value
    try:
        return value.item()
    except (RuntimeError, ValueError):  # a tensor on the device "meta" has no numbers
        return value


@functools.cache
def _hints(annotated: Any) -> Mapping[str, Any]:
    if isinstance(annotated, type):
        return get_type_hints(annotated)
    arguments = {name: hint for name, hint in annotated.__annotations__.items() if name != "return"}
    return get_type_hints(SimpleNamespace(__annotations__=arguments), annotated.__globals__)


class _UnfitError(Exception):
    """The value is not what the annotation says."""


def _fitted(owner: str, name: str, value: Any, hint: Any) -> Any:
    try:
        return _fit(value, hint)
    except _UnfitError:
        meant, shape = plain(value), getattr(value, "shape", ())
        shown = _plain(meant) or isinstance(meant, (complex, list, tuple))
        got = f"{reprlib.repr(meant)} ({type(value).__name__})" if shown else type(value).__name__
        got += f" of shape {tuple(shape)}" if isinstance(shape, tuple) and shape else ""
        raise GenclsError(f"{owner}: expected {name} to be {_name(hint)}, got {got}") from None


def _fit(value: Any, hint: Any) -> Any:
    """Bring the value into the form of the type.

    An object may stand for a class that it does not derive from (a compiled module, a user's own distance), unless it is plain
    data, a class, or lacks a method or attribute that the class asks for.
    """
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    exact = kind is Tensor or is_dataclass(kind)
    if kind in _PLAIN:
        return _fit_plain(plain(value), kind)
    if kind in (Union, UnionType):
        return _first_that_fits(value, arguments)
    if kind in (tuple, Sequence):
        return _fit_items(value, kind, arguments)
    if kind is Literal:
        value = plain(value)
        fits = any(type(value) is type(choice) and value == choice for choice in arguments)
    elif kind is Callable:
        fits = callable(value)
    elif exact:
        fits = isinstance(value, kind)
    else:
        fits = kind in (Any, object) or _stands_for(value, kind)
    return value if fits else _refuse()


def _fit_plain(value: Any, kind: type) -> Any:
    number = not isinstance(value, bool)
    if kind is int and number and isinstance(value, Integral):
        return int(value)
    if kind is float and number and isinstance(value, Real) and _is_finite(value):
        return float(value)
    return value if kind in (bool, str, NoneType) and isinstance(value, kind) else _refuse()


def _is_finite(value: Any) -> bool:
    return bool(abs(value) <= _LARGEST)


def _first_that_fits(value: Any, hints: Iterable[Any]) -> Any:
    for hint in hints:
        try:
            return _fit(value, hint)
        except _UnfitError:
            continue
    return _refuse()


def _fit_items(value: Any, kind: type, arguments: tuple[Any, ...]) -> Any:
    items = value.tolist() if hasattr(value, "tolist") else value  # of numpy or torch
    if _plain(items) or isinstance(items, Mapping) or not (isinstance(items, Iterable) and isinstance(items, Sized)):
        _refuse()
    items = tuple(items)
    of = arguments if kind is tuple and arguments[-1] is not Ellipsis else arguments[:1] * len(items)
    if len(items) != len(of):
        _refuse()
    fitted = tuple(map(_fit, items, of))
    same = isinstance(value, kind) and all(new is old for new, old in zip(fitted, items, strict=True))
    return value if same else fitted


def _refuse() -> NoReturn:
    raise _UnfitError


def _stands_for(value: object, kind: Any) -> bool:
    protocol = getattr(kind, "_is_protocol", False)
    if isinstance(kind, type) and not protocol and isinstance(value, kind):
        return True
    data = _plain(value) or isinstance(value, (complex, bytes, list, tuple, set, dict, Tensor)) or hasattr(value, "__array__")
    if data or isinstance(value, type):
        return False
    if isinstance(kind, type) and issubclass(kind, nn.Module):
        return callable(value) and all(hasattr(value, name) for name in _asked_of(kind))
    if kind is Path:
        return hasattr(value, "__fspath__")
    return getattr(kind, "__module__", "") != "collections.abc"


def _asked_of(kind: type[nn.Module]) -> set[str]:
    """Names of the methods and attributes that a class leaves to its subclasses.

    Numbers are left out: code that needs one says how to get it, as the adapters do for the number of classes.
    """
    methods = getattr(kind, "__abstractmethods__", ())
    own = [base for base in kind.__mro__ if methods and base not in nn.Module.__mro__]
    declared = (name for base in own for name, of in inspect.get_annotations(base).items() if of is not int)
    return {name for name in (*methods, *declared) if not name.startswith("_") and (name in methods or not hasattr(kind, name))}


def _plain(value: object) -> bool:
    return value is None or isinstance(value, (bool, Real, str))


def _name(hint: Any) -> str:
    """The name of a type in messages."""
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind in (Union, UnionType):
        return " or ".join(map(_name, arguments))
    if kind is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if kind is tuple and arguments[-1] is not Ellipsis:
        return f"a sequence ({', '.join(map(_name, arguments))})"
    if kind in (tuple, Sequence):
        return f"a sequence, each item {_name(arguments[0])}"
    return "a function" if kind is Callable else with_article(getattr(kind, "__name__", str(kind)))
