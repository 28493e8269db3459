import pytest
import torch
from torch import nn

from gencls.core import BPDA, BayesClassifier, Defense, GenclsError, Transform, TransformedClassifier, Unrolled
from gencls.defenses import PlainClassifier


class Halve(Transform):
    def forward(self, images):
        return images / 2


class Quantise(Transform):
    def forward(self, images):
        return (images * 3).round() / 3

    def surrogates(self):
        return {"bpda": BPDA(self, nn.Identity()), "smooth": BPDA(self, Halve())}


class Gaussian(BayesClassifier[torch.Tensor]):
    """log p(x, k) = -(x - m_k - q)^2 / 2 with q a tenth of the distance: a toy with an inference step."""

    num_classes = 2

    def __init__(self):
        super().__init__()
        self.means = nn.Parameter(torch.tensor([0.2, 0.7]))
        self.seen = []

    def infer(self, images):
        self.seen.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled(), images.requires_grad))
        return 0.1 * (images.flatten(1).mean(1, keepdim=True) - self.means.detach())

    def log_joint(self, images, q):
        return -0.5 * (images.flatten(1).mean(1, keepdim=True) - self.means - q).square()


class Negative(Defense):
    num_classes = 4
    stochastic = True

    def __init__(self, classifier):
        super().__init__()
        self.classifier = classifier

    def forward(self, images):
        return -self.classifier(images)

    def surrogates(self):
        return {"exact": self, "negative": self.classifier}


def test_a_defense_is_its_own_surrogate(cnn):
    defense = Negative(cnn)
    assert defense.surrogate() is defense
    assert defense.surrogate("negative") is cnn


def test_an_undeclared_mode(cnn):
    with pytest.raises(GenclsError, match=r"Negative: expected a gradient mode among \['exact', 'negative'\], got 'bpda'"):
        Negative(cnn).surrogate("bpda")


def test_transform_then_classify(cnn, digits):
    images = digits[0][:5]
    defense = TransformedClassifier(Halve(), cnn, 4)
    assert torch.equal(defense(images), cnn(images / 2))
    assert defense.num_classes == 4
    assert not defense.stochastic
    assert dict(defense.surrogates()) == {"exact": defense}


@pytest.mark.parametrize(("noisy_front", "noisy_back"), [(False, False), (True, False), (False, True), (True, True)])
def test_stochastic_where_a_part_is(cnn, noisy_front, noisy_back):
    front = Halve()
    front.stochastic = noisy_front
    back = Negative(cnn) if noisy_back else cnn
    assert TransformedClassifier(front, back, 4).stochastic is (noisy_front or noisy_back)


def test_modes_of_the_transform(cnn, digits):
    defense = TransformedClassifier(Quantise(), cnn, 4)
    modes = defense.surrogates()
    assert list(modes) == ["bpda", "smooth"]
    images = digits[0][:3].requires_grad_()
    for mode, module in modes.items():
        assert defense.surrogate(mode)(images).shape == (3, 4)
        torch.testing.assert_close(module(images), defense(images))
    (bpda,) = torch.autograd.grad(modes["bpda"](images).sum(), images)
    (smooth,) = torch.autograd.grad(modes["smooth"](images).sum(), images)
    torch.testing.assert_close(smooth, bpda / 2)
    (zero,) = torch.autograd.grad(defense(images).sum(), images)
    assert zero.abs().max() == 0  # what the declared modes are for


def test_modes_of_transform_and_classifier(cnn):
    assert list(TransformedClassifier(Halve(), Negative(cnn), 4).surrogates()) == ["exact", "negative"]
    assert list(TransformedClassifier(Halve(), Gaussian(), 2).surrogates()) == ["frozen", "unrolled"]
    modes = TransformedClassifier(Quantise(), Gaussian(), 2).surrogates()
    assert list(modes) == ["bpda+frozen", "bpda+unrolled", "smooth+frozen", "smooth+unrolled"]


def test_bayes_classifier_modes():
    modes = Gaussian().surrogates()
    assert list(modes) == ["frozen", "unrolled"]
    assert isinstance(modes["unrolled"], Unrolled)


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_inference_runs_with_gradients_and_on_a_copy(context):
    defense = Gaussian()
    images = torch.rand(3, 1, 2, 2, requires_grad=True)
    with context():
        scores = defense(images)
    assert defense.seen == [(True, False, False)]
    assert scores.shape == (3, 2)
    assert scores.requires_grad is (context is torch.enable_grad)


def test_frozen_and_unrolled_gradients_of_a_bayes_classifier():
    # With m the pixel: score = -(m - mu - q)^2 / 2, q = (m - mu) / 10; frozen d/dm = -(m - mu - q), unrolled 0.9 times that.
    defense = Gaussian()
    images = torch.full((1, 1, 1, 1), 0.9, requires_grad=True)
    frozen = torch.autograd.grad(defense.surrogate("frozen")(images)[0, 0], images)[0].item()
    unrolled = torch.autograd.grad(defense.surrogate("unrolled")(images)[0, 0], images)[0].item()
    assert frozen == pytest.approx(-0.9 * 0.7, rel=1e-5)
    assert unrolled == pytest.approx(-0.9 * 0.9 * 0.7, rel=1e-5)


def test_no_mode_is_lost_where_both_sides_share_a_name(cnn):
    class Front(Transform):
        def forward(self, images):
            return images

        def surrogates(self):
            return {"exact": self, "bpda": BPDA(self, nn.Identity())}

    class Back(PlainClassifier):
        def surrogates(self):
            return {"exact": self, "bpda": BPDA(self, self.network)}

    modes = TransformedClassifier(Front(), Back(cnn, 4), 4).surrogates()
    assert list(modes) == ["exact", "bpda", "bpda+exact", "bpda+bpda"]
    assert len({id(mode) for mode in modes.values()}) == 4
