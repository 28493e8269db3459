"""Files of trunks as people have them: those of wrapped networks load; numbers that no trunk has, and other keys, are named."""

import pytest
import torch

from gencls.core import GenclsError
from gencls.perceptual import DISTS, LPIPS
from tests.perceptual.lpips_models import official
from tests.perceptual.test_lpips import TOLERANT, tolerant_weights

FIRST = "features.0.weight"
"""Of VGG-16 and of SqueezeNet."""


@pytest.fixture(scope="module")
def squeeze():
    return official("squeeze")[1]


@pytest.fixture(scope="module")
def vgg():
    return official("vgg")[1]


def changed(weights, name, make):
    return {**weights, name: make(weights[name].clone())}


ODD = {
    "NaN": (lambda tensor: tensor.index_fill(0, torch.tensor([0]), torch.nan), "of finite numbers; got NaN"),
    "Inf": (lambda tensor: tensor / 0, "of finite numbers; got (NaN|Inf)"),
    "too large for float32": (lambda tensor: tensor.double() + 1e300, "of finite numbers; got Inf"),
    "integers": (lambda tensor: tensor.long(), "of floating point numbers, got torch.int64"),
    "complex": (lambda tensor: tensor.to(torch.complex64), "as a dense tensor of ordinary numbers; got torch.complex64"),
    "meta": (lambda tensor: tensor.to("meta"), r"as a dense tensor of ordinary numbers; got shape .* without values"),
}


@pytest.mark.parametrize(("make", "message"), ODD.values(), ids=ODD)
def test_numbers_that_no_trunk_has(squeeze, make, message):
    with pytest.raises(GenclsError, match=f"LPIPS: the tensors that were given: expected {FIRST} {message}"):
        LPIPS(changed(squeeze, FIRST, make), "squeeze")


def test_nan_in_files_of_every_trunk(squeeze, vgg, tmp_path):
    nan = ODD["NaN"][0]
    file = tmp_path / "trunk.pth"
    for weights, name, make, owner in (
        (squeeze, FIRST, lambda: LPIPS(file, "squeeze"), "LPIPS"),
        (vgg, FIRST, lambda: LPIPS(file), "LPIPS"),
        (vgg, FIRST, lambda: DISTS(file), "DISTS"),
        (tolerant_weights(), "net.slice1.0.weight", lambda: LPIPS(file, TOLERANT), "LPIPS"),
        (tolerant_weights(), "lin2.model.1.weight", lambda: LPIPS(file, TOLERANT), "LPIPS"),
    ):
        torch.save(changed(weights, name, nan), file)
        with pytest.raises(
            GenclsError, match=f"{owner}: .*trunk.pth: expected {name.replace('features', '.*')} of finite numb"
        ):
            make()


def test_what_the_distance_does_not_use_may_be_anything(squeeze):
    images = torch.rand(2, 1, 3, 32, 32)
    more = squeeze | {"classifier.1.weight": torch.full((2,), torch.nan)}
    assert torch.equal(LPIPS(more, "squeeze")(*images), LPIPS(squeeze, "squeeze")(*images))


def test_learned_weights_are_not_negative():
    weights = changed(tolerant_weights(), "lin1.model.1.weight", lambda tensor: tensor - 2)
    with pytest.raises(GenclsError, match=r"given: expected lin1.model.1.weight >= 0, so that no distance is negative, got -"):
        LPIPS(weights, TOLERANT)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_of_torch_are_taken_off(squeeze, tmp_path, prefix):
    images = torch.rand(2, 1, 3, 32, 32)
    expected = LPIPS(squeeze, "squeeze")(*images)
    wrapped = {f"{prefix}{name}": tensor for name, tensor in squeeze.items()}
    assert torch.equal(LPIPS(wrapped, "squeeze")(*images), expected)
    torch.save({"state_dict": wrapped}, tmp_path / "trunk.pth")
    assert torch.equal(LPIPS(tmp_path / "trunk.pth", "squeeze")(*images), expected)


def test_other_keys_are_shown(vgg, tmp_path):
    """As `torchvision.models.vgg16().features.state_dict()` has them, and a network that learned under another name."""
    bare = {name.removeprefix("features."): tensor for name, tensor in vgg.items()}
    torch.save(bare, tmp_path / "features.pth")
    message = (
        f"expected {FIRST} of VGG-16, got none in .*; its keys are 0.weight, 0.bias, 2.weight, ...; take torchvision's file"
    )
    for make in (LPIPS, DISTS):
        with pytest.raises(GenclsError, match=message):
            make(tmp_path / "features.pth")
    with pytest.raises(GenclsError, match=r"got none in the tensors that were given; its keys are 0; take torchvision's file"):
        LPIPS({0: torch.ones(1)})
    with pytest.raises(GenclsError, match=r"got none in the tensors that were given; take torchvision's file"):
        LPIPS({})


def test_a_folder_is_no_file(tmp_path):
    for make in (LPIPS, DISTS):
        with pytest.raises(
            GenclsError, match=r"expected torchvision's file vgg16-.*, as .*, got a folder; name the file in it$"
        ):
            make(tmp_path)
