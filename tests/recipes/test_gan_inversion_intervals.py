"""How often intervals of correlations over settings miss the true one, in simulations: plain percentiles, and corrected ones.

`pytest -m slow -s` shows the rates that docs/reproduction/gan-inversion.md says.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from scipy.stats import binomtest

from recipes.gan_inversion import intervals
from recipes.gan_inversion.intervals import Estimate

SETTINGS, IMAGES, SIMULATIONS = 18, 200, 1000
"""Those of Table 3.1 with `--budget reduced`, and the simulations of the page."""

SURE = 0.01
"""A binomial p-value below it is no chance. The draws have a fixed seed, so a test does not change from run to run."""


@dataclass(frozen=True)
class World:
    """True values of 18 settings, of which a sample of images shows noisy means.

    Attributes:
        truth: the true correlation of error rate and distance over the settings.
        rates: the lowest and the highest true error rate; those between are evenly spaced.
        noise: standard deviation of an image's distance, in standard deviations of the true distances over the settings.
    """

    truth: float
    rates: tuple[float, float]
    noise: float

    def means(self):
        """True error rates and true distances, (18,) each, whose correlation is exactly ``truth``."""
        rates = np.linspace(*self.rates, SETTINGS)
        along = (rates - rates.mean()) / rates.std()
        across = np.random.default_rng(0).standard_normal(SETTINGS)
        across -= across.mean() + along * (across @ along) / SETTINGS
        return rates, self.truth * along + (1 - self.truth**2) ** 0.5 * across / across.std()


CALM = World(truth=0.5, rates=(0.10, 0.35), noise=3.0)
NOISY = World(truth=0.7, rates=(0.15, 0.30), noise=5.0)


def sides(found, truth):
    """Whether the truth lies above the interval (1), below it (-1) or in it (0)."""
    return int(truth > found.high) - int(truth < found.low)


def missed(world, count, monkeypatch):
    """On which side ``count`` intervals of each kind miss the truth: plain percentiles and corrected ones, (count,) each."""
    monkeypatch.setattr(intervals, "resamples", cache(intervals.resamples))  # the same for every simulation
    source, (rates, distances) = np.random.default_rng(1), world.means()
    assert np.corrcoef(rates, distances)[0, 1] == pytest.approx(world.truth)
    rows = []
    for _ in range(count):
        wrong = source.random((SETTINGS, IMAGES)) < rates[:, None]
        far = distances[:, None] + world.noise * source.standard_normal((SETTINGS, IMAGES))
        values, resampled = zip(*map(intervals.means, (wrong, far)), strict=True)
        corrected = intervals.correlation(*values, resampled).pearson
        plain = Estimate.of(corrected.value, intervals._pearson(*(each.T for each in resampled)))
        rows.append([sides(one, world.truth) for one in (plain, corrected)])
    return np.array(rows).T


def says(sides, count):
    return f"{100 * (sides != 0).mean():.0f} % ({(sides > 0).sum()} above and {(sides < 0).sum()} below of {count})"


def check_that_corrected_ones_miss_less(plain, corrected):
    """By a sign test over the simulations in which only one of both misses; and plain ones miss on one side.

    If plain ones missed on both sides alike, most likely at least a third of so many would lie below.
    """
    alone = [int(((first != 0) & (second == 0)).sum()) for first, second in ((plain, corrected), (corrected, plain))]
    assert binomtest(alone[0], sum(alone), 0.5, alternative="greater").pvalue < SURE
    above, below = int((plain > 0).sum()), int((plain < 0).sum())
    assert binomtest(above, above + below, 0.5, alternative="greater").pvalue < SURE


def test_corrected_intervals_miss_less_often(monkeypatch):
    check_that_corrected_ones_miss_less(*missed(NOISY, 25, monkeypatch))


@pytest.mark.slow
@pytest.mark.parametrize("world", [CALM, NOISY])
def test_how_often_intervals_miss_a_true_correlation(world, monkeypatch):
    plain, corrected = missed(world, SIMULATIONS, monkeypatch)
    print(f"\n{world}: plain percentiles {says(plain, SIMULATIONS)}, corrected {says(corrected, SIMULATIONS)}")
    check_that_corrected_ones_miss_less(plain, corrected)
    # Intervals of 95 % should miss 5 %, half of it on each side.
    assert binomtest(int((plain != 0).sum()), SIMULATIONS, 0.05, alternative="greater").pvalue < SURE
    assert binomtest(int((plain < 0).sum()), SIMULATIONS, 0.025, alternative="less").pvalue < SURE
    above, total = int((corrected > 0).sum()), int((corrected != 0).sum())
    if world is CALM:
        assert binomtest(above, total, 0.5).pvalue > SURE  # on both sides alike
    else:
        assert binomtest(total, SIMULATIONS, 0.05, alternative="greater").pvalue < SURE  # even these are too narrow
