import inspect
import json

import pytest
import torch
from torch import nn

from gencls import zoo
from gencls.core import BPDA, Defense, GenclsError, seeded
from gencls.defenses import AnalysisBySynthesis, GaussianKL, PlainClassifier
from gencls.eval.doctor import EFFORTS, Check, Effort, diagnose, predict_diagnosis
from gencls.eval.doctor.diagnosis import read_diagnoses
from gencls.perceptual import SquaredL2
from tests.toys import NoisyLogits, SigmoidDecoders, small_cnn

EFFORT = Effort(
    "test", images=30, probes=10, directions=3, steps=10, few_steps=3, far_steps=20, queries=60, tries=3, smoothing=2
)


EPSILON = 0.1


class Masked(Defense):
    """A small network and something done to it."""

    num_classes = 4

    def __init__(self, forward, *, stochastic=False):
        super().__init__()
        self.network = small_cnn()
        self.how = forward
        self.stochastic = stochastic
        self.eval()

    def forward(self, images):
        return self.how(self.network, images)


def max_pooling():
    with seeded(0):  # made while tests are collected: unseeded it would be another network in each run
        return PlainClassifier(nn.Sequential(nn.MaxPool2d(2, stride=1), nn.Flatten(), nn.Linear(49, 4)), 4).eval()


def quantised(images, levels=6):
    return (images * levels).round() / levels


def noisy(images):
    return images + 0.3 * torch.randn_like(images)


def partly_detached(network, images):
    return network(0.5 * images + 0.5 * images.roll(1, dims=3).detach())


def straight_through(network, images):
    return network(images + (quantised(images) - images).detach())


@pytest.fixture(scope="module")
def samples():
    """30 random images (1, 8, 8) with the decisions of the small network as labels."""
    images = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return images, small_cnn()(images).argmax(dim=1)


def examine(defense, samples, **settings):
    return diagnose(defense, *samples, **{"epsilon": EPSILON, "effort": EFFORT, **settings})


def check(diagnosis, name):
    return next(check for check in diagnosis.checks if check.name == name)


@pytest.mark.parametrize(
    ("how", "settings", "right", "consequences"),
    [
        (lambda network, images: network(quantised(images)), {}, "zero gradients", {"unbounded attack", "black box"}),
        (straight_through, {}, "finite differences", set()),
        (partly_detached, {}, "finite differences", set()),
        (lambda network, images: network(images.detach()), {}, "gradient", set()),
        (lambda network, images: network(images).detach(), {}, "gradient", set()),
        (lambda network, images: network(images) / 0.0, {}, "finite scores", set()),
        (lambda network, images: 1e4 * network(images), {}, "offset and scale", set()),
        (lambda network, images: network(noisy(images)), {}, "randomness", set()),
        (lambda network, images: network(noisy(images)), {"eot_samples": 1}, "EoT", {"black box", "more steps"}),
    ],
    ids=[
        "quantised",
        "straight-through",
        "partly detached",
        "detached",
        "detached scores",
        "NaN",
        "scale",
        "undeclared",
        "EoT",
    ],
)
def test_a_masked_defense_is_flagged_by_the_right_check(how, settings, right, consequences, samples):
    diagnosis = examine(Masked(how, stochastic="eot_samples" in settings), samples, **settings)
    assert not diagnosis.passed
    assert right in diagnosis.named("fail")
    assert {right} <= {*diagnosis.named("fail")} <= {right} | consequences
    assert right in diagnosis.conclusion


@pytest.mark.parametrize(("norm", "epsilon", "attack", "status"), [("l1", 2, "Square", "fail"), ("l0", 4, "SparseRS", "note")])
def test_random_search_may_beat_gradients_in_l0_alone(norm, epsilon, attack, status, samples):
    """A rounded input has no gradients, so that random search breaks more."""
    masked = Masked(lambda network, images: network(quantised(images)))
    found = check(examine(masked, samples, norm=norm, epsilon=epsilon), "black box")
    assert found.status == status
    assert found.finding.startswith(f"{attack} with 60 queries breaks more than PGD")


