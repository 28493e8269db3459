"""Every attack, with settings that are fast enough for tests."""

import torch
from torch import nn

import gencls.eval
from gencls.eval import (
    APGD,
    DDN,
    FAB,
    FGSM,
    FMN,
    NES,
    PGD,
    AutoAttack,
    Boundary,
    CarliniWagner,
    DeepFool,
    GaussianNoiseAttack,
    GrowingNoise,
    RestartedCarliniWagner,
    SparseRS,
    Square,
    ThreatModel,
    Transfer,
)
from gencls.eval.attacks.parts.base import norms_of

LINF, L2, L1, L0 = (ThreatModel(norm) for norm in ("linf", "l2", "l1", "l0"))


class AnySize(nn.Module):
    """A linear classifier for images of any size: the mean of a quarter of the pixels is the score of a class."""

    def forward(self, images):
        return torch.stack([part.mean(dim=1) for part in images.flatten(1).chunk(4, dim=1)], dim=1)


_STARTS = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(7))

# name -> threat with an epsilon -> attack
FIXED = {
    "PGD": lambda threat: PGD(threat, steps=10, restarts=2),
    "FGSM": FGSM,
    "GaussianNoiseAttack": lambda threat: GaussianNoiseAttack(threat, tries=3),
    "NES": lambda threat: NES(threat, steps=10, samples=20),
    "Square": lambda threat: Square(threat, queries=60),
    "SparseRS": lambda threat: SparseRS(threat, queries=60),
    "APGD": lambda threat: APGD(threat, steps=10, restarts=2),
    "AutoAttack": lambda threat: AutoAttack(threat, steps=5, queries=20, targets=2),
    "Transfer": lambda threat: Transfer(AnySize().eval(), PGD(threat, steps=10, to_the_end=True)),
}

# the same along gradients averaged over noise
SMOOTHED = {
    "PGD, smoothed": lambda threat: PGD(threat, steps=8, restarts=2, smoothing=(0.0, 0.1), smoothing_draws=4),
    "APGD, smoothed": lambda threat: APGD(threat, steps=8, smoothing=(0.05, 0.1), smoothing_draws=4),
}

# name -> norms
NORMS = {name: norms_of(getattr(gencls.eval, name.split(",")[0])) for name in (*FIXED, *SMOOTHED) if name != "Transfer"}
NORMS["Transfer"] = ("linf", "l2")

# (name, norm) -> attack that minimises the distance
MINIMAL = {
    ("GrowingNoise", "linf"): GrowingNoise(LINF, sizes=10),
    ("GrowingNoise", "l2"): GrowingNoise(L2, sizes=10),
    ("DeepFool", "linf"): DeepFool(LINF),
    ("DeepFool", "l2"): DeepFool(L2),
    ("FAB", "linf"): FAB(LINF, steps=20, restarts=1),
    ("FAB", "l2"): FAB(L2, steps=20, restarts=1),
    ("DDN", "l2"): DDN(L2),
    ("FMN", "linf"): FMN(LINF),
    ("FMN", "l2"): FMN(L2),
    ("FMN", "l1"): FMN(L1),
    ("FMN", "l0"): FMN(L0),
    ("FAB", "l1"): FAB(L1, steps=20, restarts=1),
    ("GrowingNoise", "l1"): GrowingNoise(L1, sizes=10),
    ("CarliniWagner", "l2"): CarliniWagner(L2),
    ("RestartedCarliniWagner", "l2"): RestartedCarliniWagner(
        L2, restarts=4, steps=100, learning_rate=0.03, regularisation=1.0, start_norm=1.0
    ),
    ("Boundary", "l2"): Boundary(L2, queries=200),
    ("DDN, smoothed", "l2"): DDN(L2, steps=40, smoothing=(0.0, 0.05), smoothing_draws=4),
    ("FMN, smoothed", "linf"): FMN(LINF, steps=40, smoothing=(0.0, 0.05), smoothing_draws=4),
    ("FMN, starts", "l2"): FMN(L2, steps=40, restarts=2, starts=_STARTS),
}

# those that come within 5 % of the optimum on linear classifiers of any image size; decisions do not show the nearest
OPTIMAL = [key for key in MINIMAL if key[0] not in ("GrowingNoise", "Boundary", "FMN, starts")]

# those that attack Bayes classifiers only, tested with them
FOR_BAYES = ["LatentDescent"]
