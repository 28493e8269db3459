"""Training of generative autoencoders: the loss is the evidence lower bound, every kind learns, cards tell the truth."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from gencls.core import GenclsError, seeded
from gencls.zoo import ImageData, load_data
from gencls.zoo.checkpoints.cards import read_card
from gencls.zoo.networks import MMD, Adversarial, CodeRegularizer, GenerativeAutoencoder, KLDivergence, ShapiroWilk
from gencls.zoo.trained import trained_network
from gencls.zoo.training import PRESETS, train
from gencls.zoo.training.base import Moment
from gencls.zoo.training.methods.autoencoder import AutoencoderPreset, AutoencoderTraining
from gencls.zoo.training.methods.latent_adversarial import LatentAdversary
from gencls.zoo.training.views.perturbations import Plain
from tests.trainings import logged, resumed
from tests.zoo.networks.test_networks import with_statistics

TINY: dict[str, Any] = {"data": "mnist-embedded", "limit": 48, "measured": 20, "progress": False}
KINDS = [
    name.removesuffix("-mnist") for name, made in PRESETS.items() if isinstance(made, AutoencoderPreset) and "mnist" in name
]


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with seeded(0):
        yield


@pytest.fixture
def fewer_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure a few digits."""
    whole = AutoencoderPreset.measure

    def measure(self: Any, network: Any, tests: Any, *, few: int) -> dict[str, float]:
        cut = [replace(test, images=test.images[:few], labels=test.labels[:few], indices=test.indices[:few]) for test in tests]
        return whole(self, network, cut, few=few)

    monkeypatch.setattr(AutoencoderPreset, "measure", measure)


def small(kind: str, **changes: Any) -> AutoencoderPreset:
    found = PRESETS[f"{kind}-mnist"]
    assert isinstance(found, AutoencoderPreset)
    adversary = found.adversary and replace(found.adversary, steps=2)
    return replace(found, **{"widths": (4, 6), "batch_size": 16, "hidden": (8,), "adversary": adversary, **changes})


def training(network: GenerativeAutoencoder, regularizer: CodeRegularizer, **settings: Any) -> AutoencoderTraining:
    return AutoencoderTraining(network, regularizer, perturbation=Plain(), learning_rate=1e-3, **{"weight": 1.0, **settings})


