"""Every bad input gives one error that says what was expected and what came; docs/bad-input.md lists the messages.

``python tests/test_bad_input.py`` writes that page again.
"""

import errno
import json
import math
import os
import pickle
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gencls import zoo
from gencls._commands.asked import weights_of
from gencls._commands.attack import build_attacks
from gencls.core import GenclsError, find_device
from gencls.core.files import atomically, sealed
from gencls.defenses import PlainClassifier
from gencls.defenses.smoothing.confidence import clopper_pearson
from gencls.eval import DDN, FGSM, PGD, CarliniWagner, Study, ThreatModel, evaluate, read_study, summarize
from gencls.eval.measures.records import REQUIRED
from gencls.eval.measures.statistics import bootstrap_band, holm
from gencls.zoo.checkpoints.cards import Card
from gencls.zoo.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from gencls.zoo.checkpoints.reading import load_state_dict
from gencls.zoo.networks import CifarResNet
from gencls.zoo.training import train
from tests.bad_autoencoders import AUTOENCODERS
from tests.bad_curves import CURVES
from tests.bad_inversions import INVERSIONS
from tests.bad_regularizers import REGULARIZERS

PAGE = Path(__file__).parent.parent / "docs" / "bad-input.md"
THREAT = ThreatModel("linf", epsilon=0.1)
CARD = Card(
    name="small", architecture="Linear", arguments={}, what="", trained_on="", command="", metrics={}, licence="", seed=0
)


def _defense(channels: int = 1, classes: int = 10) -> nn.Module:
    network = nn.Sequential(nn.Conv2d(channels, 2, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, classes))
    return PlainClassifier(network, classes).eval()


def _evaluate(images: torch.Tensor, labels: torch.Tensor | None = None, **defense: int) -> None:
    labels = torch.zeros(len(images), dtype=torch.int64) if labels is None else labels
    evaluate(_defense(**defense), {"FGSM": FGSM(THREAT)}, [(images, labels)])


def _evaluate_named(*names: str) -> None:
    evaluate(_defense(), dict.fromkeys(names, FGSM(THREAT)), [(IMAGES, torch.tensor([0, 1]))])


def _records(**changes: object) -> pandas.DataFrame:
    row = dict.fromkeys(REQUIRED, 0.5) | {
        "defense": "cnn",
        "attack": "FGSM",
        "gradient": "exact",
        "norm": "linf",
        "warnings": "",
    }
    return pandas.DataFrame([{**row, "seed": 0, "valid": True, **changes}])


def _study(folder: Path, *, seed: int = 0, steps: int = 5, images: torch.Tensor | None = None) -> None:
    torch.manual_seed(seed)
    defenses, attacks = {"cnn": _defense()}, {"PGD": PGD(THREAT, steps=steps)}
    images = IMAGES[:2] if images is None else images
    Study(folder, defenses=defenses, attacks=attacks, images=images, labels=torch.zeros(len(images), dtype=torch.int64))


def _another_study(folder: Path) -> None:
    _study(folder / "study")
    _study(folder / "study", steps=10)


def _another_defense(folder: Path) -> None:
    _study(folder / "study")
    _study(folder / "study", seed=1)


def _fewer_images(folder: Path) -> None:
    _study(folder / "study")
    _study(folder / "study", images=IMAGES[:1])


def _other_images(folder: Path) -> None:
    _study(folder / "study")
    _study(folder / "study", images=IMAGES[:2] / 2)


def _repeated_seed(folder: Path) -> None:
    labels = torch.tensor([0])
    attacks = {"FGSM": FGSM(THREAT)}
    Study(folder, defenses={"cnn": _defense()}, attacks=attacks, images=IMAGES[:1], labels=labels, seeds=(0, 0))


def _changed_images(folder: Path) -> None:
    images, attacks = IMAGES[:1].clone(), {"FGSM": FGSM(THREAT)}
    study = Study(folder, defenses={"cnn": _defense()}, attacks=attacks, images=images, labels=torch.tensor([0]))
    images.zero_()
    study.run()


def _foreign_folder(folder: Path) -> None:
    (folder / "thesis.tex").write_text("years of work")
    _study(folder)


