"""Code that loaders of published checkpoints share: read a network's sizes off its weights, build it, or say what is wrong.

Errors name the network: ``StyleGAN2 checkpoint: expected ...; got ...``.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.core.weights import check_state
from gencls.zoo.checkpoints.reading import load_content
from gencls.zoo.checkpoints.tensors import fitted, layout_of, tensors_by_name

State = Mapping[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)

_UNNUMBERED = 8
"""Parts of a list without weights; they have numbers but no keys."""


def file_content(path: str | Path) -> Mapping[str, Any]:
    """Read what a weights file holds by name; an empty mapping if it holds something else.

    Raises:
        GenclsError: as :func:`~gencls.zoo.checkpoints.reading.load_content`.
    """
    content = load_content(path)
    return {str(key): value for key, value in content.items()} if isinstance(content, Mapping) else {}


def weights_under(path: str | Path, content: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """Take one state dict from such a file, copied, half precision turned into float32.

    Raises:
        GenclsError: if nothing has that name, or something else than tensors by name has it; for a tensor that no network has,
            see :func:`~gencls.core.weights.check_state`.
    """
    if name not in content:
        raise GenclsError(f"{path}: expected weights under {name!r}; got {', '.join(map(repr, content)) or 'none'}")
    return tensors_by_name(path, content[name], size=Path(path).stat().st_size)


def weights_in(path: str | Path, *names: str) -> dict[str, Tensor]:
    """Read the state dict of a file. It may lie under each of these names or not, one within the other.

    It is copied, half precision turned into float32.

    Raises:
        GenclsError: as :func:`~gencls.zoo.checkpoints.reading.load_content`; as :func:`weights_under`.
    """
    values = load_content(path)
    for name in names:
        if isinstance(values, Mapping) and name in values:
            values = values[name]
    return tensors_by_name(path, values, size=Path(path).stat().st_size)


def without_prefixes(state: State, *prefixes: str) -> dict[str, Tensor]:
    """Take each prefix, in this order, from the keys that begin with it; the tensors stay the same."""
    for prefix in prefixes:
        state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return dict(state)


def with_counters(state: State) -> dict[str, Tensor]:
    """Add the counters of batch norm, which torch did not save before 0.4.1 and which nothing here reads."""
    counters = (key.removesuffix("running_var") + "num_batches_tracked" for key in state if key.endswith("running_var"))
    return {**state, **{key: torch.zeros((), dtype=torch.int64) for key in counters if key not in state}}


class Weights(Generic[Network]):
    """Published weights of a network.

    Args:
        kind: the network's class, or a function that builds it.
        state: keys and tensors in the published layout.
        name: name of the network for errors; None takes that of the class.

    Raises:
        GenclsError: for a tensor that no network has, see :func:`~gencls.core.weights.check_state`.
    """

    def __init__(self, kind: Callable[..., Network], state: State, *, name: str | None = None) -> None:
        self.kind = kind
        self.state = state
        self.name = kind.__name__ if name is None else name
        check_state(f"{self.name} checkpoint", state, finite=False)

    def shape(self, key: str, rank: int) -> torch.Size:
        """The shape of a tensor that must be there.

        Raises:
            GenclsError: if it is missing, has another number of dimensions, or has a dimension of size 0.
        """
        tensor = self.state.get(key)
        if tensor is None or tensor.ndim != rank or 0 in tensor.shape:
            first = f"keys {', '.join(list(self.state)[:3])}, ..." if self.state else "no keys"
            raise self._error(f"{key} of rank {rank}; got {first if tensor is None else f'shape {tuple(tensor.shape)}'}")
        return tensor.shape

    def count(self, pattern: str) -> int:
        """One more than the highest number at this place of the keys; 0 without such keys.

        Raises:
            GenclsError: if the number is higher than so many keys can count up to.
        """
        numbers = [match[1] for match in map(re.compile(pattern).match, self.state) if match]
        highest = max(numbers, key=lambda number: (len(number), number), default="-1")
        if len(highest) > 6 or int(highest) > _UNNUMBERED + len(self.state):
            raise self._error(f"parts with numbers up to {len(self.state)}, as there are keys; got {highest:.20}")
        return int(highest) + 1

    def build(self, **arguments: Any) -> Network:
        """Build the network with these weights, in its own precision; it shares the tensors that have this precision.

        Args:
            arguments: arguments of the network's constructor.

        Returns:
            The network in eval mode, its parameters frozen.

        Raises:
            GenclsError: for keys that are missing or surplus; tensors of an unexpected shape; integers as parameters; NaN or
                Inf; sizes that no such network has.
        """
        try:
            layout = _layout(self.kind, len(self.state), **arguments)
        except GenclsError:
            raise
        except Exception as error:  # constructors fail in their own ways if sizes do not fit together
            sizes = ", ".join(f"{name}={value!r:.80}" for name, value in arguments.items())
            raise self._error(f"sizes of such a network; got {sizes}: {type(error).__name__}: {error}") from None
        if layout.keys() == self.state.keys():  # else the error is about other keys, and nobody has to look at values
            check_state(f"{self.name} checkpoint", self.state)
        state = fitted(self.state, layout, self._error)
        with torch.device("meta"):  # do not spend time on numbers that the weights replace
            network = self.kind(**arguments).requires_grad_(False)
        network.load_state_dict(state, assign=True)
        return network.eval()

    def _error(self, expected: str) -> GenclsError:
        return GenclsError(f"{self.name} checkpoint: expected {expected}")


@lru_cache(maxsize=16)
def _layout(kind: Callable[..., nn.Module], tensors: int, /, **arguments: Any) -> Mapping[str, Tensor]:
    return layout_of(kind, tensors, **arguments)[0]
