"""What random streams keyed by (seed, sample, role, draw) cost: a whole evaluation with them and without, interleaved.

    python tests/benchmarks/bench_streams.py [ROUNDS]

Prints process CPU time of both and the ratio of each round; the median ratio is the figure to quote.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from types import SimpleNamespace
from unittest.mock import patch

import torch

from gencls import zoo
from gencls.eval import PGD, GaussianNoiseAttack, ThreatModel, evaluate


@contextmanager
def unkeyed(seeds: Sequence[int]) -> Iterator[SimpleNamespace]:
    """Torch's own global generator serves all draws."""
    yield SimpleNamespace(shared=set(), used=False)


@contextmanager
def unwatched() -> Iterator[SimpleNamespace]:
    """Nobody looks at the global generators, which would show that they serve all."""
    yield SimpleNamespace(shared=False)


def run(name: str, count: int) -> float:
    """CPU seconds of one evaluation."""
    digits = zoo.load_data("mnist-embedded", "test", limit=count)
    defense = zoo.load(name)
    threat = ThreatModel("l2", epsilon=1.5)
    attacks = {"PGD": PGD(threat, steps=20), "noise": GaussianNoiseAttack(threat)}
    began = time.process_time()
    evaluate(defense, attacks, [(digits.images, digits.labels)], eot_samples=16, judge_draws=32)
    return time.process_time() - began


def main(rounds: int) -> None:
    """Interleave the two."""
    torch.set_num_threads(1)
    for name, count in (("cnn-noise-mnist", 50), ("cnn-noise-mnist", 1), ("cnn-mnist", 50)):
        run(name, count)  # warm-up
        ratios = []
        for _ in range(rounds):
            with_streams = run(name, count)
            with patch("gencls.eval.judgement.probe.keyed", unkeyed), patch("gencls.eval.judgement.probe.watched", unwatched):
                without = run(name, count)
            ratios.append(with_streams / without)
            print(f"{name}, {count} digits: {with_streams:.2f} s with streams, {without:.2f} s without, {ratios[-1]:.3f}")
        print(f"{name}, {count} digits: median ratio {median(ratios):.3f} of {rounds} rounds")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