def _truncated_data(folder: Path) -> None:
    path = folder / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x00\x00\x08\x01\x00\x00\x27\x10" + bytes(4))
    (path.parent / "t10k-images-idx3-ubyte").write_bytes(b"\x00\x00\x08\x03\x00\x00\x27\x10" + bytes(8))
    zoo.load_data("mnist", "test", root=folder)


def _photo(path: Path, side: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side)).save(path)


def _photos(folder: Path) -> None:
    _photo(folder / "cat" / "a.png", 8)
    _photo(folder / "dog" / "b.png", 6)
    zoo.load_data(folder)


def _empty_class(folder: Path) -> None:
    _photo(folder / "cat" / "a.png", 8)
    (folder / "dog").mkdir()
    zoo.load_data(folder)


def _splits(folder: Path) -> None:
    _photo(folder / "train" / "cat" / "a.png", 8)
    _photo(folder / "test" / "cat" / "b.png", 8)
    zoo.load_data(folder)


def _other_names(folder: Path) -> None:
    np.savez(folder / "mine.npz", pixels=np.zeros((2, 8, 8), np.uint8), classes=np.zeros(2))
    zoo.load_data(folder / "mine.npz")


def _leaving_module(folder: Path) -> None:
    (folder / "leaving_module.py").write_text("import sys\nsys.exit(0)\n")
    sys.path.append(str(folder))
    try:
        zoo.load_data("leaving_module:data")
    finally:
        sys.path.remove(str(folder))


def _wrong_hash(folder: Path) -> None:
    path = folder / "small.safetensors"
    save_checkpoint(nn.Linear(2, 2), path, CARD)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    load_checkpoint(path)


