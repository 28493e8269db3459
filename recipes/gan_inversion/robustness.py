"""Beyond the thesis: the best setting of few steps in every gradient mode, beside other defenses on the same images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from gencls.core import Defense, key_of
from gencls.eval import PGD, Attack, Boundary, Square, ThreatModel, Transfer, diagnose
from recipes.gan_inversion.runs import Run
from recipes.gan_inversion.selection import attacked
from recipes.harness.diagnoses import diagnosis, examinations
from recipes.harness.folders import Kept
from recipes.harness.jobs import Job, StudyJob

__all__ = ["BLACK_BOX", "MODES", "OURS", "Trial", "attack_jobs", "doctor_jobs", "patients", "trials"]

OURS = "GAN inversion"
"""Name of the attacked setting in the tables."""
BLACK_BOX = "black-box"
"""The folder of the attacks that take no gradients of their target."""
MODES = {
    "exact": "exact gradient",
    "warm": "warm inference",
    "frozen": "frozen gradient",
    "unrolled": "unrolled gradient",
    BLACK_BOX: "",
}
"""Folder, which is a gradient mode or :data:`BLACK_BOX` -> what stands behind the attack's name."""

_SOURCE = "CNN"
"""The defense from which adversarials are transferred to the others."""


@dataclass(frozen=True)
class Trial:
    """One study: a defense under the attacks of one gradient mode.

    Attributes:
        model: :data:`OURS`, or the name of a defense beside it.
        mode: key of :data:`MODES`.
    """

    model: str
    mode: str

    @property
    def folder(self) -> str:
        """Folder of the study within the folder of the run."""
        return f"attacks/{self.mode}/{self.model}"

    def defense(self, run: Run) -> Defense:
        """Build the defense. "warm" takes the place of "frozen" where the defense has warm steps."""
        warm = {"warm_steps": run.budget.warm_steps} if self.mode == "warm" else {}
        if self.model == OURS:
            return run.classifier(attacked(run), **warm)
        settings = {**warm, **run.budget.synthesis} if _synthesises(self.model) else {}
        return run.beside(self.model, **settings)

    def attacks(self, run: Run) -> Mapping[str, Attack]:
        """The attacks of the mode, by name with their norm."""
        budget, found = run.budget, dict[str, Attack]()
        for norm, size in (("linf", run.profile.linf), ("l2", run.profile.l2)):
            ball = ThreatModel(norm, size)
            if self.mode == "unrolled":
                found[f"pgd-{norm}"] = PGD(ball, steps=budget.unrolled_steps)
            elif self.mode != BLACK_BOX:
                found[f"pgd-{norm}"] = PGD(ball, steps=budget.pgd, restarts=budget.restarts)
            else:
                found[f"square-{norm}"] = Square(ball, queries=budget.queries)
                if self.model != _SOURCE and _SOURCE in run.profile.beside:
                    strong = PGD(ball, steps=budget.pgd, restarts=budget.restarts, loss="margin", to_the_end=True)
                    found[f"transfer-{norm}"] = Transfer(run.beside(_SOURCE), strong)
        if self.mode == BLACK_BOX:
            found["boundary-l2"] = Boundary(ThreatModel("l2"), queries=budget.boundary)
        return found

    def count(self, run: Run) -> int:
        """Number of attacked images."""
        budget = run.budget
        return {BLACK_BOX: budget.black_box, "unrolled": budget.unrolled}.get(self.mode, budget.attacked)

    def job(self, run: Run) -> StudyJob:
        """Plan the study."""
        return run.job(self.folder, self.model, partial(self.defense, run), self.attacks(run), self.count(run))


def trials(run: Run) -> list[Trial]:
    """All studies; those of one mode follow each other, so that a short run compares all defenses first."""
    models = (OURS, *run.profile.beside)
    return [Trial(model, mode) for mode in MODES for model in models if mode in _modes(model)]


def attack_jobs(run: Run) -> Iterator[Job]:
    """Yield the studies."""
    for trial in trials(run):
        yield trial.job(run)


def patients(run: Run) -> dict[str, Kept]:
    """The doctor's findings on the attacked setting, by its name."""
    inversion = attacked(run)
    defense = run.classifier(inversion)
    source = run.beside(_SOURCE) if _SOURCE in run.profile.beside else None
    kept = diagnosis(
        run,
        inversion.slug,
        defense,
        key_of((defense, diagnose), inversion.slug).whole,
        count=max(run.budget.attacked, 20),
        norm="linf",
        epsilon=run.profile.linf,
        transfer_from=source,
        budget=run.budget.doctor,
    )
    return {inversion.head: kept}


def doctor_jobs(run: Run) -> Iterator[Job]:
    """Yield the examination of the attacked setting."""
    return examinations(patients(run), run.budget.doctor)


def _modes(model: str) -> tuple[str, ...]:
    """The folders of a model: ours meets attacks in every gradient mode."""
    if model == OURS:
        return "warm", "frozen", "unrolled", BLACK_BOX
    return ("warm", "unrolled", BLACK_BOX) if _synthesises(model) else ("exact", BLACK_BOX)


def _synthesises(model: str) -> bool:
    return model in ("ABS", "E-ABS")
