"""Latent adversarial training: codes stay in the ball, the encoder stays as it is, the attack is the best that there is."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gencls.core import GenclsError, seeded
from gencls.perceptual import SSIM
from gencls.zoo.networks import CodePosterior, GenerativeAutoencoder, KLDivergence
from gencls.zoo.training.base import Moment
from gencls.zoo.training.functional import squared_error
from gencls.zoo.training.methods.autoencoder import AutoencoderTraining
from gencls.zoo.training.methods.latent_adversarial import LatentAdversary
from gencls.zoo.training.views.perturbations import Plain
from tests.zoo.networks.test_networks import with_statistics

LABELS = torch.zeros(16, dtype=torch.int64)


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with seeded(0):
        yield


def autoencoder(**settings: Any) -> GenerativeAutoencoder:
    """In double precision, with statistics as after training, in training mode."""
    network = GenerativeAutoencoder((1, 12, 12), **{"code_size": 3, "widths": (4, 6), **settings})
    return with_statistics(network).double().requires_grad_(True).train()  # type: ignore[return-value]


def pictures() -> Tensor:
    return torch.rand(16, 1, 12, 12, dtype=torch.float64)


class Affine(nn.Module):
    """Pictures 1/2 + W z."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def decode(self, codes: Tensor) -> Tensor:
        return (0.5 + codes @ self.weight.T).view(-1, 1, 4, 4)


def changed(before: dict[str, Tensor], after: nn.Module) -> set[str]:
    return {name for name, value in after.state_dict().items() if not torch.equal(value, before[name])}


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("distance", ["ssim", "mse"])
@pytest.mark.parametrize("far", [None, 0.01, 3.0])
def test_codes_stay_in_the_ball_from_any_start(norm: Any, distance: Any, far: float | None) -> None:
    network, codes = autoencoder(), torch.randn(16, 3, dtype=torch.float64)
    start = None if far is None else codes + far * torch.randn_like(codes)
    for steps in (1, 4):
        found = LatentAdversary(epsilon=0.2, steps=steps, norm=norm, distance=distance).attack(network, codes, start)
        length = (found - codes).abs().amax(1) if norm == "linf" else (found - codes).norm(dim=1)
        assert float(length.max()) <= 0.2 * (1 + 1e-6)  # renorm divides by the length plus 1e-7
        assert float(length.min()) > 0.1  # the step is longer than the radius


def test_the_ascent_reaches_the_leading_singular_vector_of_a_linear_decoder() -> None:
    """||W d||^2 over ||d|| <= epsilon is largest along it: epsilon^2 s_1^2. A long step is a step of the power iteration."""
    weight = torch.linalg.qr(torch.randn(16, 3, dtype=torch.float64)).Q * torch.tensor([3.0, 2.0, 0.5], dtype=torch.float64)
    turned = weight @ torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    decoder, codes = Affine(turned), torch.randn(16, 3, dtype=torch.float64)
    adversary = LatentAdversary(epsilon=0.01, step_size=1e4, steps=60, norm="l2", distance="mse")
    found = adversary.attack(decoder, codes)  # type: ignore[arg-type]
    error = squared_error(decoder.decode(codes), decoder.decode(found))
    # What is left of the second direction shrinks by (2/3)^2 a step: 1e-21 after 60.
    torch.testing.assert_close(error, torch.full_like(error, (0.01 * 3) ** 2), rtol=1e-5, atol=0)


def test_a_sign_step_ends_in_the_best_corner_of_one_direction() -> None:
    """With one row of weights every corner that agrees with their signs is best, and one step finds it."""
    weight = torch.zeros(16, 5, dtype=torch.float64)
    weight[3] = torch.tensor([1.0, -2.0, 0.5, 3.0, -0.1])
    decoder, codes = Affine(weight), torch.randn(8, 5, dtype=torch.float64)
    change = LatentAdversary(epsilon=0.1, steps=1, distance="mse").attack(decoder, codes) - codes  # type: ignore[arg-type]
    sides = change.sign() * weight[3].sign()
    assert bool((sides == sides[:, :1]).all())
    torch.testing.assert_close(change.abs(), torch.full_like(change, 0.1))


@pytest.mark.parametrize("distance", ["ssim", "mse"])
def test_the_attack_beats_random_corners(distance: Any) -> None:
    network, codes = autoencoder().eval(), torch.randn(16, 3, dtype=torch.float64)
    found = LatentAdversary(epsilon=0.3, distance=distance).attack(network, codes)
    corners = codes + 0.3 * torch.randint(0, 2, codes.shape).mul(2).sub(1)
    measure = SSIM() if distance == "ssim" else squared_error
    with torch.no_grad():
        original = network.decode(codes)
        moved, randomly = (measure(original, network.decode(some)).mean() for some in (found, corners))
    assert moved > 1.1 * randomly


