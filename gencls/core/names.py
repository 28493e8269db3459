"""Finds out which known name a mistyped one was meant to be."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["did_you_mean"]

_CLOSE = 0.7
"""The share of equal letters above which a known name may be the one that was meant."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The beginning of an error's list of names: "did you mean 'pgd-linf'? ", or nothing where no known name is close.

    Args:
        name: the unknown name.
        known: all known names.
    """
    words = {_plain(word): word for word in known}
    close = get_close_matches(_plain(name), words, n=1, cutoff=_CLOSE)
    return f"did you mean {words[close[0]]!r}? " if close else ""


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
