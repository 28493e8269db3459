"""Gradient modes: each name says which gradient an attacker takes."""

from dataclasses import dataclass

from gencls.core.settings import check_settings

__all__ = ["BETWEEN", "BPDA_MODE", "EXACT", "FROZEN", "KNOWN", "UNROLLED", "GradientMode", "mode_named"]

BETWEEN = "+"
"""Joins the names of two modes, one behind the other, as in ``frozen+bpda``."""


@dataclass(frozen=True)
class GradientMode:
    """One way to differentiate a defense.

    Attributes:
        name: its key in ``surrogates()``.
        exact: whether it claims the gradient of the defense's own scores, which finite differences must then confirm.
        meaning: one or two sentences.
    """

    name: str
    exact: bool
    meaning: str

    def __post_init__(self) -> None:
        check_settings(self)


EXACT = GradientMode("exact", True, "Ordinary differentiation through the whole defense.")

FROZEN = GradientMode(
    "frozen",
    True,
    "The inner optimisation of a Bayes classifier is held fixed, and only the final scores are differentiated; exact where the "
    "inner optimisation has converged.",
)

UNROLLED = GradientMode("unrolled", True, "Differentiates through every step of the inner optimisation.")

BPDA_MODE = GradientMode(
    "bpda",
    False,
    "A part without a useful gradient is replaced by a differentiable approximation in the backward pass only.",
)

KNOWN = (
    EXACT,
    FROZEN,
    UNROLLED,
    GradientMode(
        "unrolled-bpda",
        False,
        "The same, with a differentiable approximation of steps that have no useful gradient, such as signs.",
    ),
    BPDA_MODE,
    GradientMode(
        "warm",
        False,
        "As frozen, but the inner optimisation goes on from where it ended at the attack's last look, in fewer steps.",
    ),
)
"""The modes of this package, in the order of a glossary."""


def mode_named(name: str) -> GradientMode:
    """Find a mode by its name: a known mode, a chain of modes such as ``frozen+bpda``, or a mode of the user's.

    A chain is exact if all its parts are. A mode of the user's counts as an approximation.
    """
    known = {mode.name: mode for mode in KNOWN}
    if name in known:
        return known[name]
    if BETWEEN in name:
        parts = [mode_named(part) for part in name.split(BETWEEN)]
        meaning = "Several parts of the defense, each in its own mode: " + ", then ".join(part.name for part in parts) + "."
        return GradientMode(name, all(part.exact for part in parts), meaning)
    return GradientMode(name, False, "A mode of the defense's own, which is taken for an approximation.")
