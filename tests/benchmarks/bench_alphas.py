"""The search for alphas: how good the chosen point is, and what choosing costs.

    python tests/benchmarks/bench_alphas.py [SEEDS]             a noisy function of 24 numbers
    python tests/benchmarks/bench_alphas.py fashion [SEEDS]     the recipe's profile "fashion", nine alphas, cold and warm fits

The function is 1 minus a weighted distance from a rising profile, measured with a noise of 0.01 and rounded to 1/1024, like an
accuracy on 1,024 images; five starting points and 60 steps. On FashionMNIST it is the accuracy on 64 FGSM images, 4 draws each,
and 95 steps; the chosen point is measured again on 256 other images with 16 draws. Process CPU time, objective included.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from gencls import zoo
from gencls.defenses import AlphaSearch, MLVGMPurification, PurifiedAccuracy, fgsm_examples, learn_alphas

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # recipes

from recipes.mlvgm.settings import PROFILES

LEVELS, STEPS, NOISE = 24, 60, 0.01
VARIANTS = {
    "ei": {"acquisition": "ei"},
    "log-ei": {},
    "log-ei, warm": {"warm": True},
    "log-ei, known noise": {"variance": lambda value: NOISE**2},
}
FEW, MANY = 64, 256


def function(seed: int) -> tuple[Callable[[Tensor], float], Callable[[Tensor], float]]:
    """A value of alphas, and its noisy measurement."""
    source = torch.Generator().manual_seed(100 + seed)
    profile = torch.linspace(0, 0.9, LEVELS, dtype=torch.float64) ** 1.5
    optimum = (profile + 0.1 * torch.randn(LEVELS, generator=source, dtype=torch.float64)).clamp(0, 1)
    weights = torch.rand(LEVELS, generator=source, dtype=torch.float64)
    noise = torch.Generator().manual_seed(seed)

    def value(alphas: Tensor) -> float:
        return 1 - float((weights * (alphas - optimum).square()).sum() / weights.sum()) ** 0.5

    def measured(alphas: Tensor) -> float:
        return round((value(alphas) + NOISE * float(torch.randn(1, generator=noise))) * 1024) / 1024

    return value, measured


def fashion(seed: int) -> tuple[PurifiedAccuracy, PurifiedAccuracy]:
    """The accuracy on many images, and on a few others."""
    profile = PROFILES["fashion"]
    generator = zoo.load_generator(profile.generator).to(memory_format=torch.channels_last)
    purification = MLVGMPurification(generator, "linear", highest=profile.highest).eval()
    classifier, training = zoo.load(profile.classifier), zoo.load_data(profile.data, "train", limit=2048, seed=seed)
    images, labels = fgsm_examples(purification, classifier, training.images, training.labels, epsilon=profile.fgsm)
    few = PurifiedAccuracy(purification, classifier, images[:FEW], labels[:FEW], samples=4, seed=seed)
    rest = slice(FEW, FEW + MANY)
    return PurifiedAccuracy(purification, classifier, images[rest], labels[rest], samples=16, seed=seed + 1), few


def told(name: str, seed: int, search: AlphaSearch, value: Callable[[Tensor], float], spent: float) -> str:
    """The chosen point and the best start without the noise of the search."""
    true = [value(torch.tensor(search.trials[i].alphas, dtype=torch.float64)) for i in (*range(5), search.chosen)]
    return (
        f"{name}, seed {seed}: chosen {true[-1]:.4f} (best start {max(true[:5]):.4f}), {spent / len(search.trials):.2f} s per "
        f"step, optimiser {100 * search.optimiser_share:.0f} % of the time"
    )


def main(seeds: int, *, of_fashion: bool = False) -> None:
    """Every variant with every seed."""
    torch.set_num_threads(1)
    for seed in range(seeds):
        value, measured = fashion(seed) if of_fashion else function(seed)
        variants: dict[str, dict[str, object]] = dict(VARIANTS)
        if isinstance(measured, PurifiedAccuracy):
            variants = {name: {"variance": measured.variance, "warm": name == "warm"} for name in ("cold", "warm")}
        for name, settings in variants.items():
            began = time.process_time()
            search = learn_alphas(
                measured, 9 if of_fashion else LEVELS, steps=95 if of_fashion else STEPS, seed=seed, **settings
            )  # type: ignore[arg-type]
            print(told(name, seed, search, value, time.process_time() - began), flush=True)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    which = arguments[:1] == ["fashion"]
    numbers = arguments[1:] if which else arguments
    main(int(numbers[0]) if numbers else 1, of_fashion=which)
