import pytest
import torch
from torch import nn

import gencls.perceptual
from gencls.core import GenclsError, ImageDistance, fingerprint
from gencls.perceptual import DISTS, ELPIPS, L1, L2, LPIPS, MSSSIM, SSIM, Combined, FeatureDistance, Linf, SquaredL2
from tests.contracts.tables import check_rows, public_classes
from tests.perceptual.lpips_models import official


def features(**settings):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 2, 2), nn.BatchNorm2d(2)).double()
    return FeatureDistance(network, ("1", "3"), **settings)


def lpips(**settings):
    return LPIPS(official("squeeze")[1], "squeeze", size=17, **settings).double()


DISTANCES = {
    "L1": L1,
    "L2": L2,
    "Linf": Linf,
    "SquaredL2": SquaredL2,
    "FeatureDistance": features,
    "FeatureDistance, not normalised": lambda: features(normalize=False),
    "LPIPS": lpips,
    "LPIPS, without learned weights": lambda: lpips(lpips=False),
    "DISTS": lambda: DISTS(official("vgg")[1]).double(),
    "ELPIPS": lambda: ELPIPS(features(), samples=2),
    "SSIM": lambda: SSIM(sigma=0.5),
    "MSSSIM": lambda: MSSSIM(betas=(1.0,), sigma=0.2),
    "Combined": lambda: Combined(SquaredL2(), features(), 0.5),
}


@pytest.fixture(params=DISTANCES)
def distance(request):
    return DISTANCES[request.param]().eval()


@pytest.fixture
def pair():
    return torch.rand(2, 4, 3, 6, 5, dtype=torch.float64)


@pytest.mark.parametrize("name", public_classes(gencls.perceptual, ImageDistance))
def test_every_distance_is_in_the_table(name):
    where = "DISTANCES in tests/contracts/test_distances.py"
    check_rows([name], DISTANCES, where=where, row='"{name}": {name}, what makes one')


def test_shape_and_sign(distance, pair):
    found = distance(*pair)
    assert found.shape == (4,)
    assert (found > 0).all()


def test_an_image_is_at_distance_zero_from_itself(distance, pair):
    assert torch.equal(distance(pair[0], pair[0]), torch.zeros(4, dtype=torch.float64))


def test_symmetric(distance, pair):
    torch.testing.assert_close(distance(pair[0], pair[1]), distance(pair[1], pair[0]), rtol=1e-12, atol=0)


def test_leading_dimensions_that_do_not_broadcast_are_refused(distance, pair):
    first, second = distance.embed(pair[0]), tuple(part[:2] for part in distance.embed(pair[1]))
    with pytest.raises(
        GenclsError, match=r": expected (images|maps) whose leading dimensions broadcast, .*, got \(4, .* \(2, "
    ):
        distance.compare(first, second)


def test_gradients_in_both_images(distance, pair):
    first, second = (images[:1, :, :3, :3].clone().requires_grad_() for images in pair)
    large = sum(parameter.numel() for parameter in distance.parameters()) > 100_000
    assert torch.autograd.gradcheck(distance, (first, second), fast_mode=large)


def test_embed_then_compare_is_forward(distance, pair):
    assert torch.equal(distance.compare(distance.embed(pair[0]), distance.embed(pair[1])), distance(*pair))


def test_leading_dimensions_broadcast(distance, pair):
    first, second = distance.embed(pair[0]), distance.embed(torch.rand(4 * 3, 3, 6, 5, dtype=torch.float64))
    others = tuple(part.view(4, 3, *part.shape[1:]) for part in second)
    found = distance.compare(tuple(part.unsqueeze(1) for part in first), others)
    each = [distance.compare(first, tuple(part[:, k] for part in others)) for k in range(3)]
    torch.testing.assert_close(found, torch.stack(each, dim=1), rtol=1e-12, atol=0)
    assert distance.compare(tuple(part[0] for part in first), others).shape == (4, 3)


def test_each_image_and_others_of_its_own(distance, pair):
    others = torch.rand(4, 3, 3, 6, 5, dtype=torch.float64)
    expected = torch.stack([distance(pair[0], others[:, k]) for k in range(3)], dim=1)
    torch.testing.assert_close(distance.to_each(pair[0], others), expected, rtol=1e-12, atol=0)


def test_pairs_do_not_depend_on_their_batch(distance, pair):
    together = distance(*pair)
    for i in range(4):
        torch.testing.assert_close(distance(pair[0][i : i + 1], pair[1][i : i + 1])[0], together[i])


def test_nothing_to_learn_and_nothing_to_switch(distance):
    assert not any(parameter.requires_grad for parameter in distance.parameters())
    assert not any(part.training for part in distance.modules())


def test_images_and_distance_stay_as_they_are(distance, pair):
    before, key = pair.clone(), fingerprint(distance)
    distance(*pair)
    assert torch.equal(pair, before)
    assert fingerprint(distance) == key
