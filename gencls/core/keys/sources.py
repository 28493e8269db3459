"""The source code of one file: the text of its definitions, and the names in them.

Definitions are compared by their syntax trees: comments, layout, docstrings and the version of Python do not count.
"""

import ast
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from types import CodeType
from typing import NamedTuple

__all__ = ["WHOLE", "Imported", "References", "Source", "digest_of", "nested", "parsed", "references"]

WHOLE = "*"
"""Stands in place of a name for everything in a module."""

Chain = tuple[str, ...]
"""A name and the attributes taken of it: ``functional.relu`` is ("functional", "relu")."""


class Imported(NamedTuple):
    """An import binds a name to this: a module, or a name in it."""

    module: str
    name: str | None


class References(ast.NodeVisitor):
    """The names that statements read, with the attributes taken of them, and the imports within. Annotations do not count."""

    def __init__(self, package: str) -> None:
        """Take the package that relative imports start from."""
        self.package = package
        self.chains: set[Chain] = set()
        self.imports: dict[str, Imported] = {}
        self.stars: list[str] = []

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Note a name and the attributes taken of it as one chain."""
        attributes: list[str] = []
        value: ast.expr = node
        while isinstance(value, ast.Attribute):
            attributes.insert(0, value.attr)
            value = value.value
        if isinstance(value, ast.Name):
            self.chains.add((value.id, *attributes))
        else:
            self.visit(value)

    def visit_Name(self, node: ast.Name) -> None:
        """Note a name that is read."""
        if not isinstance(node.ctx, ast.Store):
            self.chains.add((node.id,))

    def visit_Import(self, node: ast.Import) -> None:
        """``import a.b`` binds ``a``; ``import a.b as c`` binds ``c`` to ``a.b``."""
        for alias in node.names:
            name = alias.name if alias.asname else alias.name.partition(".")[0]
            self.imports[alias.asname or name] = Imported(name, None)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Note names imported from another module; leading dots mean the same package."""
        above = self.package.split(".")[: len(self.package.split(".")) - node.level + 1] if node.level else []
        module = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            if alias.name == "*":
                self.stars.append(module)
            else:
                self.imports[alias.asname or alias.name] = Imported(module, alias.name)

    def generic_visit(self, node: ast.AST) -> None:
        """Visit all nodes except annotations."""
        for name, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and name not in ("annotation", "returns"):
                    self.visit(child)


def references(nodes: Iterable[ast.AST], package: str) -> References:
    """Collect the references of statements."""
    found = References(package)
    for node in nodes:
        found.visit(node)
    return found


class Source:
    """One file.

    Attributes:
        bindings: name -> the top-level statements that make what it is bound to.
        imports: name -> what a top-level import binds it to.
        stars: modules of which everything is imported.
    """

    def __init__(self, text: str, package: str) -> None:
        """Parse a file of a package, from which relative imports start; a SyntaxError means that the text is no Python."""
        self.tree = ast.parse(text)
        self.package = package
        self._digests: dict[str, str] = {}
        self.bindings: dict[str, list[ast.stmt]] = defaultdict(list)
        found = References(package)
        for statement in _at_run_time(self.tree.body):
            names = set(_bound(statement)) or {chain[0] for chain in references([statement], package).chains}
            for name in names:
                self.bindings[name].append(statement)
            for node in _outside_functions(statement):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    found.visit(node)
        self.imports, self.stars = found.imports, found.stars

    def statements(self, name: str) -> list[ast.stmt]:
        """The statements that make a name."""
        return self.tree.body if name == WHOLE else self.bindings[name]

    def says(self, name: str) -> str:
        """A digest of the statements that make a name."""
        if name not in self._digests:
            self._digests[name] = digest_of(self.statements(name))
        return self._digests[name]

    def node(self, code: CodeType) -> ast.AST | None:
        """The function that a code object was made of; None if the file has changed since, or two functions may be meant."""
        made = self._codes.get((code.co_qualname, code.co_firstlineno), [])
        nodes = [node for node in self._functions[code.co_firstlineno] if getattr(node, "name", "<lambda>") == code.co_name]
        return nodes[0] if code in made and len(nodes) == 1 else None

    @cached_property
    def _codes(self) -> dict[tuple[str, int], list[CodeType]]:
        codes = defaultdict(list)
        for code in nested(compile(self.tree, "source", "exec", dont_inherit=True)):
            codes[code.co_qualname, code.co_firstlineno].append(code)
        return codes

    @cached_property
    def _functions(self) -> dict[int, list[ast.AST]]:
        """Functions by the number of their first line; a decorator's line counts as the first."""
        functions: dict[int, list[ast.AST]] = defaultdict(list)
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                first = getattr(node, "decorator_list", None) or [node]
                functions[first[0].lineno].append(node)
        return functions


def nested(code: CodeType) -> Iterator[CodeType]:
    """A code object and all code objects within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from nested(constant)


def _at_run_time(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in statements:
        if isinstance(statement, ast.If) and re.fullmatch(r"(\w+\.)?TYPE_CHECKING", ast.unparse(statement.test)):
            yield from _at_run_time(statement.orelse)
        else:
            yield statement


def _outside_functions(statement: ast.AST) -> Iterator[ast.AST]:
    yield statement
    if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
        for child in ast.iter_child_nodes(statement):
            yield from _outside_functions(child)


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a top-level statement assigns or changes."""
    for node in _outside_functions(statement):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
            for decorator in node.decorator_list:  # @handler.register: handler is made of this, too
                if isinstance(decorator, ast.Attribute) and isinstance(decorator.value, ast.Name):
                    yield decorator.value.id
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            yield from (name.id for name in ast.walk(node.value) if isinstance(name, ast.Name))
        elif isinstance(node, ast.Import | ast.ImportFrom) and node is not statement:  # under a condition
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)


def digest_of(nodes: Iterable[ast.AST]) -> str:
    """A digest of syntax trees, equal under every version of Python: names and fields that are not empty."""
    words: list[str] = []
    for node in nodes:
        _spell(node, words)
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()


def _spell(node: ast.AST, words: list[str]) -> None:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return  # a docstring, or a text that describes a constant
    words.append(type(node).__name__)
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or value == [] or name in ("ctx", "kind", "type_comment", "type_ignores"):
            continue
        words.append(f".{name}")
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                _spell(item, words)
            else:
                words.append(f"{type(item).__name__} {item!r}")
    if isinstance(node, ast.Constant) and node.value is None:
        words.append("None")
    words.append(";")


@lru_cache(maxsize=512)
def parsed(text: str, package: str) -> Source | None:
    """Parse a file; None for text that is no Python."""
    try:
        return Source(text, package)
    except (SyntaxError, ValueError):
        return None
