"""The published ABS weights through our loader, against the logits of the public code on MNIST's first 100 test digits."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gencls.core import GenclsError
from gencls.defenses import ClassFactors
from gencls.zoo import load_data
from gencls.zoo.networks.abs.published import official_abs, published_codes, published_confidence
from tests.golden.vectors import ROOT

SHARED = Path(__file__).parents[3] / "shared"
LOGITS = ROOT / "abs_mnist" / "trained_first100_logits.npz"
WEIGHTS = Path(os.environ.get("GENCLS_WEIGHTS") or SHARED / "weights") / "abs-mnist"
DATA = Path(os.environ.get("GENCLS_DATA") or SHARED / "data")
PIXELS = 784


@pytest.fixture(scope="module")
def stored():
    if not LOGITS.is_file():
        pytest.skip(f"no {LOGITS.name} in {LOGITS.parent}; set GENCLS_GOLDEN")
    with np.load(LOGITS) as arrays:
        return SimpleNamespace(
            labels=torch.from_numpy(arrays["labels"]),
            logits={"plain": torch.from_numpy(arrays["base.logits"]), "binary": torch.from_numpy(arrays["binary.logits"])},
            starts=torch.from_numpy(arrays["start_latents_first8"]),
        )


@pytest.fixture(scope="module")
def digits():
    try:
        return load_data("mnist", "test", root=DATA)
    except GenclsError as error:
        pytest.skip(f"needs MNIST's test set in GENCLS_DATA: {error}")


def variants(**settings):
    """Both, sharing the decoded starts, which take most of the time for few digits."""
    if not WEIGHTS.is_dir():
        pytest.skip(f"no published weights in {WEIGHTS}; set GENCLS_WEIGHTS to the folder of abs-mnist")
    binary = official_abs(WEIGHTS, variant="binary", **settings)
    return {"plain": ClassFactors(binary.classifier.classifier, [PIXELS] * 10).eval(), "binary": binary}


@pytest.fixture(scope="module")
def published():
    return variants()


def test_starts_are_those_of_the_public_code(stored):
    assert torch.equal(published_codes()[:8], stored.starts)


def test_the_stored_digits_are_mnists_first(stored, digits):
    assert torch.equal(digits.labels[: len(stored.labels)], stored.labels)


def check(published, stored, images):
    """Compare all logits; the decisions of both variants."""
    decisions = {}
    for variant, defense in published.items():
        expected = stored.logits[variant][: len(images)]
        found = defense(images) / PIXELS
        # Convolutions of other machines differ in the last bits; scores feel them in second order, after a descent.
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        decisions[variant] = found.argmax(1)
        assert torch.equal(decisions[variant], expected.argmax(1))
    return decisions


@pytest.mark.slow  # half a minute: the 8,000 starts of both variants are decoded
def test_logits(published, stored, digits):
    check(published, stored, digits.images[:4])


def test_confidence_in_trained_networks(digits):
    plain = variants(codes=published_codes(200), steps=20)["plain"]  # few starts are quickly decoded
    confidence = published_confidence(plain(digits.images[:1]))
    assert confidence.argmax() == digits.labels[0]
    assert confidence.max() > 0.9  # the softmax of the logits gives it 0.103


@pytest.mark.slow
def test_accuracy_with_the_default_settings(published, stored, digits):
    for decisions in check(published, stored, digits.images[:100]).values():
        assert (decisions == digits.labels[:100]).sum() == 99


@pytest.mark.slow
def test_accuracy_that_the_card_of_the_weights_states(digits):
    """2,000 starts, 20 steps, 200 digits."""
    correct = {
        variant: (defense(digits.images[:200]).argmax(1) == digits.labels[:200]).sum()
        for variant, defense in variants(codes=published_codes(2000), steps=20).items()
    }
    assert correct == {"plain": 199, "binary": 200}
