"""Training on photos: the augmentation, torchvision's networks with a new head, and the presets of the MLVGM paper's tasks."""

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms.v2 import functional

from gencls.core import GenclsError, seeded
from gencls.zoo import load
from gencls.zoo.checkpoints.cards import read_card
from gencls.zoo.data import ImageData
from gencls.zoo.data.registry import DATA_SETS
from gencls.zoo.networks import CNN, NVAE, HeadedClassifier, SmallStyleAutoencoder, StyleGAN2Discriminator
from gencls.zoo.training import PRESETS, train
from gencls.zoo.training.base import TablePreset
from gencls.zoo.training.methods.headed import HeadedPreset, HeadedTraining, start_from
from gencls.zoo.training.methods.hierarchical_vae import NVAEPreset
from gencls.zoo.training.methods.stylegan import StylePreset
from gencls.zoo.training.views.perturbations import Plain
from gencls.zoo.training.views.photo_views import FLIPS, PhotoViews

STILL = replace(FLIPS, flip=0.0)


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with seeded(0):
        yield


# --- views -----------------------------------------------------------------------------------------------------------


def views(settings: PhotoViews, images: Tensor) -> Tensor:
    return settings(nn.Identity(), images, torch.zeros(len(images), dtype=torch.int64), epoch=0.0)


def test_photos_are_mirrored_or_left_alone() -> None:
    images = torch.rand(40, 3, 8, 8)
    torch.testing.assert_close(views(STILL, images), images)
    torch.testing.assert_close(views(replace(STILL, flip=1.0), images), images.flip(3))
    mirrored = [
        torch.allclose(view, image.flip(2), atol=1e-5) for view, image in zip(views(FLIPS, images), images, strict=True)
    ]
    assert 10 < sum(mirrored) < 30


def test_parts_have_their_share_of_the_area_and_lie_inside() -> None:
    # Values are the coordinates of the pixels, so that two pixels of a part say where its edges are.
    line = (torch.arange(32.0) + 0.5) / 32
    places = torch.stack([line.expand(32, 32), line.view(32, 1).expand(32, 32), torch.zeros(32, 32)])
    parts = views(replace(STILL, area=0.75), places.expand(300, -1, -1, -1))
    sides = [(parts[:, 0, 16, 20] - parts[:, 0, 16, 12]) * 4, (parts[:, 1, 20, 16] - parts[:, 1, 12, 16]) * 4]
    area, ratio = sides[0] * sides[1], sides[0] / sides[1]
    assert 0.749 < float(area.min()) < 0.77
    assert 0.98 < float(area.max()) < 1.001
    assert float(torch.stack(sides).max()) < 1.001
    assert 1.2 < float(ratio.max()) < 4 / 3 + 1e-3
    assert 0.749 < float(ratio.min()) < 0.83
    middles = (parts[:, 0, 16, 15] + parts[:, 0, 16, 16]) / 2
    assert (middles - 0.5).abs().sub((1 - sides[0]) / 2).max() < 1e-3
    assert (middles - 0.5).abs().max() > 0.05


def test_light_contrast_colour_and_histograms_are_torchvisions() -> None:
    images = torch.randint(0, 256, (12, 3, 8, 8)) / 255
    dark = 0.5 * images
    lit = views(replace(STILL, brightness=0.3), dark)
    factors = (lit.flatten(1).amax(1) / dark.flatten(1).amax(1)).tolist()
    assert 0.7 <= min(factors) < max(factors) <= 1.3 + 1e-5
    expected = torch.stack([functional.adjust_brightness(i, f) for i, f in zip(dark, factors, strict=True)])
    torch.testing.assert_close(lit, expected, rtol=0, atol=1e-5)

    middle = 0.4 + 0.2 * images  # nothing is cut off
    seen = views(replace(STILL, contrast=0.3), middle)
    grey = functional.rgb_to_grayscale(middle).mean(dim=(1, 2, 3), keepdim=True)
    strengths = ((seen - grey).abs().sum((1, 2, 3)) / (middle - grey).abs().sum((1, 2, 3))).tolist()
    expected = torch.stack([functional.adjust_contrast(i, f) for i, f in zip(middle, strengths, strict=True)])
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-3)  # torchvision's weights of the colours have four digits
    assert 0.7 <= min(strengths) < max(strengths) <= 1.3 + 1e-5

    grey_views = views(replace(STILL, gray=1.0), images)
    torch.testing.assert_close(grey_views, functional.rgb_to_grayscale(images, 3), rtol=0, atol=1e-3)
    equalized = views(replace(STILL, equalize=1.0), images)
    expected = torch.stack([functional.equalize((i * 255).round().to(torch.uint8)) for i in images]) / 255
    torch.testing.assert_close(equalized, expected)


