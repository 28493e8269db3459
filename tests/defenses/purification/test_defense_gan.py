"""Defense-GAN against least squares: the nearest image of a linear generator is a projection."""

import pytest
import torch
from torch import nn

from gencls.core import GenclsError, keyed
from gencls.defenses import DefenseGAN
from gencls.zoo.networks import StyleGAN2, StyleLatents

PIXELS = 12


class LinearGenerator(nn.Module):
    """G(z) = 1/2 + A z, images (1, 3, 4); A has orthonormal columns, so that descent is equally fast in all directions."""

    def __init__(self):
        super().__init__()
        source = torch.Generator().manual_seed(1)
        columns, _ = torch.linalg.qr(torch.randn(PIXELS, 3, generator=source, dtype=torch.float64))
        self.matrix = nn.Parameter(columns)

    def forward(self, latents):
        return (0.5 + latents @ self.matrix.T).view(-1, 1, 3, 4)


class TwoValleys(nn.Module):
    """One pixel: below 0.3 for latents on the left, from 0.5 to 0.8 for those on the right."""

    def forward(self, latents):
        return torch.where(latents < 0, 0.2 + 0.1 * latents.sigmoid(), 0.5 + 0.3 * torch.tanh(latents)).view(-1, 1, 1, 1)


@pytest.fixture
def images():
    return 0.4 + 0.2 * torch.rand(5, 1, 3, 4, dtype=torch.float64)


def projected(generator, images):
    """Least squares by torch."""
    target = (images - 0.5).flatten(1).T
    latents = torch.linalg.lstsq(generator.matrix.detach(), target).solution.T
    return generator(latents).detach(), latents


@pytest.mark.parametrize(("optimizer", "lr", "steps"), [("gradient", 0.3, 60), ("adam", 0.05, 800)])
def test_on_a_linear_generator_it_is_the_least_squares_projection(images, optimizer, lr, steps):
    generator = LinearGenerator()
    defense = DefenseGAN(generator, (3,), restarts=2, steps=steps, lr=lr, optimizer=optimizer)
    expected, latents = projected(generator, images)
    found, chosen, starts = defense.infer(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(chosen, latents, rtol=0, atol=1e-6)
    assert starts.shape == latents.shape
    assert not defense(images.clone().requires_grad_()).requires_grad


def test_the_unrolled_gradient_is_the_projection_matrix(images):
    generator = LinearGenerator()
    defense = DefenseGAN(generator, (3,), restarts=2, steps=60, lr=0.3, optimizer="gradient", max_rows=150)  # 2 per graph
    upstream = torch.randn_like(images)
    attacked = images.clone().requires_grad_()
    made = defense.surrogate("unrolled")(attacked)
    (gradient,) = torch.autograd.grad(made, attacked, upstream)
    matrix = generator.matrix.detach()
    expected = (upstream.flatten(1) @ matrix @ matrix.T).view_as(images)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(made.detach(), projected(generator, images)[0], rtol=0, atol=1e-9)
    assert generator.matrix.grad is None
    assert generator.matrix.requires_grad


def test_few_unrolled_steps_contract_the_gradient_by_a_known_factor(images):
    """z <- z - 2 lr (z - A^T(x - 1/2)), so dz_L / dx = (1 - (1 - 2 lr)^L) A^T."""
    generator = LinearGenerator()
    small = {"sample": lambda count: 0.05 * torch.randn(count, 3)}  # no value is clipped
    defense = DefenseGAN(generator, (3,), **small, restarts=1, steps=4, lr=0.1, optimizer="gradient")
    attacked, upstream = images.clone().requires_grad_(), torch.randn_like(images)
    (gradient,) = torch.autograd.grad(defense.surrogate("unrolled")(attacked), attacked, upstream)
    matrix = generator.matrix.detach()
    expected = (1 - 0.8**4) * (upstream.flatten(1) @ matrix @ matrix.T).view_as(images)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-9)


def test_the_default_gradient_is_that_of_the_identity(images):
    attacked, upstream = images.clone().requires_grad_(), torch.randn_like(images)
    surrogate = DefenseGAN(LinearGenerator(), (3,), restarts=1, steps=2).surrogate()
    (gradient,) = torch.autograd.grad(surrogate(attacked), attacked, upstream)
    assert torch.equal(gradient, upstream)


