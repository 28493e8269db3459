"""Scores that are coarse, because of a large offset or of half precision: attacks may not stand still where they tie."""

from functools import cache

import pytest
import torch
from torch import nn

from gencls import zoo
from gencls.core import keyed
from gencls.eval import (
    APGD,
    DDN,
    FAB,
    FMN,
    PGD,
    AutoAttack,
    Boundary,
    CarliniWagner,
    DeepFool,
    RestartedCarliniWagner,
    ThreatModel,
)
from gencls.eval.attacks.parts.attack_model import AttackModel
from gencls.eval.attacks.parts.linearisation import nearest_boundary
from gencls.eval.scores.calibration import resolution
from tests.toys import Linear, Rescaled, small_cnn

LINF, L2, BALL = ThreatModel("linf"), ThreatModel("l2"), ThreatModel("linf", 0.06)

MARGIN = 15.0
"""Mean margin of the network below, as that of cnn-mnist."""


class Cast(nn.Module):
    """Scores rounded to another precision, as those of a network under autocast, and back again."""

    def __init__(self, model, dtype):
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, images):
        return self.model(images).to(self.dtype).float()


class Network(nn.Module):
    """Four classes, 8 x 8 pixels. The class of all pictures comes first: where its score ties with another, it wins."""

    def __init__(self):
        super().__init__()
        self.cnn = small_cnn()
        images = torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            scores = self.cnn(images)
            first = int(scores.argmax(1).mode().values)
            self.order = torch.tensor([first, *(k for k in range(4) if k != first)])
            self.pictures = images[scores.argmax(1) == first][:8]
            top = self.cnn(self.pictures).topk(2, dim=1).values
        self.scale = MARGIN / (top[:, 0] - top[:, 1]).mean().item()

    def forward(self, images):
        return self.scale * self.cnn(images)[:, self.order]


NETWORK = Network().eval()


def attacked(attack, model):
    """Distances, and which of the pictures the model gets wrong after the attack."""
    images = NETWORK.pictures
    labels = torch.zeros(len(images), dtype=torch.int64)
    with torch.no_grad():
        assert (model(images).argmax(1) == labels).all()
    with keyed(range(len(images))):
        found = attack(model, images, labels)
    with torch.no_grad():
        return attack.threat.distance(images, found), model(found).argmax(1) != labels


MINIMAL = {
    "DeepFool, L2": DeepFool(L2),
    "DeepFool, Linf": DeepFool(LINF),
    "DDN": DDN(L2, steps=30),
    "C&W": CarliniWagner(L2, searches=3, steps=30),
    "C&W, restarted": RestartedCarliniWagner(L2, restarts=2, steps=30, learning_rate=0.03, regularisation=4.0, start_norm=1.0),
    "FMN, L2": FMN(L2, steps=20),
    "FMN, Linf": FMN(LINF, steps=20),
    "FAB, L2": FAB(L2, steps=10, restarts=1, targets=3),
}

COARSE = {
    **{f"offset {shift:g}": Rescaled(NETWORK, shift=shift) for shift in (1e2, -1e4, 1e6, -1e6, 1e7, -1e7)},
    "scale 1e-4": Rescaled(NETWORK, scale=1e-4),
    "scale 1e4": Rescaled(NETWORK, scale=1e4),
    "scale 1e-4, offset 100": Rescaled(NETWORK, scale=1e-4, shift=100.0),
    "float16": Cast(NETWORK, torch.float16),
    "bfloat16": Cast(NETWORK, torch.bfloat16),
}


@cache
def expected_distances(name):
    distances, broken = attacked(MINIMAL[name], NETWORK)
    assert broken.all()
    return distances


COARSEST = ("scale 1e-4, offset 100", "bfloat16")
"""Kinds at which the slower attacks are tried."""


@pytest.mark.parametrize(
    ("name", "kind"), [(n, k) for n in MINIMAL for k in COARSE if k in COARSEST or not n.startswith(("FAB", "C&W, r"))]
)
def test_minimal_attacks_find_all(name, kind):
    distances, broken = attacked(MINIMAL[name], COARSE[kind].eval())
    assert broken.all()
    # Whole numbers at 1e7, one of which is a fifteenth of the margin, are as coarse as scores in bfloat16.
    assert distances.median() <= (1.3 if kind in COARSEST or "1e+07" in kind else 1.05) * expected_distances(name).median()


@pytest.mark.parametrize("shift", [-1e6, 1e7])
def test_deepfool_on_digits(shift):
    """It found 11 of 30 at -1e6."""
    digits, cnn = zoo.load_data("mnist-embedded", "test", limit=30), zoo.load("cnn-mnist")
    model = Rescaled(cnn, shift=shift).eval()
    with torch.no_grad():
        labels = model(digits.images).argmax(1)
        assert (model(DeepFool(L2, steps=30)(model, digits.images, labels)).argmax(1) != labels).all()


WITHIN = {
    "PGD": PGD(BALL, steps=10),
    "PGD, margin": PGD(BALL, steps=10, loss="margin"),
    "PGD, multi-targeted": PGD(BALL, steps=10, loss="multi-targeted", restarts=3),
    "APGD": APGD(BALL, steps=10),
    "APGD, DLR": APGD(BALL, steps=10, loss="dlr"),
    "APGD, targeted DLR": APGD(BALL, steps=10, loss="targeted-dlr"),
    "AutoAttack": AutoAttack(BALL, steps=5, queries=20),
    "Boundary": Boundary(L2, queries=60),
}


@pytest.mark.parametrize("shift", [1e6, -1e6])
@pytest.mark.parametrize("name", WITHIN)
def test_other_attacks_find_what_they_find_without_offset(name, shift):
    _, expected = attacked(WITHIN[name], NETWORK)
    _, broken = attacked(WITHIN[name], Rescaled(NETWORK, shift=shift).eval())
    assert expected.any()
    assert broken.sum() >= expected.sum() - 1


def test_a_tie_is_crossed():
    """Both scores are 1e6, and the first class wins; a step of 1e-5 would change them by less than they can change."""
    model = Rescaled(Linear(torch.tensor([[0.0] * 4, [1.0] * 4]), torch.tensor([2.0, 0.0])), shift=1e6).eval()
    images, labels = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    assert model(images).argmax(1).item() == 0
    for ball in (LINF.ball, L2.ball):
        _, _, step = nearest_boundary(AttackModel(model), images, labels, ball, 1)
        assert model(images + step).argmax(1).item() == 1
        assert step.max() <= 0.1  # four units of 1/16 over four pixels


@pytest.mark.parametrize(
    ("dtype", "expected"), [(torch.float32, 2**-23), (torch.float16, 2**-10), (torch.bfloat16, 2**-7), (torch.float64, 2**-52)]
)
def test_the_resolution_of_scores_is_seen_by_their_bits(dtype, expected):
    draws = torch.randn(5, 2, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype).double()
    assert torch.equal(resolution(draws), expected * draws.abs().amax(dim=(1, 2)))
