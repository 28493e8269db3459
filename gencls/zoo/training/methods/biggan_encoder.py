"""Trainings of encoders for published generators: BigGAN on Imagenette, and FQ-BigGAN on CIFAR10."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from torch import nn

from gencls.core.distance import ImageDistance
from gencls.core.errors import GenclsError
from gencls.perceptual import LPIPS, Combined, SquaredL2
from gencls.zoo.checkpoints.places import weights_in
from gencls.zoo.distances import DISTANCES
from gencls.zoo.networks import BigGAN
from gencls.zoo.networks.gans.biggan_discriminator import BigGANDiscriminator
from gencls.zoo.networks.gans.published import (
    DISCRIMINATOR,
    FILE,
    IMAGENETTE,
    load_biggan,
    load_biggan_discriminator,
)
from gencls.zoo.registry import load_distance
from gencls.zoo.training.methods.enc import Fixed
from gencls.zoo.training.methods.gan_encoder import GANEncoderPreset
from gencls.zoo.training.views.perturbations import Plain

_TRUNKS = ("vgg16.pth", "vgg16-397923af.pth")
"""Names of torchvision's VGG-16 in the user's folder."""


@dataclass(frozen=True, kw_only=True)
class BigGANEncoderPreset(GANEncoderPreset):
    """Training of an encoder for a generator of GitHub ajbrock/BigGAN-PyTorch or YangNaruto/FQ-GAN.

    ``weights`` is the folder with the published files: ``G_ema.pth``; for Enc ``D.pth``, the discriminator that learned with
    it; for LPIPS the file of torchvision's VGG-16.

    Attributes:
        title: the generator in words.
        latents: length of the codes; that of the user's file counts once there is one.
        classes: numbers of the generator's classes that the labels mean; None: all.
        features: name of the feature distance in D, as :func:`gencls.zoo.load_distance` takes it; None takes LPIPS with VGG-16.
    """

    title: str
    latents: int
    classes: tuple[int, ...] | None = None
    features: str | None = None

    @property
    def scaled_to(self) -> int:
        return self.shape[1]

    @property
    def latent_dim(self) -> int:
        return self.latents

    @property
    def names(self) -> tuple[str, str]:
        return self.title, "LPIPS (VGG-16)" if self.features is None else f"the feature distance {self.features}"

    def starting_from(self, pretrained: Path) -> Self:
        """The same training with the files of this folder; the generator's file says how long the codes are.

        Raises:
            GenclsError: for a path that is no folder; for a generator's file that is missing, damaged, of another layout, or of
                images of another size.
        """
        found = super().starting_from(pretrained)
        return replace(found, latents=int(found.generator().latent_shapes[0][0]))

    def require(self) -> None:
        if self.weights is None:
            files = [FILE, *([] if self.codes else [DISCRIMINATOR]), *([_TRUNKS[0]] if self.features is None else [])]
            raise GenclsError(
                f"{self.name}: expected --pretrained FOLDER with {', '.join(files)}, the published weights of {self.title}; "
                "got none. docs/weights.md says where they come from"
            )
        self.distance()
        path = self.weights / DISCRIMINATOR
        if not self.codes and not path.is_file():
            raise GenclsError(
                f"{self.name}: expected {path}, the discriminator that learned with the generator; got no such file. "
                "docs/weights.md says where it comes from"
            )

    def generator(self) -> BigGAN:
        """Read the generator; errors are those of :func:`~gencls.zoo.networks.gans.published.load_biggan`."""
        return load_biggan(self._folder, classes=self.classes, size=self.shape[1])

    def distance(self) -> ImageDistance:
        """Read the perceptual distance.

        Raises:
            GenclsError: for weights that are missing, naming the places that were searched.
        """
        if self.features is not None:
            return load_distance(self.features, weights=weights_in(self._folder, DISTANCES[self.features].trained))
        trunks = [self._folder / name for name in _TRUNKS]
        return LPIPS(next((trunk for trunk in trunks if trunk.is_file()), trunks[0]))

    def fixed(self, num_classes: int = 1) -> Fixed:
        generator = self.generator()
        if generator.num_classes < num_classes:
            raise GenclsError(
                f"{self.name}: expected a generator of the {num_classes} classes of the images, got one of "
                f"{generator.num_classes}"
            )
        return Fixed(generator, Combined(SquaredL2(), self.distance(), self.percept))

    def critic(self, num_classes: int) -> nn.Module:
        if self.weights is None:
            return BigGANDiscriminator(classes=self.classes)
        return self.learned().train().requires_grad_(True)

    def learned(self) -> BigGANDiscriminator:
        """Read D.pth; errors are those of :func:`~gencls.zoo.networks.gans.published.load_biggan_discriminator`."""
        found = load_biggan_discriminator(self._folder, classes=self.classes)
        if found.size != self.shape[1]:
            raise GenclsError(
                f"{self._folder / DISCRIMINATOR}: expected a discriminator of {self.shape[1]} pixels; got one of {found.size}"
            )
        return found

    @property
    def _folder(self) -> Path:
        if self.weights is None:
            self.require()
        return self.weights or Path()


def _preset(name: str, what: str, *, codes: bool, **settings: Any) -> BigGANEncoderPreset:
    return BigGANEncoderPreset(
        name=name,
        what=f"Encoder for {what}: {'Enc-D' if codes else 'Enc'}",
        codes=codes,
        perturbation=Plain(),
        learning_rate=1e-3,
        discriminator_rate=0.2,
        weight=5.0 if codes else 1.0,  # as the encoders for our own GANs
        width=64,
        blocks=(2, 2, 2, 2),
        **settings,
    )


_IMAGENETTE: dict[str, Any] = {
    "what": "BigGAN on Imagenette (thesis, section 3.3)",
    "data": "imagenette",
    "shape": (3, 128, 128),
    "epochs": 300,  # in the thesis those of Enc, 100 of them with the discriminator frozen
    "batch_size": 64,
    "title": "BigGAN, ImageNet at 128 pixels, for Imagenette's ten classes",
    "latents": 120,
    "classes": IMAGENETTE,
}

PRESETS = (
    _preset("enc-imagenette", codes=False, **_IMAGENETTE),
    _preset("enc-d-imagenette", codes=True, **_IMAGENETTE),
    # Enc would have to train FQ-GAN's quantised discriminator on, which no training here does.
    _preset(
        "enc-d-fqgan-cifar10",
        "FQ-BigGAN on CIFAR10 (thesis, section 3.3)",
        codes=True,
        data="cifar10",
        shape=(3, 32, 32),
        epochs=20,
        batch_size=128,
        title="FQ-BigGAN, CIFAR10",
        latents=128,
        features="features-cifar10",
    ),
)
