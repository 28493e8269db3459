"""Flags that did nothing: each one acts, or is refused with a sentence that says for what."""

import re
import subprocess
import sys

import pytest

from gencls import zoo
from gencls._commands.attack import build_attacks
from gencls.cli import main, parser
from gencls.core import GenclsError
from gencls.eval.attacks.presets import MINIMAL, PRESETS, attack_by_name, names, preset_by_name, settings_of
from recipes.eabs import sweep as eabs_sweep
from recipes.eabs.__main__ import recipe as eabs
from recipes.mlvgm.__main__ import recipe as mlvgm
from recipes.variational_smoothing.__main__ import recipe as variational_smoothing

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


SIZES = {"-l0": 2.0}
"""Of balls whose size is a number of values."""


@pytest.mark.parametrize("name", names())
def test_what_an_attack_takes_changes_it(name):
    epsilon = None if name.rpartition("-")[0] in MINIMAL else SIZES.get(name[-3:], 0.1)
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
        epsilon = SIZES.get(name[-3:], 0.1)
        assert any(attack.threat.epsilon == epsilon for attack in preset_by_name(name, epsilon).values())
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


# Repeated, abbreviated and unusual flags

UNREADABLE = {
    "a size twice": ([*ATTACK, *FIXED, "--epsilon", "0.2"], "argument --epsilon: expected once, got it twice"),
    "the same size twice": ([*ATTACK, *FIXED, "--epsilon", "0.1"], "argument --epsilon: expected once, got it twice"),
    "a seed twice": ([*ATTACK, *FIXED, "--seed", "0", "--seed", "0"], "argument --seed: expected once"),
    "a choice twice": (["doctor", "cnn-mnist", "--norm", "l2", "--norm", "linf"], "argument --norm: expected once"),
    "a folder twice": (["train", "cnn-mnist", "--out", "a", "--out", "b"], "argument --out: expected once"),
    "a short form": ([*ATTACK, "--attack", "pgd-linf", "--epsi", "0.1"], "unrecognized arguments: --epsi 0.1"),
    "a short form of the doctor": (["doctor", "cnn-mnist", "--trans", "none"], "unrecognized arguments: --trans none"),
    "a fraction without end": ([*ATTACK, "--attack", "pgd-linf", "--epsilon", "8/255/2"], "such as 8/255, got '8/255/2'"),
    "a fraction of nothing": ([*ATTACK, "--attack", "pgd-linf", "--epsilon", "8/0"], "such as 8/255, got '8/0'"),
    "steps without end": ([*ATTACK, *FIXED, "--steps", "1000000000000"], "expected at most 10,000,000, got 1000000000000"),
    "steps in words": ([*ATTACK, *FIXED, "--steps", "many"], "expected a whole number, got 'many'"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_not_read(kind, capsys):
    words, message = UNREADABLE[kind]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_lists_add_up():
    words = ["attack", "--defense", "a", "b", "--attack", "x", "--defense", "c", "--attack", "y", "z"]
    for _ in range(2):  # nothing is left from the line before
        options = parser().parse_args(words)
        assert (options.defense, options.attack) == (["a", "b", "c"], ["x", "y", "z"])


def test_a_parser_reads_a_second_line_anew():
    one = parser()
    for size in ("0.1", "0.2"):
        assert one.parse_args([*ATTACK, "--attack", "x", "--epsilon", size]).epsilon == float(size)


@pytest.mark.parametrize("text", ["8/255", " 8 / 255", "0.03137254901960784"])
def test_a_size_may_be_a_fraction(text):
    assert parser().parse_args([*ATTACK, "--attack", "x", "--epsilon", text]).epsilon == 8 / 255
    assert parser().parse_args(["doctor", "cnn-mnist", "--epsilon", text]).epsilon == 8 / 255


@pytest.mark.parametrize("place", ["file/study", "file/further/study", "/proc/nothing/study"])
@pytest.mark.parametrize(
    "words", [[*ATTACK, *FIXED], ["doctor", "cnn-mnist", "--limit", "4", "--budget", "1"]], ids=["attack", "doctor"]
)
def test_an_out_that_cannot_be_made(words, place, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    assert main([*words, "--out", place]) == 2
    error = capsys.readouterr().err
    assert error.startswith("gencls: error: ")
    assert "expected" in error
    assert place.split("/")[-2] in error
    assert len(error.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "kept"


def test_more_draws_than_memory_end_without_a_traceback(capsys, tmp_path, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 125440000000 bytes")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo, "load_data", full)
    assert main([*ATTACK, *FIXED]) == 1
    assert "expected to do with the memory there is" in capsys.readouterr().err


def test_the_package_is_a_command():
    done = subprocess.run([sys.executable, "-m", "gencls", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout[:7]) == (0, "gencls ")


@pytest.mark.parametrize("recipe", [eabs, mlvgm, variational_smoothing])
def test_recipes_read_alike(recipe, capsys):
    for words, message in (
        (["--see", "1"], "unrecognized arguments: --see 1"),
        (["--seed", "1", "--seed", "2"], "expected once"),
    ):
        with pytest.raises(SystemExit):
            recipe.parser().parse_args(words)
        assert message in capsys.readouterr().err


def test_lists_of_recipes_add_up():
    for words in (["--tables", "2.8", "--tables", "2.9"], ["--parts", "2.8", "--tables", "2.9"]):
        assert eabs.parser().parse_args(words).parts == ["2.8", "2.9"]
    for recipe in (eabs, mlvgm, variational_smoothing):
        one, two = list(recipe.parts)[:2]
        assert recipe.parser().parse_args(["--parts", one, "--parts", two]).parts == [one, two]
        assert recipe.parser().parse_args(["--parts"]).parts == []
        assert recipe.parser().parse_args([]).parts is None
