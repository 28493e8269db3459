"""The table of a study on records made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from gencls.core.errors import GenclsError
from gencls.eval.measures.comparison import compare
from gencls.eval.measures.records import REQUIRED, complete
from gencls.eval.measures.statistics import wilson
from gencls.eval.measures.success_rates import closest_distances
from gencls.eval.measures.summary import COLUMNS, WORST_CASE, summarize, worst_case

NAN, INF = float("nan"), float("inf")


def record(sample: str, **changes: Any) -> dict[str, Any]:
    """A sample that a deterministic defense gets right, clean and attacked."""
    row: dict[str, Any] = {
        "sample_hash": sample,
        "label": 0,
        "defense": "cnn",
        "attack": "pgd",
        "gradient": "exact",
        "norm": "l2",
        "epsilon": 1.0,
        "seed": 0,
        "clean_correct": 1.0,
        "correct": 1.0,
        "claimed": False,
        "distance": 1.0,
        "valid": True,
        "draws": 1,
        "clean_predictions": [0],
        "predictions": [0],
        "forwards": 10.0,
        "backwards": 9.0,
        "seconds": 0.5,
        "warnings": "",
        "majority_correct": True,
        "undecided": False,
        "clean_majority_correct": True,
        "attack_draws": 1,
        "peak_memory": 100.0,
    }
    return row | changes


def broken(sample: str, distance: float, **changes: Any) -> dict[str, Any]:
    return record(sample, distance=distance, correct=0.0, majority_correct=False, claimed=True, predictions=[1]) | changes


def clean_error(sample: str, **changes: Any) -> dict[str, Any]:
    return broken(sample, 0.0, clean_correct=0.0, clean_majority_correct=False, clean_predictions=[1]) | changes


def minimal(*rows: dict[str, Any], **changes: Any) -> list[dict[str, Any]]:
    return [{**row, "attack": "ddn", "epsilon": NAN} | changes for row in rows]


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    return summarize(pd.DataFrame(list(rows))).set_index(["attack", "gradient"])


def test_minimal_distances_by_hand() -> None:
    rows = minimal(clean_error("a"), broken("b", 0.5), broken("c", 1.5), record("d", distance=0.0), broken("e", 0.1))
    row = table(*rows).loc[("ddn", "exact")]
    assert row["median_distance"] == 0.5  # of 0, 0.1, 0.5, 1.5, infinity
    assert row["mean_distance"] == pytest.approx(2.1 / 4, abs=1e-15)
    assert row["failures"] == 1
    assert row["median_distance_low"] <= 0.5 <= row["median_distance_high"]
    assert 0 <= row["mean_distance_low"] < 2.1 / 4 < row["mean_distance_high"] <= 1.5
    assert row["majority_accuracy"] == row["claimed_robust_accuracy"] == 0.2


@pytest.mark.parametrize(("failed", "median"), [(1, 0.25), (2, INF), (3, INF)])
def test_the_median_is_infinite_if_half_fail(failed: int, median: float) -> None:
    found = [broken(str(i), distance) for i, distance in enumerate((0.1, 0.2, 0.3, 0.4)[: 4 - failed])]
    row = table(*minimal(*found, *(record(f"failed {i}", distance=0.0) for i in range(failed)))).iloc[0]
    expected = median if failed > 1 else (0.2 + 0.3) / 2
    assert row["median_distance"] == expected
    assert row["failures"] == failed
    assert np.isfinite(row["mean_distance"])


def test_nothing_found() -> None:
    row = table(*minimal(record("a", distance=0.0), record("b", distance=0.0))).iloc[0]
    assert (row["median_distance"], row["failures"]) == (INF, 2)
    assert np.isnan([row["mean_distance"], row["mean_distance_low"], row["median_distance_low"]]).all()


def test_an_image_that_breaks_the_rules_is_neither_success_nor_failure() -> None:
    rows = minimal(broken("a", 0.0, valid=False), broken("b", 0.4))
    assert table(*rows).iloc[0][["n", "excluded", "failures", "mean_distance"]].to_list() == [1, 1, 0, 0.4]


def test_a_budget_describes_only_what_was_found() -> None:
    row = table(clean_error("a"), broken("b", 0.9), record("c"), record("d"), record("e")).iloc[0]
    assert row["median_distance"] == row["mean_distance"] == 0.45  # not infinite: nobody looked beyond 1
    assert row["failures"] == 3
    assert np.isnan(row[["median_distance_low", "mean_distance_high"]].astype(float)).all()
    nothing = table(record("a")).iloc[0]
    assert np.isnan(nothing[["median_distance", "mean_distance"]].astype(float)).all()


def test_accuracies_of_a_sequential_judge() -> None:
    """Expected and any-draw from the first draws, the majority from all."""
    rows = [
        record("a", draws=4, correct=1.0, predictions=[0, 0, 0, 0]),
        record("b", draws=4, correct=0.5, predictions=[0, 0, 1, 1, 0, 0, 0, 0], majority_correct=True),
        record("c", draws=4, correct=0.5, predictions=[0, 1, 1, 0, 1, 1, 1, 1], majority_correct=False),
        record("d", draws=4, correct=0.5, predictions=[0, 1] * 8, majority_correct=False, undecided=True),
        record("e", draws=4, correct=0.0, predictions=[1] * 4, majority_correct=False, clean_majority_correct=False),
    ]
    row = table(*rows).loc[("pgd", "exact")]
    assert (row["robust_accuracy"], row["majority_accuracy"], row["any_draw_accuracy"]) == (0.5, 0.4, 0.2)
    assert (row["undecided"], row["draws"], row["clean_majority_accuracy"]) == (1, 4, 0.8)
    assert (row["ci_low"], row["ci_high"]) == wilson(2.5, 5)
    assert "1 of 5 majorities are undecided at the judge's cap of draws" in row["warnings"]


def test_budget_columns() -> None:
    rows = [record("a", attack_draws=8, peak_memory=50.0), record("b", attack_draws=8, peak_memory=70.0, seconds=1.0)]
    rows += [row | {"gradient": "bpda", "peak_memory": NAN} for row in rows]
    found = table(*rows)
    assert found.loc[("pgd", "exact"), ["forwards", "backwards", "attack_draws", "seconds", "peak_memory"]].to_list() == [
        *(10, 9, 8, 1.5, 70)
    ]
    assert np.isnan(found.loc[("pgd", "bpda"), "peak_memory"])
    assert found.loc[(WORST_CASE, "all"), ["forwards", "attack_draws", "seconds", "peak_memory"]].to_list() == [20, 8, 3, 70]


def mixed_study() -> pd.DataFrame:
    """PGD at two sizes and two minimal-norm attacks, one of them in two gradient modes, on four samples."""
    return pd.DataFrame(
        [
            *(clean_error("a"), broken("b", 0.99), record("c"), record("d")),
            *(row | {"epsilon": 2.0} for row in (clean_error("a"), broken("b", 1.9), broken("c", 1.9), record("d"))),
            *minimal(clean_error("a"), broken("b", 0.6), broken("c", 2.5), record("d", distance=0.0)),
            *minimal(clean_error("a"), broken("b", 0.7), broken("c", 2.2), broken("d", 3.0), gradient="bpda"),
            *minimal(clean_error("a"), record("b", distance=0.0), broken("c", 2.4), broken("d", 2.8), attack="cw"),
        ]
    )


def key(epsilon: float | None) -> dict[str, Any]:
    return {"defense": "cnn", "norm": "l2", "epsilon": epsilon, "seed": 0}


@pytest.mark.parametrize("epsilon", [None, NAN])
def test_worst_case_without_a_budget_is_the_closest_of_all(epsilon: float | None) -> None:
    worst = worst_case(mixed_study(), key(epsilon)).set_index("sample_hash")
    # b: DDN's 0.6; c: PGD at 2 found 1.9, closer than any minimal-norm attack; d: C&W.
    assert worst["distance"].to_list() == [0.0, 0.6, 1.9, 2.8]
    assert not worst["majority_correct"].any()
    assert worst["forwards"].eq(50).all()
    row = summarize(mixed_study()).query("attack == 'worst case' and epsilon.isna()").iloc[0]
    assert (row["failures"], row["median_distance"]) == (0, (0.6 + 1.9) / 2)


def test_worst_case_within_a_budget_counts_whatever_found_it() -> None:
    for epsilon, right, distances in ((1.0, [False, False, True, True], [0, 0.6]), (2.0, [False] * 3 + [True], [0, 0.6, 1.9])):
        worst = worst_case(mixed_study(), key(epsilon)).set_index("sample_hash")
        assert worst["majority_correct"].to_list() == right
        assert worst["correct"].to_list() == [float(value) for value in right]
        assert worst["distance"].to_list()[: len(distances)] == distances


def test_worst_case_leaves_out_samples_that_this_threat_has_not_met() -> None:
    """An unfinished study: C&W has met a sample that PGD has not, and failed within its budget."""
    rows = pd.DataFrame([record("a"), *minimal(broken("a", 0.4), broken("b", 0.5), broken("c", 5.0))])
    assert worst_case(rows, key(1.0))["sample_hash"].to_list() == ["a"]
    assert worst_case(rows, key(None))["sample_hash"].to_list() == ["a", "b", "c"]


def test_worst_case_majorities_of_several_attacks() -> None:
    """The record with the fewest right draws need not be the one whose majority is wrong."""
    first = record("a", draws=2, correct=0.0, majority_correct=True, undecided=True)
    second = record("a", draws=2, correct=0.5, majority_correct=False, undecided=False, attack="cw")
    worst = worst_case(pd.DataFrame([first, second]), key(1.0)).iloc[0]
    assert (worst["correct"], worst["majority_correct"], worst["undecided"]) == (0.0, False, False)
    open_ = worst_case(pd.DataFrame([first, second | {"undecided": True}]), key(1.0)).iloc[0]
    assert (open_["majority_correct"], open_["undecided"]) == (False, True)


def test_the_closest_adversarial_of_the_worst_case_counts_when_another_record_is_chosen() -> None:
    rows = [broken("a", 0.8, draws=4, correct=0.0), broken("a", 0.3, draws=4, correct=0.25, attack="cw")]
    worst = worst_case(pd.DataFrame(rows), key(1.0)).iloc[0]
    assert (worst["correct"], worst["distance"]) == (0.0, 0.3)


def six(distance: float | None, **changes: Any) -> list[dict[str, Any]]:
    return [record(str(i), **changes) if distance is None else broken(str(i), distance, **changes) for i in range(6)]


def test_gradients_weaker_than_noise() -> None:
    noise = six(0.9, attack="noise", gradient="none")
    found = table(*six(None), *noise)
    assert found.loc[("pgd", "exact"), "warnings"] == (
        "weaker than noise (no gradient), which breaks 6 of 6 images more: suspect masked gradients"
    )
    assert not found.loc[("noise", "none"), "warnings"]
    assert not table(*six(0.9), *noise).loc[("pgd", "exact"), "warnings"]


def test_minimal_attacks_are_compared_by_distance_and_never_with_a_budget() -> None:
    """DDN's images lie on the boundary (right half of the time), where a noise attack with a budget breaks everything."""
    noise = six(0.9, attack="noise", gradient="none")
    ddn = minimal(*six(0.5, draws=2, correct=0.5))
    assert not table(*noise, *ddn).loc[("ddn", "exact"), "warnings"]
    boundary = minimal(*six(0.6), attack="boundary", gradient="none")
    assert not table(*noise, *ddn, *boundary).loc[("ddn", "exact"), "warnings"]
    closer = minimal(*six(0.25), attack="boundary", gradient="none")
    assert table(*noise, *ddn, *closer).loc[("ddn", "exact"), "warnings"] == (
        "weaker than boundary (no gradient), which comes closer on 6 of 6 images more: suspect masked gradients"
    )


