"""Against closed forms of a linear-Gaussian model, and the settings of paper and public code."""

import math
import re

import pytest
import torch

from gencls.core import EoT, GenclsError, TransformedClassifier, draws, keyed
from gencls.defenses import (
    PAPER_TASKS,
    FixedLengthNoise,
    GaussianBlur,
    GaussianNoise,
    MLVGMPurification,
    alpha_schedule,
    paper_blur,
)
from tests.toys import MeanRowsPixels, small_cnn


@pytest.fixture
def images():
    return 0.3 + 0.4 * torch.rand(3, 1, 8, 8, dtype=torch.float64)


def levels(count):
    """A model of so many levels that is not run."""
    model = MeanRowsPixels()
    model.num_levels = count
    return model


def projections(size):
    """P_0, P_1, P_2 of the model's levels on flattened images: (3, size^2, size^2)."""
    ones = torch.full((size, size), 1 / size, dtype=torch.float64)
    rows = torch.kron(torch.eye(size, dtype=torch.float64), ones)
    mean = torch.kron(ones, ones)
    return torch.stack([mean, rows - mean, torch.eye(size * size, dtype=torch.float64) - rows])


SCHEDULES = {
    "linear": (0.25, 0.5, 0.75, 1.0),
    "cosine": ((1 - math.sqrt(0.5)) / 2, 0.5, (1 + math.sqrt(0.5)) / 2, 1.0),
    "uniform": (0.5, 0.5, 0.5, 0.5),
    "reversed-linear": (0.75, 0.5, 0.25, 0.0),
    "reversed-cosine": ((1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0.0),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    assert alpha_schedule(name, 4) == pytest.approx(SCHEDULES[name], abs=1e-15)
    assert MLVGMPurification(levels(4), name).alphas == alpha_schedule(name, 4)


def test_alphas_0_are_plain_autoencoding(images):
    purification = MLVGMPurification(MeanRowsPixels(), (0, 0, 0))
    torch.testing.assert_close(purification(images), images, rtol=0, atol=1e-15)
    assert not purification.stochastic


def test_mean_and_spread_of_mixed_images(images):
    """x^ = 1/2 + sum_i (1 - a_i) P_i (x - 1/2) + sum_i a_i sigma n_i."""
    alphas, sigma, count = (0.2, 0.5, 0.9), 0.1, 20_000
    purification = MLVGMPurification(MeanRowsPixels(sigma, clamp=False), alphas)
    found = purification.forward_draws(images[:1], count).flatten(1)
    jacobian = sum((1 - alpha) * part for alpha, part in zip(alphas, projections(8), strict=True))
    variance = sum(sigma**2 * alpha**2 for alpha in alphas)
    slack = 5 * math.sqrt(variance / count)  # standard errors, for 64 means
    torch.testing.assert_close(found.mean(0), 0.5 + jacobian @ (images[0].flatten() - 0.5), rtol=0, atol=slack)
    torch.testing.assert_close(found.var(0), torch.full((64,), variance, dtype=torch.float64), rtol=0.06, atol=0)


def test_gradient(images):
    alphas = (0.0, 0.3, 0.7)
    purification = MLVGMPurification(MeanRowsPixels(clamp=False), alphas)
    weights = torch.randn_like(images)
    (found,) = torch.autograd.grad((weights * purification(images.requires_grad_())).sum(), images)
    jacobian = sum((1 - alpha) * part for alpha, part in zip(alphas, projections(8), strict=True))
    torch.testing.assert_close(found.flatten(1), weights.flatten(1) @ jacobian)


def test_gradient_through_blur_and_noise(images):
    """Against finite differences, with the same noise."""
    purification = MLVGMPurification(MeanRowsPixels(), "cosine", blur=GaussianBlur(1.0), noise=FixedLengthNoise(1.0))

    def purified(x):
        with keyed(range(3)):
            return purification(x)

    assert torch.autograd.gradcheck(purified, images.requires_grad_())


def test_blur_comes_before_noise():
    steps = []
    purification = MLVGMPurification(MeanRowsPixels(), "linear", blur=GaussianBlur(1.0), noise=FixedLengthNoise(1.0))
    for name in ("noise", "blur"):
        getattr(purification, name).register_forward_hook(lambda *_, name=name: steps.append(name))
    purification(torch.rand(2, 1, 8, 8))
    assert steps == ["blur", "noise"]


@pytest.mark.parametrize("length", [0.5, 4.0])
def test_noise_has_its_length(length):
    gray = torch.full((4, 3, 64, 64), 0.5)
    noise = FixedLengthNoise(length)(gray) - 0.5
    torch.testing.assert_close(noise.flatten(1).norm(dim=1), torch.full((4,), length))
    assert len({tuple(row.tolist()) for row in noise.flatten(1)[:, :3]}) == 4
    clamped = FixedLengthNoise(length)(torch.zeros(4, 3, 64, 64))
    assert clamped.min() == 0
    assert (clamped.flatten(1).norm(dim=1) < length).all()


@pytest.mark.parametrize("noise", [None, FixedLengthNoise(0.5)])
@pytest.mark.parametrize("chunk", [None, 3])
def test_eot_encodes_as_rarely_as_it_can_and_finds_the_same(noise, chunk, images):
    """Against draws of repeated images: scores, gradients, and how many images were encoded."""
    purification = MLVGMPurification(MeanRowsPixels(), "linear", blur=GaussianBlur(0.5), noise=noise)
    defense = TransformedClassifier(purification, small_cnn().double(), 4)

    def look(scores_of):
        purification.model._encoded = 0
        x = images.clone().requires_grad_()
        with keyed(range(3)):
            scores = scores_of(x)
            (gradient,) = torch.autograd.grad(scores[:, :, 0].sum(), x)
        return scores, gradient, purification.model.encoded

    def repeated(x):
        with draws(range(7)):
            return defense(x.repeat_interleave(7, dim=0)).unflatten(0, (3, 7))

    *expected, rows = look(repeated)
    *found, encoded = look(EoT(defense, 7, chunk=chunk).per_draw)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert rows == 21
    passes = 1 if chunk is None else 6  # three chunks, forwards and again for the backward pass
    assert encoded == (3 * passes if noise is None else 21 * (1 if chunk is None else 2))


@pytest.mark.parametrize(("limit", "expected"), [("scale", (0.21, 0.49, 0.7)), ("clip", (0.3, 0.7, 0.7))])
def test_the_highest_alpha(limit, expected):
    found = MLVGMPurification(levels(3), (0.3, 0.7, 1.0), highest=0.7, limit=limit)
    assert found.alphas == pytest.approx(expected)
    assert found.with_alphas((1, 1, 0)).alphas == pytest.approx((0.7, 0.7, 0))


def test_other_alphas_share_the_rest():
    first = MLVGMPurification(MeanRowsPixels(), "linear", blur=GaussianBlur(1.0), noise=FixedLengthNoise(1.0)).eval()
    other, base = first.with_alphas("cosine"), first.base()
    assert other.model is base.model is first.model
    assert (other.blur, other.noise, base.blur, base.noise) == (first.blur, first.noise, None, None)
    assert other.alphas == alpha_schedule("cosine", 3)
    assert set(base.alphas) == {0}
    assert not base.stochastic


def test_other_alphas_leave_the_model_in_its_mode():
    model = MeanRowsPixels().eval()
    first = MLVGMPurification(model, "linear")  # itself not yet in eval mode
    first.with_alphas("cosine")
    first.base()
    assert not model.training


# As the public code lists them.
LEARNED = {
    "gender": (
        *(0.492, 0.728, 0.058, 0.331, 0.246, 0.059, 0.068, 0.526, 0.646),
        *(0.816, 0.548, 0.692, 0.309, 0.610, 0.729, 0.348, 0.728, 0.697),
    ),
    "identities": (
        *(0, 0, 0.001, 0.136, 0.131, 0.206, 0.179, 0.305, 0.347, 0.349, 0.465, 0.528),
        *(0.551, 0.606, 0.681, 0.676, 0.834, 0.800, 0.938, 0.911, 1, 1, 1, 1),
    ),
    "cars": (1, 0, 0, 0.737, 0, 0, 0.834, 1, 0.261, 0, 0.205, 1, 0.908, 0, 0.268, 1),
}
HIGHEST = {"gender": 1.0, "identities": 0.7, "cars": 0.7}
# Levels whose codes are kept, as supplement B names them.
CLASS_CODES = {"gender": {2, 5, 6}, "cars": {1, 2, 4, 5, 9, 13}}
TASKS = {"gender": (18, 256), "identities": (24, 64), "cars": (16, 128)}


@pytest.mark.parametrize("task", TASKS)
def test_learned_alphas_of_the_paper(task):
    count, resolution = TASKS[task]
    paper = PAPER_TASKS[task]
    assert len(paper.learned) == count
    assert paper.resolution == resolution
    purification = MLVGMPurification.of_paper(levels(count), task)
    assert purification.alphas == pytest.approx([HIGHEST[task] * alpha for alpha in LEARNED[task]])
    if task in CLASS_CODES:
        assert {level for level, alpha in enumerate(paper.learned) if alpha < 0.1} == CLASS_CODES[task]


# task, alphas, preprocessing, source -> radius of the blur, length of the noise, highest alpha of the schedule
PRESETS = {
    ("gender", "linear", "best", "code"): (15, None, 1.0),
    ("gender", "linear", "best", "paper"): (7, None, 1.0),
    ("gender", "cosine", "noise", "code"): (None, 4.0, 1.0),
    ("identities", "linear", "best", "code"): (None, 2.0, 0.7),
    ("identities", "linear", "blur", "code"): (7, None, 0.7),
    ("identities", "linear", "blur+noise", "paper"): (3, 2.0, 0.7),
    ("cars", "linear", "best", "code"): (None, 2.0, 0.7),
    ("cars", "linear", "best", "paper"): (None, 4.0, 0.7),
    ("cars", "cosine", "best", "code"): (None, 4.0, 0.7),
    ("cars", "learned", "blur+noise", "code"): (15, 4.0, 0.7),
    ("cars", "uniform", "none", "paper"): (None, None, 0.5),
}


@pytest.mark.parametrize("key", PRESETS, ids="-".join)
def test_settings_of_paper_and_code(key):
    task, alphas, preprocessing, source = key
    found = MLVGMPurification.of_paper(levels(TASKS[task][0]), task, alphas, preprocessing=preprocessing, as_=source)
    radius, length, highest = PRESETS[key]
    assert (found.blur and found.blur.radius) == radius
    assert (found.noise and found.noise.length) == length
    assert max(found.alphas) == pytest.approx(highest)


def test_the_tails_of_the_blur_that_are_left_out_are_zero():
    whole = GaussianBlur(1.0, radius=127).kernel  # of the public code at 256 pixels
    short = paper_blur(256).kernel
    assert torch.equal(whole[127 - 15 : 128 + 15], short)
    assert torch.count_nonzero(whole) <= len(short)


ERRORS = {
    "expected 3 alphas, one per level of the model, got 2": lambda: MLVGMPurification(MeanRowsPixels(), (0.1, 0.2)),
    "expected alphas in [0, 1], got alphas[1] = 1.5": lambda: MLVGMPurification(MeanRowsPixels(), (0, 1.5, 1)),
    "each item a finite number or a Tensor, got (nan, 1, 1)": lambda: MLVGMPurification(MeanRowsPixels(), (math.nan, 1, 1)),
    "each item a finite number or a Tensor, got [[0.1, 0.1, 0.1]]": lambda: MLVGMPurification(MeanRowsPixels(), [[0.1] * 3]),
    "expected a list of numbers, got numbers of shape (3, 1)": lambda: MLVGMPurification(MeanRowsPixels(), torch.zeros(3, 1)),
    "each item a finite number or a Tensor, got [0.1, 'a', 0.1]": lambda: MLVGMPurification(MeanRowsPixels(), [0.1, "a", 0.1]),
    "finite number or a Tensor, got [0.1, None, 0.1]": lambda: MLVGMPurification(MeanRowsPixels(), [0.1, None, 0.1]),
    "finite number or a Tensor, got [0.1, [0.2], 0.1]": lambda: MLVGMPurification(MeanRowsPixels(), [0.1, [0.2], 0.1]),
    "expected alphas to be one of 'linear', 'cosine', 'uniform'": lambda: MLVGMPurification(MeanRowsPixels(), "learned"),
    "at least 1 level, got 0": lambda: alpha_schedule("linear", 0),
    "expected highest in [0, 1], got 1.1": lambda: MLVGMPurification(MeanRowsPixels(), "linear", highest=1.1),
    "expected limit to be one of 'scale', 'clip'": lambda: MLVGMPurification(MeanRowsPixels(), "linear", limit="max"),
    "expected a task among gender, identities, cars": lambda: MLVGMPurification.of_paper(levels(18), "faces"),
    "expected 18 alphas": lambda: MLVGMPurification.of_paper(levels(18), "cars"),
    "got 'thesis' and 'best'": lambda: MLVGMPurification.of_paper(levels(18), "gender", as_="thesis"),
    "got 'code' and 'denoise'": lambda: MLVGMPurification.of_paper(levels(18), "gender", preprocessing="denoise"),
    "expected an L2 length > 0": lambda: FixedLengthNoise(0.0),
    "expected resolution >= 16": lambda: paper_blur(8),
    "GaussianBlur: expected sigma to be a finite number, got inf": lambda: GaussianBlur(math.inf),
    "GaussianNoise: expected sigma to be a finite number, got inf": lambda: GaussianNoise(math.inf),
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors(message):
    with pytest.raises(GenclsError, match=re.escape(message)):
        ERRORS[message]()
