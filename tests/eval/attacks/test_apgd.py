"""APGD against the closed forms of linear classifiers, and beside the library."""

import logging

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

from gencls import zoo
from gencls.core import seeded
from gencls.eval import PGD, ThreatModel
from gencls.eval.attacks.apgd import APGD, dlr, targeted_dlr
from tests.contracts.linear import SHAPES, digits, halfway, linear_problem, margins, run, shapes_and_counts, shortfall
from tests.toys import Rescaled, small_cnn

THREATS = {"linf": ThreatModel("linf", 0.1), "l2": ThreatModel("l2", 0.25)}
SILENT = logging.Logger("silent", level=logging.CRITICAL + 1)

both_norms = pytest.mark.parametrize("norm", THREATS)
every_shape = pytest.mark.parametrize("shape", SHAPES)
every_number_of_classes = pytest.mark.parametrize(
    "classes", [2, pytest.param(3, marks=pytest.mark.slow), 4, pytest.param(10, marks=pytest.mark.slow)]
)


@shapes_and_counts
@both_norms
@every_number_of_classes
def test_apgd_against_each_class_is_optimal(classes, norm, shape, count):
    model, images, labels = linear_problem(classes, shape, count)
    found = run(APGD(THREATS[norm], loss="multi-targeted"), model, images, labels)
    missing, best = shortfall(model, images, labels, found, norm, THREATS[norm].epsilon)
    assert (missing[best > 0] <= 1e-3).all()
    assert (margins(model, found, labels).amin(1)[best < -1e-3] < 0).all()


@every_shape
@every_number_of_classes
def test_apgd_in_l1_is_nearly_optimal(classes, shape):
    """The box binds: the best change takes the entries of the largest slopes to their ends, one after the other."""
    model, images, labels = linear_problem(classes, shape, 64)
    threat = ThreatModel("l1", 1.3)
    found = run(APGD(threat, loss="multi-targeted"), model, images, labels)
    missing, best = shortfall(model, images, labels, found, "l1", 1.3)
    assert (missing[best > 0] <= 0.05).all()
    assert (margins(model, found, labels).amin(1)[best < -0.1] < 0).all()


@pytest.mark.parametrize(
    ("name", "epsilon", "loss"),
    [
        pytest.param("cnn-mnist", 8.0, "dlr", marks=pytest.mark.slow),
        pytest.param("cnn-mnist", 8.0, "cross-entropy", marks=pytest.mark.slow),
        pytest.param("adv-linf-mnist", 15.0, "dlr", marks=pytest.mark.slow),
        pytest.param("adv-linf-mnist", 15.0, "cross-entropy", marks=pytest.mark.slow),
    ],
)
def test_it_breaks_as_many_digits_in_l1_as_the_library(name, epsilon, loss):
    """With its schedule of three balls; random starts decide a few. And plain PGD does not fall behind foolbox's SLIDE."""
    import foolbox

    network, (images, labels) = zoo.load(name).eval(), digits(60)
    threat = ThreatModel("l1", epsilon)
    found = run(APGD(threat, loss, steps=50), network, images, labels)
    assert threat.allows(threat.distance(images, found)).all()
    ours = int((network(found).argmax(1) == labels).sum())
    settings = {"loss": {"cross-entropy": "ce"}.get(loss, loss), "use_largereps": True, "device": "cpu", "logger": SILENT}
    library = APGDAttack(network, n_iter=50, norm="L1", eps=epsilon, **settings)
    with seeded(0):
        theirs = int((network(library.perturb(images, labels)).argmax(1) == labels).sum())
    assert 3 < ours < 57
    assert abs(ours - theirs) <= 4
    pgd = run(PGD(threat, steps=50), network, images, labels)
    slide = foolbox.attacks.SparseL1DescentAttack(steps=50, rel_stepsize=0.2).run(
        foolbox.PyTorchModel(network, bounds=(0, 1)), images, foolbox.criteria.Misclassification(labels), epsilon=epsilon
    )
    by_pgd, by_slide = (int((network(part.clamp(0, 1)).argmax(1) == labels).sum()) for part in (pgd, slide))
    assert by_pgd <= by_slide + 3


