"""The command line as strangers use it: no words, mistyped ones, a look before the leap, a training that goes on."""

import time

import pytest
import torch
from torch import nn

from gencls import zoo
from gencls.cli import main
from gencls.core import GenclsError, did_you_mean
from gencls.defenses import PlainClassifier
from gencls.eval import PGD, GaussianNoiseAttack, Study, ThreatModel, predict_cost
from gencls.eval.attacks.presets import attack_by_name, preset_by_name
from gencls.eval.study.cost import forecast, shadow
from gencls.zoo.checkpoints.cards import read_card
from gencls.zoo.networks.parts.architectures import find_architecture
from gencls.zoo.training import PRESETS, train
from recipes import quickstart
from recipes.eabs import foolbox as eabs_foolbox
from recipes.eabs import sweep as eabs_sweep
from recipes.eabs.__main__ import recipe as eabs
from recipes.mlvgm.__main__ import recipe as mlvgm
from recipes.variational_smoothing.__main__ import recipe as variational_smoothing
from tests.zoo.training.methods.test_baselines import TINY, small


def tree(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENCLS_DATA", raising=False)
    return tmp_path


def test_no_words_show_the_help(capsys):
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("usage: gencls")
    assert "Attack defenses on real images" in shown


# Names

MISTYPED = {
    "command": (["atack"], "'attack'"),
    "flag": (["attack", "--defnse", "a", "--attack", "b"], "'--defense'"),
    "flag with a value": (["attack", "--defense", "a", "--attack", "b", "--epsilonn=0.1"], "'--epsilon'"),
    "flag of the root": (["--versoin"], "'--version'"),
    "choice": (["attack", "--defense", "a", "--attack", "b", "--reduce", "logit"], "'logits'"),
    "action": (["weights", "verfy"], "'verify'"),
    "defense": (["attack", "--defense", "cnn-mnits", "--attack", "noise-linf", "--epsilon", "0.1"], "'cnn-mnist'"),
    "attack": (["attack", "--defense", "cnn-mnist", "--attack", "pdg-linf", "--epsilon", "0.1"], "'pgd-linf'"),
    "set of attacks": (["attack", "--defense", "cnn-mnist", "--attack", "defualt-linf", "--epsilon", "0.1"], "'default-linf'"),
    "data set": (["data", "mnits"], "'mnist'"),
    "data to train on": (["train", "cnn-mnist", "--data", "mnist-embeded"], "'mnist-embedded'"),
    "training": (["train", "CNN_MNIST"], "'cnn-mnist'"),
}


@pytest.mark.parametrize("case", MISTYPED)
def test_mistyped_words_are_guessed_before_the_list_of_names(case, capsys, here):
    words, meant = MISTYPED[case]
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code
    shown = capsys.readouterr().err
    assert code == 2
    assert f"did you mean {meant}?" in shown
    lists = [shown.find(words) for words in ("expected one of", "expected a name among", "choose from") if words in shown]
    assert all(shown.find("did you mean") < at for at in lists)
    assert not list(here.iterdir())


LOOKUPS = {
    "defense": lambda: zoo.load("abs-mnits"),
    "generator": lambda: zoo.load_generator("nvae-fashon"),
    "split": lambda: zoo.load_data("mnist-embedded", "tset"),
    "attack": lambda: attack_by_name("apgd-lnf", 0.1),
    "set of attacks": lambda: preset_by_name("thesis-linff", 0.1),
    "architecture": lambda: find_architecture("mnsit"),
    "gradient mode": lambda: zoo.load("cnn-mnist").surrogate("exakt"),
    "recipe's profile": lambda: eabs.parser().parse_args(["--profile", "fashon"]),
}


@pytest.mark.parametrize("case", LOOKUPS)
def test_python_guesses_alike(case, capsys):
    with pytest.raises((GenclsError, SystemExit)) as caught:
        LOOKUPS[case]()
    assert "did you mean '" in str(caught.value) + capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "meant"),
    [("PGD-Linf", "did you mean 'pgd-linf'? "), ("pgd_linf", "did you mean 'pgd-linf'? "), ("resnet", ""), ("", "")],
)
def test_only_what_is_close_is_guessed(name, meant):
    assert did_you_mean(name, ["pgd-linf", "pgd-l2", "noise-l2"]) == meant


