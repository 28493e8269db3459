"""Defenses: one method of one paper = one file. Networks come in through constructors."""

from gencls.core import TransformedClassifier
from gencls.defenses.abs import ABS
from gencls.defenses.analysis_by_synthesis import AnalysisBySynthesis, Ball, GaussianKL, RandomStarts
from gencls.defenses.gaussian import GaussianBlur, GaussianNoise
from gencls.defenses.plain import PlainClassifier

__all__ = [
    "ABS",
    "AnalysisBySynthesis",
    "Ball",
    "GaussianBlur",
    "GaussianKL",
    "GaussianNoise",
    "PlainClassifier",
    "RandomStarts",
    "TransformedClassifier",
]
