"""Bad input of distortion-distortion curves and statistics of codes, for tests/test_bad_input.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gencls.eval.measures.distortion_curves import DistortionCurve
from gencls.eval.measures.distortion_intervals import area_contrast, area_interval, compare_areas
from gencls.eval.measures.latent_statistics import mean_absolute_codes
from gencls.eval.measures.picture_curves import picture_curve
from gencls.eval.measures.tsne_map import tsne_map

PICTURES = torch.full((2, 1, 4, 4), 0.5)


def _curve(
    epsilons: Any = (0.0, 0.5, 1.0), values: Any = ((0.0, 0.1, 0.2), (0.0, 0.2, 0.3)), name: str = "LPIPS"
) -> DistortionCurve:
    return DistortionCurve(epsilons, values, name in ("SSIM", "PSNR"), name)


def _measured(pictures: Any) -> None:
    picture_curve(lambda a, b: (a - b).square().mean((1, 2, 3)), PICTURES, pictures, larger_is_better=False, name="MSE")


CURVES: dict[str, Callable[[Path], object]] = {
    "a curve at a negative epsilon": lambda _: _curve(epsilons=(-0.5, 0.5, 1.0)),
    "a curve at epsilons out of order": lambda _: _curve(epsilons=(0.0, 1.0, 0.5)),
    "a curve of one epsilon": lambda _: _curve(epsilons=(0.5,), values=((0.1,),)),
    "a curve with NaN": lambda _: _curve(values=((0.0, np.nan, 0.2),)),
    "a curve without images": lambda _: _curve(values=np.ones((0, 3))),
    "a curve with values of fewer epsilons": lambda _: _curve(values=np.ones((2, 2))),
    "a base line that is infinite": lambda _: _curve().area(np.inf),
    "the area of infinite PSNR": lambda _: _curve(values=((np.inf, 40.0, 30.0),), name="PSNR").area(34.0),
    "an interval over seeds with one seed": lambda _: area_interval(_curve(), 0.15),
    "curves of two measures": lambda _: compare_areas({"vae": _curve(), "dae": _curve(name="SSIM")}, 0.15),
    "curves at other epsilons": lambda _: area_interval([_curve(), _curve(epsilons=(0.0, 1.0, 2.0))], 0.15),
    "curves of other images": lambda _: area_interval([_curve(), _curve(values=((0.0, 0.1, 0.2),))], 0.15),
    "a contrast of a model that is not there": lambda _: area_contrast({"vae": [_curve()] * 2}, {"dae": 1}, 0.15),
    "attacked pictures of another shape": lambda _: _measured({0.0: PICTURES, 0.5: PICTURES[..., :3]}),
    "attacked pictures out of [0, 1]": lambda _: _measured({0.0: PICTURES, 0.5: PICTURES + 1}),
    "codes of two shapes": lambda _: mean_absolute_codes(np.ones((3, 2)), np.ones((3, 4))),
    "one code for statistics": lambda _: mean_absolute_codes(np.ones((1, 2)), np.ones((1, 2))),
    "a map of fewer codes than neighbours": lambda _: tsne_map({"codes": np.ones((3, 2))}),
}
