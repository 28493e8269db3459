"""The recipe of E-ABS: the thesis's numbers as typed in, its budget, and distances that are compared image by image."""

import re
from dataclasses import replace

import pandas as pd
import pytest

from gencls.core import GenclsError
from gencls.eval.attacks.thesis_set import ThesisBudget
from recipes.eabs import printed, settings_tables
from recipes.eabs.settings import BUDGETS, PROFILES
from tests.eval.measures.test_summary import broken, record

# --- the thesis's numbers


@pytest.mark.parametrize("number", printed.ACCURACY)
def test_no_attack_of_the_print_beats_the_worst_case_but_for_the_named_slips(number):
    rows = printed.ACCURACY[number]
    assert {len(values) for values in rows.values()} == {len(printed.MODELS)}
    for i, model in enumerate(printed.MODELS):
        for norm, attacks in (("linf", ("pgd", "deepfool", "noise")), ("l2", ("pgd", "ddn", "cw", "deepfool", "noise"))):
            for attack in attacks:
                if (f"{attack}-{norm}", model) not in printed.SLIPS[number]:
                    assert rows[f"all-{norm}"][i] <= rows[f"{attack}-{norm}"][i] <= rows["clean"][i] + 1.5


def test_slips_and_open_pairs_name_what_there_is():
    for number, slips in printed.SLIPS.items():
        for row, model in slips:
            assert row in printed.ACCURACY[number]
            assert model in printed.MODELS
        for pairs in printed.INSIGNIFICANT[number].values():
            assert all(len(pair) == 2 and pair <= set(printed.MODELS) for pair in pairs)


def test_paper_budget_is_the_thesis():
    """Section 2.3."""
    budget = BUDGETS["paper"]
    assert (budget.count, budget.eot, budget.synthesis) == (1000, 5, {"warm_steps": None, "fast": False})
    assert replace(budget.attacks, restarts=5) == ThesisBudget()
    assert {name: min(budget.attacks.restarts, profile.starts) for name, profile in PROFILES.items()} == {
        "smoke": 5,
        "mnist": 5,
        "fashion": 5,
        "gtsrb": 20,
        "supertraffic": 20,
        "svhn": 20,
    }
    assert set(budget.steps) == set(printed.SWEEPS["2.9"])
    assert set(budget.starts) == set(printed.SWEEPS["2.8"])
    assert set(budget.eot_runs) == set(printed.SWEEPS["2.7"])


def test_fewer_images_change_nothing_but_counts():
    few = BUDGETS["reduced"].of(3)
    assert {few.count, few.black_box, few.ablation, few.examples, few.sweeps, few.bound, few.largest} == {3}
    assert few.attacks == BUDGETS["reduced"].attacks
    assert BUDGETS["reduced"].of(500).black_box == BUDGETS["reduced"].black_box
    with pytest.raises(GenclsError, match="at least one image, got 0"):
        few.of(0)


# --- pairs of Table 2.6


def paired(**distances):
    """What is said of L2 records of PGD at the sizes 1 and 2; None is an image that nothing broke."""
    frames = {}
    for name, by_image in distances.items():
        rows = [
            record(image, epsilon=size) if distance is None else broken(image, distance, epsilon=size)
            for image, distance in by_image.items()
            for size in (1.0, 2.0)
        ]
        frames[name.replace("_", "-")] = pd.DataFrame(rows)
    return settings_tables._paired(frames)


def test_distances_are_compared_image_by_image():
    notes = paired(ADV_ABS={"a": 0.5, "b": 1.5, "c": None}, A_ABS={"c": 1.75, "a": 0.25, "b": 1.25}, ABS={"a": 0.5, "b": 1.5})
    (note,) = notes  # there are no records under Linf
    assert note.startswith("L2: the distance that breaks ADV-ABS minus the distance that breaks another row, mean over")
    assert note.endswith("counts with the largest size. A-ABS 0.25 [0.25, 0.25].")  # ABS was measured on other images


def test_an_interval_lies_around_the_mean():
    (note,) = paired(ADV_ABS={"a": 0.5, "b": 1.5, "c": 1.0, "d": 0.5}, V_ABS={"a": 1.0, "b": 1.0, "c": 0.5, "d": 0.5})
    mean, low, high = map(float, re.search(r"V-ABS (\S+) \[(\S+), (\S+)\]\.$", note).groups())
    assert low < mean == 0.125 < high


def test_without_adv_abs_nothing_is_compared():
    assert paired(A_ABS={"a": 0.5}, ABS={"a": 0.4}) == []
