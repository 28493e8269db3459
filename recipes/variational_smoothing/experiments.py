"""Chapter 4's experiments as stages. What the sweeps share is computed once."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gencls.core import Defense, key_of, keyed, seeded, stream_seed
from gencls.defenses import RandomizedSmoothing
from gencls.eval import Attack, Study, diagnose
from gencls.eval.attacks.parts.smoothing import SIGMAS
from gencls.eval.study.cost import duration
from recipes.harness import diagnoses
from recipes.harness.folders import measured, read_measured
from recipes.harness.jobs import Job, compute, predict
from recipes.harness.records import slug
from recipes.variational_smoothing.runs import READINGS, Run
from recipes.variational_smoothing.survivors import survivor_jobs

__all__ = [
    "PARTS",
    "Variant",
    "certificates",
    "certified",
    "examined",
    "main_variants",
    "predict_parts",
    "run_parts",
    "sweep_variants",
]

PARTS = ("main", "survivors", "strength", "steps", "readings", "certified", "doctor")


@dataclass(frozen=True)
class Variant:
    """A defense under attack.

    Attributes:
        part: "main", where it meets all attacks, or "sweep", where PGD is enough to compare settings.
        kind: of the base model.
        inference: whether variational smoothing is around it.
        epsilon: size of the attacks.
        reading: of the thesis.
        steps: of the inner optimisation.
    """

    part: str
    kind: str
    inference: bool
    epsilon: float
    reading: str = "Algorithm 5"
    steps: int = 1

    @property
    def key(self) -> str:
        """Its name, unique in its part."""
        if self.part == "main":
            return f"{self.kind}-{'inference' if self.inference else 'base'}"
        if not self.inference:
            return f"{self.kind}-{self.epsilon:.4g}-base"
        return f"{self.kind}-{self.epsilon:.4g}-{slug(self.reading)}-{self.steps}"

    @property
    def folder(self) -> str:
        """Of its study, within that of the run."""
        return f"{self.part}/{self.key}"

    def defense(self, run: Run) -> Defense:
        """What is attacked."""
        if not self.inference:
            return run.base(self.kind)
        return run.inference(self.kind, reading=self.reading, epsilon=self.epsilon, steps=self.steps)

    def study(self, run: Run) -> Study:
        """Its study."""
        defense, budget = self.defense(run), run.budget
        attacks = run.attacks(defense, self.epsilon) if self.part == "main" else run.pgd(self.epsilon)
        rows = run.first(budget.count if self.part == "main" else budget.sweep)
        return run.study(self.folder, self.key, defense, attacks, rows)


def main_variants(run: Run) -> list[Variant]:
    """Tables 4.1 and 4.3: each base model without inference and with it."""
    return [Variant("main", kind, inference, run.profile.size(kind)) for kind in run.bases for inference in (False, True)]


def sweep_variants(run: Run, part: str) -> list[Variant]:
    """Table 4.2 ("strength"), steps of the inner optimisation, or readings of the thesis, around one base model."""
    kind, usual = run.swept, run.profile.size(run.swept)
    if part == "strength":
        sizes = [times * usual for times in run.profile.strengths]
        return [Variant("sweep", kind, inference, size) for size in sizes for inference in (False, True)]
    if part == "steps":
        return [Variant("sweep", kind, True, usual, steps=steps) for steps in run.budget.steps]
    return [Variant("sweep", kind, True, usual, reading) for reading in READINGS]


def predict_parts(run: Run, parts: Sequence[str]) -> None:
    """Print what is left of some parts and how long it takes at most.

    Which images survive is known once the part "main" is finished; until then all of them may.

    Args:
        run: whose folder may be written to, see :func:`gencls.eval.study.cost.shadow`.
        parts: of :data:`PARTS`.
    """
    total = 0.0
    for part in (part for part in PARTS if part in parts):
        print(f"{part}:", flush=True)
        if part == "doctor":
            left = [variant for variant in main_variants(run) if examined(run, variant) is None]
            seconds = run.budget.doctor * len(left)
            print(f"  {duration(seconds)} at most for {len(left)} diagnoses", flush=True)
        else:
            seconds = sum(sum(cells.values()) for cells in predict(_jobs_of(run, part, unknown=True)).values())
        if part == "certified" and certified(run) is None:
            certifying = run.budget.certified * run.budget.noises * _seconds_per_row(run)
            print(f"  {duration(certifying)} at most for certificates", flush=True)
            seconds += certifying
        total += seconds
    print(f"predicted: {duration(total)} at most for all parts", flush=True)


def _seconds_per_row(run: Run) -> float:
    """Of the classifier that is certified."""
    smoothed, images = run.smoothed(), run.data.images[:1].to(run.device)
    with torch.no_grad(), seeded(run.seed):
        smoothed.certify(images, n0=100, n=100)  # warm-up
        began = time.perf_counter()
        smoothed.certify(images, n0=100, n=400)
    return (time.perf_counter() - began) / 500


def run_parts(run: Run, parts: Sequence[str]) -> None:
    """Compute what is missing of some parts, in their order."""
    for part in (part for part in PARTS if part in parts):
        print(f"{part}:", flush=True)
        if part == "doctor":
            for variant in main_variants(run) if run.budget.doctor else ():
                print(f"  {variant.key}: {_examine(run, variant)['verdict']}", flush=True)
            continue
        if part == "certified":
            certificates(run)
        jobs = _jobs_of(run, part)
        compute(jobs, predict(jobs))


def _jobs_of(run: Run, part: str, *, unknown: bool = False) -> list[Job]:
    """The studies of a part; with ``unknown`` of all images that may survive, while it is not known which do."""
    if part == "certified":
        attacks = {"certified": {"ddn": run.minimal()}, "smoothed": {"ddn-smoothed": run.minimal(smoothing=SIGMAS)}}
        return [Job(folder, partial(_certified_study, run, attacks=attacks[folder])) for folder in attacks]
    if part == "survivors":
        return list(survivor_jobs(run, unknown=unknown))
    variants = main_variants(run) if part == "main" else sweep_variants(run, part)
    return [Job(variant.folder, lambda folder, variant=variant: variant.study(run)) for variant in variants]  # type: ignore[misc]


def _certified_study(run: Run, folder: str, *, attacks: Mapping[str, Attack]) -> Study:
    return run.study(folder, "smoothed", run.smoothed(), attacks, run.first(run.budget.certified))


def certificates(run: Run) -> None:
    """Compute labels (-1: abstained) and radii of randomized smoothing, and the seconds, if they are missing."""
    smoothed, images = run.smoothed(), run.data.images[: run.budget.certified].to(run.device)
    settings = {"noises": run.budget.noises, "seed": run.seed}
    key = key_of((_certified, images, *settings.items()), "certificates").whole
    measured(_certificates_path(run), key, lambda: _certified(smoothed, images, **settings))


def _certified(smoothed: RandomizedSmoothing, images: Tensor, *, noises: int, seed: int) -> dict[str, Any]:
    began = time.perf_counter()
    streams = [stream_seed(seed, "certificate", number) for number in range(len(images))]
    with torch.no_grad(), keyed(streams):
        found = smoothed.certify(images, n=noises, chunk=400 if images.device.type == "cpu" else 4000)
    return {"labels": found.labels.tolist(), "radii": found.radii.tolist(), "seconds": round(time.perf_counter() - began, 1)}


def certified(run: Run) -> dict[str, Any] | None:
    """What :func:`certificates` has found, or None while it has not been asked."""
    return read_measured(path) if (path := _certificates_path(run)).is_file() else None


def _certificates_path(run: Run) -> Path:
    """The name knows the weights; the file knows the images and the code."""
    name = f"{key_of(run.smoothed(), 'smoothed').whole}-{run.budget.certified}-{run.budget.noises}.json"
    return run.out / "certificates" / name


def _examine(run: Run, variant: Variant) -> dict[str, Any]:
    count = max(run.budget.sweep, 20)
    return diagnoses.examine(
        _doctor_path(run, variant),
        variant.key,
        variant.defense(run),
        run.data.images[:count].to(run.device),
        run.data.labels[:count].to(run.device),
        epsilon=variant.epsilon,
        norm="linf",
        transfer_from=run.base(variant.kind) if variant.inference else None,
        eot_samples=run.budget.eot,
        seed=run.seed,
        budget=run.budget.doctor,
    )


def examined(run: Run, variant: Variant) -> dict[str, Any] | None:
    """What the doctor says of a defense, or None while it has not been asked."""
    return read_measured(path) if (path := _doctor_path(run, variant)).is_file() else None


def _doctor_path(run: Run, variant: Variant) -> Path:
    return run.out / "doctor" / f"{variant.key}-{key_of((variant.defense(run), diagnose), variant.key).whole}.json"
