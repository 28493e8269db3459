"""Gradient modes: each name says which gradient an attacker takes.

A defense declares its modes by name, in ``surrogates()``. A :class:`GradientMode` in place of a name also says what the mode
means and whether it is exact.
"""

from dataclasses import dataclass

from gencls.core.settings import check_settings

__all__ = ["BETWEEN", "BPDA_MODE", "EXACT", "FROZEN", "KNOWN", "UNROLLED", "GradientMode", "chain_of", "mode_named"]

BETWEEN = "+"
"""Joins the names of two modes, one behind the other, as in ``frozen+bpda``."""


@dataclass(frozen=True, eq=False, repr=False)
class GradientMode(str):
    """One way to differentiate a defense: its name, which also says what the name means.

    It is that word wherever a word is expected, and equal to it. So a mode of one's own passes through every wrapper as a key:
    ``{GradientMode("mine", exact=True, meaning="The gradient by a rule of mine."): module}``.

    Attributes:
        name: its key in ``surrogates()``.
        exact: whether it claims the gradient of the defense's own scores, which finite differences must then confirm.
        meaning: one or two sentences.
    """

    name: str
    exact: bool
    meaning: str

    def __new__(cls, name: str, *said: object, **named: object) -> "GradientMode":
        """The word; what it says is set afterwards. A copy is made of the word alone."""
        return super().__new__(cls, name)

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


_UNSAID = "A mode of the defense's own, which is taken for an approximation."


def mode_named(name: str) -> GradientMode:
    """Find a mode by its name: a known mode, a chain of modes such as ``frozen+bpda``, or a mode of the user's.

    A :class:`GradientMode` is returned itself. A bare name of the user's counts as an approximation.
    """
    if isinstance(name, GradientMode):
        return name
    known = {mode.name: mode for mode in KNOWN}
    if name in known:
        return known[name]
    if BETWEEN in name:
        return chain_of(*name.split(BETWEEN))
    return GradientMode(name, False, _UNSAID)


def chain_of(*names: str) -> GradientMode:
    """The mode of parts of a defense one behind the other: exact where all are. It repeats what users say of their modes."""
    modes = [mode_named(name) for name in names]
    name = BETWEEN.join(mode.name for mode in modes)
    own = [said for mode in modes if (said := _own_words(mode))]
    return GradientMode(name, all(mode.exact for mode in modes), " ".join([_in_turn(name), *own]))


def _in_turn(chain: str) -> str:
    return f"Several parts of the defense, each in its own mode: {chain.replace(BETWEEN, ', then ')}."


def _own_words(mode: GradientMode) -> str:
    """What a mode says that its name alone does not say; of a chain, what its parts do."""
    if mode.meaning.startswith(_in_turn(mode.name)):
        return mode.meaning.removeprefix(_in_turn(mode.name)).strip()
    return "" if mode.meaning == mode_named(mode.name).meaning else f"{mode.name}: {mode.meaning}"
