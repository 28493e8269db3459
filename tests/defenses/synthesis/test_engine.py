import copy

import pytest
import torch

from gencls.core import GenclsError, seeded
from gencls.defenses import ABS, AnalysisBySynthesis, Ball, GaussianKL, RandomStarts
from gencls.perceptual import SquaredL2
from tests.toys import LinearGaussian, SigmoidDecoders, scores_under_lightning

WEIGHT = 0.7  # lambda
LR = 0.1


class Zeros(torch.nn.Module):
    """Starts every descent at 0."""

    def __init__(self, generator):
        super().__init__()
        self.shape = (generator.num_classes, *generator.latent_shapes[0])

    def forward(self, images):
        return (images.new_zeros(len(images), *self.shape),)


def engine(generator, *, steps, optimizer="gradient", lr=LR, **settings):
    return AnalysisBySynthesis(
        generator,
        start=Zeros(generator),
        distance=SquaredL2(),
        regularizer=GaussianKL(),
        weight=WEIGHT,
        steps=steps,
        lr=lr,
        optimizer=optimizer,
        **settings,
    ).eval()


@pytest.fixture
def images():
    return torch.rand(5, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def residuals(generator, images):
    return images.flatten(1).unsqueeze(1) - generator.offset  # r = x - b: (N, K, P)


def loss(generator, images, latents):
    """||x - A z - b||^2 + lambda ||z||^2 / 2, (N, K)."""
    reconstruction = torch.einsum("kpd,nkd->nkp", generator.matrix, latents)
    return (residuals(generator, images) - reconstruction).square().sum(2) + 0.5 * WEIGHT * latents.square().sum(2)


def hessian(generator):
    identity = torch.eye(generator.matrix.shape[2], dtype=torch.float64)
    return 2 * generator.matrix.mT @ generator.matrix + WEIGHT * identity


def optimum(generator, images):
    """z* = (2 A^T A + lambda)^-1 2 A^T r, (N, K, d)."""
    right = 2 * torch.einsum("kpd,nkp->nkd", generator.matrix, residuals(generator, images))
    return torch.linalg.solve(hessian(generator), right.unsqueeze(3)).squeeze(3)


def iterate(generator, images, steps):
    """z_{t+1} = z_t - lr (H z_t - 2 A^T r) from z_0 = 0."""
    pull = 2 * torch.einsum("kpd,nkp->nkd", generator.matrix, residuals(generator, images))
    latents = torch.zeros_like(pull)
    for _ in range(steps):
        latents = latents - LR * (torch.einsum("kde,nke->nkd", hessian(generator), latents) - pull)
    return latents


def gradient(scores_of, images):
    """Of a weighted sum of all scores, (N, C, H, W)."""
    images = images.clone().requires_grad_()
    scores = scores_of(images)
    weights = torch.linspace(-1, 1, scores.shape[1], dtype=scores.dtype)
    return torch.autograd.grad((scores * weights).sum(), images)[0]


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize(("optimizer", "steps", "lr", "tolerance"), [("gradient", 200, LR, 1e-8), ("adam", 600, 0.02, 1e-4)])
def test_converged_scores_and_frozen_gradient_have_a_closed_form(generator, images, optimizer, steps, lr, tolerance):
    defense = engine(generator, steps=steps, optimizer=optimizer, lr=lr)
    best = optimum(generator, images)
    torch.testing.assert_close(defense(images), -loss(generator, images, best), rtol=0, atol=tolerance)
    torch.testing.assert_close(defense.infer(images)[0].mean, best, rtol=0, atol=tolerance)
    exact = gradient(lambda x: -loss(generator, x, optimum(generator, x)), images)
    assert error(gradient(defense.surrogate("frozen"), images), exact) < tolerance  # the envelope theorem


def test_frozen_gradient_at_the_optimum_is_the_residual(generator, images):
    # eq. 2.9: the gradient of the k-th score is -2 (x - G_k(z*))
    defense = engine(generator, steps=200)
    x = images.clone().requires_grad_()
    (found,) = torch.autograd.grad(defense(x)[:, 1].sum(), x)
    reconstruction = defense.reconstruct(images)[:, 1]
    torch.testing.assert_close(found, -2 * (images - reconstruction), rtol=0, atol=1e-10)


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 50])
def test_unrolled_gradient_is_exact_after_any_number_of_steps(generator, images, steps):
    defense = engine(generator, steps=steps)

    def known(x):
        return -loss(generator, x, iterate(generator, x, steps))

    torch.testing.assert_close(defense(images), known(images))
    assert error(gradient(defense.surrogate("unrolled"), images), gradient(known, images)) < 1e-10


