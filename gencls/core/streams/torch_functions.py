"""Torch's random functions, all in one table, served from the streams of the rows."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional, init
from torch.overrides import TorchFunctionMode

from gencls.core.errors import GenclsError
from gencls.core.streams.for_all_rows import FOR_ALL_ROWS, for_all_rows
from gencls.core.streams.generators import Streams
from gencls.core.streams.recomputed import is_checkpointed

__all__ = ["KeyedDraws"]

Draw = Callable[[Tensor, torch.Generator], object]
Serve = Callable[..., Any]


class KeyedDraws(TorchFunctionMode):
    """Serves a random function of torch row by row, or from the whole batch's stream with a note, or refuses it by name."""

    def __init__(self, streams: Streams) -> None:
        """Take the streams of a batch."""
        super().__init__()
        self.streams = streams

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        serve = _SERVED.get(func)
        if serve is None or torch.initial_seed() != self.streams.global_seed:
            return func(*args, **kwargs)
        if is_checkpointed():
            self.streams.note_shared(f"{func.__name__} inside torch.utils.checkpoint")
            return func(*args, **kwargs)
        if owner := FOR_ALL_ROWS.get(sys._getframe(1).f_code):
            return for_all_rows(func, owner)(self.streams, *args, **kwargs)
        if kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        given = [kwargs["input"]] if "input" in kwargs else []
        more = {name: value for name, value in kwargs.items() if name not in ("generator", "input", "out")}
        out, drawn = kwargs.get("out"), serve(self.streams, *given, *args, **more)
        return drawn if out is None else out.resize_(drawn.shape).copy_(drawn)


def _filled(streams: Streams, out: Tensor, draw: Draw, what: str) -> Tensor:
    """Fill ``out`` row by row with ``draw(row, generator)``, on the CPU, so that every device gets the same numbers."""
    if not out.numel():  # nothing is drawn: an attack may let no row begin
        return out
    generators = streams.of_entries(out.shape, what)
    each = [(out, streams.whole())] if generators is None else list(zip(out.unbind(0), generators, strict=True))
    for part, generator in each:
        draw(part, generator)
    return out


def _fresh(
    streams: Streams,
    shape: Sequence[int],
    draw: Draw,
    what: str,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **_: Any,
) -> Tensor:
    drawn = _filled(streams, torch.empty(tuple(shape), dtype=dtype, device="cpu"), draw, what)
    return drawn.to(device or torch.get_default_device()).requires_grad_(requires_grad)


