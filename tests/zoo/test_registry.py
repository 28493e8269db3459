"""The registries agree: what can be loaded is what trainings make, and data sets can be trained on as they say."""

import pytest
import torch
from torch import nn

from gencls.zoo.data.registry import DATA_SETS
from gencls.zoo.registry import GENERATORS, ROWS
from gencls.zoo.training import PRESETS

TRAINED = {row.trained or name: row.network for name, row in ROWS.items() if row.network is not None} | GENERATORS


def test_every_training_can_be_loaded_and_everything_that_is_loaded_can_be_trained() -> None:
    assert TRAINED.keys() == PRESETS.keys()


@pytest.mark.parametrize("name", TRAINED)
def test_what_a_training_gives_is_what_is_loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gencls.zoo.training.methods.nd_vae.load", lambda name: nn.Identity())  # has values
    with torch.device("meta"):
        learner = PRESETS[name].training(10)
    assert type(learner.product) is TRAINED[name]


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_data_set_is_trained_and_tested_on_splits_that_it_has(name: str) -> None:
    row = DATA_SETS[name]
    assert set(row.training) <= set(row.splits) or not row.trainable
    assert all("test" in DATA_SETS[other].splits for other in row.also_tested)


def test_all_rows_say_what_they_take() -> None:
    for name, row in ROWS.items():
        assert "weights" in row.overrides() or row.is_here(name)
