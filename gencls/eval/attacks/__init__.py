"""Attacks: frozen dataclasses with the papers' settings, called as ``attack(model, images, labels)``."""

from gencls.eval.attacks.apgd import APGD
from gencls.eval.attacks.autoattack import AutoAttack
from gencls.eval.attacks.boundary import Boundary
from gencls.eval.attacks.carlini_wagner import CarliniWagner, RestartedCarliniWagner
from gencls.eval.attacks.ddn import DDN
from gencls.eval.attacks.deepfool import DeepFool
from gencls.eval.attacks.fab import FAB
from gencls.eval.attacks.fgsm import FGSM
from gencls.eval.attacks.fmn import FMN
from gencls.eval.attacks.latent.latent_descent import LatentDescent
from gencls.eval.attacks.nes import NES, estimate_gradient
from gencls.eval.attacks.noise import GaussianNoiseAttack, GrowingNoise
from gencls.eval.attacks.parts.base import Attack
from gencls.eval.attacks.pgd import PGD
from gencls.eval.attacks.sparse_rs import SparseRS
from gencls.eval.attacks.square import Square
from gencls.eval.attacks.transfer import Transfer

__all__ = [
    "APGD",
    "DDN",
    "FAB",
    "FGSM",
    "FMN",
    "NES",
    "PGD",
    "Attack",
    "AutoAttack",
    "Boundary",
    "CarliniWagner",
    "DeepFool",
    "GaussianNoiseAttack",
    "GrowingNoise",
    "LatentDescent",
    "RestartedCarliniWagner",
    "SparseRS",
    "Square",
    "Transfer",
    "estimate_gradient",
]
