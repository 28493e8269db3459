"""Adaptive evaluation: threat models, attacks, the judge, studies and their reports."""

from gencls.eval.attack_model import AttackModel, Calibrated
from gencls.eval.attacks import FGSM, PGD, Attack, GaussianNoiseAttack
from gencls.eval.evaluate import Evaluation, Protocol, evaluate, gradient_modes, run_cell
from gencls.eval.judge import Verdict, judge
from gencls.eval.study import Study, StudyCell, read_study
from gencls.eval.threat import ThreatModel

__all__ = [
    "FGSM",
    "PGD",
    "Attack",
    "AttackModel",
    "Calibrated",
    "Evaluation",
    "GaussianNoiseAttack",
    "Protocol",
    "Study",
    "StudyCell",
    "ThreatModel",
    "Verdict",
    "evaluate",
    "gradient_modes",
    "judge",
    "read_study",
    "run_cell",
]
