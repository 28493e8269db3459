"""Random, stateful and batch-dependent defenses of strangers: each is judged rightly, or refused in words."""

import numpy as np
import pandas as pd
import pytest
import torch

from gencls.core import GenclsError
from gencls.defenses import PlainClassifier
from gencls.eval import DDN, PGD, GaussianNoiseAttack, Study, ThreatModel, Transfer, evaluate, judge
from gencls.eval.scores.probe import observe
from tests.strangers import defenses as strangers

COUNT, DRAWS = 6, 8
NOISE = {"noise": GaussianNoiseAttack(ThreatModel("linf", 0.1), tries=1)}

SHARED = {
    **{f"resize, {source}": lambda source=source: strangers.ResizeAndPad(source) for source in strangers.SOURCES},
    "one of five": strangers.OneOfFive,
    "rotation": strangers.RandomRotation,
    "partly shared": strangers.PartlyShared,
    **{f"one entry, {entry}": lambda entry=entry: strangers.OneEntry(entry) for entry in strangers.ENTRIES},
}
UNKEYED = {
    "own generator": strangers.OwnGenerator,
    "own numpy": strangers.OwnNumpy,
    "counter": strangers.Counter,
    "clock": strangers.Clock,
}
FIXED = {
    "seeds itself": strangers.SeedsItself,
    "seeds itself per row": strangers.SeedsItselfPerRow,
    "seeds numpy": strangers.SeedsNumpy,
    "draws for nothing": strangers.DrawsForNothing,
}
LATER = {
    *(f"resize, {source}" for source in ("torch one", "torch three", "torch randint", "python choice")),
    *("rotation", "one entry, mean", "one entry, integer", "own numpy"),
}
"""Kinds of which another is among the fast tests."""


def each(*kinds):
    """Rows for these kinds."""
    return pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in LATER)) for kind in kinds])


COMPANY = {
    "batch norm": strangers.BatchNormOfTheBatch,
    "no running statistics": strangers.NoRunningStatistics,
    "attention": strangers.AttentionAcross,
    "ranks": strangers.RanksAcross,
    "mean": strangers.MeanOfTheBatch,
    "running sum": strangers.RunningSum,
    "mean of the followers": strangers.MeanOfTheFollowers,
    "expert": strangers.Expert,
    "mean of many": strangers.MeanOfManyImages,
}


@pytest.fixture(scope="module")
def samples():
    source = torch.Generator().manual_seed(5)
    images = torch.rand(COUNT, 1, 8, 8, generator=source)
    return images, strangers.small_cnn()(images).argmax(dim=1)


def declared(make):
    return PlainClassifier(make(), 4, stochastic=True).eval()


@torch.no_grad()
def truth(defense, images, labels, count=150):
    """Fraction of right decisions over separate forwards, per image."""
    right = sum((defense(images).argmax(dim=1) == labels).double() for _ in range(count))
    return right / count


def in_shards(defense, samples, size, **settings):
    batches = list(zip(*(part.split(size) for part in samples), strict=True))
    return evaluate(
        defense, settings.pop("attacks", NOISE), batches, judge_draws=DRAWS, most_draws=DRAWS, eot_samples=4, **settings
    ).records


@each(*SHARED)
def test_a_draw_that_serves_the_whole_batch_is_one_draw(kind, samples):
    """The judge's draws are independent: rates agree with separate forwards, and do not depend on the shards."""
    defense = declared(SHARED[kind])
    assert observe(defense, samples[0]).shared_draws
    expected = truth(defense, *samples)
    tables = {size: in_shards(defense, samples, size).set_index("sample_hash") for size in (1, COUNT)}
    rates = pd.DataFrame({size: table["clean_correct"] for size, table in tables.items()})
    assert (rates.nunique(axis=1) == 1).all()  # draws are keyed by sample and number, whichever batch they are in
    found = torch.tensor(tables[COUNT]["clean_correct"].to_numpy())
    # The mean over images lies within four standard errors of independent draws.
    error = (expected * (1 - expected) * (1 / DRAWS + 1 / 150)).sum().sqrt() / COUNT
    assert abs(found.mean() - expected.mean()) <= 4 * error + 1e-9


