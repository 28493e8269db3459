"""The sweep of what the thesis leaves open, on a few digits."""

import shutil
from pathlib import Path

import pytest

from gencls.core import GenclsError
from gencls.zoo.checkpoints.places import WEIGHTS
from recipes.eabs import sweep as eabs_sweep

FEW = {"count": 10, "attacked": 0, "epochs": 4, "seed": 0}


def test_a_row_per_inference_setting(monkeypatch, tmp_path):
    monkeypatch.setattr(eabs_sweep, "INFERENCES", ((2, 0.1, 20, 1.0), (4, 0.1, 20, 0.1)))
    table = eabs_sweep.sweep("infer", **FEW, out=tmp_path)
    assert list(table.index) == ["2 steps of 0.1, 20 starts", "4 steps of 0.1, 20 starts of std 0.1"]
    assert (table["clean accuracy"] >= 0.8).all()
    loss = table["loss of the true class"]
    assert loss.iloc[1] < loss.iloc[0]
    assert eabs_sweep.markdown(table).splitlines()[2].startswith("| 2 steps of 0.1, 20 starts | ")


def test_every_training_is_done_once_with_its_setting(monkeypatch, tmp_path):
    trained = []

    def committed(settings, *, out, **_):
        shares = settings.classifier_share, settings.generative_share
        trained.append((settings.dropout, settings.discriminator_rate, *shares, settings.epochs))
        for kind in ("safetensors", "json"):
            shutil.copy(WEIGHTS / f"eabs-mnist.{kind}", out / settings.name / f"{settings.name}.{kind}")

    committed.fingerprint_key = "one"  # the list that it fills would change its key
    monkeypatch.setattr(eabs_sweep, "train", committed)
    names = [(name, path.is_file()) for name, path in eabs_sweep.trainings(epochs=4, seed=0, out=tmp_path)]
    assert trained == [(*setting, 4) for setting in eabs_sweep.TRAININGS]
    assert names[3] == ("dropout 0.1, discriminator rate x0.1, 0% as a classifier, 50% generative", True)
    assert list(eabs_sweep.trainings(epochs=4, seed=0, out=tmp_path))
    assert len(trained) == len(eabs_sweep.TRAININGS)
    for other in ({"epochs": 5}, {"seed": 1}):  # their names are the same
        with pytest.raises(GenclsError, match="got one of another settings; take another --out"):
            list(eabs_sweep.trainings(**{"epochs": 4, "seed": 0, **other}, out=tmp_path))
    committed.fingerprint_key = "two"
    with pytest.raises(GenclsError, match="got one of another code; take another --out"):
        list(eabs_sweep.trainings(epochs=4, seed=0, out=tmp_path))
    for path in tmp_path.glob("*/run.json"):
        path.unlink()
    with pytest.raises(GenclsError, match=r"expected weights with a run\.json"):
        list(eabs_sweep.trainings(epochs=4, seed=0, out=tmp_path))


@pytest.mark.parametrize("attacked", [-1, 11])
def test_more_attacked_images_than_there_are(attacked):
    with pytest.raises(GenclsError, match=f"expected 0 to 10, the number of test images, got {attacked}"):
        eabs_sweep.sweep("infer", **FEW | {"attacked": attacked}, out=Path("none"))