@pytest.mark.parametrize(
    "defense",
    [
        small_cnn(),
        Masked(lambda network, images: network(images) - 100),
        Masked(lambda network, images: network(noisy(images)), stochastic=True),
        pytest.param(NoisyLogits(small_cnn(), sigma=0.2), marks=pytest.mark.slow),
        max_pooling(),
    ],
    ids=["network", "shifted", "noise with EoT", "noisy scores", "max-pooling"],
)
def test_a_healthy_defense_passes(defense, samples):
    images, _ = samples
    torch.manual_seed(0)
    with torch.no_grad():
        labels = torch.stack([defense(images) for _ in range(32)]).mean(dim=0).argmax(dim=1)
    diagnosis = examine(defense, (images, labels))
    assert diagnosis.named("fail") == ()
    assert diagnosis.passed


def by_synthesis(steps):
    generator = SigmoidDecoders(num_classes=4)
    return AnalysisBySynthesis(
        generator,
        start=lambda images: (images.new_zeros(len(images), 4, 3),),
        distance=SquaredL2(),
        regularizer=GaussianKL(),
        weight=0.1,
        steps=steps,
        lr=0.05,
    ).eval()


def test_a_classifier_that_optimises_passes_although_one_of_its_gradients_is_not_its_own(samples):
    defense = by_synthesis(steps=2)  # far from converged: the frozen gradient leaves something out
    images, _ = samples
    diagnosis = examine(defense, (images, defense(images).argmax(dim=1)))
    assert diagnosis.passed
    assert check(diagnosis, "dynamic forward").status == "note"
    assert check(diagnosis, "dynamic forward").evidence["gradients within a forward"] == 2
    assert "unrolled" in check(diagnosis, "finite differences").finding


class Greedy(Defense):
    """Climbs on its own scores before it decides; the gradient takes the climb for a constant."""

    num_classes = 4

    def __init__(self):
        super().__init__()
        self.network = small_cnn()
        self.eval()

    def forward(self, images):
        with torch.enable_grad():
            leaf = images.detach().requires_grad_()
            (step,) = torch.autograd.grad(self.network(leaf).square().sum(), leaf)
        return self.network(images + 0.1 * step.tanh() - 0.6 * images.detach())


def test_an_optimising_defense_with_one_wrong_gradient_fails(samples):
    images, _ = samples
    diagnosis = examine(Greedy(), (images, Greedy()(images).argmax(dim=1)))
    assert {"dynamic forward", "finite differences"} <= {*diagnosis.named("fail")}


def test_a_declared_approximation_is_no_fault(samples):
    class Declared(Masked):
        def surrogates(self):
            return {"bpda": BPDA(self, self.network)}

    defense = Declared(lambda network, images: network(quantised(images)))
    images, _ = samples
    diagnosis = examine(defense, (images, defense(images).argmax(dim=1)))
    assert diagnosis.passed
    assert check(diagnosis, "finite differences").status == "note"


def test_one_blind_mode_beside_one_that_sees_is_noted(samples):
    class Declared(Masked):
        def surrogates(self):
            return {"exact": self, "bpda": BPDA(self, self.network)}

    diagnosis = examine(Declared(lambda network, images: network(quantised(images))), samples)
    assert check(diagnosis, "zero gradients").status == "note"
    assert "finite differences" not in diagnosis.named("fail")


def test_transfer_beats_a_blind_gradient_attack(samples):
    defense = Masked(lambda network, images: network(quantised(images)))
    assert "transfer" in examine(defense, samples, transfer_from=small_cnn()).named("fail")


def test_no_better_than_chance_fails(samples):
    images, labels = samples
    diagnosis = examine(small_cnn(), (images, (labels + 1) % 4))
    assert diagnosis.named("fail") == ("clean scores",)


def test_probabilities_are_noted(samples):
    assert "clean scores" in examine(Masked(lambda network, x: network(x).softmax(dim=1)), samples).named("note")


