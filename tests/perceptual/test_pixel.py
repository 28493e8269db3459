import numpy as np
import pytest
import torch

from gencls.core import GenclsError
from gencls.perceptual import L1, L2, Linf, SquaredL2

DISTANCES = [L1(), L2(), Linf(), SquaredL2()]


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(5, 3, 4, 6, generator=generator, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize(("distance", "order", "power"), [(L1(), 1, 1), (L2(), 2, 1), (SquaredL2(), 2, 2), (Linf(), np.inf, 1)])
def test_equals_numpy_norm(pair, distance, order, power):
    differences = (pair[0] - pair[1]).flatten(1).numpy()
    expected = [np.linalg.norm(difference, ord=order) ** power for difference in differences]
    np.testing.assert_allclose(distance(*pair).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
def test_one_embedded_image_is_compared_with_many(pair, distance):
    first, second = pair
    together = distance.compare(distance.embed(first[:1]), distance.embed(second))
    assert torch.equal(together, distance(first[:1].expand_as(second), second))


@pytest.mark.parametrize("distance", [L1(), L2(), SquaredL2()])
def test_gradient_where_images_are_equal_is_zero(pair, distance):
    first = pair[0].clone().requires_grad_()
    distance(first, pair[0]).sum().backward()
    assert torch.equal(first.grad, torch.zeros_like(first))


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("shape", [(3, 4, 6), (1, 1, 6), (1, 4, 1), (2, 6, 4)])
def test_channels_and_sizes_do_not_broadcast(distance, shape):
    first, second = torch.rand(2, 1, 4, 6), torch.rand(2, *shape)
    words = (
        rf"{type(distance).__name__}: expected images of one shape \(C, H, W\) to compare, got \(1, 4, 6\) and \({shape[0]}, "
    )
    for compared in (distance, lambda a, b: distance.to_each(a, b.unsqueeze(1))):
        with pytest.raises(GenclsError, match=words):
            compared(first, second)