def test_claims_of_minimal_attacks_are_held_against_the_majority() -> None:
    rows = minimal(*(broken(str(i), 0.5, draws=2, correct=0.5) for i in range(4)))
    assert not table(*rows).loc[("ddn", "exact"), "warnings"]
    false = [row | {"majority_correct": True} for row in rows[:2]] + rows[2:]
    assert "claim is -50.0 points" in table(*false).loc[("ddn", "exact"), "warnings"]


def test_columns_and_order() -> None:
    summary = summarize(mixed_study())
    assert list(summary.columns) == COLUMNS
    assert summary["attack"].to_list() == ["pgd", WORST_CASE, "pgd", WORST_CASE, "ddn", "ddn", "cw", WORST_CASE]
    shuffled = summarize(mixed_study().sample(frac=1, random_state=0)).sort_values(["attack", "gradient", "epsilon"])
    pd.testing.assert_frame_equal(
        shuffled.reset_index(drop=True), summary.sort_values(["attack", "gradient", "epsilon"]).reset_index(drop=True)
    )


def test_records_of_format_1() -> None:
    new = mixed_study()
    old = new[[*REQUIRED]].assign(epsilon=[None if np.isnan(value) else value for value in new["epsilon"]])
    unknown = ["undecided", "majority_low", "majority_high", "attack_draws", "peak_memory"]
    pd.testing.assert_frame_equal(summarize(old).drop(columns=unknown), summarize(new).drop(columns=unknown))
    assert summarize(old)[unknown].isna().all(axis=None)
    assert complete(complete(old)).equals(complete(old))


