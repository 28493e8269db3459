"""Seeds, and the global random generators: torch's (CPU and CUDA), numpy's, and that of Python's ``random``."""

import hashlib
import random
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy
import torch

from gencls.core.errors import GenclsError
from gencls.core.settings import plain

__all__ = ["GlobalStates", "joint_seed", "own_seeds_end_here", "reseed", "seeded", "stream_seed"]


def stream_seed(*parts: object) -> int:
    """Make a 63-bit seed from a path of names and numbers, equal on every machine: (study seed, sample, role, draw)."""
    digest = hashlib.blake2b("/".join(str(plain(part)) for part in parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def joint_seed(rows: Iterable[Sequence[int]]) -> int:
    """Make one seed for all rows of a batch together, from their keys."""
    return stream_seed(*(part for key in rows for part in key))


class GlobalStates:
    """The states of the global generators at one moment. Two are equal if nothing was drawn between them."""

    def __init__(self) -> None:
        """Read them."""
        self._torch = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]
        self._numpy, self._python = numpy.random.get_state(), random.getstate()

    def set(self) -> None:
        """Put the generators back to these states."""
        torch.set_rng_state(self._torch[0])
        if len(self._torch) > 1:
            torch.cuda.set_rng_state_all(self._torch[1:])
        numpy.random.set_state(self._numpy)
        random.setstate(self._python)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Continue the generators from these states inside the block, and put them back afterwards."""
        now = GlobalStates()
        self.set()
        try:
            yield
        finally:
            now.set()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GlobalStates):
            return NotImplemented
        both = zip(self._torch, other._torch, strict=True)
        numpys = zip(self._numpy, other._numpy, strict=True)
        same = all(torch.equal(one, two) for one, two in both) and all(numpy.array_equal(one, two) for one, two in numpys)
        return same and self._python == other._python

    __hash__ = None  # type: ignore[assignment]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators inside the block, and restore their states on exit.

    Args:
        seed: an integer of at most 64 bits.

    Raises:
        GenclsError: the seed is something else.
    """
    seed = plain(seed)
    if type(seed) is not int or not -(2**63) <= seed < 2**64:
        raise GenclsError(f"seeded: expected an int of at most 64 bits as seed, got {reprlib.repr(seed)}")
    before = GlobalStates()
    try:
        reseed(seed)
        yield
    finally:
        before.set()


def reseed(seed: int) -> None:
    """Seed the global generators, without restoring them later."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed looks for every kind of device, at 30 times the price
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
    numpy.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def own_seeds_end_here() -> Iterator[None]:
    """Undo after the block what a module inside did to torch's seed.

    A module that calls ``torch.manual_seed`` in its forward pass draws the same at every call. Modules after it must not draw
    the same, too. Numpy and Python do not tell a seed from a draw, so their seeds stay.
    """
    seed, state = torch.initial_seed(), torch.get_rng_state()
    try:
        yield
    finally:
        if torch.initial_seed() != seed:
            torch.set_rng_state(state)