# Dry runs


@pytest.fixture(scope="module")
def linear():
    torch.manual_seed(0)
    return PlainClassifier(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), 10).eval()


def study_of(folder, defense, count, seed=0):
    data = zoo.load_data("mnist-embedded", "test", limit=count)
    ball = ThreatModel("linf", 0.1)
    attacks = {"pgd": PGD(ball, steps=3), "noise": GaussianNoiseAttack(ball, tries=2)}
    return Study(
        folder,
        defenses={"linear": defense},
        attacks=attacks,
        images=data.images,
        labels=data.labels,
        seeds=(seed,),
        shard_size=4,
    )


def test_a_dry_run_counts_what_is_left_and_leaves_no_trace(tmp_path, linear):
    folder = tmp_path / "study"
    with shadow(folder) as place:
        assert [*forecast(study_of(place, linear, 10))][-1].endswith("at most for 6 of 6 cells, 10 images")
    assert not folder.exists()
    study = study_of(folder, linear, 10)
    study.run()
    (gone,) = study.cells()[:1]
    (folder / "cells" / f"{gone.key}.json").unlink()
    before = tree(folder)
    with shadow(folder) as place:
        assert [*forecast(study_of(place, linear, 10))][-1].endswith("at most for 1 of 6 cells, 10 images")
    (folder / "notes.txt").write_text("mine")
    assert {**before, **tree(folder)} == tree(folder)
    assert tree(folder).keys() - before.keys() == {folder / "notes.txt"}


