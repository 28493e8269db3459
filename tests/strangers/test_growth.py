"""A study that grows: one more of anything computes just what is missing, and what is there keeps its meaning."""

import multiprocessing
import os
import shutil
import signal
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pandas
import pytest
import torch

from gencls._commands.doctor import diagnose_study
from gencls.cli import main
from gencls.core import TransformedClassifier
from gencls.defenses import GaussianNoise
from gencls.eval import (
    DDN,
    FGSM,
    PGD,
    GaussianNoiseAttack,
    ThreatModel,
    read_adversarials,
    read_records,
    read_study,
    report_study,
)
from gencls.eval.report.study import page
from gencls.eval.report.style import NamedFigure
from gencls.eval.study import grid, plan
from gencls.eval.study import growth as growing
from gencls.eval.study.folder import read_cells, read_samples
from tests.strangers.growth import IMAGES, LABELS, LINF, study
from tests.toys import small_cnn

FORK = multiprocessing.get_context("fork")


def computed(planned):
    """Runs a study; the cells that were computed, by name, and the table."""
    done = []

    @contextmanager
    def progress(cells):
        yield done.append

    table = planned.run(progress=progress)
    return [(cell.defense, cell.attack, cell.epsilon, cell.mode, cell.seed, cell.shard) for cell in done], table


def table(folder):
    """results.csv without what depends on the machine."""
    return pandas.read_csv(folder / "results.csv").drop(columns=["seconds", "peak_memory"]).to_csv()


NOISY = {"noisy": TransformedClassifier(GaussianNoise(0.1), small_cnn(), 4).eval()}
TWO = {"pgd": PGD(LINF, steps=2), "fgsm": FGSM(LINF)}
WIDER = {"pgd": PGD(ThreatModel("linf", 0.1), steps=2)}
DISTILLED = {"pgd": PGD(LINF, steps=2), "ddn": DDN(ThreatModel("l2"), steps=2)}

