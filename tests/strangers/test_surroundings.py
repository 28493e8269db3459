"""Faults of the surroundings: full disks, folders that go, files that are damaged, odd flags, code that ends the program."""

import builtins
import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from gencls import zoo
from gencls._commands.failures import exit_code_of
from gencls.cli import main
from gencls.core import GenclsError
from gencls.core.files import WriteError, atomically, sealed
from gencls.defenses import PlainClassifier
from gencls.eval import GaussianNoiseAttack, Study, ThreatModel, read_study, report_study
from gencls.zoo.training import train
from recipes import quickstart
from recipes.eabs.__main__ import recipe as eabs
from recipes.mlvgm.__main__ import recipe as mlvgm
from recipes.variational_smoothing.__main__ import recipe as variational_smoothing

ROOT = Path(__file__).parents[2]
MODULES = """
import sys
import torch
from torch import nn


class Quits(nn.Module):
    calls = 0

    def forward(self, images):
        Quits.calls += 1
        if Quits.calls > 2:
            sys.exit(0)
        return images.flatten(1)[:, :10]


class Interrupted(nn.Module):
    def forward(self, images):
        raise KeyboardInterrupt
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "surroundings.py").write_text(MODULES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "surroundings", raising=False)
    monkeypatch.delenv("GENCLS_DATA", raising=False)
    return tmp_path


def attack(*words):
    usual = {"--defense": "cnn-mnist", "--attack": "noise-linf", "--epsilon": "0.1", "--limit": "4"}
    return main(["attack", *(word for flag in usual if flag not in words for word in (flag, usual[flag])), *words])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "study"
    study(folder).run()
    return folder


def study(folder):
    torch.manual_seed(0)
    data = zoo.load_data("mnist-embedded", "test", limit=6)
    defense = PlainClassifier(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), 10).eval()
    attacks = {"noise": GaussianNoiseAttack(ThreatModel("linf", 0.1), tries=2)}
    return Study(folder, defenses={"linear": defense}, attacks=attacks, images=data.images, labels=data.labels, shard_size=2)


def adversarials(folder):
    return {path.name: path.read_bytes() for path in (folder / "cells").glob("*.safetensors")}


# Disks

DISK = {
    "full": (OSError(errno.ENOSPC, "No space left on device"), "expected room for it, got: No space left on device"),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), "expected room for it, got: Disk quota exceeded"),
    "read-only": (OSError(errno.EROFS, "Read-only file system"), "expected to write it, got: Read-only file system"),
    "broken": (OSError(errno.EIO, "Input/output error"), "expected to write it, got: Input/output error"),
}


@pytest.mark.parametrize("case", DISK)
def test_a_disk_that_refuses_is_told_and_the_next_run_recovers(case, tmp_path, monkeypatch, finished):
    error, message = DISK[case]
    whole, written = Path.write_bytes, []

    def failing(path, content):
        written.append(path)
        if len(written) > 3:  # samples and one cell are there
            raise error
        return whole(path, content)

    broken = study(tmp_path / "study")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", failing)
        with pytest.raises(GenclsError, match=message) as caught:
            broken.run()
    assert caught.value.errno == error.errno
    assert isinstance(caught.value, OSError)
    study(tmp_path / "study").run()
    assert adversarials(tmp_path / "study") == adversarials(finished)
    assert (tmp_path / "study" / "results.csv").is_file()


@pytest.mark.slow
def test_a_file_that_may_not_grow_is_exit_code_2_in_a_process_of_its_own(tmp_path):
    """What ``ulimit -f`` allows is used up by the samples."""
    words = ["--defense", "cnn-mnist", "--attack", "noise-linf", "--epsilon", "0.1", "--limit", "20", "--out", "study"]

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(
        [sys.executable, "-m", "gencls", "attack", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=limited,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "expected room for it, got: File too large" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_is_removed_during_the_run_is_told(tmp_path):
    lost = study(tmp_path / "study")
    shutil.rmtree(tmp_path / "study")
    with pytest.raises(GenclsError, match="expected"):
        lost.run()


def test_another_process_that_was_faster_is_no_fault_of_the_disk(tmp_path):
    (tmp_path / "file").write_text("theirs")
    with pytest.raises(FileExistsError):
        atomically(tmp_path / "file", lambda part: part.write_text("ours"), overwrite=False)
    with pytest.raises(WriteError, match="none/file: expected to write it, got: No such file or directory"):
        atomically(tmp_path / "none" / "file", lambda part: part.write_text("ours"))


OUTS = {
    "below a file": ("surroundings.py/study", "where .*surroundings.py is a file"),
    "a file": ("surroundings.py", "expected a folder, got surroundings.py, which is a file"),
    "NUL": ("a\0b", "expected a path without NUL"),
    "too long": ("x" * 300, "expected a path that this file system takes"),
    "much too long": ("x/" * 5000, "expected a path that this file system takes"),
}


@pytest.mark.parametrize("case", OUTS)
@pytest.mark.parametrize("dry", [False, True])
def test_paths_that_cannot_be_are_refused_before_the_work(case, dry, capsys, here):
    out, message = OUTS[case]
    assert attack("--out", out, *["--dry-run"] * dry) == 2
    said = capsys.readouterr().err
    assert said.startswith("gencls: error: ")
    assert len(said) < 400
    assert re.search(message, said)
    assert [path.name for path in here.iterdir()] == ["surroundings.py"]


WRITERS = {
    "train": lambda *words: main(["train", "cnn-mnist", "--data", "mnist-embedded", "--epochs", "1", *words]),
    "mlvgm": lambda *words: mlvgm.command(["--profile", "smoke", *words]),
    "variational_smoothing": lambda *words: variational_smoothing.command(["--profile", "smoke", *words]),
    "eabs": lambda *words: eabs.command(["--profile", "smoke", *words]),
    "quickstart": lambda *words: quickstart.command([*words]),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("case", OUTS)
@pytest.mark.parametrize("dry", [False, True])
def test_everything_that_writes_a_folder_refuses_them_too(writer, case, dry, capsys, here):
    out, message = OUTS[case]
    assert WRITERS[writer]("--out", out, *["--dry-run"] * dry) == 2
    told = capsys.readouterr()
    assert re.search(f"error: --out: .*{message.removeprefix('expected ')}", told.err)
    assert not told.out
    assert [path.name for path in here.iterdir()] == ["surroundings.py"]


INSIDE = {"train": "cnn-mnist", "mlvgm": "smoke-smoke-code", "variational_smoothing": "smoke-smoke"}


@pytest.mark.parametrize("writer", INSIDE)
def test_a_file_in_place_of_the_folder_of_one_run_is_refused_too(writer, capsys, here):
    (here / "runs").mkdir()
    (here / "runs" / INSIDE[writer]).touch()
    assert WRITERS[writer]("--out", "runs", "--dry-run") == 2
    assert f"--out: expected a folder, got runs/{INSIDE[writer]}, which is a file" in capsys.readouterr().err


def test_a_usual_folder_below_a_file_is_refused_too(capsys, here):
    (here / "runs").touch()
    assert attack("--dry-run") == 2
    assert re.search("--out: expected a path that can be made, got runs/.*, where .*runs is a file", capsys.readouterr().err)


# Damaged studies


def resealed(folder, change):
    path = folder / "study.json"
    settings = json.loads(path.read_text())
    del settings["checksum"]
    change(settings)
    path.write_text(json.dumps(sealed(settings)))


def nested(depth):
    inner = []
    for _ in range(depth):
        inner = [inner]
    return inner


ODD = {
    "list for a dict": {"protocol": []},
    "cells are numbers": {"cells": [1, 2]},
    "cells are a dict": {"cells": {"a": 1}},
    "cells are text": {"cells": "cells"},
    "a cell lacks fields": {"cells": [{"defense": "a"}]},
    "a cell's shard is text": {"cells": [{"defense": "a", "attack": "b", "mode": "c", "seed": 0, "shard": "0", "key": "ab"}]},
    "a cell leads out": {"cells": [{"defense": "a", "attack": "b", "mode": "c", "seed": 0, "shard": 0, "key": "../../x"}]},
    "seeds are text": {"seeds": "0"},
    "no seeds": {"seeds": []},
    "seeds are booleans": {"seeds": [True]},
    "hashes are numbers": {"sample_hashes": [1] * 6},
    "hashes are null": {"sample_hashes": None},
    "format is text": {"format": "3"},
    "format is a list": {"format": [3]},
    "format is true": {"format": True},
    "defenses are numbers": {"defenses": {"linear": 1}},
    "attacks are a list": {"attacks": ["noise"]},
    "about is text": {"about": "me"},
    "about holds numbers": {"about": {"data": 7}},
    "nested": {"about": nested(500)},
}


@pytest.mark.parametrize("case", ODD)
def test_settings_of_other_types_are_refused_with_their_name(case, finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "study")
    resealed(folder, lambda settings: settings.update(ODD[case]))
    for read in (read_study, report_study, study):
        with pytest.raises(GenclsError, match="study.json: expected"):
            read(folder)


@pytest.mark.parametrize(
    "name", ["study.json", "samples.safetensors", "cells/*.parquet", "cells/*.safetensors", "cells/*.json"]
)
@pytest.mark.parametrize("damage", ["empty", "truncated", "a folder", "deep"])
def test_damaged_files_are_named_by_the_report(name, damage, finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "study")
    for path in folder.glob(name):
        content = path.read_bytes()
        path.unlink()
        if damage == "a folder":
            path.mkdir()
        else:
            path.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "deep": b"[" * 100_000}[damage])
    assert main(["report", str(folder)]) == 2
    said = capsys.readouterr().err
    assert "expected" in said
    assert str(folder) in said


# Code that ends the program

IMPORTS = {
    "arguments needed": "torch.nn:Linear",
    "relative": "..a:b",
    "no module": ":x",
    "no attribute": "surroundings:",
    "two colons": "a:b:c",
    "raises": "raises:x",
    "syntax error": "broken:x",
    "exits": "exits:x",
    "no module at all": "surroundings:sys",
}


@pytest.mark.parametrize("case", IMPORTS)
def test_import_paths_that_lead_nowhere(case, capsys, here):
    (here / "raises.py").write_text("raise ZeroDivisionError('mine')")
    (here / "broken.py").write_text("def x(:")
    (here / "exits.py").write_text("import sys; sys.exit(0)")
    assert attack("--defense", IMPORTS[case]) == 2
    said = capsys.readouterr().err
    assert said.startswith("gencls: error: ")
    assert len(said.splitlines()) == 1


def test_a_network_that_exits_is_no_success(capsys, here):
    assert attack("--defense", "surroundings:Quits") == 2
    assert "sys.exit(0)" in capsys.readouterr().err


def test_an_interrupt_is_130(capsys, here):
    assert attack("--defense", "surroundings:Interrupted") == 130
    assert "interrupted; finished work is kept" in capsys.readouterr().err


def test_an_interrupt_while_torch_is_imported_is_130(monkeypatch, capsys):
    def interrupted(name, *rest, importing=builtins.__import__):
        if name == "gencls.core.errors":
            raise KeyboardInterrupt
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    assert exit_code_of("recipe", lambda: 0) == 130
    assert capsys.readouterr().err == "recipe: interrupted; finished work is kept\n"


ENDS = {
    "error of ours": (GenclsError("x: expected a, got b"), 2, "x: expected a, got b"),
    "disk": (OSError(errno.ENOSPC, "No space left on device"), 2, "expected room for a file, got: No space left on device"),
    "file": (
        PermissionError(errno.EACCES, "Permission denied", "data"),
        2,
        "data: expected to read or write it, got:",
    ),
    "nameless": (OSError("odd"), 2, "expected to read or write it, got: odd"),
    "exit": (SystemExit(0), 2, "expected code that returns, got one that ended the program with sys.exit(0)"),
    "terminated training": (type("SIGTERMException", (SystemExit,), {})(), 143, "terminated; finished work is kept"),
    "interrupt": (KeyboardInterrupt(), 130, "interrupted; finished work is kept"),
    "memory": (MemoryError(), 1, "expected to do with the memory there is"),
}


@pytest.mark.parametrize("case", ENDS)
def test_commands_and_recipes_end_alike(case, capsys):
    error, code, message = ENDS[case]

    def work():
        raise error

    assert exit_code_of("recipe", work) == code
    assert capsys.readouterr().err.startswith(f"recipe: {'' if code >= 130 else 'error: '}{message}")


def test_faults_of_the_program_stay_visible():
    with pytest.raises(ZeroDivisionError):
        exit_code_of("recipe", lambda: 1 // 0)


# Trainings


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"<html>", b"\x80\x02]q\x00."])
def test_damaged_checkpoints_are_not_resumed(content, tmp_path):
    path = tmp_path / "cnn-mnist" / "last.ckpt"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(GenclsError, match=r"last.ckpt: expected the checkpoint of a training, got .*; remove it"):
        train("cnn-mnist", data="mnist-embedded", limit=16, epochs=1, out=tmp_path, resume=True, progress=False)
