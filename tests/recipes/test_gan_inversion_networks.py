"""The command that trains all networks of a profile: their order, the shares of time, resumption."""

import pytest

from gencls.core import GenclsError
from gencls.zoo.checkpoints.cards import read_card
from recipes.gan_inversion import networks
from recipes.gan_inversion.networks import Training, command, make
from recipes.gan_inversion.settings import PROFILES


def test_each_network_comes_behind_those_that_it_begins_with():
    assert networks.networks(PROFILES["cifar10"]) == (
        "features-cifar10",
        "features-corruptions-cifar10",
        "cgan-cifar10",
        "enc-cifar10",
        "enc-d-cifar10",
        "contrastive-cifar10",
    )
    assert networks.networks(PROFILES["smoke"])[:2] == ("features-mnist", "adv-linf-mnist")
    assert networks.networks(PROFILES["imagenette"]) == ("enc-imagenette", "enc-d-imagenette")


class Clock:
    """Tells the seconds that the trainings of a test have taken."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def timed(monkeypatch, tmp_path):
    """Trainings that take one second per epoch, and write an empty file of weights."""
    clock, done = Clock(), []

    def run(self, name, epochs, *, progress):
        clock.now += epochs
        done.append((name, epochs))
        path = tmp_path / name / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.touch()
        return path

    monkeypatch.setattr(Training, "run", run)
    monkeypatch.setattr(networks, "_fitting", lambda plan, seconds: max(1, min(plan.settings.epochs, int(seconds))))
    return clock, done


def test_the_time_is_shared(timed, tmp_path):
    clock, done = timed
    training, names = Training(weights=tmp_path), ("features-fashion", "cgan-fashion", "enc-fashion", "enc-d-fashion")
    assert make(training, names, 18.0, clock=clock) == []
    # 1, 4, 2 and 2 shares of what is left; the encoders have four epochs
    assert done == [("features-fashion", 2), ("cgan-fashion", 8), ("enc-fashion", 4), ("enc-d-fashion", 4)]
    assert make(training, names, 18.0, clock=clock) == []
    assert len(done) == 4


def test_what_has_begun_keeps_its_epochs_and_the_rest_waits(timed, tmp_path):
    clock, done = timed
    training = Training(weights=tmp_path / "new")
    training.note("features-fashion", 7)
    assert make(training, ("features-fashion", "cgan-fashion"), 5.0, clock=clock) == ["cgan-fashion"]
    assert done == [("features-fashion", 7)]
    assert training.begun() == {"features-fashion": 7}


def test_choices_that_do_not_exist(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that it is removed or as before behind the test
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    words = ["--weights", str(tmp_path), "--profile", "cifar10"]
    assert command([*words, "--only", "cgan-mars"]) == 2
    assert "--only: expected some of features-cifar10, " in capsys.readouterr().err
    assert command([*words, "--minutes", "0"]) == 2
    assert command([*words, "--device", "cuda:99"]) == 2
    assert command(["--weights", str(tmp_path), "--profile", "imagenette", "--dry-run"]) == 2
    assert "G_ema.pth: expected a weights file" in capsys.readouterr().err
    assert command([*words, "--dry-run"]) == 0
    assert "cgan-cifar10: at most 60 epochs" in capsys.readouterr().out


def test_weights_that_are_not_there():
    with pytest.raises(GenclsError, match="expected the folder with the weights of cgan-cifar10, got /nowhere"):
        Training(weights=networks.Path("/nowhere")).plan("enc-cifar10")


@pytest.mark.slow
def test_a_handful_of_images(tmp_path, capsys):
    words = ["--profile", "smoke", "--data", "mnist-embedded", "--limit", "64", "--measured", "5", "--minutes", "0.01"]
    words += ["--weights", str(tmp_path), "--only", "features-corruptions-mnist", "cgan-mnist", "enc-d-mnist"]
    assert command([*words, "contrastive-mnist"]) == 0
    late = capsys.readouterr().out
    assert command([*words, "contrastive-mnist", "--minutes", "0.2"]) == 0
    assert "no time was left" in late
    for name in ("features-corruptions-mnist", "cgan-mnist", "enc-d-mnist", "contrastive-mnist"):
        card = read_card(tmp_path / name / f"{name}.safetensors")
        assert card.trained_on == "mnist-embedded train, 64 images"
        assert ("--pretrained" in card.command) == (name in ("enc-d-mnist", "contrastive-mnist"))
