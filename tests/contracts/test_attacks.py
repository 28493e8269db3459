import re
from dataclasses import dataclass
from functools import cache

import pytest
import torch

import gencls.eval
from gencls.core import GenclsError
from gencls.eval import Attack, ThreatModel
from gencls.eval.attacks.parts.attack_model import AttackModel
from gencls.eval.threats.protocol import Threat, made, searchable
from tests.contracts.attacks import FIXED, FOR_BAYES, MINIMAL, NORMS, OPTIMAL, SMOOTHED
from tests.contracts.linear import SHAPES, linear_problem, minimal_distance, run
from tests.contracts.tables import check_rows
from tests.toys import Linear, Rescaled, small_cnn

ATTACKS = FIXED | SMOOTHED
THREATS = {
    "linf": ThreatModel("linf", 0.1),
    "l2": ThreatModel("l2", 0.8),
    "l1": ThreatModel("l1", 3.0),
    "l0": ThreatModel("l0", 5),
}
LARGE = {"linf": 0.4, "l2": 3.0, "l1": 15.0, "l0": 20.0}
for key in set(searchable()) - set(THREATS):  # a threat that is one file: shares of the farthest two of the images
    reach = made(key, None).largest(torch.Size((1, 1, 8, 8)))
    THREATS[key], LARGE[key] = made(key, 0.1 * reach), 0.5 * reach

FAST_PROBLEMS = ((SHAPES[1], 1, 2), (SHAPES[0], 64, 10))

every_minimal = pytest.mark.parametrize("key", MINIMAL, ids="-".join)
every_optimal = pytest.mark.parametrize("key", OPTIMAL, ids="-".join)
every_attack = pytest.mark.parametrize("attack", ATTACKS)
both_norms = pytest.mark.parametrize("norm", ["linf", "l2"])
every_pair = pytest.mark.parametrize(("attack", "norm"), [(name, norm) for name in ATTACKS for norm in NORMS[name]], ids=str)


def public_attacks():
    public = {name: getattr(gencls.eval, name) for name in gencls.eval.__all__ if name != "Attack"}
    return [name for name, item in public.items() if isinstance(item, type) and {"uses_gradients", "passes"} <= set(dir(item))]


@pytest.mark.parametrize("name", public_attacks())
def test_every_public_attack_is_in_a_table(name):
    tested = (*FIXED, *(name for name, _ in MINIMAL), *FOR_BAYES)
    row = '"{name}": lambda threat: {name}(threat, ...) to FIXED, or ("{name}", norm): {name}(...) to MINIMAL'
    check_rows([name], tested, where="tests/contracts/attacks.py", row=row)


@every_pair
def test_the_contract(attack, norm, cnn, digits):
    images, labels = digits[0].clone(), digits[1]
    images[0], images[1], images[2] = 0.0, 1.0, (images[2] > 0.5).float()  # at the borders of the range
    before, state = images.clone(), {key: value.clone() for key, value in cnn.state_dict().items()}
    random_state = torch.get_rng_state()
    threat = THREATS[norm]
    settings = ATTACKS[attack](threat)
    assert isinstance(settings, Attack)
    assert settings.threat == threat
    found = run(settings, cnn, images, labels)
    assert found.shape == images.shape
    assert found.dtype == images.dtype
    assert not found.requires_grad
    assert (found >= 0).all()
    assert (found <= 1).all()
    distances = threat.distance(images, found)
    assert (distances <= threat.epsilon + 1e-6).all()
    assert (distances > 0).all()
    assert torch.equal(images, before)
    assert not images.requires_grad
    assert torch.equal(run(settings, cnn, images, labels), found)  # deterministic
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, state[key]) for key, value in cnn.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in cnn.parameters())


