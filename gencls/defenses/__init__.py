"""Defenses: one method of one paper = one file. Networks come in through constructors."""

from gencls.core import TransformedClassifier
from gencls.defenses.a_vae import AVAEPurification, RandomAutoencoder
from gencls.defenses.abs import ABS, ClassFactors, SignLosingBall
from gencls.defenses.analysis_by_synthesis import AnalysisBySynthesis, Ball, DiscriminatorPenalty, GaussianKL, Regularizer
from gencls.defenses.binarize import Binarize
from gencls.defenses.defense_gan import DefenseGAN
from gencls.defenses.eabs import EABS
from gencls.defenses.gaussian import FixedLengthNoise, GaussianBlur, GaussianNoise
from gencls.defenses.learned_alphas import AlphaSearch, AlphaTrial, learn_alphas
from gencls.defenses.mlvgm import PAPER_TASKS, MLVGMPurification, PaperTask, alpha_schedule, paper_blur
from gencls.defenses.nd_vae import NDVAEPurification
from gencls.defenses.plain import PlainClassifier
from gencls.defenses.purified_accuracy import PurifiedAccuracy, fgsm_examples
from gencls.defenses.randomized_smoothing import Certificate, RandomizedSmoothing
from gencls.defenses.robustness_bound import RobustnessBound, compare_to_bound, lower_bound, robustness_bound
from gencls.defenses.starts import EncoderStart, RandomStarts
from gencls.defenses.variational_posterior import VariationalPosteriorSmoothing
from gencls.defenses.variational_smoothing import VariationalSmoothing

__all__ = [
    "ABS",
    "EABS",
    "PAPER_TASKS",
    "AVAEPurification",
    "AlphaSearch",
    "AlphaTrial",
    "AnalysisBySynthesis",
    "Ball",
    "Binarize",
    "Certificate",
    "ClassFactors",
    "DefenseGAN",
    "DiscriminatorPenalty",
    "EncoderStart",
    "FixedLengthNoise",
    "GaussianBlur",
    "GaussianKL",
    "GaussianNoise",
    "MLVGMPurification",
    "NDVAEPurification",
    "PaperTask",
    "PlainClassifier",
    "PurifiedAccuracy",
    "RandomAutoencoder",
    "RandomStarts",
    "RandomizedSmoothing",
    "Regularizer",
    "RobustnessBound",
    "SignLosingBall",
    "TransformedClassifier",
    "VariationalPosteriorSmoothing",
    "VariationalSmoothing",
    "alpha_schedule",
    "compare_to_bound",
    "fgsm_examples",
    "learn_alphas",
    "lower_bound",
    "paper_blur",
    "robustness_bound",
]
