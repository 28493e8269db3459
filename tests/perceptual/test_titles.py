import pytest
from torch import nn

from gencls.core import GenclsError
from gencls.perceptual import ELPIPS, LPIPS, SSIM, Combined, FeatureDistance, SquaredL2, title_of
from tests.perceptual.lpips_models import official


def test_a_title_has_the_network_behind_the_distance():
    features = FeatureDistance(nn.Conv2d(1, 2, 3))
    assert title_of(features) == "features of Conv2d"
    assert title_of(ELPIPS(features)) == "E-LPIPS over features of Conv2d"
    assert title_of(Combined(SquaredL2(), ELPIPS(SSIM()), 10.0)) == "SquaredL2 + 10 x E-LPIPS over SSIM"


@pytest.mark.parametrize(("learned", "title"), [(True, "LPIPS (SqueezeNet 1.1)"), (False, "features of SqueezeNet 1.1")])
def test_lpips_has_its_trunk(learned, title):
    assert title_of(ELPIPS(LPIPS(official("squeeze")[1], "squeeze", lpips=learned))) == f"E-LPIPS over {title}"


def test_a_word_is_no_distance():
    with pytest.raises(GenclsError, match="title_of: expected distance to be an ImageDistance, got 'lpips'"):
        title_of("lpips")
