"""A small study that grows, and its table."""

import torch

from gencls.eval import PGD, Protocol, Study, ThreatModel
from tests.toys import small_cnn

LINF = ThreatModel("linf", 0.05)
IMAGES = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(12) % 4


def study(folder, *, count=6, **changes):
    settings = {
        "defenses": {"net": small_cnn()},
        "attacks": {"pgd": PGD(LINF, steps=2)},
        "images": IMAGES[:count],
        "labels": LABELS[:count],
        "protocol": Protocol(eot_samples=2, judge_draws=3),
        "shard_size": 3,
    }
    return Study(folder, **{**settings, **changes})
