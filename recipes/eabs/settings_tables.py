"""Table 2.6 (ablation), Tables 2.7 to 2.9 (the attacks' settings) and the lower bounds, from the folders of a run."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from gencls.eval import closest_distances
from gencls.eval.measures.statistics import bootstrap_band, wilson
from gencls.eval.report.formats import MISSING, distance, epsilon, percent
from gencls.eval.report.paper.figures import plateau
from gencls.eval.report.paper.page import Cell, PaperTable, Row
from gencls.eval.report.style import NamedFigure
from gencls.eval.threats.protocol import TOLERANCE
from recipes.eabs import printed
from recipes.eabs.runs import Run
from recipes.eabs.settings import NORMS
from recipes.harness.records import Share, naturally_right, records_of, share, warnings_of


def ablation_table(run: Run, names: Sequence[str], missing: Sequence[str]) -> PaperTable | None:
    """Make Table 2.6 from the names that have records; a note below it lists the ``missing`` networks."""
    rows, counts, found = [], set(), {}
    for name in names:
        records = records_of(run.out, f"ablation/{name}")
        if not len(records):
            continue
        found[name] = records
        counts.add(records["sample_hash"].nunique())
        theirs = printed.ABLATION.get(name)
        cells = [Cell(share(naturally_right(records)), f"{theirs[0]:g}" if theirs else "")]
        for i, norm in enumerate(NORMS):
            closest = closest_distances(records[records["norm"] == norm]).to_numpy()
            reached = closest[np.isfinite(closest)]
            mean = _mean(closest) if len(reached) else MISSING
            never = f", {len(closest) - len(reached)} none" if len(reached) < len(closest) else ""
            printed_pair = "{:g} / {:g}".format(*theirs[1:][i]) if theirs else ""
            cells.append(Cell(f"{mean} / {distance(np.median(closest))}{never}", printed_pair))
        rows.append(Row(name, tuple(cells)))
    if not rows:
        return None
    one = next(iter(found.values()))
    sizes = {norm: ", ".join(map(epsilon, sorted(one.loc[one["norm"] == norm, "epsilon"].unique()))) for norm in NORMS}
    notes = [
        f"N = {'–'.join(map(str, sorted(counts)))}; in brackets the thesis, on SVHN. Natural accuracy is in %, with 95 % "
        "Wilson intervals. The other columns give the distance of PGD's closest adversarial: mean with a 95 % bootstrap "
        "interval / median. Clean errors count as 0. “none” counts the images without an adversarial at the largest size. The "
        "median takes them as infinite, the mean leaves them out.",
        f"PGD with {run.budget.ladder} steps from one start at each of the sizes L∞ {sizes['linf']} and "
        f"L2 {sizes['l2']}; EoT {run.budget.eot}, gradient: {run.budget.gradient}.",
        "The rows differ in more than their extensions. Their cards give dropout, learning rate, batches, epochs and how the "
        "encoder begins. ABS alone keeps its latents within a radius of 5. V-ABS does not start from an encoder's output, "
        "because the weights of ABS keep no encoders.",
        *_paired(found),
        *([f"Without weights, and so left out: {', '.join(missing)} (gencls train NAME)."] if missing else []),
        *warnings_of(found),
    ]
    title = f"Table 2.6: ablation of the extensions A, D and V on {run.data.name}"
    columns = ("Model", "Natural accuracy", "PGD-L∞, mean / median", "PGD-L2, mean / median")
    return PaperTable("table-2.6", title, columns, tuple(rows), tuple(notes))


def _paired(found: Mapping[str, pd.DataFrame]) -> list[str]:
    """Compare ADV-ABS with each other row, image by image: one note per norm, with the mean difference of the distances."""
    best, notes = "ADV-ABS", []
    for norm, label in NORMS.items():
        rows = {name: records[records["norm"] == norm] for name, records in found.items()}
        rows = {name: records for name, records in rows.items() if len(records)}
        if best not in rows:
            continue
        largest = max(records["epsilon"].max() for records in rows.values())
        closest = {name: closest_distances(records).clip(upper=largest) for name, records in rows.items()}
        ours = closest.pop(best)
        parts = []
        for name, others in closest.items():
            if set(others.index) != set(ours.index):
                continue
            ahead = (ours - others.loc[ours.index]).to_numpy()
            low, high = bootstrap_band(ahead, lambda drawn: drawn.mean(axis=1, keepdims=True))
            parts.append(f"{name} {ahead.mean():.3g} [{low[0]:.3g}, {high[0]:.3g}]")
        if parts:
            notes.append(
                f"{label}: the distance that breaks {best} minus the distance that breaks another row, mean over the same "
                f"images with a 95 % paired bootstrap interval (uncorrected). Above 0, {best} is harder to break. An image "
                f"that nothing breaks counts with the largest size. {', '.join(parts)}."
            )
    return notes


def _mean(closest: npt.NDArray[np.float64]) -> str:
    """Write the mean of the finite distances, with its interval."""

    def means(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        finite = np.isfinite(rows)
        count = np.where(finite.any(axis=1), finite.sum(axis=1), np.nan)  # a resample may have none
        found: npt.NDArray[np.float64] = np.where(finite, rows, 0).sum(axis=1) / count
        return found[:, None]

    low, high = bootstrap_band(closest, means)
    return f"{distance(means(closest[None])[0, 0])} [{distance(low[0])}, {distance(high[0])}]"


def sweep(
    run: Run,
    number: str,
    setting: str,
    by_value: Mapping[int, pd.DataFrame],
    how: str,
    *,
    chosen: int,
) -> tuple[PaperTable, NamedFigure] | None:
    """Make one of Tables 2.7 to 2.9 and its plateau: accuracy of E-ABS under PGD-Linf along one setting.

    Args:
        run: the run whose budget was spent.
        number: number of the table, "2.7" to "2.9".
        setting: name of the setting that varies.
        by_value: value of the setting -> its records.
        how: the settings that do not vary, in words.
        chosen: the value that the table of accuracies uses.
    """
    theirs, shares = printed.SWEEPS[number], {}
    by_value = {value: records for value, records in sorted(by_value.items()) if len(records)}
    for value, records in by_value.items():
        right = closest_distances(records) > run.profile.linf + TOLERANCE
        shares[value] = Share(float(right.sum()), len(right))
    if not shares:
        return None
    values = sorted({*shares, *theirs})
    cells = tuple(
        Cell(shares[value].text if value in shares else MISSING, f"{theirs[value]:g}" if value in theirs else "")
        for value in values
    )
    total = "–".join(str(count) for count in sorted({share.total for share in shares.values()}))
    table = PaperTable(
        f"table-{number}",
        f"Table {number}: {setting}, E-ABS on {run.data.name} under PGD-L∞ (ε = {epsilon(run.profile.linf)})",
        (setting, *map(str, values)),
        (Row("Accuracy", cells),),
        (
            f"Accuracy in % with 95 % Wilson intervals, N = {total}; {how}, gradient: {run.budget.gradient}. In brackets the "
            "thesis, on SVHN at 8/255.",
            *warnings_of({f"{setting} {value}": records for value, records in by_value.items()}),
        ),
    )
    ours = [(share.right / share.total, *wilson(share.right, share.total)) for share in shares.values()]
    points = [(value, accuracy / 100) for value, accuracy in theirs.items()]
    figure = plateau(setting, list(shares), ours, points, chosen=chosen, source="thesis, SVHN")
    return table, NamedFigure("sweeps", table.name, f"Table {number}", figure)


def bound_table(run: Run, frames: Iterable[tuple[str, pd.DataFrame]], missing: Sequence[str]) -> PaperTable | None:
    """Make the table of the bounds of eq. 2.7 beside the attacked distances.

    Args:
        run: the run whose budget was spent.
        frames: names of Table 2.6, each with the result of :func:`gencls.defenses.compare_to_bound`, with the sharper bound.
        missing: names of the networks without weights.
    """
    rows = []
    for name, frame in frames:
        low, sharper, found = (frame[column].to_numpy() for column in ("bound", "sharper", "distance"))
        right = found > 0
        attacked = np.median(found[right]) if right.any() else float("nan")
        values = (
            str(len(frame)),
            percent(right.mean()),
            distance(np.median(low[right])) if right.any() else MISSING,
            distance(np.median(sharper[right])) if right.any() else MISSING,
            distance(attacked),
            str(int(frame["violation"].sum())),
            str(int(frame["sharper_violation"].sum())),
        )
        rows.append(Row("E-ABS, point inference" if name == "AD-ABS" else name, tuple(map(Cell, values))))
    if not rows:
        return None
    columns = ("Model", "N", "Clean, %", "Bound", "Sharper bound", "Attacked", "Below the bound", "Below the sharper")
    notes = (
        "Median L2 distances over the images that the model gets right. “Bound” is the lower bound of eq. 2.7, corrected "
        "(docs/bounds.md). “Sharper bound” is its sharper form. “Attacked” is the closest adversarial of DDN, C&W, DeepFool "
        "and latent descent.",
        "The last columns count adversarials below the bounds. Exact inference has none. Here a search finds the minima, with "
        f"{run.budget.bound_steps} steps from several starts, and the defense's own inference is shorter.",
        *([f"Without weights: {', '.join(missing)} (gencls train NAME)."] if missing else []),
    )
    return PaperTable("bounds", "Eq. 2.7: lower bounds beside attacked distances", columns, tuple(rows), notes)
