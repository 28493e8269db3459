"""NVAE: what mixing, sampling and training see, level by level. Its numbers are compared in tests/golden."""

import copy

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from gencls.core import GenclsError, keyed, seeded
from gencls.defenses import MLVGMPurification
from gencls.zoo.networks import LogisticMixture, adaptive_groups
from gencls.zoo.networks.nvae.cells import WeightNormConv2d
from gencls.zoo.networks.nvae.hierarchical_vae import DiagonalGaussian
from gencls.zoo.networks.nvae.nvlabs_cells import AutoregressiveFlow, NormedConv2d
from gencls.zoo.networks.nvae.regularizers import SpectralPenalty, batch_norm_penalty
from tests.nvae_models import SETTINGS, build


@pytest.fixture(scope="module", params=SETTINGS)
def network(request):
    return build(request.param)


@pytest.fixture
def images(network):
    return torch.rand(3, *network.image_shape)


def sampled(level, encoded, sampled):
    return sampled


def half(level, encoded, sampled):
    return 0.5 * encoded + 0.5 * sampled


def test_codes_depend_on_the_mixed_codes_above_and_on_no_others(network, images):
    """The interleaving: a change at level i reaches both codes of the levels below, and neither those of i nor above."""

    def codes(changed):
        seen = []

        def mix(level, encoded, sampled):
            seen.append((encoded, sampled))
            return half(level, encoded, sampled) + (1.0 if level == changed else 0.0)

        with keyed([7, 8, 9]):
            image = network.autoencode(images, mix)
        return seen, image

    plain, image = codes(None)
    for changed in range(network.num_levels):
        seen, other = codes(changed)
        assert not torch.equal(other, image)
        for level, (before, after) in enumerate(zip(plain, seen, strict=True)):
            for one, two in zip(before, after, strict=True):
                assert torch.equal(one, two) == (level <= changed)


def test_levels_are_coarse_to_fine_with_the_declared_shapes(network, images):
    shapes = []
    network.autoencode(images, lambda level, encoded, sampled: shapes.append(encoded.shape[1:]) or encoded)
    assert shapes == list(network.latent_shapes)
    sides = [shape[1] for shape in network.latent_shapes]
    assert sides == sorted(sides)


def test_the_encoder_runs_once_per_image(network, images):
    rows = []
    first = next(module for module in network.modules() if isinstance(module, WeightNormConv2d | NormedConv2d))
    hook = first.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    network.autoencode(images, half)
    network(images)
    MLVGMPurification(network, "linear").forward_draws(images, 4)
    hook.remove()
    assert rows == [3, 3, 3]


def test_draws_are_scaled_by_the_temperature():
    network = build("rgb", temperature=0.25)
    draws = {}

    def mix(level, encoded, sampled):
        draws[level] = sampled
        return sampled

    images = torch.rand(400, 3, 16, 16)
    network.autoencode(images, mix)
    assert draws[0].std().item() == pytest.approx(0.25, rel=0.03)  # 12,800 draws of N(0, 0.25^2)
    network.temperature = 0.0
    assert torch.equal(network.autoencode(images[:2], sampled), network.autoencode(images[:2], sampled))


def test_samples_of_the_prior(network):
    with keyed([4, 5]) as streams:
        mixture = network.sample(2)
    assert isinstance(mixture, LogisticMixture)
    assert mixture.mean().shape == (2, *network.image_shape)
    with keyed([5]):
        torch.testing.assert_close(network.sample(1).mean(), mixture.mean()[1:], rtol=0, atol=1e-5)
    assert not streams.shared


def test_kl_terms_are_those_of_torch(network, images):
    """Without flows KL(q || p); with flows log q(z) - log p(flow(z)) of the draw."""
    gaussians, drawn = [], []
    network.noise = lambda like: drawn.append(torch.randn_like(like)) or drawn[-1]
    prior, posterior = network.prior, network.posterior
    network.prior = lambda *args: gaussians.append(prior(*args)) or gaussians[-1]
    network.posterior = lambda *args: gaussians.append(posterior(*args)) or gaussians[-1]
    mixture, kl = network(images)
    del network.noise, network.prior, network.posterior
    assert kl.shape == (3, network.num_levels)
    assert mixture.log_prob(images).shape == (3, *network.image_shape[1:])
    for level in range(network.num_levels):
        p, q = (Normal(g.mean, g.scale) for g in gaussians[2 * level : 2 * level + 2])
        code = q.loc + q.scale * drawn[level]
        moved = network.flow(level, code)
        expected = kl_divergence(q, p) if moved is code else q.log_prob(code) - p.log_prob(moved)
        torch.testing.assert_close(kl[:, level], expected.flatten(1).sum(1), rtol=1e-4, atol=1e-3)


