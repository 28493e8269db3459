"""What a threat says: what an adversary may change, and how far two images are apart; and the kinds that there are, by key."""

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

TOLERANCE = 1e-6
"""By how much a distance may exceed epsilon through rounding (clipping in float32 exceeds it by about 2e-8)."""

_KINDS: dict[str, "ThreatKind"] = {}


@dataclass(frozen=True)
class Threat(ABC):
    """A bound on how far an adversarial image may be from the clean one, within [0, 1].

    Studies, the judge, reports and the doctor ask for no more than this; the last three methods are what gradient attacks move
    by. A new threat is one file in this folder: a subclass, and a call of :func:`register`.
    tests/eval/threats/test_protocol.py has a short example, a weighted norm.

    A distance need be no norm. It is 0 between equal images, and an image that is moved straight towards the clean one comes no
    farther from it. It may be 0 between different images, and may grow where a pixel comes nearer to the clean one; then see
    :meth:`turned`.

    Attributes:
        norm: key of the kind, under which records know it.
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
        """What pages and figures call the kind of threat."""
        return kind_of(self.norm).label

    @property
    def unit(self) -> str:
        """In which distances and epsilon are measured."""
        return kind_of(self.norm).unit

    @abstractmethod
    def distance(self, clean: Tensor, adversarial: Tensor) -> Tensor:
        """How far two batches of images (N, C, H, W) in [0, 1] are apart: (N,), in float64, each pair by itself.

        Nobody moves a threat: one that holds a network moves it to the images' device here. The judge asks without gradients.
        """

    @abstractmethod
    def largest(self, shape: torch.Size) -> float:
        """The distance of the two farthest images of a shape (N, C, H, W); a ball of this size holds all."""

    @abstractmethod
    def step(self, gradient: Tensor, size: float | Tensor, images: Tensor) -> Tensor:
        """The change (N, C, H, W) of a size, or of one per image (N,), along which a linear loss grows most.

        Where some changes are free, so that a linear loss grows without bound, the steepest step among the others, and along
        the free ones a step of a size that [0, 1] makes sensible. It may leave the bound: :meth:`project` follows. Where the
        gradient is zero it is finite.
        """

    @abstractmethod
    def project(self, images: Tensor, clean: Tensor) -> Tensor:
        """Bring images into [0, 1] and within epsilon of the clean ones.

        What comes out lies in both, and :meth:`allows` its distance: rounding in float32 may exceed epsilon by
        :data:`TOLERANCE`, not more. It need not be the nearest such image. The clean image stays what it is.
        """

    @abstractmethod
    def start(self, clean: Tensor) -> Tensor:
        """Random images within epsilon of the clean ones."""

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
            GenclsError: for an epsilon that no image can exceed. It was surely meant for pixels in 0..255, or larger images.
        """
        if self.epsilon is not None and self.epsilon > (largest := self.largest(shape)) * (1 + TOLERANCE):
            raise GenclsError(
                f"threat model: expected a {self.norm} epsilon up to {largest:.4g}, the distance of the two farthest images of "
                f"shape {tuple(shape[1:])} in {self.unit}, got {self.epsilon:g}, which no image can leave"
            )

    def allows(self, distances: Tensor) -> Tensor:
        """Which distances (N,) lie within the bound, up to :data:`TOLERANCE`."""
        if self.epsilon is None:
            return torch.isfinite(distances)
        return distances <= self.epsilon + TOLERANCE

    def turned(self, clean: Tensor, far: Tensor, near: Tensor, regret: Tensor) -> Tensor:
        """Which entries of images must take the nearer of two values for the bound to hold: (N, C, H, W), bool.

        Here all entries of an image that would leave the bound. That suffices where a change that is smaller in every entry is
        no farther, as in an Lp norm. Elsewhere rounding to 8 bits gives images up that still leave the bound, and takes the
        clean ones; a threat that knows better overrides this.

        Args:
            clean: (N, C, H, W), as everywhere in the precision of the images.
            far: the values that are wanted.
            near: values that are nearer to the clean ones.
            regret: of taking the nearer value, in float64.
        """
        return per_image(~self.allows(self.distance(clean, far))).expand_as(clean)


@dataclass(frozen=True)
class ThreatKind:
    """What is known of a threat by its key alone.

    Attributes:
        key: stands in the column ``norm`` of records, in names of files, and in names of attacks like pgd-linf: small letters,
            digits, and hyphens between them.
        label: on pages and in figures.
        latex: in LaTeX tables.
        unit: of distances and epsilon.
        make: epsilon (None for the smallest perturbation) to a threat; None where more must be known than epsilon.
    """

    key: str
    label: str
    latex: str
    unit: str
    make: Callable[[float | None], Any] | None = None

    def __post_init__(self) -> None:
        check_settings(self)


def register(kind: ThreatKind) -> None:
    """Make a kind known; the file that defines a threat does it when it is imported.

    A kind takes the place of one of the same key, as when a cell of a notebook runs again. None takes that of an Lp norm.

    Raises:
        GenclsError: for something else than a kind, a key that cannot stand in the name of an attack, or that of an Lp norm.
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
    """All kinds by key: those of the files beside this one, and what other modules have registered."""
    _import_all()
    return _KINDS


@functools.cache
def _import_all() -> None:
    """Let every file beside this one register its threats."""
    import gencls.eval.threats as package

    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)


def check_threats(threats: Mapping[str, Threat], what: str) -> None:
    """Check that attacks, by name, whose threats have one key have one threat, but for epsilon and the target.

    Records know a threat by its key: others of the same key would be compared with it, and enter the same worst case. The key
    of an Lp norm is that of a :class:`~gencls.eval.ThreatModel` alone.

    Raises:
        GenclsError: if two threats of one key differ, or one that is no ThreatModel has the key of an Lp norm.
    """
    seen: dict[str, tuple[str, Threat]] = {}
    for name, threat in threats.items():
        if threat.norm in BALLS and type(threat) is not (known := type(made(threat.norm, None))):
            raise GenclsError(
                f"{what}: expected a {known.__name__} where the norm is {threat.norm!r}, got {type(threat).__name__} "
                f"(of {name}); give it a norm of its own"
            )
        first, other = seen.setdefault(threat.norm, (name, threat))
        if other is not threat and key_of(bare(other), "threat") != key_of(bare(threat), "threat"):
            raise GenclsError(
                f"{what}: expected threats of one norm to differ in epsilon only, got two with the norm {threat.norm!r} (of "
                f"{first} and {name}); give them different keys: their attribute norm"
            )


def bare(threat: Threat) -> Threat:
    """A threat without bound and target: what all threats of its key share."""
    return replace(threat.sized(None), targeted=False)


def kind_of(key: Any) -> ThreatKind:
    """The kind of a key. Records may hold keys whose file is not there: they are labelled by the key."""
    name = str(key)
    return kinds().get(name) or ThreatKind(name, name, name, "")


def searchable() -> tuple[str, ...]:
    """Keys of the kinds that epsilon alone makes: attacks of any threat search them, by name."""
    return tuple(key for key, kind in kinds().items() if kind.make is not None)


def made(key: str, epsilon: float | None) -> Any:
    """The threat of a key.

    Raises:
        GenclsError: for an unknown key, or one whose threat needs more than epsilon.
    """
    make = kind_of(key).make
    if make is None:
        known = searchable()
        raise GenclsError(f"threat model: {did_you_mean(key, known)}expected a norm among {', '.join(known)}, got {key!r}")
    return make(epsilon)
