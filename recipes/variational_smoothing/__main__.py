"""Variational smoothing (thesis, chapter 4): its tables, ours beside the thesis's, and randomized smoothing's certified curve.

    python -m recipes.variational_smoothing --profile smoke                              # real digits, everything once
    python -m recipes.variational_smoothing --profile fashion --data-root DATA --parts main     # a part; further ones join it
    python -m recipes.variational_smoothing --profile cifar10 --data-root DATA --weights FOLDER --budget paper --device cuda

Base models as they are and with inference around them (Algorithm 5) meet AutoAttack as published, AutoAttack for random
defenses, PGD and Square, through both gradients of the inference and EoT over its starts and noise; per image the worst
counts, and what only the inference keeps is attacked harder. Then the attacks grow (Table 4.2), the inner optimisation takes
more steps, what the thesis leaves open is switched, and randomized smoothing is certified and attacked. ``--budget reduced``
attacks with less, which every table says. The folder of the run holds the page, the tables as Markdown and one study per
defense; killed, the same command goes on.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gencls import zoo
from gencls._commands.arguments import Parser, dry_run_flag
from gencls._commands.failures import exit_code_of
from gencls.core import GenclsError, find_device
from gencls.eval.report.paper.page import Section, write_paper
from gencls.eval.study.cost import shadow
from gencls.zoo.data import count_images
from recipes.harness.diagnoses import diagnosis_table
from recipes.variational_smoothing import experiments, figures, tables
from recipes.variational_smoothing.runs import Run
from recipes.variational_smoothing.settings import BASES, BUDGETS, PROFILES
from recipes.variational_smoothing.survivors import survivor_table


def report(run: Run) -> Path:
    """Write the page and the tables of whatever the folder of the run holds.

    Raises:
        GenclsError: if it holds nothing.
    """
    sections = [Section(table.title.split(":")[0], tables=[table]) for table in tables.main_tables(run)]
    if left := survivor_table(run):
        sections.append(Section("Attacked harder", tables=[left]))
    for part in ("strength", "steps", "readings"):
        if table := tables.sweep_table(run, part):
            drawn = list(figures.steps_figure(run)) if part == "steps" else []
            sections.append(Section(table.title.split(":")[0], tables=[table], figures=drawn))
    if curves := figures.certified_curves(run):
        sections.append(Section("Randomized smoothing", tables=[curves[0]], figures=[curves[1]]))
    found = {variant.key: experiments.examined(run, variant) for variant in experiments.main_variants(run)}
    if diagnosed := diagnosis_table("Diagnosis of each defense, at the size of its attacks", found):
        sections.append(Section("Diagnosis", tables=[diagnosed]))
    if not sections:
        raise GenclsError(f"{run.out}: expected at least one finished cell, got none")
    facts = {
        "Data": f"{run.data.name}, {run.data.split}",
        "Base models": ", ".join(run.bases.values()),
        "Budget": run.budget.spent,
        "Seed": str(run.seed),
        "Command": run.command,
    }
    return write_paper(run.out, f"Variational smoothing on {run.data.name}", facts, sections)


def main(run: Run, parts: Sequence[str] = experiments.PARTS, *, dry_run: bool = False) -> Path | None:
    """Compute what is missing, or what was chosen of it, and write the page.

    Args:
        run: profile, budget, data and folder.
        parts: of :data:`recipes.variational_smoothing.experiments.PARTS`; with none only the page is written.
        dry_run: only print what it would cost; nothing is written.

    Returns:
        The path of the page; None after a dry run.

    Raises:
        GenclsError: for missing weights, or a folder that holds another run.
    """
    run.require()
    if "certified" in parts:
        run.smoothed()  # its weights are asked for before the first measurement, too
    if dry_run:
        with shadow(run.out) as folder:
            begun = replace(run, out=folder)
            begun.claim()
            experiments.predict_parts(begun, parts)
        return None
    run.claim()
    experiments.run_parts(run, parts)
    return report(run)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--profile", choices=PROFILES, default="smoke", help="data set with its base models (default smoke)")
    made.add_argument("--budget", choices=BUDGETS, help="default smoke for the profile smoke, else reduced")
    made.add_argument(
        "--parts", nargs="*", action="extend", choices=experiments.PARTS, default=None, help="default all; none: only the page"
    )
    made.add_argument(
        "--bases", nargs="+", action="extend", choices=BASES, help="kinds of base models; default all that the profile has"
    )
    made.add_argument("--data", help="another data set for the same base models, such as cifar10-lossless for cifar10")
    made.add_argument("--n", type=int, help="the most attacked images of any table; default as the budget says")
    made.add_argument("--seed", type=int, default=0, help="of the subset and of all random streams (default 0)")
    made.add_argument("--data-root", type=Path, help="folder of the data sets; default GENCLS_DATA")
    made.add_argument("--weights", type=Path, help="folder of weights made by gencls train, and of Wong2020Fast.pt")
    made.add_argument("--device", default="cpu", help="such as cuda (default cpu)")
    made.add_argument("--out", type=Path, help="parent of the runs' folders (default runs/smoothing)")
    dry_run_flag(made)
    return made


def plan(chosen: argparse.Namespace, command: str) -> Run:
    """The run that a command line asks for.

    Raises:
        GenclsError: for data, a device or base models that are not there.
    """
    profile = PROFILES[chosen.profile]
    if absent := [kind for kind in chosen.bases or () if kind not in profile.bases]:
        raise GenclsError(f"--bases: expected some of {', '.join(profile.bases)}, got {', '.join(absent)}")
    profile = replace(profile, data=chosen.data or profile.data)
    name = chosen.budget or ("smoke" if chosen.profile == "smoke" else "reduced")
    budget = BUDGETS[name] if chosen.n is None else BUDGETS[name].of(chosen.n)
    largest = min(
        max(budget.count, budget.sweep, budget.certified, 20), count_images(profile.data, "test", root=chosen.data_root)
    )
    return Run(
        profile=profile,
        budget=budget,
        out=(chosen.out or Path("runs/smoothing")) / f"{chosen.profile}-{name}",
        data=zoo.load_data(profile.data, "test", root=chosen.data_root, limit=largest, seed=chosen.seed),
        seed=chosen.seed,
        kinds=chosen.bases or tuple(profile.bases),
        weights=chosen.weights,
        device=str(find_device(chosen.device)),
        command=command,
    )


def command(words: Sequence[str] | None = None) -> int:
    """Run the recipe as its command line says, None: that of the process; returns the exit code."""
    words = sys.argv[1:] if words is None else words
    options = parser().parse_args(words)

    def work() -> None:
        run = plan(options, shlex.join(["python", "-m", "recipes.variational_smoothing", *words]))
        page = main(run, experiments.PARTS if options.parts is None else options.parts, dry_run=options.dry_run)
        if page:
            print("report:", page.resolve())

    return exit_code_of("variational_smoothing", work, out=options.out)


if __name__ == "__main__":
    sys.exit(command())
