"""Tables 2.2 to 2.5 and their paired tests, from the folders of a run, with the thesis's numbers in brackets.

A sample counts as right if the majority of the judge's draws is right on every adversarial within the size in question. These
come from attacks with a budget, and from minimal-norm attacks if they lie within the size. Rows, worst cases and paired tests
count alike.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

import pandas as pd

from gencls.core import GenclsError
from gencls.eval import closest_distances
from gencls.eval.measures.statistics import pairwise_mcnemar
from gencls.eval.report.formats import MISSING, count, epsilon, probability
from gencls.eval.report.paper.page import Cell, PaperTable, Row
from gencls.eval.report.study.matrix import ALPHA, better, mcnemar_matrix
from gencls.eval.report.style import NamedFigure
from gencls.eval.threats.protocol import TOLERANCE
from recipes.eabs import printed
from recipes.eabs.runs import Run
from recipes.eabs.settings import ATTACKS, BLACK_BOX, FOLDERS, NORMS, THESIS
from recipes.harness.records import naturally_right, records_of, share, unfinished, warnings_of

ALL = "all-"
"""The keys of the rows of worst cases begin so."""


def left_right(records: pd.DataFrame, norm: str, size: float, attacks: Collection[str]) -> pd.Series:
    """Say by sample hash whether every adversarial that these attacks found lies farther than the size."""
    rows = records[(records["norm"] == norm) & records["attack"].isin([f"{attack}-{norm}" for attack in attacks])]
    return closest_distances(rows) > size + TOLERANCE if len(rows) else pd.Series(dtype=bool)


def accuracy_table(run: Run) -> tuple[PaperTable, dict[str, dict[str, pd.Series]]]:
    """Make Table 2.2 to 2.5. Also give, for each row of worst cases by its key, model -> which samples are right."""
    number, models = run.profile.table, list(printed.MODELS)
    folders = {model: tuple(f"{part}/{model}" for part in FOLDERS) for model in models}
    found = {model: records_of(run.out, *folders[model]) for model in models}
    found = {model: records for model, records in found.items() if len(records)}
    if not found:
        raise GenclsError(f"{run.out}: expected at least one finished cell of Table {number}, got none")
    theirs = printed.ACCURACY[number]
    clean = {model: share(naturally_right(records)) for model, records in found.items()}
    rows = [Row("Clean", tuple(Cell(clean.get(model, MISSING), f"{theirs['clean'][i]:g}") for i, model in enumerate(models)))]
    right: dict[str, dict[str, pd.Series]] = {}

    def line(head: str, norm: str, size: float, attacks: Collection[str], key: str = "") -> Row | None:
        cells, counts = [], set()
        for i, model in enumerate(models):
            own = left_right(found[model], norm, size, attacks) if model in found else pd.Series(dtype=bool)
            counts |= {len(own)} - {0}
            slip = "†" if (key, model) in printed.SLIPS[number] else ""
            cells.append(Cell(share(own), f"{theirs[key][i]:g}{slip}" if key in theirs else ""))
            if key.startswith(ALL) and len(own):
                right.setdefault(key, {})[model] = own
        fewer = f", N = {max(counts)}" if counts and max(counts) < total else ""
        return Row(head + fewer, tuple(cells), strong=len(attacks) > 1) if counts else None

    total = max(records["sample_hash"].nunique() for records in found.values())
    for norm, size in run.profile.threats:
        beyond = [attack for attack in ATTACKS if attack not in THESIS]
        lines: list[Row | None] = [Row(f"{NORMS[norm]} attacks (ε = {epsilon(size)})")]
        lines += [line(ATTACKS[attack], norm, size, (attack,), f"{attack}-{norm}") for attack in THESIS]
        lines.append(line(f"All {NORMS[norm]}, the thesis's attacks", norm, size, THESIS, f"all-{norm}"))
        lines += [line(ATTACKS[attack], norm, size, (attack,)) for attack in beyond]
        lines.append(line(f"All {NORMS[norm]}, ours too", norm, size, tuple(ATTACKS), f"all-ours-{norm}"))
        rows += [row for row in lines if row]
    rows += [Row("What it cost, attacks and judge together"), *_costs(found, models)]
    notes = [
        f"Accuracy in % on {total} images of {run.data.name} ({run.data.split}), with 95 % Wilson intervals. In brackets the "
        "thesis (1,000 images, its own networks and budgets). In the rows “All” the worst attack and gradient count for each "
        "image. DDN, C&W, DeepFool, multi-targeted PGD and PGD along smoothed gradients use the frozen gradient (eq. 2.9) "
        "only, PGD the unrolled one too.",
        f"Budget: {run.budget.spent}.",
        *dict.fromkeys(f"† {slip}." for slip in printed.SLIPS[number].values()),
        *(
            f"{printed.MODELS[model]}: its worst cases leave out attacks that are not finished: {', '.join(left)}."
            for model in found
            if (left := unfinished(run.out, *folders[model]))
        ),
        *warnings_of({printed.MODELS[model]: records_of(run.out, *folders[model][:-1]) for model in found}),
        *_black_box_warnings(run, {printed.MODELS[model]: (folders[model], records) for model, records in found.items()}),
    ]
    columns = ("", *(printed.MODELS[model] for model in models))
    title = f"Table {number}: accuracy under bounded perturbations, {run.data.name}"
    return PaperTable(f"table-{number}", title, columns, tuple(rows), tuple(notes)), right


def _costs(found: Mapping[str, pd.DataFrame], models: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of costs: passes per image (each draw counts as one) and wall-clock minutes."""

    def cells(value: Mapping[str, str]) -> tuple[Cell, ...]:
        return tuple(Cell(value.get(model, MISSING)) for model in models)

    per_image = {
        model: records.groupby("sample_hash")[["forwards", "backwards"]].sum().mean() for model, records in found.items()
    }
    for kind in ("forwards", "backwards"):
        yield Row(
            f"{kind.capitalize()} per image", cells({model: count(round(sums[kind])) for model, sums in per_image.items()})
        )
    yield Row("Minutes in all", cells({model: f"{records['seconds'].sum() / 60:.1f}" for model, records in found.items()}))