class _Code:
    """A pickle that would create a file when it is loaded by ``pickle.load``."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return exec, (f"open({str(self.target)!r}, 'w')",)


def _pickle_with_code(folder: Path) -> None:
    path = folder / "weights.pt"
    path.write_bytes(pickle.dumps(_Code(folder / "ran")))
    try:
        load_state_dict(path)
    finally:
        assert not (folder / "ran").exists()


def _study_of_another_type(folder: Path) -> None:
    _study(folder, seed=0)
    path = folder / "study.json"
    settings = json.loads(path.read_text())
    del settings["checksum"]
    path.write_text(json.dumps(sealed({**settings, "seeds": "0"})))
    read_study(folder)


def _full_disk(folder: Path) -> None:
    def write(part: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    atomically(folder / "cell.parquet", write)


def _damaged_checkpoint(folder: Path) -> None:
    path = folder / "cnn-mnist" / "last.ckpt"
    path.parent.mkdir()
    path.write_bytes(b"")
    train("cnn-mnist", data="mnist-embedded", limit=16, epochs=1, out=folder, resume=True, progress=False)


def _html(folder: Path) -> None:
    path = folder / "weights.pt"
    path.write_text("<!DOCTYPE html><html><body>Please log in</body></html>")
    load_state_dict(path)


def _weights() -> dict[str, torch.Tensor]:
    return {"conv.weight": torch.ones(2)}


def _saved(folder: Path, content: object) -> None:
    torch.save(content, folder / "weights.pt")
    load_state_dict(folder / "weights.pt")


def _huge_card(folder: Path) -> None:
    path = folder / "small.safetensors"
    network = CifarResNet(width=4, blocks=(1,), num_classes=3)
    arguments = {"width": 2**22, "blocks": [1], "num_classes": 3}
    save_checkpoint(network, path, replace(CARD, architecture="CifarResNet", arguments=arguments))
    zoo.load(path)


class _Answers(nn.Module):
    """A network, and what it makes of its scores."""

    def __init__(self, answer: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.network, self.answer = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), answer
        self.eval()

    def forward(self, images: torch.Tensor) -> object:
        return self.answer(self.network(images))


def _brought(part: nn.Module) -> None:
    """Evaluate a network, or one in eval mode behind a part that is in training mode."""
    rest = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    network = part if isinstance(part, _Answers) else nn.Sequential(part, *rest)
    network.training = False
    evaluate(network, {"FGSM": FGSM(THREAT)}, [(IMAGES, LABELS)])


LABELS = torch.tensor([0, 0])
IMAGES = torch.full((2, 1, 8, 8), 0.5)
CASES: dict[str, Callable[[Path], object]] = {
    "images outside [0, 1]": lambda _: _evaluate(IMAGES * 510),
    "NaN in an image": lambda _: _evaluate(IMAGES.clone().index_fill_(3, torch.tensor([0]), torch.nan)),
    "wrong rank": lambda _: _evaluate(IMAGES[0]),
    "wrong channel count": lambda _: _evaluate(IMAGES, channels=3),
    "integer dtype": lambda _: _evaluate(torch.zeros(2, 1, 8, 8, dtype=torch.int64)),
    "half precision in a study": lambda _: _evaluate(IMAGES.half()),
    "channels that cannot be told": lambda _: _evaluate(torch.zeros(2, 3, 8, 3, dtype=torch.uint8)),
    "images without labels": lambda _: evaluate(_defense(), {"FGSM": FGSM(THREAT)}, IMAGES),
    "one-hot labels": lambda _: _evaluate(IMAGES, torch.eye(10)[:2]),
    "labels that are not whole": lambda _: _evaluate(IMAGES, torch.tensor([0.5, 1.0])),
    "path in the place of images": lambda _: evaluate(_defense(), {"FGSM": FGSM(THREAT)}, "photos"),
    "loader that drops samples": lambda _: evaluate(
        _defense(), {"FGSM": FGSM(THREAT)}, DataLoader(TensorDataset(IMAGES, LABELS), len(IMAGES) + 1, drop_last=True)
    ),
    "empty batch": lambda _: _evaluate(IMAGES[:0]),
    "label out of range": lambda _: _evaluate(IMAGES, torch.tensor([3, 10])),
    "as many labels as images": lambda _: _evaluate(IMAGES, torch.tensor([3])),
    "unknown defense": lambda _: zoo.load("cnn-mnits"),
    "unknown attack": lambda _: build_attacks(["pdg-linf"], 0.1, steps=1, restarts=1),
    "attack without epsilon": lambda _: build_attacks(["pgd-linf"], None),
    "NaN as a setting": lambda _: CarliniWagner(ThreatModel("l2"), confidence=math.nan),
    "a boolean as a number": lambda _: PGD(THREAT, steps=True),
    "a word as a boolean": lambda _: ThreatModel("l2", targeted="no"),  # type: ignore[arg-type]
    "network in half precision": lambda _: evaluate(_defense().half(), {"FGSM": FGSM(THREAT)}, [(IMAGES, LABELS)]),
    "network in training mode": lambda _: FGSM(THREAT)(_defense().train(), IMAGES, LABELS),
    "batch norm in training mode": lambda _: _brought(nn.BatchNorm2d(1)),
    "dropout that is not declared": lambda _: _brought(nn.Dropout()),
    "network that returns a tuple": lambda _: _brought(_Answers(lambda scores: (scores, None))),
    "network that returns decisions": lambda _: _brought(_Answers(lambda scores: scores.argmax(1))),
    "network that returns booleans": lambda _: _brought(_Answers(lambda scores: scores > 0)),
    "network for one image at a time": lambda _: _brought(_Answers(lambda scores: scores.view(1, 3))),
    "an array as a number": lambda _: PGD(THREAT, steps=torch.tensor([3])),
    "half precision": lambda _: FGSM(THREAT)(_defense(), IMAGES.half(), torch.tensor([0, 0])),
    "steps for an attack without": lambda _: build_attacks(["fgsm-linf"], 0.1, steps=5),
    "steps for a set of attacks": lambda _: build_attacks(["thesis-linf"], 0.1, steps=5),
    "epsilon where no attack has one": lambda _: build_attacks(["ddn-l2"], 1.5),
    "epsilon for an attack that minimises it": lambda _: DDN(ThreatModel("l2", epsilon=1.0)),
    "norm that an attack does not know": lambda _: DDN(ThreatModel("linf")),
    "epsilon in 0..255": lambda _: ThreatModel("linf", epsilon=8),
    "unknown norm": lambda _: ThreatModel("l7", epsilon=1.0),
    "unknown data set": lambda _: zoo.load_data("mnits", "test"),
    "data set that is not there": lambda folder: zoo.load_data("mnist", "test", root=folder),
    "truncated data file": _truncated_data,
    "folder of photos of several sizes": _photos,
    "class folder without images": _empty_class,
    "folder of splits in the place of classes": _splits,
    "npz with other names": _other_names,
    "split of an npz": lambda folder: zoo.load_data(folder / "mine.npz", "test"),
    "module that ends the program": _leaving_module,
    "a seed twice": _repeated_seed,
    "images that changed after a study was planned": _changed_images,
    "folder with another study": _another_study,
    "folder with another defense of this name": _another_defense,
    "folder with more images than are asked for": _fewer_images,
    "folder with other images": _other_images,
    "folder with other files": _foreign_folder,
    "checkpoint with a wrong hash": _wrong_hash,
    "pickle with code in it": _pickle_with_code,
    "HTML page named .pt": _html,
    "name with a control character": lambda _: _evaluate_named("a\x1b[31m"),
    "two names that look alike": lambda _: _evaluate_named("FGSM", "F\u200dGSM"),
    "records with a share above 1": lambda _: summarize(_records(correct=1.5)),
    "records without a seed": lambda _: summarize(_records(seed=None)),
    "a negative seed of the bootstrap": lambda _: bootstrap_band(np.ones(3), lambda x: x[:, :1], seed=-1),
    "more successes than trials": lambda _: clopper_pearson(4, 3, 0.05),
    "a p-value above 1": lambda _: holm([0.1, 1.2]),
    **INVERSIONS,
    **CURVES,
    **REGULARIZERS,
    **AUTOENCODERS,
    "a list as a network": lambda _: PlainClassifier([], 10),  # type: ignore[arg-type]
    "object beside the weights": lambda folder: _saved(folder, {"net": _weights(), "cfg": {"lr": Fraction(1, 10)}}),
    "NaN in the weights": lambda folder: _saved(folder, {"conv.weight": torch.tensor([1.0, torch.nan])}),
    "a tensor of terabytes in a small file": lambda folder: _saved(folder, {"conv.weight": torch.zeros(1).expand(2**40)}),
    "sparse weights": lambda folder: _saved(folder, {"conv.weight": torch.eye(2).to_sparse()}),
    "two networks in a file": lambda folder: _saved(folder, {"model": _weights(), "model_ema": _weights()}),
    "card of a network of terabytes": _huge_card,
    "weights folder without the weights": lambda folder: weights_of(["cnn-mnist"], folder),
    "weights folder for no name": lambda folder: weights_of(["my.models:build"], folder),
    "unknown split": lambda _: zoo.load_data("mnist-embedded", "tset"),
    "device that is not there": lambda _: find_device("cuda:-1"),
    "study.json with another type": _study_of_another_type,
    "full disk": _full_disk,
    "damaged checkpoint of a training": _damaged_checkpoint,
}


def message(case: str, folder: Path) -> str:
    """The message that a case gives, with what differs from run to run replaced, and long lists of names, which grow."""
    torch.manual_seed(0)
    with pytest.raises(GenclsError) as caught:
        CASES[case](folder)
    text = " ".join(str(caught.value).replace(str(folder), "FOLDER").split())
    text = re.sub(r"\b[0-9a-f]{24,64}\b", "HASH", text)
    return re.sub(r"\b[\w-]+(, [\w-]+){10,}", "NAMES", text)


@pytest.mark.parametrize("case", CASES)
def test_message_is_the_documented_one(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENCLS_DATA", raising=False)
    rows = dict(re.findall(r"^\| (.+?) \| `(.+)` \|$", PAGE.read_text(), flags=re.MULTILINE))
    found = message(case, tmp_path)
    assert found == rows[case]
    assert "expected" in found


def write_page() -> None:
    """Write docs/bad-input.md from what the cases give."""
    rows = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(f"| {case} | `{message(case, Path(folder))}` |")
    PAGE.write_text(
        "# Bad input\n\nEvery one of these raises `gencls.core.GenclsError` (a ValueError). The command line prints it after\n"
        "`gencls: error:` and exits with code 2. Nothing is changed, written over or repaired. FOLDER and HASH stand for what\n"
        "differs from case to case, NAMES for a long list of names. `tests/test_bad_input.py` provokes each case and compares\n"
        "the message with this page, and `python tests/test_bad_input.py` writes the page.\n\n| input | message |\n|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


if __name__ == "__main__":
    write_page()
