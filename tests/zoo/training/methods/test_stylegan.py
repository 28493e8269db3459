"""Training of StyleGAN2 and its encoder: losses against closed forms, short runs on real digits, cards."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gencls.core import GenclsError, keyed, seeded
from gencls.zoo import load_data, load_generator
from gencls.zoo.checkpoints.cards import read_card
from gencls.zoo.networks import SmallStyleAutoencoder, SmallStyleEncoder, StyleGAN2, StyleGAN2Discriminator
from gencls.zoo.networks.stylegan.latents import mixed_codes
from gencls.zoo.training import PRESETS, train
from gencls.zoo.training.base import Moment
from gencls.zoo.training.functional import move_average, path_lengths, r1_penalty
from gencls.zoo.training.methods.generators import autoencoded, samples
from gencls.zoo.training.methods.stylegan import StylePreset, StyleTraining
from gencls.zoo.training.views.perturbations import Plain
from tests.trainings import logged, resumed

TINY: dict[str, Any] = {"data": "mnist-embedded", "limit": 128, "progress": False, "measured": 20}


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with seeded(0):
        yield


def small_style() -> StylePreset:
    settings = PRESETS["stylegan2-fashion"]
    assert isinstance(settings, StylePreset)
    return replace(
        settings,
        channels=(8, 8, 8, 8),
        style_dim=16,
        mapping_layers=1,
        encoder_widths=(8, 8, 8),
        encoder_share=0.5,
        path_weight=1.0,
    )


@pytest.mark.slow
def test_style_learns_digits_and_comes_back_as_it_was_measured(tmp_path: Path) -> None:
    path = train(small_style(), **TINY, epochs=8, out=tmp_path)
    errors = logged(tmp_path / "stylegan2-fashion", "error")
    assert errors[-1] < 0.9 * errors[0]
    assert read_card(path).architecture == "SmallStyleAutoencoder"
    network = load_generator("stylegan2-fashion", weights=path)
    assert isinstance(network, SmallStyleAutoencoder)
    assert network.latent_avg.abs().sum() > 0
    measured = small_style().measure(network, [load_data("mnist-embedded", "test")], few=20)
    assert measured == {key: value for key, value in read_card(path).metrics.items() if key != "training seconds"}
    assert not any("bits" in key for key in measured)


def test_resumed_training_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = TINY | {"limit": 96, "epochs": 2}
    monkeypatch.setattr("gencls.zoo.training.methods.generators.GeneratorPreset.measure", lambda *args, **kwargs: {})
    whole = train(small_style(), **tiny, out=tmp_path / "whole")
    found = resumed(small_style(), at=5, **tiny, out=tmp_path / "stopped")  # in the second epoch
    assert found.read_bytes() == whole.read_bytes()
    again = train(small_style(), **tiny, out=tmp_path / "stopped", resume=True)  # nothing is left to do
    assert again.read_bytes() == whole.read_bytes()


class LinearCritic(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images: Tensor) -> Tensor:
        return (images * self.weight).flatten(1).sum(1) + 3.0


def test_r1_penalty_of_a_linear_discriminator_is_the_square_of_its_weights() -> None:
    critic = LinearCritic(torch.randn(1, 4, 4))
    penalty = r1_penalty(critic, torch.rand(5, 1, 4, 4))
    torch.testing.assert_close(penalty, critic.weight.square().sum())
    (gradient,) = torch.autograd.grad(penalty, critic.weight)
    torch.testing.assert_close(gradient, 2 * critic.weight)


def test_path_lengths_of_a_linear_generator() -> None:
    codes = torch.randn(6, 2, 3, requires_grad=True)
    matrix = torch.randn(3, 16)
    images = (codes.sum(1) @ matrix).view(6, 1, 4, 4)  # each level has the Jacobian ``matrix``
    with seeded(5):
        lengths = path_lengths(images, codes)
    with seeded(5):
        direction = torch.randn(6, 16) / 4
    torch.testing.assert_close(lengths, (direction @ matrix.T).norm(dim=1))


def test_moving_average_is_a_geometric_sum() -> None:
    average, current = nn.Linear(3, 2), nn.Linear(3, 2)
    start = average.weight.clone()
    for _ in range(4):
        move_average(average, current, decay=0.9)
    torch.testing.assert_close(average.weight, current.weight + 0.9**4 * (start - current.weight))
    assert average.weight.grad is None


def test_mixed_codes_change_once_at_most() -> None:
    generator = StyleGAN2((4, 4, 4), style_dim=5, mapping_layers=1, colours=1)
    codes = mixed_codes(generator, 400, like=torch.zeros(()))
    assert codes.shape == (400, 6, 5)
    changes = (codes[:, 1:] != codes[:, :-1]).any(2).sum(1)
    assert changes.max() == 1
    assert float(changes.float().mean()) == pytest.approx(0.9, abs=0.05)


def style_training(**settings: Any) -> StyleTraining:
    network = SmallStyleAutoencoder.of_sizes(
        (1, 14, 14), channels=(4, 4, 4), style_dim=6, mapping_layers=1, encoder_widths=(4, 4, 4)
    )
    critic = StyleGAN2Discriminator((4, 4, 4), colours=1)
    given = {"epochs": 2, "encoder_share": 0.5, "perturbation": Plain(), "learning_rate": 1e-3}
    return StyleTraining(network, critic, **(given | settings))


def learning(module: nn.Module) -> set[str]:
    return {name.split(".")[0] for name, value in module.named_parameters() if value.grad is not None}


def test_each_adversarial_loss_moves_its_own_weights_and_the_encoder_moves_alone() -> None:
    module = style_training()
    images = 2 * torch.rand(4, 1, 14, 14) - 1
    figures = module._adversarial(images, step=0)
    assert set(figures) == {"generator", "discriminator", "r1"}  # of the first step
    for name, part in (("generator", "learner"), ("discriminator", "discriminator"), ("r1", "discriminator")):
        module.zero_grad()
        figures[name].backward(retain_graph=True)
        assert learning(module) == {part}
    module.zero_grad()
    figures = module._encoding(images)
    assert set(figures) == {"error"}
    torch.stack(list(figures.values())).sum().backward()
    assert learning(module) == {"network"}
    assert all(value.grad is None for value in module.network.generator.parameters())
    mean = module.network.generator.mapping(torch.randn(20_000, 6)).mean(0)
    torch.testing.assert_close(module.network.latent_avg[0], mean, rtol=0, atol=0.02)  # of 10,000 codes


def test_the_generator_may_go_on_learning_with_the_encoder() -> None:
    images, labels = torch.rand(4, 1, 14, 14), torch.zeros(4, dtype=torch.int64)
    for weight, expected in ((0.0, {"network"}), (20.0, {"network", "learner", "discriminator"})):
        module = style_training(joint_weight=weight)
        before = [value.clone() for value in module.network.generator.parameters()]
        steps = module.steps(images, labels, Moment(epoch=1.0, epochs=2))
        next(steps)[0].backward()
        assert learning(module) == expected
        with torch.no_grad():
            for value in module.learner.parameters():
                value.add_(1.0)
        assert next(steps, None) is None
        moved = [not torch.equal(a, b) for a, b in zip(before, module.network.generator.parameters(), strict=True)]
        assert all(moved) if weight else not any(moved)


def test_the_losses_of_the_encoder() -> None:
    module = style_training(closeness=0.5, evenness=0.25)
    images = 2 * torch.rand(4, 1, 14, 14) - 1
    module.eval()
    with torch.no_grad():
        figures = module._encoding(images)
        offsets = module.network.encode(images)
    torch.testing.assert_close(figures["closeness"], 0.5 * offsets.square().sum() / offsets.numel())
    between = sum((offsets[:, level] - offsets[:, 0]).square().mean() for level in range(1, 6))
    torch.testing.assert_close(figures["evenness"], 0.25 * between)
    reconstructed = autoencoded(module.network, (images + 1) / 2)
    clamped = 4 * (reconstructed - (images + 1) / 2).square().mean()  # [0, 1] to [-1, 1]
    assert float(figures["error"]) >= float(clamped) - 1e-6


def test_small_images_get_a_margin_that_is_cut_off_again() -> None:
    network = style_training().network
    images = torch.rand(3, 1, 14, 14)
    padded = network.padded(images)
    assert padded.shape == (3, 1, 16, 16)
    assert torch.equal(network.frame(padded), images)
    assert float(padded.sum() - images.sum()) == pytest.approx(-3 * (16**2 - 14**2), rel=1e-5)


def test_the_discriminator_sees_the_spread_of_a_group() -> None:
    critic = StyleGAN2Discriminator((4, 4, 4), colours=1, group=2).eval()
    images = torch.randn(4, 1, 16, 16)
    maps = critic.convs(images)
    found = critic._deviation(maps)
    # Groups of two: images 0 and 2, 1 and 3.
    expected = torch.stack([((maps[i] - maps[i + 2]).abs() / 2).mean() for i in (0, 1, 0, 1)])
    torch.testing.assert_close(found[:, 0, 0, 0], expected, rtol=1e-3, atol=1e-4)
    assert critic(images).shape == (4,)
    assert critic(images[:3]).shape == (3,)  # groups of one


def test_parts_of_a_style_autoencoder_that_do_not_fit() -> None:
    generator = StyleGAN2((4, 4, 4), style_dim=6, mapping_layers=1, colours=1)
    encoder = SmallStyleEncoder(6, 6, colours=1, widths=(4, 4, 4))
    with pytest.raises(GenclsError, match="expected images of 16 pixels, as the generator has, less an even number; got 15"):
        SmallStyleAutoencoder(encoder, generator, torch.zeros(6), image_size=15)
    with pytest.raises(GenclsError, match="SmallStyleEncoder: expected three widths"):
        SmallStyleEncoder(6, 6, widths=(4, 4))
    with pytest.raises(GenclsError, match="StyleGAN2Discriminator: expected channels, colours and group of at least 1"):
        StyleGAN2Discriminator((4, 0, 4))
    with pytest.raises(GenclsError, match=r"expected encoder_share in \(0, 1\]"):
        style_training(encoder_share=0.0)


def half(level: int, encoded: Tensor, sampled: Tensor) -> Tensor:
    return 0.5 * encoded + 0.5 * sampled


@pytest.mark.parametrize("channels", [1, 3])
def test_a_small_style_autoencoder_is_a_multi_latent_model(channels: int) -> None:
    sizes: dict[str, Any] = {"channels": (4, 4, 4), "style_dim": 6, "mapping_layers": 1, "encoder_widths": (4, 4, 4)}
    network = SmallStyleAutoencoder.of_sizes((channels, 14, 14), **sizes).eval()
    images = torch.rand(3, channels, 14, 14, requires_grad=True)
    with keyed([1, 2, 3]) as streams:
        together = network.autoencode(images, half)
    assert not streams.shared
    assert together.shape == images.shape
    (gradient,) = torch.autograd.grad(together.square().sum(), images)
    assert gradient.flatten(1).norm(dim=1).min() > 0
    with keyed([2]):
        torch.testing.assert_close(network.autoencode(images[1:2], half)[0], together[1], rtol=0, atol=1e-5)
    with seeded(1):
        first = samples(network, images.detach())
    with seeded(1):
        assert torch.equal(first, samples(network, 1 - images.detach()))
    with pytest.raises(GenclsError, match=rf"expected floating-point images of shape \(N, {channels}, 14, 14\)"):
        network.autoencode(torch.rand(1, 2, 14, 14), half)