def test_records_that_are_none() -> None:
    with pytest.raises(GenclsError, match="missing: correct, valid"):
        summarize(mixed_study().drop(columns=["correct", "valid"]))
    with pytest.raises(GenclsError, match="bool majority_correct, got dtype float64"):
        summarize(mixed_study().astype({"majority_correct": float}))


def paired_study() -> pd.DataFrame:
    """Two defenses under PGD and DDN: at size 1 they differ on two samples, at 0.5 on three."""
    rows = []
    for defense, distances in (("cnn", (0.2, 0.3, 0.4, 0.7, 5.0)), ("abs", (0.2, 2.0, 3.0, 2.5, 0.7))):
        for i, distance in enumerate(distances):
            own = {"defense": defense}
            bounded = broken(str(i), 0.99) if distance <= 0.5 else record(str(i))
            rows += [bounded | own, *minimal(broken(str(i), distance), **own)]
    return pd.DataFrame(rows)


def test_compare_counts_the_majority_of_the_worst_case() -> None:
    pairs = compare(paired_study())
    assert len(pairs) == 1  # without a budget there is nothing to compare
    row = pairs.iloc[0]
    # DDN brings cnn's fourth sample and abs's fifth below 1, which PGD had not broken.
    assert (row["defense_a"], row["only_a"], row["only_b"], row["epsilon"]) == ("cnn", 1, 3, 1.0)
    assert row["p_value"] == row["p_holm"] == 2 * 5 / 16
    assert row["p_mid"] == row["p_mid_holm"] == pytest.approx(2 * 5 / 16 - 4 / 16)


def test_compare_at_sizes_that_were_not_attacked() -> None:
    pairs = compare(paired_study(), at={"l2": [0.5, 1.0], "linf": [0.1]}).set_index("epsilon")
    assert sorted(pairs.index) == [0.5, 1.0]
    assert pairs.loc[0.5, ["only_a", "only_b"]].to_list() == [0, 2]
    assert pairs.loc[1.0, ["only_a", "only_b"]].to_list() == [1, 3]
    distances = closest_distances(paired_study().query("defense == 'cnn'"))
    assert distances.to_list() == [0.2, 0.3, 0.4, 0.7, 5.0]


def test_compare_alone() -> None:
    assert compare(mixed_study()).empty
