import math

import pytest
import torch
from torch import nn

from gencls.core import BPDA, EoT, GenclsError, Unrolled
from gencls.core.gradient_modes import KNOWN, mode_named
from gencls.defenses import ABS


class Round(nn.Module):
    def forward(self, images):
        return (images * 7).round() / 7


class Square(nn.Module):
    def forward(self, images):
        return images.square()


class Cycle(nn.Module):
    """Scores of row i of all calls are the i-th of a list: EoT over known draws."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores  # (N, S, K)
        self.calls = []
        self.taken = 0

    def forward(self, images):
        count = len(images) // len(self.scores)
        self.calls.append(count)
        chosen = self.scores[:, self.taken : self.taken + count].flatten(0, 1)
        self.taken += count
        return chosen + 0 * images.flatten(1).sum(1, keepdim=True)


def test_bpda_has_the_value_of_one_and_the_gradient_of_the_other():
    images = torch.rand(3, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    model = BPDA(Round(), Square())
    value = model(images)
    torch.testing.assert_close(value, Round()(images), rtol=0, atol=1e-15)
    weights = torch.rand_like(value)
    (gradient,) = torch.autograd.grad((weights * value).sum(), images)
    torch.testing.assert_close(gradient, 2 * weights * images.detach())


def test_bpda_asks_the_exact_module_for_no_gradient():
    class Breaks(nn.Module):
        def forward(self, images):
            assert not torch.is_grad_enabled()
            return images.detach() * 0

    images = torch.rand(1, 1, 2, 2, requires_grad=True)
    assert BPDA(Breaks(), nn.Identity())(images).sum().item() == 0


@pytest.mark.parametrize("chunk", [None, 1, 2, 3, 99])
@pytest.mark.parametrize("reduce", ["logits", "probs", "loss"])
def test_eot_reductions(reduce, chunk):
    scores = 3 * torch.randn(2, 5, 4, dtype=torch.float64)
    model = Cycle(scores)
    found = EoT(model, 5, reduce=reduce, chunk=chunk)(torch.rand(2, 1, 3, 3, dtype=torch.float64))
    by_hand = {
        "logits": scores.mean(1),
        "probs": (scores.exp() / scores.exp().sum(2, keepdim=True)).mean(1).log(),
        "loss": (scores - scores.exp().sum(2, keepdim=True).log()).mean(1),
    }[reduce]
    torch.testing.assert_close(found, by_hand)
    assert sum(model.calls) == 5
    assert max(model.calls) == min(chunk or 5, 5)


def test_the_loss_of_eot_is_the_mean_loss():
    scores, labels = torch.randn(3, 6, 4, dtype=torch.float64), torch.tensor([0, 3, 1])
    found = EoT(Cycle(scores), 6, reduce="loss")(torch.rand(3, 1, 2, 2, dtype=torch.float64))
    losses = nn.functional.cross_entropy(scores.flatten(0, 1), labels.repeat_interleave(6), reduction="none")
    torch.testing.assert_close(-found.gather(1, labels[:, None])[:, 0], losses.view(3, 6).mean(1))


def test_eot_of_a_deterministic_model_is_the_model(cnn, digits):
    images = digits[0][:4]
    torch.testing.assert_close(EoT(cnn, 3)(images), cnn(images))
    torch.testing.assert_close(EoT(cnn, 3, reduce="probs")(images), cnn(images).log_softmax(1))


def test_eot_gradient_is_the_mean_gradient(noisy_cnn, digits):
    # The noise is added to the scores, so the gradient of every draw is that of the classifier.
    images = digits[0][:4].requires_grad_()
    (mean,) = torch.autograd.grad(EoT(noisy_cnn, 8)(images)[:, 1].sum(), images)
    (exact,) = torch.autograd.grad(noisy_cnn.classifier(images)[:, 1].sum(), images)
    torch.testing.assert_close(mean, exact, rtol=1e-4, atol=1e-5)


def test_eot_averages_over_draws_and_not_over_samples(digits, noisy_cnn):
    images = digits[0][:6]
    scores = EoT(noisy_cnn, 4000)(images)
    assert scores.shape == (6, 4)
    # Standard error 0.2 / sqrt(4000) = 0.003, five of them.
    torch.testing.assert_close(scores, noisy_cnn.classifier(images), rtol=0, atol=5 * 0.2 / math.sqrt(4000))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "expected samples >= 1 and chunk >= 1, got samples=0, chunk=None"),
        ({"samples": 2, "chunk": 0}, "got samples=2, chunk=0"),
        ({"samples": 2, "reduce": "votes"}, "expected reduce to be one of 'logits', 'probs', 'loss', got 'votes'"),
    ],
)
def test_eot_errors(cnn, settings, message):
    with pytest.raises(GenclsError, match=message):
        EoT(cnn, **settings)


def test_unrolled_value_is_the_forward(generator):
    defense = ABS(generator, starts=16, steps=5).eval()
    images = torch.rand(4, 1, 3, 4, dtype=torch.float64)
    unrolled = Unrolled(defense)
    expected = defense(images)
    assert torch.equal(unrolled(images), expected)  # nothing to differentiate: the classifier itself
    torch.testing.assert_close(unrolled(images.requires_grad_()).detach(), expected, rtol=0, atol=1e-12)
    with torch.no_grad():
        assert not unrolled(images).requires_grad


def test_a_mode_says_whether_finite_differences_must_confirm_it():
    assert [mode.name for mode in KNOWN if mode.exact] == ["exact", "frozen", "unrolled"]
    assert all(mode_named(mode.name) is mode for mode in KNOWN)


@pytest.mark.parametrize(
    ("name", "exact", "words"),
    [
        ("frozen+unrolled", True, "frozen, then unrolled"),
        ("bpda+unrolled", False, "bpda, then unrolled"),
        ("frozen+mine", False, "frozen, then mine"),
        ("mine", False, "taken for an approximation"),
    ],
)
def test_chains_and_modes_of_the_users_have_a_meaning(name, exact, words):
    mode = mode_named(name)
    assert (mode.name, mode.exact) == (name, exact)
    assert words in mode.meaning
