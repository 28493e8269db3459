"""The columns of a study's summary: headings, formats and meanings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from gencls.core.errors import GenclsError
from gencls.eval.report.formats import FORMATS, RANGE, is_missing
from gencls.eval.threats.protocol import kinds

Kind = Literal["text", "percent", "count", "number", "distance", "epsilon", "flag", "warnings"]


@dataclass(frozen=True)
class Column:
    """One column of the summary.

    Args:
        name: name in the data frame and in results.csv.
        heading: short heading for people.
        kind: the format of its values.
        meaning: one or two sentences for the glossary.
        limits: names of the two columns with the limits of its 95 % interval, which stand beside the value.
        ends: names of the two columns with the ends of its range, which replace the value if they differ.
        quiet: whether tables leave it out if it is zero in all rows.
    """

    name: str
    heading: str
    kind: Kind
    meaning: str
    limits: tuple[str, str] | None = None
    ends: tuple[str, str] | None = None
    quiet: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns of the data frame that this column prints."""
        return (self.name, *(self.limits or ()), *(self.ends or ()))

    def shown(self, frame: pd.DataFrame) -> bool:
        """Whether a table of this frame shows the column."""
        values = frame[self.name]
        return bool(values.fillna(0).astype(bool).any()) if self.quiet else not values.isna().all()

    def words(self, row: Mapping[Any, Any]) -> str:
        """Write the value as text, or its range, with its interval in brackets if it has one."""
        form = FORMATS[self.kind]
        ends = [form(row[name]) for name in self.ends or ()]
        value = RANGE.join(ends) if len(set(ends)) > 1 else form(row[self.name])
        limits = [row[name] for name in self.limits or ()]
        known = limits and not any(is_missing(limit) for limit in limits)
        return value + (f" [{form(limits[0])}, {form(limits[1])}]" if known else "")


_UNITS = ", ".join(f"{kind.label} in {kind.unit}" for kind in kinds().values())

SUMMARY = (
    Column("defense", "Defense", "text", "The classifier under attack, with everything that belongs to it."),
    Column(
        "attack",
        "Attack",
        "text",
        "The algorithm that searched for adversarial images. “worst case”: per sample the most damaging of all attacks "
        "and gradient modes within the threat.",
    ),
    Column("gradient", "Gradient", "text", "How the attack differentiated the defense; the modes are listed below."),
    Column("norm", "Norm", "text", "The norm in which the size of a perturbation is measured."),
    Column("epsilon", "ε", "epsilon", f"Largest allowed perturbation ({_UNITS}); missing for minimal attacks."),
    Column("seed", "Seed", "text", "Seed of the study's random streams."),
    Column(
        "eight_bit",
        "8-bit",
        "flag",
        "Whether adversarial images were rounded to k/255 before they were judged, as if they were saved.",
        quiet=True,
    ),
    Column(
        "n",
        "N",
        "count",
        "Number of test images that the row is about, including those already misclassified without an attack.",
    ),
    Column(
        "excluded",
        "Excluded",
        "count",
        "Images that are left out of N: the adversarial left [0, 1] or the ball, or was no number, so that nothing is known.",
        quiet=True,
    ),
    Column(
        "draws",
        "Draws",
        "count",
        "How often the judge asked the defense about every image, with fresh randomness. Where the majority was still open it "
        "went on, for that image, up to a cap.",
    ),
    Column("clean_accuracy", "Clean", "percent", "Accuracy on the unperturbed images, mean over samples and draws."),
    Column(
        "clean_majority_accuracy",
        "Clean majority",
        "percent",
        "Share of the unperturbed images that more than half of all their draws get right. A range where the judge could not "
        "tell for some images.",
        ends=("clean_majority_low", "clean_majority_high"),
    ),
    Column(
        "robust_accuracy",
        "Robust",
        "percent",
        "Expected accuracy under attack: the mean over samples and their first draws (equally many for each), measured by the "
        "judge on the real defense, with its 95 % Wilson interval. Of minimal attacks it is the accuracy on images at the "
        "decision boundary, which says little: their distances and curves say more.",
        ("ci_low", "ci_high"),
    ),
    Column(
        "majority_accuracy",
        "Majority",
        "percent",
        "Share of samples that more than half of all their draws get right, on the adversarial and on the clean image: what a "
        "user gets who votes. A range where samples are undecided: all of them wrong, all of them right.",
        ends=("majority_low", "majority_high"),
    ),
    Column(
        "any_draw_accuracy",
        "Any draw",
        "percent",
        "Share of samples that are correct in each of their first draws: one wrong draw counts as success of an attacker who "
        "may try again. Never above the expected accuracy.",
    ),
    Column(
        "undecided",
        "Undecided",
        "count",
        "Samples whose majority the judge could not tell at its cap of draws: an interval for the rate of right draws still "
        "held one half.",
    ),
    Column(
        "claimed_robust_accuracy",
        "Claimed",
        "percent",
        "Robust accuracy as the attack itself reports it. A gap to the judged value (for minimal attacks: to the majority) "
        "means that the attack judged itself on something else than the real defense. With 8 bits the claim is made before "
        "rounding.",
    ),
    Column(
        "lost_to_eight_bit",
        "Lost to 8 bits",
        "count",
        "Samples that were broken before their adversarials were rounded to k/255, and are not afterwards.",
    ),
    Column(
        "median_distance",
        "Median distance",
        "distance",
        "Median distance of the closest adversarial examples, in the row's norm, with a 95 % bootstrap interval for minimal "
        "attacks. Clean errors count as 0. For minimal attacks failures count as infinite, so that ∞ means that at least half "
        "failed; for attacks with a budget, which do not look for small perturbations, only what was found is described.",
        ("median_distance_low", "median_distance_high"),
    ),
    Column(
        "mean_distance",
        "Mean distance",
        "distance",
        "Mean distance of the closest adversarial examples that were found; clean errors count as 0, failures are left out.",
        ("mean_distance_low", "mean_distance_high"),
    ),
    Column(
        "failures",
        "Failures",
        "count",
        "Samples for which no adversarial example was found (in the sense of the majority): at all, or within the budget.",
    ),
    Column(
        "forwards",
        "Forwards",
        "count",
        "Forward passes per image, of attack and judge together (in the worst case, of all attacks); each draw of a randomised "
        "defense counts as one. Counted per cell: a single record holds the mean of its shard, and only sums and means over "
        "all images do not depend on the size of shards.",
    ),
    Column("backwards", "Backwards", "count", "Backward passes per image; each draw counts as one. Counted as forwards are."),
    Column("attack_draws", "Attack draws", "count", "Draws of a randomised defense that the attack averages in each gradient."),
    Column("seconds", "Seconds", "number", "Wall-clock time spent on the row's images."),
    Column("peak_memory", "Peak MiB", "count", "Largest memory of a cell in MiB, where it can be measured."),
    Column("warnings", "Warnings", "warnings", "Reasons to distrust the numbers of the row."),
)

MCNEMAR_COLUMNS = ("defense_a", "defense_b", "only_a", "only_b", "p_value", "p_holm", "p_mid", "p_mid_holm")


def require(frame: pd.DataFrame, names: Iterable[str], what: str) -> None:
    """Check that the frame has the named columns.

    Raises:
        GenclsError: columns are missing.
    """
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise GenclsError(f"expected {what} with the columns {', '.join(names)}; missing: {', '.join(missing)}")


BY_NAME = {column.name: column for column in SUMMARY}
