"""The base of hierarchical VAEs: levels of codes, each with a prior and a posterior that depend on the codes above."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gencls.core.errors import GenclsError
from gencls.core.generator import Latents, Mix, MultiLatentModel
from gencls.core.images import check_image_shape
from gencls.zoo.networks.nvae.logistic_mixture import LogisticMixture


class DiagonalGaussian:
    """N(mean, scale^2), independent in each element, with the soft clamp c(a) = 5 tanh(a / 5) of both parameters.

    mean = c(mu), scale = exp(c(log sigma)) + floor.

    Source: NVAE (Vahdat and Kautz 2020, arXiv:2007.03898); the clamp is from its public code.

    Args:
        mu: the mean before the clamp, (N, ...).
        log_sigma: the logarithm of the scale before the clamp, (N, ...).
        floor: number added to the scale, >= 0.
    """

    def __init__(self, mu: Tensor, log_sigma: Tensor, *, floor: float = 0.0) -> None:
        self.mu, self.log_sigma, self.floor = mu, log_sigma, floor
        self.mean = _soft_clamp(mu)
        self.scale = _soft_clamp(log_sigma).exp() + floor

    def residual(self, mu: Tensor, log_sigma: Tensor) -> "DiagonalGaussian":
        """N(mu_p + mu, ...): a Gaussian relative to this one; parameters are added before the clamp (NVAE, section 3.2)."""
        return DiagonalGaussian(self.mu + mu, self.log_sigma + log_sigma, floor=self.floor)

    def at(self, noise: Tensor, *, temperature: float = 1.0) -> Tensor:
        """The draw mean + temperature * scale * noise."""
        return self.mean + temperature * self.scale * noise

    def log_prob(self, codes: Tensor) -> Tensor:
        """Log density of each image's code, summed: (N,)."""
        standard = (codes - self.mean) / self.scale
        return -(0.5 * standard.square() + self.scale.log() + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)

    def kl(self, other: "DiagonalGaussian") -> Tensor:
        """KL(self || other), summed over each image's code: (N,)."""
        ratio = self.scale / other.scale
        shift = (self.mean - other.mean) / other.scale
        return (0.5 * (shift.square() + ratio.square()) - 0.5 - ratio.log()).flatten(1).sum(1)


Choose = Callable[[int, Tensor, DiagonalGaussian], Tensor]
"""(level, the decoder's state above it, prior) -> the code to use at this level."""


class HierarchicalVAEOutput(NamedTuple):
    """The terms of training: minimise kl.sum(1) - reconstruction.log_prob(images).sum((1, 2))."""

    reconstruction: LogisticMixture
    """p(x | z) for a draw z of the posterior."""
    kl: Tensor
    """(N, L): KL(q(z_i | x, z_<i) || p(z_i | z_<i)); with flows log q - log p of the draw."""


