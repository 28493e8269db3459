"""Training of the conditional GAN: losses in closed form, resume, moving average, cards."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core import GenclsError, seeded
from gencls.eval.measures.fid import frechet_distance
from gencls.zoo import load_data
from gencls.zoo.checkpoints.cards import read_card
from gencls.zoo.checkpoints.checkpoint import verify_checkpoint
from gencls.zoo.data.image_data import balanced_subset
from gencls.zoo.networks import CNN, ProjectionDiscriminator, SelfModulatedGenerator
from gencls.zoo.registry import ARCHITECTURES
from gencls.zoo.trained import trained_network
from gencls.zoo.training import PRESETS, train
from gencls.zoo.training.base import Moment
from gencls.zoo.training.functional import move_average
from gencls.zoo.training.methods.cgan import ConditionalGANPreset, ConditionalGANTraining, class_samples
from gencls.zoo.training.methods.generators import CLASSIFIERS, judge
from gencls.zoo.training.views.differentiable import DifferentiableAugmentation
from gencls.zoo.training.views.perturbations import Plain
from tests.trainings import logged, resumed

TINY: dict[str, Any] = {"data": "mnist-embedded", "limit": 192, "progress": False, "measured": 20}


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with seeded(0):
        yield


def tiny(**settings: Any) -> ConditionalGANPreset:
    found = PRESETS["cgan-mnist"]
    assert isinstance(found, ConditionalGANPreset)
    small = {"latent_dim": 4, "width": 2, "discriminator_width": 2, "batch_size": 32, "half_life": 64.0, "watched": None}
    return replace(found, **(small | settings))


def training(**settings: Any) -> ConditionalGANTraining:
    auxiliary = settings.pop("auxiliary", False)
    network = SelfModulatedGenerator(num_classes=3, latent_dim=4, width=2, image_shape=(1, 8, 8))
    critic = ProjectionDiscriminator(num_classes=3, width=2, image_shape=(1, 8, 8), auxiliary=auxiliary)
    nothing = DifferentiableAugmentation(translation=0.0, cutout=0.0)
    given = {"perturbation": Plain(), "learning_rate": 1e-3, "augmentation": nothing}
    return ConditionalGANTraining(network, critic, **(given | settings))


def test_a_killed_training_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConditionalGANPreset, "measure", lambda *args, **kwargs: {})
    monkeypatch.setattr("gencls.zoo.training.methods.cgan._WATCHED", 2)
    settings = tiny(watched="cnn-mnist")
    whole = train(settings, **TINY, epochs=2, out=tmp_path / "whole")
    found = resumed(settings, at=10, **TINY, epochs=2, out=tmp_path / "stopped")  # in the second epoch
    assert found.read_bytes() == whole.read_bytes()
    beside = "cgan-mnist-discriminator.safetensors"
    assert found.with_name(beside).read_bytes() == whole.with_name(beside).read_bytes()
    fids = logged(tmp_path / "whole" / "cgan-mnist", "fid on cnn-mnist")
    assert len(fids) == 1  # of the second epoch
    assert fids == logged(tmp_path / "stopped" / "cgan-mnist", "fid on cnn-mnist")
    card = verify_checkpoint(found.with_name(beside), ARCHITECTURES)
    assert (card.name, card.architecture) == ("cgan-mnist-discriminator", "ProjectionDiscriminator")


def test_the_card_has_the_figures_of_the_stored_network(tmp_path: Path) -> None:
    path = train(tiny(), **TINY, epochs=1, out=tmp_path)
    network = trained_network(SelfModulatedGenerator, "cgan-mnist", tmp_path)
    test = load_data("mnist-embedded", "test")
    figures = tiny().measure(network, [test], few=20)
    assert figures == {key: value for key, value in read_card(path).metrics.items() if key != "training seconds"}
    assert [key.split(" on ")[0] for key in figures] == [
        "accuracy of cnn-mnist",
        "FID of samples",
        "FID of real training images",
    ]
    features = trained_network(CNN, "cnn-mnist").encoder
    real = load_data("mnist-embedded", "train", limit=200)
    chosen = balanced_subset(test.labels, 200, seed=0)  # ten times few
    assert list(figures.values())[2] == pytest.approx(frechet_distance(features, test.images[chosen], real.images), rel=1e-6)
    with seeded(0):
        made = class_samples(network, test.labels[chosen])
    assert list(figures.values())[1] == pytest.approx(frechet_distance(features, test.images[chosen], made), rel=1e-6)
    assert list(figures.values())[1] > 2 * list(figures.values())[2]


def test_the_logged_distance_is_that_of_the_averages_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the images of two batches at the beginning of the second epoch; the network that learns has others."""
    monkeypatch.setattr("gencls.zoo.training.methods.cgan._WATCHED", 2)
    module = tiny(watched="cnn-mnist").training(10)
    assert isinstance(module, ConditionalGANTraining)
    with torch.no_grad():
        for value in module.learner.parameters():
            value.add_(0.3 * torch.randn_like(value))
    data = load_data("mnist-embedded", "test", limit=64)
    batches = list(zip(data.images.split(32), data.labels.split(32), strict=True))
    figures = []
    for number, (images, labels) in enumerate(batches):
        with seeded(number):
            figures.append(next(module.steps(images, labels, Moment(epoch=1 + number / 2)))[1])

    def by_hand(network: SelfModulatedGenerator) -> float:
        made = []
        for number, (images, _) in enumerate(batches):
            with seeded(number), torch.no_grad():
                latents = network.sample_latents(len(images))
                made.append(network(latents, torch.randint(10, (len(images),))))
        return frechet_distance(judge("cnn-mnist")[1], data.images, torch.cat(made))

    tag = "fid on cnn-mnist"
    assert [tag in one for one in figures] == [False, True]
    assert float(figures[1][tag]) == pytest.approx(by_hand(module.network), rel=1e-6)  # the same sums, stored as float32
    assert by_hand(module.learner.eval()) != pytest.approx(by_hand(module.network), rel=0.01)
    assert not any("fid" in name for name in next(module.steps(*batches[0], Moment(epoch=1.75)))[1])  # once per epoch


