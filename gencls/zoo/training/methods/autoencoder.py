"""Training of generative autoencoders: reconstruction and a penalty on the codes, with a latent adversary or without."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.perceptual import SSIM
from gencls.zoo.data import ImageData
from gencls.zoo.networks import (
    MMD,
    Adversarial,
    CodeRegularizer,
    GenerativeAutoencoder,
    KLDivergence,
    ShapiroWilk,
    TotalCorrelation,
)
from gencls.zoo.training.base import Moment, NetworkPreset, NetworkTraining, Steps
from gencls.zoo.training.functional import squared_error
from gencls.zoo.training.methods.latent_adversarial import LatentAdversary
from gencls.zoo.training.views.perturbations import Plain
from gencls.zoo.training.views.photo_views import FLIPS

_CHUNK = 500


class AutoencoderTraining(NetworkTraining):
    """Reconstruct images from drawn codes, and bring the codes to the prior.

        e(X, dec(Z)) + lambda r(Z | X),        Z ~ q(Z | X),        e = 1/N sum_i ||x_i - dec(z_i)||_2^2

    The error e is summed over the pixels of an image. With lambda 1 and r the KL divergence, this is the negative evidence
    lower bound of pixels that are normal with variance 1/2, up to a constant. The paper calls e the mean squared error, and
    does not give lambda.

    Steps of other optimisers may follow: one of the discriminator, if r is adversarial, then those of the adversary.

    Source: Lu and Chen, "On the Adversarial Robustness of Generative Autoencoders in the Latent Space", eq. 1 to 3, and line 4
    of Algorithm 1. Their Adam has learning rate 1e-3. Ours falls along a cosine from 2e-3, so that 1e-3 is its mean.

    Args:
        network: the autoencoder.
        regularizer: r, with parameters of its own if it is adversarial.
        weight: lambda, >= 0.
        adversary: attacks the codes after each step; None for ordinary training.
        mean_pixel: the brightness with which the decoder begins, in (0, 1): the bias of its last layer, through the sigmoid.
            Digits are dark, and hundreds of steps would otherwise go by until the background is.

    Raises:
        GenclsError: for a negative weight, a mean pixel out of (0, 1), or a penalty on variances of an encoder that gives none.
    """

    network: GenerativeAutoencoder

    def __init__(
        self,
        network: GenerativeAutoencoder,
        regularizer: CodeRegularizer,
        *,
        weight: float,
        adversary: LatentAdversary | None = None,
        mean_pixel: float = 0.5,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if not (weight >= 0 and 0 < mean_pixel < 1):
            raise GenclsError(
                f"AutoencoderTraining: expected weight >= 0 and mean_pixel in (0, 1), got {weight} and {mean_pixel}"
            )
        if regularizer.needs_variance and not network.variational:
            raise GenclsError(
                f"AutoencoderTraining: expected a variational encoder for {type(regularizer).__name__}, got a deterministic one"
            )
        self.network = network
        self.regularizer = regularizer
        self.weight = weight
        self.adversary = adversary
        *_, bias = network.decoder.parameters()
        nn.init.constant_(bias, math.log(mean_pixel / (1 - mean_pixel)))

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """One Adam each for the network, for the penalty if that learns, and for what learns from the adversary."""
        learners: list[nn.Module] = [self.network]
        learners += [self.regularizer] if isinstance(self.regularizer, Adversarial) else []
        if self.adversary is not None:
            learners.append(self.network if self.adversary.joint else self.network.decoder)
        return [torch.optim.Adam(learner.parameters(), lr=self.learning_rate, fused=True) for learner in learners]

    @property
    def turns(self) -> tuple[int, ...]:
        """The adversary's optimiser, which is the last, has several turns."""
        first = (0, 1) if isinstance(self.regularizer, Adversarial) else (0,)
        return first if self.adversary is None else (*first, *[len(first)] * self.adversary.iterations)

    def steps(self, images: Tensor, labels: Tensor, at: Moment) -> Steps:
        images = self.perturbation(self.network, images, labels, epoch=at.epoch)
        posterior = self.network.posterior(images)
        codes = posterior.sample()
        error = squared_error(images, self.network.decode(codes)).mean()
        penalty = self.regularizer(codes, posterior)
        loss = error + self.weight * penalty
        yield loss, {"error": error, "penalty": penalty, "loss": loss}

        if isinstance(self.regularizer, Adversarial):
            discriminator = self.regularizer.discriminator_loss(codes.detach())
            yield discriminator, {"discriminator": discriminator}
        if self.adversary is not None:
            for _ in range(self.adversary.iterations):
                error = self.adversary.error(self.network, images, codes.detach(), posterior)
                yield error, {"adversarial error": error}


