"""Every attack, with settings that are fast enough for tests."""

from gencls.eval import FGSM, PGD, GaussianNoiseAttack, GrowingNoise

# name -> threat with an epsilon -> attack
FIXED = {
    "PGD": lambda threat: PGD(threat, steps=10, restarts=2),
    "FGSM": FGSM,
    "GaussianNoiseAttack": lambda threat: GaussianNoiseAttack(threat, tries=3),
}

# name -> threat without epsilon -> attack
MINIMAL = {
    "GrowingNoise": lambda threat: GrowingNoise(threat, sizes=10),
}
