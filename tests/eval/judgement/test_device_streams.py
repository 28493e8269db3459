"""``streams="device"``: torch's own generator draws for whole batches, here that of the CPU."""

import json

import pytest
import torch
from torch import nn

from gencls import cli
from gencls.core import GenclsError, forward_draws
from gencls.core.streams.keyed import drawing, repeated
from gencls.defenses import ABS, PlainClassifier
from gencls.eval import FGSM, PGD, GaussianNoiseAttack, Protocol, Study, ThreatModel, evaluate
from gencls.eval.judgement.roles import Roles
from gencls.eval.scores.probe import probe_defense
from gencls.eval.study.plan import relevant
from tests.strangers import defenses as strangers
from tests.toys import SigmoidDecoders, small_cnn

ATTACKS = {"pgd": PGD(ThreatModel("linf", 0.1), steps=2), "noise": GaussianNoiseAttack(ThreatModel("linf", 0.1), tries=2)}


class Noisy(nn.Module):
    """Draws for each row; keeps what it drew."""

    def __init__(self):
        super().__init__()
        self.network, self.drawn = small_cnn(), []

    def forward(self, images):
        noise = 0.3 * torch.randn_like(images)
        self.drawn.append(noise)
        return self.network(images + noise)


@pytest.fixture
def samples():
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    return images, small_cnn()(images).argmax(dim=1)


def noisy():
    return PlainClassifier(Noisy(), 4, stochastic=True).eval()


def run(samples, *, defense=None, size=6, **settings):
    settings = {"streams": "device", "eot_samples": 3, "judge_draws": 8, "most_draws": 8, **settings}
    batches = zip(*(part.split(size) for part in samples), strict=True)
    return evaluate(defense or noisy(), ATTACKS, list(batches), **settings)


def same(first, second):
    drawn = [found.records.sort_values(["attack", "sample_hash"])["predictions"].tolist() for found in (first, second)]
    pairs = [(first.adversarials[key], second.adversarials[key]) for key in first.adversarials]
    return drawn[0] == drawn[1] and all(torch.allclose(*pair, rtol=0, atol=1e-5) for pair in pairs)  # convolutions round


def test_it_repeats_and_is_not_that_of_rows(samples):
    torch.manual_seed(1)
    first = run(samples)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert same(run(samples), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not same(run(samples, streams="rows"), first)
    assert not same(run(samples, seed=1), first)
    assert not same(run(samples, size=4), first)  # what is lost
    assert same(run(samples, size=4, streams="rows"), run(samples, streams="rows"))


def test_rows_of_random_defenses_say_so(samples):
    def said(**settings):
        return run(samples, **settings).records["warnings"].str.contains("drew for whole batches").tolist()

    assert all(said())
    assert not any(said(streams="rows"))
    assert not any(said(streams="rows", defense=small_cnn()))


def test_rows_say_so_as_well_where_only_the_attack_drew(samples):
    attacks = {**ATTACKS, "fgsm": FGSM(ThreatModel("linf", 0.1))}
    records = evaluate(small_cnn(), attacks, [samples], streams="device").records
    said = records["warnings"].str.contains("drew for whole batches").groupby(records["attack"]).agg(["all", "any"])
    assert said.loc[["pgd", "noise"], "all"].all()
    assert not said.loc["fgsm", "any"]


def test_attacker_and_judge_draw_different_numbers(samples):
    defense = noisy()
    run(samples, defense=defense)
    rows = [tuple(row.flatten().tolist()) for drawn in defense.network.drawn for row in drawn]
    defense.network.drawn.clear()
    probe = probe_defense(defense, *samples)
    roles, meter = Roles(probe, list("abcdef"), 0, "device"), type("Meter", (), {"watch": False, "shared": False})
    drawn = []
    for role in (roles.judge("x"), roles.attack(list(range(6)), meter, "x"), roles.judge("y"), roles.judge("x")):
        with role:
            drawn.append(torch.randn(6, 3))
    assert torch.equal(drawn[0], drawn[3])
    assert len({tuple(each.flatten().tolist()) for each in drawn}) == 3
    assert len(set(rows)) > 0.5 * len(rows)


def test_draws_are_independent_and_common_ones_repeat():
    with drawing(range(4), "device") as noted:
        first, second = torch.randn(4, 5), torch.randn(4, 5)
        with repeated():
            common = torch.randn(4, 5)
        with repeated():
            assert torch.equal(torch.randn(4, 5), common)
    assert not torch.equal(first, second)
    assert noted.drew
    assert not noted.shared
    with drawing(range(1, 5), "device"), repeated():
        assert not torch.equal(torch.randn(4, 5), common)  # they follow from the rows


def test_rates_agree_with_separate_forwards(samples):
    found = run(samples, judge_draws=64, most_draws=64).records
    defense, (images, labels) = noisy(), samples
    with torch.no_grad():
        scores = forward_draws(defense, images, 400).view(6, 400, 4)
    truth = (scores.argmax(2) == labels.unsqueeze(1)).double().mean(1)
    rates = torch.tensor(found[found["attack"] == "noise"]["clean_correct"].tolist())
    error = (truth * (1 - truth) * (1 / 64 + 1 / 400)).sum().sqrt() / 6
    assert abs(rates.mean() - truth.mean()) <= 4 * error + 1e-9


def test_one_draw_for_the_batch_is_asked_image_by_image(samples):
    records = run(samples, defense=PlainClassifier(strangers.OneOfFive(), 4, stochastic=True).eval()).records
    assert any(len(set(row)) > 1 for row in records["clean_predictions"])


def test_a_warm_start_knows_its_samples_without_streams_of_rows(samples):
    defense, seen = ABS(SigmoidDecoders(), starts=16, steps=4, warm_steps=1).eval(), []
    resume = defense.resume
    defense.resume = lambda *args: seen.append(len(args[0])) or resume(*args)
    evaluate(defense, {"pgd": PGD(ThreatModel("l2", 1.0), steps=3)}, [samples], modes=("warm",), streams="device")
    assert seen


def test_it_is_part_of_the_key_and_recorded(samples, tmp_path):
    def study(name, **settings):
        protocol = Protocol(eot_samples=2, judge_draws=2, **settings)
        return Study(
            tmp_path / name, defenses={"d": noisy()}, attacks=ATTACKS, images=samples[0], labels=samples[1], protocol=protocol
        )

    rows, device = study("rows"), study("device", streams="device")
    assert {cell.key for cell in rows.cells()}.isdisjoint(cell.key for cell in device.cells())
    assert json.loads((device.folder / "study.json").read_text())["protocol"]["streams"] == "device"
    assert "streams" not in relevant(Protocol())  # as studies before there was a choice
    with pytest.raises(GenclsError, match="streams was rows and is now device; expected what is there to stay"):
        study("rows", streams="device")
    with pytest.raises(GenclsError, match="streams was device and is now rows; .* another folder$"):
        study("device")


@pytest.mark.parametrize("value", ["gpu", 3, None])
def test_another_source_is_refused(value):
    with pytest.raises(GenclsError, match="streams"):
        Protocol(streams=value)


def test_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["attack", "--defense", "cnn-noise-mnist", "--attack", "noise-linf", "--epsilon", "0.1", "--limit", "3"]
    assert cli.main([*words, "--draws", "2", "--eot", "2", "--streams", "device"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert "-device" in folder.name
    assert json.loads((folder / "study.json").read_text())["protocol"]["streams"] == "device"
    with pytest.raises(SystemExit):
        cli.main([*words, "--streams", "gpu"])
    assert "invalid choice: 'gpu'" in capsys.readouterr().err
