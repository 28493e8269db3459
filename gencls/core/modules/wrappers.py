"""Defenses inside other modules: the declarations of a module, also if a wrapper stands around the part that declares them.

A wrapper that hides the gradient modes of a defense weakens every attack on it: a quantised image has no exact gradient, and an
attack that sees no other one reports robustness. So all code asks for modes here. This file passes them on if the wrapper
provably hands its input and output through, and refuses a wrapper that might do anything else.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import isabstract
from operator import is_
from typing import Any, Protocol, runtime_checkable

from torch import nn

from gencls.core.errors import GenclsError
from gencls.core.gradient_modes import EXACT, chain_of
from gencls.core.keys.tensors import put_in_forward
from gencls.core.modules.compiled import compiled_from
from gencls.core.modules.reach import CONTAINERS, LEAVES, parts

__all__ = ["Declares", "chained", "computes_as_its_class", "declared", "surrogates_of"]

_COMPUTE = ("forward", "infer", "log_joint")
"""Names of the methods that make scores."""

_ASKED: ContextVar[dict[int, Any]] = ContextVar("_ASKED", default={})  # noqa: B039 (never changed in place)
"""The modules whose declarations are being looked up, the outermost first, by ``id``."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@runtime_checkable
class Declares(Protocol):
    """A module that declares gradient modes by name: a defense, a transform, or a stand-in for one."""

    def surrogates(self) -> Mapping[str, nn.Module]:
        """Gradient modes: name -> the module that an attacker differentiates."""


def surrogates_of(module: nn.Module) -> Mapping[str, nn.Module]:
    """The gradient modes of any module: name -> what an attacker differentiates in its place; the first is the default.

    A defense declares them in ``surrogates()``. ``torch.compile``, ``DataParallel`` and ``Sequential`` have the modes of the
    modules inside. Any other module has its exact gradient.

    Raises:
        GenclsError: for a module around a defense (an attribute, an item of a list, a variable of a function) whose modes it
            would hide: a foreign module, or a defense whose class computes scores but inherits ``surrogates()``. Also for a
            module that ``torch.jit``, ``torch.fx`` or ``torch.export`` has made of a defense, and for a ``surrogates()`` that
            does not return modules by name.
    """
    with _asking(module):
        return _surrogates_of(module)


def _surrogates_of(module: nn.Module) -> Mapping[str, nn.Module]:
    compiled = compiled_from(module, Declares)
    if compiled:
        raise GenclsError(
            f"{type(module).__name__}: expected a module whose gradient modes can be seen, got one that torch has compiled "
            f"from the class {compiled}, of which it keeps the exact gradient only; evaluate the {compiled} itself (networks "
            f"inside it may be compiled)"
        )
    inside = _inside(module)
    if inside is not None:
        return {name: module if found is inside else found for name, found in surrogates_of(inside).items()}
    if type(module) is nn.Sequential and len(module) and _untouched(module):
        return chained(list(module), module)
    if isinstance(module, Declares):
        modes = _told(module)
        # A subclass that overrides how scores are made, but not ``surrogates()``, which then cannot know of it.
        inherited = min(_age(module, name) for name in _COMPUTE) < _age(module, "surrogates")
        if inherited or not _untouched(module):
            # A surrogate that contains the module itself contains all that the class computes.
            own = set(modes) if all(any(part is module for part in found.modules()) for found in modes.values()) else set()
            _check_nothing_lost(module, own)
        return modes
    _check_nothing_lost(module, set())
    return {EXACT.name: module}


def _told(module: nn.Module) -> Mapping[str, nn.Module]:
    """What the module's own ``surrogates()`` returns, which may be anybody's code.

    Raises:
        GenclsError: if that is no method, returns no mode, or something else than modules by name.
    """
    owner, ask = type(module).__name__, getattr(module, "surrogates", None)
    if not callable(ask):
        raise GenclsError(f"{owner}: expected surrogates to be a method that returns modules by name, got {type(ask).__name__}")
    modes: object = ask()
    if not isinstance(modes, Mapping) or not modes:
        got = f"an empty {type(modes).__name__}" if isinstance(modes, Mapping) else type(modes).__name__
        raise GenclsError(f"{owner}: expected surrogates() to return at least one module by the name of its mode, got {got}")
    for mode, found in modes.items():
        if not isinstance(mode, str):
            raise GenclsError(f"{owner}: expected text or a GradientMode as name of a gradient mode, got {mode!a}")
        if not isinstance(found, nn.Module):
            raise GenclsError(f"{owner}: expected a torch.nn.Module for the gradient mode {mode!a}, got {type(found).__name__}")
    return modes


