import json
import os
import platform
import random
import shutil
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pandas
import pytest
import torch

from gencls.core import GenclsError
from gencls.eval import PGD, Protocol, ThreatModel, evaluate, read_adversarials, read_records, read_study
from gencls.eval.report.study.from_folder import UnfinishedWarning
from tests.eval.study.study_in_toys import LINF, small_study
from tests.toys import small_cnn

KINDS = ("parquet", "safetensors", "json")
"""Files of a finished cell."""


def table(folder):
    """results.csv as text, cell by cell, without what depends on the machine."""
    return (
        pandas.read_csv(Path(folder) / "results.csv", dtype=str, keep_default_na=False)
        .drop(columns=["seconds", "peak_memory"])
        .to_csv()
    )


def counting(computed):
    @contextmanager
    def progress(cells):
        yield lambda cell: computed.append(cell.key)

    return progress


def test_what_is_in_the_folder(undisturbed):
    study = small_study(undisturbed)
    cells = study.cells()
    assert len(cells) == (3 + 3 + 5) * 2 * 2  # attacks x gradient modes of each defense, seeds, shards
    assert len({cell.key for cell in cells}) == len(cells)
    assert study.missing() == []
    names = {f"{cell.key}.{kind}" for cell in cells for kind in KINDS}
    assert {path.name for path in (undisturbed / "cells").iterdir()} == names
    settings = read_study(undisturbed)
    assert settings["n"] == 30
    assert settings["about"]["data"] == "random images"


def test_records_are_those_of_an_evaluation(undisturbed):
    """Shards do not matter: one evaluation of all samples at once finds the same."""
    study = small_study(undisturbed)
    records = read_records(undisturbed)
    defense, attacks = study.defenses["noise"], study.attacks
    result = evaluate(defense, attacks, [(study.images, study.labels)], eot_samples=2, judge_draws=3, seed=1, name="noise")
    found = records[(records["defense"] == "noise") & (records["seed"] == 1)]
    for attack in attacks:
        mine, theirs = found[found["attack"] == attack], result.records[result.records["attack"] == attack]
        assert mine["sample"].tolist() == list(range(30))
        assert mine["sample_hash"].tolist() == theirs["sample_hash"].tolist()
        assert [list(row) for row in mine["predictions"]] == theirs["predictions"].tolist()
        assert mine["label"].tolist() == study.labels.tolist()
    cell = next(cell for cell in study.cells() if (cell.defense, cell.attack, cell.seed, cell.shard) == ("noise", "pgd", 1, 1))
    images = read_adversarials(undisturbed, cell)
    torch.testing.assert_close(images, result.adversarials["pgd", "exact"][study.samples(cell)], rtol=0, atol=1e-4)


def test_running_again_computes_nothing(undisturbed):
    before, computed = (undisturbed / "results.csv").read_bytes(), []
    small_study(undisturbed).run(progress=counting(computed))
    assert computed == []
    assert (undisturbed / "results.csv").read_bytes() == before


def test_missing_cells_are_made_again(undisturbed, tmp_path):
    folder = tmp_path / "study"
    study = small_study(folder)
    chosen = random.Random(0).sample(study.cells(), 16)
    for cell in study.cells():  # as if these had been lost, some of them half written
        if cell not in chosen:
            for kind in KINDS:
                os.link(undisturbed / "cells" / f"{cell.key}.{kind}", folder / "cells" / f"{cell.key}.{kind}")
    (folder / "cells" / f"{chosen[0].key}.safetensors").write_bytes(b"half")
    (folder / "cells" / f".{chosen[1].key}.parquet~{platform.node()}~{0:032x}.part").write_bytes(b"of a dead process")
    (folder / "cells" / f"{chosen[2].key}.lock").touch()
    assert {cell.key for cell in study.missing()} == {cell.key for cell in chosen}
    computed = []
    small_study(folder).run(progress=counting(computed))
    assert Counter(computed) == Counter(cell.key for cell in chosen)
    assert table(folder) == table(undisturbed)
    assert len(list((folder / "cells").iterdir())) == 3 * len(study.cells())
    assert torch.equal(read_adversarials(folder, chosen[0]), read_adversarials(undisturbed, chosen[0]))


