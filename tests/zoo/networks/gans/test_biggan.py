"""BigGAN's layers against other ways to compute them, and what is asked of the generator."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gencls.core import GenclsError, seeded
from gencls.zoo.networks import BigGAN
from gencls.zoo.networks.gans.biggan import WIDTHS
from gencls.zoo.networks.gans.biggan_layers import (
    Attention,
    ConditionalBatchNorm,
    SNConv2d,
    SNEmbedding,
    SNLinear,
    SpectralWeight,
)

HIERARCHICAL = {"latent_dim": 9, "shared_dim": 4, "attention": (8,)}
EMBEDDINGS = {"latent_dim": 6, "shared_dim": None, "hierarchical": False, "attention": ()}


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0):
        yield


def tiny(**settings):
    return BigGAN(**{"size": 32, "width": 2, "num_classes": 3, **HIERARCHICAL, **settings})


def settle(network):
    """As after training: stored vectors of the largest singular values, statistics that are not those of a new network."""
    for part in network.modules():
        if isinstance(part, SpectralWeight):
            part.u0.copy_(torch.linalg.svd(part.weight.detach().flatten(1)).U[:, 0])
    for key, buffer in network.named_buffers():
        if key.endswith("stored_mean"):
            nn.init.normal_(buffer)
        if key.endswith("stored_var"):
            nn.init.uniform_(buffer, 0.5, 2.0)
    return network.eval()


@pytest.mark.parametrize(
    ("kind", "sizes"), [(SNConv2d, (5, 4, 3)), (SNConv2d, (6, 4, 1)), (SNLinear, (5, 7)), (SNEmbedding, (6, 3))]
)
def test_spectral_norm_becomes_that_of_the_singular_values(kind, sizes):
    layer = kind(*sizes).double()
    values = torch.linalg.svdvals(layer.weight.detach().flatten(1))
    assert values[1] < 0.95 * values[0]  # the error falls as the square of their ratio
    largest = values.max()
    for _ in range(200):
        layer.train().normalized_weight()
    torch.testing.assert_close(layer.eval().normalized_weight(), layer.weight / largest)
    torch.testing.assert_close(layer.sv0, largest.view(1))


def test_one_power_step_in_eval_mode_and_nothing_is_stored():
    layer = SNLinear(3, 2).double()
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    matrix, u = layer.weight.detach(), layer.u0
    v = (u @ matrix) / (u @ matrix).norm()
    sigma = (v @ matrix.T).norm()  # u is along v W^T
    for _ in range(2):  # the second look begins with the same u_0
        torch.testing.assert_close(layer.eval().normalized_weight(), matrix / sigma)
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())
    layer.train().normalized_weight()
    torch.testing.assert_close(layer.u0, v @ matrix.T / sigma)
    torch.testing.assert_close(layer.sv0, sigma.view(1))


def test_gradients_of_weights_go_through_sigma_alone():
    layer = SNLinear(3, 2, bias=False).double().eval()
    v = F.normalize(layer.u0 @ layer.weight.detach())
    u = F.normalize(v @ layer.weight.detach().T)
    weight = layer.weight.detach().clone().requires_grad_()
    expected = torch.autograd.grad((weight / (u @ weight @ v.T)).square().sum(), weight)
    found = torch.autograd.grad(layer.normalized_weight().square().sum(), layer.weight)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("side", [4, 8, 11])
def test_upsampling_and_convolution_are_one(kernel, side):
    layer, maps = SNConv2d(3, 5, kernel, upsample=True).double().eval(), torch.randn(2, 3, side, side, dtype=torch.float64)
    upsampled = maps.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = F.conv2d(upsampled, layer.normalized_weight(), layer.bias, padding=kernel // 2)
    torch.testing.assert_close(layer(maps), expected)


@pytest.mark.parametrize("condition", [None, 6])
def test_batch_norm_is_torchs(condition):
    norm = settle(ConditionalBatchNorm(4, condition, 3, eps=1e-3, sn_eps=1e-6))
    plain, maps = nn.BatchNorm2d(4, eps=1e-3, affine=False), torch.randn(5, 4, 3, 3) * 2 + 1
    plain.running_mean.copy_(norm.stored_mean)
    plain.running_var.copy_(norm.stored_var)
    given = torch.randint(3, (5,)) if condition is None else torch.randn(5, condition)
    scale, shift = 1 + norm.gain(given)[..., None, None], norm.bias(given)[..., None, None]
    for mode in (True, False):
        torch.testing.assert_close(norm.train(mode)(maps, given), plain.train(mode)(maps) * scale + shift)
    torch.testing.assert_close(norm.stored_mean, plain.running_mean)
    torch.testing.assert_close(norm.stored_var, plain.running_var)


def test_attention_place_by_place():
    layer, maps = Attention(16, sn_eps=1e-6).double().eval(), torch.randn(1, 16, 4, 4, dtype=torch.float64)
    nn.init.constant_(layer.gamma, 0.7)
    asked, offered, taken = layer.theta(maps)[0], layer.phi(maps)[0], layer.g(maps)[0]
    windows = [(slice(i, i + 2), slice(j, j + 2)) for i in (0, 2) for j in (0, 2)]
    mixed = torch.zeros(1, 8, 4, 4, dtype=torch.float64)
    for i in range(4):
        for j in range(4):
            scores = torch.stack([asked[:, i, j] @ offered[:, a, b].amax((1, 2)) for a, b in windows]).exp()
            values = [taken[:, a, b].amax((1, 2)) for a, b in windows]
            mixed[0, :, i, j] = sum(s * value for s, value in zip(scores / scores.sum(), values, strict=True))
    torch.testing.assert_close(layer(maps), maps + 0.7 * layer.o(mixed))


@pytest.mark.parametrize("layout", [HIERARCHICAL, EMBEDDINGS], ids=["hierarchical", "embeddings"])
def test_first_and_second_derivatives_in_the_latents(layout):
    network = settle(tiny(**{**layout, "width": 1, "attention": ()})).double().requires_grad_(False)
    labels, weight = torch.tensor([2, 0]), torch.randn(2, 3, 32, 32, dtype=torch.float64)

    def loss(codes):
        return (network((codes,), labels) * weight).sum()

    codes = torch.randn(2, *network.latent_shapes[0], dtype=torch.float64, requires_grad=True)
    direction = torch.randn_like(codes)
    (gradient,) = torch.autograd.grad(loss(codes), codes, create_graph=True)
    (curvature,) = torch.autograd.grad((gradient * direction).sum(), codes)
    step = 1e-6 * direction
    with torch.no_grad():
        slope = (loss(codes + step) - loss(codes - step)) / 2e-6
    torch.testing.assert_close((gradient * direction).sum().detach(), slope, rtol=1e-4, atol=1e-6)
    ends = [torch.autograd.grad(loss(codes + sign * step), codes)[0] for sign in (1, -1)]
    torch.testing.assert_close(curvature, (ends[0] - ends[1]) / 2e-6, rtol=1e-3, atol=1e-4)


def test_every_chunk_of_the_latent_matters_and_only_from_its_block_on():
    network = settle(tiny(latent_dim=11))  # four chunks of 2; three numbers are too many
    assert network.latent_shapes == (torch.Size([8]),)
    latents = torch.randn(1, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(network((latents,), torch.tensor([1])).square().sum(), latents)
    assert (gradient.view(4, 2).abs().amax(1) > 0).all()
    seen = []
    for block in network.blocks:
        block[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    network((latents,), torch.tensor([1]))
    for index, output in enumerate(seen):
        (gradient,) = torch.autograd.grad(output.square().sum(), latents, retain_graph=True)
        assert (gradient.view(4, 2).abs().amax(1) > 0).tolist() == [True] * (index + 2) + [False] * (2 - index)


def test_labels_choose_the_class():
    network, latents = settle(tiny(**EMBEDDINGS)), torch.randn(1, 6).expand(3, -1)
    first, second, third = network((latents,), torch.arange(3))
    assert (first - second).abs().max() > 1e-3
    assert (second - third).abs().max() > 1e-3


@pytest.mark.parametrize("size", WIDTHS)
def test_images_have_the_size_of_the_layout(size):
    with torch.device("meta"):
        network = BigGAN(size=size, width=8, num_classes=2, attention=(16,))
        assert network.eval().decode_all((torch.empty(1, 2, *network.latent_shapes[0]),)).shape == (1, 2, 3, size, size)


def test_the_published_image_is_ours_in_other_units():
    network, latents = settle(tiny()), (torch.randn(2, 8),)
    labels = torch.tensor([0, 2])
    seen = []
    network.output_layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    torch.testing.assert_close(2 * network(latents, labels) - 1, seen[0].tanh())


def test_training_updates_statistics_and_power_vectors():
    network = tiny().train()
    for part in network.modules():
        if isinstance(part, SpectralWeight):
            nn.init.normal_(part.weight)  # orthogonal ones have sigma 1 from the start
    before = {key: value.clone() for key, value in network.state_dict().items()}
    loss = network((torch.randn(4, 8),), torch.tensor([0, 1, 2, 0])).square().mean()
    loss.backward()
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {key for key in before if key.rpartition(".")[2] in ("u0", "sv0", "stored_mean", "stored_var")}
    without = [key for key, value in network.named_parameters() if value.grad is None]
    assert without == []


def test_truncation_scales_the_draws():
    network = tiny(truncation=0.5)
    with seeded(1):
        (halved,) = network.sample_latents(7)
    with seeded(1):
        (whole,) = network.sample_latents(7, truncation=1)
    torch.testing.assert_close(halved, whole / 2)
    with seeded(1):
        torch.testing.assert_close(whole, torch.randn(7, 8))
    torch.testing.assert_close(network.log_prior((whole,)), -whole.square().sum(1) / 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 48}, "expected size to be one of 32, 64, 128, 256, 512, got 48"),
        ({"width": 0}, "of at least 1, got 0"),
        ({"shared_dim": 0}, "of at least 1, got 2, 3, 9 and 0"),
        ({"shared_dim": None}, r"expected a shared embedding \(shared_dim\) for hierarchical latents, got None"),
        ({"latent_dim": 3}, "expected latent_dim >= 4, one for each chunk, got 3"),
        ({"attention": (4,)}, r"expected attention at sizes with at least 8 channels, among {8: 8, 16: 8, 32: 8}"),
        ({"attention": (8,), "width": 1}, "at least 8 channels"),
        ({"sn_eps": -1.0}, "expected bn_eps and sn_eps >= 0, got 1e-05 and -1.0"),
        ({"truncation": 0}, "expected truncation > 0, got 0"),
        ({"truncation": float("nan")}, "expected truncation to be a finite number"),
        ({"num_classes": 2.5}, "expected num_classes to be an int"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(GenclsError, match=message):
        tiny(**settings)


@pytest.mark.parametrize(
    ("latents", "labels", "message"),
    [
        (
            [torch.zeros(2, 8)],
            torch.tensor([0, 3]),
            "expected labels in 0 .. 2, since the generator has 3 classes; got labels from 0 to 3",
        ),
        ([torch.zeros(2, 8)], torch.tensor([-1, 0]), "got labels from -1 to 0"),
        ([torch.zeros(2, 8)], torch.zeros(2), "expected labels int64 of shape"),
        ([torch.zeros(2, 9)], torch.tensor([0, 1]), r"expected one level of latents, of shape \(2, 8\); got \[\(2, 9\)\]"),
        ([torch.zeros(2, 8)] * 2, torch.tensor([0, 1]), "expected one level of latents"),
    ],
)
def test_bad_latents_and_labels(latents, labels, message):
    with pytest.raises(GenclsError, match=message):
        tiny().eval()(tuple(latents), labels)


def test_latents_for_other_classes_than_there_are():
    with pytest.raises(GenclsError, match=r"expected one level of latents, of shape \(2, 3, 8\); got \[\(2, 5, 8\)\]"):
        tiny().eval().decode_all((torch.zeros(2, 5, 8),))


def test_bad_truncation_of_a_draw():
    with pytest.raises(GenclsError, match="expected truncation > 0, got -1"):
        tiny().sample_latents(2, truncation=-1)
