from dataclasses import replace

import pytest
import torch
from torch import nn

from gencls import zoo
from gencls.core import GenclsError, keyed
from gencls.eval import FMN, ThreatModel
from tests.contracts.linear import digits
from tests.toys import small_cnn

L2, LINF, L1, L0 = (ThreatModel(norm) for norm in ("l2", "linf", "l1", "l0"))


def run(attack, model, images, labels):
    with keyed(range(len(images))):
        return attack(model, images, labels)


@pytest.mark.parametrize(
    ("threat", "name"),
    [(L2, "L2FMNAttack"), (LINF, "LInfFMNAttack"), (L1, "L1FMNAttack"), (L0, "L0FMNAttack")],
    ids=["l2", "linf", "l1", "l0"],
)
def test_it_comes_closer_than_the_library_with_as_many_steps(threat, name):
    foolbox = pytest.importorskip("foolbox")
    cnn, images = small_cnn(), torch.rand(64, 1, 8, 8)
    labels = cnn(images).argmax(1)
    found = run(FMN(threat), cnn, images, labels)
    theirs = getattr(foolbox.attacks, name)(steps=100).run(foolbox.PyTorchModel(cnn, bounds=(0, 1)), images, labels)
    ours, other = threat.distance(images, found), threat.distance(images, theirs)
    assert (cnn(found).argmax(1) != labels).all()
    other = other.where(cnn(theirs).argmax(1) != labels, torch.inf)
    assert (ours <= 1.01 * other).double().mean() > 0.9
    assert ours.median() <= other.median()


@pytest.mark.parametrize(
    ("threat", "name"), [(L1, "L1FMNAttack"), pytest.param(L0, "L0FMNAttack", marks=pytest.mark.slow)], ids=["l1", "l0"]
)
def test_it_finds_as_many_sparse_changes_of_digits_as_the_library(threat, name):
    """In L1 many more: the library projects onto the ball and [0, 1] one after the other."""
    foolbox = pytest.importorskip("foolbox")
    network, (images, labels) = zoo.load("cnn-mnist").eval(), digits(40)
    found = run(FMN(threat), network, images, labels)
    theirs = getattr(foolbox.attacks, name)(steps=100).run(foolbox.PyTorchModel(network, bounds=(0, 1)), images, labels)
    ours, other = (
        threat.distance(images, part).where(network(part).argmax(1) != labels, torch.inf) for part in (found, theirs)
    )
    assert ours.isfinite().all()
    assert ours.isfinite().sum() >= other.isfinite().sum()
    assert ours.median() <= 1.1 * other.median()
    assert torch.equal(found[labels != network(images).argmax(1)], images[labels != network(images).argmax(1)])


@pytest.mark.parametrize("threat", [L1, L0], ids=["l1", "l0"])
def test_sparse_starts_and_targets(threat):
    cnn, images = small_cnn(), torch.rand(12, 1, 8, 8)
    targets = (cnn(images).argmax(1) + 1) % 4
    attack = FMN(replace(threat, targeted=True), steps=40, restarts=2, starts=torch.rand(30, 1, 8, 8))
    found = run(attack, cnn, images, targets)
    moved = (found != images).flatten(1).any(1)
    assert moved.double().mean() > 0.5
    assert (cnn(found).argmax(1) == targets)[moved].all()


class Plateau(nn.Module):
    """Two classes by the mean pixel, above or below 1/2; flat where it is below 0.4, so that an image there has no gradient."""

    def forward(self, images):
        mean = images.flatten(1).mean(dim=1).clamp_min(0.4) - 0.5
        return torch.stack([-mean, mean], dim=1)


def test_starts_help_where_the_image_has_no_gradient():
    images, labels = torch.full((3, 1, 4, 4), 0.2), torch.zeros(3, dtype=torch.long)
    starts = torch.stack([torch.full((1, 4, 4), 0.9), torch.full((1, 4, 4), 0.1)])
    starts[0, 0, :2] = 1.0  # not on the shortest way
    assert torch.equal(run(FMN(L2), Plateau().eval(), images, labels), images)
    found = run(FMN(L2, starts=starts), Plateau().eval(), images, labels)
    torch.testing.assert_close(L2.distance(images, found), torch.full((3,), 1.2, dtype=torch.float64), rtol=0.01, atol=0)


def test_starts_of_the_right_class_are_no_starts():
    images, labels = torch.full((3, 1, 4, 4), 0.2), torch.zeros(3, dtype=torch.long)
    assert torch.equal(run(FMN(L2, starts=0.5 * images), Plateau().eval(), images, labels), images)


def test_starts_are_known_by_their_content_and_checked():
    pool = torch.rand(5, 1, 8, 8)
    assert "starts=5 images" in repr(FMN(L2, starts=pool))
    assert repr(FMN(L2, starts=pool)) == repr(FMN(L2, starts=pool.clone()))
    with pytest.raises(GenclsError, match="FMN starts: expected values in"):
        FMN(L2, starts=2 * pool + 1)
    with pytest.raises(GenclsError, match=r"FMN: expected starts of shape \(1, 4, 4\), got \(1, 8, 8\)"):
        FMN(L2, starts=pool)(Plateau().eval(), torch.rand(2, 1, 4, 4), torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("settings", [{"steps": 0}, {"restarts": 0}, {"tries": 0}, {"first_step": 0.0}, {"gamma": 1.0}])
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(GenclsError, match="FMN: expected steps, restarts and tries >= 1, first_step > 0"):
        FMN(L2, **settings)


@pytest.mark.parametrize("threat", [ThreatModel("l2", targeted=True), ThreatModel("linf", targeted=True)], ids=["l2", "linf"])
def test_targets_are_reached(threat):
    cnn, images = small_cnn(), torch.rand(32, 1, 8, 8)
    targets = (cnn(images).argmax(1) + 1) % 4
    assert (cnn(run(FMN(threat), cnn, images, targets)).argmax(1) == targets).double().mean() > 0.9
