"""Torch's random functions, served row by row from the streams of :mod:`gencls.core.streams.streams`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from gencls.core.errors import GenclsError

if TYPE_CHECKING:
    from gencls.core.streams.streams import Streams

__all__ = ["KeyedDraws"]


class KeyedDraws(TorchFunctionMode):
    """Serves torch's random functions from the streams of the rows."""

    def __init__(self, streams: "Streams") -> None:
        """Take the streams of a batch."""
        super().__init__()
        self.streams = streams

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        serve = _SERVED.get(func)
        if serve is None or kwargs.get("generator") is not None or torch.initial_seed() != self.streams.global_seed:
            return func(*args, **kwargs)
        return serve(self.streams, *args, **kwargs)


def _fresh(
    streams: "Streams", shape: Sequence[int], draw: Callable[..., object], what: str, *, dtype: Any = None, device: Any = None
) -> Tensor:
    out = torch.empty(tuple(shape), dtype=dtype, device="cpu")
    return streams.fill(out, draw, what).to(device or torch.get_default_device())


def _size(size: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[int]:
    if "size" in kwargs:
        size = (kwargs["size"],)
    return size[0] if len(size) == 1 and not isinstance(size[0], int) else size


def _creates(draw: Callable[[Tensor, torch.Generator], object], what: str) -> Callable[..., Tensor]:
    def serve(
        streams: "Streams", *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, **kw: Any
    ) -> Tensor:
        drawn = _fresh(streams, _size(size, kw), draw, what, dtype=dtype, device=device)
        return drawn.requires_grad_(requires_grad) if kw.get("out") is None else cast(Tensor, kw["out"].copy_(drawn))

    return serve


def _like(draw: Callable[[Tensor, torch.Generator], object], what: str) -> Callable[..., Tensor]:
    def serve(
        streams: "Streams", like: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any
    ) -> Tensor:
        drawn = _fresh(streams, like.shape, draw, what, dtype=dtype or like.dtype, device=device or like.device)
        return drawn.requires_grad_(requires_grad)

    return serve


def _in_place(name: str) -> Callable[..., Tensor]:
    def serve(streams: "Streams", out: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        odds = args[0] if args else kwargs.get("p")
        if name == "bernoulli_" and isinstance(odds, Tensor):
            return out.copy_(_bernoulli(streams, odds.expand_as(out)))
        kwargs.pop("generator", None)
        values = torch.empty(out.shape, dtype=out.dtype, device="cpu")
        return out.copy_(streams.fill(values, lambda row, g: getattr(row, name)(*args, generator=g, **kwargs), name))

    return serve


def _randint(streams: "Streams", *args: Any, dtype: Any = torch.int64, device: Any = None, **kwargs: Any) -> Tensor:
    names = ("high", "size") if len(args) + len(kwargs.keys() & {"low", "high", "size"}) == 2 else ("low", "high", "size")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    low, high = given.get("low", 0), given["high"]
    return _fresh(
        streams, given["size"], lambda row, g: row.random_(low, high, generator=g), "randint", dtype=dtype, device=device
    )


def _normal(streams: "Streams", mean: Any, std: Any = 1.0, size: Any = None, **kwargs: Any) -> Tensor:
    kwargs.pop("generator", None)
    if size is not None:
        drawn = _creates(_draw_normal, "normal")(streams, size, **kwargs)
    else:
        shape = torch.broadcast_shapes(*(v.shape for v in (mean, std) if isinstance(v, Tensor)))
        like = mean if isinstance(mean, Tensor) else std
        drawn = _fresh(streams, shape, _draw_normal, "normal", dtype=like.dtype, device=like.device)
    return drawn.mul(std).add(mean)


def _uniform_like(streams: "Streams", like: Tensor, what: str, shape: Sequence[int] | None = None) -> Tensor:
    return _fresh(streams, shape or like.shape, _draw_uniform, what, dtype=like.dtype, device=like.device)


def _bernoulli(streams: "Streams", values: Tensor, p: float | None = None, **_: Any) -> Tensor:
    return (_uniform_like(streams, values, "bernoulli") < (values if p is None else p)).to(values.dtype)


def _dropout(whole_channels: bool) -> Callable[..., Tensor]:
    def serve(streams: "Streams", values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0.0:
            return values
        shape = (*values.shape[:2], *(1 for _ in values.shape[2:])) if whole_channels else tuple(values.shape)
        keep = (_uniform_like(streams, values, "dropout", shape) >= p).to(values.dtype) / (1.0 - p if p < 1.0 else 1.0)
        return values.mul_(keep) if inplace else values * keep

    return serve


def _by_row(func: Callable[..., Tensor], what: str) -> Callable[..., Tensor]:
    """For functions whose draws depend on their input's values: one call per row."""

    def serve(streams: "Streams", values: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        kwargs.pop("generator", None)
        count = len(streams.rows)
        streams.used = True
        if values.ndim < 2 or values.shape[0] % count:
            streams.shared.add(f"{what} of shape {tuple(values.shape)} in a batch of {count}")
            return func(values.cpu(), *args, generator=streams.whole(), **kwargs).to(values.device)
        per_row = values.shape[0] // count
        return torch.stack(
            [
                func(row, *args, generator=streams.generator(streams.rows[i // per_row]), **kwargs)
                for i, row in enumerate(values.cpu().unbind(0))
            ]
        ).to(values.device)

    return serve


def _unsupported(func: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def serve(streams: "Streams", *args: Any, **kwargs: Any) -> Tensor:
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
