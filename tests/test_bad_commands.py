"""Bad input on the command line exits with code 2."""

from pathlib import Path

import pytest

from gencls.cli import main

ATTACK = ["attack", "--epsilon", "0.1", "--limit", "2"]
COMMANDS = {
    "unknown defense": [*ATTACK, "--defense", "cnn-mnits", "--attack", "fgsm-linf"],
    "unknown attack": [*ATTACK, "--defense", "cnn-mnist", "--attack", "pdg-linf"],
    "unknown data set": [*ATTACK, "--defense", "cnn-mnist", "--attack", "fgsm-linf", "--data", "mnits"],
    "draws of a defense without": [*ATTACK, "--defense", "cnn-mnist", "--attack", "fgsm-linf", "--eot", "4"],
    "epsilon": ["attack", "--defense", "cnn-mnist", "--attack", "fgsm-linf", "--epsilon", "8"],
    "defense of another kind": [*ATTACK, "--defense", "os:getcwd", "--attack", "fgsm-linf"],
    "folder without a study": ["report", "FOLDER"],
    "missing data": ["attack", "--defense", "cnn-mnist", "--attack", "fgsm-linf", "--epsilon", "0.1", "--data", "mnist"],
    "missing weights file": ["weights", "verify", "FOLDER/none.safetensors"],
    "unknown training": ["train", "cnn-mnits"],
    "foreign files in the folder": [*ATTACK, "--defense", "cnn-mnist", "--attack", "fgsm-linf", "--out", "FOLDER"],
}


@pytest.mark.parametrize("case", COMMANDS)
def test_command_line_exits_with_2(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GENCLS_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("kept")
    code = main([word.replace("FOLDER", str(tmp_path)) for word in COMMANDS[case]])
    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith("gencls: error: ")
    assert "Traceback" not in error
    assert (tmp_path / "notes.txt").read_text() == "kept"
