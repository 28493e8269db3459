"""The t-SNE map of codes."""

import numpy as np
import pytest
import torch

from gencls.core import GenclsError
from gencls.eval.measures.tsne_map import tsne_map


def test_neighbours_stay_neighbours_across_groups() -> None:
    """Two clusters far apart, each in both groups: every code's nearest on the map is of its cluster."""
    generator = np.random.default_rng(0)
    centres = np.repeat([[0.0] * 5, [20.0] * 5], 20, axis=0)
    after = torch.from_numpy(centres[:25] + generator.normal(size=(25, 5)))
    groups = {"before": centres + generator.normal(size=(40, 5)), "after": after}
    placed = tsne_map(groups, perplexity=10, steps=500)
    assert {name: positions.shape for name, positions in placed.items()} == {"before": (40, 2), "after": (25, 2)}
    positions = np.concatenate(list(placed.values()))
    distances = np.linalg.norm(positions[:, None] - positions, axis=-1) + 1e9 * np.eye(65)
    cluster = np.array([0] * 20 + [1] * 20 + [0] * 20 + [1] * 5)
    assert (cluster[distances.argmin(axis=1)] == cluster).all()
    again = tsne_map(groups, perplexity=10, steps=500)
    np.testing.assert_array_equal(again["after"], placed["after"])


CODES = np.random.default_rng(1).normal(size=(10, 3))


@pytest.mark.parametrize(
    ("groups", "settings", "message"),
    [
        ({}, {}, "expected codes by name, a mapping, got none"),
        (CODES, {}, "a mapping, got ndarray"),
        ({"a": CODES, "b": CODES[:, :2]}, {}, r"expected codes of one size d >= 2, got \[2, 3\]"),
        ({"a": CODES[:, :1]}, {}, r"d >= 2, got \[1\]"),
        ({"a": CODES}, {}, "expected more codes than the perplexity, 30, got 10"),
        ({"a": CODES}, {"perplexity": 0.5}, "perplexity: expected a finite number >= 1"),
        ({"a": CODES}, {"steps": 250}, "steps: expected an int >= 500"),
        ({"a": CODES}, {"perplexity": 5, "seed": -1}, "seed: expected an int >= 0"),
        ({"a": CODES * np.nan}, {}, "t-SNE: a: expected finite numbers"),
        ({"a": CODES[:0]}, {}, r"t-SNE: a: expected codes of shape \(N, ...\), N >= 1, got \(0, 3\)"),
        ({"a": np.ones((10, 3))}, {"perplexity": 5}, "expected codes that differ, got 10 equal ones"),
    ],
)
def test_bad_input_is_refused(groups: object, settings: dict[str, float], message: str) -> None:
    with pytest.raises(GenclsError, match=message):
        tsne_map(groups, **settings)
