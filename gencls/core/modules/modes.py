"""The modes of a module's parts: which may be in training mode when a defense answers, and parameters without gradients."""

import re
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, cast

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils.spectral_norm import SpectralNorm

from gencls.core.errors import GenclsError
from gencls.core.modules.wrappers import declared

__all__ = ["check_eval_mode", "check_mode_is_settled", "evaluated", "frozen", "in_eval_mode", "in_mode"]

_DROPS = re.compile("drop|stochastic_?depth", re.IGNORECASE)
"""Names of classes that leave something out at random, such as DropPath and StochasticDepth."""


def check_eval_mode(module: nn.Module, *, name: str, what: str = "a defense", may_drop: bool | None = None) -> None:
    """Check that no part of a module is in training mode, where batch norm, for instance, would be another function.

    Dropout may be in training mode if the module declares ``stochastic = True``: that is test-time dropout. Torch's own parts
    without numbers, such as activations, are the same in both modes and do not count.

    Args:
        module: the module to check, with all its parts.
        name: what the message calls the caller or the module.
        what: the role of the module, such as "a defense", for the message.
        may_drop: whether test-time dropout is allowed; None asks whether the module declares ``stochastic = True``.

    Raises:
        GenclsError: the module or a part of it is in training mode.
    """
    if not isinstance(module, nn.Module):
        raise GenclsError(f"{name}: expected {what} in eval mode, a torch.nn.Module, got {type(module).__name__}")
    training = [(path, part) for path, part in module.named_modules() if part.training]
    if not training:
        return
    for path, part in training:
        if not (_drops(part) or _indifferent(part)):
            where = f" of {path} ({type(part).__name__})" if path else ""
            raise GenclsError(f"{name}: expected {what} in eval mode, got training mode{where}; call .eval() first")
    path, part = next((pair for pair in training if _drops(pair[1])), ("", None))
    if part is not None and not (declared(module, "stochastic") if may_drop is None else may_drop):
        raise GenclsError(
            f"{name}: expected {what} in eval mode, got training mode of {path or 'the whole'} ({type(part).__name__}), and "
            "stochastic is not set; call .eval(), or for test-time dropout set stochastic = True or wrap it as "
            "PlainClassifier(network, num_classes, stochastic=True)"
        )


def check_mode_is_settled(module: nn.Module, *, name: str) -> None:
    """Check that no part would answer otherwise in eval mode, or change itself when it answers.

    Such parts in training mode are batch norm with running statistics, dropout, spectral norm, and every layer whose code reads
    ``training``. Unlike for :func:`check_eval_mode`, all others may be in training mode, as any new module is.

    Args:
        module: the module to check, with all its parts.
        name: what the message calls the caller.

    Raises:
        GenclsError: a part in training mode is of this kind.
    """
    for path, part in module.named_modules():
        if part.training and _mode_matters(part):
            raise GenclsError(
                f"{name}: expected networks in eval mode, got training mode of {path or 'the whole'} ({type(part).__name__}), "
                "which then answers otherwise or changes itself; call .eval() first"
            )


def evaluated(surrogate: nn.Module, of: nn.Module) -> nn.Module:
    """Switch the surrogate of a defense to eval mode, except for test-time dropout if the defense ``of`` it has that."""
    if not any(part.training for part in of.modules()):
        return surrogate.eval()
    for part in surrogate.modules():
        if part.training and not (_drops(part) or _indifferent(part)):
            part.training = False
    return surrogate


def in_eval_mode(module: nn.Module) -> nn.Module:
    """Switch a module from somebody's code to eval mode, except for parts left on: training parts of a part in eval mode.

    In a module that was never switched, all of whose holders are in training mode, nothing counts as left on.
    """
    left_on = {part for holder in module.modules() if not holder.training for part in holder.children() if part.training}
    if not left_on:
        return module.eval()
    for part in module.modules():
        if part.training and part not in left_on:
            part.training = False
    return module


def _mode_matters(part: nn.Module) -> bool:
    """Whether a part is another function in training mode than in eval mode, or writes into itself."""
    if isinstance(part, _NormBase):
        return part.running_mean is not None
    if isinstance(part, _DropoutNd):
        return part.p > 0
    hooked = any(isinstance(hook, SpectralNorm) for hook in part._forward_pre_hooks.values())
    return hooked or _drops(part) or _asks_for_mode(cast(Hashable, type(part)))


@lru_cache(maxsize=4096)
def _asks_for_mode(kind: Any) -> bool:
    """Whether the code of a class reads ``training`` when its module is called."""
    before = ("__init__", "train", "eval")
    own = [base for base in kind.__mro__ if base not in nn.Module.__mro__]
    functions = [value for base in own for name, value in vars(base).items() if name not in before]
    functions = [getattr(value, "fget", getattr(value, "__func__", value)) for value in functions]
    return any(_reads_mode(function.__code__) for function in functions if isinstance(function, FunctionType))


def _reads_mode(code: CodeType) -> bool:
    return "training" in code.co_names or any(_reads_mode(inner) for inner in code.co_consts if isinstance(inner, CodeType))


def _drops(part: nn.Module) -> bool:
    """Whether a part draws random numbers in training mode and differs from eval mode in nothing else."""
    if isinstance(part, (_DropoutNd, nn.RReLU)):
        return True
    return bool(_DROPS.search(type(part).__name__)) and not _holds(part)


def _indifferent(part: nn.Module) -> bool:
    """Whether a part is torch's own and has neither parts nor numbers."""
    return type(part).__module__.startswith("torch.nn.modules.") and not _holds(part)


def _holds(part: nn.Module) -> bool:
    """Whether a part has parts or numbers of its own."""
    return any(True for held in (part.children(), part.parameters(), part.buffers()) for _ in held)


@contextmanager
def in_mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Keep a module in training or eval mode inside the block; after it every part has its earlier mode again."""
    before = {part: part.training for part in module.modules()}
    module.train(training)
    try:
        yield
    finally:
        for part, mode in before.items():
            part.training = mode


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Switch off gradients for parameters inside the block: code there differentiates images or latents.

    Graphs that are built inside leave the parameters out, also when they are used outside.
    """
    learning = {parameter for module in modules for parameter in module.parameters() if parameter.requires_grad}
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
