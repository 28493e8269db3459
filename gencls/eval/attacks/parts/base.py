"""What all attacks share: the protocol, checks of their input, and the geometry of the balls."""

from dataclasses import fields, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, check_eval_mode, check_images, check_labels, declared
from gencls.eval.attacks.parts.attack_model import AttackModel
from gencls.eval.scores.forward import ImageByImage, name_of
from gencls.eval.threats.threat import Norm, ThreatModel

__all__ = ["Attack", "joined", "per_image", "prepare", "project", "random_start", "require", "steepest", "taken"]

Rows = TypeVar("Rows")
"""A dataclass of tensors with one entry per row of the batch: what an attack is working on."""


_ROUNDING = 1e-6
"""Share of the radius left for rounding: float32 pixels of a large image add up to more than the judge's tolerance."""

_FEW_PIXELS = 1000
"""Of so many float32 pixels, rounded by 3e-8 each, the L2 norm does not leave the judge's tolerance."""


@runtime_checkable
class Attack(Protocol):
    """What an evaluation needs of an attack: a frozen dataclass, called as ``attack(model, images, labels)``."""

    @property
    def threat(self) -> ThreatModel:
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


def prepare(model: nn.Module, images: Tensor, labels: Tensor, threat: ThreatModel | None = None) -> AttackModel:
    """Check the arguments of an attack and give the model the form that attacks use.

    Args:
        model: under attack, in eval mode. One that declares ``batch_dependent = True`` is asked image by image.
        images: (N, C, H, W) in [0, 1].
        labels: int64 (N,).
        threat: that the attack serves; None for what has none.

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
        threat.check_reach(images)
    check_labels(labels, num_classes=None, count=len(images))
    asked = model.meter.model if isinstance(model, AttackModel) else model
    # The surrogate of a random defense need not say itself that it is random.
    random = model.stochastic if isinstance(model, AttackModel) else False
    check_eval_mode(asked, name=name_of(asked), what="a model", may_drop=random or None)
    alone = asked is model and declared(model, "batch_dependent")
    found = AttackModel.of(ImageByImage(model) if alone else model)
    found.meter.classes = int(labels.max()) + 1
    return found


def require(threat: ThreatModel, name: str, *, minimal: bool = False, targeted: bool = False, norms: Any = None) -> None:
    """Check that an attack can serve a threat model.

    Args:
        threat: what is asked for.
        name: of the attack.
        minimal: the attack minimises the distance, so epsilon must be None; otherwise there must be one.
        targeted: the attack can be targeted.
        norms: the norms it knows; None for all.

    Raises:
        GenclsError: if it cannot.
    """
    if minimal and threat.epsilon is not None:
        raise GenclsError(f"{name}: expected a threat model without epsilon, because it minimises the distance, got {threat}")
    if not minimal and threat.epsilon is None:
        raise GenclsError(f"{name}: expected a threat model with an epsilon, got {threat}")
    if threat.targeted and not targeted:
        raise GenclsError(f"{name}: expected an untargeted threat model, got {threat}")
    if norms is not None and threat.norm not in norms:
        raise GenclsError(f"{name}: expected a norm among {', '.join(norms)}, got {threat}")


def per_image(values: Tensor) -> Tensor:
    """(N,) -> (N, 1, 1, 1), to multiply images."""
    return values.view(-1, 1, 1, 1)


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """The step of length 1 along which a linear loss grows most; 0 where the gradient is 0.

    Args:
        gradient: (N, C, H, W).
        norm: "linf" gives the sign, "l2" the direction.
    """
    if norm == "linf":
        return gradient.sign()
    largest = gradient.flatten(1).abs().amax(dim=1)  # first: squares of small numbers vanish in float32
    gradient = gradient / per_image(largest.where(largest > 0, 1.0))
    length = gradient.flatten(1).norm(dim=1)
    return gradient / per_image(length.where(length > 0, 1.0))


def project(images: Tensor, clean: Tensor, norm: Norm, epsilon: float) -> Tensor:
    """Bring images (N, C, H, W) back into the ball around the clean ones, and into [0, 1]."""
    if norm == "linf":
        return images.clamp(clean - epsilon, clean + epsilon).clamp_(0, 1)
    change = images - clean
    length = change.flatten(1).double().norm(dim=1).clamp_min(1e-30)  # in float32 the norm of a large image comes out short
    shrink = ((1 - _ROUNDING) * epsilon / length).clamp_max(1.0).to(images.dtype)
    return _within(change.mul_(per_image(shrink)).add_(clean).clamp_(0, 1), clean, epsilon)


def _within(images: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    """Images (N, C, H, W) of the L2 ball up to rounding; those that rounding brought out of it are rounded inwards."""
    if clean.shape[1:].numel() <= _FEW_PIXELS:
        return images
    beyond = (images - clean).flatten(1).double().norm(dim=1) > epsilon
    return torch.where(per_image(beyond), images.nextafter(clean), images) if bool(beyond.any()) else images


def random_start(clean: Tensor, norm: Norm, epsilon: float) -> Tensor:
    """Images drawn uniformly from the balls around the clean ones, clipped to [0, 1]."""
    if norm == "linf":
        return (clean + epsilon * (2 * torch.rand_like(clean) - 1)).clamp_(0, 1)
    direction = torch.randn_like(clean)
    radius = (1 - _ROUNDING) * epsilon * torch.rand_like(clean[:, 0, 0, 0]).pow(1 / clean.shape[1:].numel())
    length = direction.flatten(1).double().norm(dim=1)
    return _within((clean + direction * per_image(radius / length).to(clean.dtype)).clamp_(0, 1), clean, epsilon)


def taken(rows: Rows, which: Tensor) -> Rows:
    """The chosen rows (indices or mask) of every tensor: how finished samples leave the batch."""
    return replace(rows, **{field.name: getattr(rows, field.name)[which] for field in fields(rows)})  # type: ignore[type-var, arg-type]


def joined(first: Rows, second: Rows) -> Rows:
    """The rows of both."""
    both = {field.name: (getattr(first, field.name), getattr(second, field.name)) for field in fields(first)}  # type: ignore[arg-type]
    return replace(first, **{name: torch.cat(pair) for name, pair in both.items()})  # type: ignore[type-var]
