import warnings

import pytest
import torch
from torch import nn

from gencls.core import GenclsError, seeded
from gencls.eval.measures.fid import Penultimate, frechet_distance, kernel_distance

FLAT = nn.Flatten().eval()


@pytest.fixture
def sets():
    """Features with known means and covariances: samples of Gaussians, made exact by a linear map."""
    return whitened(600), whitened(500)


def whitened(count):
    """Points (count, 3) with mean 0 and covariance 1, exactly."""
    points = torch.randn(count, 3, dtype=torch.float64)
    points = points - points.mean(0)
    return points @ torch.linalg.inv(torch.linalg.cholesky(points.T.cov())).T


def test_frechet_distance_of_gaussians_in_closed_form(sets):
    """Covariances A and B commute if both are functions of one matrix: the trace is that of (A^1/2 - B^1/2)^2."""
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    first, second = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([2.0, 0.5, 1.0]).double()
    means = torch.tensor([[0.0, 1.0, 2.0], [3.0, 1.0, -2.0]]).double()
    real, made = sets[0] * first @ turn.T + means[0], sets[1] * second @ turn.T + means[1]
    expected = (means[0] - means[1]).square().sum() + (first - second).square().sum()
    assert frechet_distance(FLAT, real, made) == pytest.approx(float(expected), rel=1e-6)


def test_frechet_distance_of_covariances_that_do_not_commute(sets):
    """The trace of the root of AB by the eigenvalues of the symmetric A^1/2 B A^1/2."""
    maps = torch.randn(2, 3, 3, dtype=torch.float64)
    real, made = sets[0] @ maps[0].T, sets[1] @ maps[1].T
    first, second = maps[0] @ maps[0].T, maps[1] @ maps[1].T
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.sqrt() @ vectors.T
    expected = first.trace() + second.trace() - 2 * torch.linalg.eigvalsh(root @ second @ root).sqrt().sum()
    assert frechet_distance(FLAT, real, made) == pytest.approx(float(expected), rel=1e-6)


def test_frechet_distance_of_a_set_to_itself(sets):
    assert frechet_distance(FLAT, sets[0], sets[0]) == pytest.approx(0.0, abs=1e-6)


@pytest.fixture
def images():
    return torch.rand(230, 3, 8, 8), torch.rand(210, 3, 8, 8) ** 2


