"""E-ABS (thesis, chapter 2): all its tables and figures, ours beside the thesis's.

    python -m recipes.eabs --profile smoke                              # real digits, everything once, minutes on two cores
    python -m recipes.eabs --profile mnist --data-root DATA --dry-run   # what it would cost
    python -m recipes.eabs --profile mnist --data-root DATA --tables main --models eabs    # a part; further ones join it
    python -m recipes.eabs --profile mnist --data-root DATA --budget paper --device cuda   # the thesis's budgets and N

Five classifiers with the same modules (a CNN trained with noise, two adversarially trained ones, ABS and E-ABS) meet all
attacks of section 2.3, with the gradient of eq. 2.9 and with what goes beyond the thesis; then come the ablation of the
three extensions, the search for the attacks' settings, and the lower bounds of eq. 2.7. The thesis's budgets are GPU work:
``--budget reduced`` takes the fast path of ABS and E-ABS and attacks them with less, which every table says. The folder of
the run holds the page, the tables as Markdown and one study per defense; killed, the same command goes on.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas

from gencls import zoo
from gencls._commands.arguments import Parser, dry_run_flag
from gencls._commands.failures import exit_code_of
from gencls.core import GenclsError, find_device
from gencls.eval.report.paper.page import PaperTable, Section, write_paper
from gencls.eval.report.study.figures import NamedFigure
from gencls.eval.study.cost import shadow
from recipes.eabs import settings_tables, tables
from recipes.eabs.experiments import ABLATION, BOUNDED, TABLES
from recipes.eabs.figures import example_figures
from recipes.eabs.printed import MODELS
from recipes.eabs.runs import Run
from recipes.eabs.settings import BUDGETS, PROFILES
from recipes.eabs.tables import ATTACKS, L2_ONLY, NORMS, PARTS
from recipes.harness.folders import read_measured
from recipes.harness.jobs import Job, compute, predict
from recipes.harness.records import begun, records_of

MODEL_TABLES = {"main", "examples"}
"""Those of :data:`TABLES` whose models can be chosen."""


def report(run: Run) -> Path:
    """Write the page and the tables of whatever the folder of the run holds.

    Raises:
        GenclsError: if it holds nothing.
    """
    sections = []
    number = run.profile.table
    if any(begun(folder) for part in PARTS for folder in (run.out / part).glob("*")):
        table, right = tables.accuracy_table(run)
        sections.append(Section(f"Table {number}", tables=[table]))
        if pairs := list(tables.mcnemar(run, right)):
            text = "Row against column: images that only one of the two gets right under all attacks, the thesis's or ours too."
            sections.append(Section("Paired tests", text, [table for table, _ in pairs], [figure for _, figure in pairs]))
    if figures := list(example_figures(run)):
        sections.append(Section("Adversarial examples", figures=figures))
    missing = sorted({run.profile.network(kind) for kind, _ in ABLATION.values() if not run.path(kind).is_file()})
    if ablated := settings_tables.ablation_table(run, tuple(ABLATION), missing):
        sections.append(Section("Table 2.6", tables=[ablated]))
    if sweeps := list(_sweeps(run)):
        text = "The settings of the attacks should lie where more of them changes nothing."
        sections.append(Section("Tables 2.7 to 2.9", text, [table for table, _ in sweeps], [figure for _, figure in sweeps]))
    written = [(name, run.out / "bound" / name / "bound.json") for name in BOUNDED]
    bounds = [(name, _frame(path)) for name, path in written if path.is_file()]
    absent = [run.profile.network(kind) for kind, _ in map(ABLATION.__getitem__, BOUNDED) if not run.path(kind).is_file()]
    if bounded := settings_tables.bound_table(run, bounds, absent):
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


def _frame(path: Path) -> pandas.DataFrame:
    """The columns that a file holds, without its key and its checksum."""
    return pandas.DataFrame({name: values for name, values in read_measured(path).items() if name not in ("key", "checksum")})


def _sweeps(run: Run) -> Iterator[tuple[PaperTable, NamedFigure]]:
    """Tables 2.7 to 2.9 with their figures, of what there is."""
    budget = run.budget
    by_draws = {draws: records_of(run.out, f"eot/{draws}") for draws in budget.eot_runs}
    by_starts, by_steps = (
        {int(value): rows for value, rows in records.groupby("attack")} if len(records) else {}
        for records in (records_of(run.out, folder) for folder in ("starts", "steps"))
    )
    pgd, restarts = f"PGD with {budget.sweep_steps} steps", f"{budget.sweep_starts} starts"
    found = (
        settings_tables.sweep(
            run, "2.7", "Runs of EoT", by_draws, f"{pgd} from {min(5, budget.sweep_starts)} starts", chosen=budget.eot
        ),
        settings_tables.sweep(run, "2.8", "Random starts", by_starts, f"{pgd}, EoT 3", chosen=budget.attacks.restarts),
        settings_tables.sweep(run, "2.9", "Steps", by_steps, f"PGD from {restarts}, EoT 3", chosen=budget.attacks.pgd_steps),
    )
    yield from filter(None, found)


def main(run: Run, names: Sequence[str] = (), *, dry_run: bool = False) -> Path | None:
    """Compute what is missing, or what was chosen of it, and write the page.

    Args:
        run: profile, budget, data and folder.
        names: of :data:`TABLES`; empty for all that have weights.
        dry_run: only print what it would cost; nothing is written.

    Returns:
        The path of the page; None after a dry run.

    Raises:
        GenclsError: for missing weights, or a folder that holds another run.
    """
    of_eabs = {"2.7", "2.8", "2.9"}
    names = names or [name for name in TABLES if name not in of_eabs or run.path("eabs").is_file()]
    run.require([*(run.models if MODEL_TABLES & set(names) else ()), *(["eabs"] if of_eabs & set(names) else ())])
    if dry_run:
        with shadow(run.out) as folder:
            begun = replace(run, out=folder)
            begun.claim()
            predict(_jobs(begun, names))
        return None
    run.claim()
    jobs = _jobs(run, names)
    compute(jobs, predict(jobs))
    return report(run)


def _jobs(run: Run, names: Sequence[str]) -> list[Job]:
    return [job for name in names for job in TABLES[name](run)]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--profile", choices=PROFILES, default="smoke", help="data set with its threats (default smoke)")
    made.add_argument("--budget", choices=BUDGETS, help="default smoke for the profile smoke, else reduced")
    made.add_argument(
        "--tables", nargs="+", action="extend", choices=TABLES, default=[], help="default all; main: Tables 2.2 to 2.5"
    )
    made.add_argument("--models", nargs="+", action="extend", choices=MODELS, help="of main and examples; default all")
    attacks = [*ATTACKS, *(f"{name}-{norm}" for name in ATTACKS for norm in NORMS if norm == "l2" or name not in L2_ONLY)]
    made.add_argument(
        "--attacks",
        nargs="+",
        action="extend",
        choices=attacks,
        default=[],
        metavar="NAME",
        help=f"of Tables 2.2 to 2.5: {', '.join(ATTACKS)}, with -linf or -l2 for one norm; default all",
    )
    made.add_argument("--n", type=int, help="N of Tables 2.2 to 2.5, and the largest of the others; default as the budget says")
    made.add_argument("--seed", type=int, default=0, help="of the subset and of all random streams (default 0)")
    made.add_argument("--data-root", type=Path, help="folder of the data sets; default GENCLS_DATA")
    made.add_argument("--weights", type=Path, help="folder of weights made by gencls train, beside the committed ones")
    made.add_argument("--device", default="cpu", help="such as cuda (default cpu)")
    made.add_argument("--out", type=Path, help="folder of the run (default runs/eabs/PROFILE-BUDGET)")
    dry_run_flag(made)
    return made


def plan(chosen: argparse.Namespace, command: str) -> Run:
    """The run that a command line asks for.

    Raises:
        GenclsError: for data that are not there, or choices within tables that are not asked for.
    """
    for flag, given, where in (("--models", chosen.models, MODEL_TABLES), ("--attacks", chosen.attacks, {"main"})):
        if given and chosen.tables and not where & set(chosen.tables):
            raise GenclsError(
                f"{flag}: expected only with --tables {' or '.join(sorted(where))}, got --tables {' '.join(chosen.tables)}"
            )
    profile = PROFILES[chosen.profile]
    name = chosen.budget or ("smoke" if chosen.profile == "smoke" else "reduced")
    budget = BUDGETS[name] if chosen.n is None else BUDGETS[name].of(chosen.n)
    return Run(
        profile=profile,
        budget=budget,
        out=chosen.out or Path("runs/eabs") / f"{chosen.profile}-{name}",
        data=zoo.load_data(profile.data, "test", root=chosen.data_root, limit=budget.largest, seed=chosen.seed),
        seed=chosen.seed,
        models=chosen.models or tuple(MODELS),
        only=chosen.attacks,
        weights=chosen.weights,
        device=str(find_device(chosen.device)),
        command=command,
    )


def command(words: Sequence[str] | None = None) -> int:
    """Run the recipe as its command line says, None: that of the process; returns the exit code."""
    words = sys.argv[1:] if words is None else words
    options = parser().parse_args(words)

    def work() -> None:
        run = plan(options, shlex.join(["python", "-m", "recipes.eabs", *words]))
        if page := main(run, options.tables, dry_run=options.dry_run):
            print("report:", page.resolve())

    return exit_code_of("eabs", work, out=options.out)


if __name__ == "__main__":
    sys.exit(command())
