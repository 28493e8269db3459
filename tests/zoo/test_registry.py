"""The registries agree: what can be loaded is what trainings make, and data sets can be trained on as they say."""

import re
from dataclasses import replace
from pathlib import Path
from pkgutil import iter_modules

import pytest
import torch
from torch import nn

from gencls.core import GenclsError, TransformedClassifier
from gencls.defenses import NDVAEPurification
from gencls.zoo import load
from gencls.zoo.data.registry import DATA_SETS
from gencls.zoo.networks import NDVAE
from gencls.zoo.ready_made import ReadyMade
from gencls.zoo.rows import GENERATORS, ROWS
from gencls.zoo.training import PRESETS, methods
from tests.contracts.tables import check_rows

ROOT = Path(__file__).parents[2]

TRAINED = {row.trained or name: row.network for name, row in ROWS.items() if row.network is not None} | GENERATORS


@pytest.mark.parametrize("name", PRESETS)
def test_every_training_can_be_loaded(name: str) -> None:
    row = '"{name}": ReadyMade(...); a generator "{name}": its network to GENERATORS there'
    check_rows([name], TRAINED, where="ROWS in gencls/zoo/rows.py", row=row)


@pytest.mark.parametrize("name", TRAINED)
def test_everything_that_is_loaded_can_be_trained(name: str) -> None:
    where = "PRESETS of every file in gencls/zoo/training/methods"
    check_rows([name], PRESETS, where=where, row='a preset with name="{name}", or write trained="..." into its row')


@pytest.mark.parametrize("name", TRAINED)
def test_what_a_training_gives_is_what_is_loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in iter_modules(methods.__path__, f"{methods.__name__}."):  # a loaded classifier has values
        monkeypatch.setattr(f"{file.name}.load", lambda name: nn.Identity(), raising=False)
    with torch.device("meta"):
        learner = PRESETS[name].training(10)
    assert type(learner.product) is TRAINED[name]


def test_every_data_set_is_described() -> None:
    described = re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs" / "data.md").read_text(), flags=re.MULTILINE)
    check_rows(DATA_SETS, described, where="the table of docs/data.md", row="| `{name}` | splits | images | files | checked |")


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_data_set_is_trained_and_tested_on_splits_that_it_has(name: str) -> None:
    row = DATA_SETS[name]
    assert set(row.training) <= set(row.splits) or not row.trainable
    assert all("test" in DATA_SETS[other].splits for other in row.also_tested)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_says_what_it_takes(name: str) -> None:
    assert "weights" in ROWS[name].overrides() or ROWS[name].is_here(name)


def test_a_transform_needs_a_classifier_behind_it() -> None:
    row = ReadyMade(NDVAEPurification, NDVAE)
    with pytest.raises(GenclsError, match="nd-vae-mnist: expected the row of a transform to say the classifier behind it"):
        row.make("nd-vae-mnist")
    defense = replace(row, classifier="cnn-plain-fashion").make("nd-vae-mnist", sigma=0.2)
    assert isinstance(defense, TransformedClassifier)
    assert isinstance(defense.transform, NDVAEPurification)
    assert defense.transform.sigma == 0.2


def test_published_files_are_asked_for() -> None:
    with pytest.raises(
        GenclsError, match="official-abs-mnist: expected weights=FOLDER with the published files, ABS_0.net first"
    ):
        load("official-abs-mnist")
