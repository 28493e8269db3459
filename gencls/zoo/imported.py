"""Objects that a user names as ``package.module:attribute``: a defense, or data."""

import importlib
import reprlib
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from gencls.core.errors import GenclsError


def imported(spec: str, fits: Callable[[object], bool], what: str) -> object:
    """Import ``package.module:attribute``; call it without arguments if it is a function or a class.

    The current folder is searched too, last, so that a user's own eval.py or zoo.py hides no library. Any error in the user's
    code, ``sys.exit`` included, becomes one error with its message; ``what`` names the object in it.

    Returns:
        The attribute, or what it returned, if it fits.

    Raises:
        GenclsError: for another form, a module that cannot be imported or has no such attribute, a function that cannot be
            called without arguments or raises, or an object that does not fit.
    """
    name, _, attribute = spec.partition(":")
    if not all(part.isidentifier() for part in (*name.split("."), attribute)):
        raise GenclsError(f"{spec}: expected package.module:attribute, such as mymodels.small:build")
    with suppress(OSError):  # the current folder may have been removed
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise GenclsError(f"{spec}: expected package.module:attribute; got: {error}") from error
        _fail(spec, f"a module {name} that can be imported", error)
    try:
        found: object = getattr(module, attribute)
    except AttributeError as error:
        raise GenclsError(f"{spec}: expected package.module:attribute; got: {error}") from error
    if not fits(found) and callable(found):
        try:
            found = found()
        except (Exception, SystemExit) as error:
            _fail(spec, f"{what} or a function without arguments that returns one", error)
    if not fits(found):
        raise GenclsError(f"{spec}: expected {what} or a function that returns one; got {reprlib.repr(found)}")
    return found


def _fail(spec: str, expected: str, error: BaseException) -> NoReturn:
    told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    raise GenclsError(f"{spec}: expected {expected}; got {told}") from error