MORE = {
    "one more attack": ({"attacks": TWO}, {("net", "fgsm", 0.05, "exact", 0)}),
    "only the new attack": ({"attacks": {"fgsm": FGSM(LINF)}}, {("net", "fgsm", 0.05, "exact", 0)}),
    "an attack without a budget": ({"attacks": DISTILLED}, {("net", "ddn", None, "exact", 0)}),
    "one more defense": ({"defenses": {"net": small_cnn(), **NOISY}}, {("noisy", "pgd", 0.05, "exact", 0)}),
    "only the new defense": ({"defenses": NOISY}, {("noisy", "pgd", 0.05, "exact", 0)}),
    "one more seed": ({"seeds": (0, 1)}, {("net", "pgd", 0.05, "exact", 1)}),
    "another seed": ({"seeds": (1,)}, {("net", "pgd", 0.05, "exact", 1)}),
    "another epsilon": ({"attacks": WIDER}, {("net", "pgd", 0.1, "exact", 0)}),
    "nothing": ({}, set()),
    "another shard size": ({"shard_size": 2}, set()),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "s"
    return folder, study(folder).run()


SLOW = ("only the new attack", "an attack without a budget", "only the new defense", "one more seed")
"""The others have all that these have."""


@pytest.mark.parametrize("what", [pytest.param(what, marks=pytest.mark.slow) if what in SLOW else what for what in MORE])
def test_one_more(what, finished, tmp_path):
    """Computes just that; the rest stays in the table."""
    changes, rows = MORE[what]
    folder, first = finished
    shutil.copytree(folder, tmp_path / "s")
    done, second = computed(study(tmp_path / "s", **changes))
    assert set(done) == {(*row, shard) for row in rows for shard in (0, 1)}
    assert len(done) == len(set(done))
    assert second["n"].eq(6).all()
    assert second["warnings"].str.contains("partial").sum() == 0
    before = first[first["attack"] != "worst case"].drop(columns="warnings")
    after = second.merge(before[["defense", "attack", "epsilon", "gradient", "seed"]])[before.columns]
    pandas.testing.assert_frame_equal(after, before.reset_index(drop=True))
    assert study(tmp_path / "s").missing() == []
    assert len(read_cells(tmp_path / "s")) == len({cell.key for cell in read_cells(tmp_path / "s")}) == 2 + 2 * len(rows)


def test_grown_step_by_step_it_is_the_study_made_at_once(tmp_path):
    attacks = {"noise": GaussianNoiseAttack(LINF, tries=1), "fgsm": FGSM(LINF)}
    defenses = {"net": small_cnn(), **NOISY}
    for name, attack in attacks.items():
        study(tmp_path / "steps", attacks={name: attack}, count=3).run()
    study(tmp_path / "steps", attacks=attacks, defenses=NOISY, seeds=(1,), count=3).run()
    for folder in ("steps", "once"):
        study(tmp_path / folder, attacks=attacks, defenses=defenses, seeds=(0, 1), count=3).run()
    assert read_study(tmp_path / "steps")["cells"] == read_study(tmp_path / "once")["cells"]
    assert table(tmp_path / "steps") == table(tmp_path / "once")


def test_more_images_get_shards_of_their_own(tmp_path):
    """The last shard stays as small as it was; the call has its images in any order."""
    study(tmp_path / "s", count=5).run()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    planned = study(tmp_path / "s", images=IMAGES[order], labels=LABELS[order], shard_size=5)
    done, found = computed(planned)
    assert read_study(tmp_path / "s")["shards"] == [[0, 3], [3, 5], [5, 10], [10, 12]]
    assert {cell[-1] for cell in done} == {2, 3}
    assert found["n"].tolist() == [12, 12]
    images, labels = read_samples(tmp_path / "s")
    assert torch.equal(images[:5], IMAGES[:5])
    for cell in planned.cells():
        first, stop = read_study(tmp_path / "s")["shards"][cell.shard]
        assert torch.equal(planned.images[planned.samples(cell)], images[first:stop])
        assert (read_adversarials(tmp_path / "s", cell) - planned.images[planned.samples(cell)]).abs().max() <= 0.0501
    records = read_records(tmp_path / "s")
    assert records["sample"].tolist() == list(range(12))
    assert records["label"].tolist() == labels.tolist()
    fresh = study(tmp_path / "fresh", count=12).run()
    alike = ["defense", "attack", "n", "clean_accuracy", "robust_accuracy", "median_distance"]
    pandas.testing.assert_frame_equal(found[alike], fresh[alike])


def test_repeated_images_are_counted(tmp_path):
    images, labels = IMAGES[[0, 0, 1]], LABELS[[0, 0, 1]]
    study(tmp_path / "s", images=images[:2], labels=labels[:2]).run()
    done, found = computed(study(tmp_path / "s", images=images[[2, 0, 1, 0]], labels=labels[[2, 0, 1, 0]]))
    assert len(done) == 1
    assert found["n"].tolist() == [4, 4]


def test_rows_that_were_not_named_lack_the_new_images(tmp_path):
    study(tmp_path / "s", attacks=TWO).run()
    done, found = computed(study(tmp_path / "s", count=9))
    assert len(done) == 1
    assert found["warnings"].str.contains("partial: 1 of 6 cells are not finished").all()
    assert found.set_index("attack")["n"].to_dict() == {"pgd": 9, "fgsm": 6, "worst case": 9}
    assert len(computed(study(tmp_path / "s", count=9, attacks={"fgsm": FGSM(LINF)}))[0]) == 1
    assert read_records(tmp_path / "s")["warnings"].eq("").all()


def test_a_worst_case_of_fewer_attacks_says_so(tmp_path):
    """Of defenses and of seeds: without the other attack a number looks better than it is."""
    study(tmp_path / "s", attacks=TWO, count=3).run()
    for changes in ({"defenses": NOISY}, {"seeds": (1,)}, {"attacks": WIDER}):
        found = study(tmp_path / "s", count=3, **changes).run()
    found = found.query("attack == 'worst case'")
    said = found.set_index(["defense", "epsilon", "seed"])["warnings"].str.contains("not comparable: without fgsm, which")
    assert said.to_dict() == {
        ("net", 0.05, 0): False,
        ("net", 0.05, 1): True,
        ("net", 0.1, 0): False,
        ("noisy", 0.05, 0): True,
    }


def test_what_another_call_has_not_finished_makes_the_table_partial(tmp_path):
    study(tmp_path / "s", attacks={"fgsm": FGSM(LINF)})
    assert study(tmp_path / "s").run()["warnings"].str.contains("partial: 2 of 4 cells are not finished").all()
    assert not study(tmp_path / "s", attacks=TWO).run()["warnings"].str.contains("partial").any()


def test_epsilons_that_differ_by_rounding_are_one_row(tmp_path):
    for size in (0.05, 0.1, 0.1 * (1 + 1e-8), 0.1):
        found = study(tmp_path / "s", attacks={"fgsm": FGSM(ThreatModel("linf", size))}, count=3).run()
    assert found["epsilon"].round(6).tolist() == [0.05, 0.05, 0.1, 0.1]
    assert found["n"].eq(3).all()


@pytest.mark.slow
def test_epsilons_are_told_apart_everywhere(tmp_path, monkeypatch):
    """Also where they differ by rounding, which is the same row."""
    monkeypatch.setattr(NamedFigure, "encode", lambda *_: b"")  # drawing takes most of the time
    several = [PGD(ThreatModel("linf", size), steps=1) for size in (0.05, 0.1, 0.1 * (1 + 1e-8))]
    for attack in several:
        study(tmp_path / "s", attacks={"pgd": attack}, defenses={"net": small_cnn(), "two": small_cnn(seed=1)}).run()
    shown = report_study(tmp_path / "s").read_text()
    found = pandas.read_csv(tmp_path / "s" / "results.csv")
    assert sorted(found["epsilon"].round(6)) == [0.05] * 4 + [0.1] * 4
    assert found["n"].eq(6).all()
    names = [path.stem for path in (tmp_path / "s" / "figures").glob("*.png")]
    assert len([name for name in names if name.startswith("images-")]) == 4
    for name in ("accuracy-linf-0.05", "accuracy-linf-0.1", "claimed-linf-0.1", "mcnemar-linf-0.05", "mcnemar-linf-0.1"):
        assert name in names
    assert "net under pgd (L∞, ε = 0.05)" in shown
    assert "net under pgd (L∞, ε = 0.1)" in shown


def test_other_code_of_gencls(tmp_path, monkeypatch):
    """Rows of this call are computed again; those of others stay, and say so."""
    both = {"net": small_cnn(), "two": small_cnn(seed=1)}
    study(tmp_path / "s", attacks=TWO, defenses=both).run()
    real = plan.key_of
    other = lambda value, name: real(value, name)._replace(whole=f"other {real(value, name).whole}")  # noqa: E731
    for module in (plan, grid):
        monkeypatch.setattr(module, "key_of", other)
    done, found = computed(study(tmp_path / "s"))
    assert len(done) == 2
    rows = found[found["attack"] != "worst case"].set_index(["defense", "attack"])["warnings"]
    said = rows.str.contains("computed by other code of gencls or libraries than the newest rows")
    assert said.to_dict() == {("net", "pgd"): False, ("net", "fgsm"): True, ("two", "pgd"): True, ("two", "fgsm"): True}
    monkeypatch.undo()
    found = study(tmp_path / "s", attacks=TWO, defenses=both).run()
    assert not found["warnings"].str.contains("other code").any()


def test_killed_between_samples_and_settings(tmp_path, monkeypatch):
    """The folder is as it was, and grows when the call is made again."""
    study(tmp_path / "s", count=5).run()
    before = table(tmp_path / "s")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(growing, "write_sealed", killed)
        with pytest.raises(KeyboardInterrupt):
            study(tmp_path / "s", attacks=TWO, count=9)
    assert len(read_samples(tmp_path / "s")[0]) == 5
    study(tmp_path / "s", count=5).run()
    assert table(tmp_path / "s") == before
    assert study(tmp_path / "s", attacks=TWO, count=9).run()["n"].max() == 9


def test_a_grown_folder_without_its_settings(tmp_path):
    """The order of the samples and the bounds of the shards are kept beside the samples."""
    study(tmp_path / "s", count=5).run()
    study(tmp_path / "s", count=9).run()
    before = table(tmp_path / "s")
    (tmp_path / "s" / "study.json").unlink()
    again = study(tmp_path / "s", images=IMAGES[:9].flip(0), labels=LABELS[:9].flip(0), shard_size=4)
    assert again.missing() == []
    again.run()
    assert table(tmp_path / "s") == before


def test_calls_at_once_lose_no_rows(tmp_path):
    """Each adds an attack of its own to one folder."""
    study(tmp_path / "s")

    def add(i):
        os.environ["OMP_NUM_THREADS"] = "1"
        study(tmp_path / "s", attacks={f"fgsm {i}": FGSM(LINF)})

    processes = [FORK.Process(target=add, args=(i,)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert set(read_study(tmp_path / "s")["attacks"]) == {"pgd", *(f"fgsm {i}" for i in range(4))}
    assert len(read_study(tmp_path / "s")["cells"]) == 10
    assert not (tmp_path / "s" / "study.lock").exists()


@pytest.mark.slow
def test_killed_while_it_grows(tmp_path):
    """At random moments, by random calls: what the folder holds is whole, and in the end all of it is there."""
    source = torch.Generator().manual_seed(0)
    calls = [{"count": 6}, {"count": 9, "attacks": TWO}, {"count": 12, "attacks": WIDER}, {"count": 12, "seeds": (1, 2)}]
    kills = 0
    for turn in range(60):
        call = calls[min(turn // 15, 3)]
        process = FORK.Process(target=lambda call=call: study(tmp_path / "s", **call).run())
        process.start()
        time.sleep(0.05 + 0.6 * float(torch.rand((), generator=source)))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        if (tmp_path / "s" / "study.json").exists():
            read_samples(tmp_path / "s")
            cells = read_cells(tmp_path / "s")
            assert all(len(read_adversarials(tmp_path / "s", cell)) for cell in cells)
    assert kills >= 20
    for folder in ("s", "whole"):
        for call in calls:
            study(tmp_path / folder, **{**call, "count": 12}).run()
    assert table(tmp_path / "s") == table(tmp_path / "whole")


def test_diagnoses_of_other_defenses_stay(tmp_path, monkeypatch):
    from gencls.eval import doctor
    from gencls.eval.doctor.diagnosis import known_diagnoses

    class Found:
        def to_json(self):
            return {"passed": False, "checks": [{"name": "x", "status": "fail", "finding": "y", "evidence": {}}]}

        def text(self, name):
            return name

    monkeypatch.setattr(doctor, "diagnose", lambda *_, **__: Found())
    data = SimpleNamespace(images=IMAGES[:6], labels=LABELS[:6], num_classes=4)
    settings = {"eot_samples": 2, "seed": 0}
    assert diagnose_study(study(tmp_path / "s"), data, "linf", 0.1, **settings) == ("net",)
    assert diagnose_study(study(tmp_path / "s", defenses=NOISY), data, "linf", 0.1, **settings) == ("noisy",)
    assert list(known_diagnoses(tmp_path / "s" / "doctor.json")) == ["net", "noisy"]


def attack(*words):
    return main(["attack", "--defense", "cnn-mnist", "--attack", "fgsm-linf", "--out", "mine", *words])


def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    """More images, another epsilon, one more attack, one more seed, in one folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page, "all_figures", lambda *_: ())
    assert attack("--epsilon", "0.1", "--limit", "6") == 0
    assert attack("--epsilon", "0.1", "--limit", "10", "--attack", "noise-linf", "--seed", "0", "1") == 0
    assert read_study("mine")["shards"] == [[0, 6], [6, 10]]
    assert attack("--epsilon", "0.2", "--limit", "10", "--seed", "2") == 0  # whose own subset is another one
    found = pandas.read_csv("mine/results.csv")
    rows = found[found["attack"] != "worst case"].set_index(["attack", "epsilon", "seed"])["n"].to_dict()
    assert rows == {
        ("fgsm-linf", 0.1, 0): 10,
        ("fgsm-linf", 0.1, 1): 10,
        ("noise-linf", 0.1, 0): 10,
        ("noise-linf", 0.1, 1): 10,
        ("fgsm-linf", 0.2, 2): 10,
    }
    capsys.readouterr()
    assert attack("--epsilon", "0.1", "--limit", "4") == 2
    assert "mine holds 10 images: expected all of them, and perhaps more, got 4 of them" in capsys.readouterr().err
