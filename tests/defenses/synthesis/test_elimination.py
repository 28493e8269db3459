"""The fast path against the exact one: who stays makes the same steps, who is out keeps what it had."""

import pytest
import torch

from gencls.core import GenclsError, keyed
from gencls.defenses import ABS, EABS, AnalysisBySynthesis, GaussianKL
from gencls.defenses.synthesis.elimination import Contest, Elimination
from gencls.defenses.synthesis.posterior import variables
from gencls.defenses.synthesis.starts import RandomStarts
from gencls.perceptual import SquaredL2
from tests.toys import LinearGaussian, SigmoidDecoders

ALL_STAY = Elimination(((1, 1e9),))
ROUNDS = Elimination(((1, 0.5), (3, 0.1)))


def linear(elimination, *, steps=6, variational=False, **settings):
    """Float64, 5 classes whose losses differ by factors, from starts that are far from the minima."""
    generator = LinearGaussian(num_classes=5, image_shape=(1, 3, 4), latent_size=4, scale=0.5)
    regularizer = GaussianKL()
    return AnalysisBySynthesis(
        generator,
        start=RandomStarts(generator, regularizer, 0.7, count=8, seed=3),
        distance=SquaredL2(),
        regularizer=regularizer,
        weight=0.7,
        steps=steps,
        lr=0.03,
        variational=variational,
        start_std=0.1,
        elimination=elimination,
        **settings,
    ).eval()


