"""Curves of pictures before and after attacks."""

import pytest
import torch
from torch import Tensor, nn

from gencls.core import GenclsError
from gencls.eval.measures.fid import Penultimate
from gencls.eval.measures.picture_curves import frechet_curve, picture_curve

REFERENCE = torch.full((130, 1, 4, 4), 0.5)
PICTURES = {epsilon: (REFERENCE + epsilon).clamp(0, 1) for epsilon in (0.0, 0.1, 0.3)}


def squared(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().mean((1, 2, 3))


def test_each_picture_is_measured_against_its_reference() -> None:
    """In chunks: there are more pictures than one has."""
    seen: list[int] = []

    def measure(a: Tensor, b: Tensor) -> Tensor:
        seen.append(len(a))
        return squared(a, b)

    reference = REFERENCE.clone().requires_grad_()
    curve = picture_curve(measure, reference, PICTURES, larger_is_better=False, name="MSE")
    torch.testing.assert_close(
        torch.tensor(curve.values), torch.tensor([0.0, 0.01, 0.09]).double().repeat(130, 1), atol=1e-7, rtol=0
    )
    assert curve.epsilons.tolist() == [0.0, 0.1, 0.3]
    assert seen == [100, 30] * 3
    assert (curve.name, curve.larger_is_better) == ("MSE", False)


def test_frechet_curve_takes_a_classifiers_features() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    reference = torch.rand(50, 1, 4, 4) / 2
    curve = frechet_curve(Penultimate(network), reference, {0.0: reference, 1.0: reference + 0.25}, name="FID (pixels)")
    # The last layer sees the pixels: the covariance stays, each of 16 means moves by 1/4.
    assert curve.heights == pytest.approx([0.0, 1.0], abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measure": "MSE"}, "expected a measure, a function, got str"),
        (
            {"measure": lambda a, b: squared(a, b).mean()},
            r"MSE: expected one real number per image from the measure, \(100,\), got",
        ),
        ({"measure": lambda a, b: squared(a, b) / 0}, "MSE: expected finite numbers, got nan"),
        ({"pictures": {}}, "expected pictures by epsilon, a mapping, got none"),
        ({"pictures": [REFERENCE]}, "expected pictures by epsilon, a mapping, got list"),
        ({"pictures": {0.1: REFERENCE[:5], 0.2: REFERENCE}}, r"shape \(130, 1, 4, 4\), got \(5, 1, 4, 4\) at epsilon 0\.1"),
        ({"pictures": {0.1: REFERENCE * 3, 0.2: REFERENCE}}, r"pictures at epsilon 0\.1: expected values in \[0, 1\]"),
        ({"pictures": {0.2: REFERENCE, 0.1: REFERENCE}}, "that grow"),
        ({"pictures": {-0.2: REFERENCE, 0.1: REFERENCE}}, "finite epsilons >= 0"),
        ({"pictures": {"a": REFERENCE, "b": REFERENCE}}, "epsilons: expected numbers"),
        ({"reference": REFERENCE[:0]}, "reference: expected at least one image"),
    ],
)
def test_bad_pictures_are_refused(changes: dict[str, object], message: str) -> None:
    given = {"measure": squared, "reference": REFERENCE, "pictures": PICTURES, **changes}
    with pytest.raises(GenclsError, match=message):
        picture_curve(**given, larger_is_better=False, name="MSE")


def test_frechet_curve_names_its_features() -> None:
    with pytest.raises(GenclsError, match="expected features of a classifier, a Penultimate, got Flatten"):
        frechet_curve(nn.Flatten(), REFERENCE, PICTURES, name="FID")
