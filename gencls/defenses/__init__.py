"""Defenses: one method of one paper = one file. Networks come in through constructors."""

from gencls.core import TransformedClassifier
from gencls.defenses.plain import PlainClassifier
from gencls.defenses.purification.a_vae import AVAEPurification, RandomAutoencoder
from gencls.defenses.purification.alpha_trials import AlphaTrial
from gencls.defenses.purification.alphas import AlphaSearch, learn_alphas
from gencls.defenses.purification.binarize import Binarize
from gencls.defenses.purification.defense_gan import DefenseGAN
from gencls.defenses.purification.gaussian import FixedLengthNoise, GaussianBlur, GaussianNoise
from gencls.defenses.purification.mlvgm import PAPER_TASKS, MLVGMPurification, PaperTask, alpha_schedule, paper_blur
from gencls.defenses.purification.nd_vae import NDVAEPurification
from gencls.defenses.purification.purified_accuracy import PurifiedAccuracy, fgsm_examples
from gencls.defenses.smoothing.posterior import VariationalPosteriorSmoothing
from gencls.defenses.smoothing.randomized import Certificate, RandomizedSmoothing
from gencls.defenses.smoothing.variational import VariationalSmoothing
from gencls.defenses.synthesis.abs import ABS, ClassFactors
from gencls.defenses.synthesis.ball import Ball, SignLosingBall
from gencls.defenses.synthesis.block_codes import BlockCodes
from gencls.defenses.synthesis.bounds import RobustnessBound, compare_to_bound, lower_bound, robustness_bound
from gencls.defenses.synthesis.eabs import EABS
from gencls.defenses.synthesis.elimination import Elimination
from gencls.defenses.synthesis.engine import AnalysisBySynthesis
from gencls.defenses.synthesis.gan_inversion import Direct, DirectPlus, Enc, EncD, EncDPlus, EncPlus
from gencls.defenses.synthesis.posterior import Posterior, interpolated
from gencls.defenses.synthesis.rates import CyclicalRate
from gencls.defenses.synthesis.regularizers import DiscriminatorPenalty, GaussianKL, Regularizer, SquaredNorm, SquaredShift
from gencls.defenses.synthesis.starts import EncodedStart, EncoderStart, RandomStarts

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
    "BlockCodes",
    "Certificate",
    "ClassFactors",
    "CyclicalRate",
    "DefenseGAN",
    "Direct",
    "DirectPlus",
    "DiscriminatorPenalty",
    "Elimination",
    "Enc",
    "EncD",
    "EncDPlus",
    "EncPlus",
    "EncodedStart",
    "EncoderStart",
    "FixedLengthNoise",
    "GaussianBlur",
    "GaussianKL",
    "GaussianNoise",
    "MLVGMPurification",
    "NDVAEPurification",
    "PaperTask",
    "PlainClassifier",
    "Posterior",
    "PurifiedAccuracy",
    "RandomAutoencoder",
    "RandomStarts",
    "RandomizedSmoothing",
    "Regularizer",
    "RobustnessBound",
    "SignLosingBall",
    "SquaredNorm",
    "SquaredShift",
    "TransformedClassifier",
    "VariationalPosteriorSmoothing",
    "VariationalSmoothing",
    "alpha_schedule",
    "compare_to_bound",
    "fgsm_examples",
    "interpolated",
    "learn_alphas",
    "lower_bound",
    "paper_blur",
    "robustness_bound",
]
