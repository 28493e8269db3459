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
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from gencls.core.errors import GenclsError

__all__ = ["Streams", "draws", "keyed", "seeded", "select", "stream_seed"]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU and CUDA generators inside the block and restore their states on exit.

    Args:
        seed: any integer of at most 64 bits.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def stream_seed(*parts: object) -> int:
    """A 63-bit seed from a path of names and numbers, equal on every machine: (study seed, sample, role, draw)."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Streams:
    """The random streams of a batch, one generator per (row, draw), made when first used and kept between forwards.

    Attributes:
        shared: descriptions of draws that had no row per sample and so came from one stream of the whole batch; results
            that depend on them depend on how samples were batched.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        """Take one seed per row of the batch, see :func:`stream_seed`."""
        self.rows: list[tuple[int, ...]] = [(seed,) for seed in seeds]
        self.shared: set[str] = set()
        self._generators: dict[tuple[int, ...], torch.Generator] = {}

    @property
    def used(self) -> bool:
        """Whether anything was drawn."""
        return bool(self._generators)

    def generator(self, key: tuple[int, ...]) -> torch.Generator:
        """The stream of one row; a row within EoT has the key (seed of the sample, draw)."""
        if key not in self._generators:
            seed = key[0] if len(key) == 1 else stream_seed(*key)
            self._generators[key] = torch.Generator().manual_seed(seed)
        return self._generators[key]

    def fill(self, out: Tensor, draw: Callable[[Tensor, torch.Generator], object], what: str) -> Tensor:
        """Let ``draw(row, generator)`` write each row of ``out`` (on the CPU: the same numbers for every device)."""
        count = len(self.rows)
        if out.ndim and out.shape[0] and out.shape[0] % count == 0:
            per_row = out.shape[0] // count
            for index, row in enumerate(out.unbind(0)):
                draw(row, self.generator(self.rows[index // per_row]))
        else:
            self.shared.add(f"{what} of shape {tuple(out.shape)} in a batch of {count}")
            draw(out, self.generator((stream_seed(*(part for key in self.rows for part in key)), -1)))
        return out


_active: ContextVar[Streams | None] = ContextVar("gencls_streams", default=None)


@contextmanager
def keyed(seeds: Sequence[int]) -> Iterator[Streams]:
    """Inside the block, row i of every random draw comes from the stream of ``seeds[i]``.

    A draw whose first dimension is a multiple r of the number of rows belongs to the rows in order, r consecutive entries
    each (``repeat_interleave``, the convention of this package). Other draws come from one stream of the whole batch and are
    noted in :attr:`Streams.shared`; a draw for the whole batch whose size is such a multiple by chance cannot be told from
    draws per row. Draws with an explicit ``generator`` argument are left alone.

    Args:
        seeds: one per sample of the batch, see :func:`stream_seed`.

    Yields:
        The streams, to be asked for ``shared`` afterwards.
    """
    streams = Streams(seeds)
    token = _active.set(streams)
    try:
        with _KeyedDraws(streams):
            yield streams
    finally:
        _active.reset(token)


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


def select(indices: Tensor) -> Any:
    """Inside the block the batch consists of these rows only, as after ``images[indices]``. Without streams: nothing."""
    return _rows(lambda rows: [rows[i] for i in indices.tolist()])


class _KeyedDraws(TorchFunctionMode):
    """Serves torch's random functions from the streams of the rows."""

    def __init__(self, streams: Streams) -> None:
        super().__init__()
        self.streams = streams

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        serve = _SERVED.get(func)
        if serve is None or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        return serve(self.streams, *args, **kwargs)


def _fresh(
    streams: Streams, shape: Sequence[int], draw: Callable[..., object], what: str, *, dtype: Any = None, device: Any = None
) -> Tensor:
    out = torch.empty(tuple(shape), dtype=dtype, device="cpu")
    return streams.fill(out, draw, what).to(device or torch.get_default_device())


def _size(size: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[int]:
    if "size" in kwargs:
        size = (kwargs["size"],)
    return size[0] if len(size) == 1 and not isinstance(size[0], int) else size


def _creates(draw: Callable[[Tensor, torch.Generator], object], what: str) -> Callable[..., Tensor]:
    def serve(
        streams: Streams, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, **kw: Any
    ) -> Tensor:
        drawn = _fresh(streams, _size(size, kw), draw, what, dtype=dtype, device=device)
        return drawn.requires_grad_(requires_grad) if kw.get("out") is None else cast(Tensor, kw["out"].copy_(drawn))

    return serve


def _like(draw: Callable[[Tensor, torch.Generator], object], what: str) -> Callable[..., Tensor]:
    def serve(
        streams: Streams, like: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any
    ) -> Tensor:
        drawn = _fresh(streams, like.shape, draw, what, dtype=dtype or like.dtype, device=device or like.device)
        return drawn.requires_grad_(requires_grad)

    return serve


def _in_place(name: str) -> Callable[..., Tensor]:
    def serve(streams: Streams, out: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        odds = args[0] if args else kwargs.get("p")
        if name == "bernoulli_" and isinstance(odds, Tensor):
            return out.copy_(_bernoulli(streams, odds.expand_as(out)))
        kwargs.pop("generator", None)
        values = torch.empty(out.shape, dtype=out.dtype, device="cpu")
        return out.copy_(streams.fill(values, lambda row, g: getattr(row, name)(*args, generator=g, **kwargs), name))

    return serve


def _randint(streams: Streams, *args: Any, dtype: Any = torch.int64, device: Any = None, **kwargs: Any) -> Tensor:
    names = ("high", "size") if len(args) + len(kwargs.keys() & {"low", "high", "size"}) == 2 else ("low", "high", "size")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    low, high = given.get("low", 0), given["high"]
    return _fresh(
        streams, given["size"], lambda row, g: row.random_(low, high, generator=g), "randint", dtype=dtype, device=device
    )


def _normal(streams: Streams, mean: Any, std: Any = 1.0, size: Any = None, **kwargs: Any) -> Tensor:
    kwargs.pop("generator", None)
    if size is not None:
        drawn = _creates(_draw_normal, "normal")(streams, size, **kwargs)
    else:
        shape = torch.broadcast_shapes(*(v.shape for v in (mean, std) if isinstance(v, Tensor)))
        like = mean if isinstance(mean, Tensor) else std
        drawn = _fresh(streams, shape, _draw_normal, "normal", dtype=like.dtype, device=like.device)
    return drawn.mul(std).add(mean)


def _uniform_like(streams: Streams, like: Tensor, what: str, shape: Sequence[int] | None = None) -> Tensor:
    return _fresh(streams, shape or like.shape, _draw_uniform, what, dtype=like.dtype, device=like.device)


def _bernoulli(streams: Streams, values: Tensor, p: float | None = None, **_: Any) -> Tensor:
    return (_uniform_like(streams, values, "bernoulli") < (values if p is None else p)).to(values.dtype)


def _dropout(whole_channels: bool) -> Callable[..., Tensor]:
    def serve(streams: Streams, values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0.0:
            return values
        shape = (*values.shape[:2], *(1 for _ in values.shape[2:])) if whole_channels else tuple(values.shape)
        keep = (_uniform_like(streams, values, "dropout", shape) >= p).to(values.dtype) / (1.0 - p if p < 1.0 else 1.0)
        return values.mul_(keep) if inplace else values * keep

    return serve


def _by_row(func: Callable[..., Tensor], what: str) -> Callable[..., Tensor]:
    """For functions whose draws depend on their input's values: one call per row."""

    def serve(streams: Streams, values: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        kwargs.pop("generator", None)
        count = len(streams.rows)
        if values.ndim < 2 or values.shape[0] % count:
            streams.shared.add(f"{what} of shape {tuple(values.shape)} in a batch of {count}")
            whole = streams.generator((stream_seed(*(part for key in streams.rows for part in key)), -1))
            return func(values.cpu(), *args, generator=whole, **kwargs).to(values.device)
        per_row = values.shape[0] // count
        return torch.stack(
            [
                func(row, *args, generator=streams.generator(streams.rows[i // per_row]), **kwargs)
                for i, row in enumerate(values.cpu().unbind(0))
            ]
        ).to(values.device)

    return serve


def _unsupported(func: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def serve(streams: Streams, *args: Any, **kwargs: Any) -> Tensor:
        if kwargs.get("training", kwargs.get("train", args[-1])) is True:  # draws nothing otherwise
            raise GenclsError(f"{func.__name__} draws in a way that cannot be keyed by sample; use dropout or dropout2d")
        return func(*args, **kwargs)

    return serve


def _draw_normal(row: Tensor, generator: torch.Generator) -> object:
    return row.normal_(generator=generator)


def _draw_uniform(row: Tensor, generator: torch.Generator) -> object:
    return row.uniform_(generator=generator)


_SERVED: dict[Any, Callable[..., Tensor]] = {
    torch.randn: _creates(_draw_normal, "randn"),
    torch.rand: _creates(_draw_uniform, "rand"),
    torch.randn_like: _like(_draw_normal, "randn_like"),
    torch.rand_like: _like(_draw_uniform, "rand_like"),
    torch.randint: _randint,
    torch.normal: _normal,
    torch.bernoulli: _bernoulli,
    Tensor.bernoulli: _bernoulli,
    torch.poisson: _by_row(torch.poisson, "poisson"),
    torch.multinomial: _by_row(torch.multinomial, "multinomial"),
    Tensor.multinomial: _by_row(torch.multinomial, "multinomial"),
    # The functions of torch.nn.functional call those of torch with the mode switched off, hence both.
    **dict.fromkeys((torch.dropout, functional.dropout), _dropout(whole_channels=False)),
    **dict.fromkeys(
        (torch.feature_dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d), _dropout(whole_channels=True)
    ),
    torch.dropout_: partial(_dropout(whole_channels=False), inplace=True),
    torch.feature_dropout_: partial(_dropout(whole_channels=True), inplace=True),
    **{
        function: _unsupported(function)
        for name in ("alpha_dropout", "feature_alpha_dropout", "rrelu")
        for function in (getattr(torch, name), getattr(torch, f"{name}_"), getattr(functional, name))
    },
    **{
        getattr(Tensor, name): _in_place(name)
        for name in ("normal_", "uniform_", "bernoulli_", "exponential_", "random_", "cauchy_", "log_normal_", "geometric_")
    },
}
