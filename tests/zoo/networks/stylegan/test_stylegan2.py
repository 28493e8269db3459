"""StyleGAN2 against explicit sums. Its published numbers: tests/golden."""

import math

import numpy as np
import pytest
import torch
from scipy import signal
from torch.autograd import gradcheck

from gencls.core import GenclsError
from gencls.zoo.networks.stylegan.stylegan2 import EqualizedLinear, ModulatedConv2d, StyleGAN2, published_channels, upfirdn2d
from tests.style_models import LEVELS, SIZE, generator

BLUR = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 16


def naive_upfirdn2d(maps, kernel, up, pad):
    """One value at a time."""
    count, channels, height, width = maps.shape
    sparse = np.zeros((count, channels, height * up + sum(pad), width * up + sum(pad)))
    sparse[:, :, pad[0] : pad[0] + height * up : up, pad[0] : pad[0] + width * up : up] = maps
    rows, columns = kernel.shape
    out = np.zeros((count, channels, sparse.shape[2] - rows + 1, sparse.shape[3] - columns + 1))
    for n, c, y, x in np.ndindex(out.shape):
        out[n, c, y, x] = sum(
            kernel[rows - 1 - i, columns - 1 - j] * sparse[n, c, y + i, x + j] for i, j in np.ndindex(kernel.shape)
        )
    return out


def naive_modulated(maps, code, layer):
    """A kernel of its own for each image."""
    weight, affine, offset = (t.detach().numpy() for t in (layer.weight, layer.modulation.weight, layer.modulation.bias))
    _, outputs, inputs, size, _ = weight.shape
    images = []
    for image, row in zip(maps, code, strict=True):
        scale = affine @ row / math.sqrt(len(row)) + offset
        kernels = weight[0] * scale[None, :, None, None] / math.sqrt(inputs * size**2)
        if layer.demodulate:
            kernels = kernels / np.sqrt((kernels**2).sum((1, 2, 3), keepdims=True) + 1e-8)
        if layer.blur is None:
            channels = [[signal.correlate2d(image[i], kernels[o, i], "same") for i in range(inputs)] for o in range(outputs)]
        else:  # transposed: each value lays down the kernel, at twice its place
            sparse = np.zeros((inputs, 2 * image.shape[1] - 1, 2 * image.shape[2] - 1))
            sparse[:, ::2, ::2] = image
            channels = [[signal.convolve2d(sparse[i], kernels[o, i]) for i in range(inputs)] for o in range(outputs)]
        images.append(np.sum(channels, axis=1))
    images = np.stack(images)
    return images if layer.blur is None else naive_upfirdn2d(images, BLUR, 1, (1, 1))


@pytest.mark.parametrize(("up", "pad"), [(1, (0, 0)), (1, (1, 1)), (2, (2, 1)), (3, (0, 2))])
@pytest.mark.parametrize("shape", [(4, 4), (3, 2)])
def test_upfirdn2d(up, pad, shape):
    maps, kernel = torch.randn(2, 3, 5, 4, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    found = upfirdn2d(maps, kernel, up=up, pad=pad)
    expected = naive_upfirdn2d(maps.numpy(), kernel.numpy(), up, pad)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-12)
    small = maps[:1, :2, :4].requires_grad_()
    assert gradcheck(lambda m, k: upfirdn2d(m, k, up=up, pad=pad), (small, kernel.requires_grad_()))


@pytest.mark.parametrize(("kernel", "upsample"), [(1, False), (3, False), (3, True)])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulated_convolution(kernel, upsample, demodulate):
    layer = ModulatedConv2d(3, 2, kernel, 5, demodulate=demodulate, upsample=upsample).double()
    maps, code = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    expected = naive_modulated(maps.numpy(), code.numpy(), layer)
    torch.testing.assert_close(layer(maps, code), torch.from_numpy(expected), rtol=0, atol=1e-12)
    assert expected.shape[2:] == ((8, 10) if upsample else (4, 5))
    inputs = maps.requires_grad_(), code.requires_grad_(), layer.weight, layer.modulation.weight, layer.modulation.bias
    assert gradcheck(lambda m, c, *_: layer(m, c), inputs)


