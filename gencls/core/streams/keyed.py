"""Random streams for what modules draw.

Library modules draw from torch's global generators, as ``nn.Dropout`` does, and never seed them. An evaluation wants more:
the noise that sample 17 meets should be the same in a batch of 1 and of 64, in any order, in any chunk of EoT draws, after
a resume. :func:`keyed` gives every row of the batch a stream of its own and serves the draws of any module, ours or
foreign, from these streams, row by row.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any, Literal

import torch

from gencls.core.rows import identified, present_rows, replaced, rows_per_stream
from gencls.core.streams.generators import Streams
from gencls.core.streams.seeds import GlobalStates, joint_seed, reseed, seeded, stream_seed
from gencls.core.streams.torch_functions import KeyedDraws

__all__ = ["Source", "alone", "drawing", "keyed", "repeatable", "repeated", "watched"]

Source = Literal["rows", "device"]
"""The source of random numbers: a stream of each row, or torch's own generator of each device for all rows at once."""

_active: ContextVar[Streams | None] = ContextVar("gencls_streams", default=None)


@contextmanager
def _serving(streams: Streams) -> Iterator[None]:
    token = _active.set(streams)
    try:
        with KeyedDraws(streams):
            yield
    finally:
        _active.reset(token)


@contextmanager
def keyed(seeds: Sequence[int]) -> Iterator[Streams]:
    """Draw row i of every random draw inside the block from the stream of ``seeds[i]``.

    A draw whose first dimension is a multiple r of the number of rows belongs to the rows in order, r consecutive entries each
    (``repeat_interleave``, the convention of this package). Other draws come from one stream of the whole batch and are noted
    in :attr:`Streams.shared`; a draw for the whole batch whose size is such a multiple by chance cannot be told from draws per
    row. Draws with an explicit ``generator`` argument stay as they are, and so do draws after a ``torch.manual_seed`` inside
    the block: a module that seeds a generator wants its numbers.

    Args:
        seeds: one integer per sample of the batch, see :func:`stream_seed`.

    Yields:
        The streams; after the block their ``shared`` tells which draws served the whole batch.
    """
    streams = Streams()
    with identified(seeds), _serving(streams):
        yield streams


@contextmanager
def alone(count: int) -> Iterator[Callable[[int], None]]:
    """Make the batch one row of ``count`` inside the block; a call of the yielded function with a number chooses the row.

    All draws then come from the stream of that row, also draws without a row of their own: those of numpy, of Python, of
    torch's functions that are not keyed, of a whole batch. Without streams nothing changes except who the row is.
    """
    rows, streams = present_rows(), _active.get()
    if rows is None or not (per_stream := rows_per_stream(count)):
        yield lambda index: None
        return
    present = list(rows)

    def turn(index: int) -> None:
        present[:] = [rows[index // per_stream]]
        if streams is not None:
            reseed(int(torch.randint(2**62, (1,), generator=streams.generator(*present))))
            streams.global_seed = torch.initial_seed()

    with ExitStack() as stack:
        stack.enter_context(replaced(present))
        if streams is not None:
            stack.enter_context(_as_seeded(streams, streams.global_seed))
            stack.callback(GlobalStates().set)
        yield turn


@contextmanager
def _as_seeded(streams: Streams, seed: int) -> Iterator[None]:
    """Let this seed count inside the block as one that no module chose."""
    before, streams.global_seed = streams.global_seed, seed
    try:
        yield
    finally:
        streams.global_seed = before


@contextmanager
def watched() -> Iterator[SimpleNamespace]:
    """Note whether anything inside the block draws for the whole batch.

    Yields:
        An object that is complete after the block. Its ``drew`` is True if anything was drawn. Its ``shared`` is True if a draw
        had no row per sample, or moved a global generator although those do not serve the rows.
    """
    streams, states, noted = _active.get(), GlobalStates(), SimpleNamespace(shared=False, drew=False)
    before: set[str] = set()
    if streams is not None:
        before, streams.shared = streams.shared, set()
    try:
        yield noted
    finally:
        noted.drew = states != GlobalStates()
        noted.shared = noted.drew and (streams is not None or present_rows() is None)
        if streams is not None:
            noted.drew |= streams.used
            noted.shared |= bool(streams.shared)
            streams.shared |= before


@contextmanager
def drawing(seeds: Sequence[int], source: Source = "rows") -> Iterator[SimpleNamespace]:
    """Make all draws inside the block follow from the seeds of the rows; yield the notes of :func:`watched`.

    The source "rows" works as :func:`keyed` does. With "device" torch's own generators serve all rows at once, seeded by all
    seeds together. This is faster on a GPU. A row's numbers then depend on its batch, its chunk and its device.
    """
    rows: Any = keyed(seeds) if source == "rows" else identified(seeds)
    with seeded(stream_seed(*seeds)), rows, watched() as noted:
        yield noted


@contextmanager
def repeated() -> Iterator[None]:
    """Common random numbers: every such block draws the same, from the start of each stream.

    Without streams it seeds torch's own generators inside the block, by the keys of the rows or, without keys, with 0.
    """
    rows, streams = present_rows(), _active.get()
    seed = 0 if rows is None else joint_seed(rows)
    with (
        nullcontext() if streams is None else streams.from_the_start(),
        seeded(seed),
        nullcontext() if streams is None else _as_seeded(streams, torch.initial_seed()),
    ):
        yield


def repeatable() -> Callable[[], Any]:
    """Mark the present state of the random streams. A block under the returned function repeats the draws that follow now.

    Works in another thread as well (autograd's backward pass on a GPU).
    """
    present, streams, states = present_rows(), _active.get(), GlobalStates()
    if present is None:
        return states.restored
    rows = list(present)  # :func:`alone` changes its list
    marks, seed = ({}, 0) if streams is None else (streams.marks(), streams.global_seed)

    @contextmanager
    def again() -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(replaced(rows))
            if streams is not None:
                stack.enter_context(streams.back_at(marks))
                stack.enter_context(_as_seeded(streams, seed))
                stack.enter_context(_serving(streams))
            stack.enter_context(states.restored())
            yield

    return again
