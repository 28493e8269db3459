"""A distance that learns from reconstructions: its loss, its rivals, its start, a small run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core import ClassConditionalGenerator, GenclsError, Latents, seeded
from gencls.defenses.synthesis.starts import EncodedStart
from gencls.perceptual import FeatureDistance
from gencls.zoo import ImageData, load_distance
from gencls.zoo.checkpoints.cards import read_card
from gencls.zoo.checkpoints.checkpoint import save_checkpoint
from gencls.zoo.checkpoints.places import WEIGHTS
from gencls.zoo.distances import feature_layers
from gencls.zoo.networks import CifarPreActResNet
from gencls.zoo.trained import trained_network
from gencls.zoo.training import PRESETS, train
from gencls.zoo.training.base import Moment
from gencls.zoo.training.methods import contrastive_distance
from gencls.zoo.training.methods.contrastive_distance import (
    ContrastiveDistancePreset,
    ContrastiveDistanceTraining,
    nearest_reconstructions,
)
from gencls.zoo.training.methods.reconstructions import ShortInversion, Sources, ranked_classes
from gencls.zoo.training.views.perturbations import Plain
from tests.trainings import logged, resumed


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0):
        yield


class Stripes(ClassConditionalGenerator):
    """Class k has a bright band; the code, two numbers, sets the light of the band and of the rest."""

    latent_shapes = (torch.Size((2,)),)

    def __init__(self, num_classes: int = 3, side: int = 12) -> None:
        super().__init__()
        self.num_classes, self.side = num_classes, side

    def forward(self, latents: Latents, labels: Tensor) -> Tensor:
        rows = torch.arange(self.side) * self.num_classes // self.side
        band = (rows == labels.unsqueeze(1)).float().unsqueeze(2).expand(-1, -1, self.side)
        light, rest = torch.sigmoid(latents[0]).unsqueeze(2).unsqueeze(3).unbind(1)
        return (band.unsqueeze(1) * light.unsqueeze(1) + (1 - band).unsqueeze(1) * rest.unsqueeze(1)).clamp(0, 1)


class Zeros(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.new_zeros(len(images), 2)


def network(num_classes: int = 3) -> CifarPreActResNet:
    return CifarPreActResNet((1, 1), width=4, mean=(0.5,), std=(0.5,), image_size=12, num_classes=num_classes).eval()


def sources_of(generator: ClassConditionalGenerator) -> Sources:
    return Sources(network(), generator, EncodedStart(Zeros(), generator))


def sources() -> Sources:
    with seeded(1):
        return sources_of(Stripes())


def learner(made: Any = sources, **settings: Any) -> ContrastiveDistanceTraining:
    return ContrastiveDistanceTraining(network(), made, perturbation=Plain(), learning_rate=1e-2, **settings)


def striped(name: str, split: str, **_: object) -> ImageData:
    """Noisy images of the three classes."""
    with seeded(0):
        labels = torch.arange(24) % 3
        images = (
            Stripes()((torch.randn(24, 2) + torch.tensor([1.0, -1.0]),), labels) + 0.1 * torch.randn(24, 1, 12, 12)
        ).clamp(0, 1)
    return ImageData(name, split, images, labels, ("top", "middle", "bottom"), torch.arange(24))


def test_inversion_finds_the_image_of_the_class() -> None:
    generator = Stripes()
    codes = torch.randn(4, 2)
    labels = torch.tensor([0, 1, 2, 1])
    images = generator((codes,), labels)
    classes = torch.stack([labels, (labels + 1) % 3], 1)
    start = (torch.zeros(4, 2, 2),)
    distance = FeatureDistance(network(), ("layer1", "layer2"))
    made = ShortInversion(steps=200, weight=0.0, percept=0.0)(images, classes, start, generator, distance)
    assert made.shape == (4, 2, 1, 12, 12)
    torch.testing.assert_close(made[:, 0], images, rtol=0, atol=0.02)
    assert float((made[:, 1] - images).square().sum((1, 2, 3)).min()) > 1e-2
    still = ShortInversion(steps=200, weight=1e4, percept=0.0)(images, classes, start, generator, distance)
    torch.testing.assert_close(still, torch.full_like(still, 0.5), rtol=0, atol=0.02)  # the code may hardly move
    nothing = ShortInversion(steps=0)(images, classes, start, generator, distance)
    torch.testing.assert_close(nothing, torch.full_like(nothing, 0.5))


def test_the_loss_is_that_of_the_formula() -> None:
    module = learner(temperature=0.2, class_weight=0.5, rivals=None, inversion=ShortInversion(steps=3))
    data = striped("mnist", "test")
    images, labels = data.images[:4], data.labels[:4]
    loss, _ = next(module.steps(images, labels, Moment()))
    start = sources()
    distance = FeatureDistance(start.features, feature_layers(start.features))
    classes = torch.arange(3).expand(4, -1)
    made = ShortInversion(steps=3)(images, classes, start.start(images), start.generator, distance)
    each = torch.stack([distance(images, made[:, k]) for k in range(3)], 1)
    relative = each / each.mean(1, keepdim=True)
    expected = F.cross_entropy(-relative / 0.2, labels) + 0.5 * F.cross_entropy(start.features(images), labels)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def test_rivals_are_the_nearest_other_classes() -> None:
    module = learner(rivals=1, inversion=ShortInversion(steps=0))
    data = striped("mnist", "test")
    images, labels = data.images[:6], data.labels[:6]
    parts = Sources(network(), Stripes(), lambda images: (torch.tensor([[2.0, -2.0]]).expand(len(images), 3, -1),))
    module.network.eval()
    codes, ranked = ranked_classes(parts, images, module.distance)
    assert ranked.shape == (6, 3)
    each = torch.stack(
        [module.distance(images, parts.generator((codes[0][:, k],), torch.full((6,), k))) for k in range(3)], 1
    ).detach()
    torch.testing.assert_close(ranked, each)
    made = module._reconstructions(parts, images, labels)
    assert made.shape == (6, 2, 1, 12, 12)
    own = Stripes()((codes[0][:, 0],), labels)
    torch.testing.assert_close(made[:, 0], own)
    rival = each.scatter(1, labels.unsqueeze(1), torch.inf).argmin(1)
    torch.testing.assert_close(made[:, 1], Stripes()((codes[0][:, 0],), rival))


def test_only_the_network_learns_and_its_statistics_stay() -> None:
    module = learner()
    learned = {id(parameter) for group in module.parameter_groups() for parameter in group["params"]}
    assert learned == {id(parameter) for parameter in module.product.parameters()}
    data = striped("mnist", "test")
    module.train()
    loss, _ = next(module.steps(data.images[:4], data.labels[:4], Moment()))
    loss.backward()
    conv = [part for part in module.product.modules() if isinstance(part, nn.Conv2d)]
    assert all(part.weight.grad is not None for part in conv)
    norm = module.product.get_submodule("layer1.0.bn1")
    assert isinstance(norm, nn.BatchNorm2d)
    assert int(norm.num_batches_tracked) == 0
    for key, value in sources().features.state_dict().items():
        assert torch.equal(module.product.state_dict()[key], value), key


def small(name: str = "contrastive-mnist") -> ContrastiveDistancePreset:
    settings = PRESETS[name]
    assert isinstance(settings, ContrastiveDistancePreset)
    return replace(
        settings, shape=(1, 12, 12), batch_size=8, learning_rate=1e-2, inversion=ShortInversion(steps=2), perturbation=Plain()
    )


def test_a_run_is_saved_loaded_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gencls.zoo.training.run.load_data", striped)
    monkeypatch.setattr(ContrastiveDistancePreset, "sources", lambda self: sources())
    arguments = {"blocks": [1, 1], "width": 4, "mean": [0.5], "std": [0.5], "image_size": 12}
    monkeypatch.setattr(ContrastiveDistancePreset, "arguments", arguments)
    options: dict[str, Any] = {"epochs": 6, "progress": False, "measured": 6}
    whole = train(small(), **options, out=tmp_path / "whole")
    losses = logged(tmp_path / "whole" / "contrastive-mnist", "contrast")
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    card = read_card(whole)
    assert card.arguments == {**arguments, "num_classes": 3}
    assert (
        "from the weights of features-corruptions-mnist; each image inverted by its class and the 3 nearest other" in card.what
    )
    before, after = (
        card.metrics[
            f"distance to the nearest other class over that to the own, features of {name}, 2 steps, "
            "mnist-embedded test, 6 images"
        ]
        for name in ("features-corruptions-mnist", "contrastive-mnist")
    )
    assert after > 1.2 * before
    distance = load_distance("contrastive-mnist", weights=whole)
    assert distance.layers == ("layer1", "layer2")
    found = resumed(small(), **options, at=5, out=tmp_path / "stopped")  # in the second epoch
    assert found.read_bytes() == whole.read_bytes()


def test_what_the_card_measures() -> None:
    data = striped("mnist", "test")
    right, ratio = nearest_reconstructions(
        network(), sources(), data.images, data.labels, ShortInversion(steps=10, percept=0.0)
    )
    assert 0.8 < right <= 1.0  # pixels alone tell these classes apart
    assert ratio > 1.0


@pytest.mark.parametrize("name", ["contrastive-fashion", "contrastive-mnist", "contrastive-cifar10"])
def test_it_starts_from_the_corruption_robust_features(name: str) -> None:
    settings = PRESETS[name]
    assert isinstance(settings, ContrastiveDistancePreset)
    start = PRESETS[settings.features]
    assert settings.card_arguments(10) == start.card_arguments(10)
    assert settings.image_shape == start.image_shape
    assert (settings.generator, settings.encoder) == (f"cgan-{name[12:]}", f"enc-d-{name[12:]}")


def test_direct_takes_random_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(kind: object, name: str, weights: object) -> nn.Module:
        return Stripes() if "cgan" in name else network()

    monkeypatch.setattr(contrastive_distance, "trained_network", read)
    made = replace(small(), encoder=None).sources()
    (codes,) = made.start(torch.rand(2, 1, 12, 12))
    assert codes.shape == (2, 3, 2)
    assert "from the best of 300 random codes" in replace(small(), encoder=None).recipe


def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ({"temperature": 0.0}, {"class_weight": -1.0}, {"rivals": 0}):
        with pytest.raises(
            GenclsError, match="contrastive distance: expected temperature > 0, class_weight >= 0 and rivals >= 1"
        ):
            learner(**wrong)
    for settings in ({"steps": -1}, {"max_lr": 0.0}, {"weight": -1.0}, {"percept": -1.0}):
        with pytest.raises(GenclsError, match="ShortInversion: expected steps >= 0, max_lr > 0, weight and percept >= 0, got"):
            ShortInversion(**settings)
    data = striped("mnist", "test")
    few = learner(lambda: sources_of(Stripes(2)))
    with pytest.raises(
        GenclsError, match="one number of classes, got 3 of the data, 3 of the features .* and 2 of the generator"
    ):
        next(few.steps(data.images, data.labels, Moment()))
    large = learner(lambda: sources_of(Stripes(side=15)))
    message = r"reconstructions: expected a generator of images \(1, 12, 12\), as the data has, got \(1, 15, 15\)"
    with pytest.raises(GenclsError, match=message):
        next(large.steps(data.images, data.labels, Moment()))
    monkeypatch.setattr("gencls.zoo.trained.WEIGHTS", tmp_path)
    with pytest.raises(GenclsError, match="Make them with: gencls train features-corruptions-mnist"):
        small().sources()


def test_a_folder_has_the_networks_that_it_begins_with(tmp_path: Path) -> None:
    settings, name = PRESETS["contrastive-mnist"], "features-corruptions-mnist"
    assert isinstance(settings, ContrastiveDistancePreset)
    network = trained_network(CifarPreActResNet, name)
    with torch.no_grad():
        network.conv1.weight.mul_(2.0)
    save_checkpoint(network, tmp_path / name / f"{name}.safetensors", read_card(WEIGHTS / f"{name}.safetensors"))
    found = settings.starting_from(tmp_path)
    assert found.options == (f"--pretrained {tmp_path.name}",)
    made = found.sources()  # what the folder lacks is committed
    assert isinstance(made.features, CifarPreActResNet)
    torch.testing.assert_close(made.features.conv1.weight, network.conv1.weight)
    with pytest.raises(GenclsError, match="contrastive-mnist: expected a folder with the weights of features-corr.*, got /no"):
        settings.starting_from(Path("/nowhere"))
