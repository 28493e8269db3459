"""Turns records per sample into the table of a study: accuracies, distances, intervals, worst cases, warnings."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gencls.eval.measures.names import WORST_CASE
from gencls.eval.measures.records import (
    ALL_MODES,
    NO_GRADIENT,
    broken,
    complete,
    judged,
    same_size,
    surely_broken,
    surely_right,
)
from gencls.eval.measures.rivals import closest, rivals, unmet, weakness
from gencls.eval.measures.statistics import bootstrap_band, wilson
from gencls.eval.measures.success_rates import record_distances
from gencls.eval.threats.protocol import TOLERANCE

if TYPE_CHECKING:
    import pandas

_DEFENSE = ["defense", "norm", "seed", "eight_bit"]

COLUMNS = [
    *("defense", "attack", "gradient", "norm", "epsilon", "seed", "eight_bit", "n", "excluded", "draws"),
    *("clean_accuracy", "clean_majority_accuracy", "clean_majority_low", "clean_majority_high"),
    *("robust_accuracy", "ci_low", "ci_high"),
    *("majority_accuracy", "majority_low", "majority_high", "any_draw_accuracy", "undecided", "claimed_robust_accuracy"),
    "lost_to_eight_bit",
    *("median_distance", "median_distance_low", "median_distance_high"),
    *("mean_distance", "mean_distance_low", "mean_distance_high", "failures"),
    *("forwards", "backwards", "attack_draws", "seconds", "peak_memory", "warnings"),
]

# An attack whose claim is this far from the judge's finding gets a warning: other tools were off by 13 to 28 points.
_CLAIM_GAP = 0.05

# One-sided normal quantile: the mean over samples of what an attack adds to the accuracy, over its standard error.
_GAIN = 1.645

# From this share of the samples on, majorities that stay open at the judge's cap of draws bring a warning.
_UNDECIDED_SHARE = 0.01


def summarize(records: "pandas.DataFrame") -> "pandas.DataFrame":
    """Compute the table of a study.

    ``robust_accuracy`` is the expected accuracy: the mean over samples of the fraction of the first ``draws`` draws that are
    right (for a deterministic defense it is just the accuracy). ``majority_accuracy`` counts samples right in more than half of
    all their draws, on the adversarial and on the clean image. ``undecided`` counts samples whose majority the judge could not
    tell at its cap of draws. They make the majority a range: ``majority_low`` counts them all as wrong, ``majority_high`` as
    right; the clean columns work alike.
    ``any_draw_accuracy`` counts samples right in each of the first ``draws`` draws: one wrong draw breaks a sample. It leaves
    out the judge's further draws of undecided samples, because the figure depends on the number of draws. Intervals are
    Wilson's, 95 %, over the N samples. In the worst case each sample counts with its worst attack and gradient mode. A warning
    says if others have met more attacks.

    N leaves out the ``excluded`` samples: their adversarials broke the rules, and nothing is known about them. With 8 bits
    ``lost_to_eight_bit`` counts samples that were broken before their adversarials were rounded and are not broken afterwards.

    Distances belong to the closest adversarials that turned the majority; clean errors count as 0 (thesis Table 2.6).
    ``failures`` counts the samples without any. For minimal-norm attacks (epsilon NaN) a failure is infinitely far: the median
    counts it, and is infinite if half fail; the mean covers only what was found. Both have percentile-bootstrap intervals. A
    fixed budget asks for no small perturbation: there a failure means "not within epsilon", and median and mean describe only
    what was found, most of it at epsilon. For minimal-norm attacks ``robust_accuracy`` belongs to images on the boundary and
    says little; :func:`gencls.eval.measures.success_rates.robust_accuracy` gives it at any epsilon.

    Args:
        records: a table from :func:`gencls.eval.evaluate`, one row per sample and attack.

    Returns:
        One row per defense, attack, gradient mode and seed, and one per defense, norm, epsilon and seed for the worst case;
        columns :data:`COLUMNS`.

    Raises:
        GenclsError: the records lack columns.
    """
    import pandas

    records, rows = complete(records), []
    against = {of: rivals(judged(own)) for of, own in records.groupby(_DEFENSE, sort=False)}
    for (*of, epsilon), group in records.groupby([*_DEFENSE, "epsilon"], sort=False, dropna=False):
        key = {**dict(zip(_DEFENSE, of, strict=True)), "epsilon": epsilon}
        size = None if np.isnan(epsilon) else float(epsilon)
        seeing = []
        for (attack, mode), run in group.groupby(["attack", "gradient"], sort=False):
            row = _row({**key, "attack": attack, "gradient": mode}, run)
            if mode != NO_GRADIENT:
                seeing.append(judged(run))
                others = [rival for rival in against[tuple(of)] if rival.attack != attack]
                _warn(row, weakness(closest(seeing[-1]), others, size))
            rows.append(row)
        worst = _row({**key, "attack": WORST_CASE, "gradient": ALL_MODES}, worst_case(records, key))
        worst["excluded"] = group["sample_hash"].nunique() - worst["n"]
        _warn(worst, _violations(group, f", samples without a valid one are excluded: N = {worst['n']}"))
        _warn(worst, unmet(records, group))
        if seeing:
            _warn(worst, weakness(closest(pandas.concat(seeing)), against[tuple(of)], size, together=True))
        rows.append(worst)
    return pandas.DataFrame(rows, columns=COLUMNS)


def worst_case(records: "pandas.DataFrame", key: Mapping[str, Any]) -> "pandas.DataFrame":
    """Take for each sample the most damaging record over all attacks and gradient modes, with the cost of all.

    With a budget it is the record with the fewest right draws. An adversarial found for another epsilon of the same norm, or by
    a minimal-norm attack, counts if its distance lies within this epsilon, so that accuracy never rises with epsilon. Without a
    budget (epsilon None or NaN) it is the closest successful adversarial over all attacks of the norm, with or without a
    budget. The result has only samples that were attacked under this very threat: an unfinished study must not count others as
    robust. Each of them needs a valid adversarial of this threat, or another attack that has broken it within the threat.

    ``distance`` is the distance of the closest adversarial, if any. ``majority_correct`` says that there is none. A sample is
    undecided if no attack has broken it for sure and some may have.

    Args:
        records: the records of a study.
        key: the defense, norm, epsilon and seed to select, and ``eight_bit`` if it is not False.
    """
    records, minimal = complete(records), key["epsilon"] is None or bool(np.isnan(key["epsilon"]))
    rows = records[(records["defense"] == key["defense"]) & (records["norm"] == key["norm"]) & (records["seed"] == key["seed"])]
    rows = rows[rows["eight_bit"] == key.get("eight_bit", False)]
    here = rows["epsilon"].isna() if minimal else same_size(rows["epsilon"], key["epsilon"])
    asked = rows.assign(here=here)[rows["sample_hash"].isin(rows.loc[here, "sample_hash"])]
    rows = judged(asked)
    if not minimal:
        rows = rows[rows["distance"] <= key["epsilon"] + TOLERANCE]
    rows = rows.assign(closest=record_distances(rows), right=surely_right(rows), broken=surely_broken(rows))
    if not asked["valid"].all():
        known = rows["here"] | np.isfinite(rows["closest"])
        rows = rows[known.groupby(rows["sample_hash"]).transform("any")]
    order = rows.sort_values(["closest", "correct", "distance"] if minimal else ["correct", "distance"], kind="stable")
    worst = order.groupby("sample_hash", sort=False).head(1).set_index("sample_hash").sort_index(kind="stable")
    samples = rows.groupby("sample_hash")  # sorted, as worst is
    costs = samples[["forwards", "backwards", "seconds"]].sum()
    most = samples[["attack_draws", "peak_memory"]].max()
    closest_found = samples["closest"].min()
    worst = worst.assign(**costs, **most, claimed=samples["claimed"].any())
    worst["distance"] = closest_found.where(np.isfinite(closest_found), worst["distance"])
    worst["majority_correct"] = ~np.isfinite(closest_found)
    worst["broken_unrounded"] = samples["broken_unrounded"].max()  # NaN if nothing was rounded
    if rows["undecided"].notna().all():
        worst["undecided"] = ~samples["right"].all() & ~samples["broken"].any()
    return worst.drop(columns=["closest", "right", "broken", "here"]).reset_index()


def _row(key: dict[str, Any], run: "pandas.DataFrame") -> dict[str, Any]:
    everything = run.sort_values("sample_hash", kind="stable")  # sums in a fixed order: equal to the last bit for any sharding
    run, minimal = judged(everything), bool(np.isnan(key["epsilon"]))
    count, right, wrong = len(run), surely_right(run), surely_broken(run)
    robust = float(run["correct"].mean())
    low, high = wilson(robust * count, count) if count else (float("nan"), float("nan"))
    undecided = float("nan") if run["undecided"].isna().any() else int((~right & ~wrong).sum())
    row = {
        **key,
        "n": count,
        "excluded": len(everything) - count,
        "draws": int(everything["draws"].max()) if len(everything) else float("nan"),
        "clean_accuracy": float(run["clean_correct"].mean()),
        "clean_majority_accuracy": float(run["clean_majority_correct"].mean()),
        **_clean_range(run),
        "robust_accuracy": robust,
        "ci_low": low,
        "ci_high": high,
        "majority_accuracy": float((~broken(run)).mean()),
        "majority_low": float("nan") if np.isnan(undecided) else float(right.mean()),
        "majority_high": float("nan") if np.isnan(undecided) else float((~wrong).mean()),
        "any_draw_accuracy": float((run["correct"] == 1.0).mean()),
        "undecided": undecided,
        "claimed_robust_accuracy": float((~run["claimed"].astype(bool)).mean()),
        "lost_to_eight_bit": _lost(run),
        **_distances(record_distances(run).to_numpy(), minimal=minimal),
        "forwards": float(everything["forwards"].mean()),
        "backwards": float(everything["backwards"].mean()),
        "attack_draws": float(everything["attack_draws"].max()),
        "seconds": float(everything["seconds"].sum()),
        "peak_memory": float(everything["peak_memory"].max()),
        "warnings": "; ".join(sorted({part for text in run["warnings"] for part in text.split("; ") if part})),
    }
    _warn(row, _violations(everything, f" and are excluded: N = {count}"))
    # A minimal perturbation of a random defense ends where half of the draws are wrong: only the majority can confirm it.
    gap = row["claimed_robust_accuracy"] - (row["majority_accuracy"] if minimal else robust)
    if abs(gap) > _CLAIM_GAP:
        before = ", made before rounding to 8 bits," if key["eight_bit"] else ""
        _warn(row, f"the attack's own claim{before} is {100 * gap:+.1f} points from what the judge found")
    if key["attack"] != WORST_CASE and undecided > _UNDECIDED_SHARE * count:
        _warn(row, f"{undecided} of {count} majorities are undecided at the judge's cap of draws")
    if not minimal and _helps(run["correct"] - run["clean_correct"]):
        words = f"{100 * robust:.1f} % are right under this attack, {100 * row['clean_accuracy']:.1f} % without it"
        _warn(row, f"{words}: it makes decisions better, not worse")
    return row


def _clean_range(run: "pandas.DataFrame") -> dict[str, float]:
    """The clean majority, with all samples that the judge could not tell counted as wrong, and as right; NaN if unknown."""
    open_, right = run["clean_undecided"].astype("float64"), run["clean_majority_correct"]
    low, high = (float("nan"),) * 2 if open_.isna().any() else ((right & open_.eq(0)).mean(), (right | open_.eq(1)).mean())
    return {"clean_majority_low": float(low), "clean_majority_high": float(high)}


def _warn(row: dict[str, Any], message: str) -> None:
    """Add a warning to a row; an empty message adds none."""
    row["warnings"] = "; ".join(part for part in (row["warnings"], message) if part)


def _violations(run: "pandas.DataFrame", consequence: str) -> str:
    """Word how many adversarials of some records broke which rules; empty if none did."""
    bad = run[~run["valid"].astype(bool)]
    if not len(bad):
        return ""
    beyond, outside = bad["left_range"].to_numpy(np.float64), bad["left_ball"].to_numpy(np.float64)
    kinds = ["NaN or infinite pixels"] if np.isinf(beyond).any() else []
    for what, by in (("[0, 1]", beyond[np.isfinite(beyond)]), ("the ball", outside[np.isfinite(outside)])):
        if (by > 0).any():
            kinds.append(f"left {what} by up to {by.max():.2g}")
    how = ", ".join(kinds) or "left [0, 1] or the ball"
    return f"{len(bad)} of {len(run)} adversarials broke the rules ({how}){consequence}"


def _lost(run: "pandas.DataFrame") -> float:
    """Count samples that were broken before rounding to 8 bits and are not now; NaN if nothing was rounded."""
    before = run["broken_unrounded"].astype("float64")
    return float("nan") if not len(run) or before.isna().any() else int((before.eq(1) & ~broken(run)).sum())


def _helps(gains: "pandas.Series") -> bool:
    """Whether an attack adds more to the fraction of right draws than chance would."""
    spread = float(gains.std()) if len(gains) > 1 else 0.0
    return spread > 0 and float(gains.mean()) > _GAIN * spread / len(gains) ** 0.5


def _distances(closest: npt.NDArray[np.float64], *, minimal: bool) -> dict[str, Any]:
    """The columns about distances of (N,) closest adversarials, infinite for samples without one."""
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
    """Turn distances (B, N) into (B, 2): the median, infinite if a middle value is, and the mean of the finite ones, or NaN."""
    finite = np.isfinite(rows)
    counts, totals = finite.sum(axis=1), np.where(finite, rows, 0.0).sum(axis=1)
    means = np.divide(totals, counts, out=np.full(len(rows), np.nan), where=counts > 0)
    return np.stack([np.median(rows, axis=1), means], axis=1)
