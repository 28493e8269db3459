"""Trainings of encoders: Enc and Enc-D against closed forms, resume, cards."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chi
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core import GenclsError, seeded
from gencls.perceptual import SquaredL2
from gencls.zoo import load_data
from gencls.zoo.checkpoints.cards import read_card
from gencls.zoo.networks import LatentDiscriminator, ProjectionDiscriminator, ResNetEncoder
from gencls.zoo.trained import trained_network
from gencls.zoo.training import PRESETS, train
from gencls.zoo.training.base import Moment
from gencls.zoo.training.methods.cgan import ConditionalGANPreset
from gencls.zoo.training.methods.enc import EncDTraining, EncoderTraining, EncTraining, Fixed
from gencls.zoo.training.methods.gan_encoder import EncoderPreset
from gencls.zoo.training.views.differentiable import DifferentiableAugmentation
from gencls.zoo.training.views.perturbations import Plain
from recipes.gan_inversion.settings import PROFILES
from tests.trainings import logged, resumed

TINY: dict[str, Any] = {"data": "mnist-embedded", "limit": 96, "progress": False, "measured": 20}
SHAPE = (1, 8, 8)
NOTHING = DifferentiableAugmentation(translation=0.0, cutout=0.0)


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with seeded(0):
        yield


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> tuple[ConditionalGANPreset, Path]:
    """A GAN of a few steps, and the folder of its weights."""
    settings = PRESETS["cgan-mnist"]
    assert isinstance(settings, ConditionalGANPreset)
    small = replace(settings, latent_dim=4, width=2, discriminator_width=2, batch_size=32, watched=None)
    folder = tmp_path_factory.mktemp("gan")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConditionalGANPreset, "measure", lambda *args, **kwargs: {})
        train(small, **TINY, epochs=1, out=folder)
    return small, folder / "cgan-mnist"


def tiny(name: str, gan: tuple[ConditionalGANPreset, Path]) -> EncoderPreset:
    settings = PRESETS[name]
    assert isinstance(settings, EncoderPreset)
    given = {"gan": gan[0], "features": "robust-linf-mnist", "width": 2, "blocks": (1, 1), "batch_size": 32}
    return replace(settings, **given).starting_from(gan[1])


@pytest.mark.parametrize("name", ["enc-mnist", "enc-d-mnist"])
def test_a_killed_training_ends_with_the_same_weights(
    name: str, gan: tuple[ConditionalGANPreset, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EncoderPreset, "measure", lambda *args, **kwargs: {})
    settings = replace(tiny(name, gan), frozen_share=0.5)
    whole = train(settings, **TINY, epochs=2, out=tmp_path / "whole")
    found = resumed(settings, at=5, **TINY, epochs=2, out=tmp_path / "stopped")  # in the second epoch, when both learn
    assert found.read_bytes() == whole.read_bytes()
    assert read_card(found).command.endswith("--epochs 2 --limit 96 --pretrained cgan-mnist")


def test_the_card_has_the_figures_of_the_stored_network(gan: tuple[ConditionalGANPreset, Path], tmp_path: Path) -> None:
    settings = tiny("enc-d-mnist", gan)
    path = train(settings, **TINY, epochs=1, out=tmp_path)
    network = trained_network(ResNetEncoder, "enc-d-mnist", tmp_path)
    test = load_data("mnist-embedded", "test")
    figures = settings.measure(network, [test], few=20)
    assert figures == {key: value for key, value in read_card(path).metrics.items() if key != "training seconds"}
    for share in (0.05, 0.5, 0.95):
        found = figures[f"{share:.0%} quantile of the L2 norm of the prior, 100000 draws"]
        assert found == pytest.approx(chi.ppf(share, 4), rel=0.02)
    assert figures["mean L2 norm of the prior, 100000 draws"] == pytest.approx(chi.mean(4), rel=0.01)
    assert len(logged(tmp_path / "enc-d-mnist", "distance")) == 1


class Stretched(nn.Module):
    """A generator of 8 x 8 images that repeat the code's first number, shifted by the class."""

    def forward(self, latents: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return (latents[0][:, :1] + labels[:, None])[:, :, None, None].expand(-1, 1, 8, 8)


def parts() -> Fixed:
    return Fixed(Stretched(), SquaredL2())  # type: ignore[arg-type]


def training(kind: type[EncoderTraining], **settings: Any) -> Any:
    network = ResNetEncoder(latent_dim=4, image_shape=SHAPE, width=2, blocks=(1,))
    given: dict[str, Any] = {"perturbation": Plain(), "learning_rate": 1e-3, "weight": 1.0, "discriminator_rate": 0.5}
    if kind is EncDTraining:
        return EncDTraining(network, LatentDiscriminator(4, (5,)), parts, **(given | settings))
    learned = ProjectionDiscriminator(num_classes=3, width=2, image_shape=SHAPE)
    critic = ProjectionDiscriminator(num_classes=3, width=2, image_shape=SHAPE)
    given |= {"frozen_epochs": 1.0, "augmentation": NOTHING}
    module = EncTraining(network, critic, parts, lambda: learned, **(given | settings))
    module.eval()  # the encoder's batch norms then see each image alone
    return module


IMAGES, LABELS = torch.linspace(0, 1, 4 * 64).view(4, 1, 8, 8), torch.tensor([0, 1, 2, 1])


def test_enc_by_hand() -> None:
    module = training(EncTraining, weight=3.0)
    ((loss, figures),) = list(module.steps(IMAGES, LABELS, Moment(epoch=0.5, epochs=3)))
    learned = module._learned().eval()
    codes = module.network(IMAGES)
    made = Stretched()((codes,), LABELS)
    distance = (IMAGES - made).square().sum((1, 2, 3)).mean()
    opinion = -learned(made, LABELS).mean()
    torch.testing.assert_close(loss, distance + 3 * opinion)
    assert set(figures) == {"distance", "norm", "opinion"}
    torch.testing.assert_close(figures["norm"], codes.norm(dim=1).mean())


def test_the_discriminator_begins_as_the_gans_and_learns_after_the_frozen_epochs() -> None:
    module = training(EncTraining)
    learned = {key: value.clone() for key, value in module._learned().state_dict().items()}
    ((loss, _),) = list(module.steps(IMAGES, LABELS, Moment(epoch=0.99, epochs=3)))
    loss.backward()
    assert {
        key: value for key, value in module.discriminator.state_dict().items() if not torch.equal(value, learned[key])
    } == {}
    assert learning(module) == {"network"}

    module.zero_grad()
    ((loss, figures),) = list(module.steps(IMAGES, LABELS, Moment(epoch=1.0, epochs=3)))
    loss.backward()
    assert learning(module) == {"network", "discriminator"}
    with torch.no_grad():
        module.discriminator.eval()
        made = Stretched()((module.network(IMAGES),), LABELS)
        real, fake = module.discriminator(IMAGES, LABELS), module.discriminator(made, LABELS)
    # The steps have changed the estimates of the spectral norms a little.
    expected = (1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean()
    torch.testing.assert_close(figures["discriminator"].detach(), expected, rtol=0.1, atol=0.05)


def learning(module: nn.Module) -> set[str]:
    return {name.split(".")[0] for name, value in module.named_parameters() if value.grad is not None}


def test_each_loss_of_enc_has_gradients_of_its_own_weights() -> None:
    module = training(EncTraining, frozen_epochs=0.0)
    ((_, figures),) = list(module.steps(IMAGES, LABELS, Moment(epoch=0.0)))
    for name, part in (("distance", "network"), ("opinion", "network"), ("discriminator", "discriminator")):
        module.zero_grad()
        figures[name].backward(retain_graph=True)
        assert learning(module) == {part}


def test_enc_d_by_hand() -> None:
    module = training(EncDTraining, weight=2.0).eval()
    with seeded(3):
        ((loss, figures),) = list(module.steps(IMAGES, LABELS, Moment()))
    with seeded(3):
        prior = torch.randn(4, 4)
    codes = module.network(IMAGES)
    critic = module.discriminator
    distance = (IMAGES - Stretched()((codes,), LABELS)).square().sum((1, 2, 3)).mean()
    opinion = -F.logsigmoid(critic(codes)).mean()
    judged = -F.logsigmoid(critic(prior)).mean() - F.logsigmoid(-critic(codes)).mean()
    torch.testing.assert_close(loss, distance + 2 * opinion + judged)
    for name, part in (("distance", "network"), ("opinion", "network"), ("discriminator", "discriminator")):
        module.zero_grad()
        figures[name].backward(retain_graph=True)
        assert learning(module) == {part}


def test_a_weight_of_zero_leaves_the_distance_alone() -> None:
    module = training(EncTraining, weight=0.0)
    ((loss, figures),) = list(module.steps(IMAGES, LABELS, Moment(epoch=0.0, epochs=3)))
    assert torch.equal(loss, figures["distance"])


@pytest.mark.parametrize("kind", [EncTraining, EncDTraining])
def test_the_discriminator_has_a_rate_of_its_own(kind: type[EncoderTraining]) -> None:
    groups = training(kind, discriminator_rate=0.25).optimizers()[0].param_groups
    assert [group["lr"] for group in groups] == [1e-3, 0.25e-3]
    assert groups[1]["betas"] == ((0.0, 0.9) if kind is EncTraining else (0.9, 0.999))


def test_settings_and_weights_that_do_not_fit(gan: tuple[ConditionalGANPreset, Path]) -> None:
    with pytest.raises(GenclsError, match="expected weight >= 0 and discriminator_rate > 0, got -1.0 and 0.5"):
        training(EncDTraining, weight=-1.0)
    with pytest.raises(GenclsError, match="enc-fashion: expected the folder with the weights of cgan-fashion, got /nowhere"):
        PRESETS["enc-fashion"].starting_from(Path("/nowhere"))
    settings = tiny("enc-mnist", gan)
    with pytest.raises(GenclsError, match=r"expected a generator of 3 latents and images \(1, 28, 28\), got 4 and"):
        replace(settings, gan=replace(gan[0], latent_dim=3)).fixed()
    with pytest.raises(GenclsError, match="expected a generator of the 11 classes of the images, got one of 10"):
        settings.training(11).steps(torch.rand(2, 1, 28, 28), torch.tensor([0, 10]), Moment()).__next__()
    with pytest.raises(GenclsError, match="Make them with: gencls train cgan-cifar10 "):
        PRESETS["enc-cifar10"].fixed()  # type: ignore[attr-defined]


def test_a_folder_of_all_weights_serves_as_that_of_the_gan_does(gan: tuple[ConditionalGANPreset, Path]) -> None:
    settings = tiny("enc-mnist", gan)
    for folder in (gan[1], gan[1].parent):
        found = settings.starting_from(folder)
        for one, other in ((found.fixed().generator, settings.fixed().generator), (found.learned(), settings.learned())):
            state = other.state_dict()
            assert all(torch.equal(value, state[key]) for key, value in one.state_dict().items())


def test_the_distance_is_that_of_the_recipes_tables() -> None:
    for name in ("enc-cifar10", "enc-d-cifar10"):
        settings = PRESETS[name]
        assert isinstance(settings, EncoderPreset)
        assert settings.features == PROFILES["cifar10"].features["plain"] == "features-cifar10"


@pytest.mark.parametrize("name", [name for name, settings in PRESETS.items() if isinstance(settings, EncoderPreset)])
def test_presets_say_what_they_do(name: str) -> None:
    settings = PRESETS[name]
    assert isinstance(settings, EncoderPreset)
    assert settings.recipe.startswith(f"{settings.epochs} epochs of batches of {settings.batch_size}")
    assert ("frozen in the first 33%" in settings.recipe) == (not settings.codes)
    assert settings.image_shape == settings.gan.image_shape
