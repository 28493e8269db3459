"""Folders that cannot do all that a Linux disk can: no hard links, no locks, short names, other devices, lagging lists."""

import argparse
import errno
import importlib
import os
import platform
from pathlib import Path

import pandas
import pytest
import torch

from gencls._commands.attack import _folder_name
from gencls.cli import main
from gencls.core import files
from gencls.core.files import atomically, held, remove_leftovers, shortened
from gencls.eval import FGSM, PGD, Study, ThreatModel, read_records
from gencls.eval.report.study import page
from tests.toys import small_cnn

LINF = ThreatModel("linf", 0.05)
NO_LOCKS = ("ENOSYS", "ENOLCK", "EOPNOTSUPP", "ENOTSUP", "EINVAL", "ENOTTY")
NO_LINKS = ("EPERM", "EOPNOTSUPP", "ENOSYS", "EXDEV", "EINVAL")


def fails(code):
    def call(*_, **__):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    return call


def study(folder, **changes):
    settings = {"defenses": {"net": small_cnn()}, "attacks": {"pgd": PGD(LINF, steps=1)}, "shard_size": 4}
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    return Study(folder, **{**settings, "images": images, "labels": torch.arange(4), **changes})


def table(folder):
    return pandas.read_csv(folder / "results.csv").drop(columns=["seconds", "peak_memory"]).to_csv()


def no_locks(monkeypatch, code):
    monkeypatch.setattr(files.fcntl, "flock", fails(code))


def no_links(monkeypatch, code):
    monkeypatch.setattr(os, "link", fails(code))


def other_devices(monkeypatch, code):
    monkeypatch.setattr(os, "replace", fails(code))


def no_modes(monkeypatch, code):
    for name in ("chmod", "fchmod", "fsync", "utime"):
        monkeypatch.setattr(os, name, fails(code))


def new_numbers(monkeypatch, code):
    """Each look at a file gives another inode, as some file systems in user space do."""
    monkeypatch.setattr(os.path, "samestat", lambda *_: False)


def stays(monkeypatch, code):
    """What is open cannot be removed."""
    unlink = Path.unlink

    def refuse(path, **settings):
        if path.suffix == ".lock":
            raise OSError(errno.EBUSY, "busy")
        unlink(path, **settings)

    monkeypatch.setattr(Path, "unlink", refuse)


def lagging(monkeypatch, code):
    """A list of a folder that is behind."""
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(()))


KINDS = {
    "no locks": (no_locks, "ENOLCK"),
    "no hard links": (no_links, "EPERM"),
    "a folder of several devices": (other_devices, "EXDEV"),
    "no modes and no fsync": (no_modes, "EPERM"),
    "other inode numbers at each look": (new_numbers, ""),
    "open files stay": (stays, ""),
    "lists that lag behind": (lagging, ""),
}


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("usual") / "study"
    study(folder).run()
    study(folder, attacks={"fgsm": FGSM(LINF)}).run()
    return folder


@pytest.mark.parametrize("what", KINDS)
def test_a_study_in_such_a_folder(what, usual, tmp_path, monkeypatch):
    """It is computed, resumed and grown."""
    make, code = KINDS[what]
    make(monkeypatch, code)
    study(tmp_path / "s").run()
    planned = study(tmp_path / "s", attacks={"fgsm": FGSM(LINF)})
    planned.run()
    assert planned.missing() == []
    assert table(tmp_path / "s") == table(usual)
    assert not list((tmp_path / "s").rglob("*.part"))