@dataclass(frozen=True, kw_only=True)
class AutoencoderPreset(NetworkPreset):
    """Training of a generative autoencoder.

    Attributes:
        code_size: this, ``widths`` and ``variational`` are arguments of
            :class:`~gencls.zoo.networks.GenerativeAutoencoder`.
        regularizer: the penalty on codes, a key of :data:`REGULARIZERS`.
        weight: lambda, see :class:`AutoencoderTraining`.
        adversary: see :class:`AutoencoderTraining`.
        beta: weight of the total correlation, for "total-correlation".
        dataset_size: images of the training set, for "total-correlation", which learns the same with any.
        kernel: kernel of the maximum mean discrepancy, for "mmd".
        hidden: neurons of the discriminator's hidden layers, for "adversarial".
        mean_pixel: the mean of the training images, in (0, 1), see :class:`AutoencoderTraining`.
    """

    code_size: int
    widths: tuple[int, ...] = (32, 64, 128, 64)
    variational: bool = True
    regularizer: Literal["kl", "mmd", "shapiro-wilk", "total-correlation", "adversarial"] = "kl"
    weight: float = 1.0
    adversary: LatentAdversary | None = None
    beta: float = 1.0
    dataset_size: int = 60_000
    kernel: Literal["gaussian", "inverse-multiquadratic"] = "gaussian"
    hidden: tuple[int, ...] = (256, 128)
    mean_pixel: float

    @property
    def arguments(self) -> dict[str, Any]:
        return {"image_shape": self.shape, **self.chosen("code_size", "widths", "variational")}

    def card_arguments(self, num_classes: int) -> dict[str, Any]:
        return self.arguments

    @property
    def penalty(self) -> CodeRegularizer:
        """A new penalty on codes."""
        return REGULARIZERS[self.regularizer](self)

    @property
    def recipe(self) -> str:
        found = self.penalty
        penalty = f"{self.weight:g} x {type(found).__name__}({found.extra_repr()})"
        codes = f"{'drawn' if self.variational else 'deterministic'} codes of {self.code_size} numbers"
        return (
            f"{self.duration}, Adam from learning rate {self.learning_rate} along a cosine to 0, on the squared error of an "
            f"image plus {penalty} of {codes}{f', {self.adversary}' if self.adversary else ''}; images: {self.perturbation}"
        )

    def training(self, num_classes: int) -> AutoencoderTraining:
        network = GenerativeAutoencoder(**self.arguments)
        own = self.chosen("weight", "adversary", "mean_pixel")
        return AutoencoderTraining(network, self.penalty, **own, **self.shared)

    def measure(self, network: Any, tests: Sequence[ImageData], *, few: int = 1000) -> dict[str, float]:
        """Measure reconstructions of all test images from the means of their codes, and the spread of the codes.

        Returns:
            Squared error per pixel, SSIM and PSNR, as means over images. For the last test set the standard deviation of the
                means over images, of each dimension: their mean, the smallest and the largest; for a variational encoder also
                the mean standard deviation of q(z | x). A penalty such as Shapiro-Wilk leaves the unit of the codes open, and
                radii of attacks on codes are in this unit.
        """
        figures: dict[str, float] = {}
        for test in tests:
            where = f"{test.name} {test.split}, {len(test)} images"
            figures |= {f"{name} of reconstructions, {where}": value for name, value in _fidelity(network, test.images).items()}
        with torch.no_grad():
            parts = [network.posterior(batch) for batch in tests[-1].images.split(_CHUNK)]
        spread = torch.cat([part.mean for part in parts]).std(0)
        figures[f"standard deviation of a dimension of the codes, mean of {len(spread)}, {where}"] = float(spread.mean())
        figures[f"standard deviation of a dimension of the codes, smallest, {where}"] = float(spread.min())
        figures[f"standard deviation of a dimension of the codes, largest, {where}"] = float(spread.max())
        if network.variational:
            variances = torch.cat([part.log_variance for part in parts])
            figures[f"standard deviation of q(z | x), mean of {len(spread)}, {where}"] = float((0.5 * variances).exp().mean())
        return {name: round(value, 6) for name, value in figures.items()}


