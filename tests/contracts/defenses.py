"""One small instance per public defense, transform and named constructor; ``seed`` decides weights and codes.

All take images (N, 1, 8, 8) of 4 classes. A new defense gets a row here, and with it every contract test.
"""

import torch

from gencls.core import Transform, TransformedClassifier
from gencls.defenses import (
    ABS,
    AnalysisBySynthesis,
    Ball,
    GaussianBlur,
    GaussianKL,
    GaussianNoise,
    PlainClassifier,
    RandomStarts,
)
from gencls.perceptual import L2
from tests.toys import SigmoidDecoders, small_cnn

SHAPE = (1, 8, 8)
CLASSES = 4


class HalfContrast(Transform):
    """The simplest transform."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 0.25 + images / 2


def behind(transform: Transform, seed: int) -> TransformedClassifier:
    return TransformedClassifier(transform, small_cnn(CLASSES, seed=seed), CLASSES)


def engine(seed: int) -> AnalysisBySynthesis:
    """Parts that no named constructor uses."""
    generator, regularizer = SigmoidDecoders(CLASSES, SHAPE, seed=seed), GaussianKL()
    return AnalysisBySynthesis(
        generator,
        start=RandomStarts(generator, regularizer, 0.1, count=16, seed=seed),
        distance=L2(),
        regularizer=regularizer,
        weight=0.1,
        steps=4,
        lr=0.1,
        optimizer="gradient",
        project=Ball(2.0),
    )


DEFENSES = {
    "PlainClassifier": lambda seed: PlainClassifier(small_cnn(CLASSES, seed=seed), CLASSES),
    "TransformedClassifier": lambda seed: behind(HalfContrast(), seed),
    "GaussianNoise": lambda seed: behind(GaussianNoise(0.1), seed),
    "GaussianBlur": lambda seed: behind(GaussianBlur(0.8), seed),
    "AnalysisBySynthesis": engine,
    "ABS": lambda seed: ABS(SigmoidDecoders(CLASSES, SHAPE, seed=seed), starts=64, steps=5, seed=seed),
}

NOT_DEFENSES = {"Ball", "GaussianKL", "RandomStarts"}
"""Public parts of defenses."""
