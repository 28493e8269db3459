"""A study's folder whose files were damaged, swapped, cut or left behind: no table changes in silence."""

import json
import os
import platform
import random
import shutil
import warnings
from collections import Counter
from pathlib import Path

import pandas
import pytest
import torch
from safetensors.torch import load_file, save_file

from gencls.core import GenclsError, TransformedClassifier
from gencls.core.files import held
from gencls.defenses import GaussianNoise
from gencls.eval import DDN, PGD, Protocol, Square, Study, ThreatModel, evaluate, read_adversarials, read_records
from gencls.eval.doctor.diagnosis import write_diagnoses
from gencls.eval.report.study import page
from gencls.eval.report.study.from_folder import UnfinishedWarning, report_study
from gencls.eval.study import folder as study_folder
from gencls.eval.study.folder import read_cells
from tests.eval.study.study_in_toys import LINF
from tests.toys import small_cnn

CHECKS = [{"name": "gradient", "status": "fail", "finding": "There is none.", "evidence": {"share": 0.25}}]


def tiny_study(folder):
    """4 cells: an attack with a budget and one without, 2 shards of 3 images."""
    source = torch.Generator().manual_seed(3)
    return Study(
        folder,
        defenses={"one": small_cnn()},
        attacks={"pgd": PGD(LINF, steps=2), "ddn": DDN(ThreatModel("l2", None), steps=3)},
        images=torch.rand(6, 1, 8, 8, generator=source),
        labels=torch.randint(0, 4, (6,), generator=source),
        protocol=Protocol(),
        shard_size=3,
    )


