"""torch.utils.checkpoint around random layers: it repeats the forward pass, with other numbers than the rows' streams gave."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from gencls.core import EoT
from gencls.core.streams.keyed import drawing, keyed
from gencls.eval import PGD, ThreatModel, evaluate
from tests.toys import small_cnn


def dropped(images):
    return functional.dropout(images, 0.5, training=True)


@pytest.mark.parametrize("source", ["rows", "device"])
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_the_backward_pass_meets_the_draws_of_the_forward_pass(use_reentrant, source):
    images = (torch.rand(3, 1, 4, 4) + 0.1).requires_grad_()
    with drawing([1, 2, 3], source) as noted:
        functional.dropout(images, 0.5, training=True)  # moves the streams
        result = checkpoint(dropped, images, use_reentrant=use_reentrant)
        functional.dropout(images, 0.5, training=True)
        result.sum().backward()
    assert 0 < (result == 0).sum() < result.numel()
    torch.testing.assert_close(2.0 * (result != 0), images.grad, rtol=0, atol=0)
    assert noted.shared == (source == "rows")


def test_a_checkpointed_draw_is_noted_by_name():
    with keyed([1, 2, 3]) as streams:
        checkpoint(dropped, torch.rand(3, 1, 4, 4), use_reentrant=False)
    assert streams.shared == {"dropout inside torch.utils.checkpoint in a batch of 3"}


class Dropped(nn.Module):
    """Its scores are the images, behind checkpointed dropout."""

    stochastic, num_classes = True, 64

    def forward(self, images):
        return checkpoint(dropped, images, use_reentrant=False).flatten(1)


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_a_mean_over_draws_has_the_gradient_of_its_draws(chunk):
    """With chunks it draws again in its backward pass, and the checkpoint inside of that does so once more."""
    images = (torch.rand(2, 1, 8, 8) + 0.1).requires_grad_()
    with drawing([1, 2]):
        scores = EoT(Dropped(), 4, chunk=chunk).per_draw(images)
        scores.sum().backward()
    expected = 2.0 * (scores != 0).sum(1).view_as(images)
    assert torch.equal(images.grad, expected)
    assert expected.unique().numel() > 2


def test_without_randomness_a_checkpoint_is_as_the_layer():
    images, network = torch.rand(3, 1, 4, 4), nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh())
    gradients = []
    for forward in (network, lambda x: checkpoint(network, x, use_reentrant=False)):
        leaf = images.clone().requires_grad_()
        with keyed([1, 2, 3]):
            forward(leaf).sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


class Checkpointed(nn.Module):
    """A network behind dropout that saves memory, or not."""

    stochastic, num_classes = True, 4

    def __init__(self, saves):
        super().__init__()
        self.network, self.saves = small_cnn(), saves

    def forward(self, images):
        return self.network(checkpoint(dropped, images, use_reentrant=False) if self.saves else dropped(images))


def test_an_evaluation_says_that_draws_are_shared():
    images, labels = torch.rand(4, 1, 8, 8), torch.arange(4)
    attacks = {"pgd": PGD(ThreatModel("linf", 0.1), steps=2)}
    for saves in (False, True):
        result = evaluate(Checkpointed(saves).eval(), attacks, [(images, labels)], eot_samples=2, judge_draws=4)
        assert result.summary()["warnings"].str.contains("one draw serves the whole batch").any() == saves
