"""One small instance per transform, defense and named constructor; ``seed`` decides weights and codes.

A new one gets one row here, and with it every contract test: a transform in TRANSFORMS, any other defense in DEFENSES. A
variant has the name with a comma behind it.
"""

import torch
from torch import nn

from gencls.core import Transform, TransformedClassifier
from gencls.defenses import (
    ABS,
    EABS,
    AnalysisBySynthesis,
    AVAEPurification,
    Ball,
    Binarize,
    ClassFactors,
    DefenseGAN,
    Direct,
    DirectPlus,
    Enc,
    EncD,
    EncDPlus,
    EncPlus,
    FixedLengthNoise,
    GaussianBlur,
    GaussianKL,
    GaussianNoise,
    MLVGMPurification,
    NDVAEPurification,
    PlainClassifier,
    RandomizedSmoothing,
    RandomStarts,
    VariationalPosteriorSmoothing,
    VariationalSmoothing,
)
from gencls.perceptual import L2, SquaredL2
from tests.toys import LinearBlocks, MeanRowsPixels, NoisyRows, SigmoidDecoders, SigmoidGenerator, small_cnn

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


def smoothing(seed: int, **settings: object) -> VariationalSmoothing:
    """In several parts, also of the draws."""
    return VariationalSmoothing(small_cnn(CLASSES, seed=seed), CLASSES, **{"radius": 0.05, "max_rows": 9, **settings})


class SmallEncoder(nn.Module):
    """Mean and log-variance of three latents per class."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.cnn = small_cnn(2 * CLASSES * 3, seed=seed)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_variance = self.cnn(images).view(len(images), 2, CLASSES, 3).unbind(1)
        return mean, log_variance


def inversion(method, seed: int, *, encoded: bool, **settings: object) -> AnalysisBySynthesis:
    """A small blockwise generator, with an encoder if the method takes one."""
    networks = [LinearBlocks(CLASSES, SHAPE, seed=seed), *([small_cnn(3, seed=seed)] if encoded else [])]
    chosen = {"starts": 16, "seed": seed} if not encoded else {}
    return method(*networks, **{"distance": SquaredL2(), "steps": 5, "weight": 0.5, **chosen, **settings})


class SmallDiscriminator(nn.Module):
    """Logits of a linear discriminator."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(3, generator=source))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return latents @ self.weight


TRANSFORMS = {
    "GaussianNoise": lambda seed: GaussianNoise(0.1),
    "GaussianBlur": lambda seed: GaussianBlur(0.8),
    "FixedLengthNoise": lambda seed: FixedLengthNoise(0.5),
    "Binarize": lambda seed: Binarize(),
    "MLVGMPurification": lambda seed: MLVGMPurification(MeanRowsPixels(), "cosine", blur=GaussianBlur(0.5)),
    "MLVGMPurification, noise": lambda seed: MLVGMPurification(MeanRowsPixels(), "linear", noise=FixedLengthNoise(1.0)),
    "MLVGMPurification, alphas 0": lambda seed: MLVGMPurification(MeanRowsPixels(), "linear").base(),
    "AVAEPurification": lambda seed: AVAEPurification(NoisyRows(), realisations=5, per_pass=2),
    "NDVAEPurification": lambda seed: NDVAEPurification(NoisyRows(), sigma=0.05),
    "DefenseGAN": lambda seed: DefenseGAN(
        SigmoidGenerator(seed), (3,), restarts=2, steps=4, lr=0.01, optimizer="gradient", max_rows=12
    ),
}
"""They take images of any shape from 7x7 pixels, with one channel or three."""

FIXED = {"DefenseGAN": SHAPE}
"""Shape of the images of transforms that take no other; the generator decides."""

DEFENSES = {
    "PlainClassifier": lambda seed: PlainClassifier(small_cnn(CLASSES, seed=seed), CLASSES),
    "TransformedClassifier": lambda seed: behind(HalfContrast(), seed),
    **{name: lambda seed, make=make: behind(make(seed), seed) for name, make in TRANSFORMS.items()},
    "RandomizedSmoothing": lambda seed: RandomizedSmoothing(small_cnn(CLASSES, seed=seed), CLASSES, sigma=0.5, draws=16),
    "AnalysisBySynthesis": engine,
    "ABS": lambda seed: ABS(SigmoidDecoders(CLASSES, SHAPE, seed=seed), starts=64, steps=5, seed=seed),
    "EABS": lambda seed: EABS(
        SigmoidDecoders(CLASSES, SHAPE, seed=seed),
        encoder=SmallEncoder(seed),
        discriminator=SmallDiscriminator(seed),
        starts=64,
        steps=5,
        seed=seed,
    ),
    "Direct": lambda seed: inversion(Direct, seed, encoded=False),
    "Direct, fast": lambda seed: inversion(Direct, seed, encoded=False, fast=True, ranked_by="l1"),
    "DirectPlus": lambda seed: inversion(DirectPlus, seed, encoded=False),
    "Enc": lambda seed: inversion(Enc, seed, encoded=True, blocks=1),
    "EncPlus": lambda seed: inversion(EncPlus, seed, encoded=True, distance=L2()),
    "EncD": lambda seed: inversion(EncD, seed, encoded=True, weight=2.0),
    "EncDPlus": lambda seed: inversion(EncDPlus, seed, encoded=True, fast=True),
    "ClassFactors": lambda seed: ClassFactors(
        ABS(SigmoidDecoders(CLASSES, SHAPE, seed=seed), starts=64, steps=5, seed=seed), [1.0, 0.96, 1.06, 1.03]
    ),
    "VariationalSmoothing": lambda seed: smoothing(seed),
    "VariationalSmoothing, L2": lambda seed: smoothing(seed, norm="l2", radius=0.5, steps=3, kl=True),
    "VariationalSmoothing, hard": lambda seed: smoothing(seed, hard=True, draws=25, objective="minimize"),
    "VariationalPosteriorSmoothing": lambda seed: VariationalPosteriorSmoothing(
        small_cnn(CLASSES, seed=seed), CLASSES, steps=3, draws=3, max_rows=12
    ),
}
"""They take images (N, 1, 8, 8) of 4 classes."""
