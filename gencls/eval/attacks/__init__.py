"""Attacks: frozen dataclasses with the papers' settings, called as ``attack(model, images, labels)``."""

from gencls.eval.attacks.base import Attack
from gencls.eval.attacks.fgsm import FGSM
from gencls.eval.attacks.noise import GaussianNoiseAttack, GrowingNoise
from gencls.eval.attacks.pgd import PGD

__all__ = ["FGSM", "PGD", "Attack", "GaussianNoiseAttack", "GrowingNoise"]