def test_errors_of_a_dry_run_name_the_folder_itself(tmp_path, linear):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(GenclsError, match=f"{tmp_path}: expected an empty folder"), shadow(tmp_path) as place:
        study_of(place, linear, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


COMMANDS = {
    "attack": (
        ["attack", "--defense", "cnn-mnist", "--attack", "noise-linf", "--epsilon", "0.1", "--limit", "6", "--doctor"],
        ["cnn-mnist: 1 cell, ", "1 of 1 cell, 6 images", "at most for a diagnosis (full) on 6 of 6 images"],
    ),
    "doctor": (["doctor", "cnn-mnist", "--limit", "5"], ["diagnosis (full) on 5 of 5 images for cnn-mnist"]),
    "train": (
        ["train", "cnn-mnist", "--data", "mnist-embedded", "--epochs", "3", "--limit", "200"],
        ["for 3 of 3 epochs of cnn-mnist on 200 images of mnist-embedded"],
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_predict_and_write_nothing(command, capsys, here):
    words, said = COMMANDS[command]
    assert main([*words, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert all(part in shown for part in said), shown
    assert not list(here.iterdir())


def test_quickstart_predicts_with_its_count(capsys, here, monkeypatch):
    monkeypatch.setattr(quickstart, "DEFENSES", {"cnn-mnist": {}})
    assert quickstart.command(["--count", "7", "--steps", "1", "--dry-run"]) == 0
    assert "11 of 11 cells, 7 images" in capsys.readouterr().out
    assert not list(here.iterdir())


@pytest.mark.parametrize("recipe", [eabs, eabs_foolbox, eabs_sweep, mlvgm, quickstart, variational_smoothing])
def test_every_recipe_has_the_flag(recipe, capsys):
    with pytest.raises(SystemExit) as end:
        recipe.command(["--help"])
    assert end.value.code == 0
    assert "--dry-run" in capsys.readouterr().out


@pytest.mark.slow
def test_predictions_bound_the_time_and_are_near_it(tmp_path, linear):
    """A few seconds of work; a machine that does other things may be off by more."""
    defense = zoo.load("cnn-mnist")
    data = zoo.load_data("mnist-embedded", "test", limit=50)
    attacks = {"pgd": PGD(ThreatModel("linf", 0.001), steps=100)}  # too small to break anything early
    settings = {"defenses": {"cnn": defense}, "attacks": attacks, "images": data.images, "labels": data.labels}
    study = Study(tmp_path / "study", **settings)
    predicted = sum(predict_cost(study, study.cells()))
    began = time.perf_counter()
    study.run()
    took = time.perf_counter() - began
    assert predicted / 4 < took < 2.5 * predicted


# Trainings


def test_train_says_what_was_measured(capsys, here):
    words = ["train", "cnn-mnist", "--data", "mnist-embedded", "--limit", "20", "--epochs", "1"]
    assert main(words) == 0
    *lines, path = capsys.readouterr().out.splitlines()
    assert path == "runs/cnn-mnist/cnn-mnist.safetensors"
    assert any(line.startswith("clean accuracy, mnist-embedded test, 1000 images: 0.") for line in lines)
    assert main([*words, "--resume", "--dry-run"]) == 0
    assert "for 0 of 1 epoch of" in capsys.readouterr().out
    words[-1] = "2"
    assert main([*words, "--resume", "--dry-run"]) == 0
    assert "for 1 of 2 epochs" in capsys.readouterr().out
    assert main([*words, "--resume"]) == 0
    command = "gencls train cnn-mnist --data mnist-embedded --epochs {} --limit 20"
    assert read_card(path).command == f"{command.format(1)} && {command.format(2)} --resume"
    words[-1] = "1"
    for more in ([], ["--dry-run"]):
        assert main([*words, "--resume", *more]) == 2
        assert "expected 2 epochs, as the run was planned with, got 1; a finished epoch" in capsys.readouterr().err


@pytest.mark.slow
def test_more_epochs_of_a_constant_rate_are_those_of_one_run(tmp_path):
    settings, few = small("a-vae-fashion"), {**TINY, "limit": 16, "measured": 4}
    whole = train(settings, **few, epochs=2, out=tmp_path / "whole")
    train(settings, **few, epochs=1, out=tmp_path / "grown")
    grown = train(settings, **few, epochs=2, out=tmp_path / "grown", resume=True)
    assert grown.read_bytes() == whole.read_bytes()
    assert read_card(grown).command == read_card(whole).command
    with pytest.raises(GenclsError, match="expected 2 epochs, as the run was planned with, got 1; a finished epoch"):
        train(settings, **few, epochs=1, out=tmp_path / "grown", resume=True)
    with pytest.raises(GenclsError, match="expected to resume a run of"):
        train(settings, **few, epochs=3, seed=1, out=tmp_path / "grown", resume=True)


def test_what_depends_on_all_epochs_together_does_not_go_on():
    """A warm-up and shares of the epochs do; a cosine alone can go on as a longer one, which the card says."""
    made = {name: PRESETS[name].training(10) for name in ("cnn-mnist", "eabs-mnist")}
    assert {name: module.extendable or module.replannable for name, module in made.items()} == {
        "cnn-mnist": True,
        "eabs-mnist": False,
    }
    assert small("a-vae-fashion").training(10).extendable


def test_a_run_goes_on_as_a_longer_one_only_from_its_end(tmp_path):
    few = {"data": "mnist-embedded", "limit": 20, "measured": 4, "progress": False, "out": tmp_path}
    train("cnn-mnist", **few, epochs=2)
    checkpoint = tmp_path / "cnn-mnist" / "last.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "epoch": 0}, checkpoint)
    with pytest.raises(GenclsError, match="got 3; it has not come to the end of its 2 epochs"):
        train("cnn-mnist", **few, epochs=3, resume=True)
