"""Records that were written to a CSV say the same when they are read again."""

import pandas
import pytest
import torch
from pandas.testing import assert_frame_equal
from torch import nn

from gencls.core import GenclsError
from gencls.eval import FGSM, ThreatModel, evaluate, summarize


@pytest.fixture
def records():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    attacks = {"FGSM": FGSM(ThreatModel("linf", epsilon=0.1))}
    return evaluate(network, attacks, (torch.rand(6, 1, 4, 4), torch.arange(6) % 3)).records


def test_records_through_a_csv_give_the_same_table(records, tmp_path):
    records.loc[0, "warnings"] = "said of one"
    records.to_csv(tmp_path / "records.csv", index=False)
    assert_frame_equal(summarize(pandas.read_csv(tmp_path / "records.csv")), summarize(records))

    records["warnings"] = ""  # then the column holds no word, and comes back as numbers
    records.to_csv(tmp_path / "records.csv", index=False)
    assert_frame_equal(summarize(pandas.read_csv(tmp_path / "records.csv")), summarize(records))


def test_names_that_pandas_reads_as_nothing_are_told(records, tmp_path):
    records["defense"] = "NA"
    records.to_csv(tmp_path / "records.csv", index=False)
    with pytest.raises(
        GenclsError, match=r"expected defense in every record, got none in 6 of 6; pandas\.read_csv takes names"
    ):
        summarize(pandas.read_csv(tmp_path / "records.csv"))
    read = pandas.read_csv(tmp_path / "records.csv", keep_default_na=False, na_values=[""])
    assert_frame_equal(summarize(read), summarize(records))
