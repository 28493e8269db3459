import pytest
import torch

from gencls.core import GenclsError, keyed
from gencls.eval import AttackModel, SparseRS, ThreatModel
from tests.toys import Linear, NoisyLogits

SHAPE = (1, 2, 4)
"""So few values that hundreds of queries try each exchange."""


def run(attack, model, images, labels):
    with keyed(range(len(images))):
        return attack(model, images, labels)


def linear_problem(shape=SHAPE, count=12, bias=100.0):
    """Two classes, of which the first is right wherever the pixels are, images with values at 0, at 1 and between."""
    model = Linear(torch.randn(2, torch.Size(shape).numel()), torch.tensor([bias, 0.0])).eval()
    images = (1.5 * torch.rand(count, *shape) - 0.25).clamp(0, 1)
    return model, images, torch.zeros(count, dtype=torch.long)


def gap(model, images):
    scores = model(images)
    return scores[:, 0] - scores[:, 1]


def gains(model, images):
    """By how much each value lowers the gap at most: (N, P)."""
    weight, values = model.weight[0] - model.weight[1], images.flatten(1)
    return torch.where(weight > 0, weight * values, -weight * (1 - values))


@pytest.mark.parametrize("k", [1, 3])
def test_the_weakest_values_of_a_linear_model_are_found(k):
    """The optimum takes the k values that gain most to an end of [0, 1]."""
    model, images, labels = linear_problem()
    found = run(SparseRS(ThreatModel("l0", k), queries=300), model, images, labels)
    best = gap(model, images) - gains(model, images).topk(k, dim=1).values.sum(dim=1)
    torch.testing.assert_close(gap(model, found), best, rtol=1e-4, atol=1e-3)


def test_the_weakest_pixel_of_a_linear_model_is_found():
    model, images, labels = linear_problem((3, 3, 3))
    found = run(SparseRS(ThreatModel("l0", 3), queries=500, pixels=True), model, images, labels)
    best = gains(model, images).unflatten(1, (3, 9)).sum(dim=1)
    moved = (found != images).any(dim=1).flatten(1)
    assert torch.equal(moved.long().argmax(dim=1), best.argmax(dim=1))
    assert (moved.sum(dim=1) == 1).all()
    # It may keep a colour that is not the best one: an exchange is with another pixel, as in the paper.
    gained = gap(model, images) - gap(model, found)
    assert (gained >= best.topk(2, dim=1).values[:, 1] - 1e-3).all()
    assert (gained <= best.amax(dim=1) + 1e-3).all()


@pytest.mark.parametrize(
    ("shape", "k", "pixels", "changed"),
    [
        ((1, 5, 7), 4, False, 4),
        ((1, 5, 7), 4.9, False, 4),
        ((3, 4, 4), 7, False, 7),
        ((3, 4, 4), 7, True, 2),
        ((1, 2, 2), 4, False, 4),
    ],
)
def test_exactly_k_values_or_pixels_change(shape, k, pixels, changed):
    model, images, labels = linear_problem(shape)
    threat = ThreatModel("l0", k)
    found = run(SparseRS(threat, queries=100, pixels=pixels), model, images, labels)
    moved = (found != images).any(dim=1) if pixels else (found != images)
    assert (moved.flatten(1).sum(dim=1) == changed).all()
    assert threat.allows(threat.distance(images, found)).all()
    assert ((found == 0) | (found == 1))[found != images].all()


@pytest.mark.parametrize("queries", [1, 2, 50])
def test_it_keeps_to_its_budget(queries):
    model, images, labels = linear_problem()
    asked = AttackModel(model)
    run(SparseRS(ThreatModel("l0", 2), queries=queries), asked, images, labels)
    assert asked.meter.forwards == queries * len(images)
    broken = AttackModel(Linear(torch.zeros(2, 8), torch.tensor([0.0, 1.0])).eval())
    run(SparseRS(ThreatModel("l0", 2), queries=queries), broken, images, labels)
    assert broken.meter.forwards == len(images)


def test_the_schedule_is_that_of_the_paper():
    """Of the authors' p_selection for L0 at 10,000 queries, which is rescaled to fewer."""
    attack = SparseRS(ThreatModel("l0", 10), share=0.6)
    expected = {0: 1, 1: 2, 50: 2, 51: 4, 200: 4, 500: 5, 501: 6, 1000: 6, 2000: 8, 4000: 10, 6000: 12, 8000: 15, 9999: 20}
    for step, divisor in expected.items():
        assert attack._alpha((step + 0.5) / 10_000) == 0.6 / divisor


def test_targeted(cnn, digits):
    targets = (cnn(digits[0]).argmax(1) + 1) % 4
    found = run(SparseRS(ThreatModel("l0", 20, targeted=True), queries=400, share=0.1), cnn, digits[0], targets)
    assert (cnn(found).argmax(1) == targets).double().mean() > 0.8


def test_noise_on_the_scores_does_not_stop_the_search():
    model, images, labels = linear_problem()
    noisy = AttackModel(NoisyLogits(model, sigma=1.0, num_classes=2), samples=4)
    settings = SparseRS(ThreatModel("l0", 2), queries=300)
    found, sought = (gap(model, run(settings, m, images, labels)) for m in (noisy, model))
    clean = gap(model, images)
    assert ((clean - found) > 0.9 * (clean - sought)).all()


def test_bad_settings(cnn, digits):
    for settings in ({"queries": 0}, {"share": 0.0}, {"share": 1.5}):
        with pytest.raises(GenclsError, match=r"SparseRS: expected queries >= 1 and a share in \(0, 1\]"):
            SparseRS(ThreatModel("l0", 2), **settings)
    images = torch.rand(2, 3, 4, 4)
    with pytest.raises(GenclsError, match="SparseRS: expected an epsilon of at least one pixel of 3 values, got"):
        SparseRS(ThreatModel("l0", 2), pixels=True)(linear_problem((3, 4, 4))[0], images, torch.zeros(2, dtype=torch.long))
