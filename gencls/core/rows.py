"""Who the rows of a batch are: an explicit value, whatever they draw and wherever it comes from.

Row 17 may be the third draw of the second restart of a sample. Its key says so: a tuple that begins with the sample, and then
has the numbers of the draw and the try. Random streams are made of these keys (:mod:`gencls.core.streams.generators`). An
inference that goes on from its last look finds the sample again by them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

from torch import Tensor

from gencls.core.settings import plain

__all__ = ["Row", "branch", "draws", "identified", "present_rows", "replaced", "rows_per_stream", "select"]

Row = tuple[int, ...]
"""A row's sample, then the numbers of its draw and its try."""

_TRY = -2  # before the number of a try: draws are numbered from 0

_present: ContextVar[list[Row] | None] = ContextVar("gencls_rows", default=None)


@contextmanager
def replaced(rows: list[Row]) -> Iterator[None]:
    """Inside the block these are the rows of the batch."""
    token = _present.set(rows)
    try:
        yield
    finally:
        _present.reset(token)


def identified(samples: Sequence[int]) -> AbstractContextManager[None]:
    """Inside the block row i of the batch is the sample of this number, for instance one by :func:`gencls.core.stream_seed`."""
    return replaced([(plain(sample),) for sample in samples])


def present_rows() -> list[Row] | None:
    """Who the rows of the batch are, not to be changed; None where nobody has said."""
    return _present.get()


def _changed(change: Callable[[list[Row]], list[Row]]) -> AbstractContextManager[None]:
    rows = _present.get()
    return nullcontext() if rows is None else replaced(change(rows))


def draws(numbers: range) -> AbstractContextManager[None]:
    """Inside the block each row of the batch is repeated for these draws (as by ``repeat_interleave``).

    The streams are keyed by (sample, draw), so that the chunking of draws does not matter. Where rows have no keys it does
    nothing.
    """
    return _changed(lambda rows: [(*key, number) for key in rows for number in numbers])


def rows_per_stream(count: int) -> int:
    """How many consecutive rows of a batch of so many have one key; 1 where rows have none, 0 if they belong to no keys."""
    rows = _present.get()
    if rows is None:
        return 1
    return count // len(rows) if rows and count % len(rows) == 0 else 0


def select(indices: Tensor, count: int | None = None) -> AbstractContextManager[None]:
    """Inside the block the batch consists of these rows only, as after ``images[indices]``. Where rows have no keys: nothing.

    Args:
        indices: int64, which ones.
        count: number of rows that they are chosen from, r consecutive ones per key; None: one per key.
    """
    per_key = 1 if count is None else rows_per_stream(count)
    return _changed(lambda rows: [rows[i // per_key] for i in indices.tolist()] if per_key else rows)


def branch(indices: Tensor, numbers: Sequence[int]) -> AbstractContextManager[None]:
    """Inside the block row j is sample ``indices[j]`` in its try ``numbers[j]``, which has a key of its own.

    So a random restart draws the same, whichever other restarts share the batch. Where rows have no keys it does nothing.
    """
    return _changed(lambda rows: [(*rows[i], _TRY, number) for i, number in zip(indices.tolist(), numbers, strict=True)])
