"""What random streams of rows cost: a whole evaluation with them and with the device's own generator, interleaved.

    python tests/benchmarks/bench_streams.py [ROUNDS]

Prints process CPU time of both and the ratio of each round; the median ratio is the figure to quote.
"""

import sys
import time
from statistics import median

import torch

from gencls import zoo
from gencls.eval import PGD, GaussianNoiseAttack, ThreatModel, evaluate


def run(name: str, count: int, streams: str) -> float:
    """CPU seconds of one evaluation."""
    digits = zoo.load_data("mnist-embedded", "test", limit=count)
    defense = zoo.load(name)
    threat = ThreatModel("l2", epsilon=1.5)
    attacks = {"PGD": PGD(threat, steps=20), "noise": GaussianNoiseAttack(threat)}
    began = time.process_time()
    evaluate(defense, attacks, [(digits.images, digits.labels)], eot_samples=16, judge_draws=32, streams=streams)
    return time.process_time() - began


def main(rounds: int) -> None:
    """Interleave the two."""
    torch.set_num_threads(1)
    for name, count in (("cnn-noise-mnist", 50), ("cnn-noise-mnist", 1), ("cnn-mnist", 50)):
        run(name, count, "rows")  # warm-up
        ratios = []
        for _ in range(rounds):
            rows, device = (run(name, count, streams) for streams in ("rows", "device"))
            ratios.append(rows / device)
            print(f"{name}, {count} digits: {rows:.2f} s with streams of rows, {device:.2f} s without, {ratios[-1]:.3f}")
        print(f"{name}, {count} digits: median ratio {median(ratios):.3f} of {rounds} rounds")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
