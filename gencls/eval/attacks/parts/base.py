"""What all attacks share: the protocol, checks of their input, and rows that leave the batch."""

from dataclasses import fields, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, check_eval_mode, check_images, check_labels, check_settings, declared
from gencls.core.balls import BALLS
from gencls.eval.attacks.parts.attack_model import AttackModel
from gencls.eval.scores.forward import ImageByImage, name_of
from gencls.eval.threats.protocol import Threat, searchable

ALL = tuple(BALLS)
"""Keys of all Lp norms."""

CONVEX = ("linf", "l2", "l1")
"""Keys of those whose balls are convex."""

DENSE = ("linf", "l2")
"""Keys of those in which all entries move at once."""

ANY = None
"""Of attacks that move by the methods of :class:`Threat` alone: they search every threat, also one that is added later."""

Rows = TypeVar("Rows")
"""A dataclass of tensors with one entry per row of the batch: what an attack is working on."""


@runtime_checkable
class Attack(Protocol):
    """What an evaluation needs of an attack: a frozen dataclass, called as ``attack(model, images, labels)``."""

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

        The labels are the true classes, or for a targeted threat the classes to reach. Success and distance are the judge's
        business. An attack that minimises a distance returns the clean image where it found nothing.
        """


def norms_of(attack: Any) -> tuple[str, ...]:
    """Keys of the threats that an attack, or its class, searches."""
    return searchable() if attack.norms is ANY else tuple(attack.norms)


def prepare(model: nn.Module, images: Tensor, labels: Tensor, threat: Threat | None = None) -> AttackModel:
    """Check the arguments of an attack and give the model the form that attacks use.

    A model that declares ``batch_dependent = True`` is asked image by image.

    Raises:
        GenclsError: for images or labels of the wrong kind, or in half precision, whose pixels lie up to 4e-3 apart: too coarse
            to keep to a ball; for a ball that no image can leave; for a model in training mode, or later for
            one that has fewer classes than the labels.
    """
    check_images(images)
    if images.dtype not in (torch.float32, torch.float64):
        raise GenclsError(
            f"attack: expected images in float32 or float64, got {images.dtype}, which is too coarse to keep to a ball; attack "
            "images.float(), with a model that casts them inside"
        )
    if threat is not None:
        threat.check_reach(images.shape)
    check_labels(labels, num_classes=None, count=len(images))
    asked = model.meter.model if isinstance(model, AttackModel) else model
    # The surrogate of a random defense need not say itself that it is random.
    random = model.stochastic if isinstance(model, AttackModel) else False
    check_eval_mode(asked, name=name_of(asked), what="a model", may_drop=random or None)
    alone = asked is model and declared(model, "batch_dependent")
    found = AttackModel.of(ImageByImage(model) if alone else model)
    found.meter.classes = int(labels.max()) + 1
    return found


def require(attack: Any, *, minimal: bool | None = False, targeted: bool = False, norms: tuple[str, ...] | None = None) -> None:
    """Check the types of an attack's settings, and that it can serve its threat.

    Args:
        attack: a dataclass with a threat.
        minimal: it minimises the distance, so epsilon must be None; otherwise there must be one; None: either.
        targeted: it can be targeted.
        norms: keys of the threats it knows; None for all.

    Raises:
        GenclsError: if it cannot.
    """
    check_settings(attack)
    name, threat = type(attack).__name__, attack.threat
    if minimal and threat.epsilon is not None:
        raise GenclsError(f"{name}: expected a threat model without epsilon, because it minimises the distance, got {threat}")
    if minimal is False and threat.epsilon is None:
        raise GenclsError(f"{name}: expected a threat model with an epsilon, got {threat}")
    if threat.targeted and not targeted:
        raise GenclsError(f"{name}: expected an untargeted threat model, got {threat}")
    if norms is not None and threat.norm not in norms:
        raise GenclsError(f"{name}: expected a norm among {', '.join(norms)}, got {threat}")


def taken(rows: Rows, which: Tensor) -> Rows:
    """The chosen rows (indices or mask) of every tensor: how finished samples leave the batch."""
    return replace(rows, **{field.name: getattr(rows, field.name)[which] for field in fields(rows)})  # type: ignore[type-var, arg-type]


def joined(first: Rows, second: Rows) -> Rows:
    """The rows of both."""
    both = {field.name: (getattr(first, field.name), getattr(second, field.name)) for field in fields(first)}  # type: ignore[arg-type]
    return replace(first, **{name: torch.cat(pair) for name, pair in both.items()})  # type: ignore[type-var]
