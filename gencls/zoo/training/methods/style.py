"""Training of a StyleGAN2, and then of an encoder for it."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core.errors import GenclsError
from gencls.zoo.networks import SmallStyleAutoencoder, StyleGAN2, StyleGAN2Discriminator
from gencls.zoo.training.methods.modules import NetworkTraining
from gencls.zoo.training.moving_average import move_average
from gencls.zoo.training.views.perturbations import Perturbation

__all__ = ["StyleTraining", "mixed_codes", "path_lengths", "r1_penalty"]

_AVERAGED = 10_000  # codes in the average code
_MIXING = 0.9  # share of images with two codes
_LENGTH_DECAY = 0.01  # of the average path length


def r1_penalty(discriminator: nn.Module, images: Tensor) -> Tensor:
    """The mean of ||grad D(x)||^2 over images, differentiable in the weights: R1 (Mescheder et al. 2018, arXiv:1801.04406).

    Args:
        discriminator: (N, C, H, W) to logits (N,).
        images: (N, C, H, W), real ones.
    """
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def path_lengths(images: Tensor, codes: Tensor) -> Tensor:
    """How far images move with their codes: ||J^T y|| with y normal, of unit variance over all pixels, (N,).

    Source: Karras et al. 2020, arXiv:1912.04958, section 3.2; the mean over levels is from their public code.

    Args:
        images: (N, C, H, W), made from the codes.
        codes: (N, L, D).
    """
    direction = torch.randn_like(images) / (images.shape[2] * images.shape[3]) ** 0.5
    (gradient,) = torch.autograd.grad((images * direction).sum(), codes, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()


def mixed_codes(generator: StyleGAN2, count: int, *, like: Tensor) -> Tensor:
    """Codes (N, L, D) of normal numbers, for most images of two: one for the levels above a random one, one from there on.

    Source: style mixing (Karras et al. 2019, arXiv:1812.04948, section 3.1).

    Args:
        generator: with L levels.
        count: N.
        like: says device and type.
    """
    levels = generator.num_levels
    codes = generator.mapping(torch.randn(2, count, generator.style_dim, device=like.device, dtype=like.dtype))
    first_of_second = torch.randint(1, levels, (count, 1), device=like.device)
    mixes = torch.rand(count, 1, device=like.device) < _MIXING
    second = (torch.arange(levels, device=like.device) >= first_of_second) & mixes
    return torch.where(second.unsqueeze(2), codes[1].unsqueeze(1), codes[0].unsqueeze(1))


class StyleTraining(NetworkTraining):
    """First the adversarial training of the generator, then the training of the encoder for its moving average.

    The generator descends on softplus(-D(G(w))), the discriminator on softplus(D(G(w))) + softplus(-D(x)) and, every
    ``penalty_every`` steps, gamma / 2 ||grad D(x)||^2 (R1). Each loss has gradients of its own weights only, so one step of the
    optimiser on their sum does both, on the same images. Path-length regularisation is optional. What is saved is the
    generator's moving average.

    The encoder descends on

        ||x - G(w)||^2 / pixels + a mean_i ||w_i - w_avg||^2 / D + b sum_{i>0} ||w_i - w_0||^2 / D,

    the squared error, the distance from the average code and that between the levels' codes (e4e, section 4.1). e4e's LPIPS and
    face-identity losses are left out: they need networks that cannot be had without a download; its discriminator of codes too.
    The generator does not change meanwhile, as in e4e; or, with ``joint_weight`` c > 0, it goes on with its adversarial
    training and descends on c times the squared error besides.

    Sources: StyleGAN2 (Karras et al. 2020, arXiv:1912.04958); e4e (Tov et al. 2021, arXiv:2102.02766).

    Args:
        network: whose generator becomes the moving average.
        discriminator: of images as large as the generator's.
        epochs: of the whole training.
        encoder_share: of the epochs, in (0, 1]; with 1 the generator stays as it is.
        gamma: weight of R1.
        penalty_every: steps.
        path_weight: of the path-length regularisation, every 4 steps on half of the batch; 2 in StyleGAN2, 0 leaves it out.
        half_life: of the moving average, in images.
        encoder_rate: learning rate of the encoder as a multiple of the others'.
        closeness: a.
        evenness: b.
        joint_weight: c.
        perturbation: see :class:`NetworkTraining`; the others likewise.
        learning_rate: there.
        seed: there.
        description: there.
    """

    averaged: Tensor
    mean_length: Tensor

    def __init__(
        self,
        network: SmallStyleAutoencoder,
        discriminator: StyleGAN2Discriminator,
        *,
        perturbation: Perturbation,
        learning_rate: float,
        seed: int,
        epochs: int,
        description: str = "",
        encoder_share: float = 0.3,
        gamma: float = 0.01,
        penalty_every: int = 16,
        path_weight: float = 0.0,
        half_life: float = 10_000,
        encoder_rate: float = 1.0,
        closeness: float = 0.0,
        evenness: float = 0.0,
        joint_weight: float = 0.0,
    ) -> None:
        super().__init__(perturbation=perturbation, learning_rate=learning_rate, seed=seed, description=description)
        weights = (gamma, path_weight, closeness, evenness, joint_weight)
        if not 0 < encoder_share <= 1 or min(weights) < 0 or penalty_every < 1 or half_life <= 0:
            raise GenclsError(
                "training of a StyleGAN2: expected encoder_share in (0, 1], weights >= 0, penalty_every >= 1 and half_life > "
                f"0, got {encoder_share}, {weights}, {penalty_every} and {half_life}"
            )
        self.network = network
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
    def product(self) -> nn.Module:
        """The network that is saved."""
        return self.network

    @property
    def restart_epochs(self) -> float:
        """The encoder's rate has a cosine of its own."""
        return self.adversarial_epochs

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Rates and moments of what is regularised now and then are adapted to that (StyleGAN2, appendix B)."""
        rare = self.penalty_every / (self.penalty_every + 1)
        path = 4 / 5 if self.path_weight else 1.0
        return [
            {"params": list(self.learner.parameters()), "lr": self.learning_rate * path, "betas": (0.0, 0.99**path)},
            {"params": list(self.discriminator.parameters()), "lr": self.learning_rate * rare, "betas": (0.0, 0.99**rare)},
            {"params": list(self.network.encoder.parameters()), "lr": self.learning_rate * self.encoder_rate},
        ]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """One step on images (N, C, H, W) in [0, 1]; the labels are not used."""
        images, labels = batch
        epoch = self.epochs_passed(batch_index)
        images = 2 * self.perturbation(self.network, images, labels, epoch=epoch) - 1
        figures = self._adversarial(images) if self._generator_learns(epoch) else {}
        if epoch >= self.adversarial_epochs:
            figures |= self._encoding(images)
        self.log_dict(figures, prog_bar=True, batch_size=len(images))
        return torch.stack(list(figures.values())).sum()

    def _generator_learns(self, epoch: float) -> bool:
        return epoch < self.adversarial_epochs or self.joint_weight > 0

    def _adversarial(self, images: Tensor) -> dict[str, Tensor]:
        """Both losses and the regularisers of this step, weighted."""
        real = self.network.padded(images)
        codes = mixed_codes(self.learner, len(real), like=real)
        fake = self.learner(codes, self._noise(len(real), like=real))
        self.discriminator.requires_grad_(False)
        figures = {"generator": F.softplus(-self.discriminator(fake)).mean()}
        self.discriminator.requires_grad_(True)
        judged = F.softplus(self.discriminator(fake.detach())).mean() + F.softplus(-self.discriminator(real)).mean()
        figures["discriminator"] = judged
        if self.global_step % self.penalty_every == 0:
            figures["r1"] = 0.5 * self.gamma * self.penalty_every * r1_penalty(self.discriminator, real)
        if self.path_weight and self.global_step % 4 == 0:
            figures["path"] = 4 * self.path_weight * self._path_penalty(max(1, len(real) // 2), like=real)
        return figures

    def _path_penalty(self, count: int, *, like: Tensor) -> Tensor:
        codes = mixed_codes(self.learner, count, like=like)
        lengths = path_lengths(self.learner(codes, self._noise(count, like=like)), codes)
        self.mean_length.lerp_(lengths.detach().mean(), _LENGTH_DECAY)
        return (lengths - self.mean_length).square().mean()

    def _noise(self, count: int, *, like: Tensor) -> list[Tensor]:
        """New noise of each image."""
        fixed = [self.learner.noises.get_buffer(f"noise_{i}") for i in range(self.learner.num_levels - 1)]
        return [torch.randn(count, *noise.shape[1:], device=like.device, dtype=like.dtype) for noise in fixed]

    def _encoding(self, images: Tensor) -> dict[str, Tensor]:
        """The squared error and the regularisers, weighted."""
        generator = self.learner if self.joint_weight else self.network.generator
        if not self.averaged:
            with torch.no_grad():
                mean = self.network.generator.mapping(images.new_empty(_AVERAGED, generator.style_dim).normal_()).mean(
                    0, keepdim=True
                )
            self.network.latent_avg.copy_(mean)
            self.averaged.fill_(True)
        offsets = self.network.encode(images)
        made = self.network.frame(generator(offsets + self.network.latent_avg))
        figures = {"error": (self.joint_weight or 1.0) * (images - made).square().mean()}
        if self.closeness:
            figures["closeness"] = self.closeness * offsets.square().mean()
        if self.evenness:
            figures["evenness"] = self.evenness * (offsets[:, 1:] - offsets[:, :1]).square().mean(2).sum(1).mean()
        return figures

    def on_train_batch_end(self, outputs: Any, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Move the average of the generator."""
        if self._generator_learns(self.epochs_passed(batch_idx)):
            move_average(self.network.generator, self.learner, decay=0.5 ** (len(batch[0]) / self.half_life))
