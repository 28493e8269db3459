import copy
import threading
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.utils.checkpoint import checkpoint

from gencls.core import GenclsError
from gencls.perceptual import FeatureDistance


@pytest.fixture
def network():
    return nn.Sequential(
        OrderedDict(
            low=nn.Conv2d(3, 4, 3, padding=1),
            act=nn.Tanh(),
            high=nn.Conv2d(4, 5, 3, stride=2),
            flat=nn.Flatten(),
            head=nn.Linear(45, 7),
        )
    ).double()


@pytest.fixture
def pair():
    return tuple(torch.rand(2, 3, 3, 8, 7, dtype=torch.float64))


def by_hand(maps, others, normalize):
    """Eq. 3.6 in loops over layers and channels."""
    total = 0.0
    for one, other in zip(maps, others, strict=True):
        for a, b in zip(one, other, strict=True):
            size = np.sqrt(a.size)
            a, b = (a * size / np.linalg.norm(a), b * size / np.linalg.norm(b)) if normalize else (a, b)
            total += np.square(a - b).sum() / len(one)
    return total / len(maps)


@pytest.mark.parametrize("normalize", [True, False])
def test_equals_the_equation_in_loops(network, pair, normalize):
    found = FeatureDistance(network, ("act", "high"), normalize=normalize)(*pair)
    act = [torch.tanh(network.low(images)) for images in pair]
    high = [network.high(one) for one in act]
    for i in range(3):
        maps = [[act[j][i].detach().numpy(), high[j][i].detach().numpy()] for j in range(2)]
        assert found[i].item() == pytest.approx(by_hand(*maps, normalize), rel=1e-12)


def test_a_sum_on_paper():
    """Channels (3, 4) and (4, 3) have directions (3, 4) sqrt(2)/5 and (4, 3) sqrt(2)/5; a channel that is doubled has one."""
    identity = nn.Identity()
    distance = FeatureDistance(identity)
    first, second = (torch.tensor(values, dtype=torch.float64).view(1, 2, 1, 2) for values in ([3, 4, 1, 1], [4, 3, 2, 2]))
    assert distance(first, second).item() == pytest.approx((2 * 2 / 25) / 2)
    assert FeatureDistance(identity, normalize=False)(first, second).item() == pytest.approx((1 + 1 + 1 + 1) / 2)


def test_the_norm_of_each_channel_is_the_root_of_its_size(network, pair):
    for part in FeatureDistance(network, ("low", "high")).embed(pair[0]):
        norms = torch.linalg.vector_norm(part.flatten(2), dim=-1)
        torch.testing.assert_close(norms, torch.full_like(norms, part.shape[-2:].numel() ** 0.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-7, 1e-5])
def test_weak_channels_have_finite_values_and_two_finite_derivatives(dtype, size):
    distance = FeatureDistance(nn.Identity())
    images = torch.rand(2, 2, 4, 4, dtype=dtype)
    images[:, 1] *= size
    images.requires_grad_()
    value = distance(images, torch.rand(2, 2, 4, 4, dtype=dtype))
    (first,) = torch.autograd.grad(value.sum(), images, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), images)
    assert value.isfinite().all()
    assert first.isfinite().all()
    assert second.isfinite().all()
    if size < 1e-6:
        assert not first[:, 1].any()


def test_dead_against_alive_counts_the_alive_channel():
    first, second = torch.zeros(1, 1, 2, 2), torch.rand(1, 1, 2, 2)
    assert FeatureDistance(nn.Identity())(first, second).item() == pytest.approx(4.0)


def test_second_derivatives_by_finite_differences(network, pair):
    distance = FeatureDistance(network, ("act", "high"))
    images = pair[0][:1, :, :5, :5].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda one: distance(one, pair[1][:1, :, :5, :5]), images)


def test_layers_behind_the_last_one_do_not_run(network, pair):
    seen = []
    distance = FeatureDistance(network, ("act", "low"))
    distance.network.high.register_forward_hook(lambda *_: seen.append(1))
    assert [part.shape[1:] for part in distance.embed(pair[0])] == [(4, 8, 7), (4, 8, 7)]
    assert not seen
    assert torch.equal(distance.embed(pair[0])[0], FeatureDistance(network, ("act",)).embed(pair[0])[0])


def test_a_network_may_return_its_maps(network, pair):
    found = FeatureDistance(Both(network))(*pair)
    assert torch.equal(found, FeatureDistance(network, ("low", "high"))(*pair))
    assert torch.equal(found, FeatureDistance(Both(network, mapping=True))(*pair))


class Both(nn.Module):
    def __init__(self, network, *, mapping=False):
        super().__init__()
        self.network, self.mapping = network, mapping

    def forward(self, images):
        low = self.network.low(images)
        maps = low, self.network.high(self.network.act(low))
        return dict(zip("ab", maps, strict=True)) if self.mapping else maps


def test_vectors_of_features_are_maps_of_one_pixel(pair):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 7, 6)).double()
    found = FeatureDistance(network, ("1",), normalize=False)(*pair)
    first, second = (network(images) for images in pair)
    torch.testing.assert_close(found, (first - second).square().mean(1).detach(), rtol=1e-12, atol=0)


def test_the_network_that_was_given_stays_as_it_is(network, pair):
    network.train()
    before = copy.deepcopy(network.state_dict())
    distance = FeatureDistance(network, ("act",)).train()
    distance(*pair)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not network.low._forward_hooks
    assert not any(part.training or part._forward_hooks for part in distance.modules())
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())


