"""DeepFool: step by step to the nearest linearised decision boundary."""

from dataclasses import dataclass

from torch import Tensor, nn

from gencls.core import GenclsError, select
from gencls.eval.attacks.parts.attack_model import prepare
from gencls.eval.attacks.parts.base import DENSE, require
from gencls.eval.attacks.parts.linearisation import Closest, nearest_boundary
from gencls.eval.threats.lp_balls import ThreatModel

_HALF_STEPS = 2
"""First steps that go half the way. From nearby the attack finds a closer boundary (4 to 20 % on digits)."""


@dataclass(frozen=True)
class DeepFool:
    """The smallest step that crosses a linearised boundary, repeated until the decision is wrong.

    With f_k the scores and y the label, each step solves for the class with the smallest |f_k - f_y| / ||grad f_k - grad f_y||
    in the dual norm, and moves there. All iterates are clipped to [0, 1]. Pixels at the borders that would leave [0, 1] do not
    count in the norm; the authors count them, so their steps fall short. Finished samples leave the batch.

    Source: Moosavi-Dezfooli et al. 2016, arXiv:1511.04599, algorithm 2 and eq. 11. The thesis (section 2.3) uses 100 steps.

    Attributes:
        threat: Linf or L2 without epsilon.
        steps: most steps, >= 1.
        overshoot: eta; the perturbation is stretched by 1 + eta to get across.
        candidates: number of classes to consider, by the best clean scores, the label among them.
        projections: number of moves to the nearest point of the boundary's tangent plane at the result. After each, the result
            moves back to the boundary along the line to the clean image.
    """

    threat: ThreatModel
    steps: int = 50
    overshoot: float = 0.02
    candidates: int = 10
    projections: int = 1
    uses_gradients = True
    norms = DENSE

    def __post_init__(self) -> None:
        require(self, minimal=True, norms=self.norms)
        if self.steps < 1 or min(self.overshoot, self.projections) < 0 or self.candidates < 2:
            raise GenclsError(
                "DeepFool: expected steps >= 1, overshoot and projections >= 0 and candidates >= 2, "
                f"got {self.steps}, {self.overshoot}, {self.projections} and {self.candidates}"
            )

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass per step, and a backward pass per other candidate (each counted as a pass of both kinds)."""
        return 3 + 3 * self.projections, self.steps * (self.candidates - 1) + self.projections

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        model = prepare(model, images, labels)
        closest = Closest(model, images, labels, self.threat, classes=self.candidates - 1)
        alive, current = closest.open, images[closest.open]
        others, step = closest.others[alive], closest.first_step[alive]
        for number in range(1, self.steps + 1):
            going = step.flatten(1).any(dim=1)  # a sample whose gradients are all zero cannot move
            alive, others = alive[going], others[going]
            if not len(alive):
                break
            share = 0.5 if number <= _HALF_STEPS else 1 + self.overshoot
            current = (current[going] + share * step[going]).clamp_(0, 1)
            with select(alive):
                if number < self.steps:
                    response, _, step = nearest_boundary(model, current, labels[alive], self.threat.ball, others)
                else:
                    response = model.look(current, labels[alive])
            closest.offer(alive, current, response.reached)
            missed = ~response.reached
            alive, current, others, step = alive[missed], current[missed], others[missed], step[missed]
        return closest.refine(projections=self.projections)