REGULARIZERS: Mapping[str, Callable[[AutoencoderPreset], CodeRegularizer]] = MappingProxyType(
    {
        "kl": lambda preset: KLDivergence(),
        "mmd": lambda preset: MMD(kernel=preset.kernel),
        "shapiro-wilk": lambda preset: ShapiroWilk(),
        "total-correlation": lambda preset: TotalCorrelation(preset.beta, preset.dataset_size),
        "adversarial": lambda preset: Adversarial(preset.code_size, hidden=preset.hidden),
    }
)
"""Penalties on codes by their names, made from a preset."""


def _fidelity(network: GenerativeAutoencoder, images: Tensor) -> dict[str, float]:
    """How well a network in eval mode reconstructs images: means over images."""
    distance, errors, similarities = SSIM(), [], []
    with torch.no_grad():
        for batch in images.split(_CHUNK):
            made = network(batch)
            errors.append((made - batch).square().flatten(1).mean(1))
            similarities.append(1 - distance(made, batch))
    error = torch.cat(errors)
    return {
        "mean squared error": float(error.mean()),
        "SSIM": float(torch.cat(similarities).mean()),
        "PSNR in dB": float(-10 * error.log10().mean()),
    }


_GREY: dict[str, Any] = {"shape": (1, 28, 28), "perturbation": Plain(), "epochs": 4}

_DATA: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "mnist": {**_GREY, "data": "mnist", "code_size": 10, "mean_pixel": 0.13},
        "fashion": {**_GREY, "data": "fashion-mnist", "code_size": 30, "mean_pixel": 0.29},
        "faces": {
            "shape": (3, 64, 64),
            "perturbation": FLIPS,
            "epochs": 20,
            "data": "celeba-10k-gender",
            "code_size": 128,
            "mean_pixel": 0.43,
        },
    }
)
"""The paper's three data sets and the sizes of their codes (section 3.1.2). Our faces are a part of CelebA."""

_KINDS: Mapping[str, tuple[str, dict[str, Any]]] = MappingProxyType(
    {
        "vae": ("VAE (eq. 1)", {}),
        "mmd-vae": ("MMD-VAE (eq. 2)", {"regularizer": "mmd", "weight": 100.0}),
        "swt-vae": ("SWT-VAE (eq. 3)", {"regularizer": "shapiro-wilk", "weight": 100.0}),
        "mmd-dae": ("MMD-DAE (section 2.2)", {"regularizer": "mmd", "weight": 100.0, "variational": False}),
        "swt-dae": ("SWT-DAE (section 2.2)", {"regularizer": "shapiro-wilk", "weight": 100.0, "variational": False}),
        "tc-vae": ("beta-TCVAE (section 4.2)", {"regularizer": "total-correlation", "beta": 5.0}),
        "aae": ("adversarial autoencoder (section 2.2)", {"regularizer": "adversarial", "weight": 10.0, "variational": False}),
        "latent-adv-vae": ("VAE with latent adversarial training (Algorithm 1)", {"adversary": LatentAdversary()}),
    }
)


def _preset(kind: str, data: str) -> AutoencoderPreset:
    what, settings = _KINDS[kind]
    return AutoencoderPreset(
        name=f"{kind}-{data}",
        what=f"{what} of the latent-robustness paper (Lu and Chen)",
        batch_size=64,
        learning_rate=2e-3,
        **_DATA[data],
        **settings,
    )


PRESETS = tuple(_preset(kind, data) for data in _DATA for kind in _KINDS)