class Constant(nn.Module):
    """A discriminator whose values are numbers of the images."""

    auxiliary = False

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def judge(self, features: Tensor, labels: Tensor) -> Tensor:
        return features[:, 0] * labels


def test_the_hinge_losses_in_closed_form() -> None:
    module = training()
    module.discriminator = Constant()  # type: ignore[assignment]
    real = torch.tensor([0.5, 3.0]).view(2, 1, 1, 1)
    made = torch.tensor([-2.0, 0.25]).view(2, 1, 1, 1)
    ones = torch.ones(2, dtype=torch.int64)
    loss = module.discriminator_loss(real, ones, made, 2 * ones)
    assert float(loss) == pytest.approx((0.5 + 0.0) / 2 + (0.0 + 1.5) / 2)  # D: 0.5, 3 and -4, 0.5
    assert float(module.generator_loss(made, 2 * ones)) == pytest.approx((4.0 - 0.5) / 2)


def test_the_auxiliary_head_learns_from_real_images_alone() -> None:
    module = training(auxiliary=True, class_weight=2.0)
    plain = training(auxiliary=True, class_weight=0.0)
    plain.load_state_dict(module.state_dict())
    for each in (module, plain):
        each.eval()
    images, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 2])
    made, chosen = torch.rand(4, 1, 8, 8), torch.tensor([2, 1, 0, 0])
    scores = module.discriminator.classify(module.discriminator.features(images))
    added = module.discriminator_loss(images, labels, made, chosen) - plain.discriminator_loss(images, labels, made, chosen)
    torch.testing.assert_close(added, 2 * F.cross_entropy(scores, labels))
    scores = module.discriminator.classify(module.discriminator.features(made))
    added = module.generator_loss(made, chosen) - plain.generator_loss(made, chosen)
    torch.testing.assert_close(added, 2 * F.cross_entropy(scores, chosen))


