import json
import shutil
import subprocess
import sys

import pytest

from gencls.cli import main, parser
from gencls.eval.doctor.diagnosis import write_diagnoses

COMMANDS = ("names", "data", "weights", "train", "attack", "doctor", "report")

MODULES = """
import torch
from torch import nn


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.behind = linear()

    def forward(self, images):
        return self.behind(images + 0.5 * torch.randn_like(images))


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.behind = linear()

    def forward(self, images):
        return self.behind(images).detach()


instance = linear()
colour = nn.Conv2d(3, 3, 3)
flat = nn.Flatten(0)
number = 7
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of a user with modules of their own, one of them with a name that gencls has too."""
    (tmp_path / "mymodels.py").write_text(MODULES)
    (tmp_path / "eval.py").write_text("raise SystemExit('the wrong eval')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mymodels", raising=False)
    monkeypatch.delenv("GENCLS_DATA", raising=False)
    return tmp_path


def attack(*words):
    usual = {"--attack": "pgd-linf", "--epsilon": "0.3", "--steps": "2", "--limit": "10"}
    return main(["attack", *(word for flag in usual if flag not in words for word in (flag, usual[flag])), *words])


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_that_are_understood(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    examples = capsys.readouterr().out.split("examples:\n")[1].strip().splitlines()
    for example in examples:
        words = example.split()
        assert words[:2] == ["gencls", command]
        assert parser().parse_args(words[1:]).run


@pytest.mark.parametrize("words", [[], ["nothing"], ["attack"], ["weights", "eat"], ["attack", "--epsilon", "big"]])
def test_a_malformed_command_line_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "usage: gencls" in capsys.readouterr().err


def test_names_lists_every_kind(capsys):
    assert main(["names"]) == 0
    lines = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert "abs-mnist" in lines["defenses"].split()
    assert "adv-linf-mnist" in lines["trainings"].split()
    assert "pgd-l2" in lines["attacks"].split()
    assert "mnist-embedded" in lines["data sets"].split()


def test_data_finds_the_embedded_digits(capsys, here):
    assert main(["data", "mnist-embedded"]) == 0
    assert [" ".join(line.split()[1:]) for line in capsys.readouterr().out.splitlines()] == [
        "train found, 4,000 images, 10 classes",
        "test found, 1,000 images, 10 classes",
    ]


def test_attack_takes_modules_by_import_path_and_writes_a_report(capsys, here):
    defenses = ["mymodels:instance", "mymodels:Noisy"]
    assert attack("--defense", *defenses, "--draws", "3", "--eot", "2", "--out", "study") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "study/report.html"
    rows = (here / "study" / "results.csv").read_text().splitlines()
    at = rows[0].split(",").index("draws")
    assert {row.split(",")[0]: row.split(",")[at] for row in rows[1:]} == {"mymodels:instance": "1", "mymodels:Noisy": "3"}

    page = (here / "study" / "report.html").read_bytes()
    (here / "study" / "report.html").unlink()
    assert main(["report", "study"]) == 0
    assert (here / "study" / "report.html").read_bytes() == page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--defense", "cnn-cifar"], "unknown model 'cnn-cifar'; did you mean 'cnn-cars'? expected one of cnn-"),
        (["--defense", "nowhere:model"], "nowhere:model: expected package.module:attribute; got: No module named 'nowhere'"),
        (["--defense", "mymodels:missing"], "has no attribute 'missing'"),
        (["--defense", ":linear"], "expected package.module:attribute"),
        (["--defense", "mymodels:number"], "expected a torch.nn.Module or a function that returns one; got 7"),
        (["--defense", "mymodels:flat"], "mymodels:flat: expected scores of shape (4, K), got (3136,)"),
        (
            ["--defense", "mymodels:colour"],
            "mymodels:colour: expected images of the shape that it was made for, got (N, C, H, W) = (4, 1, 28, 28)",
        ),
        (["--defense", "mymodels:linear", "--attack", "pgd-l7"], "attack: did you mean 'pgd-l2'? expected a name among fgsm"),
        (["--defense", "mymodels:linear", "--attack", "pgd-l2", "apgd-linf"], "expected attacks of one norm"),
        (["--defense", "mymodels:linear", "--epsilon", "8"], "expected a linf epsilon in [0, 1] pixel units"),
        (["--defense", "mymodels:linear", "--epsilon", "nan"], "expected epsilon to be a finite number or None, got nan"),
        (["--defense", "mymodels:linear", "--limit", "0"], "limit must be between 1 and 1000"),
        (["--defense", "mymodels:linear", "--data", "digits"], "expected the name of a data set"),
        (["--defense", "mymodels:linear", "--split", "half"], "expected a split of mnist-embedded"),
    ],
)
def test_bad_input_to_attack_exits_with_2_and_one_clear_line(words, message, capsys, here):
    assert attack(*words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("gencls: error: ")
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""
    assert not (here / "runs").exists()


def test_a_folder_with_another_study_is_left_alone(capsys, here):
    words = ["--defense", "mymodels:linear", "--out", "study"]
    assert attack(*words) == 0
    before = {path: path.read_bytes() for path in (here / "study").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert attack(*words, "--eight-bit") == 2
    assert "study holds another study" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (here / "study").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report", "nowhere"], "nowhere: expected a study folder with study.json, got none"),
        (["weights", "verify", "page.pt"], "page.pt"),
        (["data", "mnist"], "mnist: expected the file train-images-idx3-ubyte"),
        (["data", "--download"], "expected the name of the data set to download"),
        (["train", "resnet"], "unknown training 'resnet'; expected one of cnn-mnist"),
        (["train", "cnn-mnist", "--data", "mnist-embedded", "--epochs", "0"], "expected epochs >= 1, got 0"),
        (["train", "cnn-mnist", "--data", "mnist-embedded", "--resume"], "expected a run to resume"),
    ],
)
def test_bad_input_exits_with_2_and_one_clear_line(words, message, capsys, here):
    (here / "page.pt").write_text("<!DOCTYPE html><html></html>")
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("gencls: error: ")
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


