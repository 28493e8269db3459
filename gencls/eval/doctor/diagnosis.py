"""Checks and the conclusion from them: for people, and for the file ``doctor.json``.

``doctor.json`` holds ``{defense: {"passed": bool, "checks": [{"name": str, "status": "ok" | "note" | "fail", "finding": str,
"evidence": {str: number or str}}]}}``. A diagnosis may hold more: ``of`` says what it belongs to, and ``checksum`` covers all
of it.
"""

import json
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from gencls.core import GenclsError, checked
from gencls.core.files import atomically, check_seal, read_object, sealed

Evidence = dict[str, float | str]
"""Measured values, by name."""

Status = Literal["ok", "note", "fail"]
"""From good to bad: "ok"; "note" if a number needs care; "fail" if it would be meaningless."""

_WIDTH = 118

_ADVICE = "; remove it and diagnose again"


@dataclass(frozen=True)
class Check:
    """One check of a diagnosis.

    Attributes:
        name: the name of the check.
        status: see :data:`Status`.
        finding: the result, in one sentence.
        evidence: the measured values by name, finite numbers or text.
    """

    name: str
    status: Status
    finding: str
    evidence: Mapping[str, float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise GenclsError(f"{self.name}: expected a status among {', '.join(get_args(Status))}, got {self.status!r}")
        unfit = [key for key, value in self.evidence.items() if isinstance(value, float) and not math.isfinite(value)]
        if unfit:  # JSON has no word for such numbers
            raise GenclsError(f"{self.name}: expected finite evidence, got NaN or infinity for {', '.join(unfit)}")


@dataclass(frozen=True)
class Diagnosis:
    """All checks of one defense, in the order in which they were made.

    Attributes:
        checks: the checks with their results.
        defense: the defense's name, if the diagnosis was read from a file.
        defense_key: the content key of the examined defense; empty if the file does not say it.
    """

    checks: tuple[Check, ...]
    defense: str = ""
    defense_key: str = ""

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return self.named("fail")

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    def named(self, status: Status) -> tuple[str, ...]:
        """Names of the checks with this status."""
        return tuple(check.name for check in self.checks if check.status == status)

    @property
    def conclusion(self) -> str:
        """The conclusion in one sentence."""
        notes = self.named("note")
        if not self.passed:
            return f"a robustness number would be meaningless; failed: {', '.join(self.failed)}"
        care = f"; mind the notes: {', '.join(notes)}" if notes else ""
        return f"nothing found that makes a robustness number meaningless ({len(self.checks)} checks){care}"

    def text(self, name: str = "defense") -> str:
        """The checks with their evidence and the conclusion, for a terminal."""
        column = max(len(check.name) for check in self.checks) if self.checks else 0
        indent = " " * (column + 8)
        lines = []
        for check in self.checks:
            first = f"{check.status:<4}  {check.name:<{column}}  "
            lines += textwrap.wrap(check.finding, _WIDTH, initial_indent=first, subsequent_indent=indent)
            measured = "; ".join(f"{key}: {_shown(value)}" for key, value in check.evidence.items())
            lines += textwrap.wrap(measured, _WIDTH, initial_indent=indent, subsequent_indent=indent)
        lines += textwrap.wrap(f"{name}: {self.conclusion}", _WIDTH)
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The entry of ``doctor.json`` under the name of the defense."""
        checks = [{**vars(check), "evidence": dict(check.evidence)} for check in self.checks]
        return {"passed": self.passed, "checks": checks}


def _shown(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_diagnoses(path: Path, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Write `doctor.json`; each diagnosis carries a checksum of itself."""
    checksum = sealed(found)["checksum"]
    text = json.dumps({defense: {**of_it, "checksum": checksum} for defense, of_it in found.items()}, indent=2, allow_nan=False)
    atomically(path, f"{text}\n".encode())


@checked
def read_diagnoses(path: Path, *, strict: bool = False) -> tuple[Diagnosis, ...]:
    """Read `doctor.json`.

    Args:
        path: the path of the file that :func:`write_diagnoses` wrote.
        strict: whether to refuse a diagnosis without a checksum.

    Returns:
        One diagnosis per defense, in the order of the file.

    Raises:
        GenclsError: the file has another form, says that a defense passed although a check failed, or was changed.
    """
    content = _verified(path, strict=strict)
    return tuple(_diagnosis(defense, found, f"{path}, {defense}") for defense, found in content.items())


def known_diagnoses(path: Path) -> dict[str, dict[str, Any]]:
    """The content of `doctor.json` in the form that :func:`write_diagnoses` takes; empty if there is no such file.

    Raises:
        GenclsError: :func:`read_diagnoses` raises it, with ``strict``.
    """
    return _verified(path, strict=True) if path.exists() else {}


def _verified(path: Path, *, strict: bool) -> dict[str, dict[str, Any]]:
    """Read the diagnoses of a file by defense, without their checksums."""
    content = read_object(path, "a diagnosis", _ADVICE)
    bare, sums = dict[str, Any](), set[Any]()
    for defense, found in content.items():
        _require(isinstance(found, dict), f"{path}, {defense}", 'the keys "passed", "checks"', found)
        bare[defense] = {key: value for key, value in found.items() if key != "checksum"}
        sums.add(found.get("checksum"))
    if strict or sums - {None}:
        check_seal({**bare, "checksum": " ".join(map(str, sums))}, path, _ADVICE)
    return bare


def _diagnosis(defense: str, found: Any, where: str) -> Diagnosis:
    _require(isinstance(found, dict) and found.keys() >= {"passed", "checks"}, where, 'the keys "passed", "checks"', found)
    _require(isinstance(found["passed"], bool), where, 'a bool as "passed"', found["passed"])
    _require(isinstance(found["checks"], list), where, 'a list as "checks"', found["checks"])
    checks = [_check(check, f"{where}, check {i}") for i, check in enumerate(found["checks"], start=1)]
    failed = [check.name for check in checks if check.status == "fail"]
    _require(found["passed"] == (not failed), where, f'"passed" to be {str(not failed).lower()}', found["passed"])
    made_of = found.get("of", {})
    _require(isinstance(made_of, dict), where, 'an object as "of"', made_of)
    return Diagnosis(tuple(checks), defense, str(made_of.get("defense", "")))


def _check(found: Any, where: str) -> Check:
    keys = ("name", "status", "finding", "evidence")
    _require(isinstance(found, dict) and found.keys() >= set(keys), where, f"the keys {', '.join(keys)}", found)
    for key in ("name", "finding"):
        _require(isinstance(found[key], str), where, f'text as "{key}"', found[key])
    known = get_args(Status)[::-1]
    _require(found["status"] in known, where, f'"status" to be one of {known}', found["status"])
    evidence = found["evidence"]
    _require(isinstance(evidence, dict), where, 'an object as "evidence"', evidence)
    for key, value in evidence.items():
        fits = isinstance(value, int | str) or (isinstance(value, float) and math.isfinite(value))
        _require(fits, where, f'a number or text as evidence "{key}"', value)
    return Check(found["name"], found["status"], found["finding"], evidence)


def _require(condition: bool, where: object, expected: str, got: Any) -> None:
    if not condition:
        raise GenclsError(f"{where}: expected {expected}, got {json.dumps(got)[:80]}")