def test_each_photo_is_changed_on_its_own_and_stays_in_the_box() -> None:
    images = torch.rand(1, 3, 8, 8).expand(50, -1, -1, -1)
    seen = views(PhotoViews(), images)
    assert (float(seen.min()) >= 0.0, float(seen.max()) <= 1.0) == (True, True)
    assert len({view.numpy().tobytes() for view in seen}) == 50
    grey = ((seen - seen.mean(1, keepdim=True)).abs().amax((1, 2, 3)) < 1e-6).sum()
    assert 0 < int(grey) < 15  # a tenth of them


def test_views_that_do_not_exist() -> None:
    with pytest.raises(GenclsError, match=r"expected area in \(0, 1\] and the others in \[0, 1\], got PhotoViews\(flip=2"):
        PhotoViews(flip=2.0)
    with pytest.raises(GenclsError, match=r"PhotoViews: expected images \(N, 3, H, W\), got \(2, 1, 8, 8\)"):
        views(STILL, torch.rand(2, 1, 8, 8))


# --- torchvision's networks with a new head --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of torchvision's ResNet-50, saved and named as torchvision publishes them."""
    path = tmp_path_factory.mktemp("weights") / "new.pth"
    state = models.resnet50(weights=None).state_dict()
    torch.save({key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}, path)
    return path.rename(path.with_name(f"resnet50-{sha256(path.read_bytes()).hexdigest()[:8]}.pth"))


def test_a_training_starts_from_torchvisions_weights(published: Path) -> None:
    network = HeadedClassifier("resnet50", 2, hidden=4)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    start_from(network, "resnet50", published)
    given = torch.load(published, weights_only=True)
    for key, value in network.state_dict().items():
        own = key.startswith("model.fc.") or key.endswith("num_batches_tracked")
        assert torch.equal(value, before[key] if own else given[key.removeprefix("model.")])


def test_weights_that_are_not_torchvisions(published: Path, tmp_path: Path) -> None:
    network = HeadedClassifier("resnet50", 2, hidden=4)
    with pytest.raises(
        GenclsError,
        match=r"expected weights of resnet50 .* resnet50- and eight digits of the SHA-256; got",
    ):
        start_from(network, "resnet50", tmp_path / "mine.pth")
    with pytest.raises(GenclsError, match="resnet50-00000000.pth: expected a weights file; got no such file"):
        start_from(network, "resnet50", tmp_path / "resnet50-00000000.pth")
    torch.save({"conv1.weight": torch.zeros(2)}, tmp_path / "new.pth")
    digest = sha256((tmp_path / "new.pth").read_bytes()).hexdigest()
    path = (tmp_path / "new.pth").rename(tmp_path / f"resnet50-{digest[:8]}.pth")
    with pytest.raises(GenclsError, match=r"expected the weights of resnet50; \d+ do not fit, one is model.bn1.bias"):
        start_from(network, "resnet50", path)
    path = path.rename(tmp_path / "resnet50-00000000.pth")
    with pytest.raises(GenclsError, match=f"expected SHA-256 00000000..., as its name says; got {digest}"):
        start_from(network, "resnet50", path)
    with pytest.raises(GenclsError, match=r"expected pretrained weights for a torchvision network only, got .* for cnn-gender"):
        train("cnn-gender", pretrained=published)


def small(**changes: Any) -> HeadedPreset:
    settings = PRESETS["resnet50-gender"]
    assert isinstance(settings, HeadedPreset)
    return replace(settings, shape=(3, 32, 32), hidden=4, batch_size=4, epochs=1, **changes)


def test_the_optimiser_is_sgd_at_a_constant_rate() -> None:
    module = small(perturbation=Plain()).training(2)
    assert isinstance(module, HeadedTraining)
    assert module.constant_rate
    (optimizer,) = module.optimizers()
    assert isinstance(optimizer, torch.optim.SGD)
    assert {key: optimizer.defaults[key] for key in ("lr", "momentum", "weight_decay", "nesterov")} == {
        "lr": 1e-3,
        "momentum": 0.9,
        "weight_decay": 0,
        "nesterov": False,
    }
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(module.network.parameters()))


