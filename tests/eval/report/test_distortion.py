"""Figures of distortion-distortion curves."""

from collections.abc import Mapping

import numpy as np
import pytest
from matplotlib.figure import Figure

from gencls.core import GenclsError
from gencls.eval.measures.distortion_curves import DistortionCurve
from gencls.eval.measures.distortion_intervals import CurveBand, curve_band
from gencls.eval.report.paper.distortion import distortion_panels
from gencls.eval.report.style import NamedFigure


def band(*heights: float, larger: bool = False) -> CurveBand:
    curves = [DistortionCurve((0, 1, 2), [np.array(heights) * factor], larger, "X") for factor in (0.9, 1.0, 1.1)]
    return curve_band(curves, over="seeds")


PANELS: Mapping[str, Mapping[str, CurveBand]] = {
    "LPIPS": {"VAE": band(0.0, 0.1, 0.2), "DAE": band(0.0, 0.05, 0.1)},
    "PSNR": {"DAE": band(np.inf, 40.0, 30.0, larger=True)},
}


def titled(figure: Figure) -> dict[str, list]:
    return {axis.get_title(): axis.get_lines() for axis in figure.axes if axis.get_title()}


def test_lines_bands_and_base_lines_are_drawn() -> None:
    figure = distortion_panels(PANELS, base_lines={"LPIPS": 0.15}, dotted=["VAE"], shaded="VAE", columns=1)
    (vae, dae, line), (alone,) = (titled(figure)[name] for name in ("LPIPS", "PSNR"))
    np.testing.assert_allclose(vae.get_ydata(), [0.0, 0.1, 0.2])
    assert (vae.get_linestyle(), dae.get_linestyle(), line.get_linestyle()) == (":", "-", "--")
    assert set(line.get_ydata()) == {0.15}
    assert dae.get_color() == alone.get_color() != vae.get_color()
    np.testing.assert_allclose(alone.get_xdata(), [1, 2])  # the first value is infinite
    assert [axis.get_ylabel() for axis in figure.axes] == ["smaller is better", "larger is better"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["VAE", "DAE", "base line"]


def test_the_shade_ends_where_the_curve_crosses_the_line() -> None:
    figure = distortion_panels({"LPIPS": {"VAE": band(0.0, 0.1, 0.2)}}, base_lines={"LPIPS": 0.15}, shaded="VAE")
    shade = next(one for one in figure.axes[0].collections if one.get_hatch())
    corners = np.concatenate([path.vertices for path in shade.get_paths()])
    assert corners[:, 0].max() == pytest.approx(1.5)
    assert (corners[:, 1].min(), corners[:, 1].max()) == pytest.approx((0.0, 0.15))


def test_equal_figures_give_equal_bytes() -> None:
    first, second = (
        NamedFigure("s", "n", "t", distortion_panels(PANELS, base_lines={"PSNR": 34.0})).encode("png") for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize(
    ("panels", "settings", "message"),
    [
        ({}, {}, r"at least one curve in each panel, got \[\]"),
        ({"LPIPS": {}}, {}, r"at least one curve in each panel, got \[0\]"),
        (PANELS, {"base_lines": {"SSIM": 0.4}}, r"base lines of the panels \['LPIPS', 'PSNR'\], got \['SSIM'\]"),
        (PANELS, {"shaded": "AAE"}, r"a model to shade among \['VAE', 'DAE'\], got 'AAE'"),
        (
            {"X": {"a": band(0, 1, 2), "b": band(0, 1, 2, larger=True)}},
            {},
            "X: expected curves that agree whether larger is better",
        ),
    ],
)
def test_bad_panels_are_refused(panels: Mapping[str, Mapping[str, CurveBand]], settings: dict, message: str) -> None:
    with pytest.raises(GenclsError, match=message):
        distortion_panels(panels, **settings)
