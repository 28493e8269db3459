"""The geometry of Lp balls against definitions, bisection and search."""

from itertools import combinations

import pytest
import torch

from gencls.core import GenclsError, keyed
from gencls.core.balls import BALLS, L0Ball, L1Ball, L2Ball, ball_of

RADII = {"linf": 0.1, "l2": 0.7, "l1": 1.5, "l0": 4}
POWERS = {"linf": torch.inf, "l2": 2, "l1": 1, "l0": 0}

every_ball = pytest.mark.parametrize("ball", BALLS.values(), ids=BALLS)
convex = pytest.mark.parametrize("ball", [BALLS[key] for key in ("linf", "l2", "l1")], ids=["linf", "l2", "l1"])


def pictures(count=8, shape=(2, 3, 3), dtype=torch.float64):
    """Random images, a third of whose values are 0 or 1."""
    images = torch.rand(count, *shape, dtype=dtype)
    return torch.where(torch.rand_like(images) < 0.3, images.round(), images)


@every_ball
def test_lengths_are_those_of_the_norm(ball):
    change = torch.randn(5, 2, 3, 3, dtype=torch.float64) * (torch.rand(5, 2, 3, 3) < 0.5)
    expected = torch.linalg.vector_norm(change.flatten(1), ord=POWERS[ball.key], dim=1)
    torch.testing.assert_close(ball.length(change), expected)
    torch.testing.assert_close(ball.distance(change), expected)
    widest = ball.length(torch.ones(1, 2, 3, 3)).item()
    assert ball.largest(18) == pytest.approx(widest)


@every_ball
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_what_is_confined_lies_in_the_ball_and_stays_there(ball, dtype):
    clean, radius = pictures(dtype=dtype), RADII[ball.key]
    found = ball.confine(clean + torch.randn_like(clean), clean, radius)
    assert found.dtype == dtype
    assert found.min() >= 0
    assert found.max() <= 1
    assert (ball.length((found - clean).double()) <= radius + 1e-6).all()
    again = ball.confine(found.clone(), clean, radius)
    torch.testing.assert_close(again, found, rtol=0, atol=1e-6)


def nearest_in_l1(clean, change, radius):
    """The projection by bisection over the threshold, image by image."""
    found = []
    for x, c in zip(clean.flatten(1), change.flatten(1), strict=True):
        room = torch.where(c > 0, 1 - x, x)
        kept = lambda t, c=c, room=room: torch.minimum((c.abs() - t).clamp_min(0), room)  # noqa: E731
        low, high = 0.0, float(c.abs().max())
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if kept(middle).sum() > radius else (low, middle)
        found.append(x + c.sign() * (kept(0.0) if kept(0.0).sum() <= radius else kept(high)))
    return torch.stack(found).view_as(clean)


@pytest.mark.parametrize("radius", [0.01, 0.5, 3.0, 100.0])
@pytest.mark.parametrize("scale", [0.05, 1.0, 30.0])
def test_the_projection_in_l1_is_that_of_a_bisection(radius, scale):
    clean = pictures(20)
    change = scale * torch.randn_like(clean)
    change[0, 0, 0] = change[0, 0, 1] = scale  # ties
    change[1] = 0.0
    torch.testing.assert_close(L1Ball().within(clean, change, radius), nearest_in_l1(clean, change, radius), rtol=0, atol=1e-12)


