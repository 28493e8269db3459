"""Functions of torch that draw for all rows at once, and how they are served."""

import inspect
from collections.abc import Callable, Mapping
from itertools import pairwise
from types import CodeType
from typing import Any

import torch
from torch._lowrank import get_approximate_basis
from torch.distributions.von_mises import _rejection_sample
from torch.distributions.wishart import Wishart
from torch.nn import init

from gencls.core.streams.generators import Streams
from gencls.core.streams.seeds import GlobalStates, seeded

__all__ = ["FOR_ALL_ROWS", "for_all_rows"]

FOR_ALL_ROWS: Mapping[CodeType, str] = {
    get_approximate_basis.__code__: "svd_lowrank or pca_lowrank",  # one basis for all matrices
    inspect.unwrap(_rejection_sample).__code__: "VonMises",  # tries again for all rows until the last one is accepted
    Wishart._bartlett_sampling.__code__: "Wishart",  # so does this one
    init.orthogonal_.__code__: "orthogonal_",  # one basis
}
"""Names of functions in Python whose draws may look like rows by chance, by their code. Torch shows only the draws in them, so
the caller of a draw is looked up here."""


def for_all_rows(func: Any, name: str = "") -> Callable[..., Any]:
    """Serve a function whose numbers belong to no row, or that draws inside for all rows at once."""

    def serve(streams: Streams, *args: Any, **kwargs: Any) -> Any:
        if _cannot_drop(args):
            return func(*args, **kwargs)
        with seeded(int(torch.randint(2**62, (1,), generator=streams.whole()))):
            before, drawn = GlobalStates(), func(*args, **kwargs)
            if before != GlobalStates():
                streams.note_shared(name or func.__name__)
        return drawn

    return serve


def _cannot_drop(args: tuple[Any, ...]) -> bool:
    """Whether the arguments hold a rate of dropout followed by the training mode, and one of the two is off."""
    return any(isinstance(rate, float) and isinstance(on, bool) and not (rate and on) for rate, on in pairwise(args))
