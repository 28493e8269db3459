"""Where the recipe of GAN inversion looks for the files of distances."""

import pytest
import torch

from gencls.core import GenclsError
from recipes.gan_inversion import distances
from recipes.gan_inversion.settings import PROFILES

PROFILE = PROFILES["imagenette"]


def test_files_of_others_are_looked_for_in_the_users_folder_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vgg16.pth").touch()
    for name in ("lpips", "plain"):
        assert not distances.is_here(PROFILE, name, None)
        assert distances.is_here(PROFILE, name, tmp_path)
        with pytest.raises(GenclsError, match=f"{name}: expected --weights FOLDER with vgg16.pth or vgg16-397923af.pth"):
            distances.make(PROFILE, name, None, 1)
    with pytest.raises(GenclsError, match="linf: expected --weights FOLDER with robust-linf-cifar10.pt, got no folder"):
        distances.make(PROFILES["cifar10"], "linf", None, 1)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("lpips", "vgg16.pth"),
        ("plain", "vgg16-397923af.pth"),
        ("st-lpips", "alex_shift_tolerant.pth"),
        ("st-lpips", "alex_shift_tolerant_fp16.pth"),
        ("e-plain", "vgg16-397923af.pth"),
    ],
)
def test_a_trunk_may_have_one_of_two_names(name, file, tmp_path):
    with pytest.raises(GenclsError, match="expected torchvision's file vgg16-397923af.pth, .*as .*vgg16.pth, got no such file"):
        distances.make(PROFILE, "lpips", tmp_path, 1)
    (tmp_path / file).touch()
    assert distances.weights_of(PROFILE, name, tmp_path) == tmp_path / file
    assert distances.is_here(PROFILE, name, tmp_path)


def test_distances_without_files_of_others(tmp_path):
    profile = PROFILES["smoke"]
    assert distances.weights_of(profile, "pixels", None) is None
    assert distances.make(profile, "pixels", None, 1) is None
    assert distances.is_here(profile, "plain", None)


@pytest.mark.parametrize("distance", PROFILES["smoke"].features)
def test_channels_of_feature_distances_are_normalised(distance):
    """As the thesis does on CIFAR10 (end of section 3.3): each channel has the mean square 1, or 0 if it is dead."""
    for part in distances.make(PROFILES["smoke"], distance, None, 1).embed(torch.rand(2, 1, 28, 28)):
        powers = part.square().mean((-2, -1))
        alive = powers[powers > 0]
        assert alive.numel() > powers.numel() / 2
        torch.testing.assert_close(alive, torch.ones_like(alive), rtol=1e-4, atol=0)  # sums of up to 784 squares in float32
