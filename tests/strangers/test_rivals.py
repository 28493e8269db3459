"""Rows that another attack outdoes carry a warning that names it."""

import math

import pandas as pd
import pytest
from torch import nn

from gencls import zoo
from gencls.eval import DDN, CarliniWagner, DeepFool, ThreatModel, evaluate, summarize
from gencls.eval.measures.summary import WORST_CASE
from tests.strangers.test_judge import record
from tests.strangers.test_rows import table_of


def of(attack, broken, count=50, distance=0.9, **changes):
    """Records of an attack that breaks some of the samples."""
    return [
        record(
            str(i), attack=attack, **({"correct": 0.0, "distance": distance, "claimed": True} if i in broken else {}), **changes
        )
        for i in range(count)
    ]


MINIMAL, BLIND = {"epsilon": math.nan}, {"gradient": "none"}
PGD_ROW, WORST = ("pgd", "exact"), (WORST_CASE, "all")
MASKED, CHANCE = "suspect masked gradients", "it may be chance"

# kind -> other records -> words of PGD's row (which breaks images 0 to 9), and of the worst case
RIVALS = {
    "DDN breaks 6 more": (
        of("ddn", range(16), **MINIMAL),
        f"weaker than ddn, which breaks 6 of 50 images more: {MASKED}",
        f"all gradient attacks together are weaker than ddn, which breaks 6 of 50 images more: {MASKED}",
    ),
    "a transfer breaks 6 more": (
        of("transfer", range(16), **BLIND),
        f"weaker than transfer (no gradient), which breaks 6 of 50 images more: {MASKED}",
        f"all gradient attacks together are weaker than transfer (no gradient), which breaks 6 of 50 images more: {MASKED}",
    ),
    "at a smaller size": (
        of("transfer", range(16), **BLIND | {"epsilon": 0.95}),
        "weaker than transfer (no gradient), which breaks 6 of 50",
        "weaker than transfer (no gradient)",
    ),
    "DDN breaks others": (of("ddn", range(8, 20), **MINIMAL), f"which breaks 2 of 50 images more: {CHANCE}", CHANCE),
    "DDN breaks 2 more": (of("ddn", range(12), **MINIMAL), f"which breaks 2 of 50 images more: {CHANCE}", CHANCE),
    "DDN breaks 1 more": (of("ddn", range(11), **MINIMAL), "", ""),
    "DDN breaks as many": (of("ddn", range(10), **MINIMAL), "", ""),
    "DDN breaks fewer": (of("ddn", range(4), **MINIMAL), "", ""),
    "DDN breaks more, but beyond": (of("ddn", range(16), distance=1.1, **MINIMAL), "", ""),
    "a transfer breaks more at a larger size": (of("transfer", range(16), distance=1.9, **BLIND | {"epsilon": 2.0}), "", ""),
    "DDN has met other images": (
        [row | {"sample_hash": "x" + row["sample_hash"]} for row in of("ddn", range(16), **MINIMAL)],
        "",
        "",
    ),
    "another seed": (of("ddn", range(16), seed=1, **MINIMAL), "", ""),
    "another norm": (of("ddn", range(16), norm="linf", **MINIMAL), "", ""),
    "DDN's images broke the rules": (of("ddn", range(16), valid=False, **MINIMAL), "", ""),
    "APGD has found what DDN finds": (
        [*of("ddn", range(16), **MINIMAL), *of("apgd", range(16))],
        f"weaker than ddn, which breaks 6 of 50 images more: {MASKED}",
        "",
    ),
}


@pytest.mark.parametrize("kind", RIVALS)
def test_a_row_that_another_attack_outdoes_carries_a_warning(kind):
    others, words, worst = RIVALS[kind]
    found = summarize(pd.DataFrame([*of("pgd", range(10)), *others]))
    found = found[(found["norm"] == "l2") & (found["seed"] == 0) & (found["epsilon"] == 1.0)].set_index(["attack", "gradient"])
    for row, expected in ((PGD_ROW, words), (WORST, worst)):
        said = found.loc[row, "warnings"]
        assert expected in said
        assert bool(expected) == ("weaker" in said)


