"""Training of generators with several latent levels: losses against closed forms, short runs on real digits, cards."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from gencls.core import GenclsError, MultiLatentModel, keyed, seeded
from gencls.zoo import generator_names, load, load_data, load_generator
from gencls.zoo.checkpoints import read_card
from gencls.zoo.models import WEIGHTS
from gencls.zoo.networks import NVAE, SmallStyleAutoencoder, SmallStyleEncoder, StyleGAN2, StyleGAN2Discriminator
from gencls.zoo.training import PRESETS, train
from gencls.zoo.training.generator_presets import GENERATOR_PRESETS, GeneratorPreset, NVAEPreset, StylePreset
from gencls.zoo.training.hierarchical import HierarchicalVAETraining, kl_weights, level_sizes, reestimate_batch_norm, warm_up
from gencls.zoo.training.measure import accuracy
from gencls.zoo.training.measure_generators import autoencoded, bits_per_dimension, frechet_distance, measure_generator, samples
from gencls.zoo.training.modules import NetworkTraining
from gencls.zoo.training.perturbations import Plain
from gencls.zoo.training.style import StyleTraining, gradient_penalty, mixed_codes, move_average, path_lengths

TINY: dict[str, Any] = {"data": "mnist-embedded", "limit": 128, "progress": False, "measured": 20}


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with seeded(0):
        yield


def small_nvae() -> NVAEPreset:
    settings = PRESETS["nvae-fashion"]
    assert isinstance(settings, NVAEPreset)
    return replace(settings, groups=(1, 2), latent_channels=2, channels=4, mixtures=2, batch_size=32, statistics_passes=2)


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


def logged(folder: Path, tag: str) -> list[float]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [event.value for event in events.Scalars(tag)]


def test_the_weight_of_the_divergence_rises_on_a_line() -> None:
    found = [warm_up(share, end=0.3) for share in (0.0, 0.15, 0.3, 1.0)]
    assert found == pytest.approx([1e-4, 0.5, 1.0, 1.0])
    assert warm_up(0.0, end=0.0) == 1.0


def test_levels_are_balanced_until_the_weight_is_one() -> None:
    kl = torch.tensor([[1.0, 9.0], [3.0, 11.0]]) - 0.01
    sizes = torch.tensor([1.0, 4.0])
    # Mean divergences 2 and 10, per size 2 and 2.5, over their mean 2.25.
    torch.testing.assert_close(kl_weights(kl, sizes, weight=0.5), 0.5 * torch.tensor([2 / 2.25, 2.5 / 2.25]))
    assert torch.equal(kl_weights(kl, sizes, weight=1.0), torch.ones(2))
    assert not kl_weights(kl.requires_grad_(), sizes, weight=0.5).requires_grad


def test_sizes_of_levels_are_the_published_balance_where_all_scales_have_equally_many() -> None:
    network = NVAE((1, 16, 16), groups=(2, 2, 2), cells=1, latent_channels=1, channels=4, block_cells=1, mixtures=1)
    sizes = level_sizes(network)
    torch.testing.assert_close(sizes / sizes.min(), network.kl_balance)


def test_the_loss_is_the_negative_bound_and_the_penalties() -> None:
    network = NVAE((1, 8, 8), groups=(1, 1), cells=1, latent_channels=1, channels=4, block_cells=1, mixtures=2)
    module = HierarchicalVAETraining(
        network, warm_up_share=0.0, regularization=0.1, perturbation=Plain(), learning_rate=1e-3, seed=0
    )
    module.epochs_passed = lambda batch_index: 0.0  # type: ignore[method-assign]
    module._trainer = type("Trainer", (), {"max_epochs": 1})()  # type: ignore[assignment]
    figures: dict[str, Tensor] = {}
    module.log_dict = lambda values, **kwargs: figures.update(values)  # type: ignore[method-assign, assignment, misc]
    images = torch.rand(4, 1, 8, 8)
    with seeded(1):
        mixture, kl = network(images)
    expected = (kl.sum(1) - mixture.log_prob(images).sum((1, 2))).mean()
    with seeded(1):
        loss = module.training_step((images, torch.zeros(4, dtype=torch.int64)), 0)
    torch.testing.assert_close(loss - 0.1 * figures["penalty"], expected, rtol=1e-4, atol=0)


def test_statistics_are_those_of_samples_and_the_encoder_keeps_its_own() -> None:
    network = NVAE((1, 8, 8), groups=(1, 1), cells=1, latent_channels=1, channels=4, block_cells=1, mixtures=2, temperature=0.6)
    network.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    seen: list[Tensor] = []
    norm = network.get_submodule("postprocessing_block.block_0.cell_0.residual.1")
    handle = norm.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    reestimate_batch_norm(network, passes=3, batch_size=10, seed=0)
    handle.remove()
    assert not network.training
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.momentum == 0.05
    means = torch.stack([batch.mean((0, 2, 3)) for batch in seen])
    assert len(seen) == 3
    torch.testing.assert_close(norm.running_mean, means.mean(0))
    after = network.state_dict()
    moved = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert moved
    assert all("running" in key or "tracked" in key for key in moved)
    assert not any(key.startswith(("encoder", "preprocessing")) for key in moved)
    reestimate_batch_norm(network, passes=0, batch_size=10, seed=0)
    assert all(torch.equal(value, after[key]) for key, value in network.state_dict().items())


def test_nvae_learns_digits_and_comes_back_as_it_was_measured(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    path = train(small_nvae(), **TINY, epochs=6, out=tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    losses = logged(tmp_path / "nvae-fashion", "error")
    assert losses[-1] < 0.9 * losses[0]
    card = read_card(path)
    assert card.architecture == "NVAE"
    assert "Adamax" in card.what
    network = load_generator("nvae-fashion", weights=path)
    assert isinstance(network, NVAE)
    assert network.num_levels == 3
    assert network.temperature == 0.6
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    measured = measure_generator(network, load_data("mnist-embedded", "test"), few=20)
    assert measured == {key: value for key, value in card.metrics.items() if key != "training seconds"}
    assert [key.split(",")[0] for key in measured] == [
        "mean squared reconstruction error",
        "bits per dimension",
        "accuracy of cnn-mnist on images",
        "accuracy of cnn-mnist on reconstructions",
        "FID of samples on features of cnn-mnist (576 before its last layer)",
        "FID of reconstructions on features of cnn-mnist (576 before its last layer)",
    ]


def test_style_learns_digits_and_comes_back_as_it_was_measured(tmp_path: Path) -> None:
    path = train(small_style(), **TINY, epochs=8, out=tmp_path)
    errors = logged(tmp_path / "stylegan2-fashion", "error")
    assert errors[-1] < 0.9 * errors[0]
    assert read_card(path).architecture == "SmallStyleAutoencoder"
    network = load_generator("stylegan2-fashion", weights=path)
    assert isinstance(network, SmallStyleAutoencoder)
    assert network.latent_avg.abs().sum() > 0
    measured = measure_generator(network, load_data("mnist-embedded", "test"), few=20)
    assert measured == {key: value for key, value in read_card(path).metrics.items() if key != "training seconds"}
    assert not any("bits" in key for key in measured)


@pytest.mark.parametrize("settings", [small_nvae(), small_style()], ids=lambda settings: settings.name)
def test_resumed_training_ends_with_the_same_weights(
    settings: GeneratorPreset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = TINY | {"limit": 96}
    monkeypatch.setattr("gencls.zoo.training.run.measure", lambda network, tests, few: {})
    whole = train(settings, **tiny, epochs=2, out=tmp_path / "whole")
    original = NetworkTraining.on_train_batch_start
    steps = 0

    def interrupted(self: NetworkTraining, *args: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 5:  # in the second epoch
            raise InterruptedError
        original(self, *args)

    monkeypatch.setattr(NetworkTraining, "on_train_batch_start", interrupted)
    with pytest.raises(InterruptedError):
        train(settings, **tiny, epochs=2, out=tmp_path / "stopped")
    monkeypatch.setattr(NetworkTraining, "on_train_batch_start", original)
    resumed = train(settings, **tiny, epochs=2, out=tmp_path / "stopped", resume=True)
    assert resumed.read_bytes() == whole.read_bytes()
    again = train(settings, **tiny, epochs=2, out=tmp_path / "stopped", resume=True)  # nothing is left to do
    assert again.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("settings", GENERATOR_PRESETS, ids=lambda settings: settings.name)
def test_presets_say_what_they_are(settings: GeneratorPreset) -> None:
    assert PRESETS[settings.name] is settings
    assert f"{settings.epochs} epochs of batches of {settings.batch_size}" in settings.recipe
    assert settings.image_shape == settings.arguments["image_shape"]


def test_images_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GenclsError, match=r"expected images of shape \(1, 32, 32\), got \(1, 28, 28\) from mnist-embedded"):
        train(replace(small_nvae(), shape=(1, 32, 32)), **TINY, out=tmp_path)


class Shifted(MultiLatentModel):
    """Decodes to the image, or to a grey one for sampled codes."""

    num_levels = 1

    def encode_once(self, images: Tensor) -> tuple[Tensor, ...]:
        return (images,)

    def decode_mixed(self, encoded: tuple[Tensor, ...], mix: Any) -> Tensor:
        used: Tensor = mix(0, encoded[0], torch.full_like(encoded[0], 0.25))
        return used


def test_reconstructions_and_samples_are_the_ends_of_the_mix() -> None:
    images = torch.rand(150, 1, 4, 4)  # more than one chunk
    assert torch.equal(autoencoded(Shifted(), images), images)
    assert torch.equal(samples(Shifted(), images), torch.full_like(images, 0.25))


def test_bits_per_dimension_of_a_network_that_knows_nothing() -> None:
    # With a posterior like the prior there is no divergence; a single wide logistic gives each value about 8 bits.
    network = NVAE((1, 8, 8), groups=(1, 1), cells=1, latent_channels=1, channels=4, block_cells=1, mixtures=1).eval()
    for parameters in (network.to_logits[1], *network.enc_sampler.values()):
        nn.init.zeros_(parameters.bias)
        nn.init.zeros_(parameters.parametrizations["weight"].original0)
    images = torch.randint(256, (120, 1, 8, 8)) / 255
    pixels = (2 * images - 1).double()
    logistic = torch.sigmoid(pixels + 1 / 255) - torch.sigmoid(pixels - 1 / 255)
    logistic = torch.where(images == 0, torch.sigmoid(pixels + 1 / 255), logistic)
    logistic = torch.where(images == 1, 1 - torch.sigmoid(pixels - 1 / 255), logistic)
    assert bits_per_dimension(network, images) == pytest.approx(float(-logistic.log2().mean()), rel=1e-4)


def test_frechet_distance_of_gaussians() -> None:
    features = nn.Flatten()
    real = torch.randn(400, 1, 1, 2)
    # Moved by (3, 4), with the same covariance: the squared length of the move.
    assert frechet_distance(features, real, real + torch.tensor([3.0, 4.0])) == pytest.approx(25.0, rel=1e-3)
    # Twice as wide: the trace of the covariance.
    centred = real - real.mean(0)
    expected = float(centred.var(0).sum())
    assert frechet_distance(features, centred, 2 * centred) == pytest.approx(expected, rel=1e-3)
    assert math.isclose(frechet_distance(features, real, real), 0.0, abs_tol=1e-3)


def test_unknown_generators_and_wrong_settings() -> None:
    with pytest.raises(GenclsError, match="unknown generator 'biggan'; expected one of nvae-fashion"):
        load_generator("biggan")
    with pytest.raises(GenclsError, match="expected the weights of a SmallStyleAutoencoder for stylegan2-fashion; got a NVAE"):
        load_generator("stylegan2-fashion", weights=WEIGHTS / "nvae-fashion.safetensors")
    with pytest.raises(GenclsError, match="Make them with: gencls train nvae-fashion"):
        load_generator("nvae-fashion", weights="/nowhere.safetensors")
    network = NVAE((1, 8, 8), groups=(1, 1), cells=1, latent_channels=1, channels=4, block_cells=1, mixtures=2)
    with pytest.raises(GenclsError, match=r"expected warm_up_share in \[0, 1\]"):
        HierarchicalVAETraining(network, warm_up_share=2.0, perturbation=Plain(), learning_rate=1e-3, seed=0)


class LinearCritic(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images: Tensor) -> Tensor:
        return (images * self.weight).flatten(1).sum(1) + 3.0


def test_gradient_penalty_of_a_linear_discriminator_is_the_square_of_its_weights() -> None:
    critic = LinearCritic(torch.randn(1, 4, 4))
    penalty = gradient_penalty(critic, torch.rand(5, 1, 4, 4))
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
    given = {"epochs": 2, "encoder_share": 0.5, "perturbation": Plain(), "learning_rate": 1e-3, "seed": 0}
    return StyleTraining(network, critic, **(given | settings))


def learning(module: nn.Module) -> set[str]:
    return {name.split(".")[0] for name, value in module.named_parameters() if value.grad is not None}


def test_each_adversarial_loss_moves_its_own_weights_and_the_encoder_moves_alone() -> None:
    module = style_training()
    images = 2 * torch.rand(4, 1, 14, 14) - 1
    figures = module._adversarial(images)
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
        module.epochs_passed = lambda batch_index: 1.0  # type: ignore[method-assign]
        module.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
        before = [value.clone() for value in module.network.generator.parameters()]
        module.training_step((images, labels), 0).backward()
        assert learning(module) == expected
        with torch.no_grad():
            for value in module.learner.parameters():
                value.add_(1.0)
        module.on_train_batch_end(None, (images, labels), 0)
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
    framed = network.framed(images)
    assert framed.shape == (3, 1, 16, 16)
    assert torch.equal(network.frame(framed), images)
    assert float(framed.sum() - images.sum()) == pytest.approx(-3 * (16**2 - 14**2), rel=1e-5)


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


@pytest.mark.parametrize("name", generator_names())
def test_committed_generators_keep_the_class(name: str) -> None:
    try:
        test = load_data("fashion-mnist", "test", limit=100)
    except GenclsError as error:
        pytest.skip(f"needs fashion-mnist: {error}")
    network = load_generator(name)
    assert not network.training
    classifier = load("cnn-fashion")
    with seeded(0):
        assert accuracy(classifier, autoencoded(network, test.images), test.labels) >= 0.8  # 0.85 on 1,000 images
        assert 0 < float((samples(network, test.images) - test.images).square().mean()) < 0.5