def test_frozen_gradient_is_not_exact_before_convergence(generator, images):
    errors = {}
    for steps in (1, 5, 200):
        exact = gradient(lambda x, t=steps: -loss(generator, x, iterate(generator, x, t)), images)
        defense = engine(generator, steps=steps)
        frozen = error(gradient(defense.surrogate("frozen"), images), exact)
        unrolled = error(gradient(defense.surrogate("unrolled"), images), exact) if steps < 10 else 0.0
        errors[steps] = frozen
        assert unrolled < 1e-10
    assert errors[1] > 0.02
    assert errors[200] < 1e-6


@pytest.mark.parametrize("optimizer", ["gradient", "adam"])
def test_unrolled_gradient_agrees_with_finite_differences_of_the_defense(generator, images, optimizer):
    defense = engine(generator, steps=3, optimizer=optimizer, lr=0.05, project=Ball(0.12))
    x = images[:2]
    found = gradient(defense.surrogate("unrolled"), x).flatten()
    weights = torch.linspace(-1, 1, 3, dtype=torch.float64)
    step, expected = 1e-6, torch.empty_like(found)
    for i in range(found.numel()):
        moved = torch.zeros_like(found)
        moved[i] = step
        up, down = (defense(x + sign * moved.view_as(x)) for sign in (1, -1))
        expected[i] = ((up - down) * weights).sum() / (2 * step)
    assert error(found, expected) < 1e-6
    assert error(gradient(defense.surrogate("frozen"), x).flatten(), expected) > 1e-3


def test_random_starts_take_the_best_code(images):
    generator = LinearGaussian(num_classes=3, image_shape=(1, 3, 4), latent_size=4)
    start = RandomStarts(generator, GaussianKL(), WEIGHT, count=200, seed=4)
    (found,) = start(images)
    (codes,) = start.latents(start.codes)
    assert codes.dtype == torch.float64
    for n, image in enumerate(images):
        for k in range(3):
            reconstruction = generator((codes,), torch.full((200,), k))
            losses = (image - reconstruction).square().sum((1, 2, 3)) + 0.5 * WEIGHT * codes.square().sum(1)
            assert torch.equal(found[n, k], codes[losses.argmin()])


def test_the_penalty_counts_when_choosing_a_start(images, generator):
    heavy = RandomStarts(generator, GaussianKL(), 1e6, count=200, seed=4)
    shortest = heavy.codes[heavy.codes.square().sum(1).argmin()]
    assert torch.equal(heavy(images)[0], shortest.expand(5, 3, 4))


def test_scores_of_abs_have_the_papers_form(generator, images):
    # No step: the score is that of the best start, -(||x - G||^2 + beta ||z||^2 / 2).
    defense = ABS(generator, starts=50, steps=0, beta=WEIGHT, radius=None).eval()
    (latents,) = defense.start(images)
    torch.testing.assert_close(defense(images), -loss(generator, images, latents))


def test_descent_improves_on_the_start(generator, images):
    before, after = (ABS(generator, starts=50, steps=steps).eval()(images) for steps in (0, 50))
    assert (after > before).all()


@pytest.mark.parametrize("mode", ["frozen", "unrolled"])
def test_the_memory_budget_changes_nothing(generator, images, mode):
    roomy, tight = (ABS(generator, starts=50, steps=4, memory_budget=budget).eval() for budget in (2**30, 1))
    torch.testing.assert_close(tight(images), roomy(images), rtol=0, atol=1e-12)
    expected = gradient(roomy.surrogate(mode), images)
    torch.testing.assert_close(gradient(tight.surrogate(mode), images), expected, rtol=0, atol=1e-10)


def test_the_memory_budget_is_kept(generator, images):
    defense = ABS(generator, starts=50, steps=4, memory_budget=1).eval()
    defense.infer(images)  # measures the graph of a step on one image and on two
    seen = []
    decode_all = type(generator).decode_all
    generator.decode_all = lambda latents: (seen.append(len(latents[0])), decode_all(generator, latents))[1]
    defense.infer(images)
    assert set(seen) == {1}


def test_ball_keeps_signs_and_short_latents():
    latents = torch.tensor([[[3.0, -4.0], [0.3, -0.4], [0.0, 0.0]]])
    (projected,) = Ball(1.0)((latents,))
    torch.testing.assert_close(projected, torch.tensor([[[0.6, -0.8], [0.3, -0.4], [0.0, 0.0]]]))
    leaf = latents.clone().requires_grad_()
    assert torch.isfinite(torch.autograd.grad(Ball(1.0)((leaf,))[0].sum(), leaf)[0]).all()


def test_ball_works_per_image_class_and_level():
    levels = (5 * torch.randn(2, 3, 4), 5 * torch.randn(2, 3, 2, 5))
    for before, after in zip(levels, Ball(0.5)(levels), strict=True):
        norms = before.flatten(2).norm(dim=2).clamp_min(0.5)
        torch.testing.assert_close(after, 0.5 * before / norms.view(2, 3, *(1 for _ in before.shape[2:])))


