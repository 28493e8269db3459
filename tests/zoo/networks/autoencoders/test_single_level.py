"""An autoencoder as a model of one level: closed forms of mixing, its prior, and attacks through it as a purifier."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from gencls.core import TransformedClassifier, keyed, seeded
from gencls.defenses import MLVGMPurification, PlainClassifier
from gencls.eval import PGD, ThreatModel, evaluate, summarize
from gencls.zoo.networks import GenerativeAutoencoder, SingleLevel
from tests.zoo.networks.test_networks import with_statistics


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with seeded(0):
        yield


@pytest.fixture
def autoencoder() -> GenerativeAutoencoder:
    return with_statistics(GenerativeAutoencoder((1, 8, 8), code_size=4, widths=(6, 5)))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(600, 1, 8, 8)  # more than one part


def test_alpha_moves_the_code_from_the_mean_to_the_prior(autoencoder: GenerativeAutoencoder, images: Tensor) -> None:
    """Eq. 2 of the MLVGM paper: z = (1 - a) mean + a s, with the same draw s for every alpha."""
    model, images = SingleLevel(autoencoder), images[:3]
    with keyed(range(3)):
        drawn = torch.randn(3, 4)
    for alpha in (0.0, 0.25, 1.0):
        with keyed(range(3)):
            found = MLVGMPurification(model, [alpha])(images)
        expected = autoencoder.decode((1 - alpha) * autoencoder.encode(images) + alpha * drawn)
        torch.testing.assert_close(found, expected)


def test_sampled_codes_have_the_moments_of_the_codes_of_images(autoencoder: GenerativeAutoencoder, images: Tensor) -> None:
    codes = autoencoder.encode(images).detach()
    model = SingleLevel(autoencoder).with_prior_of(images)
    torch.testing.assert_close(model.prior_mean, codes.mean(0))
    torch.testing.assert_close(model.prior_deviation, codes.std(0))
    found: list[Tensor] = []
    model.decode_mixed((codes.repeat(20, 1),), lambda _, encoded, sampled: found.append(sampled) or sampled)  # type: ignore[func-returns-value]
    # 12,000 draws: five standard errors, 5 / sqrt(12,000) of the deviation
    torch.testing.assert_close(found[0].mean(0), codes.mean(0), rtol=0, atol=0.05 * float(codes.std(0).max()))
    torch.testing.assert_close(found[0].std(0), codes.std(0), rtol=0.05, atol=0)


def test_its_prior_is_part_of_its_state_and_of_its_type(autoencoder: GenerativeAutoencoder, images: Tensor) -> None:
    fitted, plain = SingleLevel(autoencoder).with_prior_of(images), SingleLevel(autoencoder)
    assert fitted.autoencoder is plain.autoencoder
    assert not fitted.training
    plain.load_state_dict(fitted.state_dict())
    assert torch.equal(plain.prior_deviation, fitted.prior_deviation)
    assert plain.double().prior_mean.dtype == torch.float64


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_the_ordinary_suite_attacks_a_classifier_behind_it(autoencoder: GenerativeAutoencoder, alpha: float) -> None:
    images, purification = torch.rand(12, 1, 8, 8), MLVGMPurification(SingleLevel(autoencoder), [alpha])
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))  # whose boundaries cross in the mean picture
    with torch.no_grad():
        classifier[1].bias.copy_(-classifier[1].weight @ autoencoder(images).mean(0).flatten())
    defense = TransformedClassifier(purification, PlainClassifier(classifier, 4), 4).eval()
    assert defense.stochastic == (alpha > 0)
    labels = torch.stack([defense(images).argmax(1) for _ in range(9)]).mode(0).values
    attacks = {f"{size:g}": PGD(ThreatModel("linf", size), steps=10) for size in (1e-4, 0.5)}
    found = evaluate(defense, attacks, [(images, labels)], eot_samples=1 if alpha == 0 else 4, judge_draws=9)
    right = summarize(found.records).set_index("attack")["robust_accuracy"]
    assert right["0.0001"] > right["0.5"]
