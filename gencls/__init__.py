"""Generative classifiers and generative defenses, all measured by the same adaptive attacks.

The parts: :mod:`gencls.core` (what a defense is), :mod:`gencls.perceptual` (image distances), :mod:`gencls.defenses`
(one method of one paper per file), :mod:`gencls.zoo` (networks, data, training, weights) and :mod:`gencls.eval`
(attacks, judge, studies, reports). None of them is imported here, so that ``import gencls`` is quick.
"""

__version__ = "0.1.0"