def test_a_failed_run_leaves_no_hooks(network):
    distance = FeatureDistance(network, ("act", "head"))
    with pytest.raises(RuntimeError):
        distance(torch.rand(1, 3, 1, 1, dtype=torch.float64), torch.rand(1, 3, 1, 1, dtype=torch.float64))
    assert not any(part._forward_hooks for part in distance.modules())


def test_activations_in_place_do_not_write_into_a_map(pair):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3)).double()
    parts = FeatureDistance(network, ("0", "2"), normalize=False).embed(pair[0])
    assert torch.equal(parts[0], network[0](pair[0]))
    assert network[1].inplace


class Overwrites(nn.Module):
    def __init__(self):
        super().__init__()
        self.low, self.high = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)

    def forward(self, images):
        low = self.low(images)
        low.clamp_(min=0)
        return self.high(low)


def test_a_map_that_is_overwritten_is_refused(pair):
    distance = FeatureDistance(Overwrites().double(), ("low", "high"))
    with pytest.raises(GenclsError, match="got low, whose map the network overwrites in place"):
        distance.embed(pair[0])
    with torch.inference_mode():
        assert (FeatureDistance(Overwrites().double(), ("low", "high"), normalize=False).embed(pair[0])[0] < 0).any()


def test_threads_on_one_distance_keep_their_maps_apart(network):
    distance = FeatureDistance(network, ("low", "high"))
    images = torch.rand(8, 2, 3, 8, 7, dtype=torch.float64)
    expected, found = [distance.embed(one) for one in images], [[] for _ in images]

    def work(index):
        found[index] = [distance.embed(images[index]) for _ in range(30)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for right, runs in zip(expected, found, strict=True):
        assert len(runs) == 30
        assert all(torch.equal(a, b) for parts in runs for a, b in zip(parts, right, strict=True))
    assert not any(part._forward_hooks for part in distance.modules())


class Asks(nn.Module):
    """Between its two layers it runs the distance that it is in, on other images."""

    def __init__(self):
        super().__init__()
        self.low, self.high, self.inside = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3), None

    def forward(self, images):
        low = self.low(images)
        if self.inside is not None:
            inside, self.inside = self.inside, None
            inside(1 - images)
        return self.high(low)


def test_a_run_inside_a_run_keeps_its_own_maps(pair):
    distance = FeatureDistance(Asks().double(), ("low", "high"))
    expected = distance.embed(pair[0])
    distance.network.inside = distance.embed
    assert all(torch.equal(a, b) for a, b in zip(distance.embed(pair[0]), expected, strict=True))


def test_recomputed_runs_give_the_same_gradient(network, pair):
    distance = FeatureDistance(network, ("act", "high"))
    gradients = []
    for run in (distance, lambda one, other: checkpoint(distance, one, other, use_reentrant=False)):
        images = pair[0].clone().requires_grad_()
        run(images, pair[1]).sum().backward()
        gradients.append(images.grad)
    assert torch.equal(*gradients)


def test_layers_of_a_published_network():
    vgg = torchvision.models.vgg11(weights=None)
    distance = FeatureDistance(vgg, ("features.1", "features.4"))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(distance.embed(images)[1].sign(), vgg.features[:5](images).sign())


def test_grey_images_are_repeated_where_asked(network):
    first, second = torch.rand(2, 2, 1, 8, 7, dtype=torch.float64)
    with pytest.raises(GenclsError, match=r"expected images with 3 channels.*got 1 channel; set grey_as_rgb=True"):
        FeatureDistance(network, ("act",))(first, second)
    found = FeatureDistance(network, ("act",), grey_as_rgb=True)(first, second)
    assert torch.equal(found, FeatureDistance(network, ("act",))(first.repeat(1, 3, 1, 1), second.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (("hihg",), r"Sequential has no layer 'hihg'; did you mean 'high'\? expected names among low, act, high, flat, head"),
        ((), "expected at least one layer of Sequential, got none"),
        (("low", "low"), "expected each layer once, got low more than once"),
        ("low", "expected layers to be a sequence"),
    ],
)
def test_wrong_layers(network, layers, message):
    with pytest.raises(GenclsError, match=message):
        FeatureDistance(network, layers)


class Aside(nn.Module):
    def __init__(self):
        super().__init__()
        self.low, self.unused = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)

    def forward(self, images):
        return self.low(images)


@pytest.mark.parametrize(
    ("network", "layers", "images", "message"),
    [
        (Aside(), ("low",), torch.rand(2, 4, 8, 8), "expected images with 3 channels, .*, got 4 channels"),
        (nn.Conv2d(1, 2, 3), None, torch.rand(2, 3, 8, 8), "images with 1 channel, which the network takes, got 3 channels"),
        (Aside(), ("low",), torch.rand(2, 3, 8), r"expected floating-point images of shape \(N, C, H, W\), got .* \(2, 3, 8\)"),
        (Aside(), ("low",), torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "got torch.uint8"),
        (Aside(), ("low",), torch.rand(2, 3, 8, 8).double(), "network's dtype, torch.float32, got torch.float64; convert"),
        (Aside(), ("unused",), torch.rand(2, 3, 8, 8), "got unused, which does not run"),
        (Aside(), ("low",), torch.rand(2, 3, 3, 3), r"more than one pixel, got \(2, 4, 1, 1\) from layer low"),
        (
            nn.Flatten(0),
            None,
            torch.rand(2, 3, 4, 4),
            r"expected a map \(N, c, h, w\) or \(N, c\) .* layer 0, got shape \(96,\)",
        ),
    ],
)
def test_wrong_images_and_maps(network, layers, images, message):
    with pytest.raises(GenclsError, match=f"FeatureDistance: .*{message}"):
        FeatureDistance(network, layers)(images, images)
