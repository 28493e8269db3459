"""Parts of all attacks: the protocol, the response to a look, checks of settings, and rows that leave the batch."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, check_settings
from gencls.core.balls import BALLS
from gencls.eval.scores.margins import mean_shortfall, shortfall
from gencls.eval.threats.lp_balls import ThreatModel
from gencls.eval.threats.protocol import Threat, check_threats, searchable

ALL = tuple(BALLS)
"""Keys of all Lp norms."""

CONVEX = ("linf", "l2", "l1")
"""Keys of the norms whose balls are convex."""

DENSE = ("linf", "l2")
"""Keys of the norms in which all entries move at once."""

ANY = None
"""Value of ``norms`` for attacks that move only by the methods of :class:`Threat`: they search every threat, also new ones."""

Rows = TypeVar("Rows")
"""A dataclass of tensors with one entry per row of the batch: the present state of an attack."""


@dataclass(frozen=True)
class Response:
    """The response of the model to one look of an attack; unrequested parts are not computed.

    Attributes:
        draws: (N, S, K), the scores of the single draws, without gradient.
        scores: (N, K), averaged over the draws, without gradient.
        labels: (N,), the classes to leave, or with ``targeted`` to reach.
        gradient: (N, C, H, W), gradient of the loss; empty if not requested.
        targeted: whether the goal is to reach the labels.
        stochastic: whether another look may differ.
    """

    draws: Tensor
    scores: Tensor
    labels: Tensor
    gradient: Tensor
    targeted: bool = False
    stochastic: bool = False

    @cached_property
    def success(self) -> Tensor:
        """(N,) float64, fraction of the draws that reach the goal; 0 or 1 for a deterministic defense."""
        hit = (self.draws.argmax(dim=2) == self.labels.unsqueeze(1)) == self.targeted
        return hit.mean(dim=1, dtype=torch.float64)

    @cached_property
    def margin(self) -> Tensor:
        """(N,) float64, by how much the scores miss the goal, negative if they reach it; on average over random draws.

        Comparable between perturbations of one image, in the unit of the scores.
        """
        if self.stochastic:
            return mean_shortfall(self.draws, self.labels, targeted=self.targeted)
        return shortfall(self.scores, self.labels, targeted=self.targeted)

    @cached_property
    def reached(self) -> Tensor:
        """(N,) bool, whether more than half of the draws reach the goal, for a stochastic defense by two standard errors.

        An attack that minimises a distance picks the luckiest of many looks; the two standard errors keep its claim honest.
        """
        needed = 0.5 + (min(0.5 - 1e-9, self.draws.shape[1] ** -0.5) if self.stochastic else 0.0)
        return self.success > needed


@runtime_checkable
class Attack(Protocol):
    """The interface of an attack: a frozen dataclass, called as ``attack(model, images, labels)``."""

    @property
    def threat(self) -> Threat:
        """The threat model whose ball the adversarial images keep to; without epsilon the attack minimises the distance."""

    @property
    def uses_gradients(self) -> bool:
        """Whether the gradient modes of a defense make a difference."""

    @property
    def passes(self) -> tuple[int, int]:
        """Forward and forward-plus-backward passes per image at most, to predict the cost of a study."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] and labels (N,) -> adversarial images of the same shape, and nothing else.

        The labels are the true classes, or for a targeted threat the classes to reach. The judge decides about success and
        distance. An attack that minimises a distance returns the clean image if it found nothing.
        """


def check_attacks(attacks: Mapping[str, Attack], what: str) -> None:
    """Check that attacks, by name, are attacks, and their threats threats that can stand side by side.

    Raises:
        GenclsError: for the first that is not, and as :func:`~gencls.eval.threats.protocol.check_threats`.
    """
    for name, attack in attacks.items():
        if not isinstance(attack, Attack):
            raise GenclsError(
                f"{what}: expected an attack, an object with threat, uses_gradients and passes that is called as "
                f"attack(model, images, labels), see gencls.eval.Attack; got {_kind(attack)} ({name})"
            )
        if not isinstance(attack.threat, Threat):
            raise GenclsError(
                f"{what}: expected an attack whose threat is a Threat, see gencls.eval.threats.protocol.Threat; "
                f"got {_kind(attack.threat)} ({name})"
            )
    check_threats({name: attack.threat for name, attack in attacks.items()}, what)


def _kind(value: object) -> str:
    return f"the class {value.__name__} itself" if isinstance(value, type) else type(value).__name__


def norms_of(attack: Any) -> tuple[str, ...]:
    """Keys of the threats that an attack, or its class, searches."""
    return searchable() if attack.norms is ANY else tuple(attack.norms)


def require(attack: Any, *, minimal: bool | None = False, targeted: bool = False, norms: tuple[str, ...] | None = None) -> None:
    """Check the types of an attack's settings, and that it can serve its threat.

    Args:
        attack: a dataclass with a threat.
        minimal: True if it minimises the distance, so that epsilon must be None. False needs an epsilon, None takes both.
        targeted: True if it can be targeted.
        norms: keys of the :class:`~gencls.eval.ThreatModel` that it knows; None for every threat.

    Raises:
        GenclsError: if it cannot.
    """
    name, threat = type(attack).__name__, attack.threat
    if norms is not None and isinstance(threat, Threat) and not (isinstance(threat, ThreatModel) and threat.norm in norms):
        raise GenclsError(f"{name}: expected a ThreatModel with a norm among {', '.join(norms)}, got {threat}")
    check_settings(attack)
    if minimal and threat.epsilon is not None:
        raise GenclsError(f"{name}: expected a threat model without epsilon, because it minimises the distance, got {threat}")
    if minimal is False and threat.epsilon is None:
        raise GenclsError(f"{name}: expected a threat model with an epsilon, got {threat}")
    if threat.targeted and not targeted:
        raise GenclsError(f"{name}: expected an untargeted threat model, got {threat}")


def taken(rows: Rows, which: Tensor) -> Rows:
    """The chosen rows (indices or mask) of every tensor: how finished samples leave the batch."""
    return replace(rows, **{field.name: getattr(rows, field.name)[which] for field in fields(rows)})  # type: ignore[type-var, arg-type]


def joined(first: Rows, second: Rows) -> Rows:
    """The rows of both."""
    both = {field.name: (getattr(first, field.name), getattr(second, field.name)) for field in fields(first)}  # type: ignore[arg-type]
    return replace(first, **{name: torch.cat(pair) for name, pair in both.items()})  # type: ignore[type-var]
