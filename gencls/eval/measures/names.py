"""Names of defenses and attacks: checked before anything is computed, then made fit for files, figures and tables."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from gencls.core import GenclsError

WORST_CASE = "worst case"
"""In the column ``attack``: per sample the most damaging of all attacks and gradient modes."""

_LONGEST = 1000
_IN_FILE_NAMES = 45
"""Characters of a name in the name of a file: four of them stay below 255 bytes."""

_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
"""The invisible characters that scripts and emoji need."""

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""What Windows has for something else, with any ending."""


def check_names(names: Iterable[Any], what: str, *, about: Mapping[str, Any] | None = None) -> None:
    """Check what defenses and attacks are called, and what is said of a study.

    Args:
        names: expected: words that can be printed on one line, at most 1000 characters, without a semicolon, which stands
            between warnings. Different ones must look different.
        what: they belong to, for the message.
        about: text or numbers by name.

    Raises:
        GenclsError: for other names, or for an attack the name of the worst case; if something else is said.
    """
    for key, value in (about or {}).items():
        if not isinstance(key, str) or not isinstance(value, str | int | float):
            raise GenclsError(f"{what}: expected about to be text by name, got {key!a}: {type(value).__name__}")
    seen: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or name != name.strip() or not _printable(name) or ";" in name:
            raise GenclsError(f"{what}: expected a printable name without a semicolon or spaces around it, got {name!a}")
        if len(name) > _LONGEST:
            raise GenclsError(f"{what}: expected names of at most {_LONGEST} characters, got {len(name)}: {name[:40]!a}...")
        if name == WORST_CASE:
            raise GenclsError(f"{what}: expected another name than {WORST_CASE!r}, which tables have for the worst of all")
        if seen.setdefault(_look(name), name) != name:
            raise GenclsError(f"{what}: expected names that look different, got {seen[_look(name)]!a} and {name!a}")


def check_meaning(said: str, what: str) -> None:
    """Check what a glossary is to say of a name.

    Raises:
        GenclsError: for no words, more than 1000 characters, or some that cannot be printed on one line.
    """
    if not said.strip() or not _printable(said) or len(said) > _LONGEST:
        got = f"{len(said)} characters: {said[:40]!a}"
        raise GenclsError(f"{what}: expected a printable meaning of at most {_LONGEST} characters on one line, got {got}")


def file_name(*names: str) -> str:
    """A stem of a file name that any file system takes.

    It is made of letters a-z, digits and ``.-_``. A name that says more than it can, or too much, is shortened and followed by
    a digest of itself, so that different names have different files. Hyphens join several; empty ones are left out.
    """
    return "-".join(_part(name) for name in names if name)


def shortened(name: str, most: int) -> str:
    """A name of at most so many characters (at least 16): without its middle, but with a digest, if it is longer."""
    if len(name) <= most:
        return name
    left = most - 8
    return f"{name[: left - left // 3]}…{name[len(name) - left // 3 :]} ‹{_digest(name, 4)}›"


def isolated(name: str) -> str:
    """A name between isolates if it is written from right to left, so that the words around it keep their order."""
    backwards = any(unicodedata.bidirectional(character) in ("R", "AL") for character in name)
    return f"\N{FIRST STRONG ISOLATE}{name}\N{POP DIRECTIONAL ISOLATE}" if backwards else name


def _part(name: str) -> str:
    kept = re.sub(r"[^a-z0-9._]+", "-", name.lower())[:_IN_FILE_NAMES].strip("-.")
    if _RESERVED.fullmatch(kept):
        kept = kept.replace(".", "-")
    elif kept == name:
        return name
    return f"{kept}-{_digest(name, 6)}".lstrip("-")


def _digest(name: str, length: int) -> str:
    return sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def _printable(name: str) -> bool:
    bare = name.translate(dict.fromkeys(map(ord, _JOINERS)))
    return bool(bare) and bare.isprintable()


def _look(name: str) -> str:
    visible = (
        c
        for c in unicodedata.normalize("NFC", name)
        if c not in _JOINERS and "VARIATION SELECTOR" not in unicodedata.name(c, "")
    )
    return re.sub(" +", " ", "".join(visible))
