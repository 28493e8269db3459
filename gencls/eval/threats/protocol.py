"""The contract of a threat: what an adversary may change, and how far two images are apart; and all kinds of threat, by key."""

import functools
import importlib
import pkgutil
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from gencls.core import GenclsError, check_settings, did_you_mean, key_of
from gencls.core.balls import BALLS, per_image
from gencls.core.words import with_article

TOLERANCE = 1e-6
"""How far a distance may exceed epsilon through rounding (clipping in float32 exceeds it by about 2e-8)."""

_KINDS: dict[str, "ThreatKind"] = {}


@dataclass(frozen=True)
class Threat(ABC):
    """A bound on how far an adversarial image may be from the clean one, within [0, 1].

    Studies, the judge, reports and the doctor need no more than this class. Gradient attacks move by :meth:`step`,
    :meth:`project` and :meth:`start`. A new threat is one file in this folder: a subclass, and a call of :func:`register`.
    tests/eval/threats/test_protocol.py has a short example, a weighted norm.

    A distance need be no norm. It is 0 between equal images, and it does not grow when an image moves straight towards the
    clean one. It may be 0 between different images. It may also grow when a single pixel comes nearer to the clean one;
    :meth:`turned` says what follows then.

    Attributes:
        norm: the key of the kind, under which records know it.
        epsilon: the bound, in the unit of the distance; None asks for the smallest perturbation that succeeds.
        targeted: whether success means a given class rather than any wrong one.
    """

    norm: str
    epsilon: float | None = None
    targeted: bool = False

    def __post_init__(self) -> None:
        check_settings(self)
        if self.epsilon is not None and self.epsilon <= 0:
            raise GenclsError(f"threat model: expected an epsilon > 0 in {self.unit}, got {self.epsilon}")

    @property
    def label(self) -> str:
        """The name of the kind of threat on pages and in figures."""
        return kind_of(self.norm).label

    @property
    def unit(self) -> str:
        """The unit of distances and epsilon."""
        return kind_of(self.norm).unit

    @abstractmethod
    def distance(self, clean: Tensor, adversarial: Tensor) -> Tensor:
        """Distances between two batches of images (N, C, H, W) in [0, 1], pair by pair: (N,), >= 0, in float64.

        Nobody moves a threat: if it holds a network, this method moves it to the images' device. The judge asks without
        gradients.
        """

    @abstractmethod
    def largest(self, shape: torch.Size) -> float:
        """The distance of the two farthest images of a shape (N, C, H, W); a ball of this size holds all."""

    @abstractmethod
    def step(self, gradient: Tensor, size: float | Tensor, images: Tensor) -> Tensor:
        """The change (N, C, H, W) of one size, or of one per image (N,), that raises a linear loss most.

        If some changes are free, a linear loss grows without bound. The step is then the steepest among the others, and along
        the free ones it has a size that is sensible in [0, 1]. It may leave the bound: :meth:`project` follows. It is finite,
        also for a zero gradient.
        """

    @abstractmethod
    def project(self, images: Tensor, clean: Tensor) -> Tensor:
        """Bring images into [0, 1] and within epsilon of the clean ones.

        The result lies in both, and :meth:`allows` accepts its distance: rounding in float32 may exceed epsilon by
        :data:`TOLERANCE`, not more. It need not be the nearest such image. A clean image stays unchanged.
        """

    @abstractmethod
    def start(self, clean: Tensor) -> Tensor:
        """Draw random images within epsilon of the clean ones."""

    @property
    def first_step(self) -> float:
        """The size of the first steps of a descent."""
        return self.epsilon or 0.0

    def sized(self, epsilon: float | None) -> Self:
        """The same threat with another bound."""
        return replace(self, epsilon=epsilon)

    def check_reach(self, shape: torch.Size) -> None:
        """Check that the bound is not larger than the space of images of a shape (N, C, H, W), in [0, 1].

        Raises:
            GenclsError: no image can exceed epsilon. It was surely meant for pixels in 0..255, or larger images.
        """
        if self.epsilon is not None and self.epsilon > (largest := self.largest(shape)) * (1 + TOLERANCE):
            raise GenclsError(
                f"threat model: expected a {self.norm} epsilon up to {largest:.4g}, the distance of the two farthest images of "
                f"shape {tuple(shape[1:])} in {self.unit}, got {self.epsilon:g}, which no image can leave"
            )

    def allows(self, distances: Tensor) -> Tensor:
        """Mark the distances (N,) within the bound, up to :data:`TOLERANCE`."""
        if self.epsilon is None:
            return torch.isfinite(distances)
        return distances <= self.epsilon + TOLERANCE

    def turned(self, clean: Tensor, far: Tensor, near: Tensor, regret: Tensor) -> Tensor:
        """Choose the entries of images that must take the nearer of two values for the bound to hold: (N, C, H, W), bool.

        This method chooses all entries of an image that would leave the bound. That suffices if a change that is smaller in
        every entry is no farther, as in an Lp norm. In other threats an image may still leave the bound, and rounding to 8 bits
        then falls back to the clean one. A threat that knows better overrides this method.

        Args:
            clean: the clean images (N, C, H, W), in their own precision.
            far: the wanted values.
            near: values that are nearer to the clean ones.
            regret: the loss from taking the nearer value, in float64.
        """
        return per_image(~self.allows(self.distance(clean, far))).expand_as(clean)


