"""What a study does not grow by: another study, other names, other formats; the message says which."""

import importlib
import json
import sys
from contextlib import nullcontext

import pytest
from torch import nn

from gencls.core import GenclsError
from gencls.core.files import write_sealed
from gencls.eval import FGSM, PGD, Protocol, ThreatModel, Transfer, read_study
from tests.strangers.growth import IMAGES, LABELS, LINF, study
from tests.toys import small_cnn


class Thresholded(nn.Module):
    """A network with a setting of its own."""

    def __init__(self, threshold=0.5):
        super().__init__()
        self.network, self.threshold = small_cnn(), threshold

    def forward(self, images):
        return self.network(images) * self.threshold


class Blue:
    """An attack that is no dataclass, with a threat of its own."""

    uses_gradients, passes = False, (0, 0)

    def __init__(self, epsilon, kind="blue"):
        self.threat, self.kind = ThreatModel("linf", epsilon), kind

    def __call__(self, model, images, labels):
        return images


OTHER = {
    "steps": ({"attacks": {"pgd": PGD(LINF, steps=3)}}, "attack pgd had steps 2 and now has 3"),
    "steps and epsilon": ({"attacks": {"pgd": PGD(ThreatModel("linf", 0.1), steps=3)}}, "attack pgd had steps 2 and now has 3"),
    "another method": ({"attacks": {"pgd": FGSM(LINF)}}, "attack pgd was PGD and is now FGSM"),
    "the norm": (
        {"attacks": {"pgd": PGD(ThreatModel("l2", 0.05), steps=2)}},
        "attack pgd had threat .*linf.* has .*l2",
    ),
    "a source": (
        {"attacks": {"transfer": Transfer(small_cnn(seed=5), FGSM(LINF))}},
        "attack transfer has other code, or holds something else",
    ),
    "a foreign attack": ({"attacks": {"blue": Blue(0.05, "red")}}, "attack blue has other code, or holds something else"),
    "weights": ({"defenses": {"net": small_cnn(seed=1)}}, "defense net has other weights"),
    "layers": ({"defenses": {"net": nn.Sequential(small_cnn(), nn.Identity()).eval()}}, "defense net has other layers"),
    "a setting": ({"defenses": {"own": Thresholded(0.7).eval()}}, r"defense own had threshold 0\.5 and now has 0\.7"),
    "draws": ({"protocol": Protocol(eot_samples=2, judge_draws=4)}, "judge_draws was 3 and is now 4"),
    "several": (
        {"protocol": Protocol(eot_samples=1, judge_draws=3), "defenses": {"net": small_cnn(seed=1)}},
        "eot_samples was 2 and is now 1; defense net has other weights",
    ),
    "other images": (
        {"images": IMAGES[2:9], "labels": LABELS[2:9]},
        "the 6 images there .* got 4 of them and 3 others",
    ),
    "other labels": ({"labels": LABELS[:6].flip(0)}, "expected the 6 images there with their labels"),
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun") / "mine"
    attacks = {"pgd": PGD(LINF, steps=2), "transfer": Transfer(small_cnn(seed=2), FGSM(LINF)), "blue": Blue(0.05)}
    study(folder, attacks=attacks, defenses={"net": small_cnn(), "own": Thresholded().eval()})
    return folder


@pytest.mark.parametrize("what", OTHER)
def test_another_study_is_told_in_words(what, begun):
    changes, words = OTHER[what]
    before = {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()}
    with pytest.raises(GenclsError, match=f"mine holds another study.*{words}.*choose another folder") as said:
        study(begun, **changes)
    for key in json.loads((begun / "study.json").read_text())["sample_hashes"]:
        assert key not in str(said.value)
    assert not any(len(word) >= 12 and set(word) <= set("0123456789abcdef") for word in str(said.value).split())
    assert {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("attack", ["pgd", "transfer", "blue"])
def test_any_attack_has_a_row_for_each_epsilon(attack, begun):
    threat = ThreatModel("linf", 0.2)
    others = {"pgd": PGD(threat, steps=2), "transfer": Transfer(small_cnn(seed=2), FGSM(threat)), "blue": Blue(0.2)}
    planned = study(begun, attacks={attack: others[attack]})
    assert [(cell.attack, cell.epsilon) for cell in planned.missing()] == [(attack, 0.2)] * 2


def test_code_of_its_own_that_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    text = (
        "from torch import nn\nclass Own(nn.Module):\n    def forward(self, images):\n        return images.flatten(1)[:, :4]\n"
    )
    for code, words in ((text, None), (text.replace(":4", "4:8"), "defense own has other code, or")):
        (tmp_path / "ownnet.py").write_text(code)
        monkeypatch.delitem(sys.modules, "ownnet", raising=False)
        importlib.invalidate_caches()
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        own = importlib.import_module("ownnet").Own().eval()
        with pytest.raises(GenclsError, match=words) if words else nullcontext():
            study(tmp_path / "s", defenses={"own": own})


@pytest.mark.parametrize("changes", [{"defenses": {"e\u0301": small_cnn()}}, {"attacks": {"e\u0301": FGSM(LINF)}}])
def test_names_that_look_like_others_in_the_folder_are_refused_before_computing(changes, tmp_path):
    study(tmp_path / "s", defenses={"\u00e9": small_cnn()})
    before = (tmp_path / "s" / "study.json").read_bytes()
    with pytest.raises(GenclsError, match="expected names that look different"):
        study(tmp_path / "s", **changes)
    assert (tmp_path / "s" / "study.json").read_bytes() == before


def test_fewer_images_are_asked_for(tmp_path):
    study(tmp_path / "s", count=9)
    with pytest.raises(GenclsError, match=r"s holds 9 images: expected all of them, and perhaps more, got 4 of them; a"):
        study(tmp_path / "s", count=4)


def test_a_folder_of_an_older_format_is_not_continued(tmp_path):
    study(tmp_path / "s")
    settings = {name: value for name, value in read_study(tmp_path / "s").items() if name != "shards"}
    write_sealed(tmp_path / "s" / "study.json", {**settings, "format": 3, "shard_size": 3})
    with pytest.raises(GenclsError, match="holds a study of format 3, made by another version: expected format 4"):
        study(tmp_path / "s")