@pytest.mark.parametrize(
    ("attack", "norm"),
    [
        pytest.param(attack, norm, marks=[pytest.mark.slow] * (attack == "AutoAttack" and norm != "linf"))
        for attack in ATTACKS
        for norm in NORMS[attack]
    ],
    ids=str,
)
@pytest.mark.parametrize("noisy", [pytest.param(False, marks=pytest.mark.slow), True])
def test_samples_do_not_depend_on_their_batch(attack, norm, noisy, cnn, noisy_cnn, digits):
    images, labels = digits[0][:7], digits[1][:7]
    settings = ATTACKS[attack](THREATS[norm])
    model = noisy_cnn if noisy else cnn
    together = run(settings, model, images, labels)
    parts = [run(settings, model, images[i:end], labels[i:end], first=i) for i, end in ((0, 1), (1, 7))]
    assert torch.equal(cnn(torch.cat(parts)).argmax(1), cnn(together).argmax(1))
    # A gradient that is zero up to rounding may have either sign.
    different = (torch.cat(parts) - together).abs() > 1e-4
    assert different.double().mean() < 0.002


@every_pair
def test_accuracy_falls(attack, norm, cnn, digits):
    images = digits[0]
    labels = cnn(images).argmax(1)
    found = run(ATTACKS[attack](made(norm, LARGE[norm])), cnn, images, labels)
    accuracy = (cnn(found).argmax(1) == labels).double().mean()
    assert accuracy < (1.0 if attack == "GaussianNoiseAttack" else 0.5)


@pytest.mark.parametrize("attack", ["PGD", "FGSM"])
@both_norms
def test_targeted_attacks_reach_their_target(attack, norm):
    model, images, labels = linear_problem(10, (1, 5, 7), 64)
    targets = (labels + 1 + torch.arange(64) % 9) % 10
    threat = ThreatModel(norm, {"linf": 0.5, "l2": 3.0}[norm], targeted=True)
    reached = (model(run(ATTACKS[attack](threat), model, images, targets)).argmax(1) == targets).double().mean()
    assert reached > (0.95 if attack == "PGD" else 0.5)


@pytest.mark.parametrize("attack", ["PGD", "FGSM", "APGD", "AutoAttack", "NES", "Square", *SMOOTHED])
@pytest.mark.parametrize(
    ("norm", "scores"),
    [
        pytest.param(norm, scores, marks=[] if fast else pytest.mark.slow)
        for norm, own in (("linf", {"shift": 100.0}), ("l2", {"scale": 1 / 200}))
        for scores in ({"shift": 100.0}, {"shift": -100.0}, {"scale": 200.0}, {"scale": 1 / 200})
        for fast in (scores == own,)
    ],
)
def test_offset_and_scale_of_scores_do_not_matter(attack, norm, scores):
    cnn = small_cnn()
    images = torch.rand(200, 1, 8, 8)
    labels = cnn(images).argmax(1)
    settings = ATTACKS[attack](ThreatModel(norm, {"linf": 0.03, "l2": 0.2}[norm]))
    expected = cnn(run(settings, cnn, images, labels)).argmax(1)
    assert 0.2 < (expected == labels).double().mean() < 0.9  # an attack with something to lose
    found = cnn(run(settings, Rescaled(cnn, **scores).eval(), images, labels)).argmax(1)
    assert (found != expected).sum() <= 1


def test_equal_scores_are_no_error():
    """A model that says nothing has no gradient; attacks return something valid."""
    dead = Linear(torch.zeros(3, 16), torch.zeros(3)).eval()
    images = torch.rand(4, 1, 4, 4)
    for name, make in ATTACKS.items():
        for threat in map(THREATS.get, NORMS[name]):
            found = run(make(threat), dead, images, torch.tensor([0, 1, 2, 0]))
            assert torch.isfinite(found).all()
            assert threat.allows(threat.distance(images, found)).all()


