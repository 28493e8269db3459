"""Areas between a distortion-distortion curve and a base line (AADDC): exact for piecewise linear curves.

The latent-robustness paper (section 3.1.2, Figure 6) integrates the area between the mean curve and the base line. For a
measure that grows with quality (SSIM, PSNR) it lies below the curve and above the line, for one that falls (LPIPS, FID, MSE)
above the curve and below the line. The paper does not say what counts where the curve has crossed the line. Here the two sides
are two numbers. The area is that of the good side alone, where pictures are still better than the line. The area beyond the
line is a number of its own. Their difference would be the integral of the curve minus the line: a bad end would then cancel a
good beginning, and the area would shrink with every further epsilon that is attacked.

An area has the unit of the measure times that of epsilon. It depends on the base line and on the largest epsilon, so only areas
of one table compare.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

__all__ = ["TABLE_1_BASE_LINES", "TABLE_3_BASE_LINES", "areas"]

Floats = npt.NDArray[np.float64]

TABLE_1_BASE_LINES: Mapping[str, float] = MappingProxyType({"LPIPS": 0.15, "SSIM": 0.4})
"""The base lines of the paper's Tables 1 and 2 and of Figure 6."""

TABLE_3_BASE_LINES: Mapping[str, float] = MappingProxyType({"LPIPS": 0.06, "SSIM": 0.75, "FID": 3e-4, "PSNR": 34.0})
"""The base lines of the paper's Table 3; PSNR is in dB, and the features of its FID are not named."""


def areas(epsilons: Floats, heights: Floats, base_line: float, *, larger_is_better: bool) -> tuple[Floats, Floats]:
    """Integrate the distance between curves and a base line on either side of it; values are not checked.

    Between two epsilons a curve is a straight line. A crossing lies where it meets the base line, and the triangles on both
    sides have areas in closed form. Where a curve touches the line or lies on it, it has no area.

    Source: Lu and Chen, "On the Adversarial Robustness of Generative Autoencoders in the Latent Space", section 3.1.2.

    Args:
        epsilons: (E,) growing attack strengths.
        heights: (..., E) finite values of one or many curves.
        base_line: the limit, in the unit of the measure.
        larger_is_better: whether the good side is above the line.

    Returns:
        (...) areas on the good side and (...) areas beyond the line, both >= 0.
    """
    good = heights - base_line if larger_is_better else base_line - heights
    widths, first, last = np.diff(epsilons), good[..., :-1], good[..., 1:]
    high, low = np.maximum(first, last), np.minimum(first, last)
    crosses = (high > 0) & (low < 0)
    share = np.where(crosses, high, 0.0) / np.where(crosses, high - low, 1.0)  # of the width, before the crossing or after it
    before = np.where(crosses, high * share, np.maximum(high, 0.0) + np.maximum(low, 0.0))
    beyond = np.where(crosses, -low * (1 - share), np.maximum(-high, 0.0) + np.maximum(-low, 0.0))
    return (before * widths).sum(-1) / 2, (beyond * widths).sum(-1) / 2
