"""Docstrings read once: each is a sentence about its subject, and each entry says what the argument or field is."""

import ast
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FRAGMENTS = {
    "begins without its subject": re.compile(r"(Of|Those|By how) "),
    "has an entry that begins without its subject": re.compile(r"[\s\S]*\n    \**\w+: (of|those|that) "),
    "sends the reader away": re.compile(r"[\s\S]*\bsee there\b"),
}


def fragments(code):
    """The line and the fault of each docstring that is a fragment, of private code and of constants, too."""
    texts = [
        (node.lineno, inspect.cleandoc(node.value.value))
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    return [(line, fault) for line, text in texts for fault, fragment in FRAGMENTS.items() if fragment.match(text)]


@pytest.mark.parametrize("package", ["gencls", "recipes"])
def test_no_docstring_is_a_fragment(package):
    files = sorted((ROOT / package).rglob("*.py"))
    found = [(path, *fault) for path in files for fault in fragments(path.read_text("utf-8"))]
    assert [f"{path.relative_to(ROOT)}:{line} {fault}" for path, line, fault in found] == []


@pytest.mark.parametrize(
    "text",
    [
        "Of each row.",
        "Those of the network.",
        "By how much scores miss a goal.",
        "Train.\n\nArgs:\n    seed: of the draws.",
        "Train.\n\nArgs:\n    model: any.\n    **more: those of the parent.",
        "Train.\n\nRaises:\n    GenclsError: that of the parent.",
        "Train; see there.",
    ],
)
def test_a_fragment_is_found(text):
    indented = text.replace("\n", "\n    ")
    assert len(fragments(f'def train():\n    """{indented}"""\n')) == 1


def test_a_sentence_is_no_fragment():
    assert fragments('"""Offers a seed.\n\nArgs:\n    seed: the seed of the draws, which takes those that follow.\n"""\n') == []