def test_gaussian():
    first, second = (DiagonalGaussian(8 * torch.randn(2, 3, 4), 8 * torch.randn(2, 3, 4), floor=0.01) for _ in range(2))
    residual = first.residual(second.mu, second.log_sigma)
    assert residual.mean.abs().max() <= 5
    torch.testing.assert_close(residual.mean, 5 * ((first.mu + second.mu) / 5).tanh())
    torch.testing.assert_close(residual.scale, (5 * ((first.log_sigma + second.log_sigma) / 5).tanh()).exp() + 0.01)
    p, q = Normal(first.mean, first.scale), Normal(residual.mean, residual.scale)
    torch.testing.assert_close(residual.kl(first), kl_divergence(q, p).flatten(1).sum(1), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(residual.log_prob(first.mean), q.log_prob(first.mean).flatten(1).sum(1))
    assert torch.equal(first.kl(first), torch.zeros(2))


def test_gradients_of_training_reach_the_weights(network, images):
    trained = copy.deepcopy(network).train()
    mixture, kl = trained(images)
    (kl.sum(1) - mixture.log_prob(images).sum((1, 2))).mean().backward()
    without = [name for name, parameter in trained.named_parameters() if parameter.grad is None]
    assert all(".layers." in name for name in without), "only weights of constant flows have no gradient"
    assert all(parameter.grad.isfinite().all() for parameter in trained.parameters() if parameter.grad is not None)


def test_one_step_of_training_lowers_the_bound_and_the_penalties():
    network = build("rgb").train()
    images = torch.rand(8, 3, 16, 16)
    spectral = SpectralPenalty(network)
    optimizer = torch.optim.Adamax(network.parameters(), lr=0.01)

    def loss():
        with seeded(3):
            mixture, kl = network(images)
        return (kl.sum(1) - mixture.log_prob(images).sum((1, 2))).mean() + 0.01 * (spectral() + batch_norm_penalty(network))

    first = loss()
    for _ in range(5):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss() < first


def test_the_spectral_penalty_is_the_sum_of_the_largest_singular_values():
    network = build("rgb")
    weights = [module.effective_weight() for module in network.modules() if isinstance(module, WeightNormConv2d)]
    weights += [module.weight for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    expected = sum(torch.linalg.matrix_norm(weight.flatten(1), ord=2) for weight in weights)
    penalty = SpectralPenalty(network, first_steps=200)()
    torch.testing.assert_close(penalty, expected, rtol=1e-3, atol=0)
    penalty.backward()
    assert network.to_logits[1].parametrizations["weight"].original0.grad.abs().sum() > 0


def test_the_batch_norm_penalty_is_the_sum_of_the_largest_scales():
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(2), torch.nn.Linear(2, 2), torch.nn.BatchNorm2d(3))
    network[0].weight.data = torch.tensor([0.5, -2.0])
    assert batch_norm_penalty(network) == 3


@pytest.mark.parametrize("mirrored", [False, True])
def test_flows_see_only_what_comes_before(mirrored):
    """The Jacobian is triangular with ones on the diagonal, in the order of (row, column, channel)."""
    flow = AutoregressiveFlow(2, mirrored=mirrored).double()
    codes = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(flow, codes)[0, :, :, :, 0].permute(1, 2, 0, 4, 5, 3).reshape(32, 32)
    if mirrored:  # the positions, not the channels
        jacobian = jacobian.view(16, 2, 16, 2).flip(0, 2).reshape(32, 32)
    assert torch.equal(jacobian.diagonal(), torch.ones(32, dtype=torch.float64))
    assert not jacobian.triu(1).any()
    assert jacobian.tril(-1).count_nonzero() > 100


def test_adaptive_groups_have_the_fewest_at_the_coarsest_scale():
    assert adaptive_groups(3, 20) == (5, 10, 20)
    assert adaptive_groups(3, 8, least=4) == (4, 4, 8)


def test_images_of_another_shape_in_training():
    with pytest.raises(GenclsError, match=r"NVAE: expected floating-point images of shape \(N, 3, 16, 16\), got torch.float32"):
        build("rgb")(torch.rand(2, 3, 32, 16))


@pytest.mark.parametrize("name", ["rgb", "NVlabs"])
@pytest.mark.parametrize(
    "wrong",
    [
        {"groups": ()},
        {"groups": (2, 0)},
        {"mixtures": 0},
        {"flows": -1},
        {"image_shape": (3, 16, 18)},
        {"image_shape": (0, 16, 16)},
        {"blocks": -1},
    ],
)
def test_sizes_that_no_network_has(name, wrong):
    with pytest.raises(GenclsError, match="NVAE: expected numbers >= 1"):
        build(name, **wrong)


def test_towers_of_nothing():
    for wrong in ({"cells": 0}, {"block_cells": 0}):
        with pytest.raises(GenclsError, match="NVAE: expected numbers >= 1"):
            build("rgb", **wrong)
    for wrong in ({"cells": (1, 0)}, {"block_cells": (0, 1)}, {"groups": (1,)}):
        with pytest.raises(GenclsError, match="NVlabsNVAE: expected numbers >= 1"):
            build("NVlabs", **wrong)


def test_negative_temperature():
    with pytest.raises(GenclsError, match="expected temperature >= 0, got -1"):
        build("rgb", temperature=-1)