def test_the_loss_of_the_vae_is_the_negative_evidence_lower_bound() -> None:
    """With lambda 1 and pixels of variance 1/2, up to the logarithm of the normal's constant."""
    network = with_statistics(GenerativeAutoencoder((2, 9, 8), code_size=3, widths=(4,))).double()
    images = torch.rand(5, 2, 9, 8, dtype=torch.float64)
    with seeded(1):
        loss, shown = next(training(network, KLDivergence()).steps(images, torch.zeros(5), Moment()))
    with seeded(1):
        mean, log_variance = network.posterior(images)
        assert log_variance is not None
        posterior = Normal(mean, (0.5 * log_variance).exp())
        codes = posterior.rsample()
    likelihood = Normal(network.decode(codes), 0.5**0.5)
    constant = Normal(0.0, 0.5**0.5).log_prob(torch.zeros(())).double() * images[0].numel()
    bound = likelihood.log_prob(images).flatten(1).sum(1) - kl_divergence(posterior, Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(loss, constant - bound.mean(), rtol=1e-6, atol=0)  # the constant is in single precision
    torch.testing.assert_close(shown["error"] + shown["penalty"], loss)


@pytest.mark.parametrize("weight", [0.0, 2.5])
def test_lambda_weights_the_penalty(weight: float) -> None:
    network = GenerativeAutoencoder((1, 8, 8), code_size=3, widths=(4,), variational=False)
    loss, shown = next(training(network, ShapiroWilk(), weight=weight).steps(torch.rand(6, 1, 8, 8), torch.zeros(6), Moment()))
    torch.testing.assert_close(loss, shown["error"] + weight * shown["penalty"])
    assert shown["penalty"] > 0


@pytest.mark.usefixtures("fewer_digits")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_and_is_read_again(kind: str, tmp_path: Path) -> None:
    path = train(small(kind, learning_rate=1e-2, mean_pixel=0.5), **TINY, epochs=6, out=tmp_path)
    errors = logged(tmp_path / f"{kind}-mnist", "error")
    assert errors[-1] < 0.9 * errors[0]
    network, card = trained_network(GenerativeAutoencoder, f"{kind}-mnist", path), read_card(path)
    assert network.variational == (kind not in {"mmd-dae", "swt-dae", "aae"})
    assert network.code_size == 10
    digits = load_data("mnist-embedded", "test").images[:20]
    error = next(value for name, value in card.metrics.items() if name.startswith("mean squared error"))
    assert error == pytest.approx(float((network(digits) - digits).square().mean()), abs=1e-6)


def test_there_is_an_adversary_for_every_kind() -> None:
    """Algorithm 1 takes any penalty: its steps come after those of the autoencoder and of a discriminator."""
    for kind in KINDS:
        made = small(kind, adversary=LatentAdversary(steps=1, iterations=2)).training(10)
        losses = [loss for loss, _ in made.steps(torch.rand(8, 1, 28, 28), torch.zeros(8, dtype=torch.int64), Moment())]
        assert made.turns == ((0, 1, 2, 2) if kind == "aae" else (0, 1, 1))
        assert len(losses) == len(made.turns)
        assert len(made.optimizers()) == max(made.turns) + 1


@pytest.mark.usefixtures("fewer_digits")
def test_an_adversarial_training_that_was_stopped_ends_with_the_same_weights(tmp_path: Path) -> None:
    settings = small("aae", adversary=LatentAdversary(steps=2, iterations=2))
    whole = train(settings, **TINY, epochs=2, out=tmp_path / "whole")
    found = resumed(settings, **TINY, epochs=2, at=5, out=tmp_path / "stopped")
    assert found.read_bytes() == whole.read_bytes()
    assert "then 2 x a step of the decoder on codes by PGD linf 0.05 on SSIM, 2 steps of 1" in read_card(whole).what


def test_the_discriminator_and_the_autoencoder_learn_apart() -> None:
    network = GenerativeAutoencoder((1, 8, 8), code_size=3, widths=(4,), variational=False)
    module = training(network, Adversarial(3, hidden=(5,)))
    first, second = ({id(one) for group in each.param_groups for one in group["params"]} for each in module.optimizers())
    assert first == {id(one) for one in network.parameters()}
    assert second == {id(one) for one in module.regularizer.parameters()}
    losses = module.steps(torch.rand(6, 1, 8, 8), torch.zeros(6), Moment())
    for learns, stays in ((network, module.regularizer), (module.regularizer, network)):
        module.zero_grad()
        next(losses)[0].backward()
        assert all(one.grad is not None for one in learns.parameters())
        assert all(one.grad is None for one in stays.parameters())


def test_the_card_has_the_spread_of_the_codes() -> None:
    """For a network whose codes are known: the first conv and the linear layer pick out one pixel."""
    network = GenerativeAutoencoder((1, 2, 2), code_size=2, widths=(1,)).eval()
    state = network.state_dict()
    for name in state:
        state[name] = (
            torch.ones_like(state[name]) if name.endswith(("running_var", "1.weight")) else torch.zeros_like(state[name])
        )
    state["encoder.0.weight"][0, 0, 1, 1] = (1 + 1e-5) ** 0.5  # undoes the epsilon of batch norm
    state["encoder.4.weight"][0], state["encoder.4.weight"][1] = 2.0, 0.5  # means: 2 and 1/2 times the pixel
    state["encoder.4.bias"][2:] = torch.tensor([0.25, 0.04]).log()
    network.load_state_dict(state)
    pixels = torch.rand(700)
    images = torch.zeros(700, 1, 2, 2)
    images[:, 0, 0, 0] = pixels
    test = ImageData("known", "test", images, torch.zeros(700, dtype=torch.int64), 10, torch.arange(700))
    with pytest.raises(GenclsError, match="SSIM: expected images of at least 6 x 6 pixels"):
        small("vae").measure(network, [test])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gencls.zoo.training.methods.autoencoder._fidelity", lambda network, images: {})
        found = list(small("vae").measure(network, [test]).values())
    spread = float(pixels.std())
    assert found == pytest.approx([1.25 * spread, 0.5 * spread, 2 * spread, 0.35], rel=1e-4)


def test_the_card_has_error_similarity_and_psnr_of_all_test_images() -> None:
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    network = with_statistics(GenerativeAutoencoder((1, 28, 28), widths=(2, 3)))
    digits = load_data("mnist-embedded", "test", limit=600)  # more than are computed at once
    found = small("vae").measure(network, [digits], few=1)
    made = network(digits.images)
    where = "of reconstructions, mnist-embedded test, 600 images"
    assert found[f"mean squared error {where}"] == pytest.approx(float((made - digits.images).square().mean()), abs=1e-6)
    similarity = structural_similarity_index_measure(made, digits.images, data_range=1.0)
    assert found[f"SSIM {where}"] == pytest.approx(float(similarity), abs=1e-5)  # type: ignore[arg-type]
    ratio = peak_signal_noise_ratio(made, digits.images, data_range=1.0, dim=(1, 2, 3), reduction="elementwise_mean")
    assert found[f"PSNR in dB {where}"] == pytest.approx(float(ratio), abs=1e-4)


def test_the_decoder_begins_with_the_mean_brightness() -> None:
    network = training(GenerativeAutoencoder((3, 8, 8), widths=(4,)), KLDivergence(), mean_pixel=0.2).network
    for parameter in network.decoder[-2].parameters():
        if parameter.ndim > 1:
            parameter.detach().zero_()  # no code adds anything
    torch.testing.assert_close(network.decode(torch.randn(2, 10)), torch.full((2, 3, 8, 8), 0.2))


def test_bad_settings(tmp_path: Path) -> None:
    deterministic = GenerativeAutoencoder((1, 8, 8), widths=(2,), variational=False)
    with pytest.raises(GenclsError, match="AutoencoderTraining: expected a variational encoder for KLDivergence, got a determ"):
        training(deterministic, KLDivergence())
    for wrong in ({"weight": -1.0}, {"mean_pixel": 0.0}, {"mean_pixel": 1.0}):
        with pytest.raises(GenclsError, match=r"AutoencoderTraining: expected weight >= 0 and mean_pixel in \(0, 1\), got "):
            training(deterministic, MMD(), **wrong)
    with pytest.raises(GenclsError, match="AutoencoderPreset: expected regularizer to be one of 'kl', .*, got 'kld'"):
        small("vae", regularizer="kld")
    with pytest.raises(GenclsError, match="MMD: expected at least 2 codes at once, got 1"):
        train(small("mmd-vae"), **TINY | {"limit": 1}, epochs=1, out=tmp_path)
