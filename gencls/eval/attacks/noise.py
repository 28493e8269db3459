"""Additive Gaussian noise, of a fixed size and of growing size."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, select
from gencls.core.balls import per_image
from gencls.eval.attacks.parts.attack_model import AttackModel, prepare
from gencls.eval.attacks.parts.base import ANY, CONVEX, require
from gencls.eval.threats.lp_balls import ThreatModel
from gencls.eval.threats.protocol import Threat


@dataclass(frozen=True)
class GaussianNoiseAttack:
    """Gaussian noise scaled to the surface of the ball; the worst of several draws.

    For L2 the noise has norm epsilon after clipping to [0, 1]: Rauber and Bethge 2020, arXiv:2007.07677, in float64. For Linf
    its largest component has size epsilon. It needs no gradient, so a gradient attack that does worse than it is broken.

    Attributes:
        threat: Linf, L2 or L1 with an epsilon.
        tries: draws per image, >= 1; samples broken by one take no part in the next.
    """

    threat: ThreatModel
    tries: int = 10
    uses_gradients = False
    norms = CONVEX

    def __post_init__(self) -> None:
        require(self, norms=self.norms)
        if self.tries < 1:
            raise GenclsError(f"GaussianNoiseAttack: expected tries >= 1, got {self.tries}")

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass per draw."""
        return self.tries, 0

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        model = prepare(model, images, labels, self.threat)
        epsilon = self.threat.epsilon or 0.0
        adversarial = images.clone()
        success = torch.full((len(images),), -1.0, dtype=torch.float64, device=images.device)
        missing = torch.full_like(success, torch.inf)
        alive = torch.arange(len(images), device=images.device)
        for _ in range(self.tries):
            with select(alive):
                clean = images[alive]
                noisy = clean + _onto_surface(torch.randn_like(clean), clean, self.threat.norm, epsilon)
                candidates = self.threat.project(noisy.clamp_(0, 1), clean)
                response = model.look(candidates, labels[alive])
            before, closest = success[alive], missing[alive]
            better = (response.success > before) | ((response.success == before) & (response.margin < closest))
            adversarial[alive[better]] = candidates[better]
            success[alive[better]], missing[alive[better]] = response.success[better], response.margin[better]
            alive = alive[response.success < 1]
            if not len(alive):
                break
        return adversarial


def _onto_surface(noise: Tensor, clean: Tensor, norm: str, epsilon: float) -> Tensor:
    """Noise (N, C, H, W) times a factor per image that gives it size epsilon; in L2 and L1 after clipping to [0, 1].

    With a factor a and the room r_i that [0, 1] leaves it, component n_i adds min(a |n_i|, r_i)^p to the norm's p-th power.
    Components are sorted by the factor that clips them. Components that are clipped inside the ball stay clipped, and the
    others make up for the rest.
    """
    sizes = noise.flatten(1).double().abs().clamp_min(1e-30)
    if norm == "linf":
        return noise * per_image(epsilon / sizes.amax(dim=1)).to(noise.dtype)
    room = torch.where(noise > 0, 1 - clean, clean).flatten(1).double()
    power = 1 if norm == "l1" else 2
    points, order = (room / sizes).sort(dim=1)
    clipped = room.pow(power).gather(1, order).cumsum(1)
    powers = sizes.pow(power).gather(1, order)
    free = powers.flip(1).cumsum(1).flip(1) - powers  # sum over the components after this one
    count = (clipped + points.pow(power) * free < epsilon**power).sum(dim=1, keepdim=True)
    nothing = torch.zeros_like(points[:, :1])
    used = torch.cat([nothing, clipped], dim=1).gather(1, count)
    rest = torch.cat([free[:, :1] + powers[:, :1], free], dim=1).gather(1, count)
    # If all are clipped, the ball holds the whole of [0, 1] on this side.
    factor = ((epsilon**power - used).clamp_min(0) / rest.clamp_min(1e-300)).pow(1 / power)
    factor = torch.where(rest > 0, factor, points[:, -1:])
    return noise * per_image(factor.squeeze(1)).to(noise.dtype)


@dataclass(frozen=True)
class GrowingNoise:
    """Gaussian noise of growing standard deviation, until the decision is wrong.

    Source: the thesis, section 2.3. The distance is measured on the clipped image.

    The thesis does not give the spacing of the deviations. A geometric spacing puts some within balls of any usual size: in
    Linf most noise is three to four deviations large, so 0.002 stays below 8/255.

    Attributes:
        threat: any without epsilon.
        smallest: the first standard deviation, in [0, 1] pixel units.
        largest: the last one.
        sizes: number of standard deviations, >= 2; each is the same factor above the one before.
        tries: draws per size, >= 1; the closest of the successful ones counts.
    """

    threat: Threat
    smallest: float = 0.002
    largest: float = 1.0
    sizes: int = 50
    tries: int = 1
    uses_gradients = False
    norms = ANY

    def __post_init__(self) -> None:
        require(self, minimal=True)
        if not 0 < self.smallest < self.largest or self.sizes < 2 or self.tries < 1:
            raise GenclsError(
                "GrowingNoise: expected 0 < smallest < largest, sizes >= 2, tries >= 1, "
                f"got {self.smallest}, {self.largest}, {self.sizes}, {self.tries}"
            )

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass per size and draw, and one of the clean image."""
        return self.sizes * self.tries + 1, 0

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        model = prepare(model, images, labels, self.threat)
        adversarial = images.clone()
        distance = torch.full((len(images),), torch.inf, dtype=torch.float64, device=images.device)
        alive = torch.arange(len(images), device=images.device)
        growth = (self.largest / self.smallest) ** (1 / (self.sizes - 1))
        deviations = [0.0, *(self.smallest * growth**size for size in range(self.sizes))]
        for deviation in deviations:  # begins with 0: an image that is wrong without noise has distance 0
            for _ in range(self.tries if deviation else 1):
                self._try(model, images, labels, alive, deviation, adversarial, distance)
            alive = alive[distance[alive].isinf()]
            if not len(alive):
                break
        return adversarial

    def _try(
        self,
        model: AttackModel,
        images: Tensor,
        labels: Tensor,
        alive: Tensor,
        deviation: float,
        adversarial: Tensor,
        distance: Tensor,
    ) -> None:
        with select(alive):
            noisy = (images[alive] + deviation * torch.randn_like(images[alive])).clamp_(0, 1)
            reached = model.look(noisy, labels[alive]).reached
        length = self.threat.distance(images[alive], noisy)
        better = reached & (length < distance[alive])
        adversarial[alive] = torch.where(per_image(better), noisy, adversarial[alive])
        distance[alive] = length.where(better, distance[alive])