def test_the_projection_in_l1_solves_its_problem():
    """By a solver that knows nothing of thresholds."""
    from scipy.optimize import minimize

    clean, radius = pictures(3, (1, 2, 3)), 0.8
    change = torch.randn_like(clean)
    found = L1Ball().within(clean, change, radius)
    signs = torch.cat([torch.eye(6), -torch.eye(6)], dim=1).double().numpy()
    for x, c, z in zip(clean.flatten(1), change.flatten(1), found.flatten(1), strict=True):
        goal = x + c  # the change as a difference of two parts >= 0, which makes the norm a sum
        solved = minimize(
            lambda parts, x=x, goal=goal: float(((x.numpy() + signs @ parts - goal.numpy()) ** 2).sum()),
            [0.01] * 12,
            bounds=[(0, float(room)) for room in torch.cat([1 - x, x])],
            constraints={"type": "ineq", "fun": lambda parts: radius - parts.sum()},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert ((z - goal).square().sum().item()) <= solved.fun + 1e-7


def test_the_projection_in_l1_of_each_radius():
    clean = pictures(4)
    change, radii = torch.randn_like(clean), torch.tensor([0.1, 1.0, 2.0, 50.0], dtype=torch.float64)
    alone = torch.cat([L1Ball().within(clean[i : i + 1], change[i : i + 1], float(radii[i])) for i in range(4)])
    torch.testing.assert_close(L1Ball().within(clean, change, radii), alone)


def test_the_projection_in_l0_is_the_best_of_all_choices():
    clean = pictures(5, (1, 2, 3))
    images = clean + torch.randn_like(clean)
    found = L0Ball().confine(images, clean, 2.7)
    for x, y, z in zip(clean.flatten(1), images.flatten(1), found.flatten(1), strict=True):
        choices = []
        for kept in combinations(range(6), 2):
            point = x.clone()
            point[list(kept)] = y[list(kept)].clamp(0, 1)
            choices.append((point - y).square().sum())
        assert (z - y).square().sum() == pytest.approx(float(min(choices)))


@convex
def test_no_change_of_a_size_raises_a_linear_function_more_than_the_step(ball):
    clean, gradient = torch.full((4, 2, 3, 3), 0.5).double(), torch.randn(4, 2, 3, 3).double()
    step = ball.step(gradient, 0.3, clean)
    torch.testing.assert_close(ball.length(step), torch.full((4,), 0.3).double())
    gain = (gradient * step).flatten(1).sum(1)
    torch.testing.assert_close(gain, 0.3 * ball.dual(gradient))
    for _ in range(200):
        other = torch.randn_like(gradient)
        other = other * (0.3 / ball.length(other)).view(-1, 1, 1, 1)
        assert ((gradient * other).flatten(1).sum(1) <= gain + 1e-9).all()


def test_a_step_in_l1_goes_on_where_an_entry_ends():
    clean, gradient = torch.tensor([0.9, 0.5, 1.0, 0.0]).view(1, 1, 2, 2), torch.tensor([4.0, -2.0, 9.0, -3.0]).view(1, 1, 2, 2)
    step = L1Ball().step(gradient, torch.tensor([0.4]), clean)
    torch.testing.assert_close(step.flatten(), torch.tensor([0.1, -0.3, 0.0, 0.0]))


@every_ball
def test_no_gradient_no_step(ball):
    assert (ball.step(torch.zeros(2, 1, 3, 3), 0.5, torch.rand(2, 1, 3, 3)) == 0).all()


@every_ball
def test_random_starts_lie_in_the_ball_and_differ(ball):
    clean, radius = pictures(50, dtype=torch.float32), RADII[ball.key]
    with keyed(range(50)):
        found = ball.start(clean, radius)
    assert found.min() >= 0
    assert found.max() <= 1
    lengths = ball.length((found - clean).double())
    assert (lengths <= radius + 1e-6).all()
    assert lengths.mean() > 0.3 * radius
    with keyed(range(10)):
        assert torch.equal(ball.start(clean[:10], radius), found[:10])  # each image by itself


def test_samples_in_l1_are_uniform():
    """The share of a d-dimensional ball within radius r is r^d; no entry is preferred."""
    change = L1Ball().sample(torch.zeros(20_000, 1, 1, 3), 2.0)
    lengths = L1Ball().length(change)
    assert (lengths < 2.0 * 0.5).double().mean() == pytest.approx(0.5**3, abs=0.01)
    torch.testing.assert_close(change.abs().mean((0, 1, 2)), change.abs().mean().expand(3), rtol=0.03, atol=0)
    assert change.mean().abs() < 0.01


@every_ball
def test_a_crossing_reaches_the_boundary_and_no_farther_than_need_be(ball):
    images, gradient = pictures(30), torch.randn(30, 2, 3, 3).double()
    gap = -0.3 * torch.rand(30).double()
    distance, step = ball.cross(gap, gradient, images, torch.zeros(30).double())
    moved = images + step if ball.key in ("linf", "l2") else (images + step).clamp(0, 1)
    assert (gap + (gradient * (moved - images)).flatten(1).sum(1) >= 0)[distance.isfinite()].all()
    torch.testing.assert_close(ball.length(step)[distance.isfinite()], distance[distance.isfinite()], rtol=1e-2, atol=2e-4)


def test_a_boundary_beyond_the_range_is_not_reached():
    images, gradient = torch.tensor([0.9, 0.9]).view(1, 1, 1, 2), torch.tensor([1.0, 0.5]).view(1, 1, 1, 2)
    for ball in (L1Ball(), L0Ball()):
        distance, step = ball.cross(torch.tensor([-0.2]), gradient, images, torch.zeros(1))
        assert distance.isinf().all()
        assert (step == 0).all()


@pytest.mark.parametrize("key", ["linf", "l2", "l1"])
def test_between_has_a_share_of_the_size(key):
    clean, far = pictures(6), pictures(6)
    share = torch.tensor([0.0, 0.2, 0.5, 0.7, 0.9, 1.0]).double()
    found = BALLS[key].between(clean, far, share)
    torch.testing.assert_close(BALLS[key].length(found - clean), share * BALLS[key].length(far - clean))


def test_between_in_l0_keeps_the_largest_changes():
    clean, far = torch.zeros(1, 1, 1, 4), torch.tensor([0.1, 0.9, 0.0, 0.4]).view(1, 1, 1, 4)
    assert L0Ball().between(clean, far, torch.tensor([0.5])).flatten().tolist() == pytest.approx([0.0, 0.9, 0.0, 0.4])


@pytest.mark.parametrize("key", ["l2", "l1", "l0"])
def test_few_entries_turn(key):
    ball, far = BALLS[key], torch.rand(10, 1, 4, 4).double()
    near, radius = far * (torch.rand_like(far) < 0.3), ball.length(far).min().item() * 0.7
    turned = ball.turned(far, near, far - near, radius)
    found = torch.where(turned, near, far)
    fits = ball.length(near) <= radius
    assert fits.any()
    assert (ball.length(found)[fits] <= radius + 1e-9).all()


def test_gradients_whose_squares_vanish():
    gradient = torch.full((1, 1, 2, 2), 1e-30)
    torch.testing.assert_close(L2Ball().direction(gradient), torch.full((1, 1, 2, 2), 0.5))
    assert (L2Ball(scaled=False).direction(gradient) < 0.5).all()


def test_unknown_norms():
    with pytest.raises(GenclsError, match=r"Training: did you mean 'linf'\? expected norm to be one of 'linf', .*, got 'lnf'"):
        ball_of("lnf", owner="Training")
