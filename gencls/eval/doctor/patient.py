"""The defense under examination: its scores, gradients and attacks, with random streams and within a budget."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, check_settings, declared, evaluated, frozen, seeded, select, stream_seed
from gencls.core.images import sample_hashes
from gencls.core.memory import rows_that_fit
from gencls.core.streams.keyed import drawing
from gencls.eval.attacks import Attack
from gencls.eval.attacks.parts.attack_model import AttackModel
from gencls.eval.judgement.gradient_modes import declared_modes
from gencls.eval.judgement.judge import Decisions
from gencls.eval.judgement.runner import Runner
from gencls.eval.judgement.trial import Protocol, Trial
from gencls.eval.measures.records import NO_GRADIENT
from gencls.eval.scores.behaviour import Behaviour
from gencls.eval.scores.forward import backwards, scores_of
from gencls.eval.scores.probe import Probe, observe, observe_batch
from gencls.eval.threats.protocol import Threat

JUDGE_DRAWS = 32

SMOOTHING = (0.1, 0.2)
"""Standard deviations of the noise over which gradients are smoothed, [0, 1] pixel units."""

_SLOW = 0.1
"""A pass that takes this many seconds or more is not repeated for a closer measurement."""


@dataclass(frozen=True)
class Effort:
    """The numbers of images, steps and draws of a diagnosis: they say how closely it looks at a defense.

    Attributes:
        name: the name of this effort in the evidence.
        images: the largest number of images that are attacked.
        probes: the largest number of images whose gradients are examined.
        directions: the number of random directions of the finite differences.
        steps: the number of steps of PGD.
        few_steps: the number of steps of the short PGD, which must not do better.
        far_steps: the number of steps of the unbounded PGD.
        queries: the number of queries of Square, in L0 of SparseRS.
        tries: the number of tries of the noise attack.
        smoothing: the number of noisy images per smoothed gradient.
        all_modes: whether to attack in every gradient mode, and not only in the one that fits the finite differences best.
    """

    name: str
    images: int
    probes: int
    directions: int
    steps: int
    few_steps: int
    far_steps: int
    queries: int
    tries: int
    smoothing: int
    all_modes: bool = True

    def __post_init__(self) -> None:
        check_settings(self)
        numbers = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("name", "all_modes")}
        if min(numbers.values()) < 1:
            raise GenclsError(f"Effort: expected numbers >= 1, got {numbers}")

    def seconds(self, images: int, cost: "Cost", draws: int) -> float:
        """Estimate the most seconds of a diagnosis, with ``draws`` per look: samples that break early leave it sooner."""
        count, probes = min(images, self.images), min(images, self.probes)
        modes = cost.gradient.values() if self.all_modes else [min(cost.gradient.values())]
        gradients = 3 * self.steps + self.few_steps + self.far_steps
        looks = self.queries + self.tries + 8  # 8: the judge's looks
        differences = 8 * (self.directions + len(cost.gradient))  # four step sizes, both sides
        attacks = count * (gradients * sum(modes) + looks * cost.forward)
        smoothed = 2 * len(SMOOTHING) * self.steps * max(self.smoothing, draws)  # 2: as many plain gradients to compare with
        rows = draws * (attacks + probes * (differences * cost.forward + 6 * sum(cost.gradient.values())))
        return rows + count * smoothed * min(cost.gradient.values())


@dataclass(frozen=True)
class Cost:
    """Seconds per row (images x draws) for a forward pass, and for a forward and backward pass in each gradient mode."""

    forward: float
    gradient: Mapping[str, float]


EFFORTS = (
    Effort("full", 100, 20, directions=4, steps=20, few_steps=5, far_steps=40, queries=5000, tries=10, smoothing=8),
    Effort("large", 100, 20, directions=4, steps=20, few_steps=5, far_steps=40, queries=500, tries=10, smoothing=2),
    Effort("medium", 30, 10, directions=3, steps=20, few_steps=5, far_steps=40, queries=150, tries=5, smoothing=2),
    Effort("small", 12, 8, directions=3, steps=10, few_steps=2, far_steps=20, queries=50, tries=5, smoothing=2),
    Effort("least", 6, 4, directions=2, steps=8, few_steps=2, far_steps=10, queries=10, tries=2, smoothing=2, all_modes=False),
)
"""All efforts, from thorough to quick."""


@dataclass(frozen=True)
class Patient:
    """A defense, the samples on which it is examined, and its gradient modes.

    Attributes:
        defense: a module images -> scores (N, K), in eval mode.
        images: the images (N, C, H, W) in [0, 1], on the defense's device.
        labels: the true classes, int64 (N,).
        threat: the norm and epsilon of the attacks.
        protocol: the draws and the seed.
        modes: gradient mode -> the module that is differentiated in it.
        behaviour: the observed behaviour, which says how to ask the defense.
        rows: module -> the number of its rows that fit into memory, measured at first use.
        runners: gradient mode -> the runner of attacks in it, made at first use.
    """

    defense: nn.Module
    images: Tensor
    labels: Tensor
    threat: Threat
    protocol: Protocol
    modes: Mapping[str, nn.Module]
    behaviour: Behaviour = field(default_factory=Behaviour)
    rows: dict[nn.Module, int] = field(default_factory=dict)
    runners: dict[str, Runner] = field(default_factory=dict)

    @classmethod
    def of(cls, defense: nn.Module, images: Tensor, labels: Tensor, threat: Threat, protocol: Protocol) -> "Patient":
        """Make a patient of a defense with the gradient modes that it declares."""
        modes = {name: evaluated(module, defense) for name, module in declared_modes(defense).items()}
        return cls(defense, images, labels, threat, protocol, modes)

    @property
    def stochastic(self) -> bool:
        """Whether the defense declares that its forwards differ."""
        return declared(self.defense, "stochastic")

    @property
    def draws(self) -> int:
        """The number of EoT draws per look."""
        return self.protocol.eot_samples if self.stochastic else 1

    def first(self, count: int) -> "Patient":
        """The same patient with its first samples only."""
        return replace(self, images=self.images[:count], labels=self.labels[:count])

    def only(self, modes: Mapping[str, nn.Module]) -> "Patient":
        """The same patient with these gradient modes only."""
        return replace(self, modes=modes)

    @contextmanager
    def streams(self, role: str) -> Iterator[None]:
        """Let every sample draw from a stream of its own inside the block; the role names the streams."""
        seeds = [stream_seed(self.protocol.seed, sample, "doctor", role) for sample in sample_hashes(self.images, self.labels)]
        with drawing(seeds):
            yield

    def model(self, surrogate: nn.Module, *, common_draws: bool = False, like: nn.Module | None = None) -> AttackModel:
        """The model that an attack would differentiate; with common random numbers every look has the same draws.

        If ``like`` is given, the model takes as much memory as that module.
        """
        rows = self._fitting(surrogate if like is None else like)
        return AttackModel(
            self.behaviour.attacked(surrogate),
            samples=self.draws,
            chunk=min(self.behaviour.draws_per_pass(self.draws), rows),
            max_rows=rows,
            common_draws=common_draws,
            stochastic=self.stochastic,
            shared_draws=self.behaviour.shared_draws,
            classes=self.behaviour.classes,
        )

    @torch.no_grad()
    def scores(self, model: AttackModel, images: Tensor) -> Tensor:
        """Mean scores (N, K) of these images, one image for each sample, computed part by part."""
        parts = []
        for part in self._parts(model):
            with select(part):
                parts.append(model.average(model.per_draw(images[part])))
        return torch.cat(parts)

    def gradient(self, model: AttackModel, images: Tensor, value: Callable[[Tensor, Tensor], Tensor]) -> Tensor | None:
        """Gradients (N, C, H, W) of a value per sample, computed part by part; None if the scores have no gradient.

        ``value`` takes mean scores (M, K) of some samples and the indices (M,) of these samples, and returns (M,).
        """
        parts = []
        for part in self._parts(model):
            with select(part), torch.enable_grad(), frozen(model):
                leaf = images[part].detach().requires_grad_()
                scores = model.average(model.per_draw(leaf))
                found = value(scores, part)
                if not found.requires_grad:
                    return None
                with backwards(model.meter.model):
                    (gradient,) = torch.autograd.grad(found.sum(), leaf, allow_unused=True)
            if gradient is None:
                return None
            parts.append(gradient)
        return torch.cat(parts)

    def cross_entropy(self, model: AttackModel) -> Callable[[Tensor, Tensor], Tensor]:
        """The calibrated cross-entropy that attacks raise, as a value for :meth:`gradient`."""
        return lambda scores, part: model.cross_entropy(scores.unsqueeze(1), self.labels[part])

    def attack(self, attack: Attack, clean: Decisions | None = None) -> dict[str, Trial]:
        """Run and judge an attack: gradient mode -> the judged trial."""
        modes = self.modes if attack.uses_gradients else (NO_GRADIENT,)
        return {mode: self._runner(mode).run(attack, self.images, self.labels, clean=clean) for mode in modes}

    def _runner(self, mode: str) -> Runner:
        if mode not in self.runners:
            probe = Probe(self.defense, self.images, seed=self.protocol.seed, behaviour=self.behaviour)
            self.runners[mode] = Runner(self.defense, mode, self.protocol, probe)
            self.runners[mode].know(self.images, self._fitting(self.modes.get(mode, self.defense)))
        return self.runners[mode]

    def observed(self) -> "Patient":
        """The same patient with its observed behaviour, which says how to ask it from now on.

        Raises:
            GenclsError: :func:`~gencls.eval.scores.probe.observe` raises it.
        """
        handful = observe(self.defense, self.images, seed=self.protocol.seed)
        images = self.images[: self._fitting(self.defense)]
        behaviour = observe_batch(self.defense, images, handful, seed=self.protocol.seed)
        return replace(self, behaviour=behaviour, runners={})

    def _fitting(self, model: nn.Module) -> int:
        if model not in self.rows:
            self.rows[model] = rows_that_fit(partial(scores_of, model), self.images[:1], self.protocol.memory)
        return self.rows[model]

    def _parts(self, model: AttackModel) -> list[Tensor]:
        return list(torch.arange(len(self.images)).split(max(1, (model.max_rows or len(self.images)) // self.draws)))


def affordable(patient: Patient, budget: float) -> tuple[Effort, Cost]:
    """Choose the largest effort within a budget of seconds, or the quickest one, and return it with the measured cost."""
    images = patient.images[:4]

    def timed(ask: Callable[[Tensor], object]) -> float:
        def call(images: Tensor) -> object:
            return ask(images.clone())

        call(images)  # the first call pays once for what it caches
        seconds = _seconds(call, images)
        if seconds > _SLOW:
            return seconds / len(images)
        rows = images.repeat(8, 1, 1, 1)  # quick passes take less time per row in a larger batch
        return min(_seconds(call, rows), _seconds(call, rows)) / len(rows)

    @torch.enable_grad()
    def differentiate(surrogate: nn.Module, images: Tensor) -> None:
        leaf = images.requires_grad_()
        torch.autograd.grad(surrogate(leaf.clone()).sum(), leaf)

    with seeded(0), torch.no_grad(), frozen(patient.defense):
        cost = Cost(timed(patient.defense), {mode: timed(partial(differentiate, each)) for mode, each in patient.modes.items()})
    fits = [effort for effort in EFFORTS if effort.seconds(len(patient.images), cost, patient.draws) <= budget]
    return (fits or EFFORTS[-1:])[0], cost


def _seconds(call: Callable[[Tensor], object], images: Tensor) -> float:
    began = time.perf_counter()
    call(images)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - began
