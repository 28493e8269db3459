"""Names of defenses and attacks: checked before any computation, then made fit for files, figures and tables."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from gencls.core import GenclsError

WORST_CASE = "worst case"
"""The name in the column ``attack`` for the most damaging of all attacks and gradient modes, sample by sample."""

_LONGEST = 1000
_IN_FILE_NAMES = 45
"""The most characters of one name in a file's name: four names then stay below 255 bytes."""

_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
"""Invisible characters that scripts and emoji need."""

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""Names that Windows reserves, with any ending."""


def check_names(names: Iterable[Any], what: str, *, about: Mapping[str, Any] | None = None) -> None:
    """Check the names of defenses or attacks, and the facts about a study.

    Args:
        names: printable words on one line, of at most 1000 characters, without a semicolon, since that separates warnings.
            Different names must look different.
        what: the owner of the names, for the message.
        about: facts about the study, text or numbers by name.

    Raises:
        GenclsError: a name is none of these or is that of the worst case, or a fact is neither text nor a number.
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
    """Make of names the stem of a file name that any file system takes.

    It consists of letters a-z, digits and ``.-_``. A name with other characters or too many is shortened and followed by a
    digest of itself, so that different names have different files. Hyphens join several names; empty names are left out.
    """
    return "-".join(_part(name) for name in names if name)


def shortened(name: str, most: int) -> str:
    """Shorten a name to at most ``most`` characters (at least 16): drop its middle and add a digest, if it is longer."""
    if len(name) <= most:
        return name
    left = most - 8
    return f"{name[: left - left // 3]}…{name[len(name) - left // 3 :]} ‹{_digest(name, 4)}›"


def isolated(name: str) -> str:
    """Put a name between isolates if it is written from right to left, so that the words around it keep their order."""
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
