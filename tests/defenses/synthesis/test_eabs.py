"""E-ABS: its parts against closed forms, and every combination of its extensions on the one engine."""

import math

import pytest
import torch
from torch import Tensor, nn

from gencls.core import ClassConditionalGenerator, GenclsError, Latents, keyed, seeded
from gencls.defenses import EABS, AnalysisBySynthesis, DiscriminatorPenalty, EncoderStart, GaussianKL, Posterior
from gencls.defenses.synthesis.posterior import variables
from gencls.defenses.synthesis.starts import RandomStarts
from gencls.perceptual import SquaredL2

CLASSES, LATENT, PIXELS = 3, 2, 6


class Affine(ClassConditionalGenerator):
    """G_k(z) = m_k + W_k z with orthogonal columns, whose optimal Gaussian is known."""

    def __init__(self) -> None:
        super().__init__()
        self.num_classes = CLASSES
        self.latent_shapes = (torch.Size([LATENT]),)
        with seeded(1):
            columns = torch.linalg.qr(torch.randn(CLASSES, PIXELS, LATENT)).Q
            self.register_buffer("weight", columns * torch.tensor([1.5, 0.6]))
            self.register_buffer("offset", torch.rand(CLASSES, PIXELS))

    def forward(self, latents: Latents, labels: Tensor) -> Tensor:
        flat = self.offset[labels] + torch.einsum("mpd,md->mp", self.weight[labels], latents[0])
        return flat.view(-1, 1, 2, 3)


class Pull(nn.Module):
    """Logits of a discriminator that likes latents near a point."""

    def forward(self, latents: Tensor) -> Tensor:
        return 1.0 - (latents - 0.5).square().sum(-1)


class Encoder(nn.Module):
    """The same narrow Gaussian for every image and class."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        shape = (len(images), CLASSES, LATENT)
        return images.new_full(shape, self.mean), images.new_full(shape, 2 * math.log(0.01))


@pytest.fixture
def images() -> Tensor:
    with seeded(0):
        return torch.rand(4, 1, 2, 3)


def optimum(generator: Affine, images: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Mean and variance that minimise E||x - G(z)||^2 + beta KL: the columns are orthogonal, so each latent has its own."""
    squares = generator.weight.square().sum(1)
    inner = torch.einsum("kpd,nkp->nkd", generator.weight, images.flatten(1)[:, None] - generator.offset)
    return 2 * inner / (2 * squares + beta), beta / (2 * squares + beta)


def test_variational_inference_finds_the_closed_form_optimum(images: Tensor) -> None:
    generator, beta = Affine(), 0.8
    defense = EABS(generator, starts=50, steps=1500, lr=0.006, beta=beta)
    with seeded(0):
        means, log_stds = variables(defense.infer(images))
    mean, variance = optimum(generator, images, beta)
    # Adam at a fixed rate keeps jittering about the optimum, by some multiples of its rate.
    torch.testing.assert_close(means, mean, rtol=0, atol=0.12)
    torch.testing.assert_close(log_stds.exp().square(), variance.expand_as(means), rtol=0, atol=0.1)


def test_the_score_is_the_expected_loss(images: Tensor) -> None:
    generator, beta = Affine(), 0.8
    defense = EABS(generator, starts=10, steps=0, beta=beta, samples=4000)
    means, log_stds = torch.randn(4, CLASSES, LATENT), torch.randn(4, CLASSES, LATENT) * 0.3 - 1
    with seeded(0):
        scores = defense.log_joint(images, (Posterior(means, log_stds),))
    error = (images.unsqueeze(1) - generator.decode_all((means,))).square().sum(dim=(2, 3, 4))
    error = error + (log_stds.exp().square() * generator.weight.square().sum(1)).sum(2)
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(means, log_stds.exp()), torch.distributions.Normal(0.0, 1.0)
    ).sum(2)
    # 4,000 draws of a squared error whose standard deviation is about 1: five standard errors.
    torch.testing.assert_close(-scores, error + beta * kl, rtol=0, atol=0.1)


def test_the_discriminator_replaces_the_divergence(images: Tensor) -> None:
    generator = Affine()
    defense = EABS(generator, discriminator=Pull(), variational=False, starts=10, steps=0, beta=0.5)
    q = (torch.randn(4, CLASSES, LATENT),)
    error = (images.unsqueeze(1) - generator.decode_all(q)).square().sum(dim=(2, 3, 4))
    expected = error - 0.5 * Pull()(q[0]).sigmoid().log()
    torch.testing.assert_close(-defense.log_joint(images, tuple(map(Posterior, q))), expected)
    assert (DiscriminatorPenalty(Pull())(q) >= 0).all()


