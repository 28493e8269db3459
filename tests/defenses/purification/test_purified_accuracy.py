"""Adversarial images of plain autoencoding, and accuracy on them, for a linear model and classifier."""

import math
import re
from pathlib import Path

import pytest
import torch

from gencls.core import EoT, GenclsError, TransformedClassifier, keyed, stream_seed
from gencls.core.keys import closures
from gencls.defenses import FixedLengthNoise, GaussianBlur, MLVGMPurification, PurifiedAccuracy, fgsm_examples, learn_alphas
from tests.toys import Linear, MeanRowsPixels


@pytest.fixture
def images():
    return 0.4 + 0.2 * torch.rand(20, 1, 8, 8)


@pytest.fixture
def classifier():
    """Two classes by an arbitrary pattern; gray lies between them."""
    weight = torch.randn(2, 64) / 8
    return Linear(weight, -0.5 * weight.sum(1)).eval()


def purification(**settings):
    return MLVGMPurification(MeanRowsPixels(), "linear", **settings).eval()


def test_fgsm_steps_along_the_sign_of_the_gradient(images, classifier):
    """Autoencoding is the identity and the classifier linear, so the gradient's sign is known."""
    labels = classifier(images).argmax(1)
    found, truth = fgsm_examples(purification(), classifier, images, labels, epsilon=0.5, keep="all", batch_size=7)
    sign = (classifier.weight[1 - labels] - classifier.weight[labels]).sign().view_as(images)
    torch.testing.assert_close(found, images + 0.5 * sign / 8)
    torch.testing.assert_close((found - images).flatten(1).norm(dim=1), torch.full((20,), 0.5))
    assert torch.equal(truth, labels)
    assert not found.requires_grad


def test_fgsm_keeps_what_succeeds(images, classifier):
    labels = classifier(images).argmax(1)
    everything, _ = fgsm_examples(purification(), classifier, images, labels, epsilon=0.05, keep="all")
    found, truth = fgsm_examples(purification(), classifier, images, labels, epsilon=0.05)
    wrong = classifier(everything).argmax(1) != labels
    assert 0 < wrong.sum() < 20
    torch.testing.assert_close(found, everything[wrong])
    accuracy = PurifiedAccuracy(purification(), classifier, found, truth, samples=2)
    assert accuracy((0, 0, 0)) == 0


def test_fgsm_ignores_preprocessing_and_alphas(images, classifier):
    labels = classifier(images).argmax(1)
    noisy = MLVGMPurification(MeanRowsPixels(), "uniform", noise=FixedLengthNoise(3.0)).eval()
    found, _ = fgsm_examples(noisy, classifier, images, labels, epsilon=1.0, keep="all")
    assert torch.equal(found, fgsm_examples(purification(), classifier, images, labels, epsilon=1.0, keep="all")[0])


@pytest.mark.parametrize("noise", [None, FixedLengthNoise(0.3)])
@pytest.mark.parametrize("settings", [{}, {"batch_size": 1}, {"batch_size": 7}, {"keep_bytes": 0}])
def test_accuracy_is_that_of_the_mean_logits(noise, settings, images, classifier):
    labels = torch.arange(20) % 2
    alphas = (0.5, 0.8, 1.0)
    purified = purification(noise=noise, highest=0.7)
    found = PurifiedAccuracy(purified, classifier, images, labels, samples=5, seed=9, **settings)
    with keyed([stream_seed(9, "purified", i) for i in range(20)]):
        mean = EoT(TransformedClassifier(purified.with_alphas(alphas), classifier, 2), 5)(images)
    assert found(alphas) == found(torch.tensor(alphas)) == (mean.argmax(1) == labels).double().mean()


@pytest.mark.parametrize(("settings", "encoded"), [({}, 20), ({"keep_bytes": 0}, 60), ({"keep_bytes": 8 * 73 * 4}, 44)])
def test_images_are_encoded_once_where_memory_allows(settings, encoded, images, classifier):
    """Two batches: of 8 images, with 1 + 8 + 64 numbers of 4 bytes for each, and of 12."""
    purified = purification()
    accuracy = PurifiedAccuracy(purified, classifier, images, torch.zeros(20, dtype=torch.int64), samples=3, **settings)
    accuracy.batch_size = 12 if not settings else 8
    for alphas in ((0, 0, 0), (1, 0, 1), (0.5, 0.5, 0.5)):
        accuracy(alphas)
    assert purified.model.encoded == encoded