@every_minimal
def test_the_contract_of_minimal_attacks(key, cnn, digits):
    images, labels = digits[0][:16].clone(), digits[1][:16]
    images[0], images[1], images[2] = 0.0, 1.0, (images[2] > 0.5).float()
    before, random_state = images.clone(), torch.get_rng_state()
    attack = MINIMAL[key]
    assert isinstance(attack, Attack)
    found = run(attack, cnn, images, labels)
    assert found.shape == images.shape
    assert not found.requires_grad
    assert (found >= 0).all()
    assert (found <= 1).all()
    wrong = cnn(images).argmax(1) != labels
    assert torch.equal(found[wrong], images[wrong])  # distance 0
    moved = (found != images).flatten(1).any(1)
    assert (cnn(found).argmax(1) != labels)[moved].all()  # what is returned succeeds, or is the clean image
    assert torch.equal(images, before)
    assert torch.equal(run(attack, cnn, images, labels), found)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in cnn.parameters())


@every_optimal
def test_minimal_attacks_find_all(key, cnn, digits):
    images = digits[0][:32]
    labels = cnn(images).argmax(1)
    assert (cnn(run(MINIMAL[key], cnn, images, labels)).argmax(1) != labels).double().mean() > 0.95


@pytest.mark.parametrize(
    "key",
    [pytest.param(key, marks=[pytest.mark.slow] * (key[0] == "RestartedCarliniWagner")) for key in MINIMAL],
    ids="-".join,
)
@pytest.mark.parametrize("noisy", [pytest.param(False, marks=pytest.mark.slow), True])
def test_minimal_attacks_do_not_depend_on_the_batch(key, noisy, cnn, noisy_cnn, digits):
    images, labels = digits[0][:7], digits[1][:7]
    model = noisy_cnn if noisy else cnn
    together = run(MINIMAL[key], model, images, labels)
    ends = ((0, 1), (1, 7))
    parts = torch.cat([run(MINIMAL[key], model, images[i:end], labels[i:end], first=i) for i, end in ends])
    threat = MINIMAL[key].threat
    # Rounding differs between batch sizes and grows over an attack's steps.
    distances, again = threat.distance(images, together), threat.distance(images, parts)
    assert ((distances - again).abs() <= 0.02 * distances + 1e-5).sum() >= 6


@every_optimal
@pytest.mark.parametrize(
    ("shape", "count", "classes"),
    [
        pytest.param(shape, count, classes, marks=[] if (shape, count, classes) in FAST_PROBLEMS else pytest.mark.slow)
        for shape in SHAPES[:2]
        for count in (1, 64)
        for classes in (2, 3, 10)
    ],
)
def test_minimal_attacks_are_optimal_on_linear_classifiers(key, classes, shape, count):
    """Images in [0.3, 0.7], so that the box does not bind."""
    model, images, labels = linear_problem(classes, shape, count)
    attack = MINIMAL[key]
    best = minimal_distance(model, images, labels, attack.threat.norm)
    found = run(attack, model, images, labels)
    assert (model(found).argmax(1) != labels).all()
    distance = attack.threat.distance(images, found)
    assert (distance >= (1 - 1e-4) * best - 1e-6).all()  # scores are rounded: within 1e-6 of the boundary either may be larger
    assert (distance <= 1.05 * best).all()


SLOW_WITH_SCORES = {
    *(("RestartedCarliniWagner", "l2"), ("FAB", "l1"), ("FMN", "l1"), ("FMN", "l0"), ("FMN", "l2")),
    *(("DDN, smoothed", "l2"), ("FMN, smoothed", "linf"), ("DeepFool", "linf")),
}


@cache
def distances_on_many(key):
    cnn, images = small_cnn(), torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = cnn(images).argmax(1)
    return cnn, images, labels, MINIMAL[key].threat.distance(images, run(MINIMAL[key], cnn, images, labels))


