"""Harder attacks on images that stay right only with inference: does a gain outlive longer attacks?"""

from collections.abc import Iterator, Mapping
from functools import partial

from gencls.core.images import sample_hashes
from gencls.eval import PGD, Attack, Square, ThreatModel, Transfer
from gencls.eval.report.formats import MISSING
from gencls.eval.report.paper.page import Cell, PaperTable, Row
from recipes.harness.jobs import StudyJob
from recipes.harness.records import records_of, right_under, unfinished, unfinished_notes, warnings_of
from recipes.variational_smoothing.runs import Run
from recipes.variational_smoothing.settings import BASES

STEPS, DRAWS, QUERIES = 3, 4, 25
"""Factors for the budget's steps of PGD, draws per gradient, and queries of Square."""

ATTACKS = {"transfer": "Transfer", "pgd": "PGD", "pgd-targeted": "PGD, targeted", "square": "Square"}


def _rows(run: Run, kind: str) -> list[int] | None:
    """Positions of the images; None until all attacks on both defenses are finished."""
    folders = [f"main/{kind}-{which}" for which in ("base", "inference")]
    records = [records_of(run.out, folder) for folder in folders]
    if not all(map(len, records)) or unfinished(run.out, *folders):
        return None
    without, with_it = map(right_under, records)
    hashes = sample_hashes(run.data.images[: run.budget.count], run.data.labels[: run.budget.count])
    return [number for number, name in enumerate(hashes) if with_it[name] and not without[name]]


def _attacks(run: Run, kind: str) -> Mapping[str, Attack]:
    """Longer attacks, and the attacks that break the base model."""
    threat, steps = ThreatModel("linf", run.profile.size(kind)), STEPS * run.budget.pgd
    return {
        "transfer": Transfer(run.base(kind), PGD(threat, steps=steps, loss="margin", to_the_end=True)),
        "pgd": PGD(threat, steps=steps, loss="margin"),
        "pgd-targeted": PGD(threat, steps=steps, restarts=max(3, run.budget.targets), loss="multi-targeted"),
        "square": Square(threat, queries=QUERIES * run.budget.queries),
    }


def survivor_jobs(run: Run) -> Iterator[StudyJob]:
    """Yield one study for each base model around which there are such images.

    The part "main" shows which images survive. Until it is finished, all of them may.
    """
    for kind in run.bases:
        rows: int | list[int] | None = _rows(run, kind)
        if rows is None and run.foreseen:
            rows = run.budget.count
        if rows:
            harder, eot = _attacks(run, kind), DRAWS * run.budget.eot
            yield run.job(f"survivors/{kind}", kind, partial(run.inference, kind), harder, rows, eot)


def survivor_table(run: Run) -> PaperTable | None:
    """Make a table of how many survivors the harder attacks leave."""
    found = {kind: records for kind in run.bases if len(records := records_of(run.out, f"survivors/{kind}"))}
    if not found:
        return None
    rows = list[Row]()
    for kind, records in found.items():
        met = [attack for attack in ATTACKS if records["attack"].eq(attack).any()]
        left = {attack: f"{right_under(records, (attack,)).sum()}" for attack in met}
        count, worst = records["sample_hash"].nunique(), right_under(records).sum()
        cells = [Cell(f"{count}"), *(Cell(left.get(attack, MISSING)) for attack in ATTACKS), Cell(f"{worst}")]
        rows.append(Row(f"{BASES[kind]} + inference", tuple(cells)))
    budget = run.budget
    return PaperTable(
        "survivors",
        "Images that are right only with inference, attacked harder",
        ("", "images", *ATTACKS.values(), "all"),
        tuple(rows),
        (
            "Numbers of images that stay right, of those that all attacks of Tables 4.1 and 4.3 left right with inference and "
            "broke without it.",
            f"Transfer: PGD on margins ({STEPS * budget.pgd} steps) on the base model. PGD on margins {STEPS * budget.pgd} "
            f"steps, targeted {max(3, budget.targets)} x {STEPS * budget.pgd}, EoT {DRAWS * budget.eot}, in every gradient "
            f"mode. Square {QUERIES * budget.queries} queries.",
            *unfinished_notes(run.out, {f"{BASES[kind]} + inference": f"survivors/{kind}" for kind in found}),
            *warnings_of({BASES[kind]: records for kind, records in found.items()}),
        ),
    )