def test_the_strongest_rival_is_named():
    rows = [*of("pgd", range(10)), *of("ddn", range(16), **MINIMAL), *of("cw", range(30), **MINIMAL)]
    assert "weaker than cw, which breaks 20 of 50" in summarize(pd.DataFrame(rows))["warnings"][0]


def distances(attack, values, **changes):
    """Records of a minimal-norm attack: where it found something, None for nothing."""
    rows = []
    for i, value in enumerate(values):
        found = {} if value is None else {"correct": 0.0, "distance": value, "claimed": True}
        rows.append(record(str(i), attack=attack, **MINIMAL, **found, **changes))
    return rows


DDN_FINDS = [0.5 + 0.01 * i for i in range(20)]


def times(*factors):
    """DDN's distances, each multiplied by the factor of its turn."""
    return [value * factors[i % len(factors)] for i, value in enumerate(DDN_FINDS)]


# kind -> what C&W finds, the words of its row
FAR_OFF = {
    "2.8 times": (
        times(2.8),
        "comes far closer on 20 of 20 images (median distance 0.595, here 1.67): suspect masked gradients",
    ),
    "on most": (times(2.8, 2.8, 2.8, 1), "comes far closer on 15 of 20 images (median distance 0.595, here "),
    "nothing found": ([None] * 20, "comes far closer on 20 of 20 images (median distance 0.595, here inf)"),
    "on half": (times(2.8, 1), ""),
    "on most, as by chance": (times(2.8, 2.8, 1, 2.8, 1), ""),
    "a little weaker everywhere": (times(1.4), ""),
    "closer": (times(0.9), ""),
}


@pytest.mark.parametrize("kind", FAR_OFF)
def test_a_minimal_norm_attack_that_is_far_off_carries_a_warning(kind):
    found, words = FAR_OFF[kind]
    clean_errors = [0.0] * 5  # count for neither
    for wrong in ([], clean_errors):
        table = table_of(*distances("ddn", wrong + DDN_FINDS), *distances("cw", wrong + found))
        said = table.loc[("cw", "exact"), "warnings"]
        if wrong:
            assert bool(words) == ("weaker than ddn, which comes far closer on" in said)
        else:
            assert said == (f"weaker than ddn, which {words}" if words.endswith("gradients") else said)
            assert words in said
            assert bool(words) == ("weaker" in said)
        assert "weaker" not in table.loc[("ddn", "exact"), "warnings"]
        assert "weaker" not in table.loc[WORST, "warnings"]


def test_the_strongest_of_those_that_are_closer_is_named():
    rows = [*distances("cw", times(2.8)), *distances("ddn", DDN_FINDS), *distances("fmn", times(0.9))]
    assert "weaker than fmn, which comes far closer on 20 of 20" in table_of(*rows).loc[("cw", "exact"), "warnings"]


@pytest.mark.parametrize(
    "changes", [{"norm": "linf"}, {"seed": 1}, {"defense": "other"}, {"valid": False}, {"eight_bit": True}]
)
def test_distances_of_something_else_are_not_compared(changes):
    table = summarize(
        pd.DataFrame(
            [*distances("cw", times(2.8), eight_bit=False), *distances("ddn", DDN_FINDS, **{"eight_bit": False, **changes})]
        )
    )
    assert not table["warnings"].str.contains("weaker").any()


@pytest.mark.parametrize("softmax", [False, True])
def test_a_network_that_ends_in_softmax_is_noticed(softmax):
    """C&W and DeepFool are left at a median of 2.72 where DDN finds 0.97."""
    digits, network = zoo.load_data("mnist-embedded", "test", limit=20), zoo.load("cnn-mnist")
    defense = nn.Sequential(network, nn.Softmax(1)).eval() if softmax else network
    threat = ThreatModel("l2")
    attacks = {"cw": CarliniWagner(threat, searches=3, steps=30), "deepfool": DeepFool(threat), "ddn": DDN(threat, steps=30)}
    table = evaluate(defense, attacks, [(digits.images, digits.labels)]).summary().set_index("attack")
    for attack in ("cw", "deepfool"):
        assert ("weaker than ddn, which comes far closer on" in table.loc[attack, "warnings"]) == softmax
    assert "weaker" not in table.loc["ddn", "warnings"]
