"""What the recipe of GAN inversion demands before it computes anything."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gencls.core import GenclsError
from gencls.zoo import ImageData
from gencls.zoo.networks import BigGAN
from recipes.gan_inversion import experiments
from recipes.gan_inversion.__main__ import recipe
from recipes.gan_inversion.runs import Run
from recipes.gan_inversion.settings import BUDGETS, PROFILES
from tests.bad_inversions import recipe_of_few_classes

DOCS = Path(__file__).parents[2] / "docs" / "reproduction" / "gan-inversion.md"


def test_a_generator_of_other_classes_than_the_data_has(tmp_path):
    run = recipe_of_few_classes(tmp_path)
    message = r"cgan-mnist.safetensors: expected a generator of 10 classes, as mnist-embedded has, got one of 5"
    with pytest.raises(GenclsError, match=message):
        recipe.main(run, ["3.1"])
    assert not run.out.exists()
    replace(run, weights=None).require(["3.1"])  # the committed one fits


class Bare(Run):
    """Without the perceptual distance, whose network would be large."""

    def percept(self, distance):
        return None


@pytest.fixture(scope="module")
def imagenette(tmp_path_factory):
    """The profile of Imagenette with a tiny BigGAN in the published layout, and no encoders."""
    folder = tmp_path_factory.mktemp("weights")
    network = BigGAN(size=128, width=2, num_classes=1000, attention=())
    torch.save(network.state_dict(), folder / "G_ema.pth")
    (folder / "vgg16.pth").touch()
    names = tuple(map(str, range(10)))
    data = ImageData("imagenette", "val", torch.rand(2, 3, 128, 128), torch.tensor([0, 1]), names, torch.arange(2))
    return Bare(profile=PROFILES["imagenette"], budget=BUDGETS["smoke"], out=folder / "run", data=data, weights=folder)


def test_examples_of_imagenette_need_no_encoder(imagenette):
    run = replace(imagenette, methods=("direct",))
    assert experiments.shown(run) == []
    assert run.encoded(["3.7", "examples"]) == ()
    run.require(["3.7", "examples"])
    assert replace(run, profile=PROFILES["smoke"]).encoded(["3.1", "examples"]) == ("enc-d",)


def test_the_command_of_the_documentation_needs_no_encoders(imagenette):
    found = re.search(
        r"Without encoders for BigGAN, `--parts (\S+) --methods (\S+)` gives Table 3.7's first row", DOCS.read_text()
    )
    assert found
    parts, run = [found[1]], replace(imagenette, methods=(found[2],))
    run.check(parts)
    run.require(parts)
    assert [one.method for one in experiments.imagenette(run)] == ["direct"]
    with pytest.raises(GenclsError, match="expected the weights of enc-imagenette, got no such files"):
        run.require(recipe.usual(run))  # Table 3.8 is Enc's
