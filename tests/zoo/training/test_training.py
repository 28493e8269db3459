"""Training on a few real digits: losses fall, stopping changes nothing, cards tell the truth."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from gencls.core import GenclsError, seeded
from gencls.defenses import PlainClassifier
from gencls.zoo import load, load_data
from gencls.zoo.checkpoints.cards import read_card
from gencls.zoo.checkpoints.places import WEIGHTS
from gencls.zoo.checkpoints.reading import load_state_dict
from gencls.zoo.data.image_data import balanced_subset
from gencls.zoo.networks import ClassConditionalAutoencoder
from gencls.zoo.rows import abs_of, eabs_of
from gencls.zoo.training import PRESETS, presets, train
from gencls.zoo.training.base import Moment, TablePreset
from gencls.zoo.training.functional import squared_error
from gencls.zoo.training.lightning import LightningTraining, ShuffledBatches, batch_loader, cosine, restart_step
from gencls.zoo.training.measure import accuracy, adversarial_accuracy
from gencls.zoo.training.methods.class_conditional import ClassConditionalPreset, ClassConditionalTraining
from gencls.zoo.training.views.adversarial import Adversarial, pgd
from gencls.zoo.training.views.perturbations import Plain
from tests.trainings import resumed

SHARED = Path(__file__).parents[4] / "shared" / "data"
DATA_ROOT = os.environ.get("GENCLS_DATA") or (SHARED if SHARED.is_dir() else None)
TINY: dict[str, Any] = {"data": "mnist-embedded", "limit": 64, "progress": False}


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with seeded(0):
        yield


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presets with batches of 16: four steps per epoch on 64 digits; no slow measurements."""
    small = {name: replace(preset, batch_size=16) for name, preset in PRESETS.items()}
    monkeypatch.setattr(presets, "PRESETS", small)
    for kind in {type(preset) for preset in small.values()}:
        monkeypatch.setattr(kind, "measure", lambda self, network, tests, few: {"images": few})


def logged(folder: Path, tag: str) -> list[float]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [event.value for event in events.Scalars(tag)]