def test_an_interruption_loses_the_cell_in_flight(undisturbed, tmp_path):
    folder, computed = tmp_path / "study", []

    @contextmanager
    def interrupted(cells):
        def finished(cell):
            computed.append(cell.key)
            if len(computed) == 10:
                raise KeyboardInterrupt

        yield finished

    with pytest.raises(KeyboardInterrupt):
        small_study(folder).run(progress=interrupted)
    assert not (folder / "results.csv").exists()
    assert read_records(folder)["defense"].eq("cnn").all()
    small_study(folder).run(progress=counting(computed))
    assert max(Counter(computed).values()) == 1
    assert table(folder) == table(undisturbed)


def test_the_size_of_shards_does_not_change_the_table(undisturbed, tmp_path):
    study = small_study(tmp_path / "study", shard_size=30)
    study.run()
    mine, theirs = (pandas.read_csv(folder / "results.csv") for folder in (study.folder, undisturbed))
    costs = ["forwards", "backwards", "seconds", "peak_memory", "mean_distance", "median_distance"]
    pandas.testing.assert_frame_equal(mine.drop(columns=costs), theirs.drop(columns=costs))
    pandas.testing.assert_frame_equal(
        mine[costs].drop(columns=["seconds", "peak_memory"]), theirs[costs].drop(columns=["seconds", "peak_memory"]), rtol=1e-4
    )


def test_a_folder_with_cells_of_something_else(tmp_path):
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "stem.png").touch()
    with pytest.raises(GenclsError, match=r"got a folder with \['cells/stem.png'\]"):
        small_study(tmp_path)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"attacks": {"pgd": PGD(ThreatModel("linf", 0.05), steps=5)}}, "attack pgd had steps 4 and now has 5"),
        ({"defenses": {"cnn": small_cnn(seed=1)}}, "defense cnn has other weights"),
        ({"protocol": Protocol(eot_samples=3, judge_draws=3)}, "eot_samples was 2 and is now 3"),
        ({"labels": torch.zeros(30, dtype=torch.int64)}, "samples: expected"),
    ],
)
def test_a_folder_with_another_study(changes, what, undisturbed):
    before = (undisturbed / "study.json").read_bytes()
    with pytest.raises(GenclsError, match=f"holds another study.*{what}.*choose another folder"):
        small_study(undisturbed, **changes)
    assert (undisturbed / "study.json").read_bytes() == before


