"""Flags that did nothing: each one acts, or is refused with a sentence that says for what."""

import re

import pytest

from gencls import zoo
from gencls._commands.attack import build_attacks
from gencls.cli import main
from gencls.core import GenclsError
from gencls.eval.presets import MINIMAL, PRESETS, attack_by_name, names, preset_by_name, settings_of
from recipes import eabs, eabs_sweep, variational_smoothing

ATTACK = ["attack", "--defense", "cnn-mnist", "--limit", "4"]
FIXED = ["--attack", "pgd-linf", "--epsilon", "0.1"]

REFUSED = {
    "steps of a set": (
        [*ATTACK, "--attack", "thesis-linf", "--epsilon", "0.1", "--steps", "5"],
        "expected neither steps nor restarts for thesis-linf, whose attacks have budgets of their own, got 5 and None",
    ),
    "restarts of a set": (
        [*ATTACK, "--attack", "default-l2", "--epsilon", "1.5", "--restarts", "3"],
        "expected neither steps nor restarts for default-l2",
    ),
    "steps of a set beside an attack": (
        [*ATTACK, "--attack", "pgd-linf", "thesis-linf", "--epsilon", "0.1", "--steps", "5"],
        "expected neither steps nor restarts for thesis-linf",
    ),
    "epsilon of a set without": (
        [*ATTACK, "--attack", "mlvgm-cars", "--epsilon", "1.5"],
        "expected no epsilon for mlvgm-cars, whose attacks have the settings of the paper, got 1.5",
    ),
    "epsilon of minimal distances": (
        [*ATTACK, "--attack", "ddn-l2", "deepfool-l2", "--epsilon", "1.5"],
        "expected no epsilon for ddn-l2, because it minimises the distance, got 1.5",
    ),
    "steps of FGSM": (
        [*ATTACK, "--attack", "pgd-linf", "fgsm-linf", "--epsilon", "0.1", "--steps", "5"],
        "expected no steps for fgsm-linf, which has none, got 5",
    ),
    "steps of noise": (
        [*ATTACK, "--attack", "noise-linf", "--epsilon", "0.1", "--steps", "5"],
        "expected no steps for noise-linf",
    ),
    "restarts of DeepFool": ([*ATTACK, "--attack", "deepfool-l2", "--restarts", "3"], "expected no restarts for deepfool-l2"),
    "restarts of Square": (
        [*ATTACK, "--attack", "square-linf", "--epsilon", "0.1", "--restarts", "3"],
        "expected no restarts for square-linf",
    ),
    "draws of a gradient": (
        [*ATTACK, *FIXED, "--eot", "4"],
        "--eot: expected a defense that is random, got cnn-mnist, whose scores are the same in every draw",
    ),
    "none of them": ([*ATTACK, *FIXED, "--eot", "0"], "--eot: expected a defense that is random"),
    "draws of the judge": ([*ATTACK, *FIXED, "--draws", "4"], "--draws: expected a defense that is random"),
    "what is averaged": ([*ATTACK, *FIXED, "--reduce", "loss"], "--reduce: expected a defense that is random"),
    "common draws": ([*ATTACK, *FIXED, "--common-draws"], "--common-draws: expected a defense that is random"),
    "draws of the doctor": (["doctor", "cnn-mnist", "--limit", "4", "--eot", "4"], "--eot: expected a defense that is random"),
    "download of what is there": (
        ["data", "mnist-embedded", "--download"],
        "mnist-embedded: expected no download, because gencls has no address of this set's files",
    ),
    "download of what nobody offers": (["data", "gtsrb10", "--download"], "gtsrb10: expected no download"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind, capsys, tmp_path, monkeypatch):
    words, message = REFUSED[kind]
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_epsilon_acts_beside_minimal_distances():
    """There it is that of the others, as in the README."""
    found = build_attacks(["pgd-l2", "ddn-l2"], 1.5)
    assert [attack.threat.epsilon for attack in found.values()] == [1.5, None]


@pytest.mark.parametrize("name", names())
def test_what_an_attack_takes_changes_it(name):
    epsilon = None if name.rpartition("-")[0] in MINIMAL else 0.1
    assert ("epsilon" in settings_of(name)) == (epsilon is not None)
    for setting in ("steps", "restarts"):
        if setting in settings_of(name):
            assert attack_by_name(name, epsilon, **{setting: 3}) != attack_by_name(name, epsilon, **{setting: 4})
        else:
            with pytest.raises(GenclsError, match=f"expected no {setting} for {name}, which has none"):
                attack_by_name(name, epsilon, **{setting: 3})


@pytest.mark.parametrize("name", PRESETS)
def test_what_a_set_takes(name):
    if "epsilon" in settings_of(name):
        assert any(attack.threat.epsilon == 0.1 for attack in preset_by_name(name, 0.1).values())
    else:
        with pytest.raises(GenclsError, match=f"expected no epsilon for {name}"):
            preset_by_name(name, 0.1)


def test_a_set_that_cannot_be_downloaded_says_so(tmp_path):
    with pytest.raises(GenclsError, match="cifar10-jpeg: expected no download"):
        zoo.load_data("cifar10-jpeg", "test", root=tmp_path, download=True)


RECIPES = {
    "models of a table that has its own": (
        eabs,
        ["--tables", "2.8", "--models", "cnn"],
        "--models: expected only with --tables examples or main, got --tables 2.8",
    ),
    "attacks of a table that has its own": (
        eabs,
        ["--tables", "examples", "bound", "--attacks", "pgd"],
        "--attacks: expected only with --tables main, got --tables examples bound",
    ),
    "base models that the profile does not have": (
        variational_smoothing,
        ["--bases", "gaussian", "combined"],
        "--bases: expected some of pretrained, gaussian, robust, got combined",
    ),
}


@pytest.mark.parametrize("kind", RECIPES)
def test_recipes(kind):
    recipe, words, message = RECIPES[kind]
    with pytest.raises(GenclsError, match=re.escape(message)):
        recipe.plan(recipe.parser().parse_args(words), "as told")


def test_a_sweep_of_inferences_trains_nothing(capsys):
    with pytest.raises(SystemExit) as end:
        eabs_sweep.parse(["infer", "--epochs", "3"])
    assert end.value.code == 2
    assert "--epochs and --out: expected only with train, got infer" in capsys.readouterr().err
    assert eabs_sweep.parse(["train", "--epochs", "3"])["epochs"] == 3
