import pytest
import torch

from gencls.core import GenclsError
from gencls.perceptual import MSSSIM, SSIM


@pytest.fixture
def pair():
    first = torch.rand(3, 3, 48, 50)
    return first, (first + 0.2 * torch.randn_like(first)).clamp(0, 1)


@pytest.mark.parametrize("sigma", [1.5, 0.7])
@pytest.mark.parametrize("shape", [(3, 48, 50), (1, 9, 17)])
def test_ssim_and_its_gradient_equal_torchmetrics(sigma, shape):
    from torchmetrics.functional.image import structural_similarity_index_measure

    first = torch.rand(3, *shape, dtype=torch.float64)
    second = (first + 0.2 * torch.randn_like(first)).clamp(0, 1).requires_grad_()
    expected = 1 - structural_similarity_index_measure(first, second, data_range=1.0, reduction="none", sigma=sigma)
    found = SSIM(sigma=sigma)(first, second)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(values.sum(), second)[0] for values in (found, expected)]
    torch.testing.assert_close(*gradients)
    # In single precision the variance, a difference of squares, has 6 digits.
    torch.testing.assert_close(SSIM(sigma=sigma)(first.float(), second.float()), expected.float(), rtol=0, atol=1e-5)


def test_the_window_of_a_call_without_gradients_serves_a_call_with_them():
    images = torch.rand(2, 1, 13, 11, requires_grad=True)
    with torch.inference_mode():
        SSIM()(images, images)
    (gradient,) = torch.autograd.grad(SSIM()(images, images.detach().flip(0)).sum(), images)
    assert gradient.any()


@pytest.mark.parametrize("betas", [(0.3, 0.4, 0.3), (1.0,), (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)])
def test_msssim_equals_torchmetrics_exactly(pair, betas):
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    images = tuple(one.repeat(1, 1, 4, 4)[:2] for one in pair) if len(betas) == 5 else pair
    expected = multiscale_structural_similarity_index_measure(*images, data_range=1.0, reduction="none", betas=betas)
    assert torch.equal(MSSSIM(betas=betas)(*images), 1 - expected)


def test_ssim_of_even_grey_images_by_hand():
    """Without any structure only the means count: (2 a b + c1) / (a^2 + b^2 + c1)."""
    first, second = torch.full((2, 1, 1, 12, 12), 0.2).double() + torch.tensor([0.0, 0.4]).view(2, 1, 1, 1, 1)
    expected = 1 - (2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4)
    assert SSIM()(first, second).item() == pytest.approx(expected, rel=1e-6)


def test_opposite_images_have_distance_1_and_no_gradient():
    waves = (torch.arange(44.0) * 1.5).sin().expand(2, 1, 44, -1) / 2 + 0.5
    images = waves.clone().requires_grad_()
    found = MSSSIM(betas=(0.3, 0.4, 0.3))(images, torch.stack((1 - waves[0], 0.9 * waves[1])))
    (gradient,) = torch.autograd.grad(found.sum(), images)
    assert found[0] == 1
    assert 0 < found[1] < 1
    assert not gradient[0].any()
    assert gradient[1].isfinite().all()
    assert gradient[1].any()


@pytest.mark.parametrize(
    ("distance", "smallest"),
    [(SSIM(), 6), (SSIM(sigma=0.5), 3), (MSSSIM(betas=(0.3, 0.4, 0.3)), 44), (MSSSIM(betas=(1.0,)), 11)],
)
def test_small_images(distance, smallest):
    images = torch.rand(2, 1, smallest, smallest)
    assert torch.equal(distance(images, images), torch.zeros(2))
    with pytest.raises(
        GenclsError, match=rf"{type(distance).__name__}: expected images of at least {smallest} x {smallest} pixels"
    ):
        distance(images[..., 1:], images[..., 1:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SSIM(sigma=0.0), "SSIM: expected sigma > 0, got 0.0"),
        (lambda: MSSSIM(sigma=-1.0), "MSSSIM: expected sigma > 0, got -1.0"),
        (lambda: MSSSIM(betas=()), r"MSSSIM: expected betas > 0, got \(\)"),
        (lambda: MSSSIM(betas=(0.5, 0.0)), "MSSSIM: expected betas > 0"),
    ],
)
def test_wrong_settings(make, message):
    with pytest.raises(GenclsError, match=message):
        make()