@pytest.fixture
def features():
    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def by_torchmetrics(kind, features, images, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.image import fid, kid

        made = {"fid": fid.FrechetInceptionDistance, "kid": kid.KernelInceptionDistance}[kind]
        metric = made(feature=features, normalize=True, **settings)
    with torch.no_grad():
        for one, real in zip(images, (True, False), strict=True):
            for image in one.split(70):
                metric.update(image, real=real)
    return metric


def test_equals_torchmetrics(images, features):
    expected = by_torchmetrics("fid", features, images, input_img_size=(3, 8, 8)).compute()
    assert frechet_distance(features, *images) == pytest.approx(float(expected), rel=1e-3)
    settings = {"subsets": 7, "subset_size": 100}
    with seeded(3):
        expected = [float(value) for value in by_torchmetrics("kid", features, images, **settings).compute()]
    with seeded(3):
        assert kernel_distance(features, *images, **settings) == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_kernel_distance_of_whole_sets_by_hand():
    """One subset with all images: the unbiased mean of k over pairs, without each with itself."""
    real, made = torch.randn(2, 20, 3, dtype=torch.float64)
    mean, deviation = kernel_distance(FLAT, real, made, subsets=1, subset_size=20)

    def kernel(first, second):
        return (first @ second.T / 3 + 1) ** 3

    within = sum(kernel(one, one).sum() - kernel(one, one).trace() for one in (real, made)) / (20 * 19)
    assert mean == pytest.approx(float(within - 2 * kernel(real, made).mean()), rel=1e-6)
    assert deviation == 0.0


def test_features_keep_the_mode_and_the_random_numbers(images, features):
    state = torch.get_rng_state()
    frechet_distance(features, *images)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(parameter.grad is not None for parameter in features.parameters())


@pytest.mark.parametrize(
    ("measure", "settings", "count", "message"),
    [
        (frechet_distance, {}, 1, r"frechet_distance: expected at least 2 images \(N, C, H, W\) as made, got \(1, 3, 8, 8\)"),
        (kernel_distance, {}, 210, "kernel_distance: expected at least 1000 images .* as real, got"),
        (kernel_distance, {"subset_size": 220}, 210, "expected at least 220 images .* as made, got"),
        (kernel_distance, {"subset_size": 1}, 210, "expected subsets >= 1 and subset_size >= 2, got 100 and 1"),
        (kernel_distance, {"subsets": 0}, 210, "expected subsets >= 1"),
    ],
)
def test_too_few(images, features, measure, settings, count, message):
    with pytest.raises(GenclsError, match=message):
        measure(features, images[0], images[1][:count], **settings)


class Part(nn.Module):
    """Some of the features (N, d)."""

    def __init__(self, columns):
        super().__init__()
        self.columns = columns

    def forward(self, features):
        return features[:, self.columns]


def test_wrong_features(images, features):
    with pytest.raises(GenclsError, match=r"expected features \(N, d\), got shape \(100, 6, 3, 3\); average or flatten"):
        frechet_distance(features[0], *images)
    with pytest.raises(GenclsError, match="expected finite features"):
        frechet_distance(FLAT, images[0].flatten(1) / 0, images[1].flatten(1))
    with pytest.raises(GenclsError, match="expected a network of features in eval mode"):
        frechet_distance(nn.Sequential(nn.BatchNorm2d(3), nn.Flatten()), *images)
    with pytest.raises(GenclsError, match=r"frechet_distance: expected Flatten to take .*, got TypeError: "):
        frechet_distance(nn.Flatten("one").eval(), *images)
    with pytest.raises(GenclsError, match=r"expected real features \(230, d\), d >= 1, got torch.float32 of shape \(230, 0\)"):
        frechet_distance(nn.Sequential(nn.Flatten(), Part(slice(0))).eval(), *images)
    with pytest.raises(GenclsError, match="expected as many features of real as of made, got 192 and 96"):
        frechet_distance(FLAT, images[0], images[1][..., :4])


WRONG = {
    "0 to 255": (lambda images: images * 255, r"expected values in \[0, 1\], got values in .*, 25\d"),
    "uint8": (lambda images: (images * 255).byte(), "got torch.uint8; divide uint8 images by 255"),
    "-1 to 1": (lambda images: 2 * images - 1, r"expected values in \[0, 1\], got values in \[-"),
    "NaN": (
        lambda images: images.index_fill(3, torch.tensor([0]), torch.nan),
        "expected finite values, got .* NaN or infinite",
    ),
    "grey without channels": (lambda images: images[:, 0], "expected shape .N, C, H, W., got rank 3"),
    "complex": (lambda images: images.to(torch.complex64), "got torch.complex64"),
    "sparse": (lambda images: images.to_sparse(), "expected a dense tensor"),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch: sparse tensors are in beta
def test_wrong_images(images, features, make, message):
    few = [one[:20] for one in images]
    for measure, settings in ((frechet_distance, {}), (kernel_distance, {"subset_size": 10})):
        owner = measure.__name__
        with pytest.raises(GenclsError, match=f"^{owner}: real: .*{message}"):
            measure(features, make(few[0]), few[1], **settings)
        with pytest.raises(GenclsError, match=f"^{owner}: made: .*{message}"):
            measure(features, few[0], make(few[1]), **settings)
    network = nn.Sequential(features, nn.Linear(6, 2)).eval()
    with pytest.raises(GenclsError, match=f"^Penultimate.describe: .*{message}"):
        Penultimate(network).describe(make(few[0]))


def test_features_that_are_known_already(images, features):
    described = [100 * features(one) - 3 for one in images]
    network = nn.Sequential(features, Shifted()).eval()
    assert frechet_distance(nn.Identity().eval(), *described) == pytest.approx(frechet_distance(network, *images), rel=1e-4)


class Shifted(nn.Module):
    """Numbers outside of [0, 1]."""

    def forward(self, described):
        return 100 * described - 3


def test_the_features_before_the_last_layer():
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 7), nn.ReLU(), nn.Linear(7, 10)).eval()
    images, features = torch.rand(205, 3, 8, 8), Penultimate(network)
    torch.testing.assert_close(features(images), network[:5](images))
    torch.testing.assert_close(features.describe(images), network[:5](images).detach())
    assert features.num_features == 7
    assert not features.training
    assert not network[5]._forward_pre_hooks
    network.train()
    moving = Penultimate(nn.Sequential(nn.BatchNorm2d(3), *network))
    with pytest.raises(GenclsError, match=r"Penultimate.describe: expected a network of features in eval mode"):
        moving.describe(images)
    with pytest.raises(GenclsError, match="expected a network with a linear layer, got Flatten without any"):
        Penultimate(nn.Flatten())
    unused = nn.Identity()
    unused.head = nn.Linear(2, 2)
    with pytest.raises(GenclsError, match="expected Identity to use its last linear layer, but it does not"):
        Penultimate(unused)(images)
