"""From records per sample to the table: accuracies, distances, intervals, worst cases, warnings."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gencls.eval.curves import closest_distances, record_distances
from gencls.eval.records import WORST_CASE, complete
from gencls.eval.statistics import bootstrap_band, pairwise_mcnemar, wilson
from gencls.eval.threat import TOLERANCE

if TYPE_CHECKING:
    import pandas

__all__ = ["COLUMNS", "WORST_CASE", "compare", "summarize", "worst_case"]

_THREAT_OF_DEFENSE = ["defense", "norm", "epsilon", "seed"]

COLUMNS = [
    *("defense", "attack", "gradient", "norm", "epsilon", "seed", "n", "draws"),
    *("clean_accuracy", "clean_majority_accuracy", "robust_accuracy", "ci_low", "ci_high"),
    *("majority_accuracy", "any_draw_accuracy", "undecided", "claimed_robust_accuracy"),
    *("median_distance", "median_distance_low", "median_distance_high"),
    *("mean_distance", "mean_distance_low", "mean_distance_high", "failures"),
    *("forwards", "backwards", "attack_draws", "seconds", "peak_memory", "warnings"),
]

# An attack's own claim this far from the judge's finding deserves a warning: 13 to 28 points were seen in other tools.
_CLAIM_GAP = 0.05

# Majorities that stay open at the judge's cap of draws deserve a warning from this share of the samples on.
_UNDECIDED_SHARE = 0.01


def summarize(records: "pandas.DataFrame") -> "pandas.DataFrame":
    """The table of a study.

    ``robust_accuracy`` is the expected accuracy: the mean over samples of the fraction of the first ``draws`` draws that are
    right (for a deterministic defense just the accuracy). ``majority_accuracy`` counts samples right in more than half of all
    their draws, ``undecided`` those where the judge could not tell at its cap of draws, ``any_draw_accuracy`` samples right
    in each of the first ``draws`` draws (a single wrong one counts as broken; the judge's further draws of undecided samples
    are left out, because the figure depends on the number of draws). Intervals are Wilson's, 95 %, over the N samples. In the
    worst case each sample counts with its worst attack and gradient mode.

    Distances are those of the closest adversarials found, in the sense of the majority; clean errors count as 0 (thesis Table
    2.6). ``failures`` counts the samples for which none was found. For minimal-norm attacks (epsilon NaN) a failure is
    infinitely far: the median counts it, and is infinite where half fail, the mean is over what was found, and both have
    percentile-bootstrap intervals. A fixed budget asks for no small perturbation: there a failure means "not within epsilon",
    and median and mean describe only what was found, most of it at epsilon. For minimal-norm attacks ``robust_accuracy``
    belongs to images on the boundary and says little; :func:`gencls.eval.curves.robust_accuracy` gives it at any epsilon.

    Args:
        records: as made by :func:`gencls.eval.evaluate`.

    Returns:
        One row per defense, attack, gradient mode and seed, and one per defense, norm, epsilon and seed for the worst case;
        columns :data:`COLUMNS`.

    Raises:
        GenclsError: for records that lack columns.
    """
    import pandas

    records = complete(records)
    rows = []
    for (defense, norm, epsilon, seed), group in records.groupby(_THREAT_OF_DEFENSE, sort=False, dropna=False):
        key = {"defense": defense, "norm": norm, "epsilon": epsilon, "seed": seed}
        runs = [
            _row({**key, "attack": attack, "gradient": mode}, run)
            for (attack, mode), run in group.groupby(["attack", "gradient"], sort=False)
        ]
        _compare_with_blind(runs, minimal=bool(np.isnan(epsilon)))
        rows += [*runs, _row({**key, "attack": WORST_CASE, "gradient": "all"}, worst_case(records, key))]
    return pandas.DataFrame(rows, columns=COLUMNS)


def worst_case(records: "pandas.DataFrame", key: Mapping[str, Any]) -> "pandas.DataFrame":
    """Per sample the most damaging record over all attacks and gradient modes, carrying the cost of all.

    With a budget it is the record with the fewest right draws. What was found for another epsilon of the same norm, or by a
    minimal-norm attack, counts where its distance lies within this one, so that accuracy never rises with epsilon. Without
    one (epsilon None or NaN) it is the closest successful adversarial over all attacks of the norm, also those with a budget.
    Only samples that were attacked under this very threat are there: an unfinished study must not count others' as robust.

    ``distance`` is that of the closest adversarial where there is one, ``majority_correct`` says that there is none, and a
    sample is undecided where no attack has broken it for sure and some may have.

    Args:
        records: of a study.
        key: the defense, norm, epsilon and seed in question.
    """
    records, minimal = complete(records), key["epsilon"] is None or bool(np.isnan(key["epsilon"]))
    rows = records[(records["defense"] == key["defense"]) & (records["norm"] == key["norm"]) & (records["seed"] == key["seed"])]
    here = rows["epsilon"].isna() if minimal else rows["epsilon"] == key["epsilon"]
    rows = rows[rows["sample_hash"].isin(rows.loc[here, "sample_hash"])]
    if not minimal:
        rows = rows[rows["distance"] <= key["epsilon"] + TOLERANCE]
    rows = rows.assign(closest=record_distances(rows))
    order = rows.sort_values(["closest", "correct", "distance"] if minimal else ["correct", "distance"], kind="stable")
    worst = order.groupby("sample_hash", sort=False).head(1).set_index("sample_hash").sort_index(kind="stable")
    samples = rows.groupby("sample_hash")  # sorted, as worst is
    costs = samples[["forwards", "backwards", "seconds"]].sum()
    most = samples[["attack_draws", "peak_memory"]].max()
    closest = samples["closest"].min()
    worst = worst.assign(**costs, **most, claimed=samples["claimed"].any())
    worst["distance"] = closest.where(np.isfinite(closest), worst["distance"])
    worst["valid"] = worst["valid"] | np.isfinite(closest)
    worst["majority_correct"] = ~np.isfinite(closest)
    if rows["undecided"].notna().all():
        open_ = rows["undecided"].astype(bool)
        broken = (~rows["majority_correct"] & ~open_) | ~rows["clean_majority_correct"]
        by_sample = rows["sample_hash"]
        worst["undecided"] = open_.groupby(by_sample).any() & ~broken.groupby(by_sample).any()
    return worst.drop(columns="closest").reset_index()


def compare(records: "pandas.DataFrame", *, at: Mapping[str, Sequence[float]] = MappingProxyType({})) -> "pandas.DataFrame":
    """McNemar's test on every pair of defenses under the worst case of each budget, exact and mid-p, each Holm-corrected.

    A sample counts as right where the majority of draws is. Only samples that all defenses have met are compared. Minimal-norm
    attacks are no threat of their own here, since what is left without a bound says little: they count within the budgets.

    Args:
        records: of a study.
        at: norm -> further sizes at which minimal-norm records are compared, without attacking again.

    Returns:
        The columns of :func:`gencls.eval.statistics.pairwise_mcnemar`, and ``norm``, ``epsilon``, ``seed``; empty without
        pairs. Holm's correction is over the pairs of one norm, epsilon and seed.

    Raises:
        GenclsError: for records that lack columns.
    """
    import pandas

    records = complete(records)
    tables = []
    for (norm, seed), group in records.groupby(["norm", "seed"], sort=False):
        bounded, minimal = group[group["epsilon"].notna()], group[group["epsilon"].isna()]
        attacked = list(bounded["epsilon"].unique())
        for epsilon in [*attacked, *(size for size in at.get(norm, ()) if size not in attacked)]:
            there = bounded[bounded["epsilon"] == epsilon] if epsilon in attacked else minimal
            right = {}
            for defense in there["defense"].unique():
                key = {"defense": defense, "norm": norm, "epsilon": epsilon if epsilon in attacked else None, "seed": seed}
                worst = worst_case(group, key)
                right[str(defense)] = worst.set_index("sample_hash")["majority_correct"]
                if epsilon not in attacked:
                    right[str(defense)] = closest_distances(worst) > epsilon + TOLERANCE
            if len(right) > 1:
                both = sorted(set.intersection(*(set(series.index) for series in right.values())))  # it may be unfinished
                if both:
                    pairs = pairwise_mcnemar({defense: series.loc[both].to_numpy() for defense, series in right.items()})
                    tables.append(pairs.assign(norm=norm, epsilon=epsilon, seed=seed))
    return pandas.concat(tables, ignore_index=True) if tables else pandas.DataFrame()


def _row(key: dict[str, Any], run: "pandas.DataFrame") -> dict[str, Any]:
    run = run.sort_values("sample_hash", kind="stable")  # sums in a fixed order: equal to the last bit for any sharding
    count, minimal = len(run), bool(np.isnan(key["epsilon"]))
    robust = float(run["correct"].mean())
    low, high = wilson(robust * count, count)
    undecided = run["undecided"].astype("float64")  # bool, or NaN where it is not known
    row = {
        **key,
        "n": count,
        "draws": int(run["draws"].max()),
        "clean_accuracy": float(run["clean_correct"].mean()),
        "clean_majority_accuracy": float(run["clean_majority_correct"].mean()),
        "robust_accuracy": robust,
        "ci_low": low,
        "ci_high": high,
        "majority_accuracy": float(run["majority_correct"].mean()),
        "any_draw_accuracy": float((run["correct"] == 1.0).mean()),
        "undecided": float("nan") if undecided.isna().any() else int(undecided.sum()),
        "claimed_robust_accuracy": float((~run["claimed"].astype(bool)).mean()),
        **_distances(record_distances(run).to_numpy(), minimal=minimal),
        "forwards": float(run["forwards"].mean()),
        "backwards": float(run["backwards"].mean()),
        "attack_draws": float(run["attack_draws"].max()),
        "seconds": float(run["seconds"].sum()),
        "peak_memory": float(run["peak_memory"].max()),
    }
    noted = sorted({part for text in run["warnings"] for part in text.split("; ") if part})
    # A minimal perturbation of a random defense ends where half of the draws are wrong: only the majority can confirm it.
    gap = row["claimed_robust_accuracy"] - (row["majority_accuracy"] if minimal else robust)
    if abs(gap) > _CLAIM_GAP:
        noted.append(f"the attack's own claim is {100 * gap:+.1f} points from what the judge found")
    if key["attack"] != WORST_CASE and row["undecided"] > _UNDECIDED_SHARE * count:
        noted.append(f"{row['undecided']} of {count} majorities are undecided at the judge's cap of draws")
    return {**row, "warnings": "; ".join(noted)}


def _distances(closest: npt.NDArray[np.float64], *, minimal: bool) -> dict[str, Any]:
    """The columns about distances of (N,) closest adversarials, infinite where none was found."""
    found = closest[np.isfinite(closest)]
    columns: dict[str, Any] = {"failures": len(closest) - len(found)}
    described = closest if minimal else found
    values, low, high = np.full((3, 2), np.nan)
    if len(described):
        values = _median_and_mean(described[None])[0]
    if minimal and len(found):
        low, high = bootstrap_band(closest, _median_and_mean)
    for i, name in enumerate(("median_distance", "mean_distance")):
        columns |= {name: float(values[i]), f"{name}_low": float(low[i]), f"{name}_high": float(high[i])}
    return columns


def _median_and_mean(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Distances (B, N) -> (B, 2): the median, infinite if (one of) the middle is, and the mean of the finite, or NaN."""
    finite = np.isfinite(rows)
    counts, totals = finite.sum(axis=1), np.where(finite, rows, 0.0).sum(axis=1)
    means = np.divide(totals, counts, out=np.full(len(rows), np.nan), where=counts > 0)
    return np.stack([np.median(rows, axis=1), means], axis=1)


def _compare_with_blind(runs: list[dict[str, Any]], *, minimal: bool) -> None:
    """An attack with gradients that does worse than one without (noise, black box) is broken or blocked.

    The runs are of one defense and threat. With a budget accuracies are compared, between minimal-norm attacks the medians of
    the distances; an attack of the one kind is never compared with one of the other.
    """
    measure = "median_distance" if minimal else "robust_accuracy"
    blind = [run for run in runs if run["gradient"] == "none"]
    if not blind:
        return
    best = min(blind, key=lambda run: float(run[measure]))
    value = f"median distance {best[measure]:.3g}" if minimal else f"{100 * best[measure]:.1f} %"
    for run in runs:
        if run["gradient"] != "none" and run[measure] > best[measure]:
            message = f"weaker than {best['attack']}, which uses no gradient ({value}): suspect masked gradients"
            run["warnings"] = "; ".join(part for part in (run["warnings"], message) if part)
