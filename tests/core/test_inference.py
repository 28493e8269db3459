import pytest
import torch

from gencls.core import GenclsError, minimize


def quadratic(center, curvature):
    """sum_i c_i (z_i - m_i)^2 / 2 for each problem."""
    return lambda latents: (0.5 * curvature * (latents[0] - center).square()).flatten(2).sum(2)


def problems(count=3, classes=2, size=4):
    source = torch.Generator().manual_seed(0)
    center, start = torch.randn(2, count, classes, size, generator=source, dtype=torch.float64)
    curvature = 0.5 + torch.rand(count, classes, size, generator=source, dtype=torch.float64)
    return center, curvature, start


def rosenbrock(latents):
    x, y = latents
    return (1 - x).square().sum(2) + 10 * (y - x.square()).square().sum(2)


@pytest.mark.parametrize("settings", [{}, {"betas": (0.5, 0.9), "eps": 1e-3}])
@pytest.mark.parametrize("steps", [0, 1, 2, 10, 40])
def test_adam_is_torchs_adam(steps, settings):
    start = tuple(torch.randn(3, 2, 4, dtype=torch.float64) for _ in range(2))
    variables = [level.clone().requires_grad_() for level in start]
    adam = torch.optim.Adam(variables, lr=0.05, **settings)
    for _ in range(steps):
        adam.zero_grad()
        rosenbrock(variables).sum().backward()
        adam.step()
    found = minimize(rosenbrock, start, steps=steps, lr=0.05, **settings)
    for level, expected in zip(found, variables, strict=True):
        torch.testing.assert_close(level, expected.detach(), rtol=1e-10, atol=1e-10)


def waves(step, steps):
    """A schedule with a zero in it."""
    return (step % 4) * step / steps


def test_a_schedule_is_that_of_torch():
    start = tuple(torch.randn(3, 2, 4, dtype=torch.float64) for _ in range(2))
    variables = [level.clone().requires_grad_() for level in start]
    adam = torch.optim.Adam(variables, lr=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda done: waves(done + 1, 12))
    for _ in range(12):
        adam.zero_grad()
        rosenbrock(variables).sum().backward()
        adam.step()
        schedule.step()
    found = minimize(rosenbrock, start, steps=12, lr=0.05, rate=waves)
    for level, expected in zip(found, variables, strict=True):
        torch.testing.assert_close(level, expected.detach(), rtol=1e-10, atol=1e-10)


def test_gradient_descent_with_a_schedule_has_a_closed_form():
    # z_T - m = prod_t (1 - lr r_t c) (z_0 - m)
    center, curvature, start = problems()
    found = minimize(quadratic(center, curvature), (start,), steps=7, lr=0.3, optimizer="gradient", rate=waves)[0]
    factors = [1 - 0.3 * waves(step, 7) * curvature for step in range(1, 8)]
    torch.testing.assert_close(found, center + torch.stack(factors).prod(0) * (start - center))


@pytest.mark.parametrize("factor", [-0.1, float("nan"), float("inf")])
def test_a_schedule_that_gives_no_step_size_is_refused(factor):
    center, curvature, start = problems()
    with pytest.raises(GenclsError, match=rf"expected a rate with finite factors >= 0, got {factor} in step 2 of 3"):
        minimize(quadratic(center, curvature), (start,), steps=3, lr=0.1, rate=lambda step, steps: (1.0, factor, 1.0)[step - 1])


@pytest.mark.parametrize("optimizer", ["adam", "gradient"])
def test_problems_of_a_batch_do_not_mix(optimizer):
    center, curvature, start = problems()
    together = minimize(quadratic(center, curvature), (start,), steps=20, lr=0.1, optimizer=optimizer)[0]
    for i in range(3):
        one = slice(i, i + 1)
        alone = minimize(quadratic(center[one], curvature[one]), (start[one],), steps=20, lr=0.1, optimizer=optimizer)[0]
        torch.testing.assert_close(alone, together[one], rtol=0, atol=1e-14)


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_gradient_descent_on_a_quadratic(steps):
    # z_t - m = (1 - lr c)^t (z_0 - m)
    center, curvature, start = problems()
    found = minimize(quadratic(center, curvature), (start,), steps=steps, lr=0.3, optimizer="gradient")[0]
    torch.testing.assert_close(found, center + (1 - 0.3 * curvature) ** steps * (start - center))


