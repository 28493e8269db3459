"""Training of a StyleGAN2, then of an encoder for it."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gencls.core.errors import GenclsError
from gencls.zoo.networks import SmallStyleAutoencoder, StyleGAN2Discriminator
from gencls.zoo.networks.stylegan.latents import mixed_codes
from gencls.zoo.training.base import Moment, NetworkTraining, Steps
from gencls.zoo.training.functional import move_average, path_lengths, r1_penalty
from gencls.zoo.training.methods.generators import GeneratorPreset
from gencls.zoo.training.views.perturbations import Plain
from gencls.zoo.training.views.photo_views import FLIPS

_AVERAGED = 10_000  # codes that the average code is the mean of
_LENGTH_DECAY = 0.01  # decay of the average path length


class StyleTraining(NetworkTraining):
    """First the adversarial training of the generator, then the training of the encoder for its moving average.

    The generator descends on softplus(-D(G(w))), the discriminator on softplus(D(G(w))) + softplus(-D(x)) and, every
    ``penalty_every`` steps, gamma / 2 ||grad D(x)||^2 (R1). Each loss has gradients of its own weights only. So one step of the
    optimiser on their sum does both, on the same images. Path-length regularisation is optional. The training saves the
    generator's moving average.

    The encoder descends on

        ||x - G(w)||^2 / pixels + a mean_i ||w_i - w_avg||^2 / D + b sum_{i>0} ||w_i - w_0||^2 / D,

    These are the squared error, the distance from the average code and the distance between the levels' codes (e4e, section
    4.1). e4e's LPIPS and face-identity losses are left out, because they need networks that must be downloaded. Its
    discriminator of codes is left out too. The generator stays as it is meanwhile, as in e4e. With ``joint_weight`` c > 0 it
    goes on with its adversarial training and also descends on c times the squared error.

    Sources: StyleGAN2 (Karras et al. 2020, arXiv:1912.04958); e4e (Tov et al. 2021, arXiv:2102.02766).

    Args:
        network: the autoencoder. It is copied; the generator of the copy becomes the moving average.
        discriminator: a discriminator of images as large as the generator's.
        epochs: epochs of the whole training.
        encoder_share: share of the epochs that train the encoder, in (0, 1]; with 1 the generator stays as it is.
        gamma: weight of R1.
        penalty_every: steps from one R1 penalty to the next.
        path_weight: weight of the path-length regularisation, every 4 steps on half of the batch; 2 in StyleGAN2, 0 leaves it
            out.
        half_life: half-life of the moving average, in images.
        encoder_rate: learning rate of the encoder as a multiple of the others'.
        closeness: a, weight of the distance from the average code.
        evenness: b, weight of the distance between the levels' codes.
        joint_weight: c, weight of the squared error for the generator.
    """

    network: SmallStyleAutoencoder
    averaged: Tensor
    mean_length: Tensor

    def __init__(
        self,
        network: SmallStyleAutoencoder,
        discriminator: StyleGAN2Discriminator,
        *,
        epochs: int,
        encoder_share: float = 0.3,
        gamma: float = 0.01,
        penalty_every: int = 16,
        path_weight: float = 0.0,
        half_life: float = 10_000,
        encoder_rate: float = 1.0,
        closeness: float = 0.0,
        evenness: float = 0.0,
        joint_weight: float = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        weights = (gamma, path_weight, closeness, evenness, joint_weight)
        if not 0 < encoder_share <= 1 or min(weights) < 0 or penalty_every < 1 or half_life <= 0:
            raise GenclsError(
                "training of a StyleGAN2: expected encoder_share in (0, 1], weights >= 0, penalty_every >= 1 and half_life > "
                f"0, got {encoder_share}, {weights}, {penalty_every} and {half_life}"
            )
        self.network = copy.deepcopy(network)
        self.network.generator.requires_grad_(False)
        self.learner = copy.deepcopy(network.generator).requires_grad_(True)
        self.discriminator = discriminator
        self.adversarial_epochs = (1 - encoder_share) * epochs
        self.gamma = gamma
        self.penalty_every = penalty_every
        self.path_weight = path_weight
        self.half_life = half_life
        self.encoder_rate = encoder_rate
        self.closeness = closeness
        self.evenness = evenness
        self.joint_weight = joint_weight
        self.register_buffer("averaged", torch.tensor(False))
        self.register_buffer("mean_length", torch.zeros(()))

    @property
    def restart_epochs(self) -> float:
        """The encoder's rate has its own cosine."""
        return self.adversarial_epochs

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Lazy regularisers get adapted rates and moments (StyleGAN2, appendix B)."""
        rare = self.penalty_every / (self.penalty_every + 1)
        path = 4 / 5 if self.path_weight else 1.0
        return [
            {"params": list(self.learner.parameters()), "lr": self.learning_rate * path, "betas": (0.0, 0.99**path)},
            {"params": list(self.discriminator.parameters()), "lr": self.learning_rate * rare, "betas": (0.0, 0.99**rare)},
            {"params": list(self.network.encoder.parameters()), "lr": self.learning_rate * self.encoder_rate},
        ]

    def steps(self, images: Tensor, labels: Tensor, at: Moment) -> Steps:
        images = 2 * self.perturbation(self.network, images, labels, epoch=at.epoch) - 1
        generator_learns = at.epoch < self.adversarial_epochs or self.joint_weight > 0
        figures = self._adversarial(images, at.step) if generator_learns else {}
        if at.epoch >= self.adversarial_epochs:
            figures |= self._encoding(images)
        yield torch.stack(list(figures.values())).sum(), figures
        if generator_learns:
            move_average(self.network.generator, self.learner, decay=0.5 ** (len(images) / self.half_life))

    def _adversarial(self, images: Tensor, step: int) -> dict[str, Tensor]:
        """The losses of generator and discriminator and the regularisers of this step, weighted."""
        real = self.network.padded(images)
        codes = mixed_codes(self.learner, len(real), like=real)
        fake = self.learner(codes, self._noise(len(real), like=real))
        self.discriminator.requires_grad_(False)
        figures = {"generator": F.softplus(-self.discriminator(fake)).mean()}
        self.discriminator.requires_grad_(True)
        judged = F.softplus(self.discriminator(fake.detach())).mean() + F.softplus(-self.discriminator(real)).mean()
        figures["discriminator"] = judged
        if step % self.penalty_every == 0:
            figures["r1"] = 0.5 * self.gamma * self.penalty_every * r1_penalty(self.discriminator, real)
        if self.path_weight and step % 4 == 0:
            figures["path"] = 4 * self.path_weight * self._path_penalty(max(1, len(real) // 2), like=real)
        return figures

    def _path_penalty(self, count: int, *, like: Tensor) -> Tensor:
        codes = mixed_codes(self.learner, count, like=like)
        lengths = path_lengths(self.learner(codes, self._noise(count, like=like)), codes)
        self.mean_length.lerp_(lengths.detach().mean(), _LENGTH_DECAY)
        return (lengths - self.mean_length).square().mean()

    def _noise(self, count: int, *, like: Tensor) -> list[Tensor]:
        """Draw new noise for each image."""
        fixed = [self.learner.noises.get_buffer(f"noise_{i}") for i in range(self.learner.num_levels - 1)]
        return [torch.randn(count, *noise.shape[1:], device=like.device, dtype=like.dtype) for noise in fixed]

    def _encoding(self, images: Tensor) -> dict[str, Tensor]:
        """The squared error and the regularisers, weighted."""
        generator = self.learner if self.joint_weight else self.network.generator
        if not self.averaged:
            with torch.no_grad():
                codes = self.network.generator.mapping(images.new_empty(_AVERAGED, generator.style_dim).normal_())
            self.network.latent_avg.copy_(codes.mean(0, keepdim=True))
            self.averaged.fill_(True)
        offsets = self.network.encode(images)
        made = self.network.frame(generator(offsets + self.network.latent_avg))
        figures = {"error": (self.joint_weight or 1.0) * (images - made).square().mean()}
        if self.closeness:
            figures["closeness"] = self.closeness * offsets.square().mean()
        if self.evenness:
            figures["evenness"] = self.evenness * (offsets[:, 1:] - offsets[:, :1]).square().mean(2).sum(1).mean()
        return figures


@dataclass(frozen=True, kw_only=True)
class StylePreset(GeneratorPreset):
    """Training of a StyleGAN2 and of an encoder for it.

    Attributes:
        channels: channels at 4, 8, 16, ... pixels. Attributes up to ``encoder_widths`` are those of
            :class:`~gencls.zoo.networks.SmallStyleAutoencoder`.
        encoder_share: this and the attributes below are those of :class:`StyleTraining`.
    """

    channels: tuple[int, ...]
    style_dim: int
    mapping_layers: int
    encoder_widths: tuple[int, int, int]
    encoder_share: float
    gamma: float = 0.05
    path_weight: float = 0.0
    half_life: float = 10_000
    closeness: float = 1e-3
    evenness: float = 2e-4
    joint_weight: float = 0.0

    @property
    def arguments(self) -> dict[str, Any]:
        return {"image_shape": self.shape, **self.chosen("channels", "style_dim", "mapping_layers", "encoder_widths")}

    @property
    def recipe(self) -> str:
        path = f"path-length regularisation {self.path_weight}" if self.path_weight else "no path-length regularisation"
        joint = ""
        if self.joint_weight:
            joint = f" while the generator goes on, with {self.joint_weight} times the squared error besides"
        return (
            f"{self.duration}, Adam from learning rate {self.learning_rate} along a "
            f"cosine to 0: {1 - self.encoder_share:.0%} of them for the generator, with style mixing, R1 with gamma "
            f"{self.gamma} every 16 steps, {path}, moving average of half-life {self.half_life:.0f} images; then along a "
            f"second cosine for the encoder{joint}, on the squared error, {self.closeness} times the distance of codes from "
            f"their average and {self.evenness} times that between levels, without LPIPS, identity loss and discriminator of "
            f"codes; images: {self.perturbation}"
        )

    def training(self, num_classes: int) -> StyleTraining:
        own = ("epochs", "encoder_share", "gamma", "path_weight", "half_life", "closeness", "evenness", "joint_weight")
        return StyleTraining(
            SmallStyleAutoencoder.of_sizes(**self.arguments),
            StyleGAN2Discriminator(self.channels, colours=self.shape[0]),
            **self.chosen(*own),
            **self.shared,
        )


def _preset(name: str, what: str, *, sizes: tuple[int, ...], encoder: tuple[int, int, int], **others: Any) -> StylePreset:
    return StylePreset(
        name=name, what=f"StyleGAN2 of {what}", channels=sizes, encoder_widths=encoder, learning_rate=2e-3, **others
    )


_FASHION: dict[str, Any] = {"data": "fashion-mnist", "perturbation": Plain(), "shape": (1, 28, 28)}
_CLOTHES = "32 pixels for images of 28, with a small residual encoder in the place of e4e's"
_LARGE: dict[str, Any] = {"encoder": (64, 128, 256), "style_dim": 256, "mapping_layers": 8, "path_weight": 2.0}

PRESETS: tuple[StylePreset, ...] = (
    _preset(
        "stylegan2-fashion",
        f"{_CLOTHES}, sized for one CPU core",
        sizes=(64, 64, 32, 16),
        encoder=(32, 64, 128),
        style_dim=64,
        mapping_layers=4,
        epochs=6,
        encoder_share=1 / 2,
        batch_size=32,
        joint_weight=20.0,
        **_FASHION,
    ),
    _preset(
        "stylegan2-large-fashion",
        f"{_CLOTHES}, sized for a GPU",
        sizes=(256, 256, 128, 64),
        epochs=150,
        encoder_share=1 / 3,
        batch_size=64,
        **_LARGE,
        **_FASHION,
    ),
    _preset(
        "stylegan2-cars",
        "128 pixels for cars, with a small residual encoder in the place of the Style Transformer, sized for a GPU",
        data="stanford-cars-4",
        perturbation=FLIPS,
        shape=(3, 128, 128),
        sizes=(256, 256, 256, 128, 64, 32),
        epochs=800,
        encoder_share=1 / 4,
        batch_size=32,
        **_LARGE,
    ),
)
