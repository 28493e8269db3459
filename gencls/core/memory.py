"""Memory: how much a graph keeps for its backward pass, how many rows fit, the peak, and smaller batches after a failure."""

import gc
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import torch
from torch import Tensor, nn

from gencls.core.streams.seeds import seeded

__all__ = [
    "is_out_of_memory",
    "peak_memory",
    "rows_that_fit",
    "saved_bytes",
    "stored",
    "store_channels_last",
    "with_fewer_rows",
    "work_off",
]

Result = TypeVar("Result")

_MIB = 2**20

_DEFAULT = 1024.0
"""MiB for the graphs on a CPU; on a GPU they get a share of the free memory."""

_GPU_SHARE = 0.6

_CPU_ROWS = 1024
"""The most rows in one pass on a CPU. Far fewer already keep it busy."""

_MOST_ROWS = 2.0**31

_TRANSIENT = 4.0
"""Peak memory over what the graph keeps, if one layer is most of it: add its gradient, the next one, the library's copies."""


class _Meter:
    """Counts the bytes that autograd holds. The views of one storage count together at most what the storage has."""

    def __init__(self) -> None:
        self.views: defaultdict[int, Counter[tuple[int, int]]] = defaultdict(Counter)
        self.now = 0
        self.peak = 0

    def count(self, tensor: Tensor, times: int) -> None:
        """Note that autograd holds a tensor once more, or once less."""
        storage = tensor.untyped_storage()
        views = self.views[storage.data_ptr()]
        before = min(storage.nbytes(), sum(size for _, size in views))
        view = tensor.data_ptr(), tensor.numel() * tensor.element_size()
        views[view] += times
        if not views[view]:
            del views[view]
        self.now += min(storage.nbytes(), sum(size for _, size in views)) - before
        self.peak = max(self.peak, self.now)


class _Saved:
    """A tensor as autograd holds it. Autograd lets go of it with its graph, and the meter hears of it."""

    def __init__(self, tensor: Tensor, meter: _Meter) -> None:
        # Detached: a result that knows its graph, held by this same graph, would keep both alive for ever.
        self.tensor, self.meter = tensor.detach(), meter
        self.parts = stored(self.tensor)
        for part in self.parts:
            meter.count(part, 1)

    def __del__(self) -> None:
        for part in self.parts:
            self.meter.count(part, -1)


def stored(tensor: Tensor) -> tuple[Tensor, ...]:
    """The dense tensors that hold the content of a tensor: itself, or the indices and values of a sparse one."""
    if tensor.layout == torch.strided:
        return (tensor,)
    if tensor.layout == torch.sparse_coo:
        return tensor._indices(), tensor._values()
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return tensor.ccol_indices(), tensor.row_indices(), tensor.values()
    return (tensor.to_dense(),)


def saved_bytes(build: Callable[[], object]) -> int:
    """The most bytes that autograd holds at once while ``build`` runs a forward pass.

    Graphs that ``build`` makes and lets go, as an inner descent does at every step, count as long as they live. So the answer
    does not depend on which addresses the allocator gives out again.
    """
    meter = _Meter()
    with (
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(lambda tensor: _Saved(tensor, meter), lambda saved: saved.tensor),
    ):
        build()
    return meter.peak


def store_channels_last(module: nn.Module) -> None:
    """Let the channels of all tensors with four dimensions be next to each other: convolutions of a CPU are faster so.

    ``module.to(memory_format=torch.channels_last)`` fails where a tensor has five dimensions, as StyleGAN2's weights do.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch ran out of memory, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def rows_that_fit(ask: Callable[[Tensor], Tensor], image: Tensor, memory: float | None) -> int:
    """Compute how many rows (images x draws) of a model, which ``ask`` calls, can be differentiated at once in ``memory`` MiB.

    It measures the graph of the image (1, C, H, W). ``memory`` None takes 1024 MiB on a CPU and a share of the free memory on a
    GPU.
    """
    device = image.device
    if memory is None:
        memory = _GPU_SHARE * torch.cuda.mem_get_info(device)[0] / _MIB if device.type == "cuda" else _DEFAULT
    with seeded(0):
        leaf = image.clone().requires_grad_()
        needed = _TRANSIENT * saved_bytes(lambda: ask(leaf))
    rows = max(1, int(min(memory * _MIB / max(needed, 1.0), _MOST_ROWS)))
    return min(rows, _CPU_ROWS) if device.type == "cpu" else rows


def work_off(count: int, size: int, work: Callable[[Tensor, int], None]) -> tuple[int, int]:
    """Work off ``count`` samples in parts of ``size``, which is halved whenever memory runs out.

    ``work`` gets the indices of a part, and the number of pieces into which it must divide the part's rows. It must be
    repeatable. Torch's own error passes if a single sample in the smallest pieces does not fit.

    Returns:
        The last size, and the last number of pieces.
    """
    first, pieces = 0, 1
    while first < count:
        part = torch.arange(first, min(first + size, count))
        try:
            work(part, pieces)
        except RuntimeError as error:
            if not is_out_of_memory(error) or pieces > 2**16:
                raise
            size, pieces = (len(part) // 2, pieces) if len(part) > 1 else (1, 2 * pieces)
        else:
            first += len(part)
            continue
        _free()
    return size, pieces


def with_fewer_rows(rows: int, work: Callable[[int], Result]) -> tuple[Result, int]:
    """Call ``work(rows)``, with half the rows whenever memory runs out; torch's own error passes if one row does not fit.

    Returns:
        The result of ``work``, and the number of rows that fitted.
    """
    while True:
        try:
            return work(rows), rows
        except RuntimeError as error:
            if not is_out_of_memory(error) or rows == 1:
                raise
        _free()
        rows //= 2


def _free() -> None:
    """Free what a failed attempt held. Its tensors hang on the traceback until the error has been dealt with."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def peak_memory(device: torch.device) -> Iterator[SimpleNamespace]:
    """Measure how much the memory in use rises inside the block: torch's on a GPU, the process's on a CPU (Linux).

    Yields:
        An object that has ``mib`` after the block; NaN if the system does not tell.
    """
    peak = SimpleNamespace(mib=torch.nan)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.mib = (torch.cuda.max_memory_allocated(device) - before) / _MIB
        return
    started: float | None = None
    with suppress(OSError, LookupError):
        Path("/proc/self/clear_refs").write_text("5")  # lowers the high-water mark to the memory in use
        started = _status("VmRSS")
    yield peak
    if started is not None:
        peak.mib = max(0.0, _status("VmHWM") - started)


def _status(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(name)
