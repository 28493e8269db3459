"""Random streams: one per sample, so that results do not depend on how samples are batched.

Library modules draw from torch's global generators, as ``nn.Dropout`` does, and never seed them. An evaluation wants more:
the noise that sample 17 meets should be the same in a batch of 1 and of 64, in any order, in any chunk of EoT draws, after
a resume. :func:`keyed` gives every row of the batch a stream of its own and serves the draws of any module, ours or
foreign, from these streams, row by row.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from gencls.core.settings import plain
from gencls.core.streams.seeds import GlobalStates, reseed, seeded
from gencls.core.streams.torch_functions import KeyedDraws

__all__ = [
    "Streams",
    "alone",
    "branch",
    "draws",
    "keyed",
    "present_rows",
    "repeatable",
    "repeated",
    "rows_per_stream",
    "select",
    "stream_seed",
    "watched",
]


def stream_seed(*parts: object) -> int:
    """A 63-bit seed from a path of names and numbers, equal on every machine: (study seed, sample, role, draw)."""
    digest = hashlib.blake2b("/".join(str(plain(part)) for part in parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Streams:
    """The random streams of a batch, one generator per (row, draw), made when first used and kept between forwards.

    Attributes:
        shared: descriptions of draws that had no row per sample and so came from one stream of the whole batch; results
            that depend on them depend on how samples were batched.
        used: whether anything was drawn.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        """Take one seed per row of the batch, see :func:`stream_seed`."""
        self.rows: list[tuple[int, ...]] = [(plain(seed),) for seed in seeds]
        self.shared: set[str] = set()
        self.used = False
        self.global_seed = torch.initial_seed()
        self._generators: dict[tuple[int, ...], torch.Generator] = {}

    def generator(self, key: tuple[int, ...]) -> torch.Generator:
        """The stream of one row; a row within EoT has the key (seed of the sample, draw)."""
        if key not in self._generators:
            seed = key[0] if len(key) == 1 else stream_seed(*key)
            self._generators[key] = torch.Generator().manual_seed(seed)
        return self._generators[key]

    def whole(self) -> torch.Generator:
        """One stream of the whole batch, for draws that have no row per sample."""
        return self.generator((stream_seed(*(part for key in self.rows for part in key)), _WHOLE))

    def fill(self, out: Tensor, draw: Callable[[Tensor, torch.Generator], object], what: str) -> Tensor:
        """Let ``draw(row, generator)`` write each row of ``out`` (on the CPU: the same numbers for every device)."""
        count = len(self.rows)
        if not out.numel():  # nothing is drawn: an attack may let no row begin
            return out
        self.used = True
        if out.ndim and count and out.shape[0] % count == 0:
            per_row = out.shape[0] // count
            for index, row in enumerate(out.unbind(0)):
                draw(row, self.generator(self.rows[index // per_row]))
        else:
            self.shared.add(f"{what} of shape {tuple(out.shape)} in a batch of {count}")
            draw(out, self.whole())
        return out


_WHOLE = -1  # in the key of a stream that the whole batch shares
_TRY = -2  # in a row's key, before the number of a try: draws are numbered from 0

_active: ContextVar[Streams | None] = ContextVar("gencls_streams", default=None)


@contextmanager
def keyed(seeds: Sequence[int]) -> Iterator[Streams]:
    """Inside the block, row i of every random draw comes from the stream of ``seeds[i]``.

    A draw whose first dimension is a multiple r of the number of rows belongs to the rows in order, r consecutive entries
    each (``repeat_interleave``, the convention of this package). Other draws come from one stream of the whole batch and are
    noted in :attr:`Streams.shared`; a draw for the whole batch whose size is such a multiple by chance cannot be told from
    draws per row. Draws with an explicit ``generator`` argument are left alone, and so are those that follow a
    ``torch.manual_seed`` inside the block: who seeds a generator wants its numbers.

    Args:
        seeds: one per sample of the batch, see :func:`stream_seed`.

    Yields:
        The streams, to be asked for ``shared`` afterwards.
    """
    streams = Streams(seeds)
    token = _active.set(streams)
    try:
        with KeyedDraws(streams):
            yield streams
    finally:
        _active.reset(token)


def present_rows() -> list[tuple[int, ...]] | None:
    """Who the rows of the batch are: for each one a key of its sample, draw and try; None without streams."""
    streams = _active.get()
    return None if streams is None else list(streams.rows)


@contextmanager
def _rows(change: Callable[[list[tuple[int, ...]]], list[tuple[int, ...]]]) -> Iterator[None]:
    streams = _active.get()
    if streams is None:
        yield
        return
    before = streams.rows
    streams.rows = change(before)
    try:
        yield
    finally:
        streams.rows = before


def draws(numbers: range) -> Any:
    """Inside the block each row of the batch is repeated for these draws (as by ``repeat_interleave``).

    The streams are keyed by (sample, draw), so that the chunking of draws does not matter. Without streams it does nothing.
    """
    return _rows(lambda rows: [(*key, number) for key in rows for number in numbers])


def rows_per_stream(count: int) -> int:
    """How many consecutive rows of a batch of so many draw from one stream; 1 without streams, 0 if there is one for all."""
    streams = _active.get()
    if streams is None:
        return 1
    present = len(streams.rows)
    return count // present if present and count % present == 0 else 0


def select(indices: Tensor, count: int | None = None) -> Any:
    """Inside the block the batch consists of these rows only, as after ``images[indices]``. Without streams: nothing.

    Args:
        indices: int64, which ones.
        count: number of rows that they are chosen from, r consecutive ones per stream; None: one per stream.
    """
    per_stream = 1 if count is None else rows_per_stream(count)
    return _rows(lambda rows: [rows[i // per_stream] for i in indices.tolist()] if per_stream else rows)


@contextmanager
def alone(count: int) -> Iterator[Callable[[int], None]]:
    """Inside the block the batch is one row of ``count``: the one whose number the yielded function was called with last.

    All that is drawn comes from the stream of that row then, also what has no row of its own: draws of numpy, of Python, of
    torch's functions that are not keyed, of a whole batch. Without streams the function does nothing.
    """
    streams = _active.get()
    if streams is None or not (per_stream := rows_per_stream(count)):
        yield lambda index: None
        return
    rows, global_seed, states = streams.rows, streams.global_seed, GlobalStates()

    def turn(index: int) -> None:
        row = rows[index // per_stream]
        streams.rows = [row]
        reseed(int(torch.randint(2**62, (1,), generator=streams.generator(row))))
        streams.global_seed = torch.initial_seed()

    try:
        yield turn
    finally:
        states.set()
        streams.rows, streams.global_seed = rows, global_seed


@contextmanager
def _reseeded(streams: Streams, seed: int) -> Iterator[None]:
    """Global generators with another seed, which is not one that a module chose for itself."""
    before = streams.global_seed
    with seeded(seed):
        streams.global_seed = torch.initial_seed()
        try:
            yield
        finally:
            streams.global_seed = before


@contextmanager
def watched() -> Iterator[SimpleNamespace]:
    """Note whether anything inside the block draws for the whole batch.

    Yields:
        ``shared``, True after the block if a draw had no row per sample, or moved a global generator.
    """
    streams, states, noted = _active.get(), GlobalStates(), SimpleNamespace(shared=False)
    before: set[str] = set()
    if streams is not None:
        before, streams.shared = streams.shared, set()
    try:
        yield noted
    finally:
        noted.shared = states != GlobalStates()
        if streams is not None:
            noted.shared |= bool(streams.shared)
            streams.shared |= before


def branch(indices: Tensor, numbers: Sequence[int]) -> Any:
    """Inside the block row j is sample ``indices[j]`` in its try ``numbers[j]``, whose stream is its own.

    So a random restart draws the same, whichever other restarts share the batch. Without streams it does nothing.
    """
    return _rows(lambda rows: [(*rows[i], _TRY, number) for i, number in zip(indices.tolist(), numbers, strict=True)])


@contextmanager
def repeated() -> Iterator[None]:
    """Common random numbers: every such block draws the same, from the start of each stream.

    Without streams torch's own generators are seeded with 0 inside the block.
    """
    streams = _active.get()
    if streams is None:
        with seeded(0):
            yield
        return
    before, streams._generators = streams._generators, {}
    try:
        with _reseeded(streams, stream_seed(*(part for key in streams.rows for part in key))):
            yield
    finally:
        streams._generators = before


def repeatable() -> Callable[[], Any]:
    """Mark the present state of the random streams; a block under the returned function draws again what follows now.

    Works in another thread as well (autograd's backward pass on a GPU).
    """
    streams = _active.get()
    states = GlobalStates()
    if streams is None:
        return states.restored
    rows, global_seed = streams.rows, streams.global_seed
    here, depth = set(rows), len(rows[0])
    marks = {key: made.get_state() for key, made in streams._generators.items() if key[:depth] in here or key[-1] == _WHOLE}
    return lambda: _replayed(streams, rows, marks, states, global_seed)


@contextmanager
def _replayed(
    streams: Streams,
    rows: list[tuple[int, ...]],
    marks: dict[tuple[int, ...], Tensor],
    states: GlobalStates,
    global_seed: int,
) -> Iterator[None]:
    now, before, seed_before = streams._generators, streams.rows, streams.global_seed
    streams._generators = {}
    for key, state in marks.items():
        streams._generators[key] = torch.Generator()
        streams._generators[key].set_state(state)
    streams.rows, streams.global_seed = rows, global_seed
    token = _active.set(streams)
    try:
        with KeyedDraws(streams), states.restored():
            yield
    finally:
        _active.reset(token)
        streams._generators, streams.rows, streams.global_seed = now, before, seed_before
