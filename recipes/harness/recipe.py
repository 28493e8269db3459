"""A paper's experiments as one command: its profiles and budgets, its parts that join and resume, its page."""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from gencls._commands.arguments import check_out, reader
from gencls._commands.failures import exit_code_of
from gencls.core import GenclsError, find_device
from gencls.eval.report.paper.page import Section, write_paper
from gencls.eval.study.cost import duration, shadow
from recipes.harness.jobs import Job, compute, predict
from recipes.harness.run import Run
from recipes.harness.settings import Budget, Profile, flags

__all__ = ["Recipe"]

R = TypeVar("R", bound=Run[Any, Any])


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe(Generic[R]):
    """A paper's own parts; everything else is the same for every paper.

    Attributes:
        name: the recipe's folder in ``recipes``.
        text: the help text.
        title: title of the page, without the data.
        run: the paper's kind of run.
        profiles: the profiles by name; "smoke" is the default.
        budgets: the budgets by name; "paper" is the protocol; a profile takes the budget with its own name, else "reduced".
        parts: name -> the jobs of an experiment, in the order in which they need each other.
        sections: makes the sections of the page from the folder of a run.
        out: parent folder of the runs.
        several: name -> profiles that run in turn.
        usual: chooses the parts to run unless the user names some; None for all.
        part_flags: the option's names for the parts.
        nested: whether ``--out`` is the parent of the runs' folders (True) or the folder of the run.
    """

    name: str
    text: str
    title: str
    run: type[R]
    profiles: Mapping[str, Profile]
    budgets: Mapping[str, Budget]
    parts: Mapping[str, Callable[[R], Iterable[Job]]]
    sections: Callable[[R], Iterable[Section]]
    out: Path
    several: Mapping[str, Sequence[str]] = field(default_factory=dict)
    usual: Callable[[R], Sequence[str]] | None = None
    part_flags: tuple[str, ...] = ("--parts",)
    nested: bool = True

    def parser(self) -> argparse.ArgumentParser:
        """The command line."""
        made = reader(self.text)
        made.prog = f"python -m recipes.{self.name}"
        turns = "".join(f"; {name}: {', '.join(those)} in turn" for name, those in self.several.items())
        made.add_argument(
            "--profile",
            choices=[*self.profiles, *self.several],
            default="smoke",
            help=f"what is attacked (default smoke){turns}",
        )
        made.add_argument("--budget", choices=self.budgets, help="default smoke for the profile smoke, else reduced")
        made.add_argument(
            *self.part_flags,
            dest="parts",
            nargs="*",
            action="extend",
            choices=self.parts,
            default=None,
            help="default all; none: only the page",
        )
        for each in self._flags():
            made.add_argument(each.metadata["flag"], dest=each.name, **each.metadata["how"])
        made.add_argument("--n", type=int, help="the most attacked images of any table; default as the budget says")
        made.add_argument("--data-root", type=Path, help="folder of the data sets; default GENCLS_DATA")
        made.add_argument("--weights", type=Path, help=f"folder of weights made by gencls train{self.run.weights_hint}")
        made.add_argument("--device", default="cpu", help="such as cuda (default cpu)")
        what = "parent of the runs' folders" if self.nested else "folder of the run"
        made.add_argument("--out", type=Path, help=f"{what} (default {self.out}{'' if self.nested else '/PROFILE-BUDGET'})")
        return made

    def _flags(self) -> list[Field[Any]]:
        """The options of this paper alone: those of its runs, then those of its profiles."""
        return [*flags(self.run), *flags(type(next(iter(self.profiles.values()))))]

    def plan(self, chosen: argparse.Namespace, command: str, task: str = "") -> R:
        """Build the run of one task that a command line asks for.

        Args:
            chosen: the result of :meth:`parser`.
            command: the command that repeats the run.
            task: the profile, if several run.

        Raises:
            GenclsError: for missing data or a missing device, and for choices that do not fit together.
        """
        task = task or chosen.profile
        level = chosen.budget or (chosen.profile if chosen.profile in self.budgets else "reduced")
        budget = self.budgets[level] if chosen.n is None else self.budgets[level].of(chosen.n)
        profile, own = self.profiles[task], self._flags()
        said = {each.name: value for each in own if (value := getattr(chosen, each.name)) is not None}
        marks = [said[each.name] for each in own if each.metadata["mark"] and each.name in said]
        folder = chosen.out if chosen.out and not self.nested else (chosen.out or self.out) / "-".join([task, level, *marks])
        profile = replace(profile, **{name: said.pop(name) for name in [*said] if hasattr(profile, name)})
        data = self.run.load_data(profile, budget.largest, root=chosen.data_root, seed=chosen.seed)
        run = self.run(
            profile=profile,
            budget=budget,
            out=folder,
            data=data,
            root=chosen.data_root,
            seed=chosen.seed,
            weights=chosen.weights,
            device=str(find_device(chosen.device)),
            level=level,
            command=command,
            **said,
        )
        run.check(chosen.parts)
        return run

    def main(self, run: R, parts: Sequence[str] | None = None, *, dry_run: bool = False) -> Path | None:
        """Compute what is missing, or the chosen parts of it, and write the page.

        Args:
            run: profile, budget, data and folder.
            parts: names of :attr:`parts`; an empty list only writes the page, None takes the usual ones.
            dry_run: only print the cost; nothing is written.

        Returns:
            The path of the page; None after a dry run.

        Raises:
            GenclsError: for missing weights, a folder that holds another run, or a part that needs another one first.
        """
        chosen = self._require(run, parts)
        if dry_run:
            with shadow(run.out) as folder:
                self._predict(replace(run, out=folder, foreseen=True), chosen)
            return None
        run.claim()
        self.run_parts(run, chosen)
        return self.report(run)

    def _require(self, run: R, parts: Sequence[str] | None) -> list[str]:
        """Check that these parts find what they need, and that the run's folder can be; return the parts in their order."""
        check_out(run.out)
        run.check(parts)
        asked = parts if parts is not None else self.usual(run) if self.usual else [*self.parts]
        run.require(asked)
        return [part for part in self.parts if part in asked]

    def _predict(self, run: R, parts: Sequence[str]) -> None:
        """Print what is left of some parts and how long it takes at most."""
        run.claim()
        total = 0.0
        for part in parts:
            print(f"{part}:", flush=True)
            total += sum(sum(left.values()) for left in predict([*self.parts[part](run)]))
        print(f"predicted: {duration(total)} at most for all parts", flush=True)

    def run_parts(self, run: R, parts: Sequence[str]) -> None:
        """Compute the missing pieces of some parts.

        Raises:
            GenclsError: for a part that needs a result that is not computed yet.
        """
        for part in parts:
            print(f"{part}:", flush=True)
            compute([*self.parts[part](run)])

    def report(self, run: R) -> Path:
        """Write the page, its tables and figures, from the folder of the run.

        Raises:
            GenclsError: if the folder holds no results.
        """
        sections = [*self.sections(run)]
        if not sections:
            raise GenclsError(f"{run.out}: expected at least one finished cell, got none")
        facts = {"Data": f"{run.data.name}, {run.data.split}", **run.facts, "Seed": str(run.seed), "Command": run.command}
        return write_paper(run.out, f"{self.title} on {run.data.name}", facts, sections, banner=self.banner(run))

    def banner(self, run: R) -> str:
        """Text above a page whose numbers differ from the paper's protocol; "" if they follow it."""
        paper, found = self.budgets["paper"], min(run.budget.count, len(run.data))
        count = f"N = {found:,}"
        if run.level == "smoke" or run.profile == self.profiles["smoke"]:
            said = f"Smoke run: everything once, as small as possible, to see that it works; {count}"
        elif replace(run.budget, count=paper.count) == paper and found == paper.count:
            return ""
        elif replace(run.budget, **{name: getattr(paper, name) for name in ("count", *paper.capped)}) == paper:
            fewer = f"Fewer images than the paper: {count} of {paper.count:,}"
            said = fewer if found < paper.count else f"More images than the paper's {paper.count:,}: {count}"
        else:
            said = f"{run.level.capitalize() or 'Other'} budget: attacks and draws are fewer than the paper's; {count}"
        return f"{said}. This is not the paper's protocol."

    def command(self, words: Sequence[str] | None = None) -> int:
        """Run the recipe as its command line says (None: the process's own); return the exit code."""
        words = sys.argv[1:] if words is None else words
        chosen = self.parser().parse_args(words)
        told = shlex.join(["python", "-m", f"recipes.{self.name}", *words])

        def work() -> None:
            runs = [self.plan(chosen, told, task) for task in self.several.get(chosen.profile, [chosen.profile])]
            for run in runs:  # before the first of them starts
                self._require(run, chosen.parts)
            for run in runs:
                if page := self.main(run, chosen.parts, dry_run=chosen.dry_run):
                    print("report:", page.resolve())

        return exit_code_of(self.name, work, out=chosen.out)