@pytest.mark.parametrize("smoothing", [(0.0,), pytest.param((0.1,), marks=pytest.mark.slow)])
@each(*SHARED)
def test_a_gradient_of_shared_draws_has_as_many_draws_as_it_says(kind, smoothing, samples):
    calls = []
    defense = declared(SHARED[kind])
    defense.network.register_forward_hook(lambda module, given, out: calls.append((len(given[0]), out.requires_grad)))
    attack = PGD(ThreatModel("linf", 0.1), steps=1, smoothing=smoothing, smoothing_draws=4)
    records = in_shards(defense, samples, COUNT, attacks={"pgd": attack})
    assert calls.count((COUNT, True)) == 4  # the gradient
    assert calls.count((COUNT, False)) >= 4  # a look at the end
    assert not [size for size, _ in calls if size > COUNT]
    assert (records["attack_draws"] == 4).all()


def test_a_draw_that_a_handful_does_not_show_is_one_draw(samples):
    """The cell is done again, image by image: rates agree with separate forwards."""
    images, labels = samples
    images = images.clone()
    images[:, :, 0, 0] = torch.where(torch.arange(COUNT) > 2, 1.0, 0.2).view(-1, 1)
    defense = declared(strangers.SometimesShared)
    assert not observe(defense, images).shared_draws
    expected = truth(defense, images, labels)
    records = in_shards(defense, (images, labels), COUNT)
    found = torch.tensor(records["clean_correct"].to_numpy())
    error = (expected * (1 - expected) * (1 / DRAWS + 1 / 150)).sum().sqrt() / COUNT
    assert abs(found.mean() - expected.mean()) <= 4 * error + 1e-9
    assert records["warnings"].str.contains("one draw serves the whole batch").all()
    assert any(len(set(row)) > 1 for row in records["clean_predictions"])


class DrawsItself:
    """An attack with a draw for the whole batch, from numpy."""

    uses_gradients = False
    passes = (1, 0)
    threat = ThreatModel("linf", 0.1)

    def __repr__(self):
        return "DrawsItself()"

    def __call__(self, model, images, labels):
        return (images + 0.1 * np.random.choice([-1.0, 1.0])).clamp(0, 1)


class NoisyPixels(strangers.Stranger):
    """Noise of its own for each image."""

    def forward(self, images):
        return self.network(images + 0.3 * torch.randn_like(images))


def test_draws_of_an_attack_are_not_the_defenses(samples):
    transfer = Transfer(declared(strangers.OneOfFive), PGD(ThreatModel("linf", 0.1), steps=1))
    defense = declared(NoisyPixels)
    records = in_shards(defense, samples, COUNT, attacks={"own": DrawsItself(), "transfer": transfer, **NOISE})
    assert not records["warnings"].str.contains("one draw serves").any()
    said = records.groupby("attack")["warnings"].apply(lambda rows: rows.str.contains("the attack draws once").all())
    assert said.to_dict() == {"own": True, "transfer": True, "noise": False}
    expected = in_shards(defense, samples, COUNT)
    assert records[records["attack"] == "noise"]["predictions"].tolist() == expected["predictions"].tolist()


@pytest.mark.parametrize("kind", ["resize, torch scalar", "resize, numpy", "one of five", "one entry, first"])
def test_the_judge_of_foreign_images_knows_shared_draws(kind, samples):
    """``judge`` is what scores images of other libraries."""
    images, labels = samples
    defense = declared(SHARED[kind])
    expected = truth(defense, images, labels)
    verdict = judge(defense, images, images, ThreatModel("linf", 0.1), count=64)
    found = verdict.decisions.correct(labels)
    error = (expected * (1 - expected) * (1 / 64 + 1 / 150)).sum().sqrt() / COUNT
    assert abs(found.mean() - expected.mean()) <= 4 * error + 1e-9
    split = [judge(defense, *pair, ThreatModel("linf", 0.1), count=64) for pair in zip(*[images.split(4)] * 2, strict=True)]
    assert torch.equal(torch.cat([part.predictions for part in split]), verdict.predictions)


@pytest.mark.parametrize("kind", [*UNKEYED, *COMPANY])
def test_the_judge_of_foreign_images_refuses_what_is_not_declared(kind, samples):
    with pytest.raises(GenclsError, match="stochastic|depend on one image only"):
        judge({**UNKEYED, **COMPANY}[kind](), samples[0], samples[0], ThreatModel("linf", 0.1), count=1)


@each(*SHARED, *UNKEYED)
def test_undeclared_randomness_is_refused(kind, samples, tmp_path):
    make = {**SHARED, **UNKEYED}[kind]
    for seed in range(2):
        with pytest.raises(GenclsError, match="stochastic"):
            evaluate(make(), NOISE, [samples], seed=seed)
    with pytest.raises(GenclsError, match="stochastic"):
        Study(tmp_path / "study", defenses={kind: make()}, attacks=NOISE, images=samples[0], labels=samples[1])
    assert not (tmp_path / "study").exists()


