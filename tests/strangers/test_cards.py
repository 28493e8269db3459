"""Cards as people have them, and folders with weights on the command line: each works, or is refused by name."""

import json
import shutil
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gencls import zoo
from gencls._commands.asked import build_defense, weights_of
from gencls.cli import main
from gencls.core import GenclsError, seeded
from gencls.zoo.checkpoints.cards import Card, read_card
from gencls.zoo.checkpoints.checkpoint import restore, save_checkpoint, verify_checkpoint
from gencls.zoo.checkpoints.places import WEIGHTS
from gencls.zoo.checkpoints.reading import load_state_dict
from gencls.zoo.networks import CNN
from gencls.zoo.registry import ARCHITECTURES, find_weights
from recipes.harness.folders import weights_path
from tests.strangers.networks import data_of
from tests.strangers.test_weights import IMAGES, TENSORS, WHOLE, network, state

__all__ = ["network", "state"]


# --- cards -----------------------------------------------------------------------------------------------------------

CARD = Card(
    name="mine",
    architecture="CifarResNet",
    arguments={"width": 4, "blocks": [1, 1], "num_classes": 3},
    what="",
    trained_on="",
    command="",
    metrics={},
    licence="",
    seed=0,
)


@pytest.fixture
def mine(tmp_path, network):
    save_checkpoint(network, tmp_path / "mine.safetensors", CARD)
    return tmp_path / "mine.safetensors"


ARGUMENTS = {
    "terabytes": ({"width": 2**22}, r"expected conv1.weight of shape \(4194304, 3, 3, 3\); got \(4, 3, 3, 3\)"),
    "beyond any size": ({"width": 10**30}, r"expected sizes up to 16,777,216; its card has 1e\+30"),
    "endless": ({"blocks": [2**23]}, "its card does not fit: more than .* modules and parameters"),
    "negative": ({"width": -4}, "its card does not fit: "),
    "of another type": ({"width": "4"}, "its card has width='4'"),
    "a truth value as a number": ({"num_classes": True}, "its card has num_classes=True"),
    "a list as a number": ({"num_classes": [[3]]}, r"its card has num_classes=\[\[3\]\]"),
    "a number as a list": ({"blocks": 3}, "its card does not fit: "),
    "unknown": (
        {"colour": 3},
        "its card does not fit: got an unexpected keyword argument 'colour'. A training writes them, by card_arg",
    ),
}


