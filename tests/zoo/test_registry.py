"""The registries agree: what can be loaded is what trainings make, and data sets can be trained on as they say."""

import json
import re
from dataclasses import replace
from pathlib import Path
from pkgutil import iter_modules

import pytest
import torch
from torch import nn

from gencls.core import GenclsError, TransformedClassifier
from gencls.defenses import NDVAEPurification
from gencls.zoo import load, registry
from gencls.zoo.data.registry import DATA_SETS
from gencls.zoo.networks import NDVAE
from gencls.zoo.ready_made import ReadyMade
from gencls.zoo.rows import GENERATORS, PARTS, ROWS
from gencls.zoo.trained import constructor
from gencls.zoo.training import PRESETS, methods
from gencls.zoo.training.base import Preset
from gencls.zoo.training.methods import hierarchical_vae
from tests.contracts.tables import check_rows

ROOT = Path(__file__).parents[2]

CLASSES = 7
"""No network has so many by default."""

TRAINED: dict[str, type[nn.Module]] = {
    **{row.trained or name: row.network for name, row in ROWS.items() if row.network is not None},
    **GENERATORS,
    **PARTS,
}


@pytest.mark.parametrize("name", PRESETS)
def test_every_training_can_be_loaded(name: str) -> None:
    row = '"{name}": ReadyMade(...); a generator or a part "{name}": its network to GENERATORS or PARTS there'
    check_rows([name], TRAINED, where="ROWS in gencls/zoo/rows.py", row=row)


@pytest.mark.parametrize("name", TRAINED)
def test_everything_that_is_loaded_can_be_trained(name: str) -> None:
    where = "PRESETS of every file in gencls/zoo/training/methods"
    check_rows([name], PRESETS, where=where, row='a preset with name="{name}", or write trained="..." into its row')


@pytest.mark.parametrize("name", TRAINED)
def test_what_a_training_gives_is_what_is_loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in iter_modules(methods.__path__, f"{methods.__name__}."):  # a loaded classifier has values
        monkeypatch.setattr(f"{file.name}.load", lambda name: nn.Identity(), raising=False)
    # Its power iterations take seconds, also of tensors without values.
    monkeypatch.setattr(hierarchical_vae, "SpectralPenalty", lambda network: nn.Identity())
    with torch.device("meta"):
        network = PRESETS[name].training(CLASSES).product
    assert type(network) is TRAINED[name]
    assert rebuilt(PRESETS[name], type(network)) == {key: value.shape for key, value in network.state_dict().items()}


def rebuilt(preset: Preset, kind: type[nn.Module]) -> dict[str, torch.Size]:
    """The layout of the network that the card of the preset describes."""
    arguments = json.loads(json.dumps(preset.card_arguments(CLASSES)))
    try:
        with torch.device("meta"):
            network = constructor(kind)(**arguments)
    except TypeError as error:
        pytest.fail(
            f"{type(preset).__name__}.card_arguments: expected the arguments of {kind.__name__}, got {arguments}: {error}"
        )
    return {key: value.shape for key, value in network.state_dict().items()}


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_data_set_is_described(name: str) -> None:
    described = re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs" / "data.md").read_text(), flags=re.MULTILINE)
    check_rows([name], described, where="the table of docs/data.md", row="| `{name}` | splits | images | files | checked |")


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


def test_weights_without_a_row_are_told_what_they_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    (tmp_path / "prototype-mnist.safetensors").touch()
    with pytest.raises(GenclsError, match=r"^prototype-mnist has weights but no row: add it to ROWS in gencls/zoo/rows.py$"):
        load("prototype-mnist")


def test_published_files_are_asked_for() -> None:
    with pytest.raises(
        GenclsError, match="official-abs-mnist: expected weights=FOLDER with the published files, ABS_0.net first"
    ):
        load("official-abs-mnist")
