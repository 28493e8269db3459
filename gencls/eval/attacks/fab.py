"""FAB: small perturbations by projections onto linearised decision boundaries."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, select
from gencls.core.balls import per_image
from gencls.eval.attacks.parts.attack_model import prepare
from gencls.eval.attacks.parts.base import CONVEX, require
from gencls.eval.scores.margins import others_of
from gencls.eval.threats.protocol import Threat

_WIDEST = {"linf": 0.3, "l2": 1.0, "l1": 5.0}
"""Until FAB finds an adversarial, its restarts begin within half of this distance; the authors' values."""


@dataclass(frozen=True)
class FAB:
    """The fast adaptive boundary attack: projections onto linearised decision boundaries, drawn towards the image.

    The loop is pyautoattack's. Later restarts begin at random within half of the smallest distance found so far. Of a
    stochastic defense an iterate counts as wrong when more than half of its draws are, by two standard errors.

    Source: Croce and Hein 2020, arXiv:1907.02044, Algorithm 1, with alpha_max 0.1, eta 1.05, beta 0.9. The library leaves out
    the linear search at the end (eq. 20), and so does this class.

    On a stochastic defense it walks along the boundary of the mean scores, where half of the draws are wrong. It finds less
    there than DDN, C&W and DeepFool.

    Attributes:
        threat: Linf, L2 or L1. Without epsilon the distance is minimised. With one, a sample is done at its first adversarial
            in the ball, and samples without one keep their clean image.
        steps: steps per run.
        restarts: number of runs (for each target); the first begins at the image itself.
        targets: number of best other classes that are tried one after the other; all if there are fewer. 0 looks at all
            boundaries in each step, at the price of one backward pass per class.
    """

    threat: Threat
    steps: int = 100
    restarts: int = 5
    targets: int = 9
    uses_gradients = True
    norms = CONVEX

    def __post_init__(self) -> None:
        require(self, minimal=None, norms=self.norms)
        if self.steps < 1 or self.restarts < 1 or self.targets < 0:
            raise GenclsError(
                "FAB: expected steps >= 1, restarts >= 1 and targets >= 0, "
                f"got {self.steps}, {self.restarts} and {self.targets}"
            )

    @property
    def passes(self) -> tuple[int, int]:
        """Per step a gradient and a look; with targets = 0 a gradient counts once, although it covers all classes."""
        runs = self.restarts * max(self.targets, 1)
        return runs * self.steps + 2, runs * self.steps

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        from gencls.eval.attacks.parts import pyautoattack_attacks

        model = prepare(model, images, labels)
        if images.dtype != torch.float32:
            raise GenclsError(f"FAB: expected float32 images, which the library computes with, got {images.dtype}")
        with torch.no_grad():
            clean = model.mean_scores(model.per_draw(images))
        others = others_of(clean, labels, self.targets or clean.shape[1])
        adversarial = images.clone()
        distance = torch.full((len(images),), torch.inf, dtype=torch.float64, device=images.device)
        distance[model.look(images, labels).reached] = 0.0
        enough, widest = self.threat.epsilon or 0.0, self.threat.epsilon or _WIDEST[self.threat.norm]
        for targets in others.split(1, dim=1) if self.targets else [others]:
            for restart in range(self.restarts):
                rows = (distance > enough).nonzero().squeeze(1)
                if not len(rows):
                    break
                radius = None if restart == 0 else distance[rows].clamp_max(widest) / 2
                with select(rows):
                    found = pyautoattack_attacks.fab(
                        model, images[rows], labels[rows], targets[rows], norm=self.threat.norm, steps=self.steps, radius=radius
                    )
                length = self.threat.distance(images[rows], found)
                closer = (length > 0) & (length < distance[rows])
                adversarial[rows[closer]], distance[rows[closer]] = found[closer], length[closer]
        if self.threat.epsilon is None:
            return adversarial
        return torch.where(per_image(distance <= self.threat.epsilon), adversarial, images)
