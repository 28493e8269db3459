"""Figures 2.3 to 2.8: adversarial examples of PGD, the closest that were found."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from gencls.eval import read_adversarials, read_records, read_study
from gencls.eval.report.formats import distance
from gencls.eval.report.paper.figures import Tile, tile_grid
from gencls.eval.report.style import NamedFigure
from gencls.eval.study.folder import read_cells, read_samples
from gencls.eval.study.settings import first_sample
from recipes.eabs.printed import MODELS
from recipes.eabs.runs import Run
from recipes.harness.records import begun

SHOWN = 4  # images in the figures that compare models


@dataclass(frozen=True)
class Example:
    """The closest adversarial of one image. Its distance is infinite if there is none, and 0 if the clean image is wrong."""

    image: Tensor | None
    distance: float = np.inf
    decision: int = -1

    def tile(self, names: tuple[str, ...]) -> Tile:
        """The image as a tile of a figure, with the decision and the distance below it."""
        if self.image is None:
            return Tile(None, "none found", wrong=False)
        how = distance(self.distance) if self.distance else "unchanged"
        return Tile(self.image, f"{_short(names[self.decision])}, {how}", wrong=True)


def closest_examples(folder: Path, norm: str) -> dict[int, Example]:
    """Sample -> its closest adversarial in a norm, over all attacks of a study."""
    records = read_records(folder)
    settings = read_study(folder)
    best: dict[int, Example] = {}
    clean, _ = read_samples(folder)
    for cell in read_cells(folder):
        images, first = read_adversarials(folder, cell), first_sample(settings, cell)
        rows = records[(records["attack"] == cell.attack) & (records["gradient"] == cell.mode)]
        rows = rows[(rows["norm"] == norm) & rows["sample"].isin(range(first, first + len(images)))]
        if not len(rows):  # a cell of the other norm
            continue
        for row, image in zip(rows.itertuples(), images, strict=True):
            found = best.setdefault(row.sample, Example(None))
            if not row.clean_majority_correct:
                best[row.sample] = Example(clean[row.sample], 0.0, _majority(row.clean_predictions))
            elif row.valid and not row.majority_correct and float(row.distance) < found.distance:
                best[row.sample] = Example(image, float(row.distance), _majority(row.predictions))
    return best


def _majority(predictions: Iterable[int]) -> int:
    return int(np.bincount(list(predictions)).argmax())


def example_figures(run: Run) -> Iterator[NamedFigure]:
    """Draw Figure 2.3 or 2.4 for E-ABS, and the figure that compares the models, from the studies in the run's folder."""
    folders = {model: run.out / "examples" / model for model in MODELS}
    folders = {model: folder for model, folder in folders.items() if begun(folder)}
    if not folders:
        return
    images, classes = read_samples(next(iter(folders.values())))
    labels, names = classes.tolist(), run.data.class_names
    found = {norm: {model: closest_examples(folder, norm) for model, folder in folders.items()} for norm in ("l2", "linf")}
    clean = [Tile(image, _short(names[label])) for image, label in zip(images, labels, strict=True)]
    if "eabs" in folders:
        adversarial = [found["l2"]["eabs"].get(i, Example(None)).tile(names) for i in range(len(images))]
        number = "2.3" if run.profile.table in ("2.2", "2.3") else "2.4"
        title = f"Figure {number}: clean images, and E-ABS's adversarial examples under PGD-L2 (decision, distance)"
        yield NamedFigure("examples", f"figure-{number}", title, tile_grid([clean, adversarial], ()))
    chosen = list(_chosen(labels, found["l2"]))
    rows = [[clean[i], *(by[i].tile(names) for norm in found.values() for by in norm.values())] for i in chosen]
    heads = ["clean", *(MODELS[model] for _ in found for model in folders)]
    groups = [("", 1), ("PGD-L2", len(folders)), ("PGD-L∞", len(folders))]
    title = f"Figure {run.profile.figure}: the closest adversarial examples (decision, distance)"
    yield NamedFigure("examples", f"figure-{run.profile.figure}", title, tile_grid(rows, heads, groups))


def _chosen(labels: list[int], found: Mapping[str, Mapping[int, Example]]) -> Iterator[int]:
    """Number the first images of different classes; those that all models get right come first."""
    right = [all(by.get(i, Example(None)).distance > 0 for by in found.values()) for i in range(len(labels))]
    classes: list[int] = []
    for i in sorted(range(len(labels)), key=lambda i: not right[i]):
        known = all(i in by for by in found.values())
        if known and labels[i] not in classes and len(classes) < SHOWN:
            classes.append(labels[i])
            yield i


def _short(name: str) -> str:
    return name if len(name) <= 12 else f"{name[:11]}…"
