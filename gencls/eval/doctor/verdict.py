"""Checks and what they amount to, for people and for ``doctor.json``."""

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from gencls.core import GenclsError

__all__ = ["Check", "Diagnosis", "Status"]

Status = Literal["ok", "note", "fail"]
"""From good to bad: "fail" where a number would be meaningless, "note" where it needs care."""

_WIDTH = 118


@dataclass(frozen=True)
class Check:
    """One check of a diagnosis.

    Attributes:
        name: what was checked.
        status: see :data:`Status`.
        finding: what was found, one sentence.
        evidence: what was measured, by name; finite numbers or text.
    """

    name: str
    status: Status
    finding: str
    evidence: Mapping[str, float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values."""
        if self.status not in get_args(Status):
            raise GenclsError(f"{self.name}: expected a status among {', '.join(get_args(Status))}, got {self.status!r}")
        unfit = [key for key, value in self.evidence.items() if isinstance(value, float) and not math.isfinite(value)]
        if unfit:  # JSON has no word for them
            raise GenclsError(f"{self.name}: expected finite evidence, got NaN or infinity for {', '.join(unfit)}")


@dataclass(frozen=True)
class Diagnosis:
    """All checks of one defense, in the order in which they were made."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.named("fail")

    def named(self, status: Status) -> tuple[str, ...]:
        """Names of the checks with this status."""
        return tuple(check.name for check in self.checks if check.status == status)

    @property
    def verdict(self) -> str:
        """One sentence."""
        notes = self.named("note")
        if not self.passed:
            return f"a robustness number would be meaningless; failed: {', '.join(self.named('fail'))}"
        care = f"; mind the notes: {', '.join(notes)}" if notes else ""
        return f"nothing found that makes a robustness number meaningless ({len(self.checks)} checks){care}"

    def text(self, name: str = "defense") -> str:
        """The checks with their evidence and the verdict, for a terminal.

        Args:
            name: of the defense.
        """
        column = max(len(check.name) for check in self.checks) if self.checks else 0
        indent = " " * (column + 8)
        lines = []
        for check in self.checks:
            first = f"{check.status:<4}  {check.name:<{column}}  "
            lines += textwrap.wrap(check.finding, _WIDTH, initial_indent=first, subsequent_indent=indent)
            measured = "; ".join(f"{key}: {_shown(value)}" for key, value in check.evidence.items())
            lines += textwrap.wrap(measured, _WIDTH, initial_indent=indent, subsequent_indent=indent)
        lines += textwrap.wrap(f"{name}: {self.verdict}", _WIDTH)
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """What ``doctor.json`` holds under the name of the defense."""
        checks = [{**vars(check), "evidence": dict(check.evidence)} for check in self.checks]
        return {"passed": self.passed, "checks": checks}


def _shown(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
