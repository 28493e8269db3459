"""MLVGM purification (Serez et al., WACV 2025): its figures and tables, ours beside the paper's.

    python -m recipes.mlvgm --profile smoke                              # real digits, everything once, minutes on two cores
    python -m recipes.mlvgm --profile fashion --data-root DATA --parts learn random       # a part; further ones join it
    python -m recipes.mlvgm --profile fashion --data-root DATA --budget paper --device cuda    # the paper's budgets and N

A generator with several latent levels purifies in front of a classifier. Alphas are learned and compared with linear and
cosine ones, the best are combined with noise and blur, and the best of all meets no defense, TRADES, A-VAE and ND-VAE;
DeepFool, C&W and AutoAttack see all of it, through EoT. Where the paper and its public code disagree, ``--as`` says whose
word counts. The paper's budgets are GPU work: ``--budget reduced`` attacks with less, which every table says. The folder of
the run holds the page, the tables as Markdown and one study per defense; killed, the same command goes on.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gencls._commands.arguments import Parser, dry_run_flag
from gencls._commands.failures import exit_code_of
from gencls.core import find_device
from gencls.eval.report.paper.page import Section, write_paper
from gencls.eval.report.study.figures import NamedFigure
from gencls.eval.study.cost import shadow
from recipes.mlvgm import analyses, experiments, figures, tables
from recipes.mlvgm.prediction import predict_parts
from recipes.mlvgm.runs import ALPHAS, Run, load_at_most
from recipes.mlvgm.settings import BUDGETS, PROFILES


def report(run: Run) -> Path:
    """Write the page, its tables and figures, of what the folder of the run holds."""
    random = analyses.random_alphas(run)
    drawn = list(figures.every_figure(run, random))

    def of(section: str, *names: str) -> list[NamedFigure]:
        return [figure for figure in drawn if figure.section == section and (not names or figure.name in names)]

    preprocessed, compared = experiments.preprocessed(run), experiments.compared(run)
    sections = [
        Section("Codes", figures=of("codes")),
        Section("Alphas", tables=[tables.alphas_table(run, random)], figures=of("alphas")),
        Section(
            "Alphas under attack",
            tables=[tables.success_table(run, "success-alphas", "Figures 3 to 5 (c) and 17 to 19 in numbers", ALPHAS)],
            figures=of("attacks", "figure-3c"),
        ),
    ]
    if preprocessed:
        table = tables.success_table(run, "success-preprocessing", "Figures 11 to 13 in numbers", preprocessed)
        sections.append(Section("Preprocessing", tables=[table], figures=of("attacks", "figure-11")))
    table = tables.success_table(run, "success-comparison", "Figures 6 to 8 and 17 to 19 in numbers", compared)
    sections += [
        Section("Comparison", tables=[table], figures=of("attacks", "figure-6")),
        Section("Purified images", figures=of("examples")),
        Section("What is optimised, and how it is attacked", tables=[tables.parameters_table(run), tables.attacks_table(run)]),
    ]
    if examined := tables.doctor_table(run):
        sections.append(Section("Diagnosis", tables=[examined]))
    facts = {
        "Data": f"{run.data.name}, {run.data.split}",
        "Generator and classifier": f"{run.profile.generator}, {run.profile.classifier}",
        "Budget": run.budget.spent(run.profile),
        "As": f"the {run.as_}, where paper and public code disagree",
        "Best configuration": experiments.chosen(run) or "not known yet",
        "Seed": str(run.seed),
        "Command": run.command,
    }
    return write_paper(run.out, f"MLVGM purification on {run.data.name}", facts, sections)


def main(run: Run, parts: Sequence[str] = experiments.PARTS, *, dry_run: bool = False) -> Path | None:
    """Compute what is missing, or what was chosen of it, and write the page.

    Args:
        run: profile, budget, data and folder.
        parts: of :data:`recipes.mlvgm.experiments.PARTS`; with none only the page is written.
        dry_run: only print what it would cost; nothing is written.

    Returns:
        The path of the page; None after a dry run.

    Raises:
        GenclsError: for missing weights, a folder that holds another run, or a part that needs another one first.
    """
    run.require()
    if dry_run:
        with shadow(run.out) as folder:
            begun = replace(run, out=folder)
            begun.claim()
            predict_parts(begun, parts)
        return None
    run.claim()
    experiments.run_parts(run, parts)
    return report(run)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--profile",
        choices=[*PROFILES, "paper"],
        default="smoke",
        help="the task (default smoke); paper: its three tasks in turn",
    )
    made.add_argument("--budget", choices=BUDGETS, help="default smoke for the profile smoke, else reduced")
    made.add_argument("--as", dest="as_", choices=("paper", "code"), default="code", help="whose word counts (default code)")
    made.add_argument(
        "--parts", nargs="*", action="extend", choices=experiments.PARTS, default=None, help="default all; none: only the page"
    )
    made.add_argument("--classifier", help="that is protected, by name; default as the profile says")
    made.add_argument("--generator", help="that purifies, by name; default as the profile says")
    made.add_argument("--n", type=int, help="attacked images; default as the budget says")
    made.add_argument("--seed", type=int, default=0, help="of the subset and of all random streams (default 0)")
    made.add_argument("--data-root", type=Path, help="folder of the data sets; default GENCLS_DATA")
    made.add_argument(
        "--weights", type=Path, help="folder of weights made by gencls train, and of gender.pt, identities.pt, cars.pt"
    )
    made.add_argument("--device", default="cpu", help="such as cuda (default cpu)")
    made.add_argument("--out", type=Path, help="parent of the runs' folders (default runs/mlvgm)")
    dry_run_flag(made)
    return made


def plan(chosen: argparse.Namespace, task: str, command: str) -> Run:
    """The run of one task that a command line asks for.

    Raises:
        GenclsError: for data or a device that are not there.
    """
    profile = PROFILES[task]
    changed = {part: name for part in ("generator", "classifier") if (name := getattr(chosen, part))}
    profile = replace(profile, **changed)
    name = chosen.budget or ("smoke" if task == "smoke" else "paper" if chosen.profile == "paper" else "reduced")
    budget = BUDGETS[name] if chosen.n is None else BUDGETS[name].of(chosen.n)
    largest = max(budget.count, budget.clean, 200)  # 200: figure 14, mixed codes
    return Run(
        profile=profile,
        budget=budget,
        out=(chosen.out or Path("runs/mlvgm")) / "-".join((task, name, chosen.as_, *changed.values())),
        data=load_at_most(profile, profile.splits[1], largest, root=chosen.data_root, seed=chosen.seed),
        root=chosen.data_root,
        seed=chosen.seed,
        as_=chosen.as_,
        weights=chosen.weights,
        device=str(find_device(chosen.device)),
        command=command,
    )


def command(words: Sequence[str] | None = None) -> int:
    """Run the recipe as its command line says, None: that of the process; returns the exit code."""
    words = sys.argv[1:] if words is None else words
    options = parser().parse_args(words)
    tasks = [name for name in PROFILES if name.startswith("paper-")] if options.profile == "paper" else [options.profile]

    def work() -> None:
        runs = [plan(options, name, shlex.join(["python", "-m", "recipes.mlvgm", *words])) for name in tasks]
        for run in runs:  # before the first of them starts
            run.require()
        for run in runs:
            page = main(run, experiments.PARTS if options.parts is None else options.parts, dry_run=options.dry_run)
            if page:
                print("report:", page.resolve())

    return exit_code_of("mlvgm", work, out=options.out)


if __name__ == "__main__":
    sys.exit(command())