def faces(name: str, split: str, **_: object) -> ImageData:
    with seeded(0):
        images, labels = torch.rand(8, 3, 32, 32), torch.arange(8) % 2
    return ImageData(name, split, images, labels, ("female", "male"), torch.arange(8))


def test_a_trained_network_comes_back_and_its_card_says_what_it_started_from(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gencls.zoo.training.run.load_data", faces)
    path = train(small(), pretrained=published, out=tmp_path, progress=False)
    card = read_card(path)
    assert card.architecture == "HeadedClassifier"
    assert card.arguments == {"backbone": "resnet50", "hidden": 4, "num_classes": 2}
    assert f"backbone from torchvision's {published.name}, head from random weights" in card.what
    assert card.command == f"gencls train resnet50-gender --data-root DATA --pretrained {published.name}"
    assert card.licence == "Apache-2.0, data for non-commercial research only"
    assert list(card.metrics) == ["training seconds", "clean accuracy, celeba-hq-gender test, 8 images"]
    defense = load("resnet50-gender", weights=path)
    assert defense.num_classes == 2
    assert defense(torch.rand(3, 3, 32, 32)).shape == (3, 2)
    assert "backbone from random weights (paper: ImageNet's)" in small().recipe
    with pytest.raises(
        GenclsError, match=r"got no such file. Make them with: gencls train vgg11-identities \(and --data-root DATA"
    ):
        load("vgg11-identities", weights=tmp_path / "none.safetensors")


# --- presets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "side", "classes", "epochs", "batch"),
    [("resnet50-gender", 256, 2, 50, 128), ("vgg11-identities", 64, 100, 200, 256), ("resnext50-cars", 128, 4, 150, 128)],
)
def test_the_papers_classifiers(name: str, side: int, classes: int, epochs: int, batch: int) -> None:
    settings = PRESETS[name]
    assert isinstance(settings, HeadedPreset)
    assert (settings.epochs, settings.batch_size, settings.learning_rate, settings.momentum) == (epochs, batch, 1e-3, 0.9)
    assert settings.perturbation == PhotoViews(0.5, 0.75, 0.3, 0.3, 0.3, 0.1)
    assert settings.image_shape == (3, side, side)
    with torch.device("meta"):
        network = HeadedClassifier(num_classes=classes, **settings.arguments)
    head = network.get_submodule("model.classifier" if name.startswith("vgg") else "model.fc")
    assert head[0].weight.shape[0] == head[0].weight.shape[1]  # type: ignore[index]


@pytest.mark.parametrize("name", ["cnn-gender", "cnn-identities", "cnn-cars"])
def test_small_classifiers_take_the_images_of_their_data(name: str) -> None:
    settings = PRESETS[name]
    assert isinstance(settings, TablePreset)
    network = CNN.from_architecture(settings.architecture, num_classes=5).eval()
    assert network(torch.rand(2, *settings.image_shape)).shape == (2, 5)
    assert sum(parameter.numel() for parameter in network.parameters()) < 700_000


def test_generators_of_photos_have_the_levels_of_the_paper() -> None:
    faces_, cars, style = (PRESETS[name] for name in ("nvae-large-faces", "nvae-cars", "stylegan2-cars"))
    assert isinstance(faces_, NVAEPreset)
    assert isinstance(cars, NVAEPreset)
    assert isinstance(style, StylePreset)
    with torch.device("meta"):
        levels = [NVAE(**settings.arguments).num_levels for settings in (faces_, cars)]
    assert levels == [24, 16]
    network = SmallStyleAutoencoder.of_sizes(**replace(style, channels=(4,) * 6, style_dim=8, mapping_layers=1).arguments)
    assert network.autoencode(torch.rand(1, 3, 128, 128), lambda level, encoded, sampled: encoded).shape == (1, 3, 128, 128)
    assert StyleGAN2Discriminator((4,) * 6, colours=3)(torch.rand(2, 3, 128, 128)).shape == (2,)


def test_all_data_of_the_presets_can_be_trained_on() -> None:
    assert all(DATA_SETS[settings.data].trainable or settings.scaled_to for settings in PRESETS.values())
