"""The random generators of a batch: one per row, so that a row's numbers do not depend on the others."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from gencls.core.rows import Row, present_rows
from gencls.core.streams.seeds import joint_seed, stream_seed

__all__ = ["Streams"]

_WHOLE = -1  # in the key of a stream that the whole batch shares


class Streams:
    """The random streams of a batch, one generator per (row, draw), made when first used and kept between forwards.

    Attributes:
        shared: descriptions of draws that had no row per sample and so came from one stream of the whole batch. Results that
            depend on them depend on how samples were batched.
        used: whether any module drew a number.
    """

    def __init__(self) -> None:
        """Begin without generators."""
        self.shared: set[str] = set()
        self.used = False
        self.global_seed = torch.initial_seed()
        self._generators: dict[Row, torch.Generator] = {}

    @property
    def rows(self) -> list[Row]:
        """The keys of the batch's rows."""
        return present_rows() or []

    def generator(self, key: Row) -> torch.Generator:
        """The stream of one row; a row within EoT has the key (seed of the sample, draw)."""
        if key not in self._generators:
            seed = key[0] if len(key) == 1 else stream_seed(*key)
            self._generators[key] = torch.Generator().manual_seed(seed)
        return self._generators[key]

    def whole(self) -> torch.Generator:
        """The one stream of the whole batch, for draws that have no row per sample."""
        return self.generator((joint_seed(self.rows), _WHOLE))

    def note_shared(self, what: str) -> None:
        """Note that a draw served the whole batch."""
        self.used = True
        self.shared.add(f"{what} in a batch of {len(self.rows)}")

    def of_entries(self, shape: torch.Size, what: str, event: int = 0) -> list[torch.Generator] | None:
        """The stream of each entry of the first dimension. If the entries belong to no rows: None, and a note of it.

        One draw fills the last ``event`` dimensions together.
        """
        self.used, rows = True, self.rows
        if len(shape) <= event or not rows or shape[0] % len(rows):
            self.note_shared(f"{what} of shape {tuple(shape)}")
            return None
        per_row = shape[0] // len(rows)
        return [generator for row in rows for generator in [self.generator(row)] * per_row]

    @contextmanager
    def from_the_start(self) -> Iterator[None]:
        """Begin every stream anew inside the block."""
        before, self._generators = self._generators, {}
        try:
            yield
        finally:
            self._generators = before

    def marks(self) -> dict[Row, Tensor]:
        """The present states of the streams: those of the rows, of their draws and tries, and of whole batches."""
        here = set(self.rows)
        depth = len(next(iter(here), ()))
        made = self._generators.items()
        return {key: one.get_state() for key, one in made if key[:depth] in here or key[-1] == _WHOLE}

    @contextmanager
    def back_at(self, marks: dict[Row, Tensor]) -> Iterator[None]:
        """Continue streams from marked states inside the block, and begin others anew."""
        with self.from_the_start():
            for key, state in marks.items():
                self._generators[key] = torch.Generator()
                self._generators[key].set_state(state)
            yield