def test_rare_randomness_of_its_own_is_named_where_it_is_declared(samples):
    """Found before the attack or after it: the cell is done again and says so; never refused as a state."""
    said = 0
    for seed in range(10):
        defense = PlainClassifier(strangers.RarelyRandomInSecret(seed), 4, stochastic=True).eval()
        records = in_shards(defense, samples, COUNT, seed=seed)
        said += records["warnings"].str.contains("cannot be repeated").all()
    assert said >= 9


def test_declared_randomness_that_never_shows_is_named(samples):
    records = in_shards(declared(strangers.Stranger.plain), samples, COUNT)
    assert records["warnings"].str.contains("declared stochastic, but").all()


@pytest.mark.parametrize("kind", UNKEYED)
def test_randomness_that_no_seed_reaches_is_named_in_the_row(kind, samples):
    records = in_shards(declared(UNKEYED[kind]), samples, COUNT)
    assert records["warnings"].str.contains("cannot be repeated").all()


@pytest.mark.parametrize("kind", ["resize, numpy", "resize, python", "resize, torch randperm"])
def test_global_generators_are_keyed_and_put_back(kind, samples):
    """Two evaluations agree whatever was drawn between them, and a user's own numbers go on as if nothing had happened."""
    import random

    import numpy as np

    np.random.seed(1)
    random.seed(1)
    torch.manual_seed(1)
    expected = np.random.rand(), random.random(), torch.rand(1).item()
    np.random.seed(1)
    random.seed(1)
    torch.manual_seed(1)
    first = in_shards(declared(SHARED[kind]), samples, COUNT)
    assert (np.random.rand(), random.random(), torch.rand(1).item()) == expected
    second = in_shards(declared(SHARED[kind]), samples, COUNT)
    assert first["predictions"].tolist() == second["predictions"].tolist()


@pytest.mark.parametrize("kind", FIXED)
def test_what_seeds_itself_is_deterministic(kind, samples):
    images, _ = samples
    defense = FIXED[kind]()
    with torch.no_grad():
        labels = torch.cat([defense(image.unsqueeze(0)) for image in images]).argmax(dim=1)
    for size in (1, 4, COUNT):
        records = in_shards(defense, (images, labels), size)
        assert (records["clean_correct"] == 1.0).all()
        assert (records["draws"] == 1).all()


def test_a_module_that_seeds_torch_does_not_fix_the_draws_of_an_attack(samples):
    images, _ = samples
    defense = strangers.SeedsItself()
    labels = defense(images).argmax(dim=1)
    threat = ThreatModel("linf", 1e-4)  # nothing breaks, so that every try is made
    seen = []
    defense.register_forward_hook(lambda module, given, out: seen.append(given[0].clone()))
    evaluate(defense, {"noise": GaussianNoiseAttack(threat, tries=6)}, [(images, labels)])
    tries = [given for given in seen if len(given) == COUNT and not torch.equal(given, images)]
    near = [given for given in tries if (given - images).abs().max() <= 1.1e-4]  # not those of the look at the batch
    assert len({tuple(given.flatten().tolist()) for given in near}) >= 6


@pytest.mark.parametrize("kind", COMPANY)
def test_scores_that_depend_on_the_batch_are_refused_or_asked_alone(kind, samples):
    images, _ = samples
    with pytest.raises(GenclsError, match="depend on one image only"):
        evaluate(COMPANY[kind](), NOISE, [samples])
    defense = PlainClassifier(COMPANY[kind](), 4, batch_dependent=True).eval()
    with torch.no_grad():
        labels = torch.cat([defense(image.unsqueeze(0)) for image in images]).argmax(dim=1)
    tables = [in_shards(defense, (images, labels), size).set_index("sample_hash") for size in (1, 4, COUNT)]
    for table in tables:
        assert (table["clean_correct"] == 1.0).all()
        assert table["correct"].equals(tables[0]["correct"])


@pytest.mark.parametrize("make", [strangers.RarelyRandom, strangers.RarelyRandomInSecret])
def test_rare_randomness_is_refused(make, samples):
    """Nineteen of twenty seeds: what happens in one call of twenty cannot always be seen."""
    refused = 0
    for seed in range(20):
        defense = make(seed) if make is strangers.RarelyRandomInSecret else make()
        try:
            evaluate(defense, NOISE, [samples], seed=seed)
        except GenclsError as error:
            refused += "stochastic" in str(error) or "keeps a state" in str(error)
    assert refused >= 19


