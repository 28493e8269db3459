"""Takes tensors and modules apart. Their device, and whether they ask for gradients, does not count."""

import io
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from gencls.core.keys.origins import origin_of_file
from gencls.core.keys.parts import Held, Parts, attributes, parts
from gencls.core.memory import stored

_NO_ATTRIBUTES = ("_is_buffer", "persistent")
"""Attributes by which a module knows a tensor that it will register; a move to another device loses them."""

_MADE_OF = ("_modules", "_parameters", "_buffers")

_HOOKS = {
    "_forward_pre_hooks": ("_forward_pre_hooks_with_kwargs",),
    "_forward_hooks": ("_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    "_backward_pre_hooks": (),
    "_backward_hooks": (),
}
"""Dictionaries whose keys count all hooks of the process, and the sets of these keys."""

_NOT_IN_FORWARD = {
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
    "_non_persistent_buffers_set",
    "_compiled_call_impl",
}

_WRAPPED = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}
"""Modules of torch that count as the module that they wrap; the rest of them concerns devices and compilers."""

_NORMS = ("torch.nn.utils.spectral_norm", "torch.nn.utils.weight_norm")

_PROCESS = re.compile(r"[./]?___torch_mangle_\d+")
"""The number that TorchScript puts in the name of a class that it has compiled more than once."""


@parts.register
def _tensor(tensor: Tensor) -> Parts:
    with torch._C.DisableTorchFunctionSubclass():
        own = (name for name in vars(tensor) if name not in _NO_ATTRIBUTES and not name.startswith("_dynamo_"))
        extra = {name: vars(tensor)[name] for name in own}  # without the compiler's
        shape = () if is_lazy(tensor) or tensor.is_nested else tuple(tensor.shape)
        hooks = tuple((tensor._backward_hooks or {}).values())
        head = [("", type(tensor)), ("", str(tensor.dtype)), ("", shape), ("._backward_hooks", hooks)]
        return "tensor", [*head, *attributes(tensor, extra), *_contents(tensor)]


def _contents(tensor: Tensor) -> Held:
    """The numbers of a tensor of any kind, in the order of its entries."""
    if is_lazy(tensor):
        return [("", "not initialized")]
    if hasattr(tensor, "__tensor_flatten__"):  # a subclass that holds others
        names, context = tensor.__tensor_flatten__()
        return [("", context), *((f".{name}", getattr(tensor, name)) for name in names)]
    if tensor.is_meta:
        return [("", "meta")]
    tensor = tensor.detach()
    if tensor.is_nested:
        return [("", part) for part in tensor.unbind()]
    if tensor.is_quantized:
        return [("", _bytes(tensor.int_repr())), *_scales(tensor)]
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce()
    return [("", _bytes(part)) for part in stored(tensor)]


def _scales(tensor: Tensor) -> Held:
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return [("", (str(tensor.qscheme()), tensor.q_scale(), tensor.q_zero_point()))]
    scales = _bytes(tensor.q_per_channel_scales()), _bytes(tensor.q_per_channel_zero_points())
    return [("", (str(tensor.qscheme()), tensor.q_per_channel_axis(), *scales))]


def _bytes(tensor: Tensor) -> memoryview:
    dense = tensor.cpu().resolve_conj().resolve_neg().contiguous()
    array: Any = dense.reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)


@parts.register
def _module(module: nn.Module) -> Parts:
    inner = _WRAPPED.get(type(module).__name__) if type(module).__module__.startswith("torch.") else None
    if inner is not None:
        forward = put_in_forward(module)
        own = [] if forward is None else [("", "forward"), (".forward", forward)]
        return "wrapped", [("", type(module)), (f".{inner}", getattr(module, inner)), *own, *_hooks(vars(module))]
    # A class may define the state of a copy of its modules, and leave out caches.
    defined = type(module).__getstate__ is not object.__getstate__ and not is_parametrized(module)
    state: dict[str, Any] = module.__getstate__() if defined else vars(module)
    return "module", [("", type(module)), *_content(module, state)]


def put_in_forward(module: nn.Module) -> Any:
    """The ``forward`` that someone put into an instance of a module, unless ``torch.compile`` did; None if there is none."""
    forward = vars(module).get("forward")
    if type(module).__name__ != "OptimizedModule":
        return forward
    if type(forward).__name__ == "AOTCompiledModel":  # compiled for some inputs
        return None
    called = getattr(forward, "_torchdynamo_orig_callable", forward)
    code = getattr(called, "__code__", None)  # a method gives its function's
    within = [getattr(called, "__self__", None), *(cell.cell_contents for cell in getattr(called, "__closure__", None) or ())]
    runs_inside = any(part is module or part is vars(module)["_modules"]["_orig_mod"] for part in within)
    return None if code is not None and runs_inside and origin_of_file(code.co_filename) == "library" else forward


def _content(module: nn.Module, state: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    apart = {*_MADE_OF, *_HOOKS, *_NOT_IN_FORWARD, *(flag for flags in _HOOKS.values() for flag in flags)}
    for hook in state.get("_forward_pre_hooks", {}).values():
        if type(hook).__module__ in _NORMS:  # they make a weight anew before each forward
            apart.add(hook.name)
    if type(module).__module__ == "torch.fx.graph_module":
        apart.add("_graph")  # its code says the same
    yield from attributes(module, {name: value for name, value in state.items() if name not in apart})
    for group in _MADE_OF:
        yield "", group
        for name, value in state.get(group, {}).items():
            yield "", name
            yield f".{name}", value
    yield from _hooks(state)


def _hooks(state: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for group, flags in _HOOKS.items():
        for number, hook in state.get(group, {}).items():
            yield "", group
            yield "", tuple(number in state.get(flag, ()) for flag in flags)
            yield f".{group}", hook


def global_hooks() -> list[Any]:
    """The hooks that torch calls around every module."""
    return [hook for group in _HOOKS for hook in getattr(modules, f"_global{group}").values()]


@parts.register(torch.jit.ScriptModule | torch.jit.ScriptFunction)
def _script(compiled: Any) -> Parts:
    """Take compiled code apart as torch saves it, without positions in source files and numbers that count in a process."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.save(compiled, file)
    held = []
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            inside, content = name.partition("/")[2], archive.read(name)
            if inside.startswith("data/"):
                held.append((inside, content))
            elif inside.endswith((".py", ".pkl")):
                text = _scripted(content) if inside.endswith(".py") else _pickled(content)
                held.append((_PROCESS.sub("", inside), _PROCESS.sub("", text).encode()))
    return "script", [("", entry) for entry in sorted(held)]


def _scripted(content: bytes) -> str:
    """Sort the constants of code: torch writes them in an order left to chance."""
    lines = content.decode().splitlines()
    constants = sorted(line for line in lines if " : Final[" in line)
    return "\n".join([*constants, *(line for line in lines if " : Final[" not in line)])


def _pickled(content: bytes) -> str:
    """Read a pickle without running it, and leave out devices."""
    words: list[str] = []
    memory: dict[object, str] = {}
    for operation, argument, _ in pickletools.genops(content):
        if operation.name in ("BINPUT", "LONG_BINPUT"):  # whether equal strings are one is left to chance
            memory[argument] = words[-1]
        else:
            words.append(memory.get(argument, "") if operation.name.endswith("BINGET") else f"{operation.name} {argument}")
    return "\n".join(word for word in words if not re.search(r"UNICODE (cpu|cuda.*)$", word))
