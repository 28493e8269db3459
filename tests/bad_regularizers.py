"""Bad input of penalties on codes, for tests/test_bad_input.py."""

from collections.abc import Callable
from pathlib import Path

import torch

from gencls.zoo.networks import MMD, Adversarial, CodePosterior, CodeRegularizer, KLDivergence, ShapiroWilk, TotalCorrelation


def _penalise(penalty: CodeRegularizer, *shape: int, variational: bool = False) -> None:
    codes = torch.zeros(shape)
    penalty(codes, CodePosterior(codes, codes if variational else None))


REGULARIZERS: dict[str, Callable[[Path], object]] = {
    "codes of another rank for a penalty": lambda _: _penalise(MMD(), 4, 10, 1),
    "codes that are no floating-point numbers": lambda _: MMD()(
        torch.zeros(4, 10, dtype=torch.int64), CodePosterior(torch.zeros(4, 10))
    ),
    "the posterior of other codes": lambda _: KLDivergence()(torch.zeros(4, 10), CodePosterior(*torch.zeros(2, 3, 10))),
    "one code for MMD": lambda _: _penalise(MMD(), 1, 10),
    "one code for Shapiro-Wilk": lambda _: _penalise(ShapiroWilk(), 1, 10),
    "more codes for Shapiro-Wilk than its weights were fitted to": lambda _: _penalise(ShapiroWilk(), 5001, 10),
    "a deterministic encoder and a KL divergence": lambda _: _penalise(KLDivergence(), 4, 10),
    "a deterministic encoder and a total correlation": lambda _: _penalise(TotalCorrelation(4.0, 60_000), 4, 10),
    "one code for a total correlation": lambda _: _penalise(TotalCorrelation(4.0, 60_000), 1, 10, variational=True),
    "more codes for a total correlation than there are images": lambda _: _penalise(
        TotalCorrelation(4.0, 3), 4, 10, variational=True
    ),
    "a kernel that MMD does not know": lambda _: MMD(kernel="rbf"),  # type: ignore[arg-type]
    "MMD with a scale of 0": lambda _: MMD(scales=(1.0, 0.0)),
    "codes of another length than the discriminator takes": lambda _: _penalise(Adversarial(10), 4, 30),
}
