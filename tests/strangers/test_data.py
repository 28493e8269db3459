"""Data of one's own, by path, and what goes with it: .npz files, names, commands."""

import io
import pickle
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gencls.cli import main
from gencls.core import GenclsError
from gencls.zoo import load_data

PIXELS = np.random.RandomState(0).randint(0, 256, (6, 8, 10, 3), dtype=np.uint8)
IMAGES = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 255
CLASSES = [0, 2, 1, 0, 2, 2]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENCLS_DATA", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


@pytest.fixture
def photos(here):
    """Four photos of two classes."""
    for name, pixels in zip(("cat/a", "cat/b", "dog/a", "dog/b"), PIXELS, strict=False):
        (here / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(here / "photos" / f"{name}.png")
    return here / "photos"


# --- npz -------------------------------------------------------------------------------------------------------------

CHW = PIXELS.transpose(0, 3, 1, 2)
ARRAYS = {
    "channels last": {"images": PIXELS, "labels": CLASSES},
    "channels first": {"x": CHW, "y": np.array(CLASSES, np.uint8)},
    "Keras": {"x_train": PIXELS[:2], "y_train": CLASSES[:2], "x_test": PIXELS, "y_test": np.array(CLASSES)[:, None]},
    "MedMNIST": {"train_images": PIXELS[:2], "train_labels": CLASSES[:2], "test_images": PIXELS, "test_labels": CLASSES},
    "capitals": {"X": CHW / np.float32(255), "Y": CLASSES},
    "without names": {"arr_0": PIXELS, "arr_1": CLASSES},
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_npz_is_read(name, here):
    np.savez_compressed("mine.npz", **ARRAYS[name])
    data, part = load_data("mine.npz"), load_data("mine.npz", limit=3)
    assert torch.equal(data.images, IMAGES)
    assert data.labels.tolist() == CLASSES
    assert (data.name, data.split, data.class_names) == ("mine", "all", ("0", "1", "2"))
    assert sorted(part.labels.tolist()) == [0, 1, 2]
    assert part.num_classes == 3
    assert load_data("mine.npz", size=4).images.shape == (6, 3, 4, 4)


def test_grey_and_double_arrays_of_an_npz(here):
    np.savez("grey.npz", images=PIXELS[..., 0], labels=CLASSES)
    np.savez("double.npz", images=CHW / 255, labels=CLASSES)
    assert torch.equal(load_data("grey.npz").images, IMAGES[:, :1])
    assert load_data("double.npz").images.dtype == torch.float64


class Code:
    def __reduce__(self):
        return exec, ("open('ran', 'w')",)


def npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def claims(path):
    """An archive of two arrays, whose images are said to be far larger than they are."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 3, 100, 100)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", head.getvalue() + bytes(10))
        archive.writestr("labels.npy", head.getvalue())


NPZ = {
    "other names": (
        lambda path: np.savez(path, pixels=PIXELS, classes=CLASSES),
        "expected arrays named images and labels or x and y or",
    ),
    "what is there": (lambda path: np.savez(path, pixels=PIXELS, classes=CLASSES), "got pixels, classes"),
    "two pairs": (
        lambda path: np.savez(path, x=PIXELS, y=CLASSES, images=PIXELS, labels=CLASSES),
        "expected one pair of images and labels, got 2: x and y; images and labels; keep one of them",
    ),
    "two kinds of labels": (
        lambda path: np.savez(path, data=PIXELS, labels=CLASSES, targets=CLASSES),
        "got 2: data and labels; data and targets",
    ),
    "two cases of a name": (
        lambda path: np.savez(path, X=PIXELS, x=PIXELS, y=CLASSES),
        "got 2: X and y; x and y",
    ),
    "only training": (lambda path: np.savez(path, x_train=PIXELS, y_train=CLASSES), "got x_train, y_train"),
    "objects": (lambda path: np.savez(path, images=np.array([Code()]), labels=[0]), "Object arrays cannot be loaded"),
    "a pickle": (
        lambda path: path.write_bytes(pickle.dumps(Code())),
        "expected an .npz of arrays without objects; it cannot be read",
    ),
    "an .npy": (lambda path: path.write_bytes(npy(PIXELS)), "it cannot be read"),
    "a page": (lambda path: path.write_text("<html>"), "it cannot be read"),
    "nothing": (lambda path: path.write_text(""), "it cannot be read"),
    "cut off": (
        lambda path: (np.savez(path, images=PIXELS, labels=CLASSES), path.write_bytes(path.read_bytes()[:-100])),
        "it cannot be read",
    ),
    "claims": (claims, "it cannot be read"),
    "one-hot": (lambda path: np.savez(path, images=PIXELS, labels=np.eye(3)[CLASSES]), "take labels.argmax(1)"),
    "0 to 255 in floats": (
        lambda path: np.savez(path, images=PIXELS * 1.0, labels=CLASSES),
        "expected values in [0, 1], got values in [0, 255]",
    ),
    "0 to 255 in int64": (
        lambda path: np.savez(path, images=PIXELS.astype(int), labels=CLASSES),
        "expected uint8 from 0 to 255",
    ),
    "too few labels": (
        lambda path: np.savez(path, images=PIXELS, labels=CLASSES[:5]),
        "expected 6 labels, one per image, got 5",
    ),
    "an odd label": (
        lambda path: np.savez(path, images=PIXELS, labels=[0, 1, 2, 3, 4, 2**40]),
        "expected class numbers below 100000",
    ),
    "a label beyond int64": (
        lambda path: np.savez(path, images=PIXELS, labels=np.array([0, 1, 2, 3, 4, 2**63], dtype=np.uint64)),
        "labels: expected whole numbers below 2**63, got 9223372036854775808",
    ),
    "no images": (lambda path: np.savez(path, images=PIXELS[:0], labels=[]), "expected at least one image"),
}


@pytest.mark.parametrize("name", NPZ)
def test_an_npz_that_does_not_fit_is_named(name, here):
    write, message = NPZ[name]
    write(here / "mine.npz")
    with pytest.raises(GenclsError) as caught:
        load_data("mine.npz")
    assert message in str(caught.value)
    assert "mine.npz" in str(caught.value)
    assert not (here / "ran").exists()


# --- names -----------------------------------------------------------------------------------------------------------


def test_what_is_no_data_is_answered_with_what_is(photos, here):
    (here / "notes.txt").write_text("")
    rows = {
        "nowhere": "got 'nowhere', which is not a folder of images by class, an .npz file, or package.module:attribute either",
        "fashion": "did you mean 'fashion-mnist'? expected the name of a data set",
        "nowhere.npz": "nowhere.npz: expected a folder of images by class, an .npz file, or package.module:attribute; got no",
        here / "nowhere": "got no such file or folder",
        "notes.txt": "notes.txt: expected a folder of images by class, an .npz file, or package.module:attribute; got a",
        "n" * 300: "expected the name of a data set",
        "nul\0": "expected the name of a data set",
    }
    for name, message in rows.items():
        with pytest.raises(GenclsError) as caught:
            load_data(name)
        assert message in str(caught.value)


def test_what_does_not_go_with_data_of_ones_own_is_refused(photos, here):
    np.savez("mine.npz", images=PIXELS, labels=CLASSES)
    with pytest.raises(GenclsError, match="mine.npz: expected no split, because these data are taken as they are; got 'test'"):
        load_data("mine.npz", "test")
    with pytest.raises(GenclsError, match="photos: expected no data root for data of your own"):
        load_data("photos", root=here)
    with pytest.raises(GenclsError, match="photos: expected no download for data of your own"):
        load_data("photos", download=True)


def test_a_named_set_needs_no_split_and_goes_before_a_folder(here):
    (here / "mnist-embedded").mkdir()
    assert load_data("mnist-embedded", limit=2).split == "test"
    with pytest.raises(GenclsError, match="got no folder"):
        load_data("./mnist-embedded")


def test_the_code_of_the_docs_runs(photos, here, monkeypatch, capsys):
    np.savez("mine.npz", images=PIXELS, labels=CLASSES)
    (here / "mydata.py").write_text("import numpy\n\ndigits = numpy.zeros((3, 8, 8), 'uint8'), [0, 1, 0]\n")
    monkeypatch.delitem(sys.modules, "mydata", raising=False)
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    section = page[page.index("## Your own data") : page.index("## gtsrb10")]
    for code in re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
        exec(code, {})
    said = capsys.readouterr().out
    assert "torch.Size([4, 3, 16, 16]) ('cat', 'dog')" in said
    assert "tensor([0, 1, 0])" in said
    assert "robust_accuracy" in said


# --- the commands ----------------------------------------------------------------------------------------------------

NETWORK = """
from torch import nn


def build():
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
"""


def test_a_folder_is_attacked_from_the_command_line(photos, here, monkeypatch, capsys):
    from gencls.eval.report.study import page

    monkeypatch.setattr(page, "all_figures", lambda *_: ())  # they take most of the time
    (here / "photonets.py").write_text(NETWORK)
    words = ["--defense", "photonets:build", "--attack", "fgsm-linf", "--epsilon", "8/255", "--data", "photos"]
    assert main(["attack", *words, "--size", "6", "--limit", "3", "--out", "study"]) == 0
    assert "photos all, 3 images" in (here / "study" / "report.html").read_text()
    assert main(["attack", *words, "--split", "test"]) == 2
    assert "expected the split as the name of a folder in it" in capsys.readouterr().err


def test_the_doctor_looks_at_as_many_images_as_there_are(photos, here, monkeypatch):
    from gencls.eval import doctor

    looked_at = []

    def diagnose(defense, images, labels, **settings):
        looked_at.append(len(images))
        return doctor.Diagnosis(())

    monkeypatch.setattr(doctor, "diagnose", diagnose)
    (here / "photonets.py").write_text(NETWORK)
    assert main(["doctor", "photonets:build", "--data", "photos"]) == 0
    assert main(["doctor", "photonets:build", "--data", "photos", "--limit", "3"]) == 0
    assert main(["doctor", "photonets:build"]) == 2  # digits are grey
    assert looked_at == [4, 3]
