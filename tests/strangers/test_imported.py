"""Defenses and data by import path: whatever a stranger's module does, one clear error or what was asked for."""

import sys

import pytest
import torch

from gencls.cli import main
from gencls.core import GenclsError
from gencls.zoo import load_data

MODULE = """
import sys

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from gencls.zoo import ImageData

images = torch.arange(24.).view(6, 1, 2, 2) / 24
labels = torch.tensor([0, 1, 2, 0, 1, 2])
pair = images.numpy(), [0, 1, 2, 0, 1, 2]
dataset = TensorDataset(images, labels)
loader = DataLoader(dataset, batch_size=4)
named = ImageData("named", "test", images, labels, ("a", "b", "c", "d"), torch.arange(6))
shuffled = DataLoader(dataset, shuffle=True)
number = 7
nothing = None


class Broken(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, position):
        raise OSError("the disk is gone")


def build():
    return dataset


def leave():
    sys.exit(0)


def fail():
    raise KeyError("weights")


def needs(folder):
    return dataset
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENCLS_DATA", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    modules = {
        "brought": MODULE,
        "raising": "raise RuntimeError('no GPU here')",
        "leaving": "import sys\nsys.exit(0)",
        "broken_syntax": "def build(:\n",
        "wanting": "import a_library_that_nobody_has",
        "silent": "raise AssertionError",
    }
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize("name", ["pair", "dataset", "loader", "named", "build"])
def test_what_can_be_imported_is_data(name):
    data = load_data(f"brought:{name}")
    assert torch.equal(data.images, torch.arange(24.0).view(6, 1, 2, 2) / 24)
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.class_names == (("a", "b", "c", "d") if name == "named" else ("0", "1", "2"))
    assert (data.name, data.split) == (f"brought.{name}", "all")
    assert sorted(load_data(f"brought:{name}", limit=3, seed=1).labels.tolist()) == [0, 1, 2]


def test_data_that_were_imported_are_copied():
    load_data("brought:pair").images.zero_()
    assert load_data("brought:pair").images.max() > 0


BOTH = {
    "raising:x": "raising:x: expected a module raising that can be imported; got RuntimeError: no GPU here",
    "leaving:x": "leaving:x: expected a module leaving that can be imported; got SystemExit: 0",
    "broken_syntax:x": "got SyntaxError: invalid syntax (broken_syntax.py, line 1)",
    "silent:x": "expected a module silent that can be imported; got AssertionError",
    "wanting:x": "expected a module wanting that can be imported; got ModuleNotFoundError: No module named 'a_library_that",
    "nowhere:x": "nowhere:x: expected package.module:attribute; got: No module named 'nowhere'",
    "nowhere.deep:x": "nowhere.deep:x: expected package.module:attribute; got: No module named 'nowhere'",
    "brought.deep:x": "brought.deep:x: expected package.module:attribute; got: No module named 'brought.deep'",
    "brought:x": "brought:x: expected package.module:attribute; got: module 'brought' has no attribute 'x'",
    "..a:b": "..a:b: expected package.module:attribute, such as mymodels.small:build",
    ".brought:pair": ".brought:pair: expected package.module:attribute, such as",
    ":x": ":x: expected package.module:attribute, such as",
    "brought:": "brought:: expected package.module:attribute, such as",
    "brought:a:b": "expected package.module:attribute, such as",
    "brought:leave": "or a function without arguments that returns one; got SystemExit: 0",
    "brought:fail": "or a function without arguments that returns one; got KeyError: 'weights'",
    "brought:needs": "got TypeError: needs() missing 1 required positional argument: 'folder'",
    "torch.nn:Linear": "got TypeError: Linear.__init__() missing 2 required positional arguments",
}
DATA = BOTH | {
    "brought:images": "brought:images: samples: expected a pair (images, labels), a Dataset, a DataLoader",
    "brought:number": "brought:number: samples: expected a pair (images, labels), a Dataset",
    "brought:nothing": "brought:nothing: samples: expected a pair (images, labels), a Dataset",
    "brought:shuffled": "brought:shuffled: samples: expected the same order at each reading, got a DataLoader that shuffles",
    "brought:Broken": "brought:Broken: expected data that can be read; got OSError: the disk is gone",
}
DEFENSES = BOTH | {
    "brought:number": "brought:number: expected a torch.nn.Module or a function that returns one; got 7",
    "brought:build": "brought:build: expected a torch.nn.Module or a function that returns one; got <",
}


@pytest.mark.parametrize("spec", DATA)
def test_what_cannot_be_data_is_said(spec):
    with pytest.raises(GenclsError) as caught:
        load_data(spec)
    assert DATA[spec] in str(caught.value)
    assert "expected" in str(caught.value)


@pytest.mark.parametrize("spec", DEFENSES)
def test_what_cannot_be_a_defense_is_said(spec, here, capsys):
    command = ["attack", "--attack", "fgsm-linf", "--epsilon", "0.1", "--limit", "2", "--defense", spec]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert DEFENSES[spec] in said
    assert "Traceback" not in said
    assert not (here / "runs").exists()


def test_a_module_is_found_in_a_folder_that_was_removed(here, capsys, monkeypatch):
    gone = here / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(GenclsError, match="No module named 'nowhere'"):
        load_data("nowhere:x")
