"""The cost of a study, predicted from a first batch; a dry run that leaves no trace, and a progress bar."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from gencls.core import GenclsError
from gencls.core.words import counted
from gencls.eval.measures.domains import as_number
from gencls.eval.measures.names import shortened
from gencls.eval.study.files import StudyCell
from gencls.eval.study.grid import Grid

_PROBE = 8


def predict_cost(study: Grid, cells: Sequence[StudyCell]) -> list[float]:
    """Most seconds of each cell, from timing the passes of its attack on a few images.

    This is usually an upper bound: images that break early leave a restart, and a larger batch is cheaper per image.
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


def forecast(study: Grid) -> Iterator[str]:
    """The missing cells of a study and the most time that they take: a line for each defense, then one for all."""
    cells, every = study.missing(), study.cells()
    costs = predict_cost(study, cells)
    for name in study.defenses:
        own = [cost for cell, cost in zip(cells, costs, strict=True) if cell.defense == name]
        yield f"{name}: {counted(len(own), 'cell')}, {duration(sum(own))}"
    left = f"{len(cells)} of {counted(len(every), 'cell')}, {counted(len(study.images), 'image')}"
    yield f"predicted: {duration(sum(costs))} at most for {left}"


@contextmanager
def shadow(folder: Path) -> Iterator[Path]:
    """A temporary folder with links to the files of another, if it exists; writing to the first does not change the second.

    Studies claim their folder when they are planned. In the shadow they find the finished cells, and leave nothing behind.
    Errors name the folder itself.
    """
    if folder.exists() and not folder.is_dir():
        yield folder  # the study reports the error; nothing can be written below a file
        return
    with TemporaryDirectory(prefix="gencls-") as place:
        copy = Path(place) / "shadow"
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                link = copy / path.relative_to(folder)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path.absolute())
        try:
            yield copy
        except GenclsError as error:
            raise GenclsError(str(error).replace(str(copy), str(folder))) from error


def progress_bar(study: Grid) -> Callable[[Sequence[StudyCell]], "object"]:
    """Report progress of :meth:`gencls.eval.Study.run`: the predicted cost, then a bar with the time left at this speed."""

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


def duration(seconds: float) -> str:
    """Seconds in words: "40 s", "12 min", "3.5 h"; a negative number counts as 0.

    Raises:
        GenclsError: for anything but a finite number.
    """
    seconds = as_number(seconds, "duration: seconds", -math.inf, math.inf)
    if seconds < 90:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
