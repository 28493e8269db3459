"""AutoAttack beside the library, and what all of its parts must do."""

import logging

import pytest
import torch
from torch import nn

from gencls.core import GenclsError, keyed, seeded
from gencls.eval import AttackModel, ThreatModel
from gencls.eval.attacks.apgd import APGD
from gencls.eval.attacks.autoattack import AutoAttack
from gencls.eval.attacks.fab import FAB
from tests.contracts.linear import halfway, linear_problem, margins, optimal_margin, run
from tests.toys import Linear, NoisyLogits, Rescaled, small_cnn

THREATS = {"linf": ThreatModel("linf", 0.1), "l2": ThreatModel("l2", 0.25)}
SILENT = logging.Logger("silent", level=logging.CRITICAL + 1)

both_norms = pytest.mark.parametrize("norm", THREATS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "norm", "epsilon", "count"),
    [("adv-linf-mnist", "linf", 0.3, 100), ("adv-l2-mnist", "l2", 1.5, 100), ("cnn-mnist", "l1", 6.0, 60)],
)
def test_the_ensemble_agrees_with_the_library(name, norm, epsilon, count):
    """Robust digits of real networks: at most one more than with the library. Random starts decide a few."""
    from pyautoattack import AutoAttack as Library

    import gencls.zoo

    network = gencls.zoo.load(name).eval()
    digits = gencls.zoo.load_data("mnist-embedded", "test", limit=count)
    images, labels = digits.images, digits.labels
    found = run(AutoAttack(ThreatModel(norm, epsilon), queries=500), network, images, labels)
    ours = network(found).argmax(1) == labels
    library = Library(network, norm=norm.capitalize(), eps=epsilon, seed=0, version="standard")
    library.logger, library.square.n_queries = SILENT, 500
    with seeded(0):
        theirs = network(library.run_standard_evaluation(images, labels)[0]).argmax(1) == labels
    assert 0.2 * count < ours.sum() < 0.97 * count
    assert ours.sum() <= theirs.sum() + 1
    assert (ours != theirs).sum() <= 3


@pytest.mark.parametrize(
    ("norm", "scores"),
    [
        ("linf", {"shift": 100.0}),
        ("l2", {"scale": 1 / 200}),
        pytest.param("linf", {"scale": 1 / 200}, marks=pytest.mark.slow),
        pytest.param("l2", {"shift": 100.0}, marks=pytest.mark.slow),
    ],
)
def test_offset_and_scale_do_not_matter_to_the_ensemble(norm, scores):
    cnn = small_cnn()
    images = torch.rand(200, 1, 8, 8)
    labels = cnn(images).argmax(1)
    attack = AutoAttack(ThreatModel(norm, {"linf": 0.03, "l2": 0.2}[norm]), steps=10, queries=30)
    expected = cnn(run(attack, cnn, images, labels)).argmax(1) != labels
    model = Rescaled(cnn, **scores).eval()
    assert ((model(run(attack, model, images, labels)).argmax(1) != labels) != expected).sum() <= 1


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
@both_norms
def test_the_ensemble_breaks_what_can_be_broken(norm, classes):
    """With few classes, where the library's crashes, as with many."""
    model, images, labels = linear_problem(classes, (1, 5, 7), 64)
    threat, best = halfway(model, images, labels, norm)
    found = run(AutoAttack(threat, steps=20, queries=20), model, images, labels)
    assert threat.allows(threat.distance(images, found)).all()
    sure = best.abs() > 0.01
    assert torch.equal((margins(model, found, labels).amin(1) < 0)[sure], (best < 0)[sure])


def test_the_settings_of_l1_are_those_of_the_library():
    ce, dlr, fab, _ = AutoAttack(ThreatModel("l1", 6.0)).parts
    assert (ce.restarts, dlr.restarts, dlr.targets, fab.restarts, fab.targets) == (5, 1, 5, 1, 9)
    assert AutoAttack(ThreatModel("l1", 6.0), targets=3).parts[1].targets == 3
    ce, dlr, fab, _ = AutoAttack(ThreatModel("l2", 1.0)).parts
    assert (ce.restarts, dlr.restarts, dlr.targets, fab.restarts, fab.targets) == (1, 1, 9, 1, 9)


@pytest.mark.parametrize("version", ["standard", "rand"])
def test_parts_work_on_what_is_left(version, cnn, digits):
    """All are broken by the first part, whose steps stop at the first wrong decision."""
    labels = cnn(digits[0]).argmax(1)
    model = AttackModel(cnn)
    found = run(AutoAttack(ThreatModel("linf", 0.9), version=version), model, digits[0], labels)
    assert (cnn(found).argmax(1) != labels).all()
    assert model.meter.forwards < 20 * 64


