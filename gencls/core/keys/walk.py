"""One walk over everything that a value holds, feeding a hash.

Every object gets a number when it is first met, and is known by it from then on: a layer that is used twice differs from two
equal layers, and what holds itself comes to an end. What an object consists of is hashed when its turn comes.
"""

import hashlib
import struct
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy
import torch

from gencls.core.errors import GenclsError
from gencls.core.keys.closures import closure
from gencls.core.keys.origins import version
from gencls.core.keys.parts import Defined, Library, Unordered, parts_of
from gencls.core.keys.tensors import global_hooks
from gencls.core.words import with_article

__all__ = ["Key", "key_of"]

_ATOMS: dict[type, Callable[[Any], str | bytes]] = {
    type(None): str,
    bool: str,
    int: hex,
    float: lambda value: struct.pack("<d", value),
    complex: lambda value: struct.pack("<dd", value.real, value.imag),
    str: lambda value: value.encode("utf-8", "surrogatepass"),
    bytes: bytes,
    memoryview: bytes,
    type(...): str,
    type(NotImplemented): str,
}

_BY_VALUE = (tuple, frozenset, range, slice, Enum, numpy.generic, PurePath, torch.dtype, Library, Defined)
"""Immutable types. They count by value: it makes no difference whether two names share an object."""

_SHORT = 128
"""Longest word, in bytes, that is fed in one piece with its length."""

_HELP = (
    "a key of its own: set fingerprint_key on it, or on a module that holds it, to a string (or to a method that returns one) "
    "that changes whenever its output may change"
)


class Key(NamedTuple):
    """The key of a value, which says what a result belongs to.

    Attributes:
        content: a digest of values, settings, structure, and the user's source code.
        whole: a digest of the same, with the code of this package that is involved and the versions of libraries.
    """

    content: str
    whole: str


def key_of(value: object, name: str) -> Key:
    """The keys of a value of any kind, by the rules of :func:`gencls.core.fingerprint`; messages call it by its name.

    Raises:
        GenclsError: the value holds something opaque.
    """
    walk = _Walk()
    try:
        walk.take(value, name)
        walk.take(global_hooks(), "a global hook of torch")
    except RecursionError:
        raise GenclsError(f"{name}: expected tuples that are not nested that deep; give it {_HELP}") from None
    code = closure(sorted(walk.sources))
    for line in code.user:
        walk.feed(line.encode())
    content = walk.digest.hexdigest()[:24]
    libraries = sorted(f"{library} {version(library)}" for library in walk.libraries | code.libraries)
    whole = "\n".join([content, *code.ours, *libraries])
    return Key(content, hashlib.sha256(whole.encode()).hexdigest()[:24])


class _Walk:
    """One walk over a value; ``within`` names the sets around the present element."""

    def __init__(self, within: frozenset[int] = frozenset()) -> None:
        self.digest = hashlib.sha256()
        self.sources: set[tuple[str, str]] = set()
        self.libraries: set[str] = set()
        self._within = within
        self._numbers: dict[int, int] = {}
        self._queue: deque[tuple[Any, str]] = deque()
        self._alive: list[object] = []  # or a number could come to belong to another object

    def take(self, value: object, path: str) -> None:
        """Feed a value and all that it holds."""
        self._put(value, path)
        while self._queue:
            self._open(*self._queue.popleft())

    def feed(self, content: str | bytes) -> None:
        """Feed one word, so that it cannot run into the next."""
        data = content.encode() if isinstance(content, str) else content
        if len(data) < _SHORT:
            self.digest.update(b"%d:%b" % (len(data), data))
        else:  # not copied
            self.digest.update(b"%d:" % len(data))
            self.digest.update(data)

    def _put(self, value: Any, path: str) -> None:
        """Feed a word that stands for a value: the value itself if it is small, else its number."""
        kind = type(value)
        if kind in _ATOMS:
            self.feed(kind.__name__)
            self.feed(value if kind is memoryview else _ATOMS[kind](value))
        elif isinstance(value, Unordered):
            for element in self._sorted(value, path):
                self._put(element, path)
        elif isinstance(value, _BY_VALUE):
            self._open(value, path)
        else:
            if id(value) not in self._numbers:
                self._numbers[id(value)] = len(self._numbers)
                self._alive.append(value)
                self._queue.append((value, path))
            self.feed(f"number {self._numbers[id(value)]}")

    def _open(self, value: Any, path: str) -> None:
        """Feed the parts of a value."""
        if isinstance(value, Library):
            self.libraries.add(value.name.partition(".")[0])
        if isinstance(value, Defined):
            self.sources.add((value.module, value.name))
        own = None if isinstance(value, type) else _own_key(value, path)
        if own is not None:
            self.feed("fingerprint_key")
            self.feed(own)
            return
        try:
            kind, held = parts_of(value)
            children = list(held)
        except Exception as error:  # pickling, or a class of the user's
            raise GenclsError(
                f"{path}: expected something that a key can see into, got {with_article(type(value).__name__)} ({error}); "
                f"give it {_HELP}"
            ) from error
        self.feed(kind)
        for label, child in children:
            self._put(child, path + label)
        self.digest.update(b";")

    def _sorted(self, unordered: Unordered, path: str) -> Iterable[object]:
        """Sort the elements of a set in an order that is the same in every process."""

        def digest(element: object) -> bytes:
            walk = _Walk(self._within | {id(unordered.of)})
            walk.take(element, path)
            return walk.digest.digest()

        return () if id(unordered.of) in self._within else sorted(unordered.of, key=digest)


def _own_key(value: Any, path: str) -> str | None:
    """The key that a value gives itself. No ``__getattr__`` of the user's runs, and the walk asks thousands of values."""
    try:
        held = object.__getattribute__(value, "__dict__")
    except AttributeError:
        held = ()
    named = "fingerprint_key" in held or any("fingerprint_key" in vars(kind) for kind in type(value).__mro__)
    if not named or (own := value.fingerprint_key) is None:
        return None
    own = own() if callable(own) else own
    if not isinstance(own, str):
        raise GenclsError(f"{path}.fingerprint_key: expected a string, or a method that returns one, got {type(own).__name__}")
    return own
