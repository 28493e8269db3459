"""First derivatives that a backward pass makes without a graph: whoever asks for a second one gets an error."""

from typing import Any

import torch
from torch import Tensor

from gencls.core.errors import GenclsError

__all__ = ["first_only"]


def first_only(gradient: Tensor, *inputs: Tensor, owner: str, instead: str) -> Tensor:
    """Mark the result of a backward pass as the last derivative there is; call it at the end of ``backward``.

    Torch's ``once_differentiable`` is not enough: it looks at the incoming gradient alone. With ``create_graph=True`` the
    gradient of a plain sum of scores then comes back detached, and its derivative counts as zero in silence.

    Args:
        gradient: the derivative that the backward pass returns.
        inputs: all tensors that it depends on: the inputs, as ``ctx.saved_tensors`` gives them, and the incoming gradients.
        owner: what the message calls the function.
        instead: what the caller can do to get a second derivative, or why there is none.

    Returns:
        The same numbers. Their derivative is a :class:`~gencls.core.GenclsError`.
    """
    if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in inputs):
        return gradient
    message = f"{owner}: expected first derivatives only, got a request for a second one; {instead}"
    last: Tensor = _Last.apply(message, gradient, *inputs)
    return last


class _Last(torch.autograd.Function):
    """The identity in its first tensor; nothing can be differentiated through it."""

    @staticmethod
    def forward(ctx: Any, message: str, gradient: Tensor, *inputs: Tensor) -> Tensor:
        ctx.message = message
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        raise GenclsError(ctx.message)
