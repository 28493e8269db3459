"""What a study will cost, predicted from a first batch, and a progress bar that knows it."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from gencls.eval.measures.domains import as_number
from gencls.eval.measures.names import shortened
from gencls.eval.study.folder import StudyCell
from gencls.eval.study.study import Study

__all__ = ["counted", "duration", "predict_cost", "progress_bar"]

_PROBE = 8


def predict_cost(study: Study, cells: Sequence[StudyCell]) -> list[float]:
    """Seconds that each cell will take at most, from timing the passes that its attack makes on a few images.

    An upper bound as a rule: images that break early leave a restart, and a larger batch is cheaper per image.
    """
    seconds: dict[tuple[str, str], tuple[float, float, float]] = {}
    costs = []
    for cell in cells:
        attack = study.attacks[cell.attack]
        if (cell.defense, cell.mode) not in seconds:
            few = slice(_PROBE)
            seconds[cell.defense, cell.mode] = study.runner(cell).seconds_per_image(study.images[few], study.labels[few])
        forward, judging, gradient = seconds[cell.defense, cell.mode]
        forwards, gradients = attack.passes
        forwards += 1  # the attack's own claim
        costs.append(len(study.samples(cell)) * (forwards * forward + judging + gradients * gradient))
    return costs


def progress_bar(study: Study) -> Callable[[Sequence[StudyCell]], "object"]:
    """For :meth:`Study.run`: prints the predicted cost, then a bar whose time left follows from cost and speed so far."""

    @contextmanager
    def bar(cells: Sequence[StudyCell]) -> Iterator[Callable[[StudyCell], None]]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(markup=False, emoji=False)  # a name may hold brackets and colons
        if not cells:
            console.print("All cells of this study are finished.")
            yield lambda cell: None
            return
        for name, probe in study.probes.items():
            if probe.behaviour.judged(study.defenses[name]) is not study.defenses[name]:
                console.print(
                    f"{name}: one draw serves the whole batch, or images count for each other; each image and draw "
                    "takes a forward pass of its own."
                )
        console.print(f"Measuring a first batch to predict the cost of {counted(len(cells), 'cell')} ...")
        costs = dict(zip((cell.key for cell in cells), predict_cost(study, cells), strict=True))
        total = sum(costs.values())
        size = max(len(study.samples(cell)) for cell in cells)
        found = f"{counted(len(cells), 'cell')} of up to {counted(size, 'sample')}"
        console.print(f"Predicted: about {duration(total)} at most for {found}.")
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[left]}"))
        with Progress(TextColumn("{task.description}", markup=False), *columns, console=console) as progress:
            task = progress.add_task("cells", total=len(cells), left=f"{duration(total)} left")
            began, done = time.perf_counter(), 0.0

            def finished(cell: StudyCell) -> None:
                nonlocal done
                done += costs[cell.key]
                left = (total - done) * (time.perf_counter() - began) / done if done else total
                label = f"{shortened(cell.defense, 40)} / {shortened(cell.attack, 40)} / {cell.mode}"
                progress.update(task, advance=1, description=label, left=f"{duration(left)} left")
                if not console.is_terminal:
                    console.print(f"finished {label}, {duration(left)} left")

            yield finished

    return bar


def counted(number: int, thing: str) -> str:
    """How many of something in words: "1 cell", "2 cells"."""
    return f"{number} {thing}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Seconds in words: "40 s", "12 min", "3.5 h"; less than none is none.

    Raises:
        GenclsError: for something else than a finite number.
    """
    seconds = as_number(seconds, "duration: seconds", -math.inf, math.inf)
    if seconds < 90:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
