"""What a study would compute and cost, found out without a trace."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from gencls.core import GenclsError
from gencls.eval.study.cost import counted, duration, predict_cost
from gencls.eval.study.study import Study

__all__ = ["forecast", "shadow"]


@contextmanager
def shadow(folder: Path) -> Iterator[Path]:
    """A temporary folder that holds links to the files of another: what is written to it leaves the other as it is.

    Studies claim their folder when they are planned. In the shadow they find what is finished, and leave nothing behind.
    Errors name the folder itself.

    Args:
        folder: may be missing.
    """
    if folder.exists() and not folder.is_dir():
        yield folder  # what is wrong with it will be said; nothing can be written below a file
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


def forecast(study: Study) -> Iterator[str]:
    """What is left to compute of a study and how long it takes at most: a line for each defense, then for all of them."""
    cells, every = study.missing(), study.cells()
    costs = predict_cost(study, cells)
    for name in study.defenses:
        own = [cost for cell, cost in zip(cells, costs, strict=True) if cell.defense == name]
        yield f"{name}: {counted(len(own), 'cell')}, {duration(sum(own))}"
    left = f"{len(cells)} of {counted(len(every), 'cell')}, {counted(len(study.images), 'image')}"
    yield f"predicted: {duration(sum(costs))} at most for {left}"
