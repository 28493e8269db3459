"""A study computes what was planned: nothing that has changed since then is recorded under the old keys."""

import pytest
import torch
from torch import nn

from gencls.core import GenclsError
from gencls.eval import FGSM, PGD, Protocol, Study, ThreatModel, Transfer, evaluate
from gencls.eval.judgement.runner import Runner
from tests.toys import NoisyLogits, small_cnn

LINF = ThreatModel("linf", 0.05)


class Caching(nn.Module):
    """Keeps what it has computed once, so that its key changes."""

    def __init__(self):
        super().__init__()
        self.network, self._last = small_cnn(seed=2), None

    def forward(self, images):
        self._last = self.network(images)
        return self._last


def samples(count=6):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(3)), torch.arange(count) % 4


def study(folder, **changes):
    images, labels = samples()
    settings = {"defenses": {"net": small_cnn()}, "attacks": {"pgd": PGD(LINF, steps=2)}, "images": images, "labels": labels}
    return Study(folder, **{**settings, **changes})


def nothing_is_recorded(folder):
    return not any((folder / "cells").iterdir()) and not (folder / "results.csv").exists()


@pytest.mark.parametrize("which", ["images", "labels"])
def test_samples_that_changed_are_not_attacked(which, tmp_path):
    """A buffer that is used for something else before the study runs."""
    images, labels = samples()
    planned = study(tmp_path, images=images, labels=labels)
    if which == "images":
        images.copy_(1 - images)
    else:
        labels.copy_((labels + 1) % 4)
    with pytest.raises(GenclsError, match="expected the samples that the study was planned with, got others"):
        planned.run()
    assert nothing_is_recorded(tmp_path)
    assert study(tmp_path).run()["n"].tolist() == [6, 6]


def test_mappings_are_read_only_copies(tmp_path):
    defenses, attacks = {"net": small_cnn()}, {"pgd": PGD(LINF, steps=2)}
    planned = study(tmp_path, defenses=defenses, attacks=attacks)
    for mapping, other in ((planned.defenses, small_cnn(seed=1)), (planned.attacks, FGSM(LINF))):
        with pytest.raises(TypeError, match="does not support item assignment"):
            mapping[next(iter(mapping))] = other
    attacks["pgd"] = FGSM(LINF)
    defenses["more"] = small_cnn(seed=1)
    assert planned.attacks == {"pgd": PGD(LINF, steps=2)}
    assert [*planned.defenses] == ["net"]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("images", torch.zeros(6, 1, 8, 8)),
        ("labels", torch.zeros(6, dtype=torch.int64)),
        ("attacks", {"pgd": FGSM(LINF)}),
        ("defenses", {"net": nn.Identity()}),
        ("protocol", Protocol(eot_samples=3)),
        ("modes", ("exact",)),
        ("seeds", (1,)),
        ("shard_size", 3),
        ("hashes", ["0"] * 6),
        ("probes", {}),
    ],
)
def test_what_was_planned_cannot_be_replaced(name, other, tmp_path):
    planned = study(tmp_path)
    with pytest.raises(GenclsError, match=f"expected the {name} that it was planned with, got others; plan another study"):
        setattr(planned, name, other)


@pytest.mark.parametrize("random", [False, True])
def test_a_defense_that_changed_is_not_recorded(random, tmp_path):
    network = small_cnn()
    defense = NoisyLogits(network, sigma=0.1, num_classes=4).eval() if random else network
    planned = study(tmp_path, defenses={"net": defense})
    with torch.no_grad():
        next(network.parameters()).mul_(0.5)
    with pytest.raises(GenclsError, match="expected the defenses that the study was planned with, got others: net"):
        planned.run()
    assert nothing_is_recorded(tmp_path)


def test_a_finished_study_does_not_speak_for_a_defense_that_changed(tmp_path):
    """Its table would be that of the network as it was."""
    network = small_cnn()
    planned = study(tmp_path, defenses={"net": network})
    table = planned.run()
    with torch.no_grad():
        next(network.parameters()).mul_(0.5)
    with pytest.raises(GenclsError, match="expected the defenses that the study was planned with, got others: net"):
        planned.run()
    with torch.no_grad():
        next(network.parameters()).mul_(2)
    assert planned.run().equals(table)


def test_a_defense_that_keeps_something_may_run_twice(tmp_path):
    planned = study(tmp_path, defenses={"net": Caching().eval()})
    assert planned.run()["n"].tolist() == planned.run()["n"].tolist() == [6, 6]


def test_runners_are_made_once(tmp_path, monkeypatch):
    made, init = [], Runner.__init__

    def counted(self, *args):
        made.append(args[1])
        init(self, *args)

    monkeypatch.setattr(Runner, "__init__", counted)
    study(tmp_path, attacks={"pgd": PGD(LINF, steps=2), "fgsm": FGSM(LINF)}, shard_size=2).run()
    evaluate(small_cnn(), {"pgd": PGD(LINF, steps=2), "fgsm": FGSM(LINF)}, [samples(2), samples(4)])
    assert made == ["exact", "exact"]


def test_what_an_attack_holds_and_has_changed_is_not_used(tmp_path):
    source = small_cnn(seed=2)
    planned = study(tmp_path, attacks={"transfer": Transfer(source, FGSM(LINF))})
    with torch.no_grad():
        next(source.parameters()).mul_(0.5)
    with pytest.raises(GenclsError, match="expected the attacks that the study was planned with, got others: transfer"):
        planned.run()
    assert nothing_is_recorded(tmp_path)


def test_a_source_that_keeps_something_may_run_twice(tmp_path):
    planned = study(tmp_path, attacks={"transfer": Transfer(Caching().eval(), FGSM(LINF))})
    assert planned.run()["n"].tolist() == planned.run()["n"].tolist() == [6, 6]


def test_repeated_seeds_are_refused(tmp_path):
    """Each sample would count twice, and the intervals would be too narrow."""
    with pytest.raises(GenclsError, match="expected different seeds, got 0, 1, 0"):
        study(tmp_path / "study", seeds=(0, 1, 0))
    assert not (tmp_path / "study").exists()


def test_repeated_modes_are_one(tmp_path):
    assert set(study(tmp_path, modes=("exact", "exact")).run()["n"]) == {6}