def table(folder):
    """results.csv without what depends on the machine."""
    return pandas.read_csv(folder / "results.csv").drop(columns=["seconds", "peak_memory"]).to_csv()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The finished study, with a diagnosis and a report."""
    folder = tmp_path_factory.mktemp("whole") / "study"
    study = tiny_study(folder)
    study.run()
    write_diagnoses(folder / "doctor.json", {"one": {"passed": False, "checks": CHECKS}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "all_figures", lambda *_: ())
        study.report()
    return folder


@pytest.fixture
def folder(whole, tmp_path, monkeypatch):
    """A copy to be damaged."""
    monkeypatch.setattr(page, "all_figures", lambda *_: ())  # they take most of the time, and are written anew
    return Path(shutil.copytree(whole, tmp_path / "study"))


def files(folder, kind):
    """The files of the cells of one kind, in the order of the cells."""
    return [folder / "cells" / f"{cell['key']}.{kind}" for cell in json.loads((folder / "study.json").read_text())["cells"]]


def flip(path, position=-1, bit=0):
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def flip_in(path, text):
    """One bit of the last character of a text that a file holds."""
    flip(path, path.read_bytes().index(text.encode()) + len(text) - 1)


def brighten(path, name):
    tensors = load_file(path)
    tensors[name].view(-1)[0] += 2
    save_file(tensors, path)


def rewrite(path, change):
    change(pandas.read_parquet(path)).to_parquet(path, index=False)


def copy(folder, *kinds):
    """Another cell's files in the place of the first one's."""
    for kind in kinds:
        first, *_, last = files(folder, kind)
        shutil.copy(last, first)


def shorten(folder):
    settings = json.loads((folder / "study.json").read_text())
    settings["cells"].pop()
    (folder / "study.json").write_text(json.dumps(settings))


CELL = {
    "a flipped bit in the records": lambda f: flip(files(f, "parquet")[0], 300),
    "records cut short": lambda f: os.truncate(files(f, "parquet")[0], 900),
    "empty records": lambda f: os.truncate(files(f, "parquet")[0], 0),
    "no records": lambda f: files(f, "parquet")[0].unlink(),
    "records of 2 of 3 samples": lambda f: rewrite(files(f, "parquet")[0], lambda frame: frame.head(2)),
    "records in another order": lambda f: rewrite(files(f, "parquet")[0], lambda frame: frame.iloc[::-1]),
    "records of another cell": lambda f: copy(f, "parquet"),
    "all files of another cell": lambda f: copy(f, "parquet", "safetensors", "json"),
    "a pixel above 1": lambda f: brighten(files(f, "safetensors")[0], "adversarial"),
    "adversarials cut short": lambda f: os.truncate(files(f, "safetensors")[0], 100),
    "no adversarials": lambda f: files(f, "safetensors")[0].unlink(),
    "adversarials of another cell": lambda f: copy(f, "safetensors"),
    "a flipped bit in the mark": lambda f: flip_in(files(f, "json")[0], '"rows": 3'),
    "an empty mark": lambda f: os.truncate(files(f, "json")[0], 0),
    "the mark of another cell": lambda f: copy(f, "json"),
    "another file as the mark": lambda f: shutil.copy(f / "study.json", files(f, "json")[0]),
}
SAMPLES = {
    "a pixel above 1": lambda f: brighten(f / "samples.safetensors", "images"),
    "another label": lambda f: brighten(f / "samples.safetensors", "labels"),
    "samples cut short": lambda f: os.truncate(f / "samples.safetensors", 200),
    "no samples": lambda f: (f / "samples.safetensors").unlink(),
}
SETTINGS = {
    "fewer cells": shorten,
    "another attack": lambda f: flip_in(f / "study.json", '"steps": "2'),
    "another format": lambda f: flip_in(f / "study.json", '"format": 4'),
    "no checksum": lambda f: flip_in(f / "study.json", '"checksum'),
    "settings cut short": lambda f: os.truncate(f / "study.json", 200),
}
DIAGNOSIS = {
    "another share": lambda f: flip_in(f / "doctor.json", "0.25"),
    "another defense": lambda f: flip_in(f / "doctor.json", '"one'),
    "a diagnosis without its checksum": lambda f: flip_in(f / "doctor.json", '"checksum'),
    "a diagnosis cut short": lambda f: os.truncate(f / "doctor.json", 20),
}


@pytest.mark.parametrize("what", CELL)
def test_a_damaged_cell_is_named_and_computed_again(what, folder, whole):
    CELL[what](folder)
    (key, *_) = (path.stem for path in files(folder, "json"))
    with pytest.raises(GenclsError, match=rf"{key}\.\w+: .*run the study again"):
        report_study(folder)
    study = tiny_study(folder)
    assert [cell.key for cell in study.missing()] == [key]
    with pytest.warns(UserWarning, match=rf"{key}\.\w+: .*computing the cell again") as named:
        study.run()
    assert len(named) == 1
    assert table(folder) == table(whole)
    assert study.missing() == []


@pytest.mark.parametrize("what", SAMPLES)
def test_damaged_samples_are_named_and_written_again(what, folder, whole):
    SAMPLES[what](folder)
    with pytest.raises(GenclsError, match=r"samples\.safetensors: .*run the study again"):
        report_study(folder)
    with pytest.warns(UserWarning, match=r"samples\.safetensors: .*writing them again"):
        tiny_study(folder).run()
    assert (folder / "samples.safetensors").read_bytes() == (whole / "samples.safetensors").read_bytes()
    assert report_study(folder).read_bytes() == (whole / "report.html").read_bytes()


@pytest.mark.parametrize("what", SETTINGS)
def test_damaged_settings_are_refused_and_may_be_removed(what, folder, whole):
    SETTINGS[what](folder)
    for use in (tiny_study, report_study, read_records):
        with pytest.raises(GenclsError, match=r"study\.json: expected .*remove it and run the study again"):
            use(folder)
    (folder / "study.json").unlink()
    (folder / "doctor.json").unlink()
    study = tiny_study(folder)
    assert study.missing() == []  # cells know what they are
    study.run()
    assert table(folder) == table(whole)


@pytest.mark.parametrize("what", DIAGNOSIS)
def test_a_damaged_diagnosis_is_refused(what, folder, whole):
    DIAGNOSIS[what](folder)
    with pytest.raises(GenclsError, match=r"doctor\.json: expected .*remove it and diagnose again"):
        report_study(folder)


def test_a_lost_mark_is_a_missing_cell(folder, whole):
    """As if the process had been killed before it wrote the mark."""
    files(folder, "json")[0].unlink()
    with pytest.warns(UnfinishedWarning, match="partial: 1 of 4 cells are not finished"):
        shown = report_study(folder).read_text()
    assert "This report is partial" in shown
    for name in ("results.csv", "curves.csv"):
        assert pandas.read_csv(folder / name)["warnings"].str.contains("partial: 1 of 4 cells").all()
    assert "partial: 1 of 4 cells" in (folder / "results.tex").read_text()
    assert read_records(folder)["warnings"].str.contains("partial: 1 of 4 cells").all()
    tiny_study(folder).run()
    assert table(folder) == table(whole)
    assert read_records(folder)["warnings"].eq("").all()
    assert "partial" not in report_study(folder).read_text()


def test_several_damaged_cells_are_counted(folder):
    for path in files(folder, "parquet"):
        flip(path)
    with pytest.raises(GenclsError, match=r"parquet: expected .*parquet: expected .* 1 more cells are damaged"):
        read_records(folder)


def test_adversarials_are_verified_before_they_are_used(folder):
    cell = tiny_study(folder).cells()[0]
    brighten(files(folder, "safetensors")[0], "adversarial")
    with pytest.raises(GenclsError, match=rf"{cell.key}.safetensors: expected the SHA-256 .* of its mark, got"):
        read_adversarials(folder, cell)
    files(folder, "json")[0].unlink()
    with pytest.raises(GenclsError, match=f"{cell.key}.json: expected the mark of a finished cell"):
        read_adversarials(folder, cell)


def test_a_file_of_another_kind_among_the_cells_changes_nothing(folder, whole):
    (folder / "cells" / "notes.txt").write_text("mine")
    (folder / "cells" / f"{0:032x}.parquet").write_bytes(files(folder, "parquet")[0].read_bytes())
    tiny_study(folder).run()
    assert table(folder) == table(whole)
    assert (folder / "cells" / "notes.txt").read_text() == "mine"


def test_a_cell_that_vanishes_while_the_study_runs_leaves_no_table(folder):
    """No table is written while a cell is missing."""
    study = tiny_study(folder)
    files(folder, "json")[0].unlink()
    (folder / "results.csv").unlink()
    study._compute = lambda cell, clean: None
    with pytest.raises(GenclsError, match="expected all cells finished by now, got 1 missing; run the study again"):
        study.run()
    assert not (folder / "results.csv").exists()


def test_a_cell_that_another_process_finishes_at_the_last_moment(folder, whole):
    """Between the look at what is finished and the look at what is missing: the table is of all cells."""
    study, mark = tiny_study(folder), files(folder, "json")[0]
    content, missing = mark.read_bytes(), study.missing
    mark.unlink()

    def look():
        mark.write_bytes(content)
        return missing()

    study.missing = look
    study._write_results()
    assert table(folder) == table(whole)


def test_a_run_leaves_what_another_process_holds(folder):
    """Locks and half-written files of another part of the study; those of the dead go."""
    cells = folder / "cells"
    names = [f"{0:032x}.lock", f".{0:032x}.parquet~{platform.node()}~{0:032x}.part"]
    dead = [f"{1:032x}.lock", f".{1:032x}.parquet~{platform.node()}~{1:032x}.part"]
    for name in dead:
        (cells / name).touch()
    with held(cells / names[0]), held(cells / names[1]):
        tiny_study(folder).run()
        assert all((cells / name).exists() for name in names)
        assert not any((cells / name).exists() for name in dead)


@pytest.mark.parametrize("attack", [PGD(LINF, steps=4), DDN(ThreatModel("l2", None), steps=4), Square(LINF, queries=10)])
@pytest.mark.parametrize("sigma", [pytest.param(0.0, marks=pytest.mark.slow), 0.2])
def test_what_was_spent_does_not_depend_on_the_size_of_shards(attack, sigma, digits):
    """In sum: a record holds the mean of its shard."""
    images, labels = digits[0][:10], digits[1][:10]
    network = small_cnn()
    labels[::2] = network(images).argmax(1)[::2]  # some are right, and attacked
    defense = TransformedClassifier(GaussianNoise(sigma), network, 4).eval() if sigma else network
    spent = set()
    for size in (1, 3, 10):
        batches = [(images[i : i + size], labels[i : i + size]) for i in range(0, 10, size)]
        found = [evaluate(defense, {"it": attack}, [batch], eot_samples=2, judge_draws=3).records for batch in batches]
        spent.add(tuple(round(sum(part[name].sum() for part in found), 6) for name in ("forwards", "backwards")))
    assert len(spent) == 1


def look(folder):
    """All that the cells hold, without what depends on the machine."""
    adversarials = [read_adversarials(folder, cell).sum().item() for cell in read_cells(folder)]
    return read_records(folder).drop(columns=["seconds", "peak_memory"]).to_json(), adversarials


def run_and(use):
    def run_and_use(folder):
        tiny_study(folder).run()
        return use(folder)

    return run_and_use


def report(folder):
    """The table without what depends on the machine, and the page."""
    shown = report_study(folder).read_text()
    return table(folder), shown


def flip_everywhere(whole, count, use, tmp_path):
    """How often a flipped bit changed nothing, was refused, or was named and mended; fails on a change in silence.

    Each file has its turn. What is there is used first as it is, then after the study has run again.
    """
    source, seen = random.Random(0), Counter()
    expected = use(Path(shutil.copytree(whole, tmp_path / "whole")))
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    for turn in range(count):
        shutil.copytree(whole, folder := tmp_path / "flipped")
        path = folder / names[turn % len(names)]
        flip(path, source.randrange(path.stat().st_size), source.randrange(8))
        for attempt in (use, run_and(use)):
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                try:
                    found, complaint = attempt(folder), ""
                except GenclsError as error:
                    found, complaint = None, str(error)
            if found is None:
                outcome = "refused"
            elif said:
                outcome, complaint = "mended", str(said[0].message)
                assert found[0] == expected[0]
            else:
                outcome, complaint = "the same", path.stem
                assert found == expected
            assert path.stem in complaint
        seen[path.suffix, outcome] += 1
        shutil.rmtree(folder)
    return seen


def test_no_flipped_bit_changes_anything_in_silence(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(study_folder, "summarize", lambda records: records)  # what it makes of the same is the same
    seen = flip_everywhere(whole, 30, look, tmp_path)
    assert seen[".parquet", "mended"] >= 5


@pytest.mark.slow
def test_no_flipped_bit_changes_anything_in_silence_at_600_positions(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "all_figures", lambda *_: ())
    seen = flip_everywhere(whole, 600, report, tmp_path)
    print(seen)
    assert seen[".parquet", "mended"] >= 100
