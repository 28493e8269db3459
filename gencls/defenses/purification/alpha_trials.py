"""The measurements of a search for alphas, and their file."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gencls.core import GenclsError
from gencls.core.files import atomically, check_seal, sealed

__all__ = ["AlphaTrial", "read_trials", "write_trials"]

_FORMAT = 2  # 1: points were measured again and again


@dataclass(frozen=True)
class AlphaTrial:
    """One measurement.

    Attributes:
        alphas: in [0, 1], before any ``highest``.
        value: the objective at these alphas.
        objective_seconds: wall time of the objective, in seconds.
        optimiser_seconds: wall time of choosing these alphas, in seconds; 0 for starting points.
    """

    alphas: tuple[float, ...]
    value: float
    objective_seconds: float
    optimiser_seconds: float


def read_trials(path: Path, settings: Mapping[str, Any]) -> tuple[list[AlphaTrial], dict[str, Any] | None]:
    """Read an earlier search with these settings: its trials, and the hyperparameters of its last Gaussian process."""
    try:
        content = json.loads(path.read_text())
        known = content["format"] == _FORMAT
        found, fitted, trials = _parts(content) if known else ({}, None, [])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GenclsError(f"{path}: expected the file of a search for alphas, got something else: {error!r}") from None
    if not known:
        raise GenclsError(
            f"{path}: expected a search for alphas of format {_FORMAT}, got {content['format']!r}, of another version; delete "
            "the file or take another path"
        )
    if "checksum" in content:  # older searches have none
        check_seal(content, path, "; delete the file or take another path")
    different = [name for name, value in settings.items() if found.get(name) != value]
    if different:
        name = different[0]
        raise GenclsError(
            f"{path}: expected a search with {name} = {settings[name]!r}, got one with {found.get(name)!r}; "
            f"take another file, or the settings of this one"
        )
    return trials, fitted


def _parts(content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None, list[AlphaTrial]]:
    """Settings, hyperparameters and trials, or a KeyError, TypeError or ValueError."""
    found = dict(content["settings"])
    trials = [AlphaTrial(**{**trial, "alphas": tuple(trial["alphas"])}) for trial in content["trials"]]
    for trial in trials:
        inside = all(0 <= alpha <= 1 for alpha in trial.alphas)
        if len(trial.alphas) != found["num_levels"] or not inside or not math.isfinite(trial.value):
            raise ValueError(f"a trial of {found['num_levels']} alphas in [0, 1] and a finite value was expected: {trial}")
    return found, content["fitted"], trials


def write_trials(
    path: Path, settings: Mapping[str, Any], trials: Sequence[AlphaTrial], fitted: Mapping[str, Any] | None
) -> None:
    """Write what :func:`read_trials` reads."""
    content = {"format": _FORMAT, "settings": settings, "trials": [asdict(trial) for trial in trials], "fitted": fitted}
    path.parent.mkdir(parents=True, exist_ok=True)
    atomically(path, json.dumps(sealed(content), indent=1, allow_nan=False).encode())