def declared(module: nn.Module, flag: str) -> bool:
    """Whether a module declares a flag, such as ``stochastic``, to be True.

    A module says nothing if it is foreign or inherits the value from the contract. Then a defense inside it decides.
    """
    own = getattr(module, flag, None)
    kinds = [kind for kind in type(module).__mro__ if flag in vars(kind)]
    if own is not None and (own or flag in vars(module) or not any(map(isabstract, kinds[:1]))):
        return bool(own)
    with _asking(module):
        return any(declared(part, flag) for _, part in _held(module))


def chained(parts: Sequence[nn.Module], whole: nn.Module) -> dict[str, nn.Module]:
    """The gradient modes of a chain of modules: every mode of each with every mode of the others.

    A mode takes the name of the one part that is not exact, or ``front+back`` if that name would not be unique. The mode in
    which no part is replaced gives ``whole``.
    """
    modes: dict[str, tuple[nn.Module, ...]] = {EXACT.name: ()}
    for part in parts:
        longer: dict[str, tuple[nn.Module, ...]] = {}
        for front_name, front in modes.items():
            for back_name, back in surrogates_of(part).items():
                inexact = [name for name in (front_name, back_name) if name != EXACT.name] or [EXACT.name]
                alone = len(inexact) == 1 and inexact[0] not in longer
                name = inexact[0] if alone else chain_of(front_name, back_name)
                longer[name] = (*front, back)
        modes = longer
    in_a_row = {name: chain[0] if len(chain) == 1 else nn.Sequential(*chain) for name, chain in modes.items()}
    return {name: whole if all(map(is_, chain, parts)) else in_a_row[name] for name, chain in modes.items()}


def _inside(module: nn.Module) -> nn.Module | None:
    """The module that a wrapper of torch's hands everything through to; None for any other module."""
    compiled = getattr(sys.modules.get("torch._dynamo.eval_frame"), "OptimizedModule", None)  # its import takes seconds
    names = {compiled: "_orig_mod", nn.DataParallel: "module", nn.parallel.DistributedDataParallel: "module"}
    name = names.get(type(module))
    inside: nn.Module | None = getattr(module, name) if name and _untouched(module) else None
    return inside


def computes_as_its_class(module: nn.Module, method: str) -> bool:
    """Whether a method that does the work of ``forward`` in another way may stand in for it.

    It may not if a hook hangs on the module, or if a subclass or the instance overrides ``forward`` but not the method.
    """
    return _untouched(module) and _age(module, "forward") >= _age(module, method)


def _age(module: nn.Module, name: str) -> int:
    """The depth at which an attribute is defined: 0 in the instance, then class after class up to ``object``."""
    places = [vars(module), *(vars(kind) for kind in type(module).__mro__)]
    return next((i for i, names in enumerate(places) if name in names), len(places))


def _untouched(module: nn.Module) -> bool:
    """Whether a module does what its class does: it has no hooks, and nobody put another ``forward`` into the instance."""
    return put_in_forward(module) is None and not any(vars(module).get(hooks) for hooks in _HOOKS)


def _check_nothing_lost(module: nn.Module, own: set[str]) -> None:
    """Refuse a module with a part whose gradient modes are neither the module's own nor reached by an exact gradient."""
    for path, part in _held(module):
        lost = [name for name in surrogates_of(part) if name != EXACT.name and name not in own]
        if lost:
            name = type(module).__name__
            raise GenclsError(
                f"{name}: expected a module that hides no gradient mode of a defense inside it, got {type(part).__name__} "
                f"(at {path}) with {', '.join(lost)}, which no attack would see; evaluate the {type(part).__name__} itself, or "
                f"declare in surrogates() of a Defense of your own how {name} is differentiated"
            )


def _held(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The nearest modules within reach that declare gradient modes, each with the way to it; not those behind them.

    Modules whose lookup is under way do not count: a registry of defenses, say, may hold the very one around this module.
    """
    seen, waiting = {id(module): module, **_ASKED.get()}, [("", module)]  # keeps objects alive, so that an id stays theirs
    while waiting:
        path, item = waiting.pop()
        for name, part in parts(item):
            kind = type(part)
            if kind in LEAVES or (kind in CONTAINERS and not part) or id(part) in seen:
                continue
            seen[id(part)] = part
            where = path if name in ("_modules", "") else f"{path}.{name}".lstrip(".")
            if isinstance(part, nn.Module) and (isinstance(part, Declares) or compiled_from(part, Declares)):
                yield where, part
            else:
                waiting.append((where, part))


@contextmanager
def _asking(module: nn.Module) -> Iterator[None]:
    before = _ASKED.set({**_ASKED.get(), id(module): module})
    try:
        yield
    finally:
        _ASKED.reset(before)