def test_the_code_itself_is_no_start_and_a_deterministic_encoder_gets_another() -> None:
    network = autoencoder(variational=False)
    codes = network.encode(pictures()).detach()
    adversary = LatentAdversary(distance="mse")
    assert torch.equal(adversary.attack(network, codes, codes), codes)  # the gradient is 0: it never leaves
    posterior = CodePosterior(codes)
    assert torch.equal(posterior.sample(), codes)
    error = adversary.error(network, pictures(), codes, posterior)
    with torch.no_grad():
        assert error != squared_error(pictures(), network.decode(codes)).mean()
    starts = [LatentAdversary(steps=1, step_size=1e-9).attack(network, codes) - codes for _ in range(2)]
    assert not torch.allclose(*starts)
    both = torch.stack(starts).flatten() / 0.05
    assert float(both.abs().max()) < 1 + 1e-6
    assert float(both.std()) == pytest.approx(3**-0.5, rel=0.2)  # uniform; 96 draws, whose deviation has an error of 5 %


def test_modes_statistics_and_gradients_are_as_before_the_attack() -> None:
    network = autoencoder()
    network.encoder.eval()
    modes, before = {part: part.training for part in network.modules()}, copied(network)
    codes = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():  # the attack needs gradients and switches them on itself
        found = LatentAdversary().attack(network, codes)
    assert {part: part.training for part in network.modules()} == modes
    assert changed(before, network) == set()
    assert not found.requires_grad
    assert codes.grad is None
    assert all(parameter.grad is None for parameter in network.parameters())


def test_each_code_is_attacked_by_itself() -> None:
    """With the statistics of the batch, one code would move the pictures of all others."""
    network, codes = autoencoder(), torch.randn(6, 3, dtype=torch.float64)
    starts = codes + torch.randn_like(codes)
    adversary = LatentAdversary(steps=3)
    alone = torch.cat([adversary.attack(network, codes[i : i + 1], starts[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(adversary.attack(network, codes, starts), alone)


@pytest.mark.parametrize("variational", [True, False])
def test_the_decoder_alone_learns_with_the_statistics_of_the_adversarial_codes(variational: bool) -> None:
    network, images = autoencoder(variational=variational), pictures()
    posterior = network.posterior(images)
    codes = posterior.sample()
    adversary, before = LatentAdversary(), copied(network)
    with seeded(1):
        found = adversary.error(network, images, codes, posterior)
    statistics = {name for name in before if name.startswith("decoder") and ("running" in name or "num_batches" in name)}
    assert changed(before, network) == statistics
    with seeded(1):
        moved = adversary.attack(network, codes, posterior.sample() if variational else None)
    expected = squared_error(images, network.decode(moved)).mean()  # in training mode
    torch.testing.assert_close(found, expected)
    parameters = list(network.parameters())
    gradients, truth = (torch.autograd.grad(loss, parameters, allow_unused=True) for loss in (found, expected))
    decoders = {id(parameter) for parameter in network.decoder.parameters()}
    for parameter, mine, theirs in zip(parameters, gradients, truth, strict=True):
        assert (mine is not None) == (id(parameter) in decoders)
        if mine is not None:
            torch.testing.assert_close(mine, theirs)


def test_the_joint_form_teaches_the_encoder_through_the_middles_of_the_balls() -> None:
    network, images = autoencoder(), pictures()
    posterior = network.posterior(images)
    adversary = LatentAdversary(joint=True)
    with seeded(1):
        found = adversary.error(network, images, posterior.mean, posterior)
    with seeded(1):
        again = network.posterior(images)
        codes = again.sample()
        change = adversary.attack(network, codes, again.sample()) - codes.detach()
    expected = squared_error(images, network.decode(codes + change)).mean()
    torch.testing.assert_close(found, expected)
    parameters = list(network.parameters())
    for mine, theirs in zip(*(torch.autograd.grad(loss, parameters) for loss in (found, expected)), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("joint", [False, True])
def test_one_step_of_the_training_by_hand(joint: bool) -> None:
    """The ordinary step moves all parameters, each of the adversary's steps the decoder's, and with joint the encoder's too."""
    adversary = LatentAdversary(iterations=2, joint=joint)
    training = AutoencoderTraining(
        autoencoder(), KLDivergence(), weight=1.0, adversary=adversary, perturbation=Plain(), learning_rate=1e-3
    ).train()
    network = training.network
    optimizers, losses = training.optimizers(), training.steps(pictures(), LABELS, Moment())
    assert training.turns == (0, 1, 1)
    parameters = {name for name, _ in network.named_parameters()}
    for turn in training.turns:
        loss, _ = next(losses)
        before = copied(network)
        optimizers[turn].zero_grad()
        loss.backward()
        optimizers[turn].step()
        learned = parameters if turn == 0 or joint else {name for name in parameters if name.startswith("decoder")}
        assert changed(before, network) == learned
    assert next(losses, None) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 0.0}, "expected epsilon and step_size > 0, steps and iterations >= 1, got 0.0, 1.0, 10 and 1"),
        ({"epsilon": -0.1}, "got -0.1, 1.0"),
        ({"step_size": 0.0}, "got 0.05, 0.0"),
        ({"steps": 0}, "1.0, 0 and 1"),
        ({"iterations": 0}, "10 and 0"),
        ({"distance": "lpips"}, "expected distance to be one of 'ssim', 'mse', got 'lpips'"),
        ({"norm": "l1"}, "expected norm to be one of 'linf', 'l2', got 'l1'"),
        ({"joint": 1}, "expected joint to be True or False, got 1"),
    ],
)
def test_settings_that_make_no_adversary(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(GenclsError, match=f"^LatentAdversary: .*{message}"):
        LatentAdversary(**settings)
