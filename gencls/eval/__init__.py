"""Adaptive evaluation: threat models, attacks, the judge, studies and their reports."""

from gencls.eval.adapters import as_art, as_autoattack, as_foolbox, as_module, as_robustbench, as_torchattacks
from gencls.eval.attacks import (
    APGD,
    DDN,
    FAB,
    FGSM,
    FMN,
    NES,
    PGD,
    Attack,
    AutoAttack,
    Boundary,
    CarliniWagner,
    DeepFool,
    GaussianNoiseAttack,
    GrowingNoise,
    LatentDescent,
    RestartedCarliniWagner,
    SparseRS,
    Square,
    Transfer,
    estimate_gradient,
)
from gencls.eval.attacks.default_set import DefaultBudget, default_attacks
from gencls.eval.attacks.mlvgm_set import mlvgm_attacks
from gencls.eval.attacks.parts.attack_model import AttackModel
from gencls.eval.attacks.presets import attack_by_name
from gencls.eval.attacks.thesis_set import thesis_attacks
from gencls.eval.doctor import Diagnosis, diagnose
from gencls.eval.judgement.evaluate import Evaluation, evaluate
from gencls.eval.judgement.gradient_modes import gradient_modes
from gencls.eval.judgement.judge import Decisions, Verdict
from gencls.eval.judgement.judge_foreign import judge
from gencls.eval.judgement.runner import run_cell
from gencls.eval.judgement.trial import Protocol
from gencls.eval.measures.comparison import compare
from gencls.eval.measures.success_rates import certified_accuracy, closest_distances, robust_accuracy, success_rate_curve
from gencls.eval.measures.summary import summarize
from gencls.eval.report.study.from_folder import report_study
from gencls.eval.scores.calibration import Calibrated
from gencls.eval.studies import Study
from gencls.eval.study.cost import predict_cost, progress_bar
from gencls.eval.study.files import StudyCell
from gencls.eval.study.folder import read_adversarials, read_records
from gencls.eval.study.settings import read_study
from gencls.eval.threats.lp_balls import ThreatModel

__all__ = [
    "APGD",
    "DDN",
    "FAB",
    "FGSM",
    "FMN",
    "NES",
    "PGD",
    "Attack",
    "AttackModel",
    "AutoAttack",
    "Boundary",
    "Calibrated",
    "CarliniWagner",
    "Decisions",
    "DefaultBudget",
    "DeepFool",
    "Diagnosis",
    "Evaluation",
    "GaussianNoiseAttack",
    "GrowingNoise",
    "LatentDescent",
    "Protocol",
    "RestartedCarliniWagner",
    "SparseRS",
    "Square",
    "Study",
    "StudyCell",
    "ThreatModel",
    "Transfer",
    "Verdict",
    "as_art",
    "as_autoattack",
    "as_foolbox",
    "as_module",
    "as_robustbench",
    "as_torchattacks",
    "attack_by_name",
    "certified_accuracy",
    "closest_distances",
    "compare",
    "default_attacks",
    "diagnose",
    "estimate_gradient",
    "evaluate",
    "gradient_modes",
    "judge",
    "mlvgm_attacks",
    "predict_cost",
    "progress_bar",
    "read_adversarials",
    "read_records",
    "read_study",
    "report_study",
    "robust_accuracy",
    "run_cell",
    "success_rate_curve",
    "summarize",
    "thesis_attacks",
]
