"""The diagnosis that `gencls doctor` leaves in a study's folder, read and checked for the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from gencls.core import GenclsError, checked
from gencls.core.files import atomically, check_seal, read_object, sealed
from gencls.eval.report.study.columns import count

_ADVICE = "; remove it and diagnose again"

Status = Literal["fail", "note", "ok"]  # in the order of the page


@dataclass(frozen=True)
class Check:
    """One check of a diagnosis.

    Args:
        name: What was checked.
        status: "fail" where a number would be meaningless, "note" where it needs care, "ok".
        finding: What was found, in words.
        evidence: Pairs of a name and a measured value, as text.
    """

    name: str
    status: Status
    finding: str
    evidence: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """All checks of one defense, failing ones first.

    Args:
        defense: Its name.
        checks: What was found.
        defense_key: Content key of what was examined; empty where the file does not say it.
    """

    defense: str
    checks: tuple[Check, ...]
    defense_key: str = ""

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return tuple(check.name for check in self.checks if check.status == "fail")


def write_diagnoses(path: Path, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Write `doctor.json`, each diagnosis with the checksum of all of them."""
    checksum = sealed(found)["checksum"]
    text = json.dumps({defense: {**of_it, "checksum": checksum} for defense, of_it in found.items()}, indent=2, allow_nan=False)
    atomically(path, lambda part: part.write_text(text + "\n", "utf-8"))


@checked
def read_diagnoses(path: Path, *, strict: bool = False) -> tuple[Diagnosis, ...]:
    """Read `doctor.json`.

    Args:
        path: JSON of the form `{defense: {"passed": bool, "checks": [{"name": str, "status": "ok" | "note" | "fail",
            "finding": str, "evidence": {str: number or str}}]}}`, as :func:`write_diagnoses` leaves it.
        strict: refuses one without a checksum.

    Returns:
        One diagnosis per defense, in the order of the file.

    Raises:
        GenclsError: The file has another form, says that a defense passed although a check failed, or was changed.
    """
    content = _verified(path, strict=strict)
    return tuple(_diagnosis(defense, found, f"{path}, {defense}") for defense, found in content.items())


def known_diagnoses(path: Path) -> dict[str, dict[str, Any]]:
    """What `doctor.json` holds as :func:`write_diagnoses` took it, to be written again; nothing if there is no such file.

    Raises:
        GenclsError: see :func:`read_diagnoses`, with ``strict``.
    """
    return _verified(path, strict=True) if path.exists() else {}


def _verified(path: Path, *, strict: bool) -> dict[str, dict[str, Any]]:
    """The diagnoses of a file by defense, without their checksums."""
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
    order = get_args(Status)
    made_of = found.get("of", {})
    _require(isinstance(made_of, dict), where, 'an object as "of"', made_of)
    in_order = tuple(sorted(checks, key=lambda check: order.index(check.status)))
    return Diagnosis(defense, in_order, str(made_of.get("defense", "")))


def _check(found: Any, where: str) -> Check:
    keys = ("name", "status", "finding", "evidence")
    _require(isinstance(found, dict) and found.keys() >= set(keys), where, f"the keys {', '.join(keys)}", found)
    for key in ("name", "finding"):
        _require(isinstance(found[key], str), where, f'text as "{key}"', found[key])
    _require(found["status"] in get_args(Status), where, f'"status" to be one of {get_args(Status)}', found["status"])
    evidence = found["evidence"]
    _require(isinstance(evidence, dict), where, 'an object as "evidence"', evidence)
    for key, value in evidence.items():
        _require(isinstance(value, int | float | str), where, f'a number or text as evidence "{key}"', value)
    shown = tuple((key, value if isinstance(value, str) else _measured(value)) for key, value in evidence.items())
    return Check(found["name"], found["status"], found["finding"], shown)


def _measured(value: float) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"  # a cosine of 0.99997 is not 1
    return str(value) if isinstance(value, bool) else count(value)


def _require(condition: bool, where: object, expected: str, got: Any) -> None:
    if not condition:
        raise GenclsError(f"{where}: expected {expected}, got {json.dumps(got)[:80]}")
