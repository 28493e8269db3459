"""Bad input of GAN inversion and perceptual distances, for tests/test_bad_input.py."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gencls import zoo
from gencls.core import Latents
from gencls.defenses import EABS, Direct, DirectPlus, Enc, robustness_bound
from gencls.eval import FGSM, ThreatModel, evaluate
from gencls.eval.measures.fid import frechet_distance
from gencls.perceptual import ELPIPS, LPIPS, Combined, FeatureDistance, SquaredL2
from gencls.perceptual.trunks import TRUNKS
from gencls.zoo.checkpoints.cards import Card
from gencls.zoo.checkpoints.checkpoint import save_checkpoint
from gencls.zoo.checkpoints.places import WEIGHTS
from gencls.zoo.networks import BigGAN, SelfModulatedGenerator
from gencls.zoo.networks.gans.published import load_biggan
from recipes.gan_inversion.runs import Run
from recipes.gan_inversion.settings import BUDGETS, PROFILES
from tests.toys import LinearBlocks, SigmoidDecoders


def _published_gan(folder: Path, *, changes: dict[str, torch.Tensor] | None = None, **settings: Any) -> None:
    """A published generator of 32 pixels and 10 classes, with some tensors that are others."""
    network = BigGAN(size=32, width=2, num_classes=10, latent_dim=6, shared_dim=None, hierarchical=False, attention=())
    torch.save(network.state_dict() | (changes or {}), folder / "G_ema.pth")
    load_biggan(folder, **settings)


def _committed(name: str, folder: Path) -> Path:
    """A copy of committed weights and their card."""
    for suffix in (".safetensors", ".json"):
        shutil.copy(WEIGHTS / f"{name}{suffix}", folder)
    return folder / f"{name}.safetensors"


def _trunk(folder: Path, *, prefix: str = "features.", first: float = 0.0) -> None:
    """LPIPS on a file of SqueezeNet, whose names begin with the prefix, with a number in its first tensor."""
    state = {f"{prefix}{name}": value for name, value in TRUNKS["squeeze"].make().state_dict().items()}
    state[f"{prefix}0.weight"].flatten()[0] = first
    torch.save(state, folder / "squeezenet.pth")
    LPIPS(folder / "squeezenet.pth", "squeeze")


def _features() -> FeatureDistance:
    """A distance of features of a network that takes three channels."""
    return FeatureDistance(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()), ("1",))


def _seen_by_colours(channels: int) -> None:
    images = torch.rand(2, channels, 8, 8)
    _features()(images, images)


def _no_package() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gencls.perceptual.published.find_spec", lambda name: None)  # as if it were not installed
        LPIPS(net="shift-tolerant-alex")


class _Tall(LinearBlocks):
    """A generator with two latent levels."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_shapes = (torch.Size([3]), torch.Size([2]))


class _Normed(SigmoidDecoders):
    """A generator with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, latents: Latents, labels: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = super().forward((self.norm(latents[0]),), labels)
        return images


class _Tanh(SigmoidDecoders):
    """A generator of images in [-1, 1]."""

    def forward(self, latents: Latents, labels: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = 2 * super().forward((latents[0] - 1,), labels) - 1
        return images


IMAGES = torch.full((2, 1, 8, 8), 0.5)


def _encoded(**settings: Any) -> nn.Module:
    """A classifier with an encoder."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    return Enc(SigmoidDecoders(), encoder, distance=SquaredL2(), **{"steps": 1, **settings}).eval()


def _another_generator() -> None:
    defense = Direct(SigmoidDecoders(), distance=SquaredL2(), steps=1, starts=2)
    defense.generator = SigmoidDecoders(seed=1)


def _second_derivative() -> None:
    images = IMAGES.clone().requires_grad_()
    scores = _encoded(memory_budget=1).surrogate("unrolled")(images).sum()
    (gradient,) = torch.autograd.grad(scores, images, create_graph=True)
    gradient.square().sum().backward()


def _few_classes() -> None:
    """Evaluate a classifier of four classes on a label of a fifth."""
    defense = Direct(LinearBlocks(num_classes=4), distance=SquaredL2(), steps=1, starts=2).eval()
    attacks = {"FGSM": FGSM(ThreatModel("linf", epsilon=0.1))}
    evaluate(defense, attacks, [(torch.full((2, 1, 8, 8), 0.5), torch.tensor([3, 4]))])


def recipe_of_few_classes(folder: Path) -> Run:
    """A run of the recipe on ten digits whose folder of weights has a generator of five classes."""
    layout = {"num_classes": 5, "latent_dim": 2, "width": 1, "image_shape": (1, 28, 28)}
    settings: dict[str, Any] = {"name": "cgan-mnist", "architecture": "SelfModulatedGenerator", "arguments": layout}
    words = dict.fromkeys(("what", "trained_on", "command", "licence"), "")
    network = SelfModulatedGenerator(num_classes=5, latent_dim=2, width=1, image_shape=(1, 28, 28))
    save_checkpoint(network, folder / "cgan-mnist.safetensors", Card(**settings, **words, metrics={}, seed=0))
    data = zoo.load_data("mnist-embedded", "test", limit=10)
    return Run(profile=PROFILES["smoke"], budget=BUDGETS["smoke"], out=folder / "run", data=data, weights=folder)


def _modulated(length: int, label: int) -> None:
    """Decode a latent of some length for a label with a generator of three classes and latents of five numbers."""
    network = SelfModulatedGenerator(num_classes=3, latent_dim=5, width=1, image_shape=(1, 8, 8)).eval()
    network((torch.zeros(1, length),), torch.tensor([label]))


