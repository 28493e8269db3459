"""What is attacked (profiles) and how much is spent on it (budgets): what every paper has of both."""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from gencls.core import GenclsError

__all__ = ["Budget", "Profile", "at", "flag", "flags"]


def at(paper: Any, **levels: Any) -> Any:
    """A number of a budget: the paper's, and those of other budgets by their names, where they differ."""
    default: dict[str, Any] = {"default_factory": paper.copy} if isinstance(paper, dict) else {"default": paper}
    return field(**default, metadata=levels)


def flag(name: str, *, default: Any = MISSING, mark: bool = False, **how: Any) -> Any:
    """A field that a flag of the command line sets.

    Args:
        name: of the flag.
        default: of the field; may be missing.
        mark: the value is part of the name of the run's folder.
        how: what argparse is told.
    """
    said = default if default is not MISSING and default != () else None
    return field(default=default, metadata={"flag": name, "mark": mark, "how": {"default": said, **how}})


def flags(cls: type) -> Iterator[Field[Any]]:
    """Those fields of a dataclass."""
    return (each for each in fields(cls) if "flag" in each.metadata)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What is attacked. A paper adds its threats and the names of its networks.

    Attributes:
        data: name of the data set.
    """

    data: str

    @property
    def split(self) -> str:
        """Of the data set; it is attacked."""
        return "test"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """All numbers that decide how long a run takes. A paper adds its own, see :func:`at`.

    Attributes:
        count: N attacked images of the main tables.
        eot: draws per gradient of a stochastic defense.
        judge: draws per decision of a stochastic defense.
        judge_most: the same where the majority is open.
    """

    count: int
    eot: int
    judge: int
    judge_most: int

    together = 25
    """Attacked images in one batch; what a crash can lose. A paper may make a number of it."""
    capped: ClassVar[tuple[str, ...]] = ()
    """Further numbers of attacked images: never more than ``count`` where a user has chosen that."""

    @classmethod
    def levels(cls) -> Mapping[str, Self]:
        """The budgets by name: "paper", and those that ``count`` has."""
        numbers = fields(cls)
        names = next(number for number in numbers if number.name == "count").metadata
        others = {name: {each.name: each.metadata[name] for each in numbers if name in each.metadata} for name in names}
        return {"paper": cls(), **{name: cls(**changed) for name, changed in others.items()}}  # type: ignore[call-arg]

    def of(self, count: int) -> Self:
        """The same with ``count`` attacked images, and no more in any table.

        Raises:
            GenclsError: for no images.
        """
        if count < 1:
            raise GenclsError(f"expected at least one image, got {count}")
        return replace(self, count=count, **{name: min(count, getattr(self, name)) for name in self.capped})

    @property
    def largest(self) -> int:
        """The most images that anything needs."""
        sizes: list[int] = [self.count, *(getattr(self, name) for name in self.capped)]
        return max(sizes)

    @property
    def spent(self) -> str:
        """It in one sentence."""
        return ""