def test_unrolled_gradient_has_its_closed_form():
    # dz_t / dm = 1 - (1 - lr c)^t
    center, curvature, start = problems()
    center.requires_grad_()
    found = minimize(quadratic(center, curvature), (start,), steps=5, lr=0.3, optimizer="gradient", unroll=True)[0]
    (gradient,) = torch.autograd.grad(found.sum(), center)
    torch.testing.assert_close(gradient, 1 - (1 - 0.3 * curvature) ** 5)


@pytest.mark.parametrize("optimizer", ["adam", "gradient"])
@pytest.mark.parametrize(("steps", "rate"), [(1, None), (2, None), (6, None), (6, waves)])
def test_unrolled_gradient_agrees_with_finite_differences(optimizer, steps, rate):
    center, curvature, start = problems(2, 1, 3)

    def last(m):
        def objective(latents):
            return (latents[0] - m).pow(4).flatten(2).sum(2) + quadratic(m, curvature)(latents)

        return minimize(objective, (start,), steps=steps, lr=0.05, optimizer=optimizer, rate=rate, unroll=True)[0]

    assert torch.autograd.gradcheck(last, (center.requires_grad_(),), eps=1e-7, atol=1e-5)


def test_unrolled_gradient_reaches_the_start():
    center, curvature, start = problems()
    start.requires_grad_()
    found = minimize(quadratic(center, curvature), (start,), steps=4, lr=0.3, optimizer="gradient", unroll=True)[0]
    torch.testing.assert_close(torch.autograd.grad(found.sum(), start)[0], (1 - 0.3 * curvature) ** 4)


def test_unrolled_adam_is_finite_where_the_gradient_is_zero():
    center, curvature, start = problems()
    center.requires_grad_()
    found = minimize(quadratic(center, curvature), (center.detach(),), steps=3, lr=0.1, unroll=True)[0]
    assert torch.isfinite(torch.autograd.grad(found.sum(), center)[0]).all()
    assert torch.isfinite(found).all()


def test_unrolling_does_not_change_the_value():
    center, curvature, start = problems()
    plain = minimize(quadratic(center, curvature), (start,), steps=9, lr=0.1)[0]
    unrolled = minimize(quadratic(center, curvature), (start,), steps=9, lr=0.1, unroll=True)[0]
    assert torch.equal(plain, unrolled.detach())
    assert not plain.requires_grad


@pytest.mark.parametrize("steps", [0, 3])
def test_the_start_is_left_alone(steps):
    center, curvature, start = problems()
    before = start.clone()
    found = minimize(quadratic(center, curvature), (start,), steps=steps, lr=0.1)[0]
    found.add_(1.0)
    assert torch.equal(start, before)
    assert not start.requires_grad


def test_projection_after_every_step():
    center, curvature, start = problems()
    seen = []

    def project(latents):
        seen.append(latents[0].detach().clone())
        return tuple(level.clamp(-0.1, 0.1) for level in latents)

    objective = quadratic(10 + 0 * center, curvature)
    (found,) = minimize(objective, (start,), steps=6, lr=0.01, optimizer="gradient", project=project)
    assert len(seen) == 6
    assert found.abs().max() <= 0.1
    inside = start  # the iteration by hand
    for _ in range(6):
        inside = (inside - 0.01 * curvature * (inside - 10)).clamp(-0.1, 0.1)
    torch.testing.assert_close(found, inside)


def test_direction_replaces_the_gradients():
    # Descent by signs on a quadratic: each number goes to its centre by steps of lr, and then about it.
    center, curvature, start = problems()
    signs = {"steps": 400, "lr": 0.01, "optimizer": "gradient", "direction": lambda gradients: (gradients[0].sign(),)}
    (found,) = minimize(quadratic(center, curvature), (start,), **signs)
    assert (found - center).abs().max() <= 0.01
    (first,) = minimize(quadratic(center, curvature), (start,), **{**signs, "steps": 1})
    torch.testing.assert_close(first, start - 0.01 * (start - center).sign())


