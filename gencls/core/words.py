"""Words of messages: a noun with its article, a number with its noun."""

import re

__all__ = ["counted", "with_article"]

_SPELLED_WITH_A_VOWEL = "AEFHILMNORSX"
"""Letters whose names begin with a vowel: "an SSIM"."""


def with_article(noun: str) -> str:
    """A noun, often the name of a class, behind "a" or "an", as it is spoken: "an Elimination", "a UNet", "an LPIPS"."""
    word = noun.lstrip("_")
    if re.match(r"[A-Z]([A-Z]|$)", word):  # an abbreviation, whose letters are spoken
        vowel = word[0] in _SPELLED_WITH_A_VOWEL
    else:  # "a uniform", "a user", "a eulogy" begin with the sound of "you"
        vowel = re.match(r"(?!uni[^n]|us|eu)[aeiou]", word.lower()) is not None
    return f"{'an' if vowel else 'a'} {noun}"


def counted(number: int, noun: str) -> str:
    """A number of things: "1 cell", "2 cells", "2 classes", "2 batches"; "2 epochs", whose ch is a k."""
    plural = f"{noun}es" if re.search("(s|x|sh|[^o]ch)$", noun) else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"
