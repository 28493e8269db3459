"""What a module really calls: defenses that a search through its attributes does not find."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from gencls.core.errors import GenclsError
from gencls.core.gradient_modes import EXACT, parts_of
from gencls.core.modules.wrappers import Declares, surrogates_of

__all__ = ["check_called"]


def check_called(whole: nn.Module, ask: Callable[[], Any]) -> Any:
    """Ask a module something and look which defenses are called by foreign modules on the way.

    :func:`gencls.core.surrogates_of` looks for defenses where they can be held. They can come from anywhere: a global list, a
    file, a function that makes them anew.

    Args:
        whole: the module.
        ask: calls it.

    Returns:
        What ``ask`` returned.

    Raises:
        GenclsError: for a defense with a gradient mode that ``whole`` does not have.
    """
    stack: list[nn.Module] = []
    lost: list[tuple[nn.Module, nn.Module, list[str]]] = []

    def before(module: nn.Module, given: Any) -> None:
        callers = stack[:]
        stack.append(module)  # before anything raises an error: what follows is called all the same
        if callers and isinstance(module, Declares) and not isinstance(callers[-1], Declares):
            above = next((one for one in reversed(callers) if isinstance(one, Declares)), whole)
            known = {name for mode in surrogates_of(above) for name in parts_of(mode)}
            hidden = [mode for mode in surrogates_of(module) if mode != EXACT.name and not known.issuperset(parts_of(mode))]
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
    """Inside the block compiled modules run as they were written: torch's compiler cannot follow the hooks."""
    stance = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    with stance, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*global hooks on modules", category=UserWarning)
        yield
