from dataclasses import replace
from functools import cache

import pytest
import torch

import gencls.eval
from gencls.core import keyed
from gencls.eval import FGSM, PGD, Attack, AttackModel, GaussianNoiseAttack, ThreatModel
from tests.contracts.attacks import FIXED, FOR_BAYES, MINIMAL, OPTIMAL, SMOOTHED
from tests.toys import Linear, NoisyLogits, Rescaled, small_cnn

ATTACKS = FIXED | SMOOTHED
THREATS = {"linf": ThreatModel("linf", 0.1), "l2": ThreatModel("l2", 0.8)}

every_minimal = pytest.mark.parametrize("key", MINIMAL, ids="-".join)
every_optimal = pytest.mark.parametrize("key", OPTIMAL, ids="-".join)
every_attack = pytest.mark.parametrize("attack", ATTACKS)
both_norms = pytest.mark.parametrize("norm", THREATS)


def run(attack, model, images, labels, first=0):
    """Attack with sample i on stream i."""
    with keyed(range(first, first + len(images))):
        return attack(model, images, labels)


def test_every_public_attack_is_in_the_table():
    public = {name: getattr(gencls.eval, name) for name in gencls.eval.__all__}
    found = {name for name, item in public.items() if isinstance(item, type) and {"uses_gradients", "passes"} <= set(dir(item))}
    tested = (*FIXED, *(name for name, _ in MINIMAL), *FOR_BAYES)
    assert found - {"Attack"} == {name.split(",")[0] for name in tested}


@every_attack
@both_norms
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


@every_attack
@both_norms
@pytest.mark.parametrize("noisy", [pytest.param(False, marks=pytest.mark.slow), True])
def test_samples_do_not_depend_on_their_batch(attack, norm, noisy, cnn, noisy_cnn, digits):
    images, labels = digits[0][:7], digits[1][:7]
    settings = ATTACKS[attack](THREATS[norm])
    model = noisy_cnn if noisy else cnn
    together = run(settings, model, images, labels)
    parts = [run(settings, model, images[i:end], labels[i:end], first=i) for i, end in ((0, 4), (4, 5), (5, 7))]
    assert torch.equal(cnn(torch.cat(parts)).argmax(1), cnn(together).argmax(1))
    # A gradient that is zero up to rounding may have either sign.
    different = (torch.cat(parts) - together).abs() > 1e-4
    assert different.double().mean() < 0.002


@every_attack
@both_norms
def test_accuracy_falls(attack, norm, cnn, digits):
    images = digits[0]
    labels = cnn(images).argmax(1)
    found = run(ATTACKS[attack](ThreatModel(norm, {"linf": 0.4, "l2": 3.0}[norm])), cnn, images, labels)
    accuracy = (cnn(found).argmax(1) == labels).double().mean()
    assert accuracy < (1.0 if attack == "GaussianNoiseAttack" else 0.5)


@both_norms
def test_noise_lies_on_the_surface(norm, cnn, digits):
    images = 0.4 + 0.2 * digits[0]  # the box binds nowhere
    threat = ThreatModel(norm, 0.3)
    found = run(GaussianNoiseAttack(threat, tries=1), cnn, images, digits[1])
    torch.testing.assert_close(threat.distance(images, found).float(), torch.full((64,), 0.3), rtol=1e-3, atol=0)


def linear_problem(classes, shape, count):
    """Images in [0.3, 0.7], a linear classifier, and labels that it gets right."""
    pixels = torch.Size(shape).numel()
    model = Linear(torch.randn(classes, pixels), torch.randn(classes)).eval()
    images = 0.3 + 0.4 * torch.rand(count, *shape)
    return model, images, model(images).argmax(1)


def margins(model, images, labels):
    """Score of the label minus the score of each other class: (N, K - 1)."""
    scores = model(images)
    others = torch.ones_like(scores, dtype=torch.bool).scatter(1, labels[:, None], False)
    return scores.gather(1, labels[:, None]) - scores[others].view(len(scores), -1)


def optimal_margin(model, images, labels, norm, epsilon):
    """min over the ball of min_j (w_y - w_j) . x + c_y - c_j, where the box does not bind."""
    differences = model.weight[labels].unsqueeze(1) - model.weight  # (N, K, P)
    others = torch.ones(differences.shape[:2], dtype=torch.bool).scatter(1, labels[:, None], False)
    dual = differences[others].view(len(labels), -1, differences.shape[2]).norm(p=1 if norm == "linf" else 2, dim=2)
    return (margins(model, images, labels) - epsilon * dual).amin(1)


SHAPES = [(1, 5, 7), (3, 9, 3)]


def shortfall(model, images, labels, found, norm, epsilon):
    """How much of the optimal decrease of the margin is missing, per sample, and the optimal margin."""
    clean, best = margins(model, images, labels).amin(1), optimal_margin(model, images, labels, norm, epsilon)
    reached = margins(model, found, labels).amin(1)
    assert (reached >= best - 1e-4).all()
    return (reached - best) / (clean - best), best


