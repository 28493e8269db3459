"""Chapter 4's experiments as parts. Parts that share a study compute it once."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gencls.core import Defense, key_of, keyed, seeded, stream_seed
from gencls.defenses import RandomizedSmoothing
from gencls.eval import Attack, diagnose
from gencls.eval.attacks.parts.smoothing import SIGMAS
from recipes.harness.diagnoses import diagnosis, examinations
from recipes.harness.folders import Kept
from recipes.harness.jobs import Job, Measurement, StudyJob
from recipes.harness.records import slug
from recipes.variational_smoothing.runs import READINGS, Run
from recipes.variational_smoothing.survivors import survivor_jobs


@dataclass(frozen=True)
class Variant:
    """A defense under attack.

    Attributes:
        part: "main", where it meets all attacks, or "sweep", where PGD is enough to compare settings.
        kind: key of the base model in :data:`~recipes.variational_smoothing.settings.BASES`.
        inference: whether variational smoothing is around the base model.
        epsilon: Linf size of the attacks, in [0, 1] pixel units.
        reading: reading of the thesis, a key of :data:`~recipes.variational_smoothing.runs.READINGS`.
        steps: steps of the inner optimisation.
    """

    part: str
    kind: str
    inference: bool
    epsilon: float
    reading: str = "Algorithm 5"
    steps: int = 1

    @property
    def key(self) -> str:
        """Name of the variant, unique in its part."""
        if self.part == "main":
            return f"{self.kind}-{'inference' if self.inference else 'base'}"
        if not self.inference:
            return f"{self.kind}-{self.epsilon:.4g}-base"
        return f"{self.kind}-{self.epsilon:.4g}-{slug(self.reading)}-{self.steps}"

    @property
    def folder(self) -> str:
        """Folder of the variant's study within the folder of the run."""
        return f"{self.part}/{self.key}"

    def defense(self, run: Run) -> Defense:
        """Build the defense."""
        if not self.inference:
            return run.base(self.kind)
        return run.inference(self.kind, reading=self.reading, epsilon=self.epsilon, steps=self.steps)

    def job(self, run: Run) -> StudyJob:
        """Plan the variant's study."""
        main = self.part == "main"
        attacks = partial(run.attacks, epsilon=self.epsilon) if main else run.pgd(self.epsilon)
        return run.job(
            self.folder, self.key, partial(self.defense, run), attacks, run.budget.count if main else run.budget.sweep
        )

    def diagnosis(self, run: Run) -> Kept:
        """The doctor's findings on the defense."""
        defense = self.defense(run)
        return diagnosis(
            run,
            self.key,
            defense,
            key_of((defense, diagnose), self.key).whole,
            count=max(run.budget.sweep, 20),
            norm="linf",
            epsilon=self.epsilon,
            transfer_from=run.base(self.kind) if self.inference else None,
            budget=run.budget.doctor,
        )


def main_variants(run: Run) -> list[Variant]:
    """The variants of Tables 4.1 and 4.3: each base model without inference and with it."""
    return [Variant("main", kind, inference, run.profile.size(kind)) for kind in run.bases for inference in (False, True)]


def sweep_variants(run: Run, part: str) -> list[Variant]:
    """The variants of Table 4.2 ("strength"), of "steps" or of "readings", around one base model."""
    kind, usual = run.swept, run.profile.size(run.swept)
    if part == "strength":
        sizes = [times * usual for times in run.profile.strengths]
        return [Variant("sweep", kind, inference, size) for size in sizes for inference in (False, True)]
    if part == "steps":
        return [Variant("sweep", kind, True, usual, steps=steps) for steps in run.budget.steps]
    return [Variant("sweep", kind, True, usual, reading) for reading in READINGS]


def certification(run: Run) -> list[Job]:
    """Randomized smoothing: its certificates, and the attacks beside them."""
    attacks: Mapping[str, Mapping[str, Attack]] = {
        "certified": {"ddn": run.minimal()},
        "smoothed": {"ddn-smoothed": run.minimal(smoothing=SIGMAS)},
    }
    studies = [run.job(folder, "smoothed", run.smoothed, those, run.budget.certified) for folder, those in attacks.items()]
    rows = run.budget.certified * run.budget.noises
    made = Measurement.of("certificates", certificates(run), lambda: rows * _seconds_per_row(run), lambda found: None)
    return [made, *studies]


def diagnoses(run: Run) -> dict[str, Kept]:
    """The doctor's findings on the defenses of Tables 4.1 and 4.3."""
    return {variant.key: variant.diagnosis(run) for variant in main_variants(run)}


PARTS: Mapping[str, Callable[[Run], Iterable[Job]]] = {
    "main": lambda run: [variant.job(run) for variant in main_variants(run)],
    "survivors": survivor_jobs,
    "strength": lambda run: [variant.job(run) for variant in sweep_variants(run, "strength")],
    "steps": lambda run: [variant.job(run) for variant in sweep_variants(run, "steps")],
    "readings": lambda run: [variant.job(run) for variant in sweep_variants(run, "readings")],
    "certified": certification,
    "doctor": lambda run: examinations(diagnoses(run), run.budget.doctor),
}


def certificates(run: Run) -> Kept:
    """Certify with randomized smoothing: labels (-1: abstained), radii, and the seconds that it took.

    The file's name has the key of the weights. The key in the file covers the images and the code.
    """
    smoothed, images = run.smoothed(), run.images(run.budget.certified)
    settings = {"noises": run.budget.noises, "seed": run.seed}
    name = f"{key_of(smoothed, 'smoothed').whole}-{run.budget.certified}-{run.budget.noises}.json"
    return Kept(
        run.out / "certificates" / name,
        lambda: key_of((_certified, images, *settings.items()), "certificates").whole,
        lambda: _certified(smoothed, images, **settings),
    )


def _certified(smoothed: RandomizedSmoothing, images: Tensor, *, noises: int, seed: int) -> dict[str, Any]:
    began = time.perf_counter()
    streams = [stream_seed(seed, "certificate", number) for number in range(len(images))]
    with torch.no_grad(), keyed(streams):
        found = smoothed.certify(images, n=noises, chunk=400 if images.device.type == "cpu" else 4000)
    return {"labels": found.labels.tolist(), "radii": found.radii.tolist(), "seconds": round(time.perf_counter() - began, 1)}


def _seconds_per_row(run: Run) -> float:
    """Measure the seconds that the classifier under randomized smoothing takes for one noisy image."""
    smoothed, images = run.smoothed(), run.images(1)
    with torch.no_grad(), seeded(run.seed):
        smoothed.certify(images, n0=100, n=100)  # warm-up
        began = time.perf_counter()
        smoothed.certify(images, n0=100, n=400)
    return (time.perf_counter() - began) / 500
