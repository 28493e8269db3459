import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from gencls.core import BPDA, EoT, GenclsError, Unrolled, forward_draws, keyed, seeded
from gencls.defenses import (
    GaussianNoise,
    RandomizedSmoothing,
    TransformedClassifier,
    VariationalPosteriorSmoothing,
    VariationalSmoothing,
)
from tests.toys import Linear, small_cnn

PIXELS, SHAPE = 12, (1, 3, 4)
ROUNDING = 1e-12


def linear(classes=2, seed=0):
    source = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, PIXELS, generator=source, dtype=torch.float64)
    return Linear(weight, torch.randn(classes, generator=source, dtype=torch.float64))


def pictures(count=4, seed=1):
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def toward(network):
    """The direction in which each of two classes grows, (2, C, H, W)."""
    difference = (network.weight[0] - network.weight[1]).view(SHAPE)
    return torch.stack([difference, -difference])


def smoothing(network, classes=2, **settings):
    return VariationalSmoothing(network, classes, **{"radius": 0.1, "sigma": 0.2, **settings}).eval()


def infer(defense, images):
    with torch.enable_grad():
        return defense.infer(images)


def test_the_search_in_the_box_reaches_its_corner():
    # Two classes: L_y grows with (w_y - w_other)^T eps, whose maximum is radius times the signs; a step of 2 radius gets there.
    network, images = linear(), pictures()
    found = infer(smoothing(network, step_size=0.2), images)
    torch.testing.assert_close(found, (0.1 * toward(network).sign()).expand(4, -1, -1, -1, -1), rtol=0, atol=ROUNDING)


