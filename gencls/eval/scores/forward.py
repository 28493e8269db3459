"""Asks somebody's network for scores, in one pass or image by image, watches its calls, and puts its errors into words."""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from gencls.core import GenclsError, seeded, surrogates_of
from gencls.core.gradient_modes import BETWEEN, EXACT
from gencls.core.memory import is_out_of_memory
from gencls.core.modules.wrappers import Declares
from gencls.core.streams.keyed import alone
from gencls.core.streams.seeds import own_seeds_end_here

_ALONE = (
    "declare batch_dependent = True (for a network: PlainClassifier(network, num_classes, batch_dependent=True)), and each "
    "image is asked alone"
)


def scores_of(defense: nn.Module, images: Tensor, *, name: str | None = None) -> Tensor:
    """The defense's scores (N, K) of images (N, C, H, W); it gets a copy, so it may change them.

    Raises:
        GenclsError: its forward pass fails, or returns no scores; see :func:`answered`.
    """
    return answered(defense, images, lambda: defense(images.clone()), name=name)


def answered(
    model: nn.Module,
    images: Tensor,
    ask: Callable[[], Tensor],
    *,
    rows: int | None = None,
    classes: int = 0,
    name: str | None = None,
) -> Tensor:
    """Ask a model for scores, and check the answer without reading its values.

    Args:
        model: the module that ``ask`` asks.
        images: the images (N, C, H, W), for messages.
        ask: a function without arguments that calls the model and returns its scores.
        rows: the expected number of rows of scores; None means N.
        classes: the expected number of classes, that of the defense whose surrogate the model is; 0 allows any.
        name: the model's name in messages; None takes the name of its class.

    Returns:
        Scores (rows, K), K >= 2, floating point.

    Raises:
        GenclsError: the model does not take images of this dtype, shape or number, it raises an error of its own, or its answer
            is no such scores. If memory runs out, torch's own error passes.
    """
    name = name or name_of(model)
    try:
        with own_seeds_end_here():
            scores: object = ask()
    except GenclsError:
        raise
    except Exception as error:
        if _memory(error):
            raise
        raise GenclsError(f"{name}: {_said(model, images, error)}") from error
    checked = _checked(name, scores, len(images) if rows is None else rows)
    if classes and checked.shape[1] != classes:
        raise GenclsError(f"{name}: expected scores of {classes} classes, as its defense has, got {checked.shape[1]}")
    return checked


@contextmanager
def backwards(model: nn.Module) -> Iterator[None]:
    """Put into words an error of the block, which differentiates a graph of the model.

    Raises:
        GenclsError: the backward pass fails. If memory runs out, torch's own error passes.
    """
    try:
        yield
    except GenclsError:
        raise
    except Exception as error:
        if _memory(error):
            raise
        raise GenclsError(
            f"{name_of(model)}: expected scores with a gradient, got an error in the backward pass: {_reason(error)}"
        ) from error


class ImageByImage(nn.Module):
    """Gives a model one row of the batch per forward pass, with the random streams of that row alone.

    Two kinds of model need it. Some make one random draw for a whole batch, so that a batch of 32 is one draw and not 32. For
    others the scores of an image depend on the other images in the batch.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """Ask row by row: (N, C, H, W) -> (N, K)."""
        scores = []
        with alone(len(images)) as turn:
            for index in range(len(images)):
                turn(index)
                scores.append(self.model(images[index : index + 1]))
        return torch.cat(scores)


def name_of(model: nn.Module) -> str:
    """The name of a model's class, for messages; under :class:`ImageByImage` it is the class of the model inside."""
    return type(model.model if isinstance(model, ImageByImage) else model).__name__


def check_called(whole: nn.Module, ask: Callable[[], Any]) -> Any:
    """Ask a module something, and watch which defenses foreign modules call on the way.

    :func:`gencls.core.surrogates_of` looks for defenses in the places that can hold one. But a forward pass can get one from
    anywhere: a global list, a file, a function that makes it anew.

    Returns:
        The result of ``ask``.

    Raises:
        GenclsError: a defense on the way has a gradient mode that ``whole`` does not have.
    """
    stack: list[nn.Module] = []
    lost: list[tuple[nn.Module, nn.Module, list[str]]] = []

    def before(module: nn.Module, given: Any) -> None:
        callers = stack[:]
        stack.append(module)  # before any error: later hooks run all the same
        if callers and isinstance(module, Declares) and not isinstance(callers[-1], Declares):
            above = next((one for one in reversed(callers) if isinstance(one, Declares)), whole)
            known = {name for mode in surrogates_of(above) for name in mode.split(BETWEEN)}
            hidden = [
                mode for mode in surrogates_of(module) if mode != EXACT.name and not known.issuperset(mode.split(BETWEEN))
            ]
            if hidden:
                lost.append((callers[-1], module, hidden))

    def after(module: nn.Module, given: Any, result: Any) -> None:
        stack.pop()

    hooks = register_module_forward_pre_hook(before), register_module_forward_hook(after, always_call=True)
    try:
        with _uncompiled():
            answer = ask()
    finally:
        for hook in hooks:
            hook.remove()
    for caller, part, hidden in lost:
        name, inside = type(caller).__name__, type(part).__name__
        raise GenclsError(
            f"{name}: expected a module that hides no gradient mode of a defense that it calls, got {inside} with "
            f"{', '.join(hidden)}, which no attack would see; evaluate the {inside} itself, or declare in surrogates() of a "
            f"Defense of your own how {name} is differentiated"
        )
    return answer


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Run compiled modules as they were written inside the block: torch's compiler cannot follow the hooks."""
    stance = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    with stance, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*global hooks on modules", category=UserWarning)
        yield