def test_equalized_linear():
    layer = EqualizedLinear(9, 4, rate=0.01, bias=0.3, activate=True)
    features = torch.randn(5, 9)
    assert 50 < layer.weight.std() < 200  # so that weight * rate is a standard normal
    values = features @ (layer.weight.T * 0.01 / 3) + 0.3
    expected = torch.where(values > 0, values, 0.2 * values) * math.sqrt(2)
    torch.testing.assert_close(layer(features), expected)


def test_mapping_does_not_see_the_length_of_its_input():
    network, normal = generator(), torch.randn(2, LEVELS, 64)
    codes = network.mapping(normal)
    torch.testing.assert_close(network.mapping(0.8 * normal), codes, rtol=0, atol=1e-5)
    torch.testing.assert_close(network.mapping(normal[1, 2][None]), codes[1, 2][None])


def test_sizes():
    assert published_channels(1024) == (512, 512, 512, 512, 512, 256, 128, 64, 32)
    assert published_channels(32, multiplier=1) == (512, 512, 512, 512)
    network = generator()
    assert (network.size, network.num_levels) == (SIZE, LEVELS)
    codes = network.mapping(torch.randn(2, 64))
    images = network(codes)
    assert images.shape == (2, 3, SIZE, SIZE)
    torch.testing.assert_close(network(codes[:, None].expand(-1, LEVELS, -1)), images)


def test_each_level_acts_from_its_own_size_on():
    """Level i changes the image; the last one only its colours: a linear map of the maps before."""
    network = generator()
    codes = torch.randn(1, LEVELS, 64).requires_grad_()
    (gradient,) = torch.autograd.grad(network(codes).square().sum(), codes)
    assert (gradient[0].norm(dim=1) > 0).all()
    with torch.no_grad():
        images = [network(torch.cat([codes[:, :-1], c * codes[:, -1:]], dim=1)) for c in (0, 1, 2)]
    torch.testing.assert_close(images[2] - images[1], images[1] - images[0], rtol=0, atol=1e-4)


def test_noise_is_fixed_unless_given():
    network, codes = generator(), torch.randn(2, LEVELS, 64)
    images = network(codes)
    assert torch.equal(network(codes), images)
    stored = [network.noises.get_buffer(f"noise_{i}") for i in range(LEVELS - 1)]
    assert [noise.shape[-1] for noise in stored] == [4, 8, 8, 16, 16]
    assert torch.equal(network(codes, stored), images)
    own = [torch.cat([noise, torch.randn_like(noise)]) for noise in stored]
    torch.testing.assert_close(network(codes, own)[0], images[0])
    assert (network(codes, own)[1] - images[1]).abs().max() > 0.01


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 5, 64), (2, LEVELS, 32), (2, 32), (64,), (2, 1, LEVELS, 64)])
def test_codes_of_another_shape(shape):
    with pytest.raises(GenclsError, match=r"expected codes of shape \(N, 6, 64\), got \("):
        generator()(torch.randn(shape))


@pytest.mark.parametrize("size", [0, 2, 48])
def test_sizes_that_no_doubling_reaches(size):
    with pytest.raises(GenclsError, match=f"expected a size of 4, 8, 16, ... pixels, got {size}"):
        published_channels(size)


def test_too_few_noise_tensors():
    with pytest.raises(GenclsError, match="expected 5 noise tensors, got 1"):
        generator()(torch.randn(2, 64), [torch.zeros(1, 1, 4, 4)])


@pytest.mark.parametrize("settings", [{"channels": (4, 0)}, {"style_dim": 0}, {"mapping_layers": 0}, {"channels": ()}])
def test_sizes_below_one(settings):
    with pytest.raises(GenclsError, match="of at least 1, got"):
        StyleGAN2(**{"channels": (4, 4), "style_dim": 3, "mapping_layers": 1, **settings})
