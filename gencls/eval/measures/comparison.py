"""Compares defenses with each other by paired tests on the same samples."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from gencls.eval.measures.domains import sizes_by_norm
from gencls.eval.measures.records import broken, complete, same_size
from gencls.eval.measures.statistics import pairwise_mcnemar
from gencls.eval.measures.success_rates import closest_distances
from gencls.eval.measures.summary import worst_case
from gencls.eval.threats.protocol import TOLERANCE

if TYPE_CHECKING:
    import pandas


def compare(records: "pandas.DataFrame", *, at: Mapping[str, Sequence[float]] = MappingProxyType({})) -> "pandas.DataFrame":
    """Run McNemar's test on every pair of defenses under the worst case of each budget, exact and mid-p, each Holm-corrected.

    A sample counts as right if the majority of draws is right on its adversarial and on the clean image. Only samples that all
    defenses have met are compared. Minimal-norm attacks are no threat of their own here, since an accuracy without a bound says
    little: they count within the budgets.

    Args:
        records: the records of a study, one row per sample, defense, attack, gradient mode, budget and seed.
        at: norm -> further sizes, in the unit of the norm, at which minimal-norm records are compared without attacking again.

    Returns:
        The columns of :func:`gencls.eval.measures.statistics.pairwise_mcnemar`, and ``norm``, ``epsilon``, ``seed``,
        ``eight_bit``; empty without pairs. Holm's correction covers the pairs of one norm, epsilon and seed.

    Raises:
        GenclsError: records lack columns, or a size is no size.
    """
    import pandas

    records, at, tables = complete(records), sizes_by_norm(at), []
    for (norm, seed, eight_bit), group in records.groupby(["norm", "seed", "eight_bit"], sort=False):
        bounded, minimal = group[group["epsilon"].notna()], group[group["epsilon"].isna()]
        attacked = bounded["epsilon"].unique()
        more = [size for size in at.get(norm, ()) if not same_size(attacked, size).any()]
        for epsilon in [*attacked, *more]:
            there = minimal if epsilon in more else bounded[bounded["epsilon"] == epsilon]
            right = {}
            for defense in there["defense"].unique():
                key = {"defense": defense, "norm": norm, "seed": seed, "eight_bit": eight_bit}
                worst = worst_case(group, {**key, "epsilon": None if epsilon in more else epsilon})
                if epsilon in more:
                    right[str(defense)] = closest_distances(worst) > epsilon + TOLERANCE
                else:
                    right[str(defense)] = ~broken(worst).set_axis(worst["sample_hash"])
            if len(right) > 1:
                both = sorted(set.intersection(*(set(series.index) for series in right.values())))  # may be unfinished
                if both:
                    pairs = pairwise_mcnemar({defense: series.loc[both].to_numpy() for defense, series in right.items()})
                    tables.append(pairs.assign(norm=norm, epsilon=epsilon, seed=seed, eight_bit=eight_bit))
    return pandas.concat(tables, ignore_index=True) if tables else pandas.DataFrame()