def _black_box_warnings(run: Run, found: Mapping[str, tuple[Sequence[str], pd.DataFrame]]) -> Iterator[str]:
    """Yield the warnings of gradient-free attacks, and of attacks with gradients that do worse on the same samples."""
    weaker = tuple(f"⚠ weaker than {attack}-" for attack in BLACK_BOX)
    alone, met = {}, {}
    for name, (folders, records) in found.items():
        alone[name] = records_of(run.out, folders[-1])
        if len(alone[name]):
            met[name] = records[records["sample_hash"].isin(alone[name]["sample_hash"])]
    yield from (warning for warning in warnings_of(alone) if not warning.startswith("⚠ weaker than"))
    yield from (warning for warning in warnings_of(met) if warning.startswith(weaker))


def mcnemar(run: Run, right: Mapping[str, Mapping[str, pd.Series]]) -> Iterator[tuple[PaperTable, NamedFigure]]:
    """Make the paired tests of Tables 2.2 to 2.5, on the samples that all models have met.

    Each norm has a test under all of the thesis's attacks, and one under ours too. If only our attacks see through a model's
    gradients, the thesis's attacks find the model better than it is.
    """
    for key, by_model in right.items():
        *ours, norm = key.removeprefix(ALL).split("-")
        both = sorted(set.intersection(*(set(own.index) for own in by_model.values())))
        if len(by_model) < 2 or not both:
            continue
        pairs = pairwise_mcnemar({printed.MODELS[model]: own.loc[both].to_numpy() for model, own in by_model.items()})
        open_pairs = {
            frozenset(printed.MODELS[model] for model in pair) for pair in printed.INSIGNIFICANT[run.profile.table][norm]
        }
        whose = ", ours too" if ours else " of the thesis"
        rows = []
        for pair in pairs.itertuples():
            side = better(pair.p_holm, pair.only_a, pair.only_b)
            winner = {1: pair.defense_a, -1: pair.defense_b, 0: "not decided"}[side]
            theirs = "not decided" if frozenset({pair.defense_a, pair.defense_b}) in open_pairs else "different"
            theirs = MISSING if ours else theirs
            values = (str(pair.only_a), str(pair.only_b), probability(pair.p_value), probability(pair.p_holm), winner, theirs)
            rows.append(Row(f"{pair.defense_a} and {pair.defense_b}", tuple(map(Cell, values))))
        table = PaperTable(
            f"mcnemar-{run.profile.table}-{norm}{'-ours' if ours else ''}",
            f"McNemar's tests of Table {run.profile.table}, all {NORMS[norm]} attacks{whose}, N = {len(both)}",
            ("", "right: only the first", "only the second", "p", "p, Holm", "better", "thesis"),
            tuple(rows),
            (f"Exact tests at {100 * ALPHA:g} %, with Holm's correction over the pairs, which the thesis does not make.",),
        )
        figure = mcnemar_matrix(pairs, [printed.MODELS[model] for model in by_model])
        title = f"{NORMS[norm]} attacks{whose}, p-values after Holm's correction"
        yield table, NamedFigure("mcnemar", table.name, title, figure)
