"""What loaders of published checkpoints share: weights to a network, its sizes read off them, or what is wrong with them.

Errors name the network: ``StyleGAN2 checkpoint: expected ...; got ...``.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.zoo.checkpoints import load_torch_file, tensors_by_name

__all__ = ["State", "Weights", "file_content", "weights_in", "weights_under", "with_counters", "without_prefixes"]

State = Mapping[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)


def file_content(path: str | Path, *, allowed: Sequence[type] = ()) -> Mapping[str, Any]:
    """What a file of `torch.save` holds by name; nothing where it holds something else.

    Raises:
        GenclsError: as :func:`~gencls.zoo.checkpoints.load_torch_file`.
    """
    content = load_torch_file(path, allowed=allowed)
    return {str(key): value for key, value in content.items()} if isinstance(content, Mapping) else {}


def weights_under(path: str | Path, content: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """One state dict of such a file, copied, half precision turned into float32.

    Raises:
        GenclsError: there is nothing of that name, or something else than tensors by name.
    """
    if name not in content:
        raise GenclsError(f"{path}: expected weights under {name!r}; got {', '.join(map(repr, content)) or 'none'}")
    return tensors_by_name(path, content[name])


def weights_in(path: str | Path, *names: str) -> dict[str, Tensor]:
    """The state dict that a file holds: under these names, each of which may be there or not, one within the other.

    It is copied, half precision turned into float32.

    Raises:
        GenclsError: as :func:`~gencls.zoo.checkpoints.load_torch_file`; for something else than tensors by name.
    """
    values = load_torch_file(path)
    for name in names:
        if isinstance(values, Mapping) and name in values:
            values = values[name]
    return tensors_by_name(path, values)


def without_prefixes(state: State, *prefixes: str) -> dict[str, Tensor]:
    """The same tensors; each prefix, in this order, is taken from the keys that begin with it."""
    for prefix in prefixes:
        state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return dict(state)


def with_counters(state: State) -> dict[str, Tensor]:
    """The same tensors and the counters of batch norm, which torch did not save before 0.4.1 and nothing here reads."""
    counters = (key.removesuffix("running_var") + "num_batches_tracked" for key in state if key.endswith("running_var"))
    return {**state, **{key: torch.zeros((), dtype=torch.int64) for key in counters if key not in state}}


class Weights(Generic[Network]):
    """Published weights of a network.

    Args:
        kind: the network's class, or what builds it.
        state: keys and tensors in the published layout.
        name: of the network, for errors; None takes that of the class.
    """

    def __init__(self, kind: Callable[..., Network], state: State, *, name: str | None = None) -> None:
        self.kind = kind
        self.state = state
        self.name = kind.__name__ if name is None else name

    def shape(self, key: str, rank: int) -> torch.Size:
        """Shape of a tensor that must be there.

        Raises:
            GenclsError: it is not, or has another number of dimensions.
        """
        tensor = self.state.get(key)
        if tensor is None or tensor.ndim != rank:
            first = f"keys {', '.join(list(self.state)[:3])}, ..." if self.state else "no keys"
            raise self._error(f"{key} of rank {rank}; got {first if tensor is None else f'shape {tuple(tensor.shape)}'}")
        return tensor.shape

    def count(self, pattern: str) -> int:
        """One more than the highest number at this place of the keys; 0 without such keys."""
        return max((int(match[1]) + 1 for match in map(re.compile(pattern).match, self.state) if match), default=0)

    def build(self, **arguments: Any) -> Network:
        """The network with these weights; it shares the tensors.

        Args:
            arguments: of its constructor.

        Returns:
            The network in eval mode, its parameters frozen.

        Raises:
            GenclsError: for keys that are missing or surplus, tensors of an unexpected shape, or integers as parameters.
        """
        layout, state = _layout(self.kind, **arguments), self.state
        missing, surplus = [key for key in layout if key not in state], [key for key in state if key not in layout]
        if missing or surplus:
            raise self._error(f"other keys; missing: {_some(missing)}; surplus: {_some(surplus)}")
        for key, shape in layout.items():
            if state[key].shape != shape:
                raise self._error(f"{key} of shape {tuple(shape)}; got {tuple(state[key].shape)}")
        with torch.device("meta"):  # no time for numbers that the weights replace
            network = self.kind(**arguments).requires_grad_(False)
        network.load_state_dict(state, assign=True)
        integers = [key for key, parameter in network.named_parameters() if not parameter.is_floating_point()]
        if integers:
            raise self._error(f"{integers[0]} of floating point numbers; got {state[integers[0]].dtype}")
        return network.eval()

    def _error(self, expected: str) -> GenclsError:
        return GenclsError(f"{self.name} checkpoint: expected {expected}")


@lru_cache(maxsize=16)
def _layout(kind: Callable[..., nn.Module], **arguments: Any) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {key: value.shape for key, value in kind(**arguments).state_dict().items()}


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "") or "none"
