"""E-ABS (thesis, chapter 2): all its tables and figures, ours beside the thesis's.

    python recipes/eabs.py --profile smoke                              # real digits, everything once, minutes on two cores
    python recipes/eabs.py --profile mnist --data-root DATA --predict   # what it would cost
    python recipes/eabs.py --profile mnist --data-root DATA --tables main --models eabs    # a part; further ones join it
    python recipes/eabs.py --profile mnist --data-root DATA --budget paper --device cuda   # the thesis's budgets and N

Five classifiers with the same modules (a CNN trained with noise, two adversarially trained ones, ABS and E-ABS) meet all
attacks of section 2.3, with the gradient of eq. 2.9 and with what goes beyond the thesis; then come the ablation of the
three extensions, the search for the attacks' settings, and the lower bounds of eq. 2.7. The thesis's budgets are GPU work:
``--budget reduced`` keeps the defenses as they are and attacks them with less, which every table says. The folder of the run
holds the page, the tables as Markdown and one study per defense; killed, the same command goes on.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pandas
import torch

from gencls import zoo
from gencls.core import BayesClassifier, GenclsError
from gencls.defenses import compare_to_bound, robustness_bound
from gencls.eval import PGD, Attack, Study, ThreatModel, closest_distances, read_records, thesis_attacks
from gencls.eval.report.figures import NamedFigure
from gencls.eval.report.paper import PaperTable, Section, write_paper
from gencls.eval.study_folder import atomically
from recipes.chapter2 import tables
from recipes.chapter2.figures import example_figures
from recipes.chapter2.printed import MODELS
from recipes.chapter2.runs import Job, PartialStudy, Run, compute, predict
from recipes.chapter2.settings import BUDGETS, PROFILES
from recipes.chapter2.tables import ATTACKS, BLACK_BOX, MINIMAL, NORMS, PARTS

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
    apart = {"minimal": MINIMAL, "black-box": BLACK_BOX}

    def study(folder: str, *, part: str, model: str) -> PartialStudy:
        defense, attacks = run.load(model, warm=part == "main"), dict[str, Attack]()
        synthesis = isinstance(defense, BayesClassifier)
        for norm, epsilon in run.profile.threats:
            for name, attack in thesis_attacks(norm, epsilon, budget=spent, beyond=True, synthesis=synthesis).items():
                if part == next((other for other, names in apart.items() if name in names), "main"):
                    attacks[f"{name}-{norm}"] = attack
            if synthesis and part == "main":
                attacks[f"unrolled-{norm}"] = PGD(ThreatModel(norm, epsilon), steps=run.budget.unrolled_steps)
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
    path = study.folder / "bound.csv"
    if path.exists():
        return
    (defense,) = study.defenses.values()
    images, labels = study.images.to(run.device), study.labels.to(run.device)
    found = robustness_bound(defense, images, labels, steps=run.budget.bound_steps, seed=run.seed)  # type: ignore[arg-type]
    records = read_records(study.folder)
    order = records.drop_duplicates("sample").set_index("sample").sort_index()["sample_hash"]
    distances = {
        str(attack): torch.from_numpy(closest_distances(rows).loc[order].to_numpy(copy=True))
        for attack, rows in records.groupby("attack", sort=False)
    }
    frame = compare_to_bound(found.bound, distances)
    sharper = compare_to_bound(found.sharper, distances)
    frame = frame.assign(sharper=sharper["bound"], sharper_violation=sharper["violation"], assumption=found.assumption)
    atomically(path, lambda part: frame.to_csv(part, index=False))


TABLES: Mapping[str, Callable[[Run], Iterator[Job]]] = {
    "main": accuracy,
    "examples": examples,
    "2.6": ablation,
    "2.7": eot_runs,
    "2.8": starts,
    "2.9": steps,
    "bound": bounds,
}


def report(run: Run) -> Path:
    """Write the page and the tables of whatever the folder of the run holds.

    Raises:
        GenclsError: if it holds nothing.
    """
    sections = []
    number = run.profile.table
    if any(any((run.out / part).glob("*/cells/*.parquet")) for part in PARTS):
        table, right = tables.accuracy_table(run)
        sections.append(Section(f"Table {number}", tables=[table]))
        if pairs := list(tables.mcnemar(run, right)):
            text = "Row against column: images that only one of the two gets right under all of the thesis's attacks."
            sections.append(Section("Paired tests", text, [table for table, _ in pairs], [figure for _, figure in pairs]))
    if figures := list(example_figures(run)):
        sections.append(Section("Adversarial examples", figures=figures))
    missing = sorted({run.profile.network(kind) for kind, _ in ABLATION.values() if not run.path(kind).is_file()})
    if ablated := tables.ablation_table(run, tuple(ABLATION), missing):
        sections.append(Section("Table 2.6", tables=[ablated]))
    if sweeps := list(_sweeps(run)):
        text = "The settings of the attacks should lie where more of them changes nothing."
        sections.append(Section("Tables 2.7 to 2.9", text, [table for table, _ in sweeps], [figure for _, figure in sweeps]))
    written = [(name, run.out / "bound" / name / "bound.csv") for name in BOUNDED]
    if bounded := tables.bound_table(run, [(name, pandas.read_csv(path)) for name, path in written if path.is_file()]):
        sections.append(Section("Lower bounds", tables=[bounded]))
    if not sections:
        raise GenclsError(f"{run.out}: expected at least one finished cell, got none")
    facts = {
        "Data": f"{run.data.name}, {run.data.split}",
        "Budget": run.budget.spent,
        "Seed": str(run.seed),
        "Command": run.command,
    }
    return write_paper(run.out, f"E-ABS: chapter 2 of the thesis on {run.data.name}", facts, sections)


def _sweeps(run: Run) -> Iterator[tuple[PaperTable, NamedFigure]]:
    """Tables 2.7 to 2.9 with their figures, of what there is."""
    budget = run.budget
    by_draws = {draws: tables.records_of(run.out, f"eot/{draws}") for draws in budget.eot_runs}
    by_starts, by_steps = (
        {int(value): rows for value, rows in records.groupby("attack")} if len(records) else {}
        for records in (tables.records_of(run.out, folder) for folder in ("starts", "steps"))
    )
    pgd, restarts = f"PGD with {budget.sweep_steps} steps", f"{budget.sweep_starts} starts"
    found = (
        tables.sweep(
            run, "2.7", "Runs of EoT", by_draws, f"{pgd} from {min(5, budget.sweep_starts)} starts", chosen=budget.eot
        ),
        tables.sweep(run, "2.8", "Random starts", by_starts, f"{pgd}, EoT 3", chosen=budget.attacks.restarts),
        tables.sweep(run, "2.9", "Steps", by_steps, f"PGD from {restarts}, EoT 3", chosen=budget.attacks.pgd_steps),
    )
    yield from filter(None, found)


def main(run: Run, names: Sequence[str] = (), *, only_predict: bool = False) -> Path | None:
    """Compute what is missing, or what was chosen of it, and write the page.

    Args:
        run: profile, budget, data and folder.
        names: of :data:`TABLES`; empty for all that have weights.
        only_predict: print what it would cost, and no more.

    Returns:
        The path of the page; None if the cost was only predicted.

    Raises:
        GenclsError: for missing weights, or a folder that holds another run.
    """
    of_eabs = {"2.7", "2.8", "2.9"}
    names = names or [name for name in TABLES if name not in of_eabs or run.path("eabs").is_file()]
    run.require([*(run.models if {"main", "examples"} & set(names) else ()), *(["eabs"] if of_eabs & set(names) else ())])
    run.claim()
    jobs = [job for name in names for job in TABLES[name](run)]
    costs = predict(jobs)
    if only_predict:
        return None
    compute(jobs, costs)
    return report(run)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--profile", choices=PROFILES, default="smoke", help="data set with its threats (default smoke)")
    made.add_argument("--budget", choices=BUDGETS, help="default smoke for the profile smoke, else reduced")
    made.add_argument("--tables", nargs="+", choices=TABLES, default=(), help="default all; main: Tables 2.2 to 2.5")
    made.add_argument("--models", nargs="+", choices=MODELS, default=tuple(MODELS), help="default all")
    attacks = [*ATTACKS, *(f"{name}-{norm}" for name in ATTACKS for norm in NORMS)]
    made.add_argument(
        "--attacks",
        nargs="+",
        choices=attacks,
        default=(),
        metavar="NAME",
        help=f"of Tables 2.2 to 2.5: {', '.join(ATTACKS)}, with -linf or -l2 for one norm; default all",
    )
    made.add_argument("--n", type=int, help="N of Tables 2.2 to 2.5, and the largest of the others; default as the budget says")
    made.add_argument("--seed", type=int, default=0, help="of the subset and of all random streams (default 0)")
    made.add_argument("--data-root", type=Path, help="folder of the data sets; default GENCLS_DATA")
    made.add_argument("--weights", type=Path, help="folder of weights made by gencls train, beside the committed ones")
    made.add_argument("--device", default="cpu", help="such as cuda (default cpu)")
    made.add_argument("--out", type=Path, help="folder of the run (default runs/eabs/PROFILE-BUDGET)")
    made.add_argument("--predict", action="store_true", help="only print what it would cost")
    return made


def plan(chosen: argparse.Namespace, command: str) -> Run:
    """The run that a command line asks for.

    Raises:
        GenclsError: for data that are not there.
    """
    profile = PROFILES[chosen.profile]
    name = chosen.budget or ("smoke" if chosen.profile == "smoke" else "reduced")
    budget = BUDGETS[name] if chosen.n is None else BUDGETS[name].of(chosen.n)
    return Run(
        profile=profile,
        budget=budget,
        out=chosen.out or Path("runs/eabs") / f"{chosen.profile}-{name}",
        data=zoo.load_data(profile.data, "test", root=chosen.data_root, limit=budget.largest, seed=chosen.seed),
        seed=chosen.seed,
        models=chosen.models,
        only=chosen.attacks,
        weights=chosen.weights,
        device=chosen.device,
        command=command,
    )


if __name__ == "__main__":
    arguments = parser().parse_args()
    try:
        page = main(
            plan(arguments, shlex.join(["python", "recipes/eabs.py", *sys.argv[1:]])),
            arguments.tables,
            only_predict=arguments.predict,
        )
    except GenclsError as error:
        print(f"eabs: error: {error}", file=sys.stderr)
        sys.exit(2)
    if page:
        print("report:", page.resolve())
