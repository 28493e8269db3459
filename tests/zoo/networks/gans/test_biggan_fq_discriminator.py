"""Quantised features against a loop over places, and the discriminator around them."""

import pytest
import torch
from torch.nn import functional as F

from gencls.core import GenclsError, seeded
from gencls.zoo.networks import FQDiscriminator
from gencls.zoo.networks.gans.fq_discriminator import FeatureQuantizer


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0):
        yield


def tiny(**settings):
    return FQDiscriminator(**{"width": 2, "num_classes": 3, "codes": 5, **settings})


def test_each_feature_becomes_the_nearest_vector():
    quantizer, maps = FeatureQuantizer(3, 7, commitment=0.5).eval(), torch.randn(2, 3, 4, 5)
    found, loss = quantizer(maps)
    expected = torch.empty_like(maps)
    for n in range(2):
        for i in range(4):
            for j in range(5):
                distances = (quantizer.embed - maps[n, :, i, j, None]).norm(dim=0)
                expected[n, :, i, j] = quantizer.embed[:, distances.argmin()]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(loss, 0.5 * (expected - maps).square().flatten(1).mean(1))


def test_gradients_pass_straight_through_and_commitment_pulls():
    quantizer, maps = FeatureQuantizer(3, 7).eval(), torch.randn(2, 3, 4, 4, requires_grad=True)
    weight = torch.randn(2, 3, 4, 4)
    found, loss = quantizer(maps)
    torch.testing.assert_close(torch.autograd.grad((found * weight).sum(), maps, retain_graph=True)[0], weight)
    (pull,) = torch.autograd.grad(loss.sum(), maps)
    torch.testing.assert_close(pull, 2 * (maps - found).detach() / 48)


def test_the_dictionary_follows_its_features_in_training_only():
    quantizer, maps = FeatureQuantizer(2, 3, decay=0.75), torch.randn(2, 2, 3, 3)
    quantizer.cluster_size.fill_(2.0)
    before = {key: value.clone() for key, value in quantizer.state_dict().items()}
    quantizer.eval()(maps)
    assert all(torch.equal(value, before[key]) for key, value in quantizer.state_dict().items())
    features = maps.movedim(1, 0).flatten(1)  # (C, places)
    nearest = torch.cdist(features.T, before["embed"].T).argmin(1)
    quantizer.train()(maps)
    sizes = torch.tensor([0.75 * 2 + 0.25 * (nearest == k).sum() for k in range(3)])
    sums = torch.stack([0.75 * before["embed_avg"][:, k] + 0.25 * features[:, nearest == k].sum(1) for k in range(3)], dim=1)
    torch.testing.assert_close(quantizer.cluster_size, sizes)
    torch.testing.assert_close(quantizer.embed_avg, sums)
    smoothed = (sizes + 1e-5) / (sizes.sum() + 3e-5) * sizes.sum()
    torch.testing.assert_close(quantizer.embed, sums / smoothed)


def test_the_codes_of_a_batch_are_chosen_before_the_dictionary_moves():
    quantizer, maps = FeatureQuantizer(2, 4), torch.randn(2, 2, 3, 3)
    quantizer.cluster_size.fill_(1.0)
    expected = quantizer.eval()(maps)[0]
    torch.testing.assert_close(quantizer.train()(maps)[0], expected)
    assert not torch.allclose(quantizer.eval()(maps)[0], expected)


def test_logits_are_those_of_the_features():
    network, images, labels = tiny(quantized=()).eval(), torch.rand(4, 3, 32, 32), torch.tensor([0, 2, 1, 2])

    def conv(maps, layer):
        return F.conv2d(maps, layer.normalized_weight(), layer.bias, padding=layer.kernel_size[0] // 2)

    maps = 2 * images - 1
    for index in range(4):
        block = network.blocks[index][0]
        inner = conv(conv(maps.relu() if index else maps, block.conv1).relu(), block.conv2)
        beside = conv(maps, block.conv_sc) if index < 2 else maps
        maps = F.avg_pool2d(inner + beside, 2) if index < 2 else inner + beside
    features = maps.relu().sum((2, 3))
    vectors = network.embed.normalized_weight()[labels]
    expected = (features @ network.linear.normalized_weight().T)[:, 0] + network.linear.bias + (vectors * features).sum(1)
    found = network(images, labels)
    torch.testing.assert_close(found.logits, expected)
    assert (found.commitment == 0).all()


def test_commitment_is_summed_over_the_quantisers():
    network, images, labels = tiny(quantized=(1, 3)).eval(), torch.rand(2, 3, 32, 32), torch.tensor([0, 2])
    seen = []
    for index in (1, 3):
        network.blocks[index][1].register_forward_hook(lambda module, inputs, output: seen.append(output[1]))
    torch.testing.assert_close(network(images, labels).commitment, seen[0] + seen[1])


def test_a_step_of_training_reaches_every_weight():
    network, labels = tiny().train(), torch.tensor([0, 1, 2])
    judged = network(torch.rand(3, 3, 32, 32), labels)
    (F.relu(1 - judged.logits) + judged.commitment).mean().backward()
    assert [key for key, value in network.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "expected width and num_classes of at least 1"),
        ({"quantized": (4,)}, r"expected quantized to be blocks in 0 .. 3, got \(4,\)"),
        ({"codes": 0}, "expected channels and codes of at least 1"),
        ({"decay": 1}, r"decay in \[0, 1\)"),
        ({"commitment": -1}, "commitment >= 0"),
        ({"sn_eps": -1}, "sn_eps >= 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(GenclsError, match=message):
        tiny(**settings)


def test_bad_images():
    with pytest.raises(GenclsError, match=r"expected images of shape \(N, 3, 32, 32\), got \(2, 3, 64, 64\)"):
        tiny()(torch.rand(2, 3, 64, 64), torch.tensor([0, 1]))
