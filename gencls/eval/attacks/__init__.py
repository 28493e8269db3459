"""Attacks: frozen dataclasses with the papers' settings, called as ``attack(model, images, labels)``."""

from gencls.eval.attacks.base import Attack
from gencls.eval.attacks.carlini_wagner import CarliniWagner, RestartedCarliniWagner
from gencls.eval.attacks.ddn import DDN
from gencls.eval.attacks.deepfool import DeepFool
from gencls.eval.attacks.fgsm import FGSM
from gencls.eval.attacks.noise import GaussianNoiseAttack, GrowingNoise
from gencls.eval.attacks.pgd import PGD

__all__ = [
    "DDN",
    "FGSM",
    "PGD",
    "Attack",
    "CarliniWagner",
    "DeepFool",
    "GaussianNoiseAttack",
    "GrowingNoise",
    "RestartedCarliniWagner",
]
