import math

import pytest

from gencls.core import GenclsError
from gencls.defenses import CyclicalRate


def test_ten_steps_by_hand():
    # Three steps up from 1/10, six down to 1/100, one at rest.
    expected = [0.1, 0.4, 0.7, 1.0, 0.835, 0.67, 0.505, 0.34, 0.175, 0.01]
    assert [CyclicalRate()(step, 10) for step in range(1, 11)] == pytest.approx(expected, abs=1e-12)


def test_a_hundred_steps_of_the_thesis():
    rates = [CyclicalRate()(step, 100) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates.index(max(rates)) == 30
    assert rates[30] == pytest.approx(1.0)
    assert rates[15] == pytest.approx(0.55)
    assert rates[60] == pytest.approx(1 - 0.99 / 2)
    assert rates[90:] == pytest.approx([0.01] * 10)


def test_the_cosine_has_the_same_corners_and_its_own_way():
    rate = CyclicalRate(shape="cosine")
    assert [rate(step, 10) for step in (1, 4, 7, 10)] == pytest.approx([0.1, 1.0, 0.505, 0.01])
    assert rate(2, 10) == pytest.approx(0.1 + 0.9 * 0.5 * (1 - math.cos(math.pi / 3)))


@pytest.mark.parametrize(("steps", "expected"), [(1, [0.1]), (2, [0.1, 1 - 0.99 / 3])])
def test_few_steps(steps, expected):
    assert [CyclicalRate()(step, steps) for step in range(1, steps + 1)] == pytest.approx(expected)


@pytest.mark.parametrize("settings", [{"start": 0.0}, {"end": -0.1}, {"rise": 0.0}, {"fall": 0.8}])
def test_bad_settings(settings):
    with pytest.raises(GenclsError, match=r"CyclicalRate: expected start, end, rise, fall > 0 and rise \+ fall <= 1, got"):
        CyclicalRate(**settings)


def test_unknown_shape():
    with pytest.raises(GenclsError, match="expected shape to be one of 'linear', 'cosine', got 'sine'"):
        CyclicalRate(shape="sine")
