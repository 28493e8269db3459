"""Arguments for fuzzed calls, as expressions: the right kinds mixed with what people pass by mistake.

An expression stands for a value, so that what failed can be read, and made again.
"""

import math
import types
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from torch import nn

import gencls.core
import gencls.defenses
import gencls.eval
import gencls.perceptual
import gencls.zoo
from gencls.core import TransformedClassifier
from gencls.defenses import ABS, GaussianNoise
from gencls.eval import FGSM, Study, ThreatModel
from gencls.eval.doctor.diagnosis import write_diagnoses
from gencls.eval.doctor.patient import Effort
from gencls.zoo.checkpoints.places import WEIGHTS
from tests import toys
from tests.toys import SigmoidDecoders, small_cnn

IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 3])


class Answers(nn.Module):
    """Returns what it is told to, whatever the images."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.eval()

    def forward(self, images):
        """The answer."""
        return self.answer(images)


def images():
    """Three random images."""
    return IMAGES.clone()


def labels():
    """Their labels."""
    return LABELS.clone()


def abs_small():
    """An ABS whose search is short."""
    return ABS(SigmoidDecoders(), starts=4, steps=1).eval()


@cache
def squeeze_trunk():
    """The tensors of a small network that LPIPS takes, at random."""
    import torchvision

    return torchvision.models.squeezenet1_1(weights=None).state_dict()


def noisy():
    """A random defense."""
    return TransformedClassifier(GaussianNoise(0.1), small_cnn(), 4).eval()


def settings():
    """Of a small study."""
    return {
        "defenses": {"d": small_cnn()},
        "attacks": {"x": FGSM(ThreatModel("linf", 0.1))},
        "images": IMAGES,
        "labels": LABELS,
    }


def finished():
    """The folder of a finished study."""
    if not Path("finished", "results.csv").exists():
        Study("finished", **settings()).run()
    return "finished"


def diagnosed():
    """The file of a diagnosis."""
    check = {"name": "x", "status": "fail", "finding": "y", "evidence": {}}
    write_diagnoses(Path("doctor.json"), {"d": {"passed": False, "checks": [check]}})
    return Path("doctor.json")


def table(**changes):
    """Records of two defenses and two attacks on three samples."""
    rows = []
    for i, defense in enumerate(("a", "b")):
        for j, epsilon in enumerate((0.3, None)):
            for k in range(3):
                right = (i + j + k) % 2 == 0
                row = {"sample": k, "sample_hash": f"{k:x}f", "label": k, "defense": defense, "attack": f"x{j}"}
                row |= {"gradient": "exact", "norm": "l2", "epsilon": epsilon, "seed": 0, "clean_correct": 1.0}
                row |= {"correct": float(right), "clean_majority_correct": True, "majority_correct": right, "claimed": True}
                row |= {"distance": 0.1, "valid": True, "draws": 1, "forwards": 1.0, "backwards": 1.0, "seconds": 0.1}
                rows.append({**row, "predictions": [k], "clean_predictions": [k], "warnings": ""})
    return pandas.DataFrame(rows).assign(**changes)


KNOWN: dict[str, Any] = {
    **vars(toys),
    **{name: value for name, value in globals().items() if not name.startswith("_")},
    **{name: getattr(package, name) for package in (gencls.eval, gencls.defenses, gencls.core) for name in package.__all__},
    **{"WEIGHTS": WEIGHTS, "np": np, "Fraction": Fraction, "Effort": Effort, "types": types},
    "NAN": math.nan,
    "INF": math.inf,
}
"""Arguments that decide how long a call takes: always given, so that no default makes it long."""


def value(code: str) -> Any:
    """What an expression stands for."""
    return eval(code, dict(KNOWN))  # noqa: S307


def gencls_class(module: str, name: str) -> Any:
    """A class by its module and name."""
    import importlib

    return getattr(importlib.import_module(module), name)


KNOWN["gencls_class"] = gencls_class
