"""Trainings of encoders for published generators, from files in the published layout with random weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gencls.core import GenclsError, seeded
from gencls.defenses import Direct, Enc
from gencls.perceptual import LPIPS, Combined, SquaredL2
from gencls.perceptual.trunks import TRUNKS
from gencls.zoo.checkpoints.cards import read_card
from gencls.zoo.networks import BigGAN, ResNetEncoder
from gencls.zoo.networks.gans.biggan_discriminator import BigGANDiscriminator
from gencls.zoo.networks.gans.published import load_biggan_discriminator, load_fqgan
from gencls.zoo.trained import trained_network
from gencls.zoo.training import PRESETS, train
from gencls.zoo.training.methods.biggan_encoder import BigGANEncoderPreset
from tests.trainings import logged

SIDE = 64  # the least of the layouts with attention and shared embedding
CLASSES = (3, 0, 4, 1, 5, 2, 6, 7, 8, 9)


def small_trunk() -> dict[str, torch.Tensor]:
    """A VGG-16 of random weights under torchvision's names."""
    with seeded(1):
        return {f"features.{key}": value for key, value in TRUNKS["vgg"].make().state_dict().items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("published")
    with seeded(0):
        generator = BigGAN(size=SIDE, width=2, num_classes=12, latent_dim=10, shared_dim=3, attention=(32,))
        critic = BigGANDiscriminator(channels=(8, 4, 4, 4, 4), num_classes=12, attention=(32,))
    torch.save(generator.state_dict(), out / "G_ema.pth")
    torch.save(critic.state_dict(), out / "D.pth")
    torch.save(small_trunk(), out / "vgg16-397923af.pth")
    return out


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two small pictures of each class under the names of Imagenette's folders, of two sizes."""
    from PIL import Image
    from torchvision.datasets import Imagenette

    generator = torch.Generator().manual_seed(0)
    for split in ("train", "val"):
        for number, wnid in enumerate(Imagenette._WNID_TO_CLASS):
            place = tmp_path / "imagenette2" / split / wnid
            place.mkdir(parents=True)
            pixels = torch.randint(256, (40 + number, 50, 3), dtype=torch.uint8, generator=generator)
            Image.fromarray(pixels.numpy()).save(place / "0.JPEG")
    return tmp_path


def tiny(name: str, folder: Path) -> BigGANEncoderPreset:
    settings = PRESETS[name]
    assert isinstance(settings, BigGANEncoderPreset)
    given: dict[str, Any] = {"shape": (3, SIDE, SIDE), "classes": CLASSES, "width": 8, "blocks": (1, 1), "batch_size": 10}
    return replace(settings, **given, frozen_share=0.5).starting_from(folder)


@pytest.mark.parametrize("name", ["enc-imagenette", "enc-d-imagenette"])
def test_an_encoder_for_biggan_learns_and_inverts(
    name: str, folder: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny(name, folder)
    path = train(settings, data_root=pictures, epochs=2, measured=2, progress=False, out=tmp_path / "runs")
    card = read_card(path)
    assert card.command == f"gencls train {name} --data-root DATA --epochs 2 --pretrained {folder.name}"
    assert card.licence == "Apache-2.0, data for non-commercial research only"
    assert card.trained_on == "imagenette train, 10 images"
    assert "LPIPS (VGG-16) (eq. 3.7)" in card.what
    assert len(logged(tmp_path / "runs" / name, "distance")) == 2
    encoder = trained_network(ResNetEncoder, name, tmp_path / "runs")
    fixed = settings.fixed()
    images = torch.rand(2, 3, SIDE, SIDE)
    scores = Enc(fixed.generator, encoder, distance=fixed.distance, steps=1).eval()(images)
    assert scores.shape == (2, 10)
    assert scores.isfinite().all()


def test_the_discriminator_is_the_published_one(folder: Path) -> None:
    settings = tiny("enc-imagenette", folder)
    module = settings.training(10)
    found, whole = module.discriminator.eval(), load_biggan_discriminator(folder / "D.pth")
    assert isinstance(found, BigGANDiscriminator)
    assert all(parameter.requires_grad for parameter in found.parameters())
    images, labels = torch.rand(3, 3, SIDE, SIDE), torch.tensor([0, 2, 9])
    torch.testing.assert_close(found(images, labels), whole(images, torch.tensor(CLASSES)[labels]))
    with pytest.raises(GenclsError, match=r"expected images of shape \(N, 3, 64, 64\), got \(1, 3, 32, 32\)"):
        found(torch.rand(1, 3, 32, 32), labels[:1])
    with pytest.raises(GenclsError, match=r"labels: expected values in 0..9 for 10 classes, got values in 10..10"):
        found(images[:1], torch.tensor([10]))


def test_files_of_something_else(folder: Path) -> None:
    with pytest.raises(GenclsError, match=r"G_ema.pth: BigGANDiscriminator checkpoint: expected embed.weight of rank 2; got"):
        load_biggan_discriminator(folder / "G_ema.pth")
    with pytest.raises(GenclsError, match="load_biggan_discriminator: expected classes to be .*, got 'all'"):
        load_biggan_discriminator(folder, classes="all")  # type: ignore[arg-type]


@pytest.mark.parametrize(("side", "width", "expected"), [(64, 8, False), (64, 15, False), (64, 16, True), (32, 8, True)])
def test_narrow_encoders_of_large_images_have_plain_layouts(side: int, width: int, expected: bool) -> None:
    """Torch writes beyond its memory for some of the others."""
    settings = replace(PRESETS["enc-d-imagenette"], shape=(3, side, side), width=width, blocks=(1,))
    assert isinstance(settings, BigGANEncoderPreset)
    assert settings.training(10).channels_last == expected
    assert PRESETS["enc-d-imagenette"].training(10).channels_last


def test_the_discriminator_by_hand(folder: Path) -> None:
    """The last block and the projection, with the layers that the published code names."""
    critic = load_biggan_discriminator(folder)
    maps = 2 * torch.rand(2, 3, SIDE, SIDE) - 1
    before = maps
    for parts in critic.blocks[:-1]:
        for part in parts.children():
            before = part(before)
    assert before.shape == (2, 4, 4, 4)
    block = critic.blocks[-1][0]
    after = before + block.conv2(block.conv1(before.relu()).relu())
    features = after.relu().sum((2, 3))
    expected = critic.linear(features)[:, 0] + (critic.embed(torch.tensor([5, 7])) * features).sum(1)
    torch.testing.assert_close(critic((maps + 1) / 2, torch.tensor([5, 7])), expected)


def test_the_distance_is_lpips_of_the_users_file(folder: Path) -> None:
    images, others = torch.rand(2, 2, 3, SIDE, SIDE)
    expected = Combined(SquaredL2(), LPIPS(small_trunk()))(images, others)
    torch.testing.assert_close(tiny("enc-d-imagenette", folder).fixed().distance(images, others), expected)


def test_what_is_missing_is_named_before_the_data_are_read(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(GenclsError, match="expected --pretrained FOLDER with G_ema.pth, D.pth, vgg16.pth, the pub"):
        train("enc-imagenette", out=tmp_path)
    with pytest.raises(GenclsError, match="expected the folder with the weights of BigGAN, ImageNet at 128 pixels, .*got /no"):
        train("enc-imagenette", pretrained="/nowhere", out=tmp_path)
    with pytest.raises(GenclsError, match="expected a BigGAN of 128 pixels; got one of 64 pixels"):
        train("enc-d-imagenette", pretrained=folder, out=tmp_path)
    few = tmp_path / "few"
    few.mkdir()
    (few / "G_ema.pth").symlink_to(folder / "G_ema.pth")
    lacking = tiny("enc-imagenette", few)
    with pytest.raises(GenclsError, match=r"LPIPS: expected torchvision's file vgg16-397923af.pth, .*as .*vgg16.pth, got no"):
        lacking.require()
    (few / "vgg16.pth").symlink_to(folder / "vgg16-397923af.pth")
    with pytest.raises(GenclsError, match=r"enc-imagenette: expected .*few/D.pth, the discriminator .*; got no such file"):
        lacking.require()
    with pytest.raises(GenclsError, match="expected a generator of the 11 classes of the images, got one of 10"):
        tiny("enc-d-imagenette", folder).fixed(11)


def test_fq_biggan_from_its_file_is_inverted(tmp_path: Path) -> None:
    with seeded(2):
        network = BigGAN(
            size=32, width=2, latent_dim=6, num_classes=10, shared_dim=None, hierarchical=False, attention=(), sn_eps=1e-8
        ).eval()
    torch.save({f"module.{key}": value for key, value in network.state_dict().items()}, tmp_path / "G_ema.pth")
    generator, images = load_fqgan(tmp_path), torch.rand(2, 3, 32, 32)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3072, 6)).requires_grad_(False)
    scores = Enc(generator, encoder, distance=SquaredL2(), steps=0, weight=0.0).eval()(images)
    made = network.decode_all((encoder(images)[:, None].expand(-1, 10, -1),))
    torch.testing.assert_close(scores, -(made - images[:, None]).square().flatten(2).sum(2))
    assert Direct(generator, distance=SquaredL2(), steps=1, starts=4).eval()(images).shape == (2, 10)
    settings = PRESETS["enc-d-fqgan-cifar10"]
    assert isinstance(settings, BigGANEncoderPreset)
    assert settings.starting_from(tmp_path).arguments["latent_dim"] == 6
