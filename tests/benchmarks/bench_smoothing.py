"""What smoothing costs, beside the bare passes that it contains.

    python tests/benchmarks/bench_smoothing.py variational [ROUNDS]
    python tests/benchmarks/bench_smoothing.py rows [ROUNDS]           variational smoothing with other sizes of its passes

Variational smoothing (K = 10, one step, S = 5), forward and gradient in each mode, of FashionMNIST's CNN at batches of 1, 16
and 128 and of an untrained ResNet-18 on 32 x 32 pixels at batch 1. "Keyed" is the same with keyed streams, as evaluations run
it. "Bare" are N K rows forward and backward, then N K S rows forward, for a gradient and backward, in batches of 250 at most,
without noise and search. "Loop" is Algorithm 5 as it is written: one class after the other, one draw after the other. Process
CPU time, interleaved; the medians are the figures to quote, ratios are formed within each round.
"""

import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from gencls import zoo
from gencls.core import keyed
from gencls.defenses import VariationalSmoothing

CLASSES, DRAWS, RADIUS, SIGMA = 10, 5, 8 / 255, 0.05


def networks() -> dict[str, tuple[nn.Module, tuple[int, int, int], tuple[int, ...]]]:
    """Network, shape of an image, batches."""
    import torchvision

    resnet = torchvision.models.resnet18(num_classes=CLASSES).eval().requires_grad_(False)
    return {
        "CNN": (zoo.load("cnn-fashion").requires_grad_(False), (1, 28, 28), (1, 16, 128)),
        "ResNet-18": (resnet, (3, 32, 32), (1,)),
    }


def seconds(scores: Callable[[Tensor], Tensor], images: Tensor, *, gradient: bool) -> float:
    """CPU seconds of the scores, or of them and the gradient of their cross-entropy."""
    images = images.clone().requires_grad_(gradient)
    began = time.process_time()
    if gradient:
        torch.autograd.grad(scores(images).log_softmax(1)[:, 0].sum(), images)
    else:
        with torch.no_grad():
            scores(images)
    return time.process_time() - began


def loop(network: nn.Module, images: Tensor) -> Tensor:
    """Algorithm 5 as it is written."""
    scores = []
    for k in range(CLASSES):
        noise = ((2 * torch.rand_like(images) - 1) * RADIUS).requires_grad_()
        with torch.enable_grad():
            value = network(images.detach() + noise).log_softmax(1)[:, k].sum()
            (slope,) = torch.autograd.grad(value, noise)
        mean = (noise.detach() + 1.25 * RADIUS * slope.sign()).clamp(-RADIUS, RADIUS)
        every = [network(images + mean + SIGMA * torch.randn_like(images)).log_softmax(1)[:, k] for _ in range(DRAWS)]
        scores.append(torch.stack(every).mean(0))
    return torch.stack(scores, dim=1)


def bare(network: nn.Module, images: Tensor, *, gradient: bool) -> float:
    """CPU seconds of the passes alone."""
    search = images.repeat_interleave(CLASSES, dim=0)
    score = images.repeat_interleave(CLASSES * DRAWS, dim=0)

    def passes(rows: Tensor, backward: bool) -> None:
        for part in rows.split(250):
            part = part.detach().requires_grad_(backward)
            with torch.set_grad_enabled(backward):
                value = network(part).log_softmax(1)[:, 0].sum()
            if backward:
                torch.autograd.grad(value, part)

    began = time.process_time()
    passes(search, True)
    passes(score, gradient)
    return time.process_time() - began


def compared(kind: str, defense: VariationalSmoothing, images: Tensor) -> dict[str, float]:
    """CPU seconds of ours, also with keyed streams, of the bare passes and of the loop, for "forward" or a gradient mode."""
    network, gradient = defense.likelihood.classifier, kind != "forward"
    module = defense.surrogate(kind) if gradient else defense
    found = {"ours": seconds(module, images, gradient=gradient), "bare": bare(network, images, gradient=gradient)}
    with keyed(range(len(images))):
        found["keyed"] = seconds(module, images, gradient=gradient)
    if kind in ("forward", "frozen"):
        found["loop"] = seconds(lambda x: loop(network, x), images, gradient=gradient)
    return found


def variational(rounds: int) -> None:
    """Ours, the loop and the bare passes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for title, (network, shape, batches) in networks().items():
        defense = VariationalSmoothing(network, CLASSES, radius=RADIUS, sigma=SIGMA, draws=DRAWS).eval()
        for count in batches:
            images = torch.rand(count, *shape)
            for kind in ("forward", *defense.surrogates()):
                taken = [compared(kind, defense, images) for _ in range(rounds + 1)][1:]  # the first warms up
                times = ", ".join(f"{name} {1000 * median(one[name] for one in taken) / count:.2f}" for name in taken[0])
                ratios = f"ours / bare {ratio(taken, 'ours', 'bare'):.2f}, keyed / bare {ratio(taken, 'keyed', 'bare'):.2f}"
                if "loop" in taken[0]:
                    ratios += f", loop / ours {ratio(taken, 'loop', 'ours'):.2f}"
                print(f"{title}, {count} images, {kind}: ms per image: {times}; {ratios}", flush=True)


def rows(rounds: int) -> None:
    """The frozen gradient with passes of several sizes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = (50, 100, 256, 512, 1024, 8192)
    for title, (network, shape, _) in networks().items():
        count = 64 if title == "CNN" else 16
        images = torch.rand(count, *shape)
        taken: dict[int, list[float]] = {size: [] for size in sizes}
        for _ in range(rounds + 1):
            for size in sizes:
                defense = VariationalSmoothing(network, CLASSES, radius=RADIUS, draws=DRAWS, max_rows=size).eval()
                taken[size].append(seconds(defense, images, gradient=True))
        times = ", ".join(f"{size}: {1000 * median(every[1:]) / count:.2f}" for size, every in taken.items())
        print(f"{title}, {count} images, ms per image by max_rows: {times}", flush=True)


def ratio(taken: list[dict[str, float]], first: str, second: str) -> float:
    return median(one[first] / one[second] for one in taken)


if __name__ == "__main__":
    arguments = sys.argv[1:] or ["variational"]
    {"variational": variational, "rows": rows}[arguments[0]](int(arguments[1]) if len(arguments) > 1 else 7)
