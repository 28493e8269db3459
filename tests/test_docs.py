"""What the documentation shows must hold: links, Python code, commands, make targets."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gencls.cli import parser

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def identify(page):
    return str(page.relative_to(ROOT))


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page):
    lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line]


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_relative_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_python_code_is_python(page):
    for code in blocks(page, "python"):
        assert ast.parse(code).body


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_commands_are_understood(page):
    for words in commands(page):
        if words[0] == "gencls":
            assert parser().parse_args(words[1:]).run
        if words[0] == "make":
            done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("index", range(len(blocks(ROOT / "README.md", "python"))))
def test_readme_code_runs_in_a_folder_with_colliding_names(index, tmp_path):
    (tmp_path / "eval.py").write_text("raise SystemExit('the wrong eval')\n")
    (tmp_path / "zoo.py").write_text("raise SystemExit('the wrong zoo')\n")
    (tmp_path / "defenses").mkdir()
    (tmp_path / "defenses" / "__init__.py").write_text("raise SystemExit('the wrong defenses')\n")
    code = blocks(ROOT / "README.md", "python")[index]
    (tmp_path / "mine.py").write_text(code.replace("limit=20", "limit=4").replace("starts=2000", "starts=500"))
    done = subprocess.run([sys.executable, "mine.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "tensor(" in done.stdout or "report.html" in done.stdout
