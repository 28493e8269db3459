import copy

import pytest
import torch

import gencls.defenses
from gencls.core import BayesClassifier, Defense, draws, forward_draws, keyed, seeded
from tests.contracts.defenses import CLASSES, DEFENSES, SHAPE
from tests.contracts.tables import check_rows, public_classes
from tests.toys import scores_under_lightning

TOLERANCE = 1e-5  # matrix products round differently for different batch sizes; scores are of size 1 to 50


@pytest.fixture(params=DEFENSES)
def defense(request):
    return DEFENSES[request.param](seed=0).eval()


@pytest.fixture
def images():
    return torch.rand(7, *SHAPE, generator=torch.Generator().manual_seed(3))


def scores(defense, images):
    """Sample i always meets the noise of stream i."""
    with keyed(range(100, 100 + len(images))):
        return defense(images)


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", public_classes(gencls.defenses, Defense))
def test_every_defense_is_in_the_table(name):
    check_rows([name], DEFENSES, where="DEFENSES in tests/contracts/defenses.py", row='"{name}": lambda seed: {name}(...)')


def test_shape_dtype_and_finite_scores(defense, images):
    assert isinstance(defense, Defense)
    for batch in (images, images[:1], torch.zeros(1, *SHAPE), torch.ones(2, *SHAPE)):
        found = defense(batch)
        assert found.shape == (len(batch), CLASSES) == (len(batch), defense.num_classes)
        assert found.dtype == torch.float32
        assert torch.isfinite(found).all()


def test_the_input_is_left_alone(defense, images):
    before = images.clone()
    defense(images)
    assert torch.equal(images, before)
    assert not images.requires_grad


def test_samples_do_not_depend_on_their_batch(defense, images):
    together = scores(defense, images)
    for i in range(len(images)):
        with keyed([100 + i]):
            assert_close(defense(images[i : i + 1])[0], together[i])


def test_several_draws_of_an_image_are_those_of_a_repeated_image(defense, images):
    for module in defense.surrogates().values():
        with keyed(range(7)), draws(range(3)):
            expected = module(images.repeat_interleave(3, dim=0))
        with keyed(range(7)), draws(range(3)):
            assert_close(forward_draws(module, images, 3), expected)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_works_without_gradients(defense, images, context):
    expected = scores(defense, images)
    with context():
        found = scores(defense, images)
        assert not found.requires_grad
        assert_close(found, expected.detach())


def test_works_under_lightnings_test(defense, images):
    found = scores_under_lightning(defense, images)
    assert found.shape == (7, CLASSES)
    if not defense.stochastic:
        assert_close(found, defense(images).detach())


def test_no_gradients_on_parameters_from_inference(defense, images):
    attacked = images.clone().requires_grad_()
    for module in defense.surrogates().values():
        torch.autograd.grad(module(attacked).sum(), attacked)
    assert all(parameter.grad is None for parameter in defense.parameters())


def test_the_global_random_state(defense, images):
    state = torch.get_rng_state()
    with seeded(1):
        defense(images)
    assert torch.equal(torch.get_rng_state(), state)
    defense(images)
    assert torch.equal(torch.get_rng_state(), state) is not defense.stochastic


@pytest.mark.parametrize("name", DEFENSES)
def test_construction_leaves_the_random_state(name):
    state = torch.get_rng_state()
    DEFENSES[name](seed=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_state_dict_round_trip(request, defense, images):
    expected = scores(defense, images)
    other = DEFENSES[request.node.callspec.params["defense"]](seed=1).eval()
    assert not torch.allclose(scores(other, images), expected)
    other.load_state_dict(defense.state_dict())
    assert torch.equal(scores(other, images), expected)


def test_a_copy_is_the_same_defense(defense, images):
    assert torch.equal(scores(copy.deepcopy(defense), images), scores(defense, images))


def test_stochastic_is_true_to_two_forwards(defense, images):
    assert torch.equal(defense(images), defense(images)) is not defense.stochastic


def test_surrogate_gradients_are_finite_and_not_zero(defense, images):
    for module in defense.surrogates().values():
        attacked = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(module(attacked)[:, 0].sum(), attacked)
        assert torch.isfinite(gradient).all()
        assert (gradient.flatten(1).norm(dim=1) > 0).all()


def test_frozen_and_unrolled_are_two_gradients(request, defense, images):
    modes, gradients = defense.surrogates(), []
    if not {"frozen", "unrolled"} <= modes.keys():
        pytest.skip("has not both")
    for mode in ("frozen", "unrolled"):
        attacked = images.clone().requires_grad_()
        gradients += torch.autograd.grad(scores(modes[mode], attacked)[:, 0].sum(), attacked)
    name = request.node.callspec.params["defense"]
    assert not torch.equal(*gradients), (
        f"{name}: frozen and unrolled are one gradient; return {{EXACT.name: self}} in surrogates()"
    )


def test_surrogate_values_are_those_of_the_defense(defense, images):
    expected = scores(defense, images)
    for module in defense.surrogates().values():
        assert_close(scores(module, images), expected)
        assert_close(scores(module, images.clone().requires_grad_()), expected)


def test_exact_gradients_agree_with_finite_differences(defense, images):
    """Along a random direction, in float64.

    "frozen" treats what was inferred as constant and is exact only at an optimum; "bpda" stands for a gradient that is zero.
    """
    defense = defense.double()
    x = images.double()
    direction = torch.randn_like(x)
    weights = torch.linspace(-1, 2, CLASSES, dtype=torch.float64)
    step = 1e-6
    for mode, module in defense.surrogates().items():
        if "frozen" in mode or "bpda" in mode:
            continue
        attacked = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((scores(module, attacked) * weights).sum(), attacked)
        found = (gradient * direction).flatten(1).sum(1)
        up, down = (scores(defense, x + sign * step * direction).detach() for sign in (1, -1))
        expected = ((up - down) * weights).sum(1) / (2 * step)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_forward_of_a_bayes_classifier_is_not_overridden(defense):
    if isinstance(defense, BayesClassifier):
        assert type(defense).forward is BayesClassifier.forward


def test_double_precision(defense, images):
    expected = scores(defense, images)
    double = scores(defense.double(), images.double())
    assert double.dtype == torch.float64
    if not defense.stochastic:  # the streams of both precisions differ
        torch.testing.assert_close(double.float(), expected, rtol=1e-3, atol=1e-3)