class Linear(nn.Module):
    """Scores of two classes whose difference is an affine function of the image."""

    def __init__(self, weight: Tensor, offset: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.offset = offset

    def forward(self, images: Tensor) -> Tensor:
        margin = (images * self.weight).flatten(1).sum(1) + self.offset
        return torch.stack([margin, -margin], dim=1)


# Generators and purifiers have tests of their own.
_TABLE_OF_MNIST = [name for name, preset in PRESETS.items() if preset.data == "mnist" and isinstance(preset, TablePreset)]


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "cnn-mnist")) for name in _TABLE_OF_MNIST],
)
def test_the_loss_goes_down(name: str, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    path = train(name, **TINY, epochs=8, out=tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    # Of eight epochs at most two belong to the encoder as a classifier, which has no error of reconstruction.
    losses = logged(tmp_path / name, "error" if isinstance(PRESETS[name], ClassConditionalPreset) else "loss")
    assert len(losses) >= 6
    assert sum(losses[-4:]) / 4 < 0.9 * losses[0]  # batches differ
    card = read_card(path)
    assert card.command == f"gencls train {name} --data mnist-embedded --epochs 8 --limit 64"
    assert card.trained_on == "mnist-embedded train, 64 images"
    assert card.metrics["images"] == 64
    # Half precision costs two bytes a number.
    assert path.stat().st_size < 2.2 * sum(tensor.numel() for tensor in load_state_dict(path).values()) + 20_000


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("name", ["cnn-gaussian-mnist", pytest.param("abs-mnist", marks=pytest.mark.slow), "eabs-mnist"])
def test_resumed_training_ends_with_the_same_weights(name: str, tmp_path: Path) -> None:
    whole = train(name, **TINY, epochs=3, out=tmp_path / "whole")
    found = resumed(name, **TINY, epochs=3, at=7, out=tmp_path / "stopped")  # in the middle of the second epoch
    assert found.read_bytes() == whole.read_bytes()
    again = train(name, **TINY, epochs=3, out=tmp_path / "stopped", resume=True)  # nothing is left to do
    assert again.read_bytes() == whole.read_bytes()


@pytest.mark.usefixtures("small_steps")
def test_an_earlier_run_is_not_overwritten(tmp_path: Path) -> None:
    train("cnn-mnist", **TINY, epochs=1, out=tmp_path)
    with pytest.raises(GenclsError, match="expected no earlier run in .*, found last.ckpt; resume it, or choose another"):
        train("cnn-mnist", **TINY, epochs=1, out=tmp_path)
    with pytest.raises(GenclsError, match="expected to resume a run of"):
        train("cnn-mnist", **TINY, epochs=1, seed=1, out=tmp_path, resume=True)


def test_a_run_of_an_earlier_version_does_not_go_on(tmp_path: Path) -> None:
    (tmp_path / "cnn-mnist").mkdir()
    torch.save({"epoch": 0, "state_dict": {"network.head.bias": torch.zeros(10)}}, tmp_path / "cnn-mnist" / "last.ckpt")
    with pytest.raises(GenclsError, match="expected the checkpoint of a training, got one of an earlier version of gencls"):
        train("cnn-mnist", **TINY, out=tmp_path, resume=True)


def test_bad_settings(tmp_path: Path) -> None:
    with pytest.raises(GenclsError, match="unknown training 'cnn'; expected one of cnn-mnist"):
        train("cnn", out=tmp_path)
    with pytest.raises(GenclsError, match="expected epochs >= 1, got 0"):
        train("cnn-mnist", epochs=0, out=tmp_path)
    with pytest.raises(GenclsError, match="expected data to be one of mnist-embedded, mnist, .*, got 'imagenette'"):
        train("cnn-mnist", data="imagenette", out=tmp_path)
    with pytest.raises(GenclsError, match="expected a run to resume at .*last.ckpt, found none"):
        train("cnn-mnist", **TINY, out=tmp_path, resume=True)


def test_trained_weights_can_be_loaded_and_measured(tmp_path: Path) -> None:
    path = train("cnn-mnist", **TINY, epochs=1, out=tmp_path)
    metrics = json.loads(path.with_suffix(".json").read_text())["metrics"]
    defense = load("cnn-mnist", weights=path)
    assert isinstance(defense, PlainClassifier)
    assert not defense.training
    assert not any(parameter.requires_grad for parameter in defense.parameters())
    test = load_data("mnist-embedded", "test")
    measured = metrics["clean accuracy, mnist-embedded test, 1000 images"]
    assert accuracy(defense, test.images, test.labels) == pytest.approx(measured)
    assert any("linf 0.3" in key and "64 images" in key for key in metrics)


@pytest.mark.parametrize(
    ("name", "kind", "inference"),
    [("abs-mnist", "ClassDecoders", "point"), ("eabs-mnist", "ClassConditionalAutoencoder", "variational")],
)
def test_trained_autoencoders_are_saved_as_what_infers_and_measured_by_inference(
    name: str, kind: str, inference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few: dict[str, Any] = {"starts": 20, "steps": 3}
    for make in (abs_of, eabs_of):
        monkeypatch.setattr(f"gencls.zoo.training.methods.class_conditional.{make.__name__}", partial(make, **few))
    path = train(name, **TINY | {"limit": 16}, epochs=1, measured=10, out=tmp_path)
    card = read_card(path)
    assert card.architecture == kind
    test = load_data("mnist-embedded", "test")
    part = balanced_subset(test.labels, 10, seed=0)
    with seeded(0):
        measured = accuracy(load(name, weights=path, **few), test.images[part], test.labels[part])
    assert card.metrics[f"clean accuracy by {inference} inference, mnist-embedded test, 10 images"] == measured


def test_models_that_are_not_there(tmp_path: Path) -> None:
    unknown = "unknown model 'resnet'; expected one of cnn-.*; or, with weights=PATH, one of .*eabs-svhn"
    with pytest.raises(GenclsError, match=unknown):
        load("resnet")
    with pytest.raises(GenclsError, match=r"got no such file. Make them with: gencls train adv-l2-mnist \(and --data-root"):
        load("adv-l2-mnist", weights=tmp_path / "none.safetensors")
    with pytest.raises(GenclsError, match="expected the weights of abs-mnist; got those of cnn-mnist, which load by zoo.load"):
        load("abs-mnist", weights=WEIGHTS / "cnn-mnist.safetensors")
    with pytest.raises(GenclsError, match="abs-mnist: expected overrides among weights, starts, .*; got 'sigma'"):
        load("abs-mnist", sigma=1.0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_finds_the_worst_point_of_a_linear_model(norm: Any) -> None:
    weight = torch.randn(1, 4, 4, dtype=torch.float64)
    images = torch.full((3, 1, 4, 4), 0.5, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0])
    epsilon = 0.2  # the ball does not touch the borders of the box
    network = Linear(weight)
    adversarial = pgd(network, images, labels, norm=norm, epsilon=epsilon, steps=40, step_size=0.05)
    direction = weight.sign() if norm == "linf" else weight / weight.norm()
    sign = torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64).view(-1, 1, 1, 1)
    torch.testing.assert_close(adversarial, images + sign * epsilon * direction, rtol=0, atol=1e-3)
    assert not adversarial.requires_grad
    assert network.weight.grad is None


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_stays_in_ball_and_box(norm: Any) -> None:
    images = torch.rand(20, 1, 4, 4).round()
    labels = torch.randint(2, (20,))
    adversarial = pgd(Linear(torch.randn(1, 4, 4)), images, labels, norm=norm, epsilon=0.3, steps=3, step_size=0.4)
    assert adversarial.min() >= 0.0
    assert adversarial.max() <= 1.0
    order = float("inf") if norm == "linf" else 2
    assert torch.linalg.vector_norm((adversarial - images).flatten(1), ord=order, dim=1).max() <= 0.3 + 1e-6


def test_adversarial_accuracy_of_a_linear_model() -> None:
    # Margins 0.4 and 0.04: Linf 0.05 moves the sum of four pixels by 0.2.
    images = torch.stack([torch.full((1, 2, 2), value) for value in (0.6, 0.51)])
    network = Linear(torch.ones(1, 2, 2), offset=-2.0)
    labels = torch.tensor([0, 0])
    attack = Adversarial(norm="linf", epsilon=0.05, steps=5, step_size=0.02, warmup_epochs=0)
    assert accuracy(network, images, labels) == 1.0
    assert adversarial_accuracy(network, images, labels, attack) == 0.5


def test_adversarial_training_warms_up_and_attacks_in_eval_mode() -> None:
    modes = []

    class Spy(Linear):
        def forward(self, images: Tensor) -> Tensor:
            modes.append(self.training)
            return super().forward(images)

    network = Spy(torch.randn(1, 4, 4))
    images, labels = torch.full((4, 1, 4, 4), 0.5), torch.zeros(4, dtype=torch.int64)
    perturbation = Adversarial(norm="linf", epsilon=0.3, steps=20, step_size=0.1, warmup_epochs=2.0)
    for epoch, expected in ((0.0, 0.0), (1.0, 0.15), (2.0, 0.3), (5.0, 0.3)):
        moved = perturbation(network, images, labels, epoch=epoch) - images
        assert float(moved.abs().max()) == pytest.approx(expected, abs=1e-6)
    assert network.training
    assert not any(modes)


def test_errors_against_torch() -> None:
    images, reconstructions = torch.rand(3, 1, 2, 2), torch.rand(3, 4, 1, 2, 2)
    errors = squared_error(images.unsqueeze(1), reconstructions)
    torch.testing.assert_close(errors, torch.cdist(images.flatten(1).unsqueeze(1), reconstructions.flatten(2)).squeeze(1) ** 2)


def eabs_losses(
    network: ClassConditionalAutoencoder, images: Tensor, labels: Tensor, *, beta: float, gamma: float
) -> tuple[Tensor, Tensor]:
    """Algorithm 1's two losses, image by image, for a network without dropout in eval mode (oracle)."""
    autoencoder, discriminator = torch.zeros(()), torch.zeros(())
    generator_state = torch.get_rng_state()
    mean, log_variance = network.class_encoders(images)
    latents = mean[:, 0] + torch.randn_like(mean[:, 0]) * (log_variance[:, 0] / 2).exp()
    prior_samples = torch.randn_like(latents)
    for image, label, z, sample in zip(images, labels, latents, prior_samples, strict=True):
        costs = torch.stack([(image - network.decoders[k](z[None])[0]).square().sum() for k in range(network.num_classes)])
        inside, drawn = (network.discriminators[0](latent).sigmoid() for latent in (z, sample))
        autoencoder = autoencoder + costs[label] - beta * inside.log() - gamma * costs.neg().softmax(0)[label].log()
        discriminator = discriminator - beta * (drawn.log() + (1 - inside).log())
    torch.set_rng_state(generator_state)
    return autoencoder / len(labels), discriminator / len(labels)


def test_algorithm_1_each_loss_moves_its_own_parameters() -> None:
    network = ClassConditionalAutoencoder.from_architecture(
        "mnist", num_classes=3, dropout=0.0, shared_encoder=True, adversarial=True
    ).eval()
    module = ClassConditionalTraining(network, beta=0.7, gamma=2.0, perturbation=Plain(), learning_rate=1e-3)
    images, labels = torch.rand(4, 1, 28, 28), torch.tensor([0, 2, 1, 2])
    autoencoder, discriminator = eabs_losses(network, images, labels, beta=0.7, gamma=2.0)
    discriminators = list(network.discriminators.parameters())
    others = [*network.encoders.parameters(), *network.decoders.parameters()]
    expected = [
        *torch.autograd.grad(autoencoder, others, retain_graph=True),
        *torch.autograd.grad(discriminator, discriminators),
    ]
    loss, _ = next(module.steps(images, labels, Moment()))
    torch.testing.assert_close(loss, autoencoder + discriminator, rtol=1e-4, atol=0)
    found = torch.autograd.grad(loss, [*others, *discriminators])
    for gradient, of_one_loss in zip(found, expected, strict=True):
        scale = float(of_one_loss.abs().max())
        torch.testing.assert_close(gradient, of_one_loss, rtol=1e-3, atol=1e-4 * scale)  # float32 sums in another order


def test_the_encoder_begins_as_a_classifier() -> None:
    network = ClassConditionalAutoencoder.from_architecture("mnist", num_classes=3, dropout=0.0, shared_encoder=True)
    module = ClassConditionalTraining(network, gamma=1.0, classifier_epochs=2.0, perturbation=Plain(), learning_rate=1e-3)
    images, labels = torch.rand(4, 1, 28, 28), torch.tensor([0, 2, 1, 2])
    learning = {}
    for epoch in (1.9, 2.0):
        loss, _ = next(module.steps(images, labels, Moment(epoch=epoch, epochs=4)))
        if epoch < 2:
            expected = nn.functional.cross_entropy(module.head(network.features(images)), labels)
            torch.testing.assert_close(loss, expected)
        module.zero_grad()
        loss.backward()
        learning[epoch] = {name.split(".")[-2] for name, value in module.named_parameters() if value.grad is not None}
    parts = {name.split(".")[-2] for name, _ in network.features.named_parameters()}
    assert learning[1.9] == {*parts, "head"}
    assert "head" not in learning[2.0]
    assert {"mean", "log_variance", *parts} < learning[2.0]
    assert not any("head" in name for name in module.product.state_dict())


@pytest.mark.usefixtures("small_steps")
def test_adam_begins_anew_with_the_joint_training_and_resumes_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(presets.PRESETS["eabs-mnist"], classifier_share=1 / 3, generative_share=0.0)
    known: list[int] = []
    original = LightningTraining.on_train_batch_start

    def counted(self: LightningTraining, batch: Any, batch_idx: int) -> None:
        original(self, batch, batch_idx)
        known.append(len(self.optimizers(use_pl_optimizer=False).state))  # type: ignore[union-attr]
        if stop and len(known) == 5:
            raise InterruptedError

    stop = False
    monkeypatch.setattr(LightningTraining, "on_train_batch_start", counted)
    whole = train(settings, **TINY, epochs=3, out=tmp_path / "whole")
    assert [step for step, count in enumerate(known) if count == 0] == [0, 4]  # four steps an epoch
    stop, known = True, []
    with pytest.raises(InterruptedError):  # in the first step of the joint training
        train(settings, **TINY, epochs=3, out=tmp_path / "stopped")
    stop = False
    resumed = train(settings, **TINY, epochs=3, out=tmp_path / "stopped", resume=True)
    assert resumed.read_bytes() == whole.read_bytes()


def test_shares_of_the_epochs() -> None:
    for shares in ({"classifier_share": 1.0}, {"classifier_share": -0.1}, {"classifier_share": 0.6, "generative_share": 0.5}):
        with pytest.raises(GenclsError, match="expected shares of the epochs"):
            replace(PRESETS["eabs-mnist"], **shares)  # type: ignore[arg-type]


def test_the_rate_falls_along_a_cosine_for_each_part_of_the_training() -> None:
    network = ClassConditionalAutoencoder.from_architecture("mnist", num_classes=2, dropout=0.0, shared_encoder=True)
    for epochs, expected in ((0.0, [1.0, 0.75, 0.5, 0.25, 0.0]), (3.0, [1.0, 0.0, 1.0, 0.5, 0.0])):
        module = ClassConditionalTraining(network, classifier_epochs=epochs, perturbation=Plain(), learning_rate=1.0)
        factor: Any = cosine(120, restart_step(module.restart_epochs, 120 / 12))
        # Steps at which a cosine over all steps, or one over 30 and one over 90, has these values.
        steps = (0, 40, 60, 80, 120) if epochs == 0 else (0, 29.999, 30, 75, 120)
        assert [factor(step) for step in steps] == pytest.approx(expected, abs=1e-6)


def test_discriminators_learn_at_a_rate_of_their_own() -> None:
    network = ClassConditionalAutoencoder.from_architecture("mnist", num_classes=2, dropout=0.0, adversarial=True)
    module = ClassConditionalTraining(network, discriminator_rate=0.5, perturbation=Plain(), learning_rate=1e-3)
    others, slow = module.parameter_groups()
    assert slow["lr"] == 0.0005
    assert {id(parameter) for parameter in slow["params"]} == {
        id(parameter) for parameter in network.discriminators.parameters()
    }
    assert len(slow["params"]) + len(others["params"]) == len(list(module.parameters()))


def test_a_discriminative_loss_needs_a_shared_encoder() -> None:
    network = ClassConditionalAutoencoder.from_architecture("mnist", num_classes=2)
    with pytest.raises(GenclsError, match="a discriminative loss: expected one encoder for all classes, got 2"):
        ClassConditionalTraining(network, gamma=1.0, perturbation=Plain(), learning_rate=1e-3)
    with pytest.raises(GenclsError, match="classifier epochs: expected one encoder for all classes, got 2"):
        ClassConditionalTraining(network, classifier_epochs=1.0, perturbation=Plain(), learning_rate=1e-3)


def test_batches_cover_the_data_in_an_order_of_their_own_per_epoch() -> None:
    sampler = ShuffledBatches(10, 3, seed=1)
    first = list(sampler)
    assert [len(batch) for batch in first] == [3, 3, 3]
    assert len({index for batch in first for index in batch}) == 9
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    images, labels = torch.rand(4, 1, 2, 2), torch.arange(4)
    ((batch, chosen),) = batch_loader(images, labels, batch_size=8, seed=0)
    assert sorted(chosen.tolist()) == [0, 1, 2, 3]
    assert torch.equal(batch, images[chosen])
