"""Every attack, with settings that are fast enough for tests."""

from gencls.eval import (
    DDN,
    FGSM,
    PGD,
    CarliniWagner,
    DeepFool,
    GaussianNoiseAttack,
    GrowingNoise,
    RestartedCarliniWagner,
    ThreatModel,
)

# name -> threat with an epsilon -> attack
FIXED = {
    "PGD": lambda threat: PGD(threat, steps=10, restarts=2),
    "FGSM": FGSM,
    "GaussianNoiseAttack": lambda threat: GaussianNoiseAttack(threat, tries=3),
}

LINF, L2 = ThreatModel("linf"), ThreatModel("l2")

# (name, norm) -> attack that minimises the distance
MINIMAL = {
    ("GrowingNoise", "linf"): GrowingNoise(LINF, sizes=10),
    ("GrowingNoise", "l2"): GrowingNoise(L2, sizes=10),
    ("DeepFool", "linf"): DeepFool(LINF),
    ("DeepFool", "l2"): DeepFool(L2),
    ("DDN", "l2"): DDN(L2),
    ("CarliniWagner", "l2"): CarliniWagner(L2),
    ("RestartedCarliniWagner", "l2"): RestartedCarliniWagner(
        L2, restarts=4, steps=100, learning_rate=0.03, regularisation=1.0, start_norm=1.0
    ),
}

# those that come within 5 % of the optimum on a linear classifier
OPTIMAL = [key for key in MINIMAL if key[0] != "GrowingNoise"]
