"""The registries agree: what can be loaded is what trainings make, and data sets can be trained on as they say."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from pkgutil import iter_modules

import pytest
import torch
from torch import nn

from gencls.core import GenclsError, TransformedClassifier
from gencls.defenses import GaussianNoise, MLVGMPurification, NDVAEPurification
from gencls.zoo import load, registry
from gencls.zoo.checkpoints.cards import read_card
from gencls.zoo.checkpoints.checkpoint import save_checkpoint
from gencls.zoo.checkpoints.places import WEIGHTS
from gencls.zoo.data.registry import DATA_SETS
from gencls.zoo.networks import CNN, NDVAE, GenerativeAutoencoder
from gencls.zoo.ready_made import ReadyMade, network_part, purifier
from gencls.zoo.registry import find_weights
from gencls.zoo.rows import ROWS, TRAINED
from gencls.zoo.trained import constructor, trained_network
from gencls.zoo.training import PRESETS, methods
from gencls.zoo.training.base import Preset
from gencls.zoo.training.methods import hierarchical_vae
from tests.contracts.tables import check_rows

ROOT = Path(__file__).parents[2]

CLASSES = 7
"""No network has so many by default."""


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


def test_a_transform_stands_in_front_of_a_classifier(tmp_path: Path) -> None:
    with pytest.raises(GenclsError, match=r"nd-vae-mnist: expected a row purifier\(.*\), got a ReadyMade that builds an NDVAE"):
        ReadyMade(NDVAEPurification, NDVAE).make("nd-vae-mnist", trained_network)  # type: ignore[arg-type]
    row = purifier(NDVAEPurification, NDVAE, classifier="cnn-plain-fashion")
    assert row.overrides() == ["weights", "sigma"]
    defense = row.make("nd-vae-mnist", trained_network, sigma=0.2)
    assert isinstance(defense, TransformedClassifier)
    assert isinstance(defense.transform, NDVAEPurification)
    assert defense.transform.sigma == 0.2


def test_a_generative_autoencoder_purifies(tmp_path: Path) -> None:
    network = GenerativeAutoencoder((1, 28, 28), widths=(2, 2))
    arguments = {"image_shape": (1, 28, 28), "widths": (2, 2)}
    card = replace(
        read_card(WEIGHTS / "cnn-mnist.safetensors"),
        name="vae-mnist",
        architecture="GenerativeAutoencoder",
        arguments=arguments,
    )
    save_checkpoint(network, tmp_path / "vae-mnist.safetensors", card)
    defense = load("mlvgm-vae-mnist", weights=tmp_path, alpha=0.25)
    assert isinstance(defense, TransformedClassifier)
    assert isinstance(defense.transform, MLVGMPurification)
    assert defense.transform.alphas == (0.25,)
    assert same(network, defense.transform.model.autoencoder)  # type: ignore[arg-type]
    plain, images = load("mlvgm-vae-mnist", weights=tmp_path), torch.rand(2, 1, 28, 28)
    assert not plain.stochastic
    torch.testing.assert_close(plain(images), load("cnn-mnist")(network.eval()(images)))


def test_a_defense_of_several_networks_takes_from_a_folder_what_is_there(tmp_path: Path) -> None:
    row = ROWS["nd-vae-mnist"]
    for suffix in (".safetensors", ".json"):
        shutil.copy(WEIGHTS / f"nd-vae-mnist{suffix}", tmp_path)
    committed, alone = row.make("nd-vae-mnist", trained_network), row.make("nd-vae-mnist", trained_network, weights=tmp_path)
    assert same(committed, alone)  # the classifier is the committed one
    classifier = trained_network(CNN, "cnn-mnist")
    with torch.no_grad():
        next(classifier.parameters()).mul_(2.0)
    card = read_card(WEIGHTS / "cnn-mnist.safetensors")
    save_checkpoint(classifier, tmp_path / "cnn-mnist" / "cnn-mnist.safetensors", card)
    assert not same(committed, row.make("nd-vae-mnist", trained_network, weights=tmp_path))
    assert same(committed, row.make("nd-vae-mnist", trained_network, weights=tmp_path / "nd-vae-mnist.safetensors"))
    assert find_weights("nd-vae-mnist", tmp_path) == tmp_path


def same(first: nn.Module, second: nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[key]) for key, value in first.state_dict().items())


def test_a_setting_that_chooses_among_parts() -> None:
    digits, clothes = network_part(CNN, "cnn-mnist"), network_part(CNN, "cnn-plain-fashion")
    missing = network_part(CNN, "cnn-mars")

    def build(network: CNN, *, judge: CNN, sigma: float = 0.1) -> TransformedClassifier:
        return TransformedClassifier(GaussianNoise(sigma), judge, judge.num_classes)

    row = ReadyMade(build, CNN, trained="cnn-mnist", parts={"judge": {"digits": digits, "clothes": clothes, "mars": missing}})
    assert row.overrides() == ["weights", "judge", "sigma"]
    assert same(row.make("toy", trained_network), row.make("toy", trained_network, judge="digits"))
    assert not same(row.make("toy", trained_network), row.make("toy", trained_network, judge="clothes", sigma=0.3))
    assert row.is_here("toy")
    assert not replace(row, parts={"judge": {"mars": missing}}).is_here("toy")
    with pytest.raises(GenclsError, match=r"expected the weights of cnn-mars .* Make them with: gencls train cnn-mars"):
        row.make("toy", trained_network, judge="mars")
    for word in ("cloths", 3):
        with pytest.raises(GenclsError, match=rf"toy: .*expected judge to be one of digits, clothes, mars; got {word!r}"):
            row.make("toy", trained_network, judge=word)


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