def test_a_batch_that_is_larger_than_the_first_is_looked_at_too(samples):
    images, labels = samples
    batches = [(images[:3], labels[:3]), (images, labels)]
    with pytest.raises(GenclsError, match="depend on one image only"):
        evaluate(strangers.MeanOfManyImages(), NOISE, batches)


def test_few_images_that_change_with_the_size_of_the_batch_are_named():
    """They may be rounding at a threshold, so nothing is refused, but nothing is silent either."""
    images = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(6))
    defense = strangers.LastOfMany()
    records = in_shards(defense, (images, defense.network(images).argmax(dim=1)), 30)
    assert records["warnings"].str.contains("1 of 30 images had other scores in a smaller batch").all()
    assert not in_shards(defense.network, (images, torch.zeros(30, dtype=torch.long)), 30)["warnings"].any()


def test_the_judge_of_foreign_images_asks_again(samples):
    """Wherever among its calls the network is exchanged, this is an error, but between the first look and the rest."""
    refused = exchanged = 0
    for skipped in range(40):
        defense = strangers.LateCounter()
        for _ in range(skipped):
            defense(samples[0])
        try:
            judge(defense, *[samples[0]] * 2, ThreatModel("linf", 0.1), count=1)
        except GenclsError as error:
            refused += "keeps a state" in str(error) or "stochastic" in str(error)
        exchanged += next(defense.calls) > 41
    assert exchanged - 1 <= refused <= exchanged
    assert refused >= 15


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "expected count >= 1"),
        ({"count": 1, "max_rows": 0}, "max_rows >= 1"),
        ({"count": 4, "most": 2, "labels": torch.zeros(COUNT, dtype=torch.long)}, "most >= count"),
    ],
)
def test_the_judge_of_foreign_images_checks_its_settings(settings, message, samples):
    with pytest.raises(GenclsError, match=message):
        judge(strangers.Stranger.plain(), *[samples[0]] * 2, ThreatModel("linf", 0.1), **settings)


def test_a_key_of_its_own_does_not_stand_for_what_was_seen_of_another_defense(samples, tmp_path):
    """Behaviour is remembered of the very same object only: a user's key may be older than his code."""
    for name, make in (("fixed", strangers.Stranger.plain), ("one", strangers.OneOfFive)):
        defense = PlainClassifier(make(), 4, stochastic=True).eval()
        defense.fingerprint_key = "version 1"
        study = Study(tmp_path / name, defenses={"d": defense}, attacks=NOISE, images=samples[0], labels=samples[1])
        assert study.probes["d"].behaviour.shared_draws == (name == "one")


def test_batch_statistics_that_one_image_does_not_have_are_explained(samples):
    with pytest.raises(GenclsError, match="BatchNormOfFeatures: expected scores of one image, got batch statistics"):
        evaluate(strangers.BatchNormOfFeatures(), NOISE, [samples])


def test_a_defense_that_changes_its_input_changes_a_copy(samples):
    before = samples[0].clone()
    evaluate(strangers.InPlace(), NOISE, [samples])
    assert torch.equal(samples[0], before)


def test_a_state_that_shows_only_later_is_refused(samples):
    with pytest.raises(GenclsError, match="keeps a state|stochastic"):
        in_shards(strangers.LateCounter(), samples, 1)


def test_a_coin_for_unsure_images_is_refused(samples):
    """Only what an attack makes of the images is unsure; the attack and the judge see different decisions."""
    refused = 0
    attack = {"ddn": DDN(ThreatModel("l2"), steps=20)}
    for seed in range(5):
        defense = strangers.Guard(seed)
        try:
            evaluate(defense, attack, [(samples[0], defense.network(samples[0]).argmax(dim=1))], seed=seed)
        except GenclsError as error:
            refused += "stochastic" in str(error)
    assert refused >= 4


def test_randomness_that_a_handful_does_not_show_is_refused(samples):
    images, labels = samples
    images = images.clone()
    images[:, :, 0, 0] = torch.where(torch.arange(COUNT) > 3, 1.0, 0.2).view(-1, 1)
    with pytest.raises(GenclsError, match="stochastic"):
        evaluate(strangers.SometimesRandom(), NOISE, [(images, labels)])