def test_a_diagnosis_repeats_and_draws_nothing_from_the_global_stream(samples):
    defense = Masked(lambda network, images: network(noisy(images)), stochastic=True)
    state = torch.get_rng_state()
    one, two = (examine(defense, samples, eot_samples=2) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert one.checks[1:] == two.checks[1:]  # the first tells the seconds of a pass
    assert all(parameter.requires_grad and parameter.grad is None for parameter in defense.parameters())


def test_memory_decides_nothing(samples):
    defense = Masked(lambda network, images: network(noisy(images)), stochastic=True)
    little = Effort(
        "test", images=8, probes=8, directions=2, steps=2, few_steps=1, far_steps=3, queries=5, tries=1, smoothing=1
    )
    one, two = (examine(defense, samples, eot_samples=3, memory=memory, effort=little) for memory in (0.05, 500.0))
    assert [(c.name, c.status) for c in one.checks] == [(c.name, c.status) for c in two.checks]
    cosines = [check(found, "EoT").evidence["cosine of two gradients"] for found in (one, two)]
    assert cosines[0] == pytest.approx(cosines[1], abs=1e-4)  # float32 sums in another order


def test_a_diagnosis_is_read_by_the_report(tmp_path, samples):
    diagnosis = examine(Masked(lambda network, images: 1e4 * network(images)), samples)
    path = tmp_path / "doctor.json"
    path.write_text(json.dumps({"mine": diagnosis.to_json()}, allow_nan=False))
    (found,) = read_diagnoses(path)
    assert (found.defense, found.failed) == ("mine", ("offset and scale",))
    assert len(found.checks) == len(diagnosis.checks)


def test_a_prediction_takes_the_arguments_of_a_diagnosis(samples):
    asked, predicted = (inspect.signature(function).parameters for function in (diagnose, predict_diagnosis))
    assert {**predicted, "effort": asked["effort"]} == dict(asked)
    with pytest.raises(GenclsError, match="predict_diagnosis: expected epsilon to be"):
        predict_diagnosis(small_cnn(), *samples, epsilon="0.1")
    effort, seconds = predict_diagnosis(small_cnn(), *samples, epsilon=0.1, budget=1.0)
    assert isinstance(effort, Effort)
    assert seconds > 0


def test_bad_input(samples):
    images, labels = samples
    with pytest.raises(GenclsError, match="expected values in \\[0, 1\\]"):
        examine(small_cnn(), (255 * images, labels))
    with pytest.raises(GenclsError, match="expected eot_samples >= 1"):
        examine(small_cnn(), samples, eot_samples=0)
    with pytest.raises(GenclsError, match="expected an epsilon > 0"):
        examine(small_cnn(), samples, epsilon=0.0)
    with pytest.raises(GenclsError, match="got training mode"):
        examine(small_cnn().train(), samples)
    with pytest.raises(GenclsError, match="expected images of the shape that it was made for"):
        examine(small_cnn(), samples, transfer_from=small_cnn(channels=3))
    with pytest.raises(GenclsError, match="expected a budget in seconds > 0, got 0"):
        examine(small_cnn(), samples, budget=0)
    with pytest.raises(GenclsError, match="expected a status among ok, note, fail"):
        Check("x", "bad", "")
    with pytest.raises(GenclsError, match="expected finite evidence, got NaN or infinity for cosine"):
        Check("x", "ok", "", {"cosine": float("nan")})


def zoo_diagnosis(name, count, **overrides):
    digits = zoo.load_data("mnist-embedded", "test", limit=count)
    source = None if name == "cnn-mnist" else zoo.load("cnn-mnist")
    return diagnose(zoo.load(name, **overrides), digits.images, digits.labels, epsilon=0.3, transfer_from=source, effort=EFFORT)


@pytest.mark.parametrize("name", ["cnn-mnist", "adv-linf-mnist"])
def test_trained_networks_pass(name):
    diagnosis = zoo_diagnosis(name, 30)
    assert diagnosis.named("fail") == ()
    assert check(diagnosis, "unbounded attack").evidence["still right"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("steps", [5, 50])
def test_abs_passes(steps):
    digits = zoo.load_data("mnist-embedded", "test", limit=10)
    diagnosis = diagnose(zoo.load("abs-mnist", steps=steps), digits.images, digits.labels, epsilon=0.3, effort=EFFORTS[-1])
    assert diagnosis.named("fail") == ()
    assert check(diagnosis, "dynamic forward").evidence["gradients within a forward"] == steps