@dataclass(frozen=True)
class ThreatKind:
    """The facts about a threat that follow from its key alone.

    Attributes:
        key: the entry in the column ``norm`` of records, in names of files, and in names of attacks like pgd-linf: small
            letters, digits, and hyphens between them.
        label: the name on pages and in figures.
        latex: the name in LaTeX tables.
        unit: the unit of distances and epsilon.
        make: a function from epsilon (None for the smallest perturbation) to a threat; None if the threat needs more than
            epsilon.
    """

    key: str
    label: str
    latex: str
    unit: str
    make: Callable[[float | None], Any] | None = None

    def __post_init__(self) -> None:
        check_settings(self)


def register(kind: ThreatKind) -> None:
    """Make a kind known; the file that defines a threat calls this when it is imported.

    A kind takes the place of one of the same key, as when a cell of a notebook runs again. None takes that of an Lp norm.

    Raises:
        GenclsError: what is given is no kind, or its key cannot stand in the name of an attack, or is that of an Lp norm.
    """
    if not isinstance(kind, ThreatKind):
        raise GenclsError(f"register: expected a ThreatKind, got {kind!r}")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", kind.key):
        raise GenclsError(
            f"register: expected a key of small letters, digits and hyphens between them, as in 'linf', got {kind.key!r}"
        )
    if kind.key in BALLS and kind.key in _KINDS:
        raise GenclsError(f"register: expected a key of its own, got {kind.key!r}; {kind.key} is an Lp norm's already")
    _KINDS[kind.key] = kind


def kinds() -> Mapping[str, ThreatKind]:
    """All kinds by key: those of the files beside this one, and those that other modules have registered."""
    _import_all()
    return _KINDS


@functools.cache
def _import_all() -> None:
    """Let every file beside this one register its threats."""
    import gencls.eval.threats as package

    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)


def check_threats(threats: Mapping[str, Threat], what: str) -> None:
    """Check that threats of attacks, by name, are equal if their keys are equal, except for epsilon and the target.

    Records know a threat by its key: a different threat of the same key would be compared with it, and enter the same worst
    case. The key of an Lp norm is that of a :class:`~gencls.eval.ThreatModel` alone.

    Raises:
        GenclsError: two threats of one key differ, or one that is no ThreatModel has the key of an Lp norm.
    """
    seen: dict[str, tuple[str, Threat]] = {}
    for name, threat in threats.items():
        if threat.norm in BALLS and type(threat) is not (known := type(made(threat.norm, None))):
            raise GenclsError(
                f"{what}: expected {with_article(known.__name__)} where the norm is {threat.norm!r}, got "
                f"{type(threat).__name__} (of {name}); give it a norm of its own"
            )
        first, other = seen.setdefault(threat.norm, (name, threat))
        if other is not threat and key_of(bare(other), "threat") != key_of(bare(threat), "threat"):
            raise GenclsError(
                f"{what}: expected threats of one norm to differ in epsilon only, got two with the norm {threat.norm!r} (of "
                f"{first} and {name}); give them different keys: their attribute norm"
            )


def bare(threat: Threat) -> Threat:
    """A threat without bound and target: the part that all threats of its key share."""
    return replace(threat.sized(None), targeted=False)


def kind_of(key: Any) -> ThreatKind:
    """Find the kind of a key. Records may hold keys whose file does not exist here: the key is then their label."""
    name = str(key)
    return kinds().get(name) or ThreatKind(name, name, name, "")


def searchable() -> tuple[str, ...]:
    """Keys of the kinds that epsilon alone makes; names of attacks may use any of them."""
    return tuple(key for key, kind in kinds().items() if kind.make is not None)


def made(key: str, epsilon: float | None) -> Any:
    """Make the threat of a key.

    Raises:
        GenclsError: the key is unknown, or its threat needs more than epsilon.
    """
    make = kind_of(key).make
    if make is None:
        known = searchable()
        raise GenclsError(f"threat model: {did_you_mean(key, known)}expected a norm among {', '.join(known)}, got {key!r}")
    return make(epsilon)