@pytest.mark.parametrize("classes", [2, 4])
def test_rand_follows_the_mean_of_a_random_defense(classes):
    """With noise on the scores a single draw misleads; where the mean can be made wrong for sure, it is."""
    model, images, labels = linear_problem(classes, (1, 5, 7), 24)
    noisy = NoisyLogits(model, sigma=0.3, num_classes=classes)
    best = optimal_margin(model, images, labels, "l2", 0.25)
    attack = AutoAttack(THREATS["l2"], version="rand", steps=50)
    found = run(attack, AttackModel(noisy, samples=16), images, labels)
    missing = margins(model, found, labels).amin(1) - best
    clean = margins(model, images, labels).amin(1)
    # The untargeted losses go for the nearest class; among four that may not be the best by a little.
    assert (missing <= (0.05 if classes == 2 else 0.15) * (clean - best)).double().mean() > 0.9
    assert (margins(model, found, labels).amin(1)[best < -0.5] < 0).all()


def test_a_random_defense_is_not_judged_by_a_lucky_look():
    """Where nothing helps, half of the single looks are wrong all the same; the perturbation kept is not worse than another."""
    with seeded(1):
        network = Linear(torch.zeros(3, 16), torch.tensor([0.3, 0.0, 0.0]))
    noisy = NoisyLogits(network, sigma=1.0, num_classes=3)
    model = AttackModel(noisy, samples=1)
    images, labels = torch.rand(8, 1, 4, 4), torch.zeros(8, dtype=torch.int64)
    model.gradient = lambda value, x, keep_graph=False: torch.randn_like(x)  # the scores depend on the noise alone
    found = run(AutoAttack(THREATS["linf"], version="rand", steps=5), model, images, labels)
    assert torch.isfinite(found).all()
    with keyed(range(8)):
        assert all(not model.look(found, labels).success.all() for _ in range(3))
    # Had a look been believed, the second part would have had nothing to do.
    assert model.meter.forwards > 2 * 8 * 2 * 64


@pytest.mark.parametrize("attack", [APGD(THREATS["linf"], steps=3), FAB(ThreatModel("linf"), steps=3, restarts=2)])
def test_gradients_are_checked_and_counted(attack):
    images, labels = torch.rand(6, 1, 4, 4), torch.zeros(6, dtype=torch.int64)

    class Broken(nn.Module):
        def forward(self, x):
            score = (x - x.detach()).flatten(1).abs().pow(0.5).sum(1, keepdim=True)  # infinite slope, or 0 times infinity
            return torch.cat([score + 1, 0 * score], dim=1)

    with pytest.raises(GenclsError, match="expected finite gradients, got NaN or infinity"):
        attack(Broken().eval(), images, labels)

    class Detached(nn.Module):
        def forward(self, x):
            return x.detach().flatten(1)[:, :3] + torch.tensor([2.0, 0, 0])

    with pytest.raises(GenclsError, match="expected scores with a gradient, got detached ones"):
        attack(Detached().eval(), images, labels)

    dead = AttackModel(Linear(torch.zeros(3, 16), torch.tensor([1.0, 0.0, 0.0])).eval())
    found = attack(dead, images, labels)
    assert torch.isfinite(found).all()
    assert dead.meter.zero_gradients == dead.meter.gradients > 0
    assert dead.meter.backwards == dead.meter.gradients


def test_it_is_silent_and_leaves_the_generators_alone(cnn, digits, capfd, caplog):
    dead = Linear(torch.zeros(10, 64), torch.arange(10.0)).eval()
    before = torch.get_rng_state()
    for model in (cnn, dead):
        labels = model(digits[0]).argmax(1)
        run(AutoAttack(ThreatModel("linf", 0.02), steps=3, queries=5), model, digits[0], labels)
    assert torch.equal(torch.get_rng_state(), before)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: APGD(ThreatModel("linf")), "expected a threat model with an epsilon"),
        (lambda: APGD(THREATS["l2"], loss="hinge"), "expected loss to be one of 'cross-entropy'"),
        (lambda: APGD(THREATS["l2"], steps=0), "expected steps >= 1"),
        (lambda: FAB(ThreatModel("l2", targeted=True)), "expected an untargeted threat model"),
        (lambda: FAB(ThreatModel("l2"), restarts=0), "restarts >= 1"),
        (lambda: AutoAttack(ThreatModel("l2")), "expected a threat model with an epsilon"),
        (lambda: AutoAttack(THREATS["l2"], version="plus"), "expected version to be one of 'standard', 'rand'"),
        (lambda: AutoAttack(THREATS["l2"], targets=0), "expected targets >= 1"),
        (lambda: AutoAttack(THREATS["l2"], queries=0), "queries >= 1"),
    ],
)
def test_bad_values(make, message):
    with pytest.raises(GenclsError, match=message):
        make()
