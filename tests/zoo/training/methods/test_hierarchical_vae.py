"""Training of NVAE: losses against closed forms, short runs on real digits, cards."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gencls.core import GenclsError, seeded
from gencls.zoo import load_data, load_generator
from gencls.zoo.checkpoints.cards import read_card
from gencls.zoo.networks import NVAE
from gencls.zoo.training import PRESETS, train
from gencls.zoo.training.base import Moment
from gencls.zoo.training.methods.hierarchical_vae import (
    HierarchicalVAETraining,
    NVAEPreset,
    kl_weights,
    level_sizes,
    reestimate_batch_norm,
    warm_up,
)
from gencls.zoo.training.views.perturbations import Plain
from tests.trainings import logged, resumed

TINY: dict[str, Any] = {"data": "mnist-embedded", "limit": 128, "progress": False, "measured": 20}


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with seeded(0):
        yield


def small_nvae() -> NVAEPreset:
    settings = PRESETS["nvae-fashion"]
    assert isinstance(settings, NVAEPreset)
    return replace(settings, groups=(1, 2), latent_channels=2, channels=4, mixtures=2, batch_size=32, statistics_passes=2)


def test_the_weight_of_the_divergence_rises_on_a_line() -> None:
    found = [warm_up(share, end=0.3) for share in (0.0, 0.15, 0.3, 1.0)]
    assert found == pytest.approx([1e-4, 0.5, 1.0, 1.0])
    assert warm_up(0.0, end=0.0) == 1.0


def test_levels_are_balanced_until_the_weight_is_one() -> None:
    kl = torch.tensor([[1.0, 9.0], [3.0, 11.0]]) - 0.01
    sizes = torch.tensor([1.0, 4.0])
    # Mean divergences 2 and 10, per size 2 and 2.5, over their mean 2.25.
    torch.testing.assert_close(kl_weights(kl, sizes, weight=0.5), 0.5 * torch.tensor([2 / 2.25, 2.5 / 2.25]))
    assert torch.equal(kl_weights(kl, sizes, weight=1.0), torch.ones(2))
    assert not kl_weights(kl.requires_grad_(), sizes, weight=0.5).requires_grad


def test_sizes_of_levels_are_the_published_balance_where_all_scales_have_equally_many() -> None:
    network = NVAE((1, 16, 16), groups=(2, 2, 2), cells=1, latent_channels=1, channels=4, block_cells=1, mixtures=1)
    sizes = level_sizes(network)
    assert (sizes / sizes.min()).tolist() == [1, 1, 4, 4, 16, 16]


def test_the_loss_is_the_negative_bound_and_the_penalties() -> None:
    network = NVAE((1, 8, 8), groups=(1, 1), cells=1, latent_channels=1, channels=4, block_cells=1, mixtures=2)
    module = HierarchicalVAETraining(network, warm_up_share=0.0, regularization=0.1, perturbation=Plain(), learning_rate=1e-3)
    images = torch.rand(4, 1, 8, 8)
    with seeded(1):
        mixture, kl = network(images)
    expected = (kl.sum(1) - mixture.log_prob(images).sum((1, 2))).mean()
    with seeded(1):
        loss, figures = next(module.steps(images, torch.zeros(4, dtype=torch.int64), Moment()))
    torch.testing.assert_close(loss - 0.1 * figures["penalty"], expected, rtol=1e-4, atol=0)


def test_statistics_are_those_of_samples_and_the_encoder_keeps_its_own() -> None:
    network = NVAE((1, 8, 8), groups=(1, 1), cells=1, latent_channels=1, channels=4, block_cells=1, mixtures=2, temperature=0.6)
    network.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    seen: list[Tensor] = []
    norm = network.get_submodule("postprocessing_block.block_0.cell_0.residual.1")
    handle = norm.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    reestimate_batch_norm(network, passes=3, batch_size=10, seed=0)
    handle.remove()
    assert not network.training
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.momentum == 0.05
    means = torch.stack([batch.mean((0, 2, 3)) for batch in seen])
    assert len(seen) == 3
    torch.testing.assert_close(norm.running_mean, means.mean(0))
    after = network.state_dict()
    moved = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert moved
    assert all("running" in key or "tracked" in key for key in moved)
    assert not any(key.startswith(("encoder", "preprocessing")) for key in moved)
    reestimate_batch_norm(network, passes=0, batch_size=10, seed=0)
    assert all(torch.equal(value, after[key]) for key, value in network.state_dict().items())


@pytest.mark.slow  # a resumed run is among the fast tests
def test_nvae_learns_digits_and_comes_back_as_it_was_measured(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    path = train(small_nvae(), **TINY, epochs=6, out=tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    losses = logged(tmp_path / "nvae-fashion", "error")
    assert losses[-1] < 0.9 * losses[0]
    card = read_card(path)
    assert card.architecture == "NVAE"
    assert "Adamax" in card.what
    network = load_generator("nvae-fashion", weights=path)
    assert isinstance(network, NVAE)
    assert network.num_levels == 3
    assert network.temperature == 0.6
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    measured = small_nvae().measure(network, [load_data("mnist-embedded", "test")], few=20)
    assert measured == {key: value for key, value in card.metrics.items() if key != "training seconds"}
    assert [key.split(",")[0] for key in measured] == [
        "mean squared reconstruction error",
        "bits per dimension",
        "accuracy of cnn-mnist on images",
        "accuracy of cnn-mnist on reconstructions",
        "FID of samples on features of cnn-mnist (576 before its last layer)",
        "FID of reconstructions on features of cnn-mnist (576 before its last layer)",
    ]


def test_resumed_training_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = TINY | {"limit": 96, "epochs": 2}
    monkeypatch.setattr("gencls.zoo.training.methods.generators.GeneratorPreset.measure", lambda *args, **kwargs: {})
    whole = train(small_nvae(), **tiny, out=tmp_path / "whole")
    found = resumed(small_nvae(), at=5, **tiny, out=tmp_path / "stopped")  # in the second epoch
    assert found.read_bytes() == whole.read_bytes()
    again = train(small_nvae(), **tiny, out=tmp_path / "stopped", resume=True)  # nothing is left to do
    assert again.read_bytes() == whole.read_bytes()


def test_images_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GenclsError, match=r"expected images of shape \(1, 32, 32\), got \(1, 28, 28\) from mnist-embedded"):
        train(replace(small_nvae(), shape=(1, 32, 32)), **TINY, out=tmp_path)


def test_wrong_settings() -> None:
    network = NVAE((1, 8, 8), groups=(1, 1), cells=1, latent_channels=1, channels=4, block_cells=1, mixtures=2)
    with pytest.raises(GenclsError, match=r"expected warm_up_share in \[0, 1\]"):
        HierarchicalVAETraining(network, warm_up_share=2.0, perturbation=Plain(), learning_rate=1e-3)