def test_the_search_in_the_ball_reaches_its_pole():
    # The maximum is radius (w_y - w_other) / ||w_y - w_other||; projected steps come closer by a factor each.
    network, images = linear(), pictures()
    found = infer(smoothing(network, norm="l2", radius=0.5, steps=60, step_size=0.5), images)
    pole = 0.5 * toward(network) / toward(network)[0].norm()
    torch.testing.assert_close(found, pole.expand(4, -1, -1, -1, -1), rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_as_printed_the_search_goes_the_other_way(norm):
    network, images = linear(), pictures()
    with seeded(0):
        up = infer(smoothing(network, norm=norm, steps=40, step_size=0.2), images)
    with seeded(0):
        down = infer(smoothing(network, norm=norm, steps=40, step_size=0.2, objective="minimize"), images)
    torch.testing.assert_close(down, -up, rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("objective", ["maximize", "minimize"])
def test_steps_stay_in_the_ball_and_improve_the_objective(digits, norm, objective):
    values = []
    sign = 1 if objective == "maximize" else -1
    for steps in (0, 1, 5, 20):
        # Without a step the same random start: a step of no length.
        settings = {"steps": 1, "step_size": 1e-12} if steps == 0 else {"steps": steps}
        defense = smoothing(small_cnn(), 4, norm=norm, radius=0.3, objective=objective, **settings)
        with keyed(range(64)):
            found = infer(defense, digits[0])
        sizes = found.flatten(2).norm(dim=2, p=2 if norm == "l2" else math.inf)
        assert sizes.max() <= 0.3 * (1 + 1e-6)
        values.append(sign * defense.likelihood.log_probs(digits[0].unsqueeze(1) + found).mean(0))
    for before, after in zip(values, values[1:], strict=False):
        assert (after > before).all()  # the mean over the images, for each class


@pytest.mark.parametrize(("norm", "power"), [("linf", math.inf), ("l2", 2)])
def test_the_start_is_uniform_in_the_ball(norm, power):
    # P(||u||_p <= r t) = t^d for a uniform u in d dimensions.
    network = Linear(torch.zeros(2, 4, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    defense = smoothing(network, norm=norm, radius=0.3)  # no gradient: it stays where it starts
    found = infer(defense, torch.zeros(4000, 1, 2, 2, dtype=torch.float64))
    assert torch.equal(found[:, 0], found[:, 1])
    radii = found[:, 0].flatten(1).norm(dim=1, p=power).div(0.3).pow(4).sort().values
    expected = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    assert (radii - expected).abs().max() < 1.95 / 4000**0.5  # Kolmogorov-Smirnov, one in a thousand
    assert found.mean((0, 1)).abs().max() < 4 * 0.3 / 4000**0.5


def test_default_steps_are_those_of_fast_at_and_share_2_5_radii():
    sizes = {steps: smoothing(linear(), radius=0.1, steps=steps).step_size for steps in (1, 2, 10)}
    assert sizes == pytest.approx({1: 0.125, 2: 0.125, 10: 0.025})


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_radius_and_no_noise_is_the_classifier(digits, norm):
    # The log-softmax has slopes of some tens: noise of 1e-9 moves it by 1e-7 or so.
    cnn = small_cnn().double()
    images = digits[0].double()
    found = smoothing(cnn, 4, norm=norm, radius=0.0, sigma=1e-9)(images)
    torch.testing.assert_close(found, cnn(images).log_softmax(1), rtol=0, atol=1e-6)


def test_mean_over_many_draws_is_the_integral():
    # Two classes: L_y = -softplus(-t), t = margin at the corner + sigma ||w_y - w_other|| N(0, 1).
    network, images = linear(), pictures()
    defense = smoothing(network, draws=20_000, step_size=0.2)
    found = defense(images)
    margin = toward(network).flatten(1) @ images.flatten(1).T + (network.offset[0] - network.offset[1]) * torch.tensor(
        [[1.0], [-1.0]], dtype=torch.float64
    )
    margin = margin.T + 0.1 * toward(network)[0].abs().sum()
    spread = 0.2 * toward(network)[0].norm()
    grid = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    weights = Normal(0.0, 1.0).log_prob(grid).exp() * (grid[1] - grid[0])
    values = nn.functional.logsigmoid(margin.unsqueeze(2) + spread * grid)
    mean = (values * weights).sum(2)
    error = ((values.square() * weights).sum(2) - mean.square()).sqrt() / 20_000**0.5
    assert ((found - mean).abs() < 4 * error).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_kl_is_that_of_torch(norm, digits):
    images = digits[0][:5].double()
    plain, bound = (smoothing(small_cnn().double(), 4, norm=norm, kl=kl) for kl in (False, True))
    q = infer(plain, images)
    with seeded(1):
        scores = plain.log_joint(images, q)
    with seeded(1):
        less = bound.log_joint(images, q)
    expected = kl_divergence(Independent(Normal(q, 0.2), 3), Independent(Normal(torch.zeros_like(q), 0.2), 3))
    torch.testing.assert_close(scores - less, expected)


def test_frozen_gradient_is_autograds_with_the_means_fixed(digits):
    images = digits[0][:5].double().requires_grad_()
    defense = smoothing(small_cnn().double(), 4, max_rows=7)
    weights = torch.randn(5, 4, dtype=torch.float64)
    with keyed(range(5)):
        (found,) = torch.autograd.grad((defense.surrogate("frozen")(images) * weights).sum(), images)
    with keyed(range(5)):
        q = infer(defense, images.detach())
        noise = torch.randn(5, 5, *images.shape[1:], dtype=torch.float64)
    points = (images.unsqueeze(1) + q).unsqueeze(1) + 0.2 * noise.unsqueeze(2)
    scores = defense.likelihood.classifier(points.flatten(0, 2)).log_softmax(1).view(5, 5, 4, 4)
    expected = torch.autograd.grad((scores.diagonal(dim1=2, dim2=3).mean(1) * weights).sum(), images)[0]
    torch.testing.assert_close(found, expected)


def test_frozen_gradient_of_signs_agrees_with_finite_differences(digits):
    # Signs do not move with a small step of the image, so the means are constant: the frozen gradient is exact.
    images = digits[0][:5].double()
    defense = smoothing(small_cnn().double(), 4)
    direction = torch.randn_like(images)

    def scores(x):
        with keyed(range(5)):
            return defense(x).sum(1)

    attacked = images.clone().requires_grad_()
    slope = (torch.autograd.grad(scores(attacked).sum(), attacked)[0] * direction).flatten(1).sum(1)
    with torch.no_grad():
        expected = (scores(images + 1e-6 * direction) - scores(images - 1e-6 * direction)) / 2e-6
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-4)


def unrolled_variants():
    cnn = small_cnn().double()
    return {
        "linf": smoothing(cnn, 4, steps=2, step_size=0.05),
        "l2": smoothing(cnn, 4, norm="l2", radius=0.5, steps=2, step_size=0.3, kl=True),
        "hard": smoothing(cnn, 4, norm="l2", hard=True),
        "posterior": VariationalPosteriorSmoothing(cnn, 4, steps=3).eval(),
    }


@pytest.mark.parametrize("name", ["linf", "l2", "hard", "posterior"])
def test_unrolled_by_class_is_the_whole_graph(name, digits):
    """In parts of two images, the gradient of the core's surrogate, which keeps all graphs; finite differences are with the
    contracts."""
    defense = unrolled_variants()[name]
    defense.likelihood.max_rows = 2 * 4 * getattr(defense, "steps", 1)
    images = digits[0][:5].double().requires_grad_()
    weights = torch.randn(5, 4, dtype=torch.float64)
    found = []
    for module in (list(defense.surrogates().values())[1], Unrolled(defense)):
        with keyed(range(5)):
            found.append(torch.autograd.grad((module(images) * weights).sum(), images)[0])
    torch.testing.assert_close(*found)


def test_backward_pass_of_signs_is_that_of_tanh():
    # One step from u: mu = clip(u + a sign(g)); backwards d mu = a tanh'(g / rms(g)) dg / rms(g), the clip hides nothing.
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 5), nn.Tanh(), nn.Linear(5, 3)).double(), pictures(2)
    defense = smoothing(network, 3)
    attacked = images.clone().requires_grad_()
    weights = torch.randn(2, 3, *SHAPE, dtype=torch.float64)
    with keyed(range(2)):
        (found,) = torch.autograd.grad((defense.infer(attacked) * weights).sum(), attacked)
    with keyed(range(2)):
        start = 0.1 * (2 * torch.rand_like(images) - 1)
    for i in range(2):

        def slopes(image, start=start[i]):
            noise = start.expand(3, *SHAPE).clone().requires_grad_()
            scores = network(image + noise).log_softmax(1).diagonal().sum()
            return torch.autograd.grad(scores, noise, create_graph=True)[0]

        g = slopes(images[i]).detach()
        size = g.flatten(1).square().mean(1).sqrt().view(3, 1, 1, 1)
        bend = (1 - (g / size).tanh().square()) / size
        with torch.enable_grad():
            image = images[i].clone().requires_grad_()
            expected = torch.autograd.grad((weights[i] * 0.125 * bend * slopes(image)).sum(), image)[0]
        torch.testing.assert_close(found[i], expected)


def test_gradient_modes():
    names = {
        ("linf", False): ["frozen", "unrolled-bpda"],
        ("l2", False): ["frozen", "unrolled"],
        ("linf", True): ["bpda", "unrolled-bpda"],
        ("l2", True): ["bpda", "unrolled-bpda"],
    }
    for (norm, hard), expected in names.items():
        assert list(smoothing(linear(), norm=norm, hard=hard).surrogates()) == expected
    assert list(VariationalPosteriorSmoothing(linear(), 2).surrogates()) == ["frozen", "unrolled"]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_saturated_classifier_has_finite_gradients(norm):
    """Log-softmax whose own class has probability 1 in float32: its slopes are exactly zero or as small as 1e-30."""
    for scale in (30.0, 70.0, 1e4):
        network = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 3))
        nn.init.zeros_(network[1].weight)
        network[1].weight.data[:, 0] = torch.tensor([scale, 0.0, -scale])
        defense = smoothing(network, 3, norm=norm, steps=3)
        images = pictures().float().clamp_min(0.5).requires_grad_()
        for module in defense.surrogates().values():
            assert torch.isfinite(torch.autograd.grad(module(images).sum(), images)[0]).all()