class _Mean(nn.Module):
    """Images of any shape to three numbers, the mean."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2, 3)).unsqueeze(1).expand(-1, 3)


def _grey(method: Any, *encoder: nn.Module) -> None:
    """Invert grey images with a generator of colours."""
    method(LinearBlocks(image_shape=(3, 8, 8)), *encoder, distance=SquaredL2(), steps=1).eval()(torch.rand(2, 1, 8, 8))


def _one_size() -> None:
    """Transform images for a network that takes one size."""
    ELPIPS(zoo.load_distance("features-mnist"), samples=1)(*torch.rand(2, 2, 1, 28, 28))


INVERSIONS: dict[str, Callable[[Path], object]] = {
    "a negative lambda of GAN inversion": lambda _: Direct(LinearBlocks(), distance=SquaredL2(), weight=-1.0),
    "a lambda that overflows": lambda _: _encoded(weight=1e38),
    "a negative beta of E-ABS": lambda _: EABS(SigmoidDecoders(), beta=-1.0),
    "a memory budget of nothing": lambda _: Direct(LinearBlocks(), distance=SquaredL2(), memory_budget=0),
    "a negative number of blocks, of a generator without": lambda _: Direct(SigmoidDecoders(), distance=SquaredL2(), blocks=-1),
    "an encoder for a generator with two latent levels": lambda _: Enc(_Tall(), nn.Flatten(), distance=SquaredL2()),
    "block codes for a generator with two latent levels": lambda _: DirectPlus(_Tall(), distance=SquaredL2()),
    "an encoder that is a function": lambda _: Enc(SigmoidDecoders(), lambda images: images, distance=SquaredL2()),  # type: ignore[arg-type]
    "a generator with batch norm in training mode": lambda _: Direct(_Normed(), distance=SquaredL2(), starts=2)(IMAGES),
    "a generator of images in [-1, 1]": lambda _: Direct(_Tanh(), distance=SquaredL2(), starts=2)(IMAGES),
    "another generator in place of the classifier's": lambda _: _another_generator(),
    "a step size that overflows": lambda _: _encoded(max_lr=1e38)(IMAGES),
    "a second derivative of images in parts": lambda _: _second_derivative(),
    "a lower bound for a classifier with an encoder": lambda _: robustness_bound(_encoded(), IMAGES, torch.tensor([0, 1])),  # type: ignore[arg-type]
    "a negative lambda_percept": lambda _: Combined(SquaredL2(), SquaredL2(), -1.0),
    "another lambda_percept later": lambda _: setattr(Combined(SquaredL2(), SquaredL2()), "weight", -5),
    "a typo in a setting of GAN inversion": lambda _: Direct(LinearBlocks(), distance=SquaredL2(), wieght=1.0),  # type: ignore[call-arg]
    "more codes than blocks": lambda _: Direct(LinearBlocks(blocks=2), distance=SquaredL2(), blocks=3),
    "codes for the blocks of a generator without": lambda _: DirectPlus(SigmoidDecoders(), distance=SquaredL2()),
    "a generator with fewer classes than the labels": lambda _: _few_classes(),
    "a generator with fewer classes than the data of the recipe": lambda folder: recipe_of_few_classes(folder).require(["3.1"]),
    "a label that is none of a generator's classes": lambda _: _modulated(5, 3),
    "a latent of another length than a generator takes": lambda _: _modulated(6, 0),
    "grey images and a generator of colours, Direct": lambda _: _grey(Direct),
    "grey images and a generator of colours, Enc": lambda _: _grey(Enc, _Mean()),
    "features of two batches": lambda _: _features().compare((torch.rand(3, 2, 8, 8),), (torch.rand(2, 2, 8, 8),)),
    "features of images of two sizes": lambda _: _features()(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 9, 9)),
    "pixels of grey images and of colours": lambda _: SquaredL2()(torch.rand(2, 1, 8, 8), torch.rand(2, 3, 8, 8)),
    "transformed images and a network that takes one size": lambda _: _one_size(),
    "a published GAN with fewer classes than are asked for": lambda folder: _published_gan(folder, classes=(0, 10)),
    "a published GAN of another resolution": lambda folder: _published_gan(folder, size=128),
    "a published GAN of another layout": lambda folder: _published_gan(
        folder, changes={"blocks.0.0.conv3.weight": torch.zeros(1)}
    ),
    "a published GAN with a negative variance": lambda folder: _published_gan(
        folder, changes={"output_layer.0.stored_var": torch.full((2,), -0.5)}
    ),
    "weights of another training": lambda folder: zoo.load("enc-d-fashion", weights=_committed("enc-fashion", folder)),
    "weights of another training for a distance": lambda folder: zoo.load_distance(
        "features-mnist", weights=_committed("features-corruptions-mnist", folder)
    ),
    "LPIPS without its trunk": lambda _: LPIPS(),
    "LPIPS whose trunk is missing": lambda folder: LPIPS(folder / "vgg16.pth"),
    "LPIPS with a folder as its trunk": lambda folder: LPIPS(folder),
    "LPIPS with NaN in its trunk": lambda folder: _trunk(folder, first=torch.nan),
    "LPIPS whose trunk has other names": lambda folder: _trunk(folder, prefix=""),
    "LPIPS whose trunk is in a package that is missing": lambda _: _no_package(),
    "a distance of a published network without its file": lambda _: zoo.load_distance("robust-linf-cifar10"),
    "grey images for a trunk that takes colours": lambda _: _seen_by_colours(1),
    "images of another channel count than the trunk takes": lambda _: _seen_by_colours(4),
    "images of 0 to 255 for a Frechet distance": lambda _: frechet_distance(
        nn.Flatten().eval(), torch.full((4, 1, 2, 2), 255.0), torch.rand(4, 1, 2, 2)
    ),
    "a word for no distance": lambda folder: zoo.load("direct-fashion", distance="vgg"),
}
