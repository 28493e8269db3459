"""Odd values of flags, of commands and of recipes: refused in words or taken, never a traceback."""

import pytest
import torch

from gencls.core import GenclsError, find_device
from recipes import quickstart
from recipes.eabs import foolbox as eabs_foolbox
from recipes.eabs import sweep as eabs_sweep
from recipes.eabs.__main__ import recipe as eabs
from recipes.mlvgm.__main__ import recipe as mlvgm
from recipes.variational_smoothing.__main__ import recipe as variational_smoothing
from tests.strangers.test_surroundings import attack, here

__all__ = ["here"]


@pytest.mark.parametrize("memory", ["nan", "inf", "-inf", "0", "-1", "x", ""])
def test_memory_that_is_none(memory, capsys, here):
    try:
        code = attack(f"--memory={memory}")
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert "expected" in capsys.readouterr().err or memory in ("x", "")


def test_more_memory_than_there_is(here):
    assert attack("--memory", "1e30", "--attack", "pgd-linf", "--steps", "1", "--dry-run") == 0


@pytest.mark.parametrize("name", ["meta", "mps", "cuda:99", "xyz", "", "xla", "hpu", "privateuseone", "cpu:-1", "CPU", "0"])
def test_devices_that_are_not_there(name, capsys, here):
    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(GenclsError, match="device: expected one of this machine"):
        find_device(name)


VALUES = ("", "0", "-1", "nan", "inf", "1e400", "x", "9" * 30, "None", "[]", "\udcff", "../..", "--", "α")
FLAGS = (
    "--epsilon",
    "--steps",
    "--restarts",
    "--data",
    "--split",
    "--limit",
    "--eot",
    "--draws",
    "--reduce",
    "--memory",
    "--seed",
)


@pytest.mark.parametrize("flag", FLAGS)
def test_odd_values_of_every_flag_are_refused_or_taken_without_a_traceback(flag, capsys, here):
    for value in VALUES:
        try:
            code = attack(f"{flag}={value}", "--dry-run")
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        assert code in (0, 2), (value, said)
        assert code == 0 or ": error: " in said.err
    assert [path.name for path in here.iterdir() if path.name != "__pycache__"] == ["surroundings.py"]


RECIPES = {
    eabs: ("--n", "--seed", "--device", "--weights"),
    eabs_sweep: ("--count", "--attacked"),
    eabs_foolbox: ("--count", "--weights", "--data-root"),
    mlvgm: ("--n", "--seed", "--classifier", "--generator", "--weights", "--device"),
    quickstart: ("--count", "--steps", "--seed"),
    variational_smoothing: ("--n", "--seed", "--data", "--weights", "--device"),
}
ODDEST = ("-1", "nan", "x", "1e400", "none/none")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: getattr(recipe, "__name__", None) or recipe.name)
def test_odd_values_of_recipes_are_refused_without_a_traceback(recipe, capsys, here):
    first = ["infer"] if recipe is eabs_sweep else []
    for flag in RECIPES[recipe]:
        for value in ODDEST:
            try:
                code = recipe.command([*first, f"{flag}={value}", "--dry-run"])
            except SystemExit as end:
                code = end.code
            said = capsys.readouterr()
            assert code == 2, (flag, value, said)
            assert ": error: " in said.err
