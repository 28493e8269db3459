"""What ABS has beside the engine: the clip of the public code, factors of classes, binarisation."""

import pytest
import torch

from gencls.core import GenclsError
from gencls.defenses import ABS, Ball, Binarize, ClassFactors, SignLosingBall
from tests.toys import SigmoidDecoders

FACTORS = [1.0, 0.5, 2.0, 1.5]


@pytest.fixture
def images():
    return torch.rand(5, 1, 8, 8)


def small(**settings):
    return ABS(SigmoidDecoders(), **{"starts": 32, "steps": 5, **settings}).eval()


def test_sign_losing_ball_is_the_published_formula():
    latents = torch.tensor([[[-4.0, 4.0, -4.0], [-0.3, 0.4, 0.0], [0.0, 0.0, 0.0]]])
    (projected,) = SignLosingBall(5.0)((latents,))
    expected = torch.tensor([[[25 / 3, 25 / 3, 25 / 3], [0, 0, 0], [0, 0, 0]]]).sqrt()  # sqrt(16 / 48 * 25)
    expected[0, 1:] = latents[0, 1:]
    torch.testing.assert_close(projected, expected)


def test_sign_losing_ball_differs_from_the_ball_in_signs_only():
    levels = (2 * torch.randn(8, 3, 4), 1.2 * torch.randn(8, 3, 2, 5))  # norms on both sides of 4
    for before, keeping, losing in zip(levels, Ball(4.0)(levels), SignLosingBall(4.0)(levels), strict=True):
        assert torch.equal(losing.abs(), keeping.abs())
        outside = before.flatten(2).norm(dim=2) > 4.0
        assert outside.any()
        assert not outside.all()
        assert (losing[outside] >= 0).all()
        assert torch.equal(losing[~outside], before[~outside])


def test_latents_keep_their_signs_unless_told_otherwise(images):
    settings = {"radius": 0.2, "lr": 1.0}
    assert (small(**settings).infer(images)[0].mean < 0).any()
    assert (small(**settings, keep_signs=False).infer(images)[0].mean >= 0).all()


def test_factors_multiply_scores_and_leave_inference(images):
    defense = small()
    weighted = ClassFactors(defense, FACTORS).eval()
    torch.testing.assert_close(weighted(images), defense(images) * torch.tensor(FACTORS))
    assert torch.equal(weighted.infer(images)[0].mean, defense.infer(images)[0].mean)
    assert torch.equal(weighted.reconstruct(images), defense.reconstruct(images))
    assert weighted.images_per_graph(images) == defense.images_per_graph(images)
    assert weighted.stochastic is defense.stochastic


@pytest.mark.parametrize("mode", ["frozen", "unrolled"])
def test_factors_multiply_gradients(images, mode):
    defense = small()
    gradients = []
    for model, factor in ((defense, 2.0), (ClassFactors(defense, FACTORS), 1.0)):
        attacked = images.clone().requires_grad_()
        gradients.append(factor * torch.autograd.grad(model.surrogate(mode)(attacked)[:, 2].sum(), attacked)[0])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("factors", [[1.0] * 3, [1.0, 1.0, 0.0, 1.0], [1.0, 1.0, -1.0, 1.0]])
def test_bad_factors(factors):
    with pytest.raises(GenclsError, match=r"ClassFactors: expected 4 positive factors, got \(1.0, "):
        ClassFactors(small(), factors)


def test_binarize():
    images = torch.tensor([0.0, 0.2, 0.3, 0.5, 1.0]).view(1, 1, 1, 5)
    assert Binarize()(images).flatten().tolist() == [0, 0, 0, 1, 1]
    assert Binarize(0.2)(images.double()).flatten().tolist() == [0, 1, 1, 1, 1]
    assert not Binarize()(images.requires_grad_()).requires_grad


def test_binarize_declares_the_straight_through_gradient_only():
    modes = Binarize().surrogates()
    assert set(modes) == {"bpda"}
    images = torch.rand(2, 1, 4, 4, requires_grad=True)
    out = modes["bpda"](images)
    assert torch.equal(out, Binarize()(images))
    weights = torch.rand_like(out)
    assert torch.equal(torch.autograd.grad((out * weights).sum(), images)[0], weights)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.5])
def test_bad_threshold(threshold):
    with pytest.raises(GenclsError, match=f"expected a threshold in .0, 1., got {threshold}"):
        Binarize(threshold)
