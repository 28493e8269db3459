"""What certificates of randomized smoothing cost beside the bare forward passes that they need, and beside the published loop.

    python tests/benchmarks/bench_certification.py [ROUNDS]

Digits and ``cnn-gaussian-mnist``, sigma 0.25. Process CPU time, interleaved; the medians are the figures to quote, ratios are
formed within each round. Then the draws that ending early saves, at several sigma.
"""

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median

import numpy as np
import torch
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint
from torch import Tensor, nn

from gencls import zoo
from gencls.core import keyed
from gencls.defenses import RandomizedSmoothing

SIGMA, FIRST, DRAWS, ALPHA, CLASSES = 0.25, 100, 10_000, 0.001, 10
CHUNKS = (50, 100, 200, 400, 1000, 4000)


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


@torch.no_grad()
def bare_passes(network: nn.Module, noisy: Tensor, images: int, chunk: int) -> None:
    """As many rows through the network as the certificates need, always the same ones."""
    for draws in (FIRST, DRAWS) * images:
        for first in range(0, draws, chunk):
            network(noisy[: min(chunk, draws - first)])


@torch.no_grad()
def published(network: nn.Module, images: Tensor, batch: int) -> list[tuple[int, float]]:
    """One image after the other, decisions counted by a Python loop, as in locuslab/smoothing."""

    def counts(image: Tensor, draws: int) -> np.ndarray:
        found = np.zeros(CLASSES, dtype=int)
        while draws > 0:
            size = min(batch, draws)
            draws -= size
            rows = image.repeat((size, 1, 1, 1))
            for decision in network(rows + torch.randn_like(rows) * SIGMA).argmax(1).cpu().numpy():
                found[decision] += 1
        return found

    certificates = []
    for image in images:
        label = int(counts(image, FIRST).argmax())
        lower = proportion_confint(counts(image, DRAWS)[label], DRAWS, alpha=2 * ALPHA, method="beta")[0]
        certificates.append((label, SIGMA * float(norm.ppf(lower))) if lower >= 0.5 else (-1, 0.0))
    return certificates


def certify(rounds: int) -> None:
    """Chunks of any size beside bare passes of the same chunk and of the best one."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = zoo.load("cnn-gaussian-mnist").requires_grad_(False)
    smoothed = RandomizedSmoothing(network, CLASSES, sigma=SIGMA)
    images = zoo.load_data("mnist-embedded", "test", limit=3).images

    noisy = images[:1] + SIGMA * torch.randn(max(CHUNKS), *images.shape[1:])

    def own(chunk: int, *, streams: bool = False) -> None:
        with keyed(range(len(images))) if streams else nullcontext():
            found = smoothed.certify(images, n0=FIRST, n=DRAWS, alpha=ALPHA, chunk=chunk)
        assert bool((found.draws == DRAWS).all())  # else ours would have less to do

    variants: dict[str, Callable[[], object]] = {"keyed 400": lambda: own(400, streams=True)}
    for chunk in CHUNKS:
        variants[f"bare {chunk}"] = lambda chunk=chunk: bare_passes(network, noisy, len(images), chunk)
        variants[f"certify {chunk}"] = lambda chunk=chunk: own(chunk)
    for batch in (400, 1000):
        variants[f"published {batch}"] = lambda batch=batch: published(network, images, batch)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds + 1):  # the first round warms up
        for name, work in variants.items():
            seconds[name].append(cpu_seconds(work))
    seconds = {name: taken[1:] for name, taken in seconds.items()}
    best = min((f"bare {chunk}" for chunk in CHUNKS), key=lambda name: median(seconds[name]))
    rows = len(images) * (FIRST + DRAWS)
    for name, taken in seconds.items():
        line = f"{name}: {1e6 * median(taken) / rows:.1f} us per draw, throughput of {best} {ratio(seconds[best], taken):.2f}"
        kind, chunk = name.split()
        if kind in ("certify", "keyed"):
            line += f", of bare {chunk} {ratio(seconds[f'bare {chunk}'], taken):.2f}"
            line += f", published 400 / it {ratio(seconds['published 400'], taken):.2f}"
        print(line, flush=True)
    found = smoothed.certify(images, n0=FIRST, n=DRAWS, alpha=ALPHA)
    print("labels and radii:", list(zip(found.labels.tolist(), found.radii.tolist(), strict=True)))
    print("published:       ", published(network, images, 400))
    ending_early(smoothed, rounds)


def ending_early(smoothed: RandomizedSmoothing, rounds: int, *, count: int = 50, n: int = 1000) -> None:
    """Draws made of those asked for, and CPU time, by chunk."""
    images = zoo.load_data("mnist-embedded", "test", limit=count).images
    made = 0

    def meter(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        nonlocal made
        made += len(arguments[0])

    smoothed.classifier.register_forward_pre_hook(meter)
    for sigma in (0.25, 1.0):
        harder = RandomizedSmoothing(smoothed.classifier, CLASSES, sigma=sigma)
        methods = {"predict": harder.predict, "certify": lambda *a, **b: harder.certify(*a, n0=FIRST, **b).labels}  # noqa: B023
        for name, method in methods.items():
            seconds: dict[int, list[float]] = {chunk: [] for chunk in (50, 100, 200, 400)}
            draws = dict.fromkeys(seconds, 0)
            for _ in range(rounds):
                for chunk, taken in seconds.items():
                    made, began = 0, time.process_time()
                    labels = method(images, n=n, chunk=chunk)
                    taken.append(time.process_time() - began)
                    draws[chunk] = made
            times = ", ".join(
                f"chunk {chunk}: {draws[chunk] / count:.0f} draws, {1000 * median(taken) / count:.1f} ms"
                for chunk, taken in seconds.items()
            )
            print(
                f"{name}, sigma {sigma}, n {n}, per image: {times}; abstains {int((labels < 0).sum())} of {count}", flush=True
            )


def ratio(first: list[float], second: list[float]) -> float:
    return median(one / other for one, other in zip(first, second, strict=True))


if __name__ == "__main__":
    certify(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