def test_unrolled_gradient_goes_through_the_direction():
    # z_1 = z_0 - lr (c (z_0 - m))^3, so dz_1 / dm = 3 lr c^3 (z_0 - m)^2
    center, curvature, start = problems()
    center.requires_grad_()
    cubes = {"lr": 0.3, "optimizer": "gradient", "direction": lambda gradients: (gradients[0] ** 3,), "unroll": True}
    (found,) = minimize(quadratic(center, curvature), (start,), steps=1, **cubes)
    expected = 0.9 * curvature**3 * (start - center.detach()).square()
    torch.testing.assert_close(torch.autograd.grad(found.sum(), center)[0], expected)


def test_without_a_step_the_projection_is_not_applied():
    center, curvature, start = problems()
    found = minimize(quadratic(center, curvature), (start,), steps=0, lr=0.1, project=lambda z: (0 * z[0],))[0]
    assert torch.equal(found, start)


@pytest.mark.parametrize(("steps", "lr"), [(-1, 0.1), (1, 0.0), (1, -0.1)])
def test_bad_settings(steps, lr):
    center, curvature, start = problems()
    with pytest.raises(GenclsError, match=f"expected steps >= 0 and lr > 0, got steps={steps}, lr={lr}"):
        minimize(quadratic(center, curvature), (start,), steps=steps, lr=lr)


def test_unknown_optimizer():
    center, curvature, start = problems()
    with pytest.raises(GenclsError, match="expected optimizer to be one of 'adam', 'gradient', got 'lbfgs'"):
        minimize(quadratic(center, curvature), (start,), steps=1, lr=0.1, optimizer="lbfgs")


def test_problems_that_do_not_go_on_stay_and_leave_the_others_alone():
    center, curvature, start = problems()
    objective = quadratic(center, curvature)
    whole = [minimize(objective, (start,), steps=steps, lr=0.1)[0] for steps in range(6)]
    leaves = torch.tensor([[9, 2], [4, 9], [1, 3]])  # the step whose values send a problem out
    seen = []

    def keep(step, values):
        seen.append((step, values))
        return None if step == 1 and not bool((leaves == 1).any()) else leaves > step

    (found,) = minimize(objective, (start,), steps=5, lr=0.1, keep=keep)
    for index, step in [((i, j), int(leaves[i, j])) for i in range(3) for j in range(2)]:
        torch.testing.assert_close(found[index], whole[min(step - 1, 5)][index], rtol=0, atol=0)
    assert [step for step, _ in seen] == [1, 2, 3, 4, 5]
    torch.testing.assert_close(seen[0][1], objective((start,)))
    assert not seen[0][1].requires_grad


def test_where_nothing_is_said_all_go_on():
    center, curvature, start = problems()
    objective = quadratic(center, curvature)
    found = minimize(objective, (start,), steps=5, lr=0.1, keep=lambda step, values: None)[0]
    assert torch.equal(found, minimize(objective, (start,), steps=5, lr=0.1)[0])


@pytest.mark.parametrize("optimizer", ["adam", "gradient"])
def test_unrolled_gradient_of_a_descent_that_some_leave_agrees_with_finite_differences(optimizer):
    center, curvature, start = problems(2, 2, 3)
    stay = torch.tensor([[True, False], [False, True]])

    def last(m):
        def objective(latents):
            return (latents[0] - m).pow(4).flatten(2).sum(2) + quadratic(m, curvature)(latents)

        def keep(step, values):
            return None if step < 3 else stay

        return minimize(objective, (start,), steps=4, lr=0.05, optimizer=optimizer, unroll=True, keep=keep)[0]

    assert torch.autograd.gradcheck(last, (center.requires_grad_(),), eps=1e-7, atol=1e-5)