def test_latents_stay_in_the_ball(generator, images):
    defense = ABS(generator, starts=50, steps=10, lr=1.0, radius=0.3).eval()
    assert defense.infer(images)[0].mean.norm(dim=2).max() <= 0.3 + 1e-12


def test_state_dict_round_trip_keeps_scores(digits):
    images = digits[0][:6]
    saved = ABS(SigmoidDecoders(seed=1), starts=32, steps=3, seed=1).eval()
    other = ABS(SigmoidDecoders(seed=2), starts=32, steps=3, seed=2).eval()
    expected = saved(images)
    assert not torch.allclose(other(images), expected)  # this also fills the cache of decoded codes, which must not survive
    other.load_state_dict(saved.state_dict())
    assert torch.equal(other(images), expected)
    assert torch.equal(copy.deepcopy(other)(images), expected)


def test_dtype_can_change_after_use(digits):
    defense = ABS(SigmoidDecoders(), starts=32, steps=3).eval()
    single = defense(digits[0][:4])
    double = defense.double()(digits[0][:4].double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double, single.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_works_without_gradients(digits, context):
    images = digits[0][:4]
    expected = ABS(SigmoidDecoders(), starts=32, steps=3).eval()(images)
    defense = ABS(SigmoidDecoders(), starts=32, steps=3).eval()  # first used inside the context
    with context():
        scores = defense(images)
        assert torch.equal(scores, expected)
        assert not scores.requires_grad
        assert defense.reconstruct(images).shape == (4, 4, 1, 8, 8)
    attacked = images.clone().requires_grad_()  # and usable with gradients afterwards
    for mode in ("frozen", "unrolled"):
        assert torch.isfinite(torch.autograd.grad(defense.surrogate(mode)(attacked).sum(), attacked)[0]).all()


def test_works_under_lightnings_test(digits):
    images = digits[0][:6]
    defense = ABS(SigmoidDecoders(), starts=32, steps=3).eval()
    scores = scores_under_lightning(defense, images)
    torch.testing.assert_close(scores, defense(images), rtol=0, atol=1e-5)


def test_parameters_collect_no_gradients(digits):
    generator = SigmoidDecoders()
    defense = ABS(generator, starts=32, steps=3).eval()
    images = digits[0][:4].requires_grad_()
    for mode in ("frozen", "unrolled"):
        defense.surrogate(mode)(images).sum().backward()
    assert images.grad is not None
    assert all(parameter.grad is None and parameter.requires_grad for parameter in defense.generator.parameters())


def test_the_global_random_state_is_not_touched(digits):
    with seeded(5):
        expected = torch.rand(4)
    with seeded(5):
        ABS(SigmoidDecoders(), starts=32, steps=3, seed=9).eval()(digits[0][:4])
        assert torch.equal(torch.rand(4), expected)


def test_codes_depend_on_the_seed_only():
    first, again, other = (ABS(SigmoidDecoders(), starts=32, seed=seed).start.codes for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_samples_do_not_depend_on_their_batch(digits):
    images = digits[0][:7]
    defense = ABS(SigmoidDecoders(), starts=64, steps=10).eval()
    together = defense(images)
    for i in range(7):
        torch.testing.assert_close(defense(images[i : i + 1])[0], together[i], rtol=0, atol=1e-5)
    torch.testing.assert_close(defense(images.flip(0)), together.flip(0), rtol=0, atol=1e-5)


def test_classifies_what_a_class_generates():
    generator = SigmoidDecoders()
    labels = torch.arange(4).repeat(10)
    images = generator(generator.sample_latents(40), labels).detach()
    decisions = ABS(generator, starts=100, steps=50).eval()(images).argmax(1)
    assert (decisions == labels).double().mean() > 0.95


@pytest.mark.parametrize("settings", [{"weight": -1.0}, {"steps": -1}, {"lr": 0.0}])
def test_bad_settings(generator, settings):
    values = {"weight": 1.0, "steps": 1, "lr": 0.1, **settings}
    got = ", ".join(map(str, values.values()))
    with pytest.raises(GenclsError, match=f"expected weight >= 0, steps >= 0, lr > 0, got {got}"):
        AnalysisBySynthesis(generator, start=Zeros(generator), distance=SquaredL2(), regularizer=GaussianKL(), **values)


def test_no_codes(generator):
    with pytest.raises(GenclsError, match="expected count >= 1 random codes, got 0"):
        ABS(generator, starts=0)


@pytest.mark.parametrize("radius", [0.0, -1.0])
def test_bad_radius(radius):
    with pytest.raises(GenclsError, match=f"expected radius > 0, got {radius}"):
        Ball(radius)
