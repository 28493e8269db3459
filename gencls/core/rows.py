"""The identity of the rows of a batch: an explicit value, whoever draws for them and wherever the batch comes from.

Row 17 may be the third draw of the second restart of a sample. Its key says so: a tuple that begins with the sample, and
continues with the numbers of the draw and the try. Random streams are made of these keys
(:mod:`gencls.core.streams.generators`). An inference that goes on from its last result finds the sample again by them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

from torch import Tensor

from gencls.core.settings import plain

__all__ = ["Row", "branch", "draws", "identified", "present_rows", "replaced", "rows_per_stream", "select"]

Row = tuple[int, ...]
"""The key of a row: its sample, then the numbers of its draw and its try."""

_TRY = -2  # before the number of a try: draws are numbered from 0

_present: ContextVar[list[Row] | None] = ContextVar("gencls_rows", default=None)


@contextmanager
def replaced(rows: list[Row]) -> Iterator[None]:
    """Replace the rows of the batch inside the block."""
    token = _present.set(rows)
    try:
        yield
    finally:
        _present.reset(token)


def identified(samples: Sequence[int]) -> AbstractContextManager[None]:
    """Number the rows of the batch inside the block: row i is ``samples[i]``, such as a :func:`gencls.core.stream_seed`."""
    return replaced([(plain(sample),) for sample in samples])


def present_rows() -> list[Row] | None:
    """The rows of the batch, not to be changed; None if nobody has named them."""
    return _present.get()


def _changed(change: Callable[[list[Row]], list[Row]]) -> AbstractContextManager[None]:
    rows = _present.get()
    return nullcontext() if rows is None else replaced(change(rows))


def draws(numbers: range) -> AbstractContextManager[None]:
    """Repeat each row of the batch for these draws inside the block, as ``repeat_interleave`` does.

    The streams are keyed by (sample, draw), so that the chunking of draws does not matter. It does nothing if rows have no
    keys.
    """
    return _changed(lambda rows: [(*key, number) for key in rows for number in numbers])


def rows_per_stream(count: int) -> int:
    """How many consecutive rows of a batch of ``count`` share one key; 1 if rows have no keys, 0 if the batch fits no keys."""
    rows = _present.get()
    if rows is None:
        return 1
    return count // len(rows) if rows and count % len(rows) == 0 else 0


def select(indices: Tensor, count: int | None = None) -> AbstractContextManager[None]:
    """Keep only these rows of the batch inside the block, as ``images[indices]`` does. Without keys it does nothing.

    Args:
        indices: the rows to keep, int64, (M,).
        count: the number of rows to choose from, r consecutive ones per key; None means one per key.
    """
    per_key = 1 if count is None else rows_per_stream(count)
    return _changed(lambda rows: [rows[i // per_key] for i in indices.tolist()] if per_key else rows)


def branch(indices: Tensor, numbers: Sequence[int]) -> AbstractContextManager[None]:
    """Give each try a key of its own inside the block: row j is sample ``indices[j]`` in its try ``numbers[j]``.

    So a random restart draws the same, whichever other restarts share the batch. It does nothing if rows have no keys.
    """
    return _changed(lambda rows: [(*rows[i], _TRY, number) for i, number in zip(indices.tolist(), numbers, strict=True)])
