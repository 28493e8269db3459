"""A data set that somebody gives a name by one row: what the commands say of it."""

from functools import partial

import numpy as np
import pytest

from gencls.cli import main
from gencls.zoo.data import loader
from gencls.zoo.data.image_data import DataSet
from gencls.zoo.data.npz import open_npz

SAID = "cnn-mnist has 10 classes, shapes has 3; see that a label means the same class in both"
ATTACK = ["attack", "--defense", "cnn-mnist", "--attack", "fgsm-linf", "--epsilon", "0.1", "--limit", "4", "--out", "runs"]


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """Six images of three classes."""
    row = DataSet(open=partial(open_npz, "shapes", ("circle", "square", "triangle")))
    monkeypatch.setattr(loader, "DATA_SETS", {"shapes": row, "mnist-embedded": loader.DATA_SETS["mnist-embedded"]})
    monkeypatch.setenv("GENCLS_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    pixels = np.random.RandomState(0).randint(0, 256, (6, 28, 28), dtype=np.uint8)
    np.savez("shapes.npz", images_test=pixels, labels_test=np.arange(6) % 3)
    return tmp_path


def test_a_split_that_cannot_be_read_is_listed_with_the_reason(shapes, capsys):
    assert main(["data"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    names = "images_train and labels_train or x_train and y_train or train_images and train_labels"
    path = shapes / "shapes.npz"
    assert lines[:2] == [
        f"shapes train not available: {path}: expected arrays named {names}; got images_test, labels_test",
        "shapes test found, 3 classes",
    ]


def test_classes_that_are_not_those_of_the_defense_are_a_warning(shapes, capsys):
    assert main([*ATTACK, "--data", "shapes"]) == 0
    assert capsys.readouterr().err.count(f"gencls: warning: {SAID}\n") == 1
    assert SAID in (shapes / "runs" / "report.html").read_text()
    assert main(["report", "runs"]) == 0
    assert SAID in (shapes / "runs" / "report.html").read_text()
    assert main(["doctor", "cnn-mnist", "--epsilon", "0.1", "--data", "shapes", "--limit", "4", "--dry-run"]) == 0
    assert SAID in capsys.readouterr().err


@pytest.mark.parametrize("data", ["mnist-embedded", "shapes.npz"])
def test_the_same_classes_and_data_of_ones_own_say_nothing(data, shapes, capsys):
    np.savez("shapes.npz", images=np.full((4, 28, 28), 99, np.uint8), labels=np.arange(4) % 3)
    assert main([*ATTACK, "--data", data]) == 0
    assert "classes" not in capsys.readouterr().err
    assert "see that a label" not in (shapes / "runs" / "report.html").read_text()
