"""Alphas of MLVGM purification learned by Bayesian optimisation (Serez et al., WACV 2025, sections 3 and 4)."""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from gencls.core import GenclsError, checked, seeded, stream_seed
from gencls.defenses.purification.alpha_trials import AlphaTrial, read_trials, write_trials
from gencls.defenses.purification.mlvgm import Schedule, alpha_schedule

__all__ = ["AlphaSearch", "AlphaTrial", "learn_alphas"]

Acquisition = Literal["log-ei", "ei"]
Variance = Callable[[float], float]

_SAME = 1e-3
"""Two points within this distance count as one."""


@dataclass(frozen=True)
class AlphaSearch:
    """The measurements so far; its text is a line of progress.

    Attributes:
        trials: the measurements, in their order.
        total: number of measurements of the whole search.
        chosen: index of the best trial, which has the highest value. In the result of a search with ``variance`` it has the
            highest mean of the process instead, because a value may be a lucky draw. Progress shows the highest value.
    """

    trials: tuple[AlphaTrial, ...]
    total: int
    chosen: int

    @property
    def best(self) -> AlphaTrial:
        """The best trial. Its value is the luckiest of many, so measure it again with other draws."""
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


@checked
def learn_alphas(
    objective: Callable[[Tensor], float],
    num_levels: int,
    *,
    steps: int = 95,
    starts: Sequence[Sequence[float]] | None = None,
    acquisition: Acquisition = "log-ei",
    variance: Variance | None = None,
    warm: bool = False,
    restarts: int = 8,
    raw_samples: int = 32,
    seed: int = 0,
    path: str | Path | None = None,
    key: str = "",
    report: Callable[[AlphaSearch], object] | None = None,
) -> AlphaSearch:
    """Look for the alphas that maximise an objective, such as :class:`gencls.defenses.PurifiedAccuracy`.

    The search has five fixed starting points, then 95 steps. A step fits a Gaussian process to all measurements, and measures
    next where the expected improvement over the best so far is largest.

    The Gaussian process is botorch's ``SingleTaskGP`` in float64 on the CPU, with its priors and standardised values. (The
    public code of 2024 had other default priors, and did not standardise.) With the same objective, seed and settings the
    sequence is the same, interrupted or not.

    Args:
        objective: function of alphas (N,), float64 in [0, 1], that returns a finite number.
        num_levels: N, number of latent levels, >= 1.
        steps: measurements after the starting points.
        starts: starting points; None takes the paper's: linear, cosine, 1/2, 1 - linear, 1 - cosine.
        acquisition: "ei" is the paper's expected improvement. "log-ei" is its logarithm, with the same maximum, and a gradient
            even where expected improvement is flat (Ament et al. 2023, arXiv:2310.20708). Its choices were better in our
            measurements.
        variance: function of a value that returns the variance of its measurement, p (1 - p) / n for an accuracy over n images
            (``PurifiedAccuracy.variance``). The process then does not guess the noise, and improvement counts from its highest
            mean. None fits one noise level, as the public code does.
        warm: start each fit from the last one's hyperparameters; by default each fit is from scratch.
        restarts: number of starts of each maximisation of the acquisition function.
        raw_samples: number of random points from which these starts are chosen.
        seed: seed of these random points.
        path: JSON file of the search. Its measurements are not made again. It is written as a whole after each measurement.
        key: text that identifies the objective, such as ``PurifiedAccuracy.key()``; a file with another key is an error.
        report: called with the search after each measurement, for instance ``print``.

    Raises:
        GenclsError: for settings out of range, a value that is not finite, or a file of something else or of other settings.
    """
    numbers = {"num_levels": num_levels, "steps + 1": steps + 1, "restarts": restarts, "raw_samples": raw_samples}
    if min(numbers.values()) < 1:
        raise GenclsError(f"learn_alphas: expected numbers >= 1, got {numbers}")
    first = [alpha_schedule(name, num_levels) for name in get_args(Schedule)]  # the paper's
    if starts is not None:
        first = [tuple(start) for start in starts]
    if not first or any(len(start) != num_levels or not all(0 <= alpha <= 1 for alpha in start) for start in first):
        raise GenclsError(f"learn_alphas: expected starts of {num_levels} numbers in [0, 1], got {first}")
    settings = {
        "num_levels": num_levels,
        "starts": [list(start) for start in first],
        "acquisition": acquisition,
        "noise": "fitted" if variance is None else "known",
        "variance": None if variance is None else [float(variance(value)) for value in (0.0, 0.5, 1.0)],
        "warm": warm,
        "restarts": restarts,
        "raw_samples": raw_samples,
        "seed": seed,
        "objective": key,
    }
    total = len(first) + steps
    trials, fitted = read_trials(Path(path), settings) if path is not None and Path(path).exists() else ([], None)
    trials = trials[:total]
    process = _Process(acquisition, variance, restarts, raw_samples, seed, fitted if warm else None, warm)
    for number in range(len(trials), total):
        began = time.perf_counter()
        start = number < len(first)
        alphas = first[number] if start else process.propose(trials)
        chosen_at = time.perf_counter()
        value = float(objective(torch.tensor(alphas, dtype=torch.float64)))
        if not math.isfinite(value):
            raise GenclsError(f"learn_alphas: expected a finite value of the objective, got {value} at {list(alphas)}")
        spent = 0.0 if start else chosen_at - began
        trials.append(AlphaTrial(alphas, value, time.perf_counter() - chosen_at, spent))
        if path is not None:
            write_trials(Path(path), settings, trials, process.fitted)
        if report is not None:
            report(AlphaSearch(tuple(trials), total, _highest(trials)))
    return AlphaSearch(tuple(trials), total, _highest(trials) if variance is None else process.best(trials))