@pytest.mark.parametrize("count", [1, 64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("norm", "epsilon", "slack"), [("linf", 0.1, 1e-4), ("l2", 0.25, 0.01)])
@pytest.mark.parametrize("classes", [2, 10])
def test_pgd_is_optimal(classes, norm, epsilon, slack, shape, count):
    """With a start against each other class. In L2, steps of epsilon / 4 turn a random start to within a percent."""
    model, images, labels = linear_problem(classes, shape, count)
    settings = {"steps": 40, "step_size": epsilon / 4, "restarts": classes - 1, "loss": "multi-targeted"}
    found = run(PGD(ThreatModel(norm, epsilon), **settings, to_the_end=True), model, images, labels)
    missing, best = shortfall(model, images, labels, found, norm, epsilon)
    assert missing.max() <= slack
    found = run(PGD(ThreatModel(norm, epsilon), **settings), model, images, labels)
    reachable = best < -slack
    assert (margins(model, found, labels).amin(1)[reachable] < 0).all()  # stops there: broken is all it asks for
    missing, _ = shortfall(model, images, labels, found, norm, epsilon)
    assert (missing[best > 0] <= slack).all()


@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
@pytest.mark.parametrize("shape", SHAPES)
@both_norms
def test_targeted_pgd_is_optimal_for_two_classes(loss, norm, shape):
    """The target is the other class; among several, raising one against all others has no closed form."""
    model, images, labels = linear_problem(2, shape, 16)
    epsilon = {"linf": 0.1, "l2": 0.25}[norm]
    settings = PGD(ThreatModel(norm, epsilon, targeted=True), steps=40, step_size=epsilon / 4, loss=loss, to_the_end=True)
    found = run(settings, model, images, 1 - labels)
    missing, _ = shortfall(model, images, labels, found, norm, epsilon)
    assert missing.max() <= 0.01


@pytest.mark.parametrize("attack", ["PGD", "FGSM"])
@both_norms
def test_targeted_attacks_reach_their_target(attack, norm):
    model, images, labels = linear_problem(10, (1, 5, 7), 64)
    targets = (labels + 1 + torch.arange(64) % 9) % 10
    threat = ThreatModel(norm, {"linf": 0.5, "l2": 3.0}[norm], targeted=True)
    reached = (model(run(ATTACKS[attack](threat), model, images, targets)).argmax(1) == targets).double().mean()
    assert reached > (0.95 if attack == "PGD" else 0.5)


@pytest.mark.parametrize("count", [1, 64])
@pytest.mark.parametrize("shape", SHAPES)
@both_norms
def test_cross_entropy_pgd_breaks_what_can_clearly_be_broken(norm, shape, count):
    """The cross-entropy is no function of the margin: once wrong, it lowers the label further instead of raising one class."""
    model, images, labels = linear_problem(10, shape, count)
    epsilon = {"linf": 0.1, "l2": 0.25}[norm]
    found = run(PGD(ThreatModel(norm, epsilon), steps=40), model, images, labels)
    missing, best = shortfall(model, images, labels, found, norm, epsilon)
    assert (margins(model, found, labels).amin(1)[best < -0.3] < 0).all()
    assert (missing[best > 0] <= 0.2).all()


@pytest.mark.parametrize("count", [1, 64])
@pytest.mark.parametrize("shape", SHAPES)
@both_norms
def test_fgsm_is_optimal_for_two_classes(norm, shape, count):
    model, images, labels = linear_problem(2, shape, count)
    found = run(FGSM(ThreatModel(norm, 0.1)), model, images, labels)
    best = optimal_margin(model, images, labels, norm, 0.1)
    torch.testing.assert_close(margins(model, found, labels).amin(1), best, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "scores",
    [
        {"shift": 100.0},
        pytest.param({"shift": -100.0}, marks=pytest.mark.slow),
        pytest.param({"scale": 200.0}, marks=pytest.mark.slow),
        {"scale": 1 / 200},
    ],
)
@pytest.mark.parametrize("attack", ["PGD", "FGSM", "APGD", "AutoAttack", "NES", "Square", *SMOOTHED])
@both_norms
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
    for make in ATTACKS.values():
        for threat in THREATS.values():
            found = run(make(threat), dead, images, torch.tensor([0, 1, 2, 0]))
            assert torch.isfinite(found).all()
            assert threat.allows(threat.distance(images, found)).all()


def test_a_later_restart_that_succeeds_counts():
    """Among several classes a wrong decision may have a smaller cross-entropy than a right one."""

    class Lookup(torch.nn.Module):
        """Pixel below 0.3: right, with large loss (all classes tied). Above: wrong by a little, with small loss."""

        def forward(self, images):
            tied = torch.tensor([0.001] + 4 * [0.0] + 5 * [-20.0])
            wrong = torch.tensor([0.0, 0.001] + 8 * [-12.0])
            return torch.where((images[:, 0, 0, :1] < 0.3), tied, wrong) + 0.0 * images[:, 0, 0, :1]

    images, labels = torch.full((1, 1, 1, 1), 0.2), torch.tensor([0])
    threat = ThreatModel("linf", 0.2)
    ends = {run(PGD(threat, steps=1), Lookup().eval(), images, labels, first=i).item() < 0.3 for i in range(8)}
    assert ends == {True, False}  # a single start may fail
    assert run(PGD(threat, steps=1, restarts=20), Lookup().eval(), images, labels).item() > 0.3


def test_eot_of_a_noisy_model_follows_the_mean_gradient():
    """With noise on the scores a single draw misleads; many draws reach the optimum of the classifier behind."""
    model, images, labels = linear_problem(2, (1, 5, 7), 32)
    noisy = NoisyLogits(model, sigma=1.0, num_classes=2)
    threat = ThreatModel("l2", 0.25)
    found = run(PGD(threat, steps=40, to_the_end=True), AttackModel(noisy, samples=16), images, labels)
    best = optimal_margin(model, images, labels, "l2", 0.25)
    clean = margins(model, images, labels).amin(1)
    assert ((margins(model, found, labels).amin(1) - best) <= 0.05 * (clean - best)).all()


@every_minimal
def test_the_contract_of_minimal_attacks(key, cnn, digits):
    images, labels = digits[0].clone(), digits[1]
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
    labels = cnn(digits[0]).argmax(1)
    assert (cnn(run(MINIMAL[key], cnn, digits[0], labels)).argmax(1) != labels).double().mean() > 0.95


@every_minimal
@pytest.mark.parametrize("noisy", [pytest.param(False, marks=pytest.mark.slow), True])
def test_minimal_attacks_do_not_depend_on_the_batch(key, noisy, cnn, noisy_cnn, digits):
    images, labels = digits[0][:7], digits[1][:7]
    model = noisy_cnn if noisy else cnn
    together = run(MINIMAL[key], model, images, labels)
    ends = ((0, 4), (4, 5), (5, 7))
    parts = torch.cat([run(MINIMAL[key], model, images[i:end], labels[i:end], first=i) for i, end in ends])
    threat = MINIMAL[key].threat
    # Rounding differs between batch sizes and grows over an attack's steps.
    distances, again = threat.distance(images, together), threat.distance(images, parts)
    assert ((distances - again).abs() <= 0.02 * distances + 1e-5).sum() >= 6


@every_optimal
@pytest.mark.parametrize(
    ("shape", "count"),
    [
        (SHAPES[0], 64),
        (SHAPES[1], 1),
        pytest.param(SHAPES[0], 1, marks=pytest.mark.slow),
        pytest.param(SHAPES[1], 64, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("classes", [2, pytest.param(3, marks=pytest.mark.slow), 10])
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


@pytest.mark.parametrize("key", [("DDN", "l2"), ("CarliniWagner", "l2")], ids="-".join)
@pytest.mark.parametrize("shape", SHAPES)
def test_targeted_minimal_attacks_are_optimal_for_two_classes(key, shape):
    model, images, labels = linear_problem(2, shape, 16)
    attack = replace(MINIMAL[key], threat=ThreatModel("l2", targeted=True))
    found = run(attack, model, images, 1 - labels)
    assert (attack.threat.distance(images, found) <= 1.05 * minimal_distance(model, images, labels, "l2")).all()


@cache
def distances_on_many(key):
    cnn, images = small_cnn(), torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = cnn(images).argmax(1)
    return cnn, images, labels, MINIMAL[key].threat.distance(images, run(MINIMAL[key], cnn, images, labels))


@pytest.mark.parametrize(
    "key",
    [pytest.param(key, marks=pytest.mark.slow) if key[0] == "RestartedCarliniWagner" else key for key in OPTIMAL],
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


def minimal_distance(model, images, labels, norm):
    """min over the other classes of margin / dual norm of the difference of weights."""
    differences = model.weight[labels].unsqueeze(1) - model.weight
    others = torch.ones(differences.shape[:2], dtype=torch.bool).scatter(1, labels[:, None], False)
    dual = differences[others].view(len(labels), -1, differences.shape[2]).norm(p=1 if norm == "linf" else 2, dim=2)
    return (margins(model, images, labels) / dual).amin(1)


@every_attack
def test_large_images_stay_within_the_ball(attack):
    """196,608 pixels, whose float32 norm is short by 2e-6 of it; the tolerance of the judge is 1e-6."""
    if attack in ("NES", "Square", "AutoAttack"):
        pytest.skip("many passes; they project as PGD and APGD do")
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