@pytest.mark.parametrize(("changes", "message"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_cards_of_impossible_networks(tmp_path, network, changes, message):
    save_checkpoint(network, tmp_path / "a.safetensors", replace(CARD, arguments={**CARD.arguments, **changes}))
    for read in (
        zoo.load,
        partial(restore, architectures=ARCHITECTURES),
        partial(verify_checkpoint, architectures=ARCHITECTURES),
    ):
        with pytest.raises(GenclsError, match=f"(?s)a.safetensors: .*{message}"):
            read(tmp_path / "a.safetensors")


JSON = {
    "nesting": ('"metrics": {}', '"metrics": ' + '{"a":' * 50_000 + "1" + "}" * 50_000, "expected a JSON card"),
    "deep lists": ('"metrics": {}', '"metrics": {"a": ' + "[" * 50_000 + "]" * 50_000 + "}", "expected a JSON card"),
    "NaN": ('"metrics": {}', '"metrics": {"a": NaN}', "NaN is no number of JSON"),
    "Infinity": ('"metrics": {}', '"metrics": {"a": -Infinity}', "-Infinity is no number of JSON"),
    "a key twice": ('"seed": 0', '"seed": 0, "seed": 1', "'seed' stands there twice"),
    "a key twice inside": ('"width": 4', '"width": 4, "width": 8', "'width' stands there twice"),
    "endless digits": ('"seed": 0', '"seed": ' + "9" * 10_000, "expected a JSON card"),
    "a million letters": ('"what": ""', '"what": "' + "a" * 2**20 + '"', "expected a card of at most 1,048,576 bytes; got"),
    "another type": ('"seed": 0', '"seed": "0"', "expected seed as int; got '0'"),
    "a truth value": ('"seed": 0', '"seed": true', "expected seed as int; got True"),
    "a negative size": ('"size": ', '"size": -', "expected size as a number of bytes; got -"),
    "no object": (None, "3", "expected the fields of a card"),
    "other letters": (None, "\udcff", "expected a JSON card"),
}


@pytest.mark.parametrize(("old", "new", "message"), JSON.values(), ids=JSON)
def test_cards_that_are_none(mine, old, new, message):
    path = mine.with_suffix(".json")
    text = path.read_text()
    path.write_text(text.replace(old, new) if old else new, errors="surrogateescape")
    assert path.read_bytes() != text.encode()
    for read in (read_card, zoo.load, verify_checkpoint):
        with pytest.raises(GenclsError, match=f"mine.json: .*{message}"):
            read(mine)


def _with_card(path, state, card):
    """Weights that `save_checkpoint` would not write."""
    save_file(state, path)
    content = path.read_bytes()
    values = {**vars(card), "size": len(content), "sha256": sha256(content).hexdigest()}
    path.with_suffix(".json").write_text(json.dumps(values))


@pytest.mark.parametrize("kind", ["NaN", "Inf", "complex", "float8", "integer", "bool"])
def test_verify_names_the_tensor(tmp_path, capsys, state, kind):
    make = WHOLE.get(kind) or TENSORS[kind][0]
    _with_card(tmp_path / "a.safetensors", {**state, "linear.bias": make(state["linear.bias"])}, CARD)
    assert main(["weights", "verify", str(tmp_path / "a.safetensors")]) == 2
    assert "expected linear.bias " in capsys.readouterr().err
    with pytest.raises(GenclsError, match="expected linear.bias "):
        zoo.load(tmp_path / "a.safetensors")


def test_kinds_of_numbers_that_torch_lacks(tmp_path, state):
    _with_card(tmp_path / "a.safetensors", state, CARD)
    content = (tmp_path / "a.safetensors").read_bytes().replace(b'"F32"', b'"F4" ', 1)
    (tmp_path / "b.safetensors").write_bytes(content)
    with pytest.raises(GenclsError, match="b.safetensors: expected a complete safetensors file; got"):
        load_state_dict(tmp_path / "b.safetensors")


# --- what was trained, on the command line ---------------------------------------------------------------------------

ATTACK = ["--attack", "fgsm-linf", "--epsilon", "0.1", "--limit", "4"]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder as `gencls train` leaves it, with cnn-mnist, of other weights than the package's."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "cnn-mnist"
    card = read_card(WEIGHTS / "cnn-mnist.safetensors")
    with seeded(3):
        save_checkpoint(CNN.from_architecture(**card.arguments), folder / "cnn-mnist.safetensors", card)
    return Path("runs")


def test_attack_takes_the_weights_of_a_folder_and_a_weights_file_as_a_defense(runs, capsys):
    shutil.copytree(runs / "cnn-mnist", "other")
    file = "other/cnn-mnist.safetensors"
    assert main(["attack", "--defense", "cnn-mnist", file, "--weights", "runs", *ATTACK]) == 0
    assert "│ cnn-mnist.safetensors │" in capsys.readouterr().out
    (folder,) = (path for path in runs.iterdir() if path.name != "cnn-mnist")
    page = (folder / "report.html").read_text()
    assert f"<dt>Weights</dt><dd>runs/cnn-mnist/cnn-mnist.safetensors, {file}</dd>" in page
    images = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    weights, data = weights_of(["cnn-mnist", file], runs), data_of(images)
    mine, theirs, alone = (
        build_defense(*words) for words in (("cnn-mnist", data, weights["cnn-mnist"]), ("cnn-mnist", data), (file, data))
    )
    assert torch.equal(mine(images), alone(images))
    assert not torch.equal(mine(images), theirs(images))


def test_the_doctor_takes_them_too(runs, capsys):
    file = "runs/cnn-mnist/cnn-mnist.safetensors"
    settings = ["--limit", "4", "--budget", "1", "--epsilon", "0.1"]
    assert main(["doctor", file, "--transfer-from", file, *settings]) in (0, 1)
    assert file in capsys.readouterr().out
    assert main(["doctor", "cnn-mnist", "--weights", "runs", "--transfer-from", "none", *settings]) in (0, 1)


REFUSED = {
    "no folder": (["cnn-mnist", "--weights", "nowhere"], "expected a folder, got nowhere, which is none"),
    "not there": (
        ["cnn-mnist", "abs-mnist", "--weights", "runs"],
        "abs-mnist: expected its weights at runs/abs-mnist/abs-mnist.safetensors or runs/abs-mnist.safetensors; got no",
    ),
    "for nobody": (["runs/cnn-mnist/cnn-mnist.safetensors", "--weights", "runs"], "--weights: expected a defense by name"),
    "no name": (["cnn-mnits", "--weights", "runs"], "unknown model 'cnn-mnits'"),
    "no such file": (["runs/cnn-mnist.safetensors"], "runs/cnn-mnist.safetensors: expected a weights file; got no such file"),
    "an import path": (["tests.toys:x", "--weights", "runs"], "--weights: expected a defense by name"),
    "no such ABS": (
        ["official-abs-mnist", "--weights", "runs"],
        "official-abs-mnist: expected its weights at runs/",
    ),
}


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED)
def test_a_flag_acts_or_is_refused(runs, capsys, words, message):
    assert main(["attack", "--defense", *words, *ATTACK]) == 2
    assert message in capsys.readouterr().err
    if len(words) > 2 and words[1].startswith("--"):
        assert main(["doctor", *words]) == 2
        assert message in capsys.readouterr().err


def test_a_card_says_which_defense_it_is(mine, tmp_path, network):
    plain = zoo.load(mine)
    assert torch.equal(plain(IMAGES), network(IMAGES))
    assert type(plain).__name__ == "PlainClassifier"
    assert type(zoo.load(WEIGHTS / "eabs-mnist.safetensors", steps=3)) is type(zoo.load("eabs-mnist"))
    assert zoo.load(str(WEIGHTS / "a-vae-mnist.safetensors"), realisations=2).stochastic
    for path, overrides, message in (
        (WEIGHTS / "nvae-mnist.safetensors", {}, "expected weights of a defense or of a classifier; got 'nvae-mnist', an NVAE"),
        (mine, {"sigma": 1}, "expected no overrides for a classifier; got 'sigma'"),
        (WEIGHTS / "cnn-mnist.safetensors", {"weights": "a"}, "expected no weights beside a weights file; got a"),
        (tmp_path / "none.safetensors", {}, "expected a weights file; got no such file"),
    ):
        with pytest.raises(GenclsError, match=message):
            zoo.load(path, **overrides)
    with pytest.raises(GenclsError, match="expected a weights file; got a folder"):
        load_state_dict(tmp_path)
    mine.with_suffix(".json").unlink()
    with pytest.raises(GenclsError, match=r"expected its card mine.json beside it"):
        zoo.load(mine)


def test_recipes_and_commands_look_in_the_same_places(runs):
    assert find_weights("cnn-mnist", runs) == weights_path("cnn-mnist", runs) == runs / "cnn-mnist" / "cnn-mnist.safetensors"
    assert find_weights("cnn-blur-mnist", runs / "cnn-mnist") == weights_path("cnn-mnist", runs / "cnn-mnist")
    assert weights_path("abs-mnist", runs) == WEIGHTS / "abs-mnist.safetensors"
    assert find_weights("resnet18-autoattack-cifar10", runs) is None


def test_a_folder_of_weights_does_where_a_file_does(runs):
    images, file = torch.rand(2, 1, 28, 28), runs / "cnn-mnist" / "cnn-mnist.safetensors"
    expected = zoo.load("cnn-mnist", weights=file)(images)
    assert not torch.equal(expected, zoo.load("cnn-mnist")(images))
    for place in (runs, str(runs), runs / "cnn-mnist"):
        assert torch.equal(zoo.load("cnn-mnist", weights=place)(images), expected)
    with pytest.raises(GenclsError) as caught:
        zoo.load("cnn-plain-fashion", weights=runs)
    name = "cnn-plain-fashion"
    places = f"{runs / name / name}.safetensors or {runs / name}.safetensors"
    assert f"expected the weights of {name} at {places}; got no such file" in str(caught.value)