def _highest(trials: Sequence[AlphaTrial]) -> int:
    return max(range(len(trials)), key=lambda index: trials[index].value)


@dataclass
class _Process:
    """The Gaussian process, which proposes the next measurement."""

    acquisition: Acquisition
    variance: Variance | None
    restarts: int
    raw_samples: int
    seed: int
    fitted: dict[str, Any] | None
    warm: bool

    def propose(self, trials: Sequence[AlphaTrial]) -> tuple[float, ...]:
        """The alphas with the largest expected improvement."""
        with _step(self.seed, len(trials)):
            from botorch.acquisition.analytic import ExpectedImprovement, LogExpectedImprovement
            from botorch.optim.optimize import optimize_acqf

            model, points, values = self._fit(trials)
            best = values.max() if self.variance is None else self._means(model, points).max()
            improvement = LogExpectedImprovement if self.acquisition == "log-ei" else ExpectedImprovement
            bounds = torch.stack([torch.zeros_like(points[0]), torch.ones_like(points[0])])
            acquisition = improvement(model, best_f=best)
            found, _ = optimize_acqf(
                acquisition, bounds, q=1, num_restarts=self.restarts, raw_samples=self.raw_samples, return_best_only=False
            )
            with torch.no_grad():
                found = found.squeeze(1).clamp(0, 1)
                # A maximum in a corner stays there after its measurement. With common random numbers a second measurement
                # would give the same value.
                fresh = torch.cdist(found, points).amin(1) > _SAME
                if not fresh.any():
                    found = self._around(found[acquisition(found.unsqueeze(1)).argmax()])
                    fresh = torch.cdist(found, points).amin(1) > _SAME
                chosen = acquisition(found.unsqueeze(1)).where(fresh, -math.inf).argmax()
        return tuple(found[chosen].tolist())

    def _around(self, point: Tensor) -> Tensor:
        """Points that differ from one in a coordinate or a few, drawn anew."""
        count = len(point)
        drawn = torch.rand(self.raw_samples, count, dtype=point.dtype)
        anew = torch.rand_like(drawn) < 1 / count
        anew |= torch.arange(self.raw_samples).unsqueeze(1) % count == torch.arange(count)
        return torch.where(anew, drawn, point)

    def best(self, trials: Sequence[AlphaTrial]) -> int:
        """Index of the trial with the highest mean of the process."""
        with _step(self.seed, len(trials)):
            model, points, _ = self._fit(trials)
            return int(self._means(model, points).argmax())

    def _fit(self, trials: Sequence[AlphaTrial]) -> tuple[Any, Tensor, Tensor]:
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from botorch.models.transforms.outcome import Standardize
        from gpytorch.mlls import ExactMarginalLogLikelihood

        points = torch.tensor([trial.alphas for trial in trials], dtype=torch.float64)
        values = torch.tensor([[trial.value] for trial in trials], dtype=torch.float64)
        known = None if self.variance is None else values.clone().apply_(self.variance)
        model = SingleTaskGP(points, values, known, outcome_transform=Standardize(m=1))
        if self.fitted is not None:
            model.load_state_dict({name: torch.tensor(v, dtype=torch.float64) for name, v in self.fitted.items()}, strict=False)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        if self.warm:
            self.fitted = {name: parameter.tolist() for name, parameter in model.named_parameters()}
        return model, points, values

    @staticmethod
    @torch.no_grad()
    def _means(model: Any, points: Tensor) -> Tensor:
        means: Tensor = model.posterior(points).mean
        return means


@contextmanager
def _step(seed: int, number: int) -> Iterator[None]:
    """The random stream of a step, without botorch's remarks on fits and on flat acquisition functions."""
    with warnings.catch_warnings(), seeded(stream_seed(seed, "alphas", number)):
        warnings.simplefilter("ignore", FutureWarning)  # botorch's dependencies use functions that torch calls deprecated
        from botorch.exceptions.warnings import BotorchWarning

        warnings.simplefilter("ignore", BotorchWarning)
        yield
