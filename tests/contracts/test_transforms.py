import pytest
import torch

import gencls.defenses
from gencls.core import Transform, draws, keyed
from tests.contracts.defenses import FIXED, TRANSFORMS
from tests.contracts.tables import check_rows, public_classes


@pytest.fixture(params=TRANSFORMS)
def transform(request):
    return TRANSFORMS[request.param](seed=0).eval()


@pytest.fixture
def shaped(request, transform):
    """The shape of a batch that the transform takes, for a shape that it need not take."""
    fixed = FIXED.get(request.node.callspec.params["transform"])
    return lambda *shape: shape if fixed is None else (shape[0], *fixed)


@pytest.mark.parametrize("name", public_classes(gencls.defenses, Transform))
def test_every_transform_is_in_the_table(name):
    check_rows([name], TRANSFORMS, where="TRANSFORMS in tests/contracts/defenses.py", row='"{name}": lambda seed: {name}(...)')


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (3, 3, 7, 11), (64, 1, 28, 28)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_dtype_and_range(transform, shaped, shape, dtype):
    shape, transform = shaped(*shape), transform.to(dtype)
    for images in (torch.rand(shape, dtype=dtype), torch.zeros(shape, dtype=dtype), torch.ones(shape, dtype=dtype)):
        before = images.clone()
        found = transform(images)
        assert found.shape == images.shape
        assert found.dtype == dtype
        assert found.min() >= 0
        assert found.max() <= 1
        assert torch.equal(images, before)


def test_samples_do_not_depend_on_their_batch(transform, shaped):
    images = torch.rand(shaped(5, 3, 9, 9))
    with keyed(range(5)):
        together = transform(images)
    for i in range(5):
        with keyed([i]):
            torch.testing.assert_close(transform(images[i : i + 1])[0], together[i], rtol=0, atol=1e-6)


def test_several_draws_of_an_image_are_those_of_a_repeated_image(transform, shaped):
    images = torch.rand(shaped(3, 1, 9, 9))
    with keyed(range(3)), draws(range(4)):
        expected = transform(images.repeat_interleave(4, dim=0))
    with keyed(range(3)), draws(range(4)):
        found = transform.forward_draws(images, 4)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_stochastic_is_true_to_two_forwards(transform):
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(transform(images), transform(images)) is not transform.stochastic
    with keyed(range(len(images))) as streams:
        transform(images)
    assert streams.used is transform.stochastic