def test_hard_scores_count_votes_and_stay_finite(digits):
    images = digits[0].double()
    soft, hard = (smoothing(small_cnn().double(), 4, draws=7, hard=hard, max_rows=50) for hard in (False, True))
    with keyed(range(64)):
        scores = hard(images)
    counted = scores.exp() * 8 - 0.5
    votes, rest = (counted + 1e-9).floor(), counted - (counted + 1e-9).floor()
    assert {0, 7} <= set(votes.int().flatten().tolist())  # finite also there
    with keyed(range(64)):
        q = infer(soft, images)
        noise = torch.randn(64, 7, *images.shape[1:], dtype=torch.float64)
    points = (images.unsqueeze(1) + q).unsqueeze(1) + 0.2 * noise.unsqueeze(2)
    with torch.no_grad():
        every = hard.likelihood.classifier(points.flatten(0, 2)).view(64, 7, 4, 4)
    torch.testing.assert_close(votes, (every.argmax(3) == torch.arange(4)).sum(1).double())
    torch.testing.assert_close(rest, every.softmax(3).diagonal(dim1=2, dim2=3).mean(1) / 2)
    tied = votes.sort(1).values.diff(dim=1)[:, -1] == 0
    assert tied.any()
    assert torch.equal(scores.argmax(1)[tied], (votes + rest).argmax(1)[tied])