def _memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or is_out_of_memory(error) or "out of memory" in str(error)


def _reason(error: Exception) -> str:
    said = str(error).strip().splitlines()
    first = said[0] if said else ""
    return first if isinstance(error, (RuntimeError, ValueError)) and first else f"{type(error).__name__}: {first}".rstrip(": ")


def _said(model: nn.Module, images: Tensor, error: Exception) -> str:
    """Word an error: the expected form of the images or of the model, and the reason of the failure."""
    reason = _reason(error)
    if "more than 1 value per channel" in reason:  # batch statistics, as torch says it
        return (
            f"expected scores of one image, got batch statistics in eval mode, which one image does not have ({reason}): a "
            "decision would depend on the rest of the batch; use running statistics"
        )
    if "does not require grad" in reason:
        return (
            "expected a forward pass that works under torch.no_grad() and with parameters that have no gradient, got one that "
            f"differentiates ({reason}); let it do so in a block `with torch.enable_grad():`, by inputs that require a gradient"
        )
    if dtypes := _other_dtypes(model, images, reason):
        mend = (
            f"call {_CASTS.get(images.dtype, '.float()')} on the network, or wrap it in a module that casts images and scores"
        )
        mend = f"give the images in float32, or {mend}" if dtypes == ["torch.float32"] else mend
        return f"expected parameters of the dtype of the images, {images.dtype}, got {' and '.join(dtypes)} ({reason}); {mend}"
    if len(images) > 1 and _takes_one(model, images):
        return f"expected scores of {len(images)} images, got an error, although one image alone has some ({reason}); {_ALONE}"
    return (
        f"expected images of the shape that it was made for, got (N, C, H, W) = {tuple(images.shape)}, or its forward pass "
        f"fails on any image: {reason}"
    )


_CASTS = {torch.float32: ".float()", torch.float64: ".double()", torch.float16: ".half()", torch.bfloat16: ".bfloat16()"}


def _other_dtypes(model: nn.Module, images: Tensor, reason: str) -> list[str]:
    """The dtypes of a model's numbers, if they differ from the images' and the error is about that."""
    if not any(word in reason for word in ("type", "not implemented for")):
        return []
    numbers = (*model.parameters(), *model.buffers())
    found = {str(tensor.dtype) for tensor in numbers if tensor.is_floating_point() or tensor.is_complex()}
    return sorted(found) if found - {str(images.dtype)} else []


def _takes_one(model: nn.Module, images: Tensor) -> bool:
    one = images[:1].detach().clone().requires_grad_(images.requires_grad)
    with suppress(Exception), seeded(0):
        return isinstance(model(one.clone()), Tensor)
    return False


def _checked(name: str, scores: object, rows: int) -> Tensor:
    if not isinstance(scores, Tensor):
        raise GenclsError(
            f"{name}: expected scores, a tensor of shape ({rows}, K), got {_kind(scores)}; wrap the network in a module whose "
            f"forward returns the scores alone, such as {_part_of(scores)}"
        )
    shape = tuple(scores.shape)
    if scores.ndim != 2 or shape[0] != rows:
        raise GenclsError(f"{name}: expected scores of shape ({rows}, K), got {shape}{_mend(scores, rows)}")
    if not scores.is_floating_point():
        raise GenclsError(f"{name}: expected floating-point scores, got {scores.dtype}{_cast(scores)}")
    if shape[1] < 2:
        raise GenclsError(
            f"{name}: expected scores of at least 2 classes, got {shape[1]}; a single score s stands for two: "
            "torch.cat([-s, s], dim=1)"
        )
    return scores


def _kind(answer: object) -> str:
    if isinstance(answer, Mapping):
        return f"{type(answer).__name__} with {', '.join(map(str, answer))}"
    return f"{type(answer).__name__} of {len(answer)}" if isinstance(answer, (tuple, list)) else type(answer).__name__


def _part_of(answer: object) -> str:
    if hasattr(answer, "logits"):
        return "network(images).logits"
    if isinstance(answer, Mapping):
        return f"network(images)[{next((key for key in answer if key == 'logits'), next(iter(answer), 'logits'))!r}]"
    return "network(images)[0]" if isinstance(answer, (tuple, list)) else "network(images)"


def _mend(scores: Tensor, rows: int) -> str:
    """Advise what to do about scores of another shape, if the cause can be guessed."""
    shape = tuple(scores.shape)
    if shape == (rows,) and scores.dtype == torch.int64:
        return "; scores of all classes are expected, not decisions"
    if len(shape) > 2 and shape[0] == rows and all(size == 1 for size in shape[2:]):
        return "; flatten them: network(images).flatten(1)"
    if len(shape) == 1 and rows == 1:
        return "; keep the batch dimension, also of one image"
    if shape == (rows,):
        return "; a single score s of each image stands for two: torch.stack([-s, s], dim=1)"
    if len(shape) == 2 and shape[0] == 1 and rows > 1:
        return f"; it answers one image at a time: {_ALONE}"
    return ""


def _cast(scores: Tensor) -> str:
    if scores.dtype == torch.bool:
        return "; scores of 0 and 1 have no gradient, but can be judged: network(images).float()"
    return "; take their size: network(images).abs()" if scores.is_complex() else "; cast them: network(images).float()"