class HierarchicalVAE(MultiLatentModel):
    """p(x, z) = p(x | z) prod_i p(z_i | z_<i) with the posterior q(z | x) = prod_i q(z_i | x, z_<i).

    The encoder runs once per image. Then one pass goes from the coarsest level to the finest. At each level it computes the
    prior and the posterior from the decoder's state, takes a code, and adds it to the state. Subclasses give the steps of that
    pass.

    Args:
        image_shape: (C, H, W) of the images.
        latent_shapes: (L_i, H_i, W_i) of the code at each level, coarse to fine.
        temperature: factor of the standard deviation in all draws from the prior, >= 0.

    Raises:
        GenclsError: for a negative temperature.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], latent_shapes: Sequence[tuple[int, int, int]], *, temperature: float
    ) -> None:
        super().__init__()
        if not temperature >= 0:
            raise GenclsError(f"{type(self).__name__}: expected temperature >= 0, got {temperature}")
        self.image_shape = image_shape
        self.latent_shapes = tuple(latent_shapes)
        self.num_levels = len(self.latent_shapes)
        self.temperature = temperature

    @abstractmethod
    def features(self, images: Tensor) -> Sequence[Tensor]:
        """The encoder's bottom-up pass: images (N, C, H, W) in [0, 1] to one feature map per level, coarse to fine."""

    @abstractmethod
    def start(self, count: int) -> Tensor:
        """The decoder's state above the first level, the same for ``count`` images."""

    @abstractmethod
    def descend(self, level: int, state: Tensor) -> Tensor:
        """The decoder's cells between the code of the previous level and this one; level 0 has none."""

    @abstractmethod
    def prior(self, level: int, state: Tensor) -> DiagonalGaussian:
        """p(z_i | z_<i)."""

    @abstractmethod
    def posterior(self, level: int, feature: Tensor, state: Tensor, prior: DiagonalGaussian) -> DiagonalGaussian:
        """q(z_i | x, z_<i)."""

    @abstractmethod
    def flow(self, level: int, codes: Tensor) -> Tensor:
        """The normalizing flow of a level, with unit Jacobian, for codes that depend on an image; without a flow the codes."""

    @abstractmethod
    def combine(self, level: int, state: Tensor, codes: Tensor) -> Tensor:
        """Add the code of a level to the decoder's state."""

    @abstractmethod
    def output(self, state: Tensor) -> LogisticMixture:
        """p(x | z) from the decoder's last state."""

    def noise(self, like: Tensor) -> Tensor:
        """Standard normal draws (N, ...). All codes get their randomness here, in the order of the levels."""
        return torch.randn_like(like)

    def top_down(self, count: int, choose: Choose) -> LogisticMixture:
        """Run the pass from the coarsest level to the finest.

        Args:
            count: N, number of images.
            choose: chooses the code (N, L_i, H_i, W_i); it is called once per level, in order.

        Returns:
            p(x | z) for the chosen codes.
        """
        state = self.start(count)
        for level in range(self.num_levels):
            state = self.descend(level, state)
            state = self.combine(level, state, choose(level, state, self.prior(level, state)))
        return self.output(state)

    def forward(self, images: Tensor) -> HierarchicalVAEOutput:
        """Draw the codes from the posterior, as in training.

        Args:
            images: images (N, C, H, W) in [0, 1].

        Raises:
            GenclsError: for images of another shape.
        """
        features = self.encode_once(images)
        kl: list[Tensor] = []

        def choose(level: int, state: Tensor, prior: DiagonalGaussian) -> Tensor:
            posterior = self.posterior(level, features[level], state, prior)
            drawn = posterior.at(self.noise(posterior.mean))
            codes = self.flow(level, drawn)
            # Without a flow there is a closed form. With a flow, the prior is that of the code behind it.
            kl.append(posterior.kl(prior) if codes is drawn else posterior.log_prob(drawn) - prior.log_prob(codes))
            return codes

        reconstruction = self.top_down(len(images), choose)
        return HierarchicalVAEOutput(reconstruction, torch.stack(kl, dim=1))

    def encode_once(self, images: Tensor) -> Latents:
        """The encoder's feature maps, one (N, C_i, H_i, W_i) per level. No codes: these also depend on mixed ones.

        Raises:
            GenclsError: for images of another shape.
        """
        check_image_shape(images, self.image_shape, name=type(self).__name__)
        return tuple(self.features(images))

    def decode_mixed(self, encoded: Latents, mix: Mix) -> Tensor:
        """Mix and decode level by level: both codes of a level depend on the mixed codes of the levels above.

        The encoded code is the mean of the posterior. The sampled code is a draw from the prior at :attr:`temperature`. The
        flow acts on the mixed code. Source: the purification code SerezD/gen_adversarial; the paper's Algorithm 1 samples all
        codes first.

        Args:
            encoded: the feature maps of :meth:`encode_once`.
            mix: mixes the encoded and the sampled code, each (N, L_i, H_i, W_i); it is called once per level, in order.

        Returns:
            The mean of p(x | z), (N, C, H, W) in [0, 1].
        """

        def choose(level: int, state: Tensor, prior: DiagonalGaussian) -> Tensor:
            code = self.posterior(level, encoded[level], state, prior).mean
            return self.flow(level, mix(level, code, self._draw(level, state, prior)))

        return self.top_down(len(encoded[0]), choose).mean()

    def sample(self, count: int) -> LogisticMixture:
        """p(x | z) for ``count`` draws of the codes from the prior at :attr:`temperature`; no flow acts on them."""
        return self.top_down(count, self._draw)

    def _draw(self, level: int, state: Tensor, prior: DiagonalGaussian) -> Tensor:
        return prior.at(self.noise(prior.mean), temperature=self.temperature)


def _soft_clamp(values: Tensor) -> Tensor:
    return 5 * torch.tanh(values / 5)
