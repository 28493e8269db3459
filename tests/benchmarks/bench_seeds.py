"""What three seeds of one training cost: one after another, stacked into one network, or in processes of their own.

    python tests/benchmarks/bench_seeds.py [ROUNDS] [NAME]

NAME is a training of a generative autoencoder with one optimiser, such as vae-mnist. Each round times all ways in turn. Ways
that use all cores, by threads or by processes that have started before, are timed by the clock. Ways of one thread are timed by
the CPU time of the process, which other work on the machine hardly changes. Ratios are formed inside a round, and their medians
are printed. First it checks that all ways learn the same weights.
"""

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from statistics import median

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from gencls.core.memory import store_channels_last
from gencls.zoo import load_data
from gencls.zoo.training.base import Moment
from gencls.zoo.training.methods.autoencoder import AutoencoderPreset, AutoencoderTraining
from gencls.zoo.training.presets import preset

SEEDS = (0, 1, 2)
BATCH = 64
CORES = os.cpu_count() or 1


class Loss(nn.Module):
    """The loss of a training on a batch: what `torch.func` can call with the weights of any seed."""

    def __init__(self, training: AutoencoderTraining) -> None:
        """Take a training with one loss."""
        super().__init__()
        self.training_of = training

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to the loss, ()."""
        loss, _ = next(self.training_of.steps(images, torch.zeros(len(images)), Moment()))
        return loss


def made(name: str, seed: int, dtype: torch.dtype) -> Loss:
    """A new training of a seed, stored as Lightning gets it."""
    settings = preset(name)
    assert isinstance(settings, AutoencoderPreset)
    assert settings.regularizer != "adversarial"
    torch.manual_seed(seed)
    training = replace(settings, adversary=None).training(10)
    store_channels_last(training)
    return Loss(training).to(dtype)


def batches(seed: int, images: Tensor, steps: int) -> tuple[Tensor, ...]:
    """The images of each step of a seed."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images[order[: steps * BATCH]].split(BATCH)


def learn(seed: int, name: str, images: Tensor, steps: int, threads: int) -> Tensor:
    """Take the steps of one seed; the result is all weights in a row."""
    torch.set_num_threads(threads)
    loss = made(name, seed, images.dtype)
    (optimizer,) = loss.training_of.optimizers()
    for batch in batches(seed, images, steps):
        optimizer.zero_grad()
        loss(batch).backward()
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in loss.parameters()])


def one_after_another(name: str, images: Tensor, steps: int, threads: int) -> list[Tensor]:
    """Train the seeds in turn."""
    return [learn(seed, name, images, steps, threads) for seed in SEEDS]


def stacked(name: str, images: Tensor, steps: int, threads: int) -> list[Tensor]:
    """Train all seeds as one network, whose weights have the seed as their first dimension."""
    torch.set_num_threads(threads)
    losses = [made(name, seed, images.dtype) for seed in SEEDS]
    parameters, buffers = stack_module_state(losses)
    ask = vmap(lambda *state: functional_call(losses[0], state[:2], state[2:]), randomness="different")
    optimizer = torch.optim.Adam(parameters.values(), lr=losses[0].training_of.learning_rate, fused=True)
    for together in zip(*(batches(seed, images, steps) for seed in SEEDS), strict=True):
        optimizer.zero_grad()
        ask(parameters, buffers, torch.stack(together)).sum().backward()
        optimizer.step()
    return [torch.cat([value[place].detach().flatten() for value in parameters.values()]) for place in range(len(SEEDS))]


def in_processes(pool: ProcessPoolExecutor, name: str, images: Tensor, steps: int) -> list[Tensor]:
    """Train each seed in a process."""
    return list(pool.map(partial(learn, name=name, images=images, steps=steps, threads=1), SEEDS))


def main(rounds: int, name: str) -> None:
    """Check that the ways agree, then interleave them."""
    settings = preset(name)
    images = load_data("mnist-embedded", "train").images
    if tuple(images.shape[1:]) != settings.image_shape:
        images = torch.rand(len(images), *settings.image_shape)  # time does not depend on what they show
    with ProcessPoolExecutor(min(CORES, len(SEEDS)), mp_context=get_context("spawn")) as pool:
        ways: dict[str, tuple[Callable[..., list[Tensor]], Callable[[], float]]] = {
            "one after another, 1 thread": (partial(one_after_another, threads=1), time.process_time),
            "stacked, 1 thread": (partial(stacked, threads=1), time.process_time),
            f"one after another, {CORES} threads": (partial(one_after_another, threads=CORES), time.perf_counter),
            f"stacked, {CORES} threads": (partial(stacked, threads=CORES), time.perf_counter),
            "processes": (partial(in_processes, pool), time.perf_counter),
        }
        known, *others = (way("swt-dae-mnist", images[:, :1, :28, :28].double(), steps=2) for way, _ in ways.values())
        for found in others:
            torch.testing.assert_close(found, known, rtol=1e-6, atol=1e-6)
        seconds: dict[str, list[float]] = {label: [] for label in ways}
        for _ in range(rounds):
            for label, (way, clock) in ways.items():
                began = clock()
                way(name, images, steps=20)
                seconds[label].append(clock() - began)
            print(", ".join(f"{label}: {values[-1]:.2f} s" for label, values in seconds.items()))
    for label, (_, clock) in ways.items():
        base = next(seconds[first] for first, (_, same) in ways.items() if same is clock)
        ratio = median(value / first for value, first in zip(seconds[label], base, strict=True))
        print(f"{name}, {len(SEEDS)} seeds, {label}: median {median(seconds[label]):.2f} s, {ratio:.2f} of one after another")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7, sys.argv[2] if len(sys.argv) > 2 else "vae-mnist")
