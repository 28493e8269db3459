"""Success rates at every size of the perturbation, from minimal-norm records, without attacking again.

For sample i let d_i be the distance of the closest adversarial that was found: 0 if the clean image is misclassified, infinite
if nothing was found. The success rate at size e is the share of samples with d_i <= e (MLVGM paper, Serez et al. 2025, eq. 5);
the robust accuracy is the rest. A randomised defense is broken on a sample if the majority of the judge's draws is wrong.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gencls.core import GenclsError, check_labels
from gencls.eval.measures.domains import as_numbers, as_sizes
from gencls.eval.measures.names import WORST_CASE
from gencls.eval.measures.records import broken, complete, judged
from gencls.eval.measures.statistics import bootstrap_band, wilson_band
from gencls.eval.threats.protocol import TOLERANCE

if TYPE_CHECKING:
    import pandas

__all__ = [
    "Certified",
    "MinimalRun",
    "SuccessCurve",
    "certified_accuracy",
    "closest_distances",
    "minimal_runs",
    "robust_accuracy",
    "success_rate_curve",
]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SuccessCurve:
    """The success rate of an attacker against the size of the perturbation: a step function, constant between its points.

    Attributes:
        epsilon: (P,) growing sizes, in pixel units of [0, 1].
        rate: (P,) success rates in [0, 1]; errors on clean images count as successes at size 0.
        low: (P,) lower limits of the pointwise Wilson intervals.
        high: (P,) upper limits.
        bootstrap_low: (P,) lower limits of the pointwise percentile bootstrap over samples. It has no width where the rate
            is 0 or 1: nothing varies between resamples. Wilson's interval has.
        bootstrap_high: (P,) upper limits.
        n: number N of samples.
    """

    epsilon: Floats
    rate: Floats
    low: Floats
    high: Floats
    bootstrap_low: Floats
    bootstrap_high: Floats
    n: int

    def frame(self) -> "pandas.DataFrame":
        """The curve as a table, one row per point."""
        import pandas

        return pandas.DataFrame(
            {
                "epsilon": self.epsilon,
                "success_rate": self.rate,
                "wilson_low": self.low,
                "wilson_high": self.high,
                "bootstrap_low": self.bootstrap_low,
                "bootstrap_high": self.bootstrap_high,
                "n": self.n,
            }
        )


class Certified(Protocol):
    """Decisions that hold within a radius, for instance a :class:`gencls.defenses.Certificate`."""

    @property
    def labels(self) -> Tensor:
        """The decisions, (N,) int64, -1 for an abstention."""

    @property
    def radii(self) -> Tensor:
        """The radii (N,) >= 0 of the balls within which the decisions hold."""


class MinimalRun(NamedTuple):
    """The closest adversarials that one attack found against one defense, or all of its attacks together.

    Attributes:
        defense: name of the defense.
        norm: norm of the distances.
        attack: name of the attack, or ``"worst case"`` for all of them.
        distances: (N,) one per sample; 0 for clean errors, infinite if nothing was found.
        eight_bit: whether the adversarials were rounded to k/255 before they were judged.
    """

    defense: str
    norm: str
    attack: str
    distances: Floats
    eight_bit: bool = False


def closest_distances(records: "pandas.DataFrame") -> "pandas.Series":
    """Find for each sample the distance of the closest adversarial among all the given records.

    Args:
        records: records of one defense and one norm, with any attacks, gradient modes, budgets and seeds.

    Returns:
        Distances indexed and sorted by sample hash: 0 if the majority of the draws on the clean image is wrong, infinite if no
        adversarial turned the majority. A sample is left out if all its adversarials broke the rules.

    Raises:
        GenclsError: the records mix defenses or norms, whose distances cannot be compared, or 8-bit images with others, or have
            an unknown form.
    """
    records = judged(complete(records))
    for name in ("defense", "norm", "eight_bit"):
        if records[name].nunique() > 1:
            raise GenclsError(f"closest distances: expected records of one {name}, got {sorted(records[name].unique())}")
    return record_distances(records).set_axis(records["sample_hash"]).groupby(level=0).min()


def record_distances(records: "pandas.DataFrame") -> "pandas.Series":
    """The distance to the closest adversarial by each judged record; 0 for a clean error, infinite if it is not broken."""
    return records["distance"].where(broken(records), np.inf).where(records["clean_majority_correct"], 0.0)


def minimal_runs(records: "pandas.DataFrame") -> Iterator[MinimalRun]:
    """Yield every minimal-norm attack of the records, over all its gradient modes and seeds, then each defense's worst case.

    The worst case also counts adversarials of attacks with a budget in the same norm, at the distance measured, for samples
    that a minimal-norm attack has met.
    """
    records = judged(complete(records))
    kinds = ["defense", "norm", "eight_bit"]
    every = dict(iter(records.groupby(kinds, sort=False)))
    for kind, rows in records[records["epsilon"].isna()].groupby(kinds, sort=False):
        defense, norm, eight_bit = kind
        own = {str(attack): found for attack, found in rows.groupby("attack", sort=False)}
        own[WORST_CASE] = every[kind][every[kind]["sample_hash"].isin(rows["sample_hash"])]
        for attack, found in own.items():
            yield MinimalRun(str(defense), str(norm), attack, closest_distances(found).to_numpy(), bool(eight_bit))


def success_rate_curve(
    distances: npt.ArrayLike,
    epsilons: Sequence[float] | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> SuccessCurve:
    """Compute the success rate at each size with its bands, MLVGM eq. 5.

    Args:
        distances: (N,) closest distances >= 0, from :func:`closest_distances`.
        epsilons: (P,) sizes at which to compute the rate; None takes 0 and every distance, the steps of the curve.
        confidence: pointwise coverage of both bands, strictly between 0 and 1.
        resamples: number of resamples for the bootstrap, at least 1.
        seed: integer that fixes the bootstrap.

    Returns:
        The curve; a distance counts at a size that it exceeds by no more than the judge's tolerance, 1e-6.

    Raises:
        GenclsError: there are no distances, one is negative or NaN, or sizes, confidence or resamples are bad.
    """
    closest = _checked(distances)
    sizes = np.unique(np.append(0.0, closest[np.isfinite(closest)])) if epsilons is None else as_sizes(epsilons)
    # The number of the first size at which a sample is broken; len(sizes) for never.
    step = np.searchsorted(sizes + TOLERANCE, closest)

    def rates(steps: npt.NDArray[np.int64]) -> Floats:
        """Turn steps of resampled samples (B, N) into success rates (B, P)."""
        rows = np.arange(len(steps))[:, None] * (len(sizes) + 1)
        counts = np.bincount((rows + steps).ravel(), minlength=len(steps) * (len(sizes) + 1))
        cumulated: Floats = counts.reshape(len(steps), -1)[:, :-1].cumsum(axis=1) / len(closest)
        return cumulated

    rate = rates(step[None])[0]
    low, high = wilson_band(np.round(rate * len(closest)), len(closest), confidence)
    bootstrap = bootstrap_band(step, rates, confidence=confidence, resamples=resamples, seed=seed)
    return SuccessCurve(sizes, rate, low, high, *bootstrap, len(closest))


def robust_accuracy(records: "pandas.DataFrame", epsilons: Sequence[float], *, confidence: float = 0.95) -> "pandas.DataFrame":
    """Compute the accuracy that minimal-norm attacks leave at any sizes, without attacking again.

    Args:
        records: the records of a study, with at least one minimal-norm attack.
        epsilons: sizes >= 0, in the unit of each norm ([0, 1] pixel units for Lp norms).
        confidence: coverage of the Wilson intervals, strictly between 0 and 1.

    Returns:
        One row per defense, norm, minimal-norm attack (and the worst case over all attacks) and size: ``defense``, ``norm``,
        ``eight_bit``, ``attack``, ``epsilon``, ``n``, ``accuracy``, ``ci_low``, ``ci_high``. Clean errors count as wrong at
        every size.

    Raises:
        GenclsError: sizes are bad, or the records have no minimal-norm attack.
    """
    import pandas

    sizes = as_sizes(epsilons)
    tables = []
    for run in minimal_runs(records):
        left = (run.distances[None] > sizes[:, None] + TOLERANCE).sum(axis=1)
        low, high = wilson_band(left, len(run.distances), confidence)
        head = {"defense": run.defense, "norm": run.norm, "eight_bit": run.eight_bit, "attack": run.attack}
        head |= {"epsilon": sizes, "n": len(run.distances)}
        tables.append(pandas.DataFrame({**head, "accuracy": left / len(run.distances), "ci_low": low, "ci_high": high}))
    if not tables:
        raise GenclsError("robust accuracy at any size: expected records of a minimal-norm attack (epsilon NaN), got none")
    return pandas.concat(tables, ignore_index=True)


def certified_accuracy(
    certificates: Certified, labels: Tensor, radii: Sequence[float], *, confidence: float = 0.95
) -> "pandas.DataFrame":
    """Compute the accuracy that no attack can undercut: the share of samples decided rightly with at least each radius.

    Certificates may fail, each with their own probability alpha, as in the curves of Cohen et al. 2019 (arXiv:1902.02918): of N
    samples about alpha N may count wrongly, and the intervals leave this out.

    Args:
        certificates: decisions and radii of N samples.
        labels: the true classes, int64 (N,).
        radii: sizes >= 0 of perturbations, in the norm and unit of the certificates; 0 counts all right decisions.
        confidence: coverage of the Wilson intervals, strictly between 0 and 1.

    Returns:
        One row per radius, growing: ``radius``, ``n``, ``accuracy``, ``ci_low``, ``ci_high``. Abstentions count as wrong.

    Raises:
        GenclsError: labels or sizes do not fit.
    """
    import pandas

    sizes, count = as_sizes(radii), _check_certificates(certificates)
    check_labels(labels, num_classes=None, count=count)
    right = (certificates.labels.cpu() == labels.cpu()).numpy()
    held = (right & (certificates.radii.cpu().numpy() >= sizes[:, None])).sum(axis=1)
    low, high = wilson_band(held, count, confidence)
    return pandas.DataFrame({"radius": sizes, "n": count, "accuracy": held / count, "ci_low": low, "ci_high": high})


def round_sizes(distances: Floats) -> list[float]:
    """Choose up to three sizes, 1, 2 or 5 times a power of ten, near the quartiles of the positive finite distances."""
    positive = distances[(distances > 0) & np.isfinite(distances)]
    if not positive.size:
        return []
    candidates = np.array([round(digit * 10.0**power, -power) for power in range(-6, 4) for digit in (1, 2, 5)])
    quartiles = np.quantile(positive, [0.25, 0.5, 0.75])
    return sorted({float(candidates[np.abs(np.log(candidates / size)).argmin()]) for size in quartiles})


def _check_certificates(certificates: Any) -> int:
    """Check certificates and return their number N."""
    labels, radii = (getattr(certificates, name, None) for name in ("labels", "radii"))
    if not (isinstance(labels, Tensor) and isinstance(radii, Tensor) and labels.ndim == 1 and labels.shape == radii.shape):
        got = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in (labels, radii)]
        raise GenclsError(f"certificates: expected tensors labels and radii of the same shape (N,), got {got[0]} and {got[1]}")
    if not len(labels) or not bool((radii >= 0).all()):
        raise GenclsError(f"certificates: expected at least one, of radii >= 0, got {len(labels)}, of {radii.tolist()[:5]}")
    return len(labels)


def _checked(distances: npt.ArrayLike) -> Floats:
    values = as_numbers(distances, "distances")
    if values.ndim != 1 or not values.size or not bool((values >= 0).all()):
        bad = values[~(values >= 0)]
        got = f"shape {values.shape}" if not bad.size else f"{bad[0]}"
        raise GenclsError(f"expected distances of shape (N,), N >= 1, all >= 0 (infinite where nothing was found), got {got}")
    return values
