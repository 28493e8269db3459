"""From records per sample to the table: accuracies, intervals, worst cases, warnings."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gencls.eval.statistics import pairwise_mcnemar, wilson
from gencls.eval.threat import TOLERANCE

if TYPE_CHECKING:
    import pandas

__all__ = ["COLUMNS", "WORST_CASE", "compare", "summarize"]

WORST_CASE = "worst case"

_THREAT_OF_DEFENSE = ["defense", "norm", "epsilon", "seed"]

COLUMNS = [
    *("defense", "attack", "gradient", "norm", "epsilon", "seed", "n", "draws"),
    *("clean_accuracy", "robust_accuracy", "ci_low", "ci_high", "majority_accuracy", "any_draw_accuracy"),
    *("claimed_robust_accuracy", "mean_distance", "forwards", "backwards", "seconds", "warnings"),
]

# An attack's own claim this far from the judge's finding deserves a warning: 13 to 28 points were seen in other tools.
_CLAIM_GAP = 0.05


def summarize(records: "pandas.DataFrame") -> "pandas.DataFrame":
    """The table of a study.

    ``robust_accuracy`` is the expected accuracy: the mean over samples of the fraction of draws that are right (for a
    deterministic defense just the accuracy); ``majority_accuracy`` counts samples right in more than half of the draws,
    ``any_draw_accuracy`` samples right in every draw (a single wrong draw counts as broken). Intervals are Wilson's, 95 %, over
    the N samples. In the worst case each sample counts with its worst attack and gradient mode.

    Args:
        records: as made by :func:`gencls.eval.evaluate`.

    Returns:
        One row per defense, attack, gradient mode and seed, and one per defense, norm, epsilon and seed for the worst case;
        columns :data:`COLUMNS`.
    """
    import pandas

    rows = []
    for (defense, norm, epsilon, seed), group in records.groupby(_THREAT_OF_DEFENSE, sort=False, dropna=False):
        key = {"defense": defense, "norm": norm, "epsilon": epsilon, "seed": seed}
        runs = [
            _row({**key, "attack": attack, "gradient": mode}, run)
            for (attack, mode), run in group.groupby(["attack", "gradient"], sort=False)
        ]
        _compare_with_noise(runs)
        rows += [*runs, _row({**key, "attack": WORST_CASE, "gradient": "all"}, worst_case(records, key))]
    return pandas.DataFrame(rows, columns=COLUMNS)


def worst_case(records: "pandas.DataFrame", key: Mapping[str, Any]) -> "pandas.DataFrame":
    """Per sample the record with the fewest right draws over all attacks and gradient modes, carrying the cost of all.

    What was found for another epsilon of the same norm counts where its distance lies within this one, so that accuracy
    never rises with epsilon.

    Args:
        records: of a study.
        key: the defense, norm, epsilon and seed in question.
    """
    same = (records["defense"] == key["defense"]) & (records["norm"] == key["norm"]) & (records["seed"] == key["seed"])
    if key["epsilon"] is not None and key["epsilon"] == key["epsilon"]:  # not NaN
        same &= records["distance"] <= key["epsilon"] + TOLERANCE
    records = records[same]
    order = records.sort_values(["correct", "distance"], kind="stable")
    worst = order.groupby("sample_hash", sort=False).head(1).set_index("sample_hash")
    costs = records.groupby("sample_hash", sort=False)[["forwards", "backwards", "seconds"]].sum()
    worst[costs.columns] = costs.loc[worst.index]
    worst["claimed"] = records.groupby("sample_hash", sort=False)["claimed"].any().loc[worst.index]
    return worst.reset_index().sort_values("sample_hash", kind="stable")


def compare(records: "pandas.DataFrame") -> "pandas.DataFrame":
    """McNemar's test on every pair of defenses under the worst case of each threat, Holm-corrected within the threat.

    A sample counts as right where the majority of draws is. Only samples that all defenses have met are compared.
    """
    import pandas

    tables = []
    for (norm, epsilon, seed), group in records.groupby(["norm", "epsilon", "seed"], sort=False, dropna=False):
        right = {
            str(defense): worst_case(records, {"defense": defense, "norm": norm, "epsilon": epsilon, "seed": seed}).set_index(
                "sample_hash"
            )["correct"]
            > 0.5
            for defense in group["defense"].unique()
        }
        if len(right) > 1:
            both = sorted(set.intersection(*(set(series.index) for series in right.values())))  # a study may be unfinished
            pairs = pairwise_mcnemar({defense: series.loc[both].to_numpy() for defense, series in right.items()})
            tables.append(pairs.assign(norm=norm, epsilon=epsilon, seed=seed))
    return pandas.concat(tables, ignore_index=True) if tables else pandas.DataFrame()


def _row(key: dict[str, Any], run: "pandas.DataFrame") -> dict[str, Any]:
    run = run.sort_values("sample_hash", kind="stable")  # sums in a fixed order: equal to the last bit for any sharding
    count = len(run)
    robust = float(run["correct"].mean())
    low, high = wilson(robust * count, count)
    moved = run["distance"].to_numpy()[run["distance"].to_numpy() > 0]
    row = {
        **key,
        "n": count,
        "draws": int(run["draws"].max()),
        "clean_accuracy": float(run["clean_correct"].mean()),
        "robust_accuracy": robust,
        "ci_low": low,
        "ci_high": high,
        "majority_accuracy": float((run["correct"] > 0.5).mean()),
        "any_draw_accuracy": float((run["correct"] == 1.0).mean()),
        "claimed_robust_accuracy": float((~run["claimed"].astype(bool)).mean()),
        "mean_distance": float(moved.mean()) if len(moved) else 0.0,
        "forwards": float(run["forwards"].mean()),
        "backwards": float(run["backwards"].mean()),
        "seconds": float(run["seconds"].sum()),
    }
    noted = sorted({part for text in run["warnings"] for part in text.split("; ") if part})
    gap = row["claimed_robust_accuracy"] - robust
    if abs(gap) > _CLAIM_GAP:
        noted.append(f"the attack's own claim is {100 * gap:+.1f} points from what the judge found")
    return {**row, "warnings": "; ".join(noted)}


def _compare_with_noise(runs: list[dict[str, Any]]) -> None:
    """A gradient attack that does worse than random noise of the same size is broken or blocked."""
    blind = [run["robust_accuracy"] for run in runs if run["gradient"] == "none"]
    for run in runs:
        if blind and run["gradient"] != "none" and run["robust_accuracy"] > min(blind):
            message = f"weaker than random noise of the same size ({100 * min(blind):.1f} %): suspect masked gradients"
            run["warnings"] = "; ".join(part for part in (run["warnings"], message) if part)
