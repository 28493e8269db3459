"""What the documentation shows must hold: links, Python code, commands, make targets."""

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.transforms.functional import to_pil_image

from gencls import zoo
from gencls.cli import main, parser
from gencls.core import GenclsError, surrogates_of
from gencls.eval import LatentDescent, ThreatModel
from gencls.perceptual import Combined

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


PRESENT = [page for page in PAGES if page.name != "CHANGELOG.md"]  # which says how things were called
FOLDERS = ("gencls/", "recipes/", "tests/", "docs/", ".ci/")


def inline_words(page):
    """The words between single backticks."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [word.strip(".,;:()'\"") for code in re.findall(r"`([^`\n]+)`", text) for word in code.split()]


def leads_somewhere(name):
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", PRESENT, ids=identify)
def test_paths_exist(page):
    """Of a pattern such as `gencls/zoo/networks/<family>/` the part before the placeholder."""
    paths = [word.partition("::")[0] for word in inline_words(page) if word.startswith(FOLDERS)]
    assert [path for path in paths if not (ROOT / re.split(r"[^/]*[<*]", path)[0]).exists()] == []


@pytest.mark.parametrize("page", PRESENT, ids=identify)
def test_dotted_names_exist(page):
    names = [found for word in inline_words(page) for found in re.findall(r"^(?:gencls|recipes)(?:\.\w+)+", word)]
    code = [node for block in blocks(page, "python") for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom)]
    names += [f"{node.module}.{alias.name}" for node in code if node.module.startswith("gencls") for alias in node.names]
    assert [name for name in names if not leads_somewhere(name)] == []


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_commands_are_understood(page):
    for words in commands(page):
        if words[0] == "gencls":
            assert parser().parse_args(words[1:]).run
        if words[0] == "make":
            done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr


OWN = [code for code in blocks(ROOT / "README.md", "python") if "mymodels" in code]
CODE = [code for code in blocks(ROOT / "README.md", "python") if code not in OWN]


def test_readme_code_runs_in_a_folder_with_colliding_names(tmp_path):
    """All of it in one process: starting one takes seconds."""
    (tmp_path / "eval.py").write_text("raise SystemExit('the wrong eval')\n")
    (tmp_path / "zoo.py").write_text("raise SystemExit('the wrong zoo')\n")
    (tmp_path / "defenses").mkdir()
    (tmp_path / "defenses" / "__init__.py").write_text("raise SystemExit('the wrong defenses')\n")
    parts = [code.replace("limit=20", "limit=2").replace("starts=2000", "starts=100") for code in CODE]
    parts = [code.replace("DefaultBudget.quick()", "DefaultBudget.quick(2)") for code in parts]
    names = [f"part_{number}.py" for number in range(len(parts))]
    for name, code in zip(names, parts, strict=True):
        (tmp_path / name).write_text(code)
    (tmp_path / "mine.py").write_text(
        f"import runpy\nfor name in {names}:\n    runpy.run_path(name)\n    print('end of', name)\n"
    )
    done = subprocess.run([sys.executable, "mine.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outputs = re.split(r"^end of .*\n", done.stdout, flags=re.MULTILINE)
    assert len(outputs) == len(parts) + 1 > 2
    assert all("tensor(" in output or "report.html" in output for output in outputs[:-1])


def test_the_code_on_distances_runs():
    """All of a page in one place, as it stands."""
    names = {}
    for number, code in enumerate(blocks(ROOT / "docs" / "distances.md", "python")):
        exec(compile(code, f"distances.md, block {number}", "exec"), names)
    assert {"one_to_five", "psnr", "fid", "kid", "mmd"} <= names.keys()


def test_the_code_on_latent_distortion_runs_and_says_the_stronger_holds():
    names = {}
    (code,) = blocks(ROOT / "docs" / "latent-distortion.md", "python")
    exec(compile(code, "latent-distortion.md", "exec"), names)
    assert names["table"]["verdict"].tolist() == ["does not hold"]
    assert 0 < names["area"].low < names["area"].value < names["area"].high < 0.6


def test_what_runs_comes_before_what_needs_a_file():
    (code,) = (code for code in blocks(ROOT / "docs" / "weights.md", "python") if "robust-corruptions-cifar10" in code)
    names = {}
    with pytest.raises(GenclsError, match=r"Kireev2021Effectiveness_RLATAugMix.pt: expected a weights file; got no such file"):
        exec(compile(code, "weights.md", "exec"), names)
    assert isinstance(names["distance"], Combined)


def test_the_example_of_an_exact_likelihood_holds():
    names = {}
    (code,) = blocks(ROOT / "CONTRIBUTING.md", "python")
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    means = torch.stack([torch.full((1, 4, 4), level) for level in (0.2, 0.5, 0.9)])
    defense = names["NearestMean"](means, sigma=2.0).eval()
    assert surrogates_of(defense).keys() == {"exact"}
    density = torch.distributions.Normal(means, 2.0)
    expected = density.log_prob(means.unsqueeze(1)).sum((2, 3, 4))
    found = defense(means)
    torch.testing.assert_close(found - found[:, :1], expected - expected[:, :1])
    attacked = LatentDescent(ThreatModel("l2"))(defense, means, torch.arange(3))
    assert (defense(attacked).argmax(1) != torch.arange(3)).all()
    torch.testing.assert_close((attacked - means).flatten(1).norm(dim=1), torch.tensor([0.6, 0.6, 0.8]), rtol=0.01, atol=0)


@pytest.fixture
def own_files(tmp_path, monkeypatch):
    """What the README's section on one's own model and data takes for granted: weights, a module and a folder of images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "mymodels", raising=False)  # of another test
    model, study = OWN
    (tmp_path / "mymodels.py").write_text(model)
    weights = {"0.weight": torch.randn(8, 1, 3, 3), "0.bias": torch.randn(8)}
    weights |= {"3.weight": torch.randn(2, 1352), "3.bias": torch.randn(2)}
    torch.save({"epoch": 3, "state_dict": weights}, "mine.pth.tar")
    digits = zoo.load_data("mnist-embedded", "test", limit=40)
    for number, (image, label) in enumerate(zip(digits.images, digits.labels, strict=True)):
        if label < 2:
            folder = tmp_path / "photos" / ("nought", "one")[label]
            folder.mkdir(parents=True, exist_ok=True)
            to_pil_image(image).save(folder / f"{number}.png")
    yield study
    sys.modules.pop("mymodels", None)


def test_the_readme_on_your_own_model_and_data_holds(own_files, capsys):
    lines = [words for words in commands(ROOT / "README.md") if "photos" in words]
    planned, first, grown, doctor = (words[1:] for words in lines)
    assert planned == [*first, "--dry-run"]
    planned, first, grown = ([*words, "--steps", "5"] for words in (planned, first, grown))
    assert main(planned) == 0
    assert not os.path.exists("runs")
    assert main(first) == 0
    cells = set(os.listdir("runs/photos/cells"))
    before = {name: os.stat(f"runs/photos/cells/{name}").st_mtime_ns for name in cells}
    assert main(grown) == 0
    assert set(os.listdir("runs/photos/cells")) > cells
    assert before == {name: os.stat(f"runs/photos/cells/{name}").st_mtime_ns for name in cells}
    assert "mymodels:Noisy" in capsys.readouterr().out
    assert main([*doctor, "--budget", "1"]) in (0, 1)
    exec(compile(own_files.replace("queries=200", "queries=5"), "README.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1] == "runs/mine/report.html"