def test_a_folder_with_other_files(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(GenclsError, match=r"expected an empty folder or this study, got a folder with \['thesis.tex'\]"):
        small_study(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_damaged_settings_file(tmp_path):
    small_study(tmp_path / "study")
    (tmp_path / "study" / "study.json").write_text("{")
    with pytest.raises(GenclsError, match="expected the settings of a study in JSON"):
        small_study(tmp_path / "study")


def test_no_study_and_no_records(tmp_path):
    with pytest.raises(GenclsError, match="expected a study folder with study.json, got none"):
        read_study(tmp_path)
    small_study(tmp_path / "study")
    with pytest.raises(GenclsError, match="expected at least one finished cell, got none; run the study first"):
        read_records(tmp_path / "study")


def test_duplicate_samples(tmp_path):
    images = torch.rand(4, 1, 8, 8)
    images[3] = images[1]
    defenses = {"cnn": small_cnn()}
    study = small_study(tmp_path / "study", images=images, labels=torch.tensor([0, 1, 2, 1]), defenses=defenses, seeds=(0,))
    assert set(study.run()["n"]) == {4}
    assert len(set(study.hashes)) == 4


def test_a_defense_that_does_not_fit_leaves_no_folder(tmp_path):
    for labels, message in (
        (torch.tensor([0, 4]), "expected values in 0..3 for 4 classes"),
        (torch.tensor([0, 1]), "expected images"),
    ):
        channels = 1 if "values" in message else 3
        with pytest.raises(GenclsError, match=message):
            small_study(tmp_path / "study", images=torch.rand(2, channels, 8, 8), labels=labels)
        assert not (tmp_path / "study").exists()


def test_some_gradient_modes(tmp_path):
    study = small_study(tmp_path / "some", modes=("exact", "unrolled"))
    ways = {(cell.defense, cell.attack, cell.mode) for cell in study.cells()}
    assert {mode for defense, attack, mode in ways if defense == "abs" and attack != "noise"} == {"unrolled"}
    assert {mode for defense, attack, mode in ways if defense != "abs" and attack != "noise"} == {"exact"}
    assert {mode for _, attack, mode in ways if attack == "noise"} == {"none"}
    assert len(small_study(tmp_path / "some", modes=("exact", "unrolled")).missing()) == len(study.cells())
    more = {(cell.defense, cell.attack, cell.mode) for cell in small_study(tmp_path / "some").cells()}
    assert more > ways
    with pytest.raises(GenclsError, match="Sequential: expected gradient modes among exact; got warm"):
        small_study(tmp_path / "none", modes=("warm",))
    assert not (tmp_path / "none").exists()


def test_the_report_of_an_unfinished_study(tmp_path):
    study = small_study(tmp_path / "study", seeds=(0,), attacks={"pgd": PGD(LINF, steps=1)})
    computed = []

    @contextmanager
    def interrupted(cells):
        def finished(cell):
            computed.append(cell)
            if len(computed) == 3:  # all of the first defense, one shard of the second
                raise KeyboardInterrupt

        yield finished

    with pytest.raises(KeyboardInterrupt):
        study.run(progress=interrupted)
    with pytest.warns(UnfinishedWarning, match="partial: 5 of 8 cells are not finished"):
        page = study.report().read_text()
    assert "This report is partial" in page
    assert page.count("5 of 8 cells are not finished") > 4  # in the banner and at every row
    assert pandas.read_csv(study.folder / "results.csv")["warnings"].str.contains("partial: 5 of 8 cells").all()


def test_accuracy_does_not_rise_with_epsilon(tmp_path):
    weak = {f"{steps}": PGD(ThreatModel("linf", epsilon), steps=steps) for epsilon, steps in ((0.05, 10), (0.06, 1))}
    table = small_study(tmp_path / "study", attacks=weak, seeds=(0,)).run()
    worst = table[table["attack"] == "worst case"].pivot(index="defense", columns="epsilon", values="robust_accuracy")
    assert (worst[0.06] <= worst[0.05]).all()


@pytest.mark.parametrize("content", ["{}", "[]", "not json"])
def test_a_damaged_study_file(content, tmp_path):
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(GenclsError, match="expected the settings of a study"):
        read_study(tmp_path)


def test_a_damaged_cell(undisturbed, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(undisturbed, folder)
    cell = small_study(folder).cells()[0]
    (folder / "cells" / f"{cell.key}.parquet").write_bytes(b"")
    with pytest.raises(GenclsError, match=rf"{cell.key}.parquet: expected the SHA-256 .* of its mark, got e3b0c4"):
        read_records(folder)


@pytest.mark.parametrize("changes", [{"defenses": {}}, {"attacks": {}}, {"seeds": ()}, {"shard_size": 0}])
def test_an_empty_grid(changes, tmp_path):
    with pytest.raises(GenclsError, match="expected at least one defense, attack and seed and shard_size >= 1"):
        small_study(tmp_path / "study", **changes)


def test_a_defense_that_fails_loses_nothing(tmp_path):
    """The cells before it stay; once it is mended, a study of the same content goes on."""

    class Fails(torch.nn.Module):
        fingerprint_key = "the same, broken and mended"

        def __init__(self):
            super().__init__()
            self.network = small_cnn()
            self._broken = True

        def forward(self, images):
            return self.network(images) * (float("nan") if self._broken else 1.0)

    defense = Fails().eval()
    grid = {"defenses": {"cnn": small_cnn(), "fails": defense}}
    computed = []
    with pytest.raises(GenclsError, match="Fails: expected finite scores"):
        small_study(tmp_path / "study", **grid).run(progress=counting(computed))
    assert len(computed) == 12
    defense._broken = False
    small_study(tmp_path / "study", **grid).run(progress=counting(computed))
    assert Counter(computed) == Counter(cell.key for cell in small_study(tmp_path / "study", **grid).cells())


def test_the_settings_are_json(undisturbed):
    assert json.loads((undisturbed / "study.json").read_text()) == read_study(undisturbed)