@every_shape
@both_norms
@every_number_of_classes
def test_targeted_apgd_breaks_what_can_be_broken(classes, norm, shape):
    """The sign of a ratio is that of the margin."""
    model, images, labels = linear_problem(classes, shape, 64)
    threat, best = halfway(model, images, labels, norm)
    found = run(APGD(threat, loss="targeted-dlr", steps=50), model, images, labels)
    broken = margins(model, found, labels).amin(1) < 0
    assert broken[best < -1e-3].all()
    assert not broken[best > 1e-5].any()


@every_shape
@both_norms
@pytest.mark.parametrize(("loss", "name"), [("cross-entropy", "ce"), ("dlr", "dlr")])
@pytest.mark.parametrize("classes", [pytest.param(3, marks=pytest.mark.slow), 10])
def test_untargeted_apgd_breaks_as_much_as_the_library(classes, loss, name, norm, shape):
    """Untargeted losses may settle at a class that is not the best, at one or another with the random start."""
    model, images, labels = linear_problem(classes, shape, 64)
    threat, _ = halfway(model, images, labels, norm)
    library = APGDAttack(model, norm={"linf": "Linf", "l2": "L2"}[norm], eps=threat.epsilon, loss=name, logger=SILENT)
    with seeded(0):
        expected = (model(library.perturb(images, labels)).argmax(1) != labels).sum()
    found = run(APGD(threat, loss=loss), model, images, labels)
    assert (model(found).argmax(1) != labels).sum() >= expected - 3


@every_shape
@both_norms
@pytest.mark.parametrize("loss", ["cross-entropy", "dlr", "targeted-dlr"])
def test_apgd_is_optimal_for_two_classes(loss, norm, shape):
    model, images, labels = linear_problem(2, shape, 64)
    found = run(APGD(THREATS[norm], loss=loss), model, images, labels)
    missing, best = shortfall(model, images, labels, found, norm, THREATS[norm].epsilon)
    assert (missing[best > 0] <= 1e-3).all()


def test_dlr_is_that_of_the_library():
    scores, labels, targets = torch.randn(50, 5).double(), torch.arange(50) % 5, (torch.arange(50) + 2) % 5
    library = APGDAttack_targeted(None, eps=0.1)
    library.y_target = targets
    torch.testing.assert_close(dlr(scores, labels), library.dlr_loss(scores, labels))
    torch.testing.assert_close(targeted_dlr(scores, labels, targets), library.dlr_loss_targeted(scores, labels))


@pytest.mark.parametrize(
    ("norm", "scores"),
    [
        pytest.param(norm, scores, marks=[] if scores == own else pytest.mark.slow)
        for norm, own in (("linf", {"shift": 100.0}), ("l2", {"scale": 1e-6}))
        for scores in ({"shift": 100.0}, {"shift": -100.0}, {"scale": 200.0}, {"scale": 1 / 200}, {"scale": 1e-6})
    ],
)
@pytest.mark.parametrize("loss", ["cross-entropy", "dlr", "targeted-dlr", "multi-targeted"])
def test_offset_and_scale_do_not_matter(loss, norm, scores):
    cnn = small_cnn()
    images = torch.rand(200, 1, 8, 8)
    labels = cnn(images).argmax(1)
    attack = APGD(ThreatModel(norm, {"linf": 0.03, "l2": 0.2}[norm]), loss=loss, steps=20)
    expected = cnn(run(attack, cnn, images, labels)).argmax(1)
    assert 0.2 < (expected == labels).double().mean() < 0.9
    model = Rescaled(cnn, **scores).eval()
    found = model(run(attack, model, images, labels)).argmax(1)
    assert ((found != labels) != (expected != labels)).sum() <= 1
