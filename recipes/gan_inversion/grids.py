"""Figures 3.6, 3.7, 3.9, 3.11 and 3.12: the input beside what each class makes of it, the true class in a frame."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from gencls.eval.report.paper.figures import Tile, tile_grid
from gencls.eval.report.style import NamedFigure
from recipes.gan_inversion import experiments
from recipes.gan_inversion.interpolation import ORDERS, endpoints, interpolated
from recipes.gan_inversion.inversions import Found, Inversion, decode
from recipes.gan_inversion.runs import Run
from recipes.gan_inversion.settings import METHODS
from recipes.gan_inversion.tables import finished

_BORDER = 0.07
"""Width of the frame, as a share of the image's height."""

_FRAME = (0.11, 0.43, 0.24)


def grids(run: Run) -> Iterator[NamedFigure]:
    """Draw all grids that the folder of the run has data for."""
    weight, distance = min(run.budget.weights), run.profile.main[0]
    for letter, inversion in zip("ab", experiments.shown(run), strict=False):
        found = finished(run, [inversion], "examples", min(run.budget.shown, len(run.data)))
        yield from _grid(run, f"3.6{letter}", f"{inversion.head}, {inversion.steps} steps", found)
    if "3.1" in run.profile.tables:
        for letter, method in zip("abcdef", ("direct", "direct+", "enc", "enc+", "enc-d", "enc-d+"), strict=True):
            one = Inversion(method=method, weight=weight, distance=distance, steps=run.budget.steps)
            yield from _grid(run, f"3.7{letter}", f"{one.head}, {one.steps} steps", finished(run, [one]))
    if "3.7" in run.profile.tables:
        one = Inversion(method="enc-d", weight=1.0, distance=distance, steps=run.budget.steps)
        yield from _grid(run, "3.11", f"{one.head}, {one.steps} steps", finished(run, [one]), every_class=True)
    yield from _by_steps(run)
    yield from _lines(run)


def framed(image: Tensor, *, highlight: bool) -> Tensor:
    """Put a frame around an image (C, H, W), coloured or white; the result has three channels."""
    border = max(1, round(_BORDER * image.shape[-1]))
    colour = _FRAME if highlight else (1.0, 1.0, 1.0)
    channels = image.expand(3, -1, -1)
    return torch.stack([functional.pad(channels[c], (border,) * 4, value=colour[c]) for c in range(3)])


def _grid(
    run: Run, number: str, what: str, found: Mapping[Inversion, Found], *, every_class: bool = False
) -> Iterator[NamedFigure]:
    for inversion, one in found.items():
        rows = _one_per_class(one) if every_class else list(range(min(run.budget.shown, len(one.labels))))
        made = decode(run.classifier(inversion), tuple(level.to(run.device) for level in one.codes(rows))).cpu()
        names = run.data.class_names
        tiles = [
            [
                Tile(framed(run.data.images[i], highlight=False), names[label]),
                *(_tile(one, i, k, made[place, k], label) for k in range(made.shape[1])),
            ]
            for place, i in enumerate(rows)
            for label in [int(one.labels[i])]
        ]
        heads = ["input", *(name if len(name) <= 11 else f"{name[:10]}…" for name in names)]
        title = f"Figure {number}: {what}; the loss below, the true class in a frame"
        yield NamedFigure("examples", f"figure-{number}", title, tile_grid(tiles, heads))


def _tile(found: Found, i: int, k: int, image: Tensor, label: int) -> Tile:
    losses = found.losses[i]
    chosen = int(losses.argmin()) == k
    return Tile(framed(image, highlight=k == label), f"{float(losses[k]):.3g}", wrong=(k != label) if chosen else None)


def _one_per_class(found: Found) -> list[int]:
    firsts = ((found.labels == k).nonzero().flatten()[:1].tolist() for k in range(found.losses.shape[1]))
    return [i for first in firsts for i in first]


def _by_steps(run: Run) -> Iterator[NamedFigure]:
    """Draw Figure 3.12: the reconstructions of the true class with few and with many steps."""
    chosen = experiments.large_steps(run) if "3.8" in run.profile.tables else experiments.steps(run)
    found = finished(run, chosen)
    if len(found) < 2:
        return
    count = min(run.budget.shown, *(len(one.labels) for one in found.values()))
    columns = []
    for inversion, one in found.items():
        codes = tuple(one.in_domain(level)[:count].to(run.device) for level in one.codes())
        with torch.no_grad():
            columns.append(run.classifier(inversion).generator(codes, one.labels[:count].to(run.device)).cpu())
    rows = [[Tile(run.data.images[i]), *(Tile(column[i]) for column in columns)] for i in range(count)]
    heads = ["input", *(f"{inversion.steps} step{'s' * (inversion.steps != 1)}" for inversion in found)]
    title = f"Figure 3.12: reconstructions of the true class, {next(iter(found)).head}"
    yield NamedFigure("examples", "figure-3.12", title, tile_grid(rows, heads))


def _lines(run: Run) -> Iterator[NamedFigure]:
    """Draw Figure 3.9: the images on the line between two runs of Direct."""
    pair = endpoints(run, run.profile.main[0])
    found = finished(run, pair)
    if "3.4" not in run.profile.tables or len(found) < 2:
        return
    first, second = found.values()
    count = min(run.budget.shown, len(first.labels))
    made = interpolated(run.classifier(pair[0]), first, second, slice(0, count)).cpu()
    rows: list[Sequence[Tile]] = [[Tile(run.data.images[i]), *(Tile(image) for image in made[i])] for i in range(count)]
    heads = ["input", *(str(order) for order in range(ORDERS))]
    yield NamedFigure(
        "interpolation", "figure-3.9", f"Figure 3.9: between two runs of {METHODS['direct']}, λ = 1", tile_grid(rows, heads)
    )