@pytest.mark.parametrize(
    "key",
    [pytest.param(key, marks=[pytest.mark.slow] * (key in SLOW_WITH_SCORES)) for key in OPTIMAL],
    ids="-".join,
)
@pytest.mark.parametrize(
    "scores",
    [
        {"shift": 100.0},
        pytest.param({"shift": -100.0}, marks=pytest.mark.slow),
        pytest.param({"scale": 200.0}, marks=pytest.mark.slow),
        pytest.param({"scale": 1 / 200}, marks=pytest.mark.slow),
    ],
)
def test_offset_and_scale_do_not_change_distances(key, scores):
    """Judged on the attacked model: float32 scores shifted by 100 lose two digits, also for the decision itself."""
    cnn, images, labels, expected = distances_on_many(key)
    radius = expected.median()
    model = Rescaled(cnn, **scores).eval()
    found = run(MINIMAL[key], model, images, labels)
    broken = model(found).argmax(1) != labels
    near = (expected - radius).abs() < 0.01 * radius  # samples at the radius itself may fall on either side of it
    within = MINIMAL[key].threat.distance(images, found) <= radius
    assert ((within & broken) != (expected <= radius))[~near].sum() <= 1


def spends_what_it_declares(attack, cnn, digits):
    model, images = AttackModel(cnn), digits[0][:4]
    labels = cnn(images).argmax(1)
    run(attack, model, images, labels)
    forwards, backwards = attack.passes
    assert model.meter.backwards <= len(images) * backwards
    assert model.meter.forwards <= len(images) * (forwards + backwards)


@every_pair
def test_no_more_is_spent_than_declared(attack, norm, cnn, digits):
    """In balls where nothing is found, which would end a search."""
    threat = made(norm, 1.0 if norm == "l0" else 1e-3 * THREATS[norm].epsilon)
    spends_what_it_declares(ATTACKS[attack](threat), cnn, digits)


@every_minimal
def test_no_more_is_spent_than_declared_on_a_minimal_perturbation(key, cnn, digits):
    spends_what_it_declares(MINIMAL[key], cnn, digits)


@dataclass(frozen=True)
class Foreign(Threat):
    """One of L2's key whose distance is another."""

    norm: str = "l2"

    distance = largest = step = project = start = None


LIMITED = {item.__name__: item for item in vars(gencls.eval).values() if getattr(item, "norms", None) is not None}


@pytest.mark.parametrize("name", LIMITED)
def test_threats_that_an_attack_does_not_know_are_refused_at_once(name):
    """The error says which it knows."""
    known = ", ".join(LIMITED[name].norms)
    others = [ThreatModel(norm, epsilon) for norm in ("linf", "l2", "l1", "l0") for epsilon in (1.0, None)]
    others = [threat for threat in others if threat.norm not in LIMITED[name].norms]
    for threat in (*others, Foreign(epsilon=1.0), Foreign()):
        with pytest.raises(
            GenclsError, match=re.escape(f"{name}: expected a ThreatModel with a norm among {known}, got {threat}")
        ):
            LIMITED[name](threat)


@every_attack
def test_large_images_stay_within_the_ball(attack):
    """196,608 pixels, whose float32 norm is short by 2e-6 of it; the tolerance of the judge is 1e-6."""
    if attack in ("NES", "Square", "SparseRS", "AutoAttack"):
        pytest.skip("many passes; they project as PGD and APGD do, or need not")
    pixels = 3 * 256 * 256
    model = Linear(torch.randn(4, pixels) / pixels**0.5, torch.zeros(4)).eval()
    images = 0.3 + 0.4 * torch.rand(2, 3, 256, 256)
    for epsilon in (4.0, 32.0):
        threat = ThreatModel("l2", epsilon)
        found = run(ATTACKS[attack](threat), model, images, model(images).argmax(1))
        assert threat.allows(threat.distance(images, found)).all()


@pytest.mark.parametrize("key", [("DeepFool", "linf"), ("DDN", "l2"), ("CarliniWagner", "l2")], ids="-".join)
def test_images_in_double_precision(key):
    cnn = small_cnn().double()
    images = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    found = run(MINIMAL[key], cnn, images, cnn(images).argmax(1))
    assert found.dtype == torch.float64
    assert (found != images).any()