def test_hard_scores_have_the_gradient_of_soft_ones(digits):
    images = digits[0][:5].double().requires_grad_()
    found = []
    for hard in (False, True):
        with keyed(range(5)):
            scores = smoothing(small_cnn().double(), 4, hard=hard)(images)
        found.append(torch.autograd.grad(scores[:, 1].sum(), images)[0])
    torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize("max_rows", [1, 8, 30, 100_000])
def test_the_size_of_the_passes_does_not_matter(digits, max_rows):
    """Keyed streams: one draw of one image at a time is all draws of all images; also behind noise of the classifier's own."""
    images = digits[0][:6].double().requires_grad_()
    for network in (small_cnn().double(), TransformedClassifier(GaussianNoise(0.1), small_cnn().double(), 4)):
        found = []
        for rows in (24, max_rows):
            with keyed(range(6)):
                scores = smoothing(network, 4, norm="l2", max_rows=rows)(images)
            found.append((scores.detach(), *torch.autograd.grad(scores[:, 2].sum(), images)))
        torch.testing.assert_close(found[0], found[1])


def test_draws_of_an_image_have_their_own_start_and_noise(digits):
    images = digits[0][:3]
    defense = smoothing(small_cnn(), 4)
    found = infer(defense, images[:1].repeat(3, 1, 1, 1))
    assert len({tuple(start.flatten().tolist()) for start in found[:, 0]}) == 3
    scores = forward_draws(defense, images, 4).view(3, 4, 4)
    assert (scores[:, 0] - scores[:, 1]).abs().min() > 0
    with keyed(range(3)):
        whole = EoT(defense, 4)(images)
    with keyed(range(3)):
        torch.testing.assert_close(EoT(defense, 4, chunk=1)(images), whole)


class Votes(nn.Module):
    def forward(self, images):
        return nn.functional.one_hot((images.flatten(1).sum(1) > 6).long(), 2).to(images.dtype)


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("make", [lambda f: smoothing(f), lambda f: VariationalPosteriorSmoothing(f, 2)])
def test_a_classifier_without_a_gradient_is_refused(make, trainable):
    """Also where its last layer has parameters, which alone would give the scores a gradient."""
    layers = [Votes(), nn.Linear(2, 2).double()] if trainable else [Votes()]
    defense = make(nn.Sequential(*layers))
    with pytest.raises(GenclsError, match="expected a classifier whose scores have a gradient, got detached ones"):
        defense(pictures())
    approximate = make(BPDA(nn.Sequential(*layers), linear()))
    assert approximate(pictures()).shape == (4, 2)


@pytest.mark.parametrize("rows", [6, 10, 256])  # parts of 3 images, of 5, and all at once
@pytest.mark.parametrize("kind", [VariationalSmoothing, VariationalPosteriorSmoothing])
def test_many_rows_of_an_image_in_parts(kind, rows):
    """Randomized smoothing around it asks for four rows per stream; what else is in the batch does not matter."""
    inner = kind(linear(), 2, max_rows=rows, **({"radius": 0.1} if kind is VariationalSmoothing else {}))
    defense = RandomizedSmoothing(inner, 2, sigma=0.1, draws=4, votes="soft").eval()
    with keyed([7, 8, 9]):
        together = defense(pictures(3))
    with keyed([8]):
        alone = defense(pictures(3)[1:2])
    torch.testing.assert_close(together[1:2], alone)


def test_another_number_of_classes_is_refused():
    with pytest.raises(GenclsError, match=r"expected 3 scores for each of 12 images, got shape \(12, 2\)"):
        smoothing(linear(), 3)(pictures())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 0.0}, r"VariationalSmoothing: expected sigma in \(0, 4\] in .* units \(64/255, not 64\), got 0.0"),
        ({"sigma": -1.0}, "got -1.0"),
        ({"sigma": math.nan}, "got nan"),
        ({"radius": -0.1}, r"expected a radius >= 0 in .* units \(8/255, not 8\), for linf at most 1, got -0.1"),
        ({"radius": math.inf, "norm": "l2"}, "got inf"),
        ({"radius": 8.0}, "for linf at most 1, got 8.0"),
        ({"norm": "l1"}, "expected norm to be one of 'linf', 'l2', got 'l1'"),
        ({"objective": "max"}, "expected objective to be one of 'maximize', 'minimize', got 'max'"),
        ({"steps": 0}, "expected steps >= 1 and step_size > 0 or None, got 0 and None"),
        ({"step_size": 0.0}, "got 1 and 0.0"),
        ({"draws": 0}, "expected num_classes >= 2, draws >= 1 and max_rows >= 1, got 2, 0 and 256"),
        ({"max_rows": 0}, "got 2, 5 and 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(GenclsError, match=message):
        smoothing(linear(), **settings)
