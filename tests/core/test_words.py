import pytest

from gencls.core.words import counted, with_article


@pytest.mark.parametrize(
    "noun",
    [
        "an Elimination",
        "an ImageDistance",
        "an int",
        "an OrderedDict",
        "an Unrolled",
        "an attack",
        "an SSIM",
        "an LPIPS",
        "an NVAE",
    ],
)
def test_nouns_that_are_spoken_with_a_vowel(noun):
    assert with_article(noun.removeprefix("an ")) == noun


@pytest.mark.parametrize("noun", ["a Module", "a list", "a GAN", "a CNN", "a UNet", "a Uniform", "a _Hidden", "a "])
def test_other_nouns(noun):
    assert with_article(noun.removeprefix("a ")) == noun


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [
        (1, "channel", "1 channel"),
        (0, "channel", "0 channels"),
        (3, "channel", "3 channels"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (2, "epoch", "2 epochs"),
        (2, "batch", "2 batches"),
    ],
)
def test_numbers_of_things(number, noun, said):
    assert counted(number, noun) == said
