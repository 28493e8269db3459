"""Warnings below the tables: said once, with the number of each row."""

import pandas as pd

from recipes.harness import records
from recipes.harness.records import warnings_of


def test_rows_share_a_warning_and_keep_their_numbers(monkeypatch):
    said = {
        "a": "3 of 50 majorities are undecided at the judge's cap of draws; gradients were zero",
        "b": "17 of 50 majorities are undecided at the judge's cap of draws; "
        "the attack's own claim is +6.0 points from what the judge found",
        "c": "weaker than boundary-l2 (no gradient), which breaks 6 of 50 images more: suspect masked gradients",
        "d": "weaker than boundary-l2 (no gradient), which breaks 9 of 50 images more: suspect masked gradients; "
        "3 of 50 adversarials broke the rules (left the ball by up to 0.1) and are excluded: N = 47",
        "e": "weaker than ddn, which comes far closer on 19 of 20 images "
        "(median distance 0.97, here 2.7): suspect masked gradients",
        "f": "weaker than ddn, which comes far closer on 20 of 20 images "
        "(median distance 0.97, here 3): suspect masked gradients",
    }
    rows = pd.DataFrame({"attack": list(said), "gradient": ["none", "warm", *4 * ["exact"]], "warnings": list(said.values())})
    monkeypatch.setattr(records, "summarize", lambda frame: frame)
    assert list(warnings_of({"E-ABS": rows})) == [
        "⚠ majorities are undecided at the judge's cap of draws: E-ABS / a (3 of 50), E-ABS / b (warm) (17 of 50).",
        "⚠ gradients were zero: E-ABS / a.",
        "⚠ the attack's own claim differs from what the judge found: E-ABS / b (warm) (+6.0 points).",
        "⚠ weaker than boundary-l2 (no gradient), which breaks more images: suspect masked gradients: "
        "E-ABS / c (6 of 50), E-ABS / d (9 of 50).",
        "⚠ adversarials broke the rules (left the ball by up to 0.1) and are excluded: N = 47: E-ABS / d (3 of 50).",
        "⚠ weaker than ddn, which comes far closer on images: suspect masked gradients: "
        "E-ABS / e (19 of 20), E-ABS / f (20 of 20).",
    ]
