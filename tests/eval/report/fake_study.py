"""Records, images and diagnoses of a study that nobody ran, and a parser of its page."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd

# (defense, clean accuracy, draws, gradient modes, accuracy left at the two budgets of each norm)
DEFENSES = (
    ("cnn-mnist", 0.985, 1, ("exact",), {"linf": (0.42, 0.0), "l2": (0.55, 0.06)}),
    ("cnn-noise-mnist", 0.96, 8, ("exact",), {"linf": (0.58, 0.03), "l2": (0.7, 0.24)}),
    ("adv-linf-mnist", 0.975, 1, ("exact",), {"linf": (0.93, 0.81), "l2": (0.6, 0.21)}),
    ("abs-mnist", 0.94, 5, ("frozen", "unrolled"), {"linf": (0.71, 0.12), "l2": (0.88, 0.74)}),
)
BUDGETS = {"linf": (0.1, 0.3), "l2": (0.75, 1.5)}
ATTACKS = {"pgd-linf": ("linf", 1.0), "fgsm-linf": ("linf", 1.25), "pgd-l2": ("l2", 1.0), "noise-l2": ("l2", None)}
WARNING = "weaker than the transfer of another defense's images"


@cache
def fake_records(n: int = 60) -> pd.DataFrame:
    """Records of an invented study with the columns and the order of magnitude of a real one."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, n)
    rows: list[dict[str, Any]] = []
    for defense, clean, draws, modes, left in DEFENSES:
        hard = generator.random(n)
        clean_draws = generator.random((n, draws)) < np.where(hard < clean, 0.99, 0.08)[:, None]
        for attack, (norm, weakness) in ATTACKS.items():
            for level, budget in enumerate(BUDGETS[norm]):
                for mode in modes if weakness else ("none",):
                    goal = (
                        min(clean, left[norm][level] * weakness * (1.1 if mode == "frozen" else 1))
                        if weakness
                        else clean - 0.02
                    )
                    right = generator.random((n, draws)) < np.where(hard < goal, 0.97, 0.03 if draws > 1 else 0.0)[:, None]
                    right &= clean_draws
                    for i in range(n):
                        rows.append(
                            {
                                "sample": i,
                                "sample_hash": f"{i:016x}",
                                "label": labels[i],
                                "defense": defense,
                                "attack": attack,
                                "gradient": mode,
                                "norm": norm,
                                "epsilon": budget,
                                "seed": 0,
                                "clean_correct": clean_draws[i].mean(),
                                "correct": right[i].mean(),
                                "clean_majority_correct": bool(clean_draws[i].mean() > 0.5),
                                "majority_correct": bool(right[i].mean() > 0.5),
                                "undecided": bool(draws > 1 and right[i].sum() == draws // 2),
                                "attack_draws": 16 if draws > 1 else 1,
                                "peak_memory": 512.25,
                                "claimed": bool(right[i].mean() < 0.7),
                                "distance": budget * generator.uniform(0.97, 1),
                                "valid": True,
                                "draws": draws,
                                "predictions": [int(labels[i] if r else (labels[i] + 1) % 10) for r in right[i]],
                                "clean_predictions": [int(labels[i] if r else (labels[i] + 1) % 10) for r in clean_draws[i]],
                                "forwards": 40.0 * draws + draws,
                                "backwards": 40.0 * draws if weakness else 0.0,
                                "seconds": 0.21 if defense == "abs-mnist" else 0.011,
                                "warnings": WARNING if mode == "frozen" and norm == "linf" else "",
                            }
                        )
    return pd.DataFrame(rows)


def minimal_records(n: int = 20) -> pd.DataFrame:
    """Records of an attack that looks for minimal perturbations."""
    records = fake_records(n)
    records = records[(records["attack"] == "pgd-l2") & (records["epsilon"] == 1.5)].copy()
    generator = np.random.default_rng(5)
    return records.assign(
        attack="ddn",
        epsilon=np.nan,
        distance=generator.gamma(4, 0.3, len(records)),
        correct=0.0,
        majority_correct=generator.random(len(records)) < 0.1,  # failures
    )