def learning(module: nn.Module) -> set[str]:
    return {name.split(".")[0] for name, value in module.named_parameters() if value.grad is not None}


def test_each_loss_moves_its_own_weights_and_the_average_follows() -> None:
    module = training(half_life=8.0)
    images, labels = torch.rand(8, 1, 8, 8), torch.arange(8) % 3
    start = [value.clone() for value in module.network.parameters()]
    steps = module.steps(images, labels, Moment())
    for optimizer, part in zip(module.optimizers(), ("discriminator", "learner"), strict=True):
        module.zero_grad()
        next(steps)[0].backward()
        assert learning(module) == {part}
        optimizer.step()
    assert next(steps, None) is None
    for before, current, mean in zip(start, module.learner.parameters(), module.network.parameters(), strict=True):
        torch.testing.assert_close(mean, (before + current.detach()) / 2)  # one batch is one half-life


def test_the_average_takes_the_statistics_of_batch_norms_too() -> None:
    average, current = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    current(torch.randn(50, 2) + 3)
    move_average(average, current, decay=0.75, buffers=True)
    assert average.running_mean is not None
    assert current.running_mean is not None
    torch.testing.assert_close(average.running_mean, current.running_mean / 4)
    assert int(average.get_buffer("num_batches_tracked")) == 0


def test_batch_norms_get_the_statistics_of_the_averages_own_images() -> None:
    module = training(batch_size=40)
    with torch.no_grad():
        for value in module.network.parameters():
            value.add_(0.3 * torch.randn_like(value))
    module.finish(0)
    network = module.network
    latents, labels = network.sample_latents(4000), torch.randint(3, (4000,))
    maps = network.first(latents[0]).view(4000, -1, 4, 4)
    norm = network.blocks[0].get_submodule("norm1.norm")
    torch.testing.assert_close(norm.get_buffer("running_mean"), maps.mean((0, 2, 3)), rtol=0, atol=0.1)
    torch.testing.assert_close(norm.get_buffer("running_var"), maps.var((0, 2, 3)), rtol=0.1, atol=0)
    assert not network.training
    again = training(batch_size=40)
    again.load_state_dict(module.state_dict())
    again.finish(0)
    images = network(latents, labels)
    assert torch.equal(again.network(latents, labels), images)


def test_samples_are_of_their_classes() -> None:
    module = training()
    labels = torch.arange(450) % 3  # more than one chunk
    with seeded(4):
        images = class_samples(module.network.eval(), labels)
    with seeded(4):
        first = module.network(module.network.sample_latents(200), labels[:200])
    assert images.shape == (450, 1, 8, 8)
    torch.testing.assert_close(images[:200], first.detach())


def test_the_judge_of_cifar10_comes_with_a_dependency() -> None:
    name = "resnet18-autoattack-cifar10"
    assert CLASSIFIERS["cifar10"] == name == PRESETS["cgan-cifar10"].watched  # type: ignore[attr-defined]
    classifier, features = judge(name)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(classifier.get_submodule("linear")(features(images)), classifier(images))
    assert features.num_features == 512


def test_settings_out_of_range() -> None:
    with pytest.raises(
        GenclsError, match="expected discriminator_rate > 0, half_life > 0 and class_weight >= 0, got 2.0, 0 and"
    ):
        training(half_life=0)


@pytest.mark.parametrize("name", ["cgan-fashion", "cgan-mnist", "cgan-cifar10"])
def test_presets_say_what_they_do(name: str) -> None:
    settings = PRESETS[name]
    assert settings.recipe.startswith(f"{settings.epochs} epochs of batches of {settings.batch_size}")
    with torch.device("meta"):
        made = settings.training(10)
    assert isinstance(made, ConditionalGANTraining)
    assert made.learner.image_shape == made.discriminator.image_shape == settings.image_shape
