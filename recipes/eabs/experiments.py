"""The chapter's experiments as jobs: which defenses meet which attacks, for every table and figure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from gencls.core import BayesClassifier, Defense, key_of
from gencls.defenses import AnalysisBySynthesis, compare_to_bound, robustness_bound
from gencls.eval import PGD, Attack, Study, ThreatModel, closest_distances, read_records, thesis_attacks
from recipes.eabs.printed import MODELS
from recipes.eabs.runs import OF_EABS, Run
from recipes.eabs.settings import FOLDERS
from recipes.harness.folders import Kept
from recipes.harness.jobs import Job

# Table 2.6: row -> (network, inference). Extensions A and D change the training, V changes the inference.
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

# Eq. 2.7 is about point inference, so E-ABS stands here without extension V.
BOUNDED = ("ABS", "AD-ABS")


def accuracy(run: Run) -> Iterator[Job]:
    """Tables 2.2 to 2.5: every model under every attack."""
    spent = replace(run.budget.attacks, restarts=min(run.budget.attacks.restarts, run.profile.starts))

    def attacks(defense: Defense, *, part: str) -> dict[str, Attack]:
        found, synthesis = dict[str, Attack](), isinstance(defense, BayesClassifier)
        budget, starts = replace(spent, **run.budget.smoothed) if synthesis else spent, run.data.images[: run.budget.count]
        for norm, epsilon in run.profile.threats:
            every = thesis_attacks(norm, epsilon, budget=budget, beyond=True, synthesis=synthesis, starts=starts)
            for name, attack in every.items():
                if part == next((other for other, names in FOLDERS.items() if name in names), "main"):
                    found[f"{name}-{norm}"] = attack
            if synthesis and part == "main":
                ball = ThreatModel(norm, epsilon)
                found[f"unrolled-{norm}"] = PGD(ball, steps=run.budget.unrolled_steps, restarts=spent.restarts)
        return found

    for part in FOLDERS:
        count, warm = run.budget.black_box if part == "black-box" else run.budget.count, part in ("main", "smoothed")
        for model in run.models or MODELS:
            defense = partial(run.load, model, warm=warm)
            yield run.job(f"{part}/{model}", MODELS[model], defense, partial(attacks, part=part), count)


def examples(run: Run) -> Iterator[Job]:
    """Figures 2.3 to 2.8: the closest adversarials of PGD for four models."""
    for model in run.models or MODELS:
        if model != "adv-l2":
            yield run.job(f"examples/{model}", MODELS[model], partial(run.load, model), run.ladder(), run.budget.examples)


def ablation(run: Run) -> Iterator[Job]:
    """Table 2.6: the distance of the closest adversarials of PGD, for every combination of extensions that has weights."""
    for name, (kind, variational) in ABLATION.items():
        if run.path(kind).is_file():
            defense = partial(run.load, kind, variational=variational)
            yield run.job(f"ablation/{name}", name, defense, run.ladder(), run.budget.ablation)


def eot_runs(run: Run) -> Iterator[Job]:
    """Table 2.7: PGD-Linf with more and more draws per gradient."""
    attack = PGD(ThreatModel("linf", run.profile.linf), run.budget.sweep_steps, restarts=min(5, run.budget.sweep_starts))
    for draws in run.budget.eot_runs:
        yield run.job(f"eot/{draws}", "E-ABS", partial(run.load, "eabs"), {"pgd": attack}, run.budget.sweeps, draws)


def starts(run: Run) -> Iterator[Job]:
    """Table 2.8: PGD-Linf from more and more random starts, with 3 draws."""
    ball = ThreatModel("linf", run.profile.linf)
    attacks = {str(number): PGD(ball, run.budget.sweep_steps, restarts=number) for number in run.budget.starts}
    yield run.job("starts", "E-ABS", partial(run.load, "eabs"), attacks, run.budget.sweeps, 3)


def steps(run: Run) -> Iterator[Job]:
    """Table 2.9: PGD-Linf with more and more steps, with 3 draws; 0 steps are the random starts alone."""
    ball, restarts = ThreatModel("linf", run.profile.linf), run.budget.sweep_starts
    attacks = {str(number): PGD(ball, number, restarts) for number in run.budget.steps if number}
    if 0 in run.budget.steps:
        attacks["0"] = PGD(ball, 1, restarts, step_size=1e-9)
    yield run.job("steps", "E-ABS", partial(run.load, "eabs"), attacks, min(200, run.budget.sweeps), 3)


def bounds(run: Run) -> Iterator[Job]:
    """Eq. 2.7: the lower bounds, beside the distances of what L2 attacks find."""
    every = thesis_attacks("l2", run.profile.l2, budget=run.budget.attacks, black_box=False, beyond=True)
    attacks = {f"{name}-l2": every[name] for name in ("ddn", "cw", "deepfool", "latent-descent")}
    for name in BOUNDED:
        kind, variational = ABLATION[name]
        if run.path(kind).is_file():
            defense = partial(run.load, kind, variational=variational, warm=False)
            yield run.job(f"bound/{name}", name, defense, attacks, run.budget.bound, then=partial(_bound, run))


def _bound(run: Run, study: Study) -> None:
    """Compute the bounds of a study's samples and write them beside the attacked distances."""
    (defense,) = study.defenses.values()
    settings = {"steps": run.budget.bound_steps, "seed": run.seed}
    cells = [cell.key for cell in study.cells()]  # they know the defense, the samples, and what has attacked them
    key = key_of((_bounds, cells, *settings.items()), "bound").whole
    images, labels = study.images.to(run.device), study.labels.to(run.device)
    Kept(study.folder / "bound.json", lambda: key, lambda: _bounds(defense, images, labels, study.folder, **settings)).get()


def _bounds(defense: nn.Module, images: Tensor, labels: Tensor, folder: Path, *, steps: int, seed: int) -> dict[str, list[Any]]:
    """Make the columns of the table: the samples' bounds, beside the distances of the attacks in a study's folder."""
    found = robustness_bound(cast(AnalysisBySynthesis, defense), images, labels, steps=steps, seed=seed)
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


PARTS: Mapping[str, Callable[[Run], Iterator[Job]]] = {
    "main": accuracy,
    "examples": examples,
    "2.6": ablation,
    "2.7": eot_runs,
    "2.8": starts,
    "2.9": steps,
    "bound": bounds,
}
"""Names for `--tables`; "main" is Tables 2.2 to 2.5."""


def usual(run: Run) -> list[str]:
    """The parts that have weights."""
    return [name for name in PARTS if name not in OF_EABS or run.path("eabs").is_file()]