def test_the_best_candidate_starts(images: Tensor) -> None:
    generator = Affine()
    mean, variance = optimum(generator, images, beta=1.0)

    class Oracle(nn.Module):
        """Right about class 0, absurd about the others."""

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            means = torch.full_like(mean, 50.0)
            means[:, 0] = mean[:, 0]
            return means, variance.log().expand_as(means)

    defense = EABS(generator, encoder=Oracle(), starts=5, start_std=0.3, steps=0)
    with seeded(0):
        means, log_stds = variables(defense.infer(images))
    torch.testing.assert_close(means[:, 0], mean[:, 0])
    (random,) = defense.start(images)
    torch.testing.assert_close(means[:, 1:], random[:, 1:])
    torch.testing.assert_close(log_stds[:, 0], (0.5 * variance.log()).expand_as(log_stds)[:, 0])
    torch.testing.assert_close(log_stds[:, 1:], torch.full_like(log_stds[:, 1:], math.log(0.3)))


@pytest.mark.parametrize("discriminator", [None, Pull()])
@pytest.mark.parametrize("variational", [False, True])
def test_every_combination_is_one_engine(images: Tensor, discriminator: nn.Module | None, variational: bool) -> None:
    defense = EABS(
        Affine(), encoder=Encoder(0.1), discriminator=discriminator, variational=variational, starts=20, steps=5
    ).eval()
    assert type(defense) is AnalysisBySynthesis
    assert defense.stochastic is variational
    with seeded(0):
        first = defense(images)
    with seeded(1):
        second = defense(images)
    assert torch.equal(first, second) is not variational
    assert first.shape == (4, CLASSES)
    assert defense.reconstruct(images).shape == (4, CLASSES, 1, 2, 3)
    assert len(variables(defense.infer(images))) == 1 + variational


def test_point_inference_never_asks_the_encoder(images: Tensor) -> None:
    settings = {"starts": 20, "steps": 3, "variational": False}
    assert torch.equal(EABS(Affine(), encoder=Encoder(9.0), **settings)(images), EABS(Affine(), **settings)(images))


def test_results_do_not_depend_on_the_batch(images: Tensor) -> None:
    defense = EABS(Affine(), encoder=Encoder(0.0), discriminator=Pull(), starts=20, steps=5).eval()
    seeds = [11, 12, 13, 14]
    with keyed(seeds) as streams:
        whole = defense(images)
    assert not streams.shared
    alone = []
    for row, seed in enumerate(seeds):
        with keyed([seed]):
            alone.append(defense(images[row : row + 1]))
    torch.testing.assert_close(torch.cat(alone), whole, rtol=0, atol=1e-5)
    defense.memory_budget = 1  # one image at a time
    with keyed(seeds) as streams:
        torch.testing.assert_close(defense(images), whole, rtol=0, atol=1e-5)
    assert not streams.shared


def test_the_unrolled_gradient_of_variational_inference(images: Tensor) -> None:
    generator = Affine().double()
    defense = EABS(generator, encoder=Encoder(0.2), starts=20, start_std=0.5, steps=4, lr=0.1).double()
    defense.start.codes = defense.start.codes.double()
    points = images.double()

    def score(pixels: Tensor) -> Tensor:
        with seeded(3):  # the same draws at every point
            return defense.surrogate("unrolled")(pixels)[:, 0].sum()

    variable = points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(variable), variable)
    direction = torch.randn_like(points)
    step = 1e-5
    difference = (score(points + step * direction) - score(points - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), difference.detach(), rtol=1e-4, atol=1e-6)


def test_bad_settings() -> None:
    for settings in ({"start_std": 0.0}, {"samples": 0}):
        with pytest.raises(GenclsError, match="expected start_std > 0 and samples >= 1, got"):
            EABS(Affine(), starts=4, **settings)
    with pytest.raises(GenclsError, match="EABS: expected beta >= 0, got -1.0"):
        EABS(Affine(), starts=4, beta=-1.0)


def test_candidates_of_several_proposals(images: Tensor) -> None:
    generator, regularizer = Affine(), GaussianKL()
    defense = AnalysisBySynthesis(
        generator,
        start=RandomStarts(generator, regularizer, 1.0, count=3, seed=0),
        proposals=[EncoderStart(Encoder(40.0)), EncoderStart(Encoder(0.0))],
        distance=SquaredL2(),
        regularizer=regularizer,
        weight=1.0,
        steps=0,
        lr=0.1,
        variational=True,
        start_std=8.0,
    )
    with seeded(0):
        means, _ = variables(defense.infer(images))
    assert torch.equal(means, torch.zeros_like(means))
