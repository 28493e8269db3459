"""The layout that the documentation promises: links, banned names, light imports, small files."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import grimp
import networkx
import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("defenses", "perceptual", "zoo", "eval")


def tracked_files():
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


@pytest.mark.parametrize("part", PARTS)
def test_link_is_the_same_folder_as_its_target(part):
    link = ROOT / part
    assert link.is_symlink()
    assert link.readlink() == Path("gencls") / part
    assert (link / "__init__.py").samefile(ROOT / "gencls" / part / "__init__.py")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("statement", ["import {}", "import {}.anything", "from {} import anything"])
def test_ruff_bans_the_bare_name(part, statement):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--output-format=concise", "--stdin-filename=gencls/snippet.py", "-"],
        input=f'"""A snippet."""\n\n{statement.format(part)}\n',
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "TID251" in done.stdout


@pytest.mark.parametrize("part", PARTS)
def test_ruff_allows_the_full_name(part):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select=TID251", "--stdin-filename=gencls/snippet.py", "-"],
        input=f"from gencls.{part} import anything\n",
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


ABSENT = {
    "gencls": {"torch"},
    "gencls.cli": {"torch"},
    "gencls.defenses": {"lightning", "foolbox", "robustbench", "botorch", "pandas", "matplotlib"},
    "gencls.perceptual": {"lightning", "foolbox", "robustbench", "botorch", "lpips", "torchmetrics", "torchvision"},
    "gencls.zoo.registry": {"gencls.zoo.training", "lightning"},
    "gencls.zoo": {"lightning", "foolbox", "robustbench", "botorch"},
    "gencls.zoo.training": {"lightning", "foolbox", "robustbench", "botorch"},
    "gencls.eval": {"lightning", "foolbox", "robustbench", "botorch", "matplotlib"},
}
"""What the import of a module must not bring, nor those of the modules before it: one interpreter imports them in turn."""


def test_imports_are_light_and_found_from_an_unrelated_folder_with_colliding_names(tmp_path):
    (tmp_path / "eval.py").write_text("raise SystemExit('the wrong eval')\n")
    (tmp_path / "zoo.py").write_text("raise SystemExit('the wrong zoo')\n")
    (tmp_path / "defenses").mkdir()
    (tmp_path / "defenses" / "__init__.py").write_text("raise SystemExit('the wrong defenses')\n")
    code = "\n".join(f"import {module}; print('{module}', *sys.modules)" for module in ABSENT)
    command = [sys.executable, "-c", f"import sys\n{code}\nprint(gencls.__version__)"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *lines, version = done.stdout.splitlines()
    assert version == "0.1.0"
    assert [line.split()[0] for line in lines] == list(ABSENT)
    assert {name: ABSENT[name] & set(brought) for name, *brought in map(str.split, lines)} == dict.fromkeys(ABSENT, set())


def modules_by_string(source, file, modules):
    """The modules that a file imports by `import_module`.

    A variable, also in an f-string, may hold any string of the file. Plug-ins do not count: who loads whatever lies in a folder
    depends on no file in it.
    """
    tree = ast.parse(source)
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    anything = f"({'|'.join(map(re.escape, strings))})"
    found = set()
    for node in ast.walk(tree):
        called = isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", None))
        if called in ("import_module", "__import__"):
            parts = getattr(node.args[0], "values", [node.args[0]])
            pattern = "".join(re.escape(part.value) if isinstance(part, ast.Constant) else anything for part in parts)
            found |= {name for name in modules if re.fullmatch(pattern, name)}
    return found - {file}


def source_of(module):
    path = ROOT / module.replace(".", "/")
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()


def test_no_two_files_import_each_other():
    """Also by way of others, within functions, for types alone, by a module's name, or a package and a file in it."""
    found = grimp.build_graph("gencls", "recipes", exclude_type_checking_imports=False)
    arrows = networkx.DiGraph(
        (file, other)
        for file in found.modules
        for other in found.find_modules_directly_imported_by(file) | modules_by_string(source_of(file), file, found.modules)
    )
    assert [circle for circle in networkx.strongly_connected_components(arrows) if len(circle) > 1] == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import_module('gencls.zoo.registry')", {"gencls.zoo.registry"}),
        ("def late():\n    return importlib.import_module('gencls.zoo.registry').names()", {"gencls.zoo.registry"}),
        ("NAME = 'gencls.zoo.registry'\n__import__(NAME)", {"gencls.zoo.registry"}),
        ("LATER = {'load': 'registry'}\nimport_module(f'gencls.zoo.{LATER[name]}')", {"gencls.zoo.registry"}),
        ("import_module(f'{package.__name__}.{name}')", set()),
        ("import_module('lightning'), print('gencls.zoo.registry')", set()),
    ],
)
def test_imports_by_a_string_are_seen(code, expected):
    modules = {"gencls.zoo", "gencls.zoo.registry", "gencls.zoo.rows"}
    assert modules_by_string(code, "gencls.zoo.trained", modules) == expected


def test_no_function_hides_a_module():
    """`gencls.eval.attacks.pgd` is the file, whatever the package exports."""
    found = grimp.build_graph("gencls", "recipes")
    hidden = []
    for file in sorted(found.modules):
        package, _, name = file.rpartition(".")
        if package and not file.endswith("__main__"):
            module = importlib.import_module(file)
            hidden += [file] if getattr(importlib.import_module(package), name) is not module else []
    assert hidden == []


def test_no_file_is_long():
    long = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in tracked_files() if path.suffix == ".py"}
    assert [path for path, lines in long.items() if lines > (400 if path.parts[0] == "tests" else 300)] == []


def test_tracked_files_stay_small():
    sizes = {path: path.stat().st_size for path in tracked_files()}
    assert sum(sizes.values()) < 40 * 2**20
    assert [path for path, size in sizes.items() if size > 5_000_000 and path.parent.name != "weights"] == []
