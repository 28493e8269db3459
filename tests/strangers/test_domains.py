"""Statistics outside their domain: an error that says what was expected, never a number that means nothing."""

import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch

from gencls.core import GenclsError
from gencls.defenses.smoothing.confidence import clopper_pearson, empirical_bernstein, majority_p_value
from gencls.eval import certified_accuracy, closest_distances, compare, robust_accuracy, success_rate_curve, summarize
from gencls.eval.measures.statistics import bootstrap_band, holm, mcnemar, pairwise_mcnemar, wilson, wilson_band
from gencls.eval.study.cost import duration

NAN, INF = math.nan, math.inf
YES = np.array([True, False])
THREE = np.ones(3)


def means(samples):
    """The mean of each resample (B, N) -> (B, 1)."""
    return samples.mean(axis=1, keepdims=True)


def band(**changes):
    """The bootstrap of three ones, with other arguments."""
    arguments = {"values": THREE, "statistic": means, "resamples": 10, **changes}
    return bootstrap_band(arguments.pop("values"), arguments.pop("statistic"), **arguments)


def certificates(labels, radii):
    """What a smoothing certifies."""
    return certified_accuracy(SimpleNamespace(labels=labels, radii=radii), torch.tensor([0, 1]), [0.5])


LABELS = torch.tensor([0, 1])
NO_COUNT = (0, -1, 2.5, NAN, INF, True, None, "3", 3.0)
NO_ALPHA = (0, 1, 0.0, 1.0, -0.1, 1.5, NAN, INF, None, "0.05", True)
NO_NUMBERS = ("word", ["1"], [None], [[1.0], [1.0, 2.0]], [1j], object(), {"a": 1}, {1.0})
CASES = [
    *((lambda n=n: wilson(0, n), "count: expected an int >= 1") for n in NO_COUNT),
    *((lambda a=a: wilson(1, 3, a), "confidence strictly between") for a in NO_ALPHA),
    *((lambda v=v: wilson_band(v, 3), "expected numbers|between 0 and 3") for v in (*NO_NUMBERS, [NAN], [4], [-1], [INF])),
    *((lambda s=s: band(seed=s), "seed: expected an int >= 0") for s in (-1, NAN, None, "0", 1.5, True)),
    *((lambda n=n: band(resamples=n), "resamples: expected an int >= 1") for n in NO_COUNT),
    *((lambda a=a: band(confidence=a), "confidence strictly between") for a in NO_ALPHA),
    *((lambda v=v: band(values=v), "bootstrap: .*expected") for v in (*NO_NUMBERS, [], [NAN], [[1.0]], 1.0)),
    *((lambda f=f: band(statistic=f), "expected a statistic") for f in (None, 3, np.mean, lambda x: x[:1], lambda x: x[:, 0])),
    (lambda: band(statistic=lambda x: "word"), "bootstrap: statistic: expected numbers"),
    *((lambda v=v: holm(v), "expected p-values|p-values: expected") for v in (*NO_NUMBERS, [NAN], [-0.1], [1.1], [[0.5]], 0.5)),
    *((lambda v=v: mcnemar(v, YES), "first defense") for v in (*NO_NUMBERS, [], [1, 0], [NAN, 1.0], [[True]], True, [-3, -4])),
    (lambda: mcnemar(YES, YES[:1]), "same samples"),
    (lambda: pairwise_mcnemar([YES, YES]), "by defense, a mapping"),
    (lambda: pairwise_mcnemar({"a": YES, "b": [1, 0]}), "second defense"),
    *((lambda n=n: clopper_pearson(0, n, 0.1), "expected n") for n in NO_COUNT),
    *((lambda a=a: clopper_pearson(1, 3, a), "alpha") for a in NO_ALPHA),
    *((lambda v=v: clopper_pearson(v, 3, 0.1), "successes: expected") for v in (*NO_NUMBERS, 4, -1, NAN, INF, [1, 4])),
    *((lambda n=n: empirical_bernstein(0.5, 0.1, n, 0.1), "expected n") for n in NO_COUNT),
    *((lambda a=a: empirical_bernstein(0.5, 0.1, 9, a), "alpha") for a in NO_ALPHA),
    *((lambda v=v: empirical_bernstein(v, 0.1, 9, 0.1), "mean: expected") for v in (*NO_NUMBERS, 1.1, -0.1, NAN, INF)),
    *((lambda v=v: empirical_bernstein(0.5, v, 9, 0.1), "variance: expected") for v in (*NO_NUMBERS, 0.4, -0.1, NAN, INF)),
    *((lambda v=v: majority_p_value(v, 1), "majority: ") for v in (*NO_NUMBERS, 0, -1, NAN)),
    *((lambda v=v: majority_p_value(1, v), "majority: ") for v in (*NO_NUMBERS, -1, NAN)),
    *((lambda v=v: success_rate_curve(v), "distances") for v in (*NO_NUMBERS, [], [-1.0], [NAN], [[1.0]], 1.0)),
    *((lambda v=v: success_rate_curve([1.0], v), "sizes") for v in (*NO_NUMBERS, [], [-1.0], [NAN], [[1.0]], 1.0)),
    (lambda: success_rate_curve([1.0], seed=-1), "seed: expected an int >= 0"),
    *(
        (lambda v=v: robust_accuracy(v, [0.1]), "expected a pandas.DataFrame")
        for v in (None, [], {}, "records", pandas.Series())
    ),
    *((lambda f=f: f([1]), "expected a pandas.DataFrame") for f in (summarize, compare, closest_distances)),
    (lambda: summarize(pandas.DataFrame()), "missing: sample_hash"),
    (lambda: summarize(pandas.DataFrame([[1, 2]], columns=["seed", "seed"])), "each column once, got 'seed' twice"),
    *((lambda v=v: duration(v), "duration: seconds") for v in (NAN, INF, -INF, None, "3", True)),
    (lambda: certificates(LABELS, [0.1, 0.2]), "tensors labels and radii of the same shape"),
    (lambda: certificates(LABELS, torch.ones(3)), "tensors labels and radii of the same shape"),
    (lambda: certificates(LABELS, torch.tensor([0.1, NAN])), "of radii >= 0"),
    (lambda: certificates(LABELS, torch.tensor([0.1, -1.0])), "of radii >= 0"),
    (lambda: certificates(LABELS[:0], torch.ones(0)), "at least one"),
    (lambda: certificates(None, None), "tensors labels and radii"),
]


