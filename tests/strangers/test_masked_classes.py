"""Networks with masked classes: one score at -1e9 must not hide the others from a scale."""

import pytest
import torch
from torch import nn

from gencls.core import GenclsError
from gencls.eval import DDN, PGD, CarliniWagner, DeepFool, ThreatModel, evaluate
from gencls.eval.scores.margins import score_gap
from tests.toys import small_cnn

MASKS = (-1e5, -1e9, -3e38)
ATTACKS = {
    "pgd": PGD(ThreatModel("linf", 0.05), steps=10),
    "cw": CarliniWagner(ThreatModel("l2"), steps=20),
    "deepfool": DeepFool(ThreatModel("l2")),
    "ddn": DDN(ThreatModel("l2"), steps=20),
}


class Masked(nn.Module):
    """A network whose last classes are masked, as in class-incremental learning."""

    def __init__(self, fill, count=1, change=None):
        super().__init__()
        self.network, self.fill, self.count, self.change = small_cnn().eval(), fill, count, change

    def forward(self, images):
        scores = self.network(images)
        scores = scores if self.change is None else self.change(scores)
        return torch.cat([scores, torch.full((len(scores), self.count), self.fill)], dim=1)


@pytest.fixture(scope="module")
def samples():
    images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    return images, small_cnn().eval()(images).argmax(dim=1)


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("fill", MASKS)
def test_attacks_are_as_strong_as_without_masked_classes(fill, count, samples):
    bare, masked = (evaluate(each.eval(), ATTACKS, [samples]) for each in (small_cnn(), Masked(fill, count)))
    for (attack, mode), images in masked.adversarials.items():
        torch.testing.assert_close(images, bare.adversarials[attack, mode], rtol=0, atol=0.02, msg=attack)
    distances = [each.records.groupby("attack")["distance"].median() for each in (bare, masked)]
    assert (distances[1] <= 1.02 * distances[0] + 1e-6).all()


class OwnNoise:
    """From a generator of its own."""

    def __init__(self):
        self.source = torch.Generator().manual_seed(0)

    def __call__(self, scores):
        return scores + 0.3 * torch.randn(scores.shape, generator=self.source)


class Centred:
    """Less the mean of the batch."""

    def __call__(self, scores):
        return scores - scores.mean(dim=0) * (len(scores) > 1)


CHANGES = {"noise of its own": OwnNoise, "batch statistics": Centred}


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("fill", [-20.0, *MASKS])
def test_the_first_look_sees_through_masked_classes(fill, kind, samples):
    with pytest.raises(GenclsError, match="stochastic|depend on one image only"):
        evaluate(Masked(fill, change=CHANGES[kind]()).eval(), ATTACKS, [samples])


def test_the_scale_of_ordinary_scores_is_the_mean():
    """Also where classes tie; of few classes none passes for masked."""
    for scores in (torch.randn(50, 10), torch.tensor([[3.0, 3.0, -9.0, -9.0]]), torch.tensor([[3.0, 2.99, -900.0]])):
        expected = scores.amax(dim=1, keepdim=True) - scores.mean(dim=1, keepdim=True)
        assert torch.equal(score_gap(scores), expected)
    masked = torch.tensor([[3.0, 1.0, 0.0, -1.0, -1e9, -1e9]])
    assert score_gap(masked).item() == pytest.approx((0 + 2 + 3 + 4) / 4)