@pytest.fixture
def images():
    return torch.rand(6, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def inferred(defense, images):
    with keyed(range(len(images))):
        return variables(defense.infer(images))


def left(defense, images, steps):
    """(N, K) bool: who moves in the given number of steps' last one."""
    longer, shorter = (
        inferred(linear(defense.elimination, steps=count, variational=defense.variational), images)
        for count in (steps, steps - 1)
    )
    return (longer[0] != shorter[0]).any(dim=2)


@pytest.mark.parametrize("variational", [False, True])
def test_where_all_stay_the_fast_path_is_the_exact_one(images, variational):
    # Decoding pair by pair rounds differently from decoding all.
    fast, exact = (inferred(linear(rule, variational=variational), images) for rule in (ALL_STAY, None))
    for found, expected in zip(fast, exact, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("variational", [False, True])
def test_who_stays_makes_the_same_steps_and_who_is_out_keeps_its_latents(images, variational):
    rules = {steps: inferred(linear(None, steps=steps, variational=variational), images) for steps in (0, 2, 6)}
    fast = linear(ROUNDS, variational=variational)
    found = inferred(fast, images)
    first, second = left(fast, images, 1), left(fast, images, 6)
    assert int((~first).sum()) > 0
    assert int((first & ~second).sum()) > 0
    assert bool(second.any(dim=1).all())
    for level, q in enumerate(found):
        for mask, steps in ((~first, 0), (first & ~second, 2), (second, 6)):
            torch.testing.assert_close(q[mask], rules[steps][level][mask], rtol=0, atol=1e-12)


def test_scores_of_those_who_are_out_are_bounds_and_the_decision_is_kept(images):
    fast, exact = linear(ROUNDS)(images), linear(None)(images)
    assert bool((fast <= exact + 1e-12).all())  # scores are minus losses, which only fall
    assert torch.equal(fast.argmax(1), exact.argmax(1))
    assert bool((fast < exact - 1e-3).any())


def test_the_rule(images):
    rule = Elimination(((1, 1.0), (3, 0.25)))
    contest = Contest(rule, (torch.arange(6.0).view(2, 3),))
    losses = torch.tensor([[1.0, 2.5, 1.9], [-2.0, 0.5, -1.0]])
    assert contest.keep(1, losses).tolist() == [[True, False, True], [True, False, True]]
    assert [part.tolist() for part in contest.pairs] == [[0, 1, 0, 1], [0, 0, 2, 2]]  # class by class
    assert contest.target[0].tolist() == [0.0, 3.0, 2.0, 5.0]
    present = torch.tensor([9.0, 8.0, 7.0, 6.0])
    assert contest.losses(present).tolist() == [[9.0, 2.5, 7.0], [8.0, 0.5, 6.0]]
    # An unlucky sample of the best class does not count: the lowest losses so far do.
    assert contest.keep(2, torch.tensor([[1.8, 2.5, 1.2], [5.0, 0.5, -1.0]])).tolist() == [[True, False, True]] * 2
    assert contest.keep(3, torch.tensor([[1.8, 2.5, 1.3], [5.0, 0.5, -1.0]])).tolist() == [
        [True, False, True],
        [True, False, False],
    ]


def test_nan_sends_nobody_out():
    contest = Contest(Elimination(((1, 0.0),)), (torch.zeros(1, 2),))
    assert contest.keep(1, torch.tensor([[torch.nan, 1.0]])).tolist() == [[True, True]]


@pytest.mark.parametrize("variational", [False, True])
def test_chunks_and_batches_change_nothing(images, variational):
    roomy, tight = (linear(ROUNDS, variational=variational, memory_budget=budget) for budget in (2**30, 1))
    with keyed(range(6)):
        expected = roomy(images)
    with keyed(range(6)):
        torch.testing.assert_close(tight(images), expected, rtol=0, atol=1e-12)
    for i in range(6):
        with keyed([i]):
            torch.testing.assert_close(roomy(images[i : i + 1])[0], expected[i], rtol=0, atol=1e-12)


def test_exact_variational_inference_does_not_depend_on_chunks(images):
    roomy, tight = (linear(None, variational=True, memory_budget=budget, samples=3) for budget in (2**30, 1))
    with keyed(range(6)):
        expected = roomy(images)
    with keyed(range(6)):
        torch.testing.assert_close(tight(images), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("variational", [False, True])
def test_unrolled_gradient_agrees_with_finite_differences(images, variational):
    defense, x = linear(ROUNDS, steps=4, variational=variational), images[:2]
    assert not bool(left(defense, x, 4).all())
    weights = torch.linspace(-1, 1, 5, dtype=torch.float64)

    def value(images, module=defense):
        with keyed(range(2)):
            return (module(images) * weights).sum()

    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(value(leaf, defense.surrogate("unrolled")), leaf)
    step, expected = 1e-6, torch.empty_like(found).flatten()
    for i in range(expected.numel()):
        moved = torch.zeros_like(expected)
        moved[i] = step
        expected[i] = (value(x + moved.view_as(x)) - value(x - moved.view_as(x))) / (2 * step)
    torch.testing.assert_close(found.flatten(), expected, rtol=1e-6, atol=1e-7)


def test_frozen_gradient_is_minus_twice_the_residual(images):
    defense = linear(ROUNDS)
    leaf = images.clone().requires_grad_()
    q = defense.infer(images)
    (found,) = torch.autograd.grad(defense(leaf)[:, 2].sum(), leaf)
    torch.testing.assert_close(found, -2 * (images - defense.reconstruct(images, q)[:, 2]), rtol=0, atol=1e-12)


def test_named_constructors_switch_it_on():
    generator = SigmoidDecoders()
    for make in (ABS, EABS):
        assert make(generator, starts=4).elimination is None
        fast = make(generator, starts=4, fast=True)
        assert fast.elimination == Elimination()
        assert "elimination" in fast.extra_repr()


def test_classifies_what_a_class_generates():
    generator = SigmoidDecoders()
    labels = torch.arange(4).repeat(10)
    images = generator(generator.sample_latents(40), labels).detach()
    exact, fast = (ABS(generator, starts=100, steps=50, fast=fast).eval()(images).argmax(1) for fast in (False, True))
    assert (fast == exact).double().mean() >= 0.97
    assert (fast == labels).double().mean() > 0.95


@pytest.mark.parametrize("rounds", [(), ((0, 1.0),), ((1, -0.1),)])
def test_bad_rounds(rounds):
    with pytest.raises(GenclsError, match="expected rounds of a step >= 1 and a margin >= 0, got"):
        Elimination(rounds)