def test_a_changed_weights_file_is_found(capsys, here):
    assert main(["train", "cnn-mnist", "--data", "mnist-embedded", "--epochs", "1", "--limit", "200"]) == 0
    path = here / capsys.readouterr().out.splitlines()[-1]
    assert main(["weights", "list", str(path)]) == 0
    assert "gencls train cnn-mnist --data mnist-embedded --epochs 1 --limit 200" in capsys.readouterr().out
    assert main(["weights", "verify", str(path)]) == 0
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    capsys.readouterr()
    assert main(["weights", "verify", str(path)]) == 2
    assert "expected SHA-256" in capsys.readouterr().err


def test_the_installed_command_runs():
    done = subprocess.run([sys.executable, "-m", "gencls.cli", "--version"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("gencls ")


def test_doctor_finds_a_trained_network_healthy(capsys, here):
    assert main(["doctor", "cnn-mnist", "--limit", "10", "--out", "found/doctor.json"]) == 0
    shown = capsys.readouterr().out
    assert "ok    finite differences" in shown
    assert shown.splitlines()[-1].startswith("cnn-mnist: nothing found that makes a robustness number meaningless")
    found = json.loads((here / "found" / "doctor.json").read_text())
    assert found["cnn-mnist"]["passed"] is True


def test_doctor_exits_with_1_where_a_number_would_be_meaningless(capsys, here):
    assert main(["doctor", "mymodels:Detached", "--limit", "10", "--out", "doctor.json"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith("would be meaningless; failed: gradient")
    assert json.loads((here / "doctor.json").read_text())["mymodels:Detached"]["passed"] is False


def test_doctor_flags_noise_without_eot(capsys, here):
    words = ["doctor", "cnn-noise-mnist", "--limit", "10", "--epsilon", "0.1", "--transfer-from", "none"]
    assert main([*words, "--eot", "1", "--budget", "3"]) == 1
    shown = capsys.readouterr().out
    assert "fail  EoT" in shown
    assert "transfer" not in shown


@pytest.mark.parametrize("words", [[], ["--weights", "."]], ids=["", "with weights"])
def test_a_training_without_a_row_is_told_what_it_lacks(words, here, monkeypatch, capsys):
    monkeypatch.setattr("gencls.zoo.training.PRESETS", {"prototype-mnist": None})
    assert attack("--defense", "prototype-mnist", *words) == 2
    assert "prototype-mnist has a training but no row: add it to ROWS in gencls/zoo/rows.py" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cnn-cifar"], "unknown model 'cnn-cifar'"),
        (["cnn-mnist", "--epsilon", "8"], "expected a linf epsilon in [0, 1] pixel units"),
        (["cnn-noise-mnist", "--eot", "0"], "expected eot_samples >= 1"),
        (["cnn-mnist", "--budget", "-1"], "expected a budget in seconds > 0, got -1"),
        (
            ["cnn-mnist", "--transfer-from", "mymodels:colour"],
            "mymodels:colour: expected images of the shape that it was made for, got (N, C, H, W) = (4, 1, 28, 28)",
        ),
        (["cnn-mnist", "--device", "abacus"], "device: expected one of this machine"),
        (["cnn-mnist", "--out", "."], "--out: expected the path of a file, got ., which is a folder"),
    ],
)
def test_bad_input_to_doctor_exits_with_2_and_one_clear_line(words, message, capsys, here):
    assert main(["doctor", *words, "--limit", "4"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("gencls: error: ")
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""


def test_attack_with_a_diagnosis_shows_it_in_the_report_and_keeps_it(capsys, here):
    words = ["attack", "--attack", "noise-linf", "--epsilon", "0.3", "--limit", "10", "--doctor", "--out", "study"]
    assert main([*words, "--defense", "mymodels:instance", "mymodels:Detached"]) == 1
    first = capsys.readouterr().out
    assert "mymodels:Detached: a robustness number would be meaningless" in first
    kept = (here / "study" / "doctor.json").read_bytes()
    assert [*json.loads(kept)] == ["mymodels:instance", "mymodels:Detached"]
    assert "scores are detached from the images" in (here / "study" / "report.html").read_text()

    assert main([*words, "--defense", "mymodels:instance", "mymodels:Detached"]) == 1
    assert "finite differences" not in capsys.readouterr().out  # it is not made again
    assert (here / "study" / "doctor.json").read_bytes() == kept


STRANGERS = ["mymodels:instance", "mymodels:Detached"]


@pytest.fixture
def diagnosed(here, capsys, monkeypatch, tmp_path_factory):
    """A study with a diagnosis of two defenses; a function that attacks again: exit code, how many were diagnosed, output."""
    from gencls.eval import doctor
    from gencls.eval.report.study import page

    monkeypatch.setattr(page, "all_figures", lambda *_: ())  # they take most of the time
    words = ["attack", "--attack", "noise-linf", "--epsilon", "0.3", "--limit", "4", "--doctor", "--out", "study"]
    made = []

    def diagnose(defense, images, labels, **settings):
        made.append(settings)
        works = defense(images.clone().requires_grad_()).requires_grad
        return doctor.Diagnosis((doctor.Check("gradient", "ok" if works else "fail", "looked at"),))

    diagnose.fingerprint_key = "this code"
    monkeypatch.setattr(doctor, "diagnose", diagnose)

    def again(*more, defenses=STRANGERS):
        made.clear()
        code = main([*words, *more, "--defense", *defenses])
        return code, len(made), capsys.readouterr().out

    kept = tmp_path_factory.getbasetemp() / "diagnosed"
    if kept.exists():
        shutil.copytree(kept, "study")
    else:
        assert again()[:2] == (1, 2)
        shutil.copytree("study", kept)
    again.code = diagnose
    return again


def test_a_diagnosis_is_kept_while_nothing_has_changed(here, diagnosed):
    code, made, said = diagnosed()
    assert (code, made) == (1, 0)
    assert "diagnosing again" not in said


def test_a_diagnosis_by_other_code_is_made_again(here, diagnosed):
    diagnosed.code.fingerprint_key = "edited code"
    code, made, said = diagnosed()
    assert (code, made) == (1, 2)
    assert "mymodels:Detached: the diagnosis in study/doctor.json was made by other code; diagnosing again" in said


def test_a_sealed_diagnosis_of_another_defense_is_not_taken(here, diagnosed):
    """It said that nothing failed."""
    path = here / "study" / "doctor.json"
    content = json.loads(path.read_text())
    write_diagnoses(path, {name: bare(content["mymodels:instance"]) for name in STRANGERS})
    assert main(["report", "study"]) == 2
    code, made, said = diagnosed()
    assert (code, made) == (1, 1)
    assert "mymodels:Detached: the diagnosis in study/doctor.json is of another defense; diagnosing again" in said
    assert main(["report", "study"]) == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"epsilon": 0.1}, "is of another epsilon", marks=pytest.mark.slow),
        ({"samples": "others", "seed": 3}, "is of another samples, seed"),
        pytest.param({"source": None}, "is of another source", marks=pytest.mark.slow),
    ],
)
def test_a_diagnosis_of_other_settings_is_not_taken(changes, said, here, diagnosed):
    path = here / "study" / "doctor.json"
    found = {name: bare(of_it) for name, of_it in json.loads(path.read_text()).items()}
    found["mymodels:Detached"]["of"] |= changes
    found["mymodels:Detached"]["key"] = "of these"
    found["mymodels:Detached"] |= {"passed": True, "checks": []}
    write_diagnoses(path, found)
    code, made, shown = diagnosed()
    assert (code, made) == (1, 1)
    assert f"the diagnosis in study/doctor.json {said}; diagnosing again" in shown


def test_a_diagnosis_without_a_key_is_not_taken(here, diagnosed):
    path = here / "study" / "doctor.json"
    write_diagnoses(path, {name: {"passed": True, "checks": []} for name in STRANGERS})
    code, made, said = diagnosed()
    assert (code, made) == (1, 2)
    assert "does not say what it was made of; diagnosing again" in said


def bare(diagnosis):
    return {name: value for name, value in diagnosis.items() if name != "checksum"}


def test_attack_with_a_diagnosis_of_a_healthy_network_exits_with_0(capsys, here):
    words = ["--attack", "noise-linf", "--epsilon", "0.3", "--limit", "10", "--doctor", "--out", "study"]
    assert main(["attack", "--defense", "cnn-mnist", *words]) == 0


def test_a_diagnosis_needs_an_epsilon(capsys, here):
    assert main(["attack", "--defense", "mymodels:linear", "--attack", "ddn-l2", "--limit", "4", "--doctor"]) == 2
    assert "expected an attack within a ball" in capsys.readouterr().err
    assert not (here / "runs").exists()