@pytest.mark.parametrize("code", NO_LOCKS)
def test_what_cannot_be_locked_is_held_by_who_waits(code, tmp_path, monkeypatch):
    no_locks(monkeypatch, code)
    with held(tmp_path / "a") as first, held(tmp_path / "a", wait=False) as second:
        assert (first, second) == (True, False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", NO_LINKS)
def test_a_name_that_is_taken_without_hard_links(code, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", fails(code))
    atomically(tmp_path / "run.json", lambda part: part.write_text("first"), overwrite=False)
    with pytest.raises(FileExistsError):
        atomically(tmp_path / "run.json", lambda part: part.write_text("second"), overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert (tmp_path / "run.json").read_text() == "first"


def test_other_errors_are_not_hidden(tmp_path, monkeypatch):
    for name in ("link", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fails("ENOSPC"))
            with pytest.raises(OSError, match="No space left"):
                atomically(tmp_path / "a", lambda part: part.write_text("x"), overwrite=name == "replace")
    monkeypatch.setattr(files.fcntl, "flock", fails("EIO"))
    with pytest.raises(OSError, match="Input/output"), held(tmp_path / "b.lock"):
        pass
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "b.lock"])


def test_without_locks_rows_that_another_process_wrote_over_come_back(tmp_path, monkeypatch):
    """Both read study.json, then both write it."""
    no_locks(monkeypatch, "ENOLCK")
    study(tmp_path / "s")
    before = (tmp_path / "s" / "study.json").read_bytes()
    mine = study(tmp_path / "s", attacks={"fgsm": FGSM(LINF)})
    (tmp_path / "s" / "study.json").write_bytes(before)
    assert set(mine.run()["attack"]) == {"fgsm", "worst case"}
    assert set(study(tmp_path / "s").run()["attack"]) == {"pgd", "fgsm", "worst case"}


@pytest.mark.parametrize("host", ["a" * 64, "my laptop", "ноутбук-Анны", "ns/1~2", "", "x" * 300, "\u202eabc", "a\nb"])
def test_hosts_with_any_name(host, tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: host)
    before = dict(vars(files))  # other tests hold its classes
    module = importlib.reload(files)
    try:
        for name in ("a", "b" * 255, "ü" * 127):
            module.atomically(tmp_path / name, lambda part: part.write_text("x"))
        part = module._part(tmp_path / ("c" * 255))
        part.write_text("left by a dead process")
        module.remove_leftovers(tmp_path)
        assert not part.exists()
        assert len(os.fsencode(part.name)) <= 255
    finally:
        vars(files).update(before)
    assert len(list(tmp_path.iterdir())) == 3


def test_hosts_stay_apart():
    names = [files._host(name) for name in ("abc", "äöü", "äöo", "x" * 300, "x" * 301, "a b", "a-b", "")]
    assert len(set(names)) == len(names)


def test_parts_of_long_names_are_found_again(tmp_path):
    for name in ("a" * 255, "ж" * 127, "\n" * 9):
        files._part(tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a" * 256, "ж" * 200, "a" + "😀" * 90, "abc def+" * 40])
def test_shortened_names(name):
    short = shortened(name)
    assert len(os.fsencode(short)) <= 255
    assert short.rpartition("-")[0] == name[: len(short.rpartition("-")[0])]
    assert short == shortened(name) != shortened(name + "a")
    assert shortened(name[:60]) == name[:60]


LONG = "x" * 300
NAMES = {
    "300 characters": (LONG, f"{LONG}y"),
    "right to left": ("הגנה", "هجوم"),
    "accents and an emoji": ("réseau µ", "πgd 🙂"),
}


@pytest.mark.parametrize("what", NAMES)
def test_names_of_any_kind(what, tmp_path):
    defense, attack = NAMES[what]
    found = study(tmp_path / "s", defenses={defense: small_cnn()}, attacks={attack: FGSM(LINF)}).run()
    assert found[["defense", "attack"]].to_numpy().tolist() == [[defense, attack], [defense, "worst case"]]
    assert set(read_records(tmp_path / "s")["attack"]) == {attack}
    assert pandas.read_csv(tmp_path / "s" / "results.csv")["defense"].tolist() == [defense] * 2


def test_many_defenses_and_attacks_without_out():
    """Their names are longer than 255 bytes; other settings have another folder."""
    defenses = [f"networks:the_{i}th_network_with_a_name_that_says_it_all" for i in range(9)]
    names = [*defenses, *(f"pgd{i}-linf" for i in range(10))]
    options = {
        "epsilon": 0.1,
        "steps": None,
        "restarts": None,
        "size": None,
        "weights": None,
        "eight_bit": False,
        "streams": "rows",
        "seed": [0],
    }
    name, same, other = (
        _folder_name(argparse.Namespace(**{**options, "epsilon": size}), names, "mnist20") for size in (0.1, 0.1, 0.2)
    )
    assert name.startswith("networks.the_0th_network_with_a_name_that_says_it_all+networks.the_1th")
    assert len(os.fsencode(name)) == 255
    assert name == same != other
    assert _folder_name(argparse.Namespace(**options), ["cnn", "pgd"], "mnist20") == "cnn+pgd-eps0.1-mnist20-seed0"


@pytest.mark.slow
def test_a_long_name_without_out(tmp_path, monkeypatch, capsys):
    (tmp_path / "networks.py").write_text(
        "import torch\nfrom torch import nn\n\ntorch.manual_seed(0)\n"
        + f"{LONG} = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page, "all_figures", lambda *_: ())
    words = ["attack", "--defense", f"networks:{LONG}", "--attack", "fgsm-linf", "--epsilon", "0.1", "--limit", "2"]
    assert main(words) == main(words) == 0
    assert "All cells of this study are finished" in capsys.readouterr().out
    assert len(list((tmp_path / "runs").iterdir())) == 1
