"""How gencls reads command lines: it drops nothing that the user said, and guesses at nothing."""

import argparse
import os
import reprlib
import sys
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["Parser", "check_out", "count", "dry_run_flag", "reader", "size"]

_MOST = 10**7
"""Counts end here. A larger one would hardly finish, and some attacks keep a number for each unit of a count."""


class _Once(argparse.Action):
    """Stores a value, as argparse does, and refuses the same flag a second time."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None) -> None:
        if option_string is not None and isinstance(parser, Parser):
            if self.dest in parser.given:
                parser.error(f"argument {option_string}: expected once, got it twice")
            parser.given.add(self.dest)
            if values == [] and self.nargs in (None, "+"):  # what argparse makes of "--data=--"
                parser.error(f"argument {option_string}: expected a value, got '--'")
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """A parser that takes flags by their full names only, and each once unless its action is "extend".

    Attributes:
        given: the flags with a value that the present command line has named so far.
    """

    def __init__(self, **settings: Any) -> None:
        """Take the settings of argparse's parser."""
        super().__init__(**{"allow_abbrev": False, **settings})
        self.given: set[str] = set()
        self._words: list[str] = []
        for name in (None, "store"):
            self.register("action", name, _Once)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse one command line as argparse does. The parser that knows the flags refuses unknown ones here."""
        self.given, self._words = set(), sys.argv[1:] if args is None else list(args)
        found, unknown = super().parse_known_args(self._words, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Exit with code 2, as argparse does, after the message and a guess at the flags that were meant."""
        from gencls.core.names import did_you_mean

        flags = [word.partition("=")[0] for word in self._words if word.startswith("--")]
        hints = [did_you_mean(flag, self._option_string_actions) for flag in flags if flag not in self._option_string_actions]
        super().error("; ".join([message, *(hint.strip() for hint in hints if hint)]))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            from gencls.core.names import did_you_mean

            known = [str(choice) for choice in action.choices]
            hint = did_you_mean(str(value), known)
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}; {hint}choose from {', '.join(known)}")


def size(text: str) -> float:
    """Read the radius of a ball: a number, or a fraction such as 8/255."""
    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"expected a number or a fraction such as 8/255, got {text!r}") from None


def count(text: str) -> int:
    """Read a number of steps, draws or images. Whoever counts with it decides whether 0 or less is allowed."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None
    if number > _MOST:
        raise argparse.ArgumentTypeError(f"expected at most {_MOST:,}, got {text}")
    return number


def dry_run_flag(parser: argparse.ArgumentParser) -> None:
    """Give a command the flag ``--dry-run``."""
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, print what it would cost, compute and write nothing"
    )


def reader(text: str | None) -> Parser:
    """The parser of a recipe: the recipe's docstring is its help, and it has the flags ``--seed`` and ``--dry-run``."""
    made = Parser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seed", type=int, default=0, help="of the subset and of all random streams (default 0)")
    dry_run_flag(made)
    return made


def check_out(path: Path, *, file: bool = False) -> None:
    """Refuse an output path before any work.

    Args:
        path: the folder, or with ``file`` the file, that the work will write.
        file: whether the path is that of a file.

    Raises:
        GenclsError: if a file stands in place of the folder or a folder in place of the file, if the path leads through a file,
            or if it cannot be written to.
    """
    from gencls.core.errors import GenclsError

    if "\0" in str(path):
        raise GenclsError(f"--out: expected a path without NUL, got {str(path)!r}")
    try:
        there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    except OSError as error:
        shown = reprlib.repr(str(path))
        raise GenclsError(f"--out: expected a path that this file system takes, got {shown}: {error.strerror}") from None
    if there == path.absolute() and there.is_dir() == file:
        wanted, got = ("the path of a file", "a folder") if file else ("a folder", "a file")
        raise GenclsError(f"--out: expected {wanted}, got {path}, which is {got}")
    if there != path.absolute() and not there.is_dir():
        raise GenclsError(f"--out: expected a path that can be made, got {path}, where {there} is a file")
    if not os.access(there, os.W_OK):
        raise GenclsError(f"--out: expected a path that can be written, got {path}, where {there} is not for you to write")