def _size(size: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[int]:
    if "size" in kwargs:
        size = (kwargs.pop("size"),)
    return size[0] if len(size) == 1 and not isinstance(size[0], int) else size


def _creates(draw: Draw, what: str) -> Serve:
    return lambda streams, *size, **kwargs: _fresh(streams, _size(size, kwargs), draw, what, **kwargs)


def _fresh_like(
    streams: Streams, like: Tensor, draw: Draw, what: str, *, dtype: Any = None, device: Any = None, **kw: Any
) -> Tensor:
    return _fresh(streams, like.shape, draw, what, dtype=dtype or like.dtype, device=device or like.device, **kw)


def _like(draw: Draw, what: str) -> Serve:
    return lambda streams, like, **kwargs: _fresh_like(streams, like, draw, what, **kwargs)


def _in_place(name: str) -> Serve:
    def serve(streams: Streams, out: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        odds = args[0] if args else kwargs.get("p")
        if name == "bernoulli_" and isinstance(odds, Tensor):
            return out.copy_(_bernoulli(streams, odds.expand_as(out)))
        values = torch.empty(out.shape, dtype=out.dtype, device="cpu")
        return out.copy_(_filled(streams, values, lambda row, g: getattr(row, name)(*args, generator=g, **kwargs), name))

    return serve


def _bounds(args: Sequence[Any], kwargs: dict[str, Any], *more: str) -> tuple[Draw, list[Any]]:
    """Make a function that draws from [low, high), and return it with the other arguments of randint."""
    from_zero = len(args) + len(kwargs.keys() & {"low", "high", *more}) == 1 + len(more)
    names = ("high", *more) if from_zero else ("low", "high", *more)
    given = {**dict(zip(names, args, strict=False)), **{name: kwargs.pop(name) for name in names if name in kwargs}}
    low, high = given.get("low", 0), given["high"]
    return lambda row, g: row.random_(low, high, generator=g), [given[name] for name in more]


def _randint(streams: Streams, *args: Any, dtype: Any = torch.int64, **kwargs: Any) -> Tensor:
    draw, (size,) = _bounds(args, kwargs, "size")
    return _fresh(streams, size, draw, "randint", dtype=dtype, **kwargs)


def _randint_like(streams: Streams, like: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return _fresh_like(streams, like, _bounds(args, kwargs)[0], "randint_like", **kwargs)


def _normal(streams: Streams, mean: Any = 0.0, std: Any = 1.0, size: Any = None, **kwargs: Any) -> Tensor:
    if size is not None:
        drawn = _fresh(streams, size, _draw_normal, "normal", **kwargs)
    else:
        shape = torch.broadcast_shapes(*(v.shape for v in (mean, std) if isinstance(v, Tensor)))
        like = mean if isinstance(mean, Tensor) else std
        drawn = _fresh(streams, shape, _draw_normal, "normal", dtype=like.dtype, device=like.device)
    return drawn.mul(std).add(mean)


def _uniform_like(streams: Streams, like: Tensor, what: str, shape: Sequence[int] | None = None) -> Tensor:
    return _fresh(streams, shape or like.shape, _draw_uniform, what, dtype=like.dtype, device=like.device)


def _bernoulli(streams: Streams, values: Tensor, p: float | None = None) -> Tensor:
    return (_uniform_like(streams, values, "bernoulli") < (values if p is None else p)).to(values.dtype)


def _dropout(whole_channels: bool) -> Serve:
    def serve(streams: Streams, values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0.0:
            return values
        shape = (*values.shape[:2], *(1 for _ in values.shape[2:])) if whole_channels else tuple(values.shape)
        keep = (_uniform_like(streams, values, "dropout", shape) >= p).to(values.dtype) / (1.0 - p if p < 1.0 else 1.0)
        return values.mul_(keep) if inplace else values * keep

    return serve


def _attention(
    streams: Streams,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **kwargs: Any,
) -> Tensor:
    """With dropout, compute the weights first, as the attention to an identity: torch would draw inside."""
    attend: Callable[..., Tensor] = functional.scaled_dot_product_attention
    if dropout_p == 0.0:
        return attend(query, key, value, attn_mask, dropout_p, is_causal, **kwargs)
    each = torch.eye(key.shape[-2], dtype=key.dtype, device=key.device).expand(*key.shape[:-1], -1)
    weights = _dropout(whole_channels=False)(streams, attend(query, key, each, attn_mask, 0.0, is_causal, **kwargs), dropout_p)
    if kwargs.get("enable_gqa"):
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    attended: Tensor = weights @ value
    return attended


def _by_row(func: Callable[..., Tensor], event: int = 0) -> Serve:
    """Serve a function whose draws depend on its input's values; the last ``event`` dimensions are one distribution."""

    def serve(streams: Streams, *args: Any, **kwargs: Any) -> Tensor:
        values = torch.broadcast_tensors(*(given for given in args if isinstance(given, Tensor)))
        shape, device, more = values[0].shape, values[0].device, args[len(values) :]
        if not shape.numel() or isinstance(args[-1], torch.Generator):
            return func(*args, **kwargs)
        generators = streams.of_entries(shape, func.__name__.strip("_"), event)
        values = tuple(value.cpu() for value in values)
        if generators is None:
            return func(*values, *more, generator=streams.whole(), **kwargs).to(device)
        rows = zip(*(value.unbind(0) for value in values), strict=True)
        drawn = [func(*row, *more, generator=one, **kwargs) for row, one in zip(rows, generators, strict=True)]
        return torch.stack(drawn).to(device)

    return serve


def _opened(func: Any) -> Serve:
    """Serve a function made of others by a copy whose parts are seen. Torch would show the whole and hide the parts."""
    hidden = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    known = {**func.__globals__, **dict.fromkeys(hidden, lambda *tensors: False)}
    copy = FunctionType(func.__code__, known, func.__name__, func.__defaults__, func.__closure__)
    copy.__kwdefaults__ = func.__kwdefaults__

    def serve(streams: Streams, *args: Any, **kwargs: Any) -> Any:
        with KeyedDraws(streams):
            return copy(*args, **kwargs)

    return serve


def _unsupported(func: Callable[..., Tensor]) -> Serve:
    def serve(streams: Streams, *args: Any, **kwargs: Any) -> Tensor:
        if kwargs.get("training", kwargs.get("train", args[-1])) is True:  # draws nothing otherwise
            raise GenclsError(f"{func.__name__} draws in a way that cannot be keyed by sample; use dropout or dropout2d")
        return func(*args, **kwargs)

    return serve


def _draw_normal(row: Tensor, generator: torch.Generator) -> object:
    return row.normal_(generator=generator)


def _draw_uniform(row: Tensor, generator: torch.Generator) -> object:
    return row.uniform_(generator=generator)


_SERVED: dict[Any, Serve] = {
    torch.randn: _creates(_draw_normal, "randn"),
    torch.rand: _creates(_draw_uniform, "rand"),
    torch.randn_like: _like(_draw_normal, "randn_like"),
    torch.rand_like: _like(_draw_uniform, "rand_like"),
    torch.randint: _randint,
    torch.randint_like: _randint_like,
    torch.normal: _normal,
    torch.bernoulli: _bernoulli,
    Tensor.bernoulli: _bernoulli,
    **dict.fromkeys((torch.multinomial, Tensor.multinomial), _by_row(torch.multinomial, 1)),
    **{func: _by_row(func) for func in (torch.poisson, torch.binomial, torch._standard_gamma)},
    torch._sample_dirichlet: _by_row(torch._sample_dirichlet, 1),
    # The functions of torch.nn.functional call those of torch with the mode switched off, hence both.
    **dict.fromkeys((torch.dropout, functional.dropout), _dropout(whole_channels=False)),
    **dict.fromkeys(
        (torch.feature_dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d), _dropout(whole_channels=True)
    ),
    torch.dropout_: partial(_dropout(whole_channels=False), inplace=True),
    torch.feature_dropout_: partial(_dropout(whole_channels=True), inplace=True),
    functional.scaled_dot_product_attention: _attention,
    **{
        function: _opened(function)
        for function in (
            functional.gumbel_softmax,
            functional.multi_head_attention_forward,
            functional.fractional_max_pool2d_with_indices,
            functional.fractional_max_pool3d_with_indices,
        )
    },
    **{
        getattr(functional, name): _opened(getattr(functional, f"_{name}"))
        for name in ("fractional_max_pool2d", "fractional_max_pool3d")
    },
    **{
        getattr(module, name): for_all_rows(getattr(module, name))
        for module, names in {
            torch: "randperm native_dropout _fused_dropout lstm gru rnn_tanh rnn_relu",
            init: "normal_ uniform_ kaiming_uniform_",
        }.items()
        for name in names.split()
    },
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
