"""The chapter's experiments as jobs: which defenses meet which attacks, for every table and figure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gencls.core import BayesClassifier, Defense, key_of
from gencls.defenses import compare_to_bound
from gencls.defenses.synthesis import bounds as robustness_bound
from gencls.eval import PGD, Attack, Study, ThreatModel, closest_distances, read_records, thesis_attacks
from recipes.eabs.printed import MODELS
from recipes.eabs.runs import PartialStudy, Run
from recipes.eabs.tables import BLACK_BOX, MINIMAL, PARTS, SMOOTHED
from recipes.harness.folders import measured
from recipes.harness.jobs import Job

__all__ = ["ABLATION", "BOUNDED", "TABLES"]

# Table 2.6: whose weights and which inference; extensions A and D are a matter of training, V of inference.
ABLATION: Mapping[str, tuple[str, bool]] = {
    "ABS": ("abs", False),
    "A-ABS": ("a-abs", False),
    "D-ABS": ("d-abs", False),
    "V-ABS": ("abs", True),
    "AD-ABS": ("eabs", False),
    "AV-ABS": ("a-abs", True),
    "DV-ABS": ("d-abs", True),
    "ADV-ABS": ("eabs", True),
}

# Eq. 2.7 speaks of point inference: of E-ABS without extension V.
BOUNDED = ("ABS", "AD-ABS")


def accuracy(run: Run) -> Iterator[Job]:
    """Tables 2.2 to 2.5: every model under every attack."""
    spent = replace(run.budget.attacks, restarts=min(run.budget.attacks.restarts, run.profile.starts))
    apart = {"minimal": MINIMAL, "smoothed": SMOOTHED, "black-box": BLACK_BOX}

    def study(folder: str, *, part: str, model: str) -> PartialStudy:
        defense, attacks = run.load(model, warm=part in ("main", "smoothed")), dict[str, Attack]()
        synthesis = isinstance(defense, BayesClassifier)
        budget = replace(spent, **run.budget.smoothed) if synthesis else spent
        for norm, epsilon in run.profile.threats:
            found = thesis_attacks(
                norm, epsilon, budget=budget, beyond=True, synthesis=synthesis, starts=run.data.images[: run.budget.count]
            )
            for name, attack in found.items():
                if part == next((other for other, names in apart.items() if name in names), "main"):
                    attacks[f"{name}-{norm}"] = attack
            if synthesis and part == "main":
                ball = ThreatModel(norm, epsilon)
                attacks[f"unrolled-{norm}"] = PGD(ball, steps=run.budget.unrolled_steps, restarts=spent.restarts)
        unrolled = {name: "unrolled" for name in attacks if name.startswith("unrolled")}
        count = run.budget.black_box if part == "black-box" else run.budget.count
        return run.study(folder, MODELS[model], defense, attacks, count, gradients=unrolled)

    for part in PARTS:
        for model in run.models:
            yield Job(f"{part}/{model}", partial(study, part=part, model=model))


def examples(run: Run) -> Iterator[Job]:
    """Figures 2.3 to 2.8: the closest adversarials of PGD for four models."""

    def study(folder: str, *, model: str) -> PartialStudy:
        return run.ladder(folder, MODELS[model], run.load(model), run.budget.examples)

    for model in run.models:
        if model != "adv-l2":
            yield Job(f"examples/{model}", partial(study, model=model))


def ablation(run: Run) -> Iterator[Job]:
    """Table 2.6: the distance of the closest adversarials of PGD, for every combination of extensions that has weights."""

    def study(folder: str, *, name: str, kind: str, variational: bool) -> PartialStudy:
        return run.ladder(folder, name, run.load(kind, variational=variational), run.budget.ablation)

    for name, (kind, variational) in ABLATION.items():
        if run.path(kind).is_file():
            yield Job(f"ablation/{name}", partial(study, name=name, kind=kind, variational=variational))


def eot_runs(run: Run) -> Iterator[Job]:
    """Table 2.7: PGD-Linf with more and more draws per gradient."""
    attack = PGD(ThreatModel("linf", run.profile.linf), run.budget.sweep_steps, restarts=min(5, run.budget.sweep_starts))

    def study(folder: str, *, draws: int) -> PartialStudy:
        return run.study(folder, "E-ABS", run.load("eabs"), {"pgd": attack}, run.budget.sweeps, eot=draws)

    for draws in run.budget.eot_runs:
        yield Job(f"eot/{draws}", partial(study, draws=draws))


def starts(run: Run) -> Iterator[Job]:
    """Table 2.8: PGD-Linf from more and more random starts, with 3 draws."""
    ball = ThreatModel("linf", run.profile.linf)
    attacks = {str(number): PGD(ball, run.budget.sweep_steps, restarts=number) for number in run.budget.starts}
    yield Job("starts", lambda folder: run.study(folder, "E-ABS", run.load("eabs"), attacks, run.budget.sweeps, eot=3))


def steps(run: Run) -> Iterator[Job]:
    """Table 2.9: PGD-Linf with more and more steps, with 3 draws; 0 steps are the random starts alone."""
    ball, restarts = ThreatModel("linf", run.profile.linf), run.budget.sweep_starts
    attacks = {str(number): PGD(ball, number, restarts) for number in run.budget.steps if number}
    if 0 in run.budget.steps:
        attacks["0"] = PGD(ball, 1, restarts, step_size=1e-9)
    count = min(200, run.budget.sweeps)
    yield Job("steps", lambda folder: run.study(folder, "E-ABS", run.load("eabs"), attacks, count, eot=3))


def bounds(run: Run) -> Iterator[Job]:
    """Eq. 2.7: the lower bounds, beside the distances of what L2 attacks find."""
    every = thesis_attacks("l2", run.profile.l2, budget=run.budget.attacks, black_box=False, beyond=True)
    attacks = {f"{name}-l2": every[name] for name in ("ddn", "cw", "deepfool", "latent-descent")}

    def study(folder: str, *, name: str) -> PartialStudy:
        kind, variational = ABLATION[name]
        return run.study(folder, name, run.load(kind, variational=variational, warm=False), attacks, run.budget.bound)

    for name in BOUNDED:
        if run.path(ABLATION[name][0]).is_file():
            yield Job(f"bound/{name}", partial(study, name=name), partial(_bound, run))


def _bound(run: Run, study: Study) -> None:
    """Compute the bounds of a study's samples and write them beside the attacked distances."""
    (defense,) = study.defenses.values()
    settings = {"steps": run.budget.bound_steps, "seed": run.seed}
    cells = [cell.key for cell in study.cells()]  # they know the defense, the samples, and what has attacked them
    key = key_of((_bounds, cells, *settings.items()), "bound").whole

    def measure() -> dict[str, list[Any]]:
        return _bounds(defense, study.images.to(run.device), study.labels.to(run.device), study.folder, **settings)

    measured(study.folder / "bound.json", key, measure)


def _bounds(defense: Defense, images: Tensor, labels: Tensor, folder: Path, *, steps: int, seed: int) -> dict[str, list[Any]]:
    """The columns of the table: bounds of the samples, beside the distances of the attacks in a study's folder."""
    found = robustness_bound(defense, images, labels, steps=steps, seed=seed)  # type: ignore[arg-type]
    records = read_records(folder)
    order = records.drop_duplicates("sample").set_index("sample").sort_index()["sample_hash"]
    distances = {
        str(attack): torch.from_numpy(closest_distances(rows).loc[order].to_numpy(copy=True))
        for attack, rows in records.groupby("attack", sort=False)
    }
    frame = compare_to_bound(found.bound, distances)
    sharper = compare_to_bound(found.sharper, distances)
    frame = frame.assign(sharper=sharper["bound"], sharper_violation=sharper["violation"], assumption=found.assumption)
    return dict(frame.to_dict("list"))


TABLES: Mapping[str, Callable[[Run], Iterator[Job]]] = {
    "main": accuracy,
    "examples": examples,
    "2.6": ablation,
    "2.7": eot_runs,
    "2.8": starts,
    "2.9": steps,
    "bound": bounds,
}
