"""A search for alphas: its trials, and the file that holds them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gencls.core import GenclsError
from gencls.core.files import atomically, check_seal, sealed

__all__ = ["AlphaSearch", "AlphaTrial", "read_search", "write_search"]

_FORMAT = 2  # 1: points were measured again and again


@dataclass(frozen=True)
class AlphaTrial:
    """One measurement.

    Attributes:
        alphas: in [0, 1], before any ``highest``.
        value: of the objective.
        objective_seconds: wall time of the objective.
        optimiser_seconds: wall time of choosing these alphas; 0 for starting points.
    """

    alphas: tuple[float, ...]
    value: float
    objective_seconds: float
    optimiser_seconds: float


@dataclass(frozen=True)
class AlphaSearch:
    """The measurements so far; its text is a line of progress.

    Attributes:
        trials: in the order in which they were made.
        total: how many there will be.
        chosen: index of the best trial: the highest value, or in the result of a noise-aware search the highest mean of the
            process, which does not fall for a lucky draw. Progress shows the highest value.
    """

    trials: tuple[AlphaTrial, ...]
    total: int
    chosen: int

    @property
    def best(self) -> AlphaTrial:
        """The best trial. Its value is optimistic, being the luckiest of many; measure it again with other draws."""
        return self.trials[self.chosen]

    @property
    def optimiser_share(self) -> float:
        """Fraction of the wall time that went into choosing where to measure."""
        own = sum(trial.optimiser_seconds for trial in self.trials)
        return own / max(own + sum(trial.objective_seconds for trial in self.trials), 1e-9)

    def __str__(self) -> str:
        last = self.trials[-1]
        recent = [trial.objective_seconds + trial.optimiser_seconds for trial in self.trials[-5:]]
        left = (self.total - len(self.trials)) * sum(recent) / len(recent)
        return (
            f"{len(self.trials)} of {self.total}: {last.value:.4f}; best {self.best.value:.4f} (number {self.chosen + 1}); "
            f"optimiser {100 * self.optimiser_share:.1f} % of the time; about {left:.0f} s left"
        )


def read_search(path: Path, settings: Mapping[str, Any]) -> tuple[list[AlphaTrial], dict[str, Any] | None]:
    """The trials in a file and the process's hyperparameters, or None, if it is a search with these settings.

    Raises:
        GenclsError: for a file of something else, of another version or of other settings, or a damaged one.
    """
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


def write_search(
    path: Path, settings: Mapping[str, Any], trials: Sequence[AlphaTrial], fitted: Mapping[str, Any] | None
) -> None:
    """Write all of it, or nothing."""
    content = {"format": _FORMAT, "settings": settings, "trials": [asdict(trial) for trial in trials], "fitted": fitted}
    path.parent.mkdir(parents=True, exist_ok=True)
    atomically(path, json.dumps(sealed(content), indent=1, allow_nan=False).encode())