class Darkening(MeanRowsPixels):
    """Its encoder has a weight."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def encode_once(self, images):
        mean, rows, pixels = super().encode_once(images)
        return mean + self.weight - 1, rows, pixels


def test_images_are_encoded_anew_by_other_weights_and_in_other_batches(images, classifier):
    purified = MLVGMPurification(Darkening(), "linear").eval()
    labels = classifier(images).argmax(1)

    def measured():
        return PurifiedAccuracy(purified, classifier, images, labels, samples=3)

    accuracy = measured()
    assert accuracy((0, 0, 0)) == 1.0
    purified.model.weight.data.fill_(0.7)
    assert accuracy((0, 0, 0)) == measured()((0, 0, 0)) < 1.0
    accuracy.batch_size = 3
    assert accuracy((0, 0, 0)) == measured()((0, 0, 0))


def test_common_draws(images, classifier):
    """With them, alphas of almost the same value give the same accuracy."""
    labels = classifier(images).argmax(1)
    near = ((0.9, 0.9, 0.9), (0.9, 0.9, 0.9 + 1e-9))

    def measure(**settings):
        measured = PurifiedAccuracy(purification(), classifier, images, labels, samples=1, **settings)
        assert measured(near[0]) == measured(near[0])
        return [measured(alphas) for alphas in near]

    assert measure()[0] == measure()[1]
    differences = [measure(common_draws=False, seed=seed) for seed in range(5)]
    assert any(first != second for first, second in differences)


def test_variance_is_that_of_a_proportion(images, classifier):
    accuracy = PurifiedAccuracy(purification(), classifier, images, torch.zeros(20, dtype=torch.int64))
    assert accuracy.variance(0.5) == pytest.approx(0.25 / 20)
    assert accuracy.variance(0.0) == pytest.approx(accuracy.variance(1.0))
    assert 0 < accuracy.variance(0.0) < 0.25 / 20


def test_key_is_that_of_what_is_measured(images, classifier):
    labels = torch.zeros(20, dtype=torch.int64)

    def key(images=images, labels=labels, classifier=classifier, alphas="linear", sigma=0.1, parts=None, **settings):
        purified = MLVGMPurification(MeanRowsPixels(sigma), alphas, **(parts or {})).eval()
        return PurifiedAccuracy(purified, classifier, images, labels, **settings).key()

    assert key() == key(keep_bytes=1, batch_size=2) == key(alphas="cosine")
    others = [
        key(images=images + 0.01),
        key(labels=labels + 1),
        key(classifier=Linear(classifier.weight + 1, classifier.offset).eval()),
        key(samples=3),
        key(seed=1),
        key(common_draws=False),
        key(sigma=0.2),
        key(parts={"highest": 0.7}),
        key(parts={"highest": 0.7, "limit": "clip"}),
        key(parts={"noise": FixedLengthNoise(1.0)}),
        key(parts={"noise": FixedLengthNoise(2.0)}),
        key(parts={"blur": GaussianBlur(1.0)}),
    ]
    assert len({key(), *others}) == 1 + len(others)


EDITS = {
    "the count": (
        "gencls.defenses.purification.purified_accuracy",
        "return right / len(self.images)",
        "return 1 - right / len(self.images)",
    ),
    "the rows": (
        "gencls.defenses.purification.purified_accuracy",
        "repeat_rows(part, self.samples)",
        "repeat_rows(part, self.samples + 1)",
    ),
    "what is purified": ("gencls.defenses.purification.mlvgm", "def resample(", "def resample_("),
}


@pytest.mark.parametrize("what", EDITS)
def test_key_is_that_of_the_code(what, images, classifier, tmp_path, monkeypatch):
    module, old, new = EDITS[what]
    accuracy = PurifiedAccuracy(purification(), classifier, images, torch.zeros(20, dtype=torch.int64))
    before, original = accuracy.key(), closures.file_of
    text = Path(original(module)).read_text()
    assert old in text
    (tmp_path / "edited.py").write_text(text.replace(old, new, 1))
    monkeypatch.setattr(closures, "file_of", lambda name: str(tmp_path / "edited.py") if name == module else original(name))
    closures._named_by.cache_clear()
    assert accuracy.key() != before


def test_key_is_that_of_the_class(images, classifier, monkeypatch):
    class Inaccuracy(PurifiedAccuracy):
        def __call__(self, alphas):
            return 1 - super().__call__(alphas)

    given = (purification(), classifier, images, torch.zeros(20, dtype=torch.int64))
    before = PurifiedAccuracy(*given).key()
    assert Inaccuracy(*given).key() != before
    monkeypatch.setattr(PurifiedAccuracy, "__call__", lambda self, alphas: 0.5)
    assert PurifiedAccuracy(*given).key() != before


def test_measuring_does_not_change_the_key(images, classifier):
    accuracy = PurifiedAccuracy(purification(), classifier, images, torch.zeros(20, dtype=torch.int64))
    before = accuracy.key()
    accuracy((0.5, 0.5, 0.5))
    assert accuracy.key() == before


def test_learning_recovers_what_an_attack_broke(images):
    """Dark and bright images, told by their mean and by an arbitrary pattern: without the pixels the mean decides again."""
    bright = images + torch.tensor([-0.15, 0.15]).repeat(10).view(-1, 1, 1, 1)
    difference = (1 + 3 * torch.randn(64)) / 64
    network = Linear(torch.stack([-difference, difference]), 0.5 * torch.stack([difference, -difference]).sum(1)).eval()
    labels = torch.arange(20) % 2
    right = network(bright).argmax(1) == labels
    adversarial, truth = fgsm_examples(purification(), network, bright[right], labels[right], epsilon=1.0)
    accuracy = PurifiedAccuracy(purification(), network, adversarial, truth, samples=8, batch_size=20)
    search = learn_alphas(accuracy, 3, steps=3, variance=accuracy.variance, key=accuracy.key())
    assert accuracy((0, 0, 0)) == 0
    assert search.best.value > 0.9
    assert search.best.alphas[2] > 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 0.0}, "expected epsilon > 0"),
        ({"epsilon": 1.0, "keep": "some"}, "expected keep to be one of 'successful', 'all'"),
        ({"epsilon": 1e-6}, "expected an epsilon at which the attack succeeds, got 1e-06"),
        ({"epsilon": math.nan}, "expected epsilon to be a finite number, got nan"),
    ],
)
def test_errors_of_the_attack(settings, message, images, classifier):
    with pytest.raises(GenclsError, match=re.escape(message)):
        fgsm_examples(purification(), classifier, images, classifier(images).argmax(1), **settings)


@pytest.mark.parametrize("part", ["the purification's model", "a classifier"])
def test_parts_in_training_mode_are_refused(part, images, classifier):
    """A part of a part is enough: batch norm within a network."""
    parts = {"the purification's model": MeanRowsPixels().eval(), "a classifier": torch.nn.Sequential(classifier).eval()}
    parts[part].add_module("norm", torch.nn.BatchNorm2d(1))
    model, network = parts.values()
    labels = torch.zeros(20, dtype=torch.int64)
    with pytest.raises(GenclsError, match=f"fgsm_examples: expected {part} in eval mode, got training mode"):
        fgsm_examples(MLVGMPurification(model, "linear"), network, images, labels, epsilon=1.0)
    with pytest.raises(GenclsError, match=f"PurifiedAccuracy: expected {part} in eval mode, got training mode"):
        PurifiedAccuracy(MLVGMPurification(model, "linear"), network, images, labels)


def test_errors_of_the_accuracy(images, classifier):
    labels = torch.zeros(20, dtype=torch.int64)
    for wrong in ({"samples": 0}, {"batch_size": 0}):
        with pytest.raises(GenclsError, match="expected samples >= 1 and batch_size >= 1"):
            PurifiedAccuracy(purification(), classifier, images, labels, **wrong)
    with pytest.raises(GenclsError, match="expected 20 labels, one per image, got 3"):
        PurifiedAccuracy(purification(), classifier, images, labels[:3])
    with pytest.raises(GenclsError, match="expected 3 alphas"):
        PurifiedAccuracy(purification(), classifier, images, labels)((0.5, 0.5))
