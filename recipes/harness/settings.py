"""What recipes attack (profiles) and how much they spend (budgets): the parts that every paper has."""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from gencls.core import GenclsError

__all__ = ["Budget", "Profile", "at", "flag", "flags"]


def at(paper: Any, **levels: Any) -> Any:
    """Declare a number of a budget: the paper's, and the numbers of other budgets, by their names, where they differ."""
    default: dict[str, Any] = {"default_factory": paper.copy} if isinstance(paper, dict) else {"default": paper}
    return field(**default, metadata=levels)


def flag(name: str, *, default: Any = MISSING, mark: bool = False, **how: Any) -> Any:
    """Declare a field that an option of the command line sets.

    Args:
        name: name of the option.
        default: default of the field; without one the field is required.
        mark: whether the value becomes part of the name of the run's folder.
        how: arguments for argparse.
    """
    said = default if default is not MISSING and default != () else None
    return field(default=default, metadata={"flag": name, "mark": mark, "how": {"default": said, **how}})


def flags(cls: type) -> Iterator[Field[Any]]:
    """Yield the fields of a dataclass that an option sets."""
    return (each for each in fields(cls) if "flag" in each.metadata)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A data set to attack. A paper adds its threats and the names of its networks.

    Attributes:
        data: name of the data set.
    """

    data: str

    @property
    def split(self) -> str:
        """Name of the split to attack."""
        return "test"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """All numbers that decide how long a run takes. A paper adds its own, see :func:`at`.

    Attributes:
        count: N, attacked images in the main tables.
        eot: draws per gradient of a stochastic defense.
        judge: draws per decision of a stochastic defense.
        judge_most: most draws per decision, if the majority stays open.
    """

    count: int
    eot: int
    judge: int
    judge_most: int

    together = 25
    """Attacked images in one batch; a crash loses at most this many. A paper may turn it into a number of the budget."""
    capped: ClassVar[tuple[str, ...]] = ()
    """Names of further numbers of attacked images. They never exceed ``count`` if a user has chosen that."""

    @classmethod
    def levels(cls) -> Mapping[str, Self]:
        """The budgets by name: "paper", and the others that the fields name."""
        numbers = fields(cls)
        names = next(number for number in numbers if number.name == "count").metadata
        others = {name: {each.name: each.metadata[name] for each in numbers if name in each.metadata} for name in names}
        return {"paper": cls(), **{name: cls(**changed) for name, changed in others.items()}}  # type: ignore[call-arg]

    def of(self, count: int) -> Self:
        """The same budget with ``count`` attacked images, and no more in any table.

        Raises:
            GenclsError: for a count below 1.
        """
        if count < 1:
            raise GenclsError(f"expected at least one image, got {count}")
        return replace(self, count=count, **{name: min(count, getattr(self, name)) for name in self.capped})

    @property
    def largest(self) -> int:
        """The largest number of images that a table or a measurement needs."""
        sizes: list[int] = [self.count, *(getattr(self, name) for name in self.capped)]
        return max(sizes)

    @property
    def spent(self) -> str:
        """Say the budget in one sentence."""
        return ""
