"""The search for alphas on a noisy function of 24 numbers: how good the chosen point is, and what choosing costs.

    python tests/benchmarks/bench_alphas.py [SEEDS]

The function is 1 minus a weighted distance from a rising profile, measured with a noise of 0.01 and rounded to 1/1024, like an
accuracy on 1,024 images. Five starting points and 60 steps; process CPU time.
"""

import sys
import time

import torch
from torch import Tensor

from gencls.defenses import learn_alphas

LEVELS, STEPS, NOISE = 24, 60, 0.01
VARIANTS = {
    "ei": {"acquisition": "ei"},
    "log-ei": {},
    "log-ei, warm": {"warm": True},
    "log-ei, known noise": {"variance": lambda value: NOISE**2},
}


def run(name: str, seed: int) -> str:
    """One search."""
    source = torch.Generator().manual_seed(100 + seed)
    profile = torch.linspace(0, 0.9, LEVELS, dtype=torch.float64) ** 1.5
    optimum = (profile + 0.1 * torch.randn(LEVELS, generator=source, dtype=torch.float64)).clamp(0, 1)
    weights = torch.rand(LEVELS, generator=source, dtype=torch.float64)
    noise = torch.Generator().manual_seed(seed)

    def value(alphas: Tensor) -> float:
        return 1 - float((weights * (alphas - optimum).square()).sum() / weights.sum()) ** 0.5

    def measured(alphas: Tensor) -> float:
        return round((value(alphas) + NOISE * float(torch.randn(1, generator=noise))) * 1024) / 1024

    began = time.process_time()
    search = learn_alphas(measured, LEVELS, steps=STEPS, seed=seed, **VARIANTS[name])
    spent = time.process_time() - began
    true = [value(torch.tensor(trial.alphas, dtype=torch.float64)) for trial in search.trials]
    return f"{name}, seed {seed}: {true[search.chosen]:.4f} (best start {max(true[:5]):.4f}), {spent / STEPS:.2f} s per step"


def main(seeds: int) -> None:
    """Every variant with every seed."""
    torch.set_num_threads(1)
    for seed in range(seeds):
        for name in VARIANTS:
            print(run(name, seed), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
