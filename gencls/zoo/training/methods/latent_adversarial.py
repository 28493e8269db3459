"""Latent adversarial training: the decoder learns from the codes near by that change its pictures most."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from gencls.core import GenclsError, ImageDistance, check_settings
from gencls.core.balls import BALLS
from gencls.core.modules.modes import in_mode
from gencls.perceptual import SSIM, SquaredL2
from gencls.zoo.networks import GenerativeAutoencoder
from gencls.zoo.networks.autoencoders.code_posterior import CodePosterior
from gencls.zoo.training.functional import squared_error

_DISTANCES: Mapping[str, ImageDistance] = MappingProxyType({"ssim": SSIM(), "mse": SquaredL2()})
"""D by its name. The sum over pixels stands for their mean: steps do not depend on the scale of D."""


@dataclass(frozen=True)
class LatentAdversary:
    """The adversary of Algorithm 1, "Latent Adversarial Training Autoencoder": PGD on codes, from which the decoder learns.

    After the ordinary step on a batch X with the codes Z that it has drawn, M times:

        Z_0^adv      a fresh draw from q(Z | X), brought into the ball of radius epsilon around Z      (line 6)
        Z_(k+1)^adv  Clip_(Z, epsilon) [Z_k^adv + alpha sign grad D(dec(Z_k^adv), dec(Z))],  K times   (line 8)
        decoder      one step of Adam on e(X, dec(Z_K^adv)), the squared error of the training         (line 11)

    What the algorithm leaves open:

    - The start. A deterministic encoder draws Z itself. There D has its minimum and its gradient is 0, or rounding noise, whose
      signs are no direction. So a deterministic encoder gets a start that is uniform in the ball. The draw of a variational one
      may lie far out of the ball, and the algorithm clips after the first step only. Here the start is brought into the ball.
    - dec(Z). The ordinary step has changed the decoder meanwhile, so the original reconstruction is made once more.
    - Batch norm. The attack runs in eval mode, as other attacks in training do: each code is attacked by itself, on the decoder
      that will be used, and the running statistics do not see half-way codes. The step of Adam runs in the mode of the
      training: with the statistics of the batch of adversarial codes, which join the running ones. The decoder will meet both
      kinds of codes.
    - Adam. The decoder has one of its own for these steps, whose moments are of this loss alone, at the rate of the other.
    - The counters. They run to M and K, both included, in print; here there are M and K turns.
    - M is not given; K and alpha are those of the paper's attacks (section 3.1.2).

    Source: Lu and Chen, "On the Adversarial Robustness of Generative Autoencoders in the Latent Space", Algorithm 1.

    Attributes:
        epsilon: radius of the ball in units of the codes, > 0.
        step_size: alpha, in units of the codes, > 0. It is larger than the ball, so a step in Linf ends in a corner of it.
        steps: K, >= 1.
        iterations: M, >= 1.
        distance: D: "ssim" for 1 - SSIM as in the paper, or "mse".
        joint: whether the encoder learns from these steps too. It then encodes X anew in each of them, the ball lies around
            fresh draws Z, and the gradient reaches the encoder through Z: the adversary's change counts as a constant.
        norm: "linf" is the paper's Clip; "l2" projects to the Euclidean ball, and steps along the gradient itself.
    """

    epsilon: float = 0.05
    step_size: float = 1.0
    steps: int = 10
    iterations: int = 1
    distance: Literal["ssim", "mse"] = "ssim"
    joint: bool = False
    norm: Literal["linf", "l2"] = "linf"

    def __post_init__(self) -> None:
        check_settings(self)
        if min(self.epsilon, self.step_size) <= 0 or min(self.steps, self.iterations) < 1:
            raise GenclsError(
                f"LatentAdversary: expected epsilon and step_size > 0, steps and iterations >= 1, got {self.epsilon}, "
                f"{self.step_size}, {self.steps} and {self.iterations}"
            )

    def __str__(self) -> str:
        learns = "autoencoder" if self.joint else "decoder"
        return (
            f"then {self.iterations} x a step of the {learns} on codes by PGD {self.norm} {self.epsilon:g} on "
            f"{self.distance.upper()}, {self.steps} steps of {self.step_size:g}"
        )

    def error(self, network: GenerativeAutoencoder, images: Tensor, codes: Tensor, posterior: CodePosterior) -> Tensor:
        """Attack the codes and compute e(X, dec(Z_K^adv)), (), differentiable in what learns from it.

        Args:
            network: the autoencoder, in the mode of the training.
            images: X, (N, C, H, W) in [0, 1].
            codes: Z, the codes that the ordinary step has drawn, (N, d).
            posterior: q(Z | X), which they were drawn from.
        """
        if self.joint:
            posterior = network.posterior(images)
            codes = posterior.sample()
        start = None if posterior.log_variance is None else posterior.sample()
        change = self.attack(network, codes, start) - codes.detach()
        moved = (codes if self.joint else codes.detach()) + change
        return squared_error(images, network.decode(moved)).mean()

    def attack(self, network: GenerativeAutoencoder, codes: Tensor, start: Tensor | None = None) -> Tensor:
        """Look in the ball around codes for those whose pictures differ most from theirs: the last iterate, (N, d), detached.

        Args:
            network: the autoencoder, which answers in eval mode and has its mode again afterwards.
            codes: the middles of the balls, (N, d).
            start: codes (N, d) from which the ascent starts, after they are brought into the ball; None starts at random,
                uniformly in the ball.
        """
        distance, centre = _DISTANCES[self.distance], codes.detach()
        if start is None:
            change = BALLS[self.norm].sample(centre[:, :, None, None], self.epsilon).flatten(1)
        else:
            change = self._confined(start.detach() - centre)
        with in_mode(network, training=False), torch.enable_grad():
            original = tuple(part.detach() for part in distance.embed(network.decode(centre)))
            for _ in range(self.steps):
                change.requires_grad_()
                moved = distance.embed(network.decode(centre + change))
                (gradient,) = torch.autograd.grad(distance.compare(original, moved).sum(), change)
                direction = gradient.sign() if self.norm == "linf" else F.normalize(gradient)
                change = self._confined(change.detach() + self.step_size * direction)
        return centre + change

    def _confined(self, change: Tensor) -> Tensor:
        """The nearest changes (N, d) in the ball."""
        if self.norm == "linf":
            return change.clamp(-self.epsilon, self.epsilon)
        return change.renorm(2, 0, self.epsilon)
