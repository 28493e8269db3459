"""A small study in a process of its own: python -m tests.eval.study.study_in_toys FOLDER prints each cell that it computes."""

import sys
import time
from contextlib import contextmanager

import torch

from gencls.core import TransformedClassifier
from gencls.defenses import ABS, GaussianNoise
from gencls.eval import PGD, GaussianNoiseAttack, Protocol, Study, ThreatModel
from tests.toys import SigmoidDecoders, small_cnn

LINF, L2 = ThreatModel("linf", 0.05), ThreatModel("l2", 0.4)


def small_study(folder, **changes):
    """44 cells: 3 defenses with 3, 3 and 5 runs (attacks and gradient modes), 2 seeds, 2 shards of 30 random images."""
    source = torch.Generator().manual_seed(1)
    settings = {
        "defenses": {
            "cnn": small_cnn(),
            "noise": TransformedClassifier(GaussianNoise(0.1), small_cnn(), 4).eval(),
            "abs": ABS(SigmoidDecoders(), starts=16, steps=2).eval(),
        },
        "attacks": {"pgd": PGD(LINF, steps=4), "pgd-l2": PGD(L2, steps=3), "noise": GaussianNoiseAttack(LINF, tries=2)},
        "images": torch.rand(30, 1, 8, 8, generator=source),
        "labels": torch.randint(0, 4, (30,), generator=source),
        "protocol": Protocol(eot_samples=2, judge_draws=3),
        "seeds": (0, 1),
        "shard_size": 18,
        "about": {"data": "random images"},
    }
    return Study(folder, **{**settings, **changes})


def main(folder, pause):
    """Run the study, resting a while after each cell."""
    torch.set_num_threads(1)

    @contextmanager
    def tell(cells):
        def finished(cell):
            print(cell.key, flush=True)
            time.sleep(pause)

        yield finished

    small_study(folder).run(progress=tell)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
