"""Random defenses whose mean scores say little about how many draws are wrong: kind, smallest model, draws that are wrong.

Every draw of these models is linear in two numbers that an attack controls, so the best answers have a closed form.
"""

import pytest
import torch

from gencls.core import Defense, keyed
from gencls.eval import APGD, NES, PGD, ThreatModel
from gencls.eval.attack_model import AttackModel
from gencls.eval.judge import predict


class TwoKinds(Defense):
    """Draws of two kinds, each with its margin of class 0 over class 1; class 2 is far off.

    With a and b the changes of the means of the left and right half of an image, times 8 (so that a change of L2 length r in
    one half of 4 x 4 pixels moves its number by 8 r / sqrt(8)), a margin is 1 - slope . (a, b), times the kind's scale.
    """

    stochastic = True
    num_classes = 3

    def __init__(self, share, slopes, scale=1.0):
        super().__init__()
        self.share = share  # of the draws of the first kind
        self.slopes = slopes  # of both kinds
        self.scale = scale  # of the first kind's scores
        self.eval()

    def forward(self, images):
        first = torch.rand(len(images)) < self.share
        moved = 8 * (images - 0.5).unflatten(3, (2, 2)).mean(dim=(1, 2, 4))
        slope = torch.tensor(self.slopes).to(images)[(~first).long()]
        lead = 1 - (slope * moved).sum(dim=1)
        scores = torch.stack([lead / 2, -lead / 2, -3 - 0 * lead], dim=1)
        return scores * torch.where(first, self.scale, 1.0).unsqueeze(1)


# A tenth of the draws has scores a hundred times as large, and is wrong exactly where the others are right.
LOUD = TwoKinds(0.1, [[-1.0, -1.0], [1.0, 1.0]], scale=100.0)
# Two fifths of the draws become wrong easily, the others slowly and by other pixels. In the ball of radius 0.9 all can be.
EAGER = TwoKinds(0.4, [[3.0, 0.0], [0.0, 1.0]])

BALL = ThreatModel("l2", 0.55)


def wrong_draws(model, images):
    return (predict(model, images, 256) != 0).double().mean(dim=1)


def attacked(model, attack, samples=16, count=4, **settings):
    images, labels = torch.full((count, 1, 4, 4), 0.5), torch.zeros(count, dtype=torch.int64)
    with keyed(range(count)):
        found = attack(AttackModel(model, samples=samples, **settings), images, labels)
    return wrong_draws(model, found), (found - images).flatten(1).norm(dim=1)


@pytest.mark.parametrize(
    ("model", "attack", "right"),
    [
        (LOUD, PGD(BALL, steps=10, loss="margin"), 0.9),
        (LOUD, PGD(BALL, steps=10, loss="multi-targeted", restarts=2), 0.9),
        (LOUD, NES(BALL, steps=10, loss="margin", samples=10), 0.9),
        (LOUD, APGD(BALL, steps=10, loss="dlr"), 0.9),
        (LOUD, APGD(BALL, steps=10, loss="multi-targeted", targets=2), 0.9),
        (EAGER, PGD(ThreatModel("l2", 0.55), steps=20, loss="margin"), 1.0),
        (EAGER, PGD(ThreatModel("l2", 0.55), steps=20, loss="multi-targeted", restarts=2), 1.0),
        (EAGER, APGD(ThreatModel("l2", 0.55), steps=20, loss="dlr"), 1.0),
    ],
    ids=str,
)
def test_most_draws_are_wrong_that_can_be(model, attack, right):
    wrong, _ = attacked(model, attack)
    assert (wrong > right - 0.08).all(), wrong