def test_the_best_restart_counts():
    image = torch.full((1, 1, 1, 1), 0.6, dtype=torch.float64)  # only the right valley reaches it
    starts = torch.tensor([[-2.0], [0.5], [-1.0]], dtype=torch.float64)
    defense = DefenseGAN(TwoValleys(), (1,), sample=lambda count: starts, restarts=3, steps=400, lr=0.3, optimizer="gradient")
    found, latents, start = defense.infer(image)
    assert start.item() == 0.5
    torch.testing.assert_close(found, image, rtol=0, atol=1e-6)
    assert latents.item() == pytest.approx(torch.tensor(1 / 3).atanh().item(), abs=1e-5)


def test_a_restart_that_diverges_is_never_the_best():
    """G(z) = z^2: from 30 the steps become longer and longer, up to infinity less infinity."""
    starts = torch.tensor([[30.0], [0.6]], dtype=torch.float64)
    defense = DefenseGAN(
        lambda latents: latents.square().view(-1, 1, 1, 1),
        (1,),
        sample=lambda count: starts,
        restarts=2,
        steps=60,
        lr=0.1,
        optimizer="gradient",
    )
    image = torch.full((1, 1, 1, 1), 0.25, dtype=torch.float64)
    assert defense.descend(image, starts[:1]).isnan()
    found, latents, start = defense.infer(image)
    assert start.item() == 0.6
    assert latents.item() == pytest.approx(0.5, abs=1e-3)
    torch.testing.assert_close(found, image, rtol=0, atol=1e-3)


def test_the_number_of_rows_at_once_does_not_matter(images):
    found = []
    for rows in (1, 7, 1000):
        with keyed(range(len(images))):
            found.append(DefenseGAN(LinearGenerator(), (3,), restarts=3, steps=2, max_rows=rows)(images))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(found[2], found[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("space", ["z", "w", "w+"])
def test_a_stylegan2_finds_its_own_images(space):
    generator = StyleGAN2((8, 6), style_dim=4, mapping_layers=2).requires_grad_(False)
    latents = StyleLatents(generator, space)
    with torch.no_grad():
        target = latents(latents.sample(2))
    defense = DefenseGAN(latents, latents.latent_shape, sample=latents.sample, restarts=3, steps=150, lr=0.05)
    start = DefenseGAN(latents, latents.latent_shape, sample=latents.sample, restarts=3, steps=1, lr=1e-6)
    found = (defense(target) - target).square().flatten(1).sum(1)
    assert (found < 0.1 * (start(target) - target).square().flatten(1).sum(1)).all()


def test_a_frame_puts_the_images_into_their_form():
    generator = StyleGAN2((4, 4), style_dim=4, mapping_layers=1)
    latents = StyleLatents(generator, frame=lambda images: images.mean(1, keepdim=True)[:, :, 1:7, 1:7])
    assert latents(latents.sample(3)).shape == (3, 1, 6, 6)
    with pytest.raises(GenclsError, match="expected a space among z, w, w\\+, got 'x'"):
        StyleLatents(generator, "x")


def test_bad_input(images):
    with pytest.raises(GenclsError, match="expected restarts, steps and max_rows >= 1 and lr > 0, got 0, 200, 2048 and 0.1"):
        DefenseGAN(LinearGenerator(), (3,), restarts=0)
    with pytest.raises(GenclsError, match="expected optimizer to be one of 'adam', 'gradient', got 'sgd'"):
        DefenseGAN(LinearGenerator(), (3,), optimizer="sgd")
    with pytest.raises(GenclsError, match="expected a latent_shape of numbers >= 1, got \\(\\)"):
        DefenseGAN(LinearGenerator(), ())
    with pytest.raises(GenclsError, match="expected images of the generator's shape \\(1, 3, 4\\), got \\(1, 4, 3\\)"):
        DefenseGAN(LinearGenerator(), (3,), steps=1)(images.transpose(2, 3))
    with pytest.raises(GenclsError, match="to give latents of shape \\(10, 3\\), got \\(10, 2\\)"):
        DefenseGAN(LinearGenerator(), (3,), sample=lambda count: torch.zeros(count, 2), restarts=2)(images)
