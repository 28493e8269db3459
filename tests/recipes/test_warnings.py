"""Warnings below the tables: said once, with the number of each row."""

import pandas as pd

from recipes import records
from recipes.records import warnings_of


def test_rows_share_a_warning_and_keep_their_numbers(monkeypatch):
    said = {
        "a": "3 of 50 majorities are undecided at the judge's cap of draws; gradients were zero",
        "b": "17 of 50 majorities are undecided at the judge's cap of draws; "
        "the attack's own claim is +6.0 points from what the judge found",
    }
    rows = pd.DataFrame({"attack": list(said), "gradient": ["none", "warm"], "warnings": list(said.values())})
    monkeypatch.setattr(records, "summarize", lambda frame: frame)
    assert list(warnings_of({"E-ABS": rows})) == [
        "⚠ majorities are undecided at the judge's cap of draws: E-ABS / a (3 of 50), E-ABS / b (warm) (17 of 50).",
        "⚠ gradients were zero: E-ABS / a.",
        "⚠ the attack's own claim differs from what the judge found: E-ABS / b (warm) (+6.0 points).",
    ]