def test_outside_the_domain_is_an_error():
    for number, (call, words) in enumerate(CASES):
        with pytest.raises(GenclsError, match=words):
            pytest.fail(f"case {number}, {words}: {call()}")


def test_numbers_of_any_library_are_numbers():
    count, low = np.int64(4), torch.tensor(0.9)
    assert wilson(Fraction(1, 2), count, low) == wilson(0.5, 4, low.item())
    assert wilson(torch.tensor(2), torch.tensor(4)) == wilson(2, 4)
    assert band(seed=np.uint8(3), resamples=torch.tensor(5))[0].tolist() == [1.0]
    assert clopper_pearson(torch.tensor([0, 3]), np.int64(3), np.float32(0.5)).tolist() == pytest.approx([0, 0.5 ** (1 / 3)])
    assert empirical_bernstein(np.float32(1), 0, 10_000, 0.1) > 0.99
    assert empirical_bernstein(0.5, NAN, 1, 0.1) == 0  # the variance of one number is not defined
    assert holm(torch.tensor([0.01, 0.5])).tolist() == pytest.approx([0.02, 0.5])
    assert mcnemar(torch.tensor([True, False]), YES).p_value == 1
    assert success_rate_curve(torch.tensor([0.5, INF]), [1]).rate.tolist() == [0.5]
    assert [duration(np.float32(3)), duration(-1), duration(7200)] == ["3 s", "0 s", "2.0 h"]
