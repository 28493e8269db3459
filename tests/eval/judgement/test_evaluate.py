import pytest
import torch
from torch import nn

from gencls.core import BPDA, Defense, GenclsError, TransformedClassifier
from gencls.defenses import ABS, GaussianNoise
from gencls.eval import FGSM, PGD, GaussianNoiseAttack, ThreatModel, evaluate
from gencls.eval.measures.summary import COLUMNS
from tests.toys import SigmoidDecoders, small_cnn

LINF, L2 = ThreatModel("linf", 0.05), ThreatModel("l2", 0.4)
ATTACKS = {"pgd": PGD(LINF, steps=5, restarts=2), "pgd-l2": PGD(L2, steps=5), "noise": GaussianNoiseAttack(LINF, tries=3)}


@pytest.fixture
def samples(digits, cnn):
    """Samples of which most are classified correctly."""
    images, labels = digits
    decisions = cnn(images).argmax(1)
    return images, torch.where(torch.arange(64) % 8 == 0, labels, decisions)


def batched(samples, size, order=None):
    images, labels = (part if order is None else part[order] for part in samples)
    return [(images[i : i + size], labels[i : i + size]) for i in range(0, len(images), size)]


def per_sample(result):
    """Records by sample and run, without what depends on the batch: cost."""
    records = result.records.drop(columns=["forwards", "backwards", "seconds", "peak_memory"])
    return records.sort_values(["sample_hash", "attack", "gradient"]).reset_index(drop=True)


def stable(defense):
    def run(samples, **settings):
        return per_sample(evaluate(defense, ATTACKS, samples, judge_draws=4, eot_samples=3, **settings))

    return run


DEFENSES = {
    "cnn": small_cnn,
    "noise": lambda: TransformedClassifier(GaussianNoise(0.1), small_cnn(), 4).eval(),
    "dropout": lambda: Dropout().eval(),
    "abs": lambda: ABS(SigmoidDecoders(), starts=16, steps=2).eval(),
}


class Dropout(Defense):
    """Drops pixels in eval mode too, through torch's own layers."""

    num_classes = 4
    stochastic = True

    def __init__(self):
        super().__init__()
        self.network = small_cnn()

    def forward(self, images):
        dropped = nn.functional.dropout(images, 0.1, training=True)
        scores = self.network(dropped)
        return scores + 0.05 * torch.distributions.Normal(0.0, 1.0).sample(scores.shape)


@pytest.mark.parametrize("name", DEFENSES)
def test_batches_and_order_do_not_matter(name, samples):
    run = stable(DEFENSES[name]())
    samples = tuple(part[:9] for part in samples)
    expected = run(batched(samples, 64))
    assert expected["warnings"].eq("").all()
    order = torch.randperm(len(samples[0]))
    for again in (run(batched(samples, 1)), run(batched(samples, 7)), run(batched(samples, 7, order))):
        for column in ("sample_hash", "predictions", "clean_predictions", "correct", "claimed", "valid"):
            assert again[column].tolist() == expected[column].tolist()
        assert (again["distance"] - expected["distance"]).abs().max() < 1e-4


def test_the_seed_decides(samples):
    run = stable(DEFENSES["noise"]())
    first = run(batched(samples, 64), seed=1)
    assert run(batched(samples, 64), seed=1).equals(first)
    assert run(batched(samples, 64), seed=2)["predictions"].tolist() != first["predictions"].tolist()


def test_the_random_state_is_left_alone(samples):
    state = torch.get_rng_state()
    stable(DEFENSES["dropout"]())(batched(samples, 16))
    assert torch.equal(torch.get_rng_state(), state)


def test_parameters_are_left_alone(samples):
    cnn = small_cnn()
    before = {key: value.clone() for key, value in cnn.state_dict().items()}
    evaluate(cnn, ATTACKS, [samples])
    assert all(torch.equal(value, before[key]) for key, value in cnn.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in cnn.parameters())
    assert not cnn.training


class TwoModes(Defense):
    """The exact gradient is zero; another mode, the identity's, is useful."""

    num_classes = 4

    def __init__(self):
        super().__init__()
        self.network = small_cnn()

    def forward(self, images):
        return self.network((images * 255).round() / 255)

    def surrogates(self):
        return {"exact": self, "bpda": BPDA(self, self.network)}


def test_every_declared_mode_is_attacked_and_the_worst_counts(samples):
    result = evaluate(TwoModes().eval(), {"pgd": PGD(LINF, steps=10, random_start=False), "noise": ATTACKS["noise"]}, [samples])
    records, summary = result.records, result.summary()
    assert list(records[["attack", "gradient"]].drop_duplicates().itertuples(index=False, name=None)) == [
        ("pgd", "exact"),
        ("pgd", "bpda"),
        ("noise", "none"),
    ]
    assert set(result.adversarials) == {("pgd", "exact"), ("pgd", "bpda"), ("noise", "none")}
    rows = summary.set_index(["attack", "gradient"])["robust_accuracy"]
    assert rows["pgd", "exact"] == rows.max()  # blocked: the images did not move
    assert rows["pgd", "bpda"] < rows["pgd", "exact"] - 0.3
    worst = records.groupby("sample_hash")["correct"].min()
    assert rows["worst case", "all"] == worst.mean() <= rows.min()
    assert "weaker than noise" in summary["warnings"][0] or rows["noise", "none"] == rows["pgd", "exact"]


def test_the_worst_case_is_taken_per_sample(samples):
    """Two attacks that break different samples: together they break more than either."""

    class Half:
        threat = LINF
        uses_gradients = False
        passes = (0, 0)

        def __init__(self, part):
            self.part = part

        def __repr__(self):
            return f"Half({self.part})"

        def __call__(self, model, images, labels):
            moved = PGD(LINF, steps=10)(model, images, labels)
            chosen = (images[:, 0, 0, 0] > 0.5) == bool(self.part)
            return torch.where(chosen.view(-1, 1, 1, 1), moved, images)

    result = evaluate(small_cnn(), {"first": Half(0), "second": Half(1)}, [samples])
    first, second, worst = result.summary()["robust_accuracy"]
    assert worst < min(first, second) - 0.1
    right = result.records["correct"].to_numpy().reshape(2, 64)
    assert worst == right.min(axis=0).mean()


def test_columns_and_counts(samples):
    result = evaluate(small_cnn(), ATTACKS, batched(samples, 20), name="plain")
    assert list(result.summary().columns) == COLUMNS
    assert len(result.records) == 64 * 3
    assert result.summary()["n"].eq(64).all()
    assert result.summary()["defense"].eq("plain").all()
    assert result.adversarials["pgd", "exact"].shape == (64, 1, 8, 8)
    assert (result.records["backwards"] > 0).eq(result.records["gradient"] != "none").all()
    clean = (small_cnn()(samples[0]).argmax(1) == samples[1]).double().mean()
    assert result.summary()["clean_accuracy"].eq(clean.item()).all()
    assert result.summary()["ci_low"].le(result.summary()["robust_accuracy"]).all()
    assert result.summary()["ci_high"].ge(result.summary()["robust_accuracy"]).all()


def test_clean_errors_count_as_broken_at_distance_zero(samples):
    images, labels = samples
    wrong = (small_cnn()(images).argmax(1) != labels).tolist()
    assert any(wrong)
    records = evaluate(small_cnn(), {"pgd": ATTACKS["pgd"]}, [samples]).records
    assert records["clean_correct"].tolist() == [0.0 if bad else 1.0 for bad in wrong]
    broken = records[[*wrong]]
    assert broken["correct"].eq(0).all()
    assert broken["distance"].eq(0).all()
    assert broken["claimed"].all()


def test_the_cost_is_counted(samples):
    """Without restarts: 4 gradients per attacked sample, a forward pass at its end, one for the claim, one of the judge."""
    images, labels = samples
    share = (small_cnn()(images).argmax(1) == labels).double().mean().item()
    row = evaluate(small_cnn(), {"pgd": PGD(LINF, steps=4, to_the_end=True)}, [samples]).summary().iloc[0]
    assert row["backwards"] == pytest.approx(4 * share)
    assert row["forwards"] == pytest.approx((4 + 1 + 1) * share + 1)


@pytest.mark.parametrize("reduce", ["logits", "probs", "loss"])
def test_reductions(reduce, samples):
    result = evaluate(DEFENSES["noise"](), {"pgd": PGD(LINF, steps=10)}, [samples], eot_samples=4, judge_draws=8, reduce=reduce)
    row = result.summary().iloc[0]
    assert row["robust_accuracy"] < row["clean_accuracy"] - 0.2
    assert row["draws"] == 8


def test_a_single_draw_with_losses_reduced(samples):
    row = evaluate(small_cnn(), {"pgd": PGD(LINF, steps=10)}, [samples], reduce="loss").summary().iloc[0]
    assert row["robust_accuracy"] < row["clean_accuracy"] - 0.2


def test_an_unknown_reduction(samples):
    with pytest.raises(GenclsError, match="expected reduce to be"):
        evaluate(DEFENSES["noise"](), ATTACKS, [samples], reduce="votes")


def test_a_claim_that_the_judge_does_not_confirm(samples):
    """The surrogate lies: every attack on it claims success."""

    class Liar(TwoModes):
        def surrogates(self):
            class Wrong(nn.Module):
                def forward(self, images):
                    scores = images.new_zeros(len(images), 4) + images.flatten(1).sum(1, keepdim=True) * 1e-3
                    return scores + torch.tensor([5.0, 0, 0, 0])

            return {"exact": Wrong()}

    chosen = samples[1] != 0
    result = evaluate(Liar().eval(), {"pgd": PGD(LINF, steps=2)}, [(samples[0][chosen], samples[1][chosen])])
    row = result.summary().iloc[0]
    assert row["claimed_robust_accuracy"] == 0.0
    assert row["robust_accuracy"] > 0.3
    assert f"the attack's own claim is {-100 * row['robust_accuracy']:+.1f} points from what the judge found" in row["warnings"]


def test_draws_that_cannot_be_keyed_are_reported(samples):
    class Permutes(Dropout):
        def forward(self, images):
            order = torch.randperm(64)
            return self.network(images.flatten(1)[:, order].view_as(images))

    class Shared(Dropout):
        def forward(self, images):
            return self.network(images) + 0.3 * torch.randn(1, 4)

    samples = tuple(part[:16] for part in samples)
    for defense in (Permutes(), Shared()):
        records = evaluate(defense.eval(), {"noise": ATTACKS["noise"]}, [samples], judge_draws=2, eot_samples=2).records
        assert records["warnings"].str.contains("one draw serves the whole batch").all()


def test_any_module_is_a_defense(samples):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    result = evaluate(network, {"fgsm": FGSM(LINF)}, [samples])
    assert result.records["defense"].eq("Sequential").all()
    assert result.records["gradient"].eq("exact").all()


def test_training_mode(samples):
    with pytest.raises(GenclsError, match="expected a defense in eval mode, got training mode"):
        evaluate(small_cnn().train(), ATTACKS, [samples])


@pytest.mark.parametrize(
    ("attacks", "batches", "message"),
    [
        ({}, [(torch.rand(1, 1, 8, 8), torch.tensor([0]))], "expected at least one attack, got none"),
        (ATTACKS, [], "expected at least one batch of samples, got none"),
        (ATTACKS, [(torch.rand(0, 1, 8, 8), torch.tensor([], dtype=torch.int64))], "expected at least one image, got an empty"),
        (ATTACKS, [(torch.rand(2, 1, 8, 8), torch.tensor([0, 4]))], r"expected values in 0\.\.3 .*, got values in 0\.\.4"),
        (ATTACKS, [(torch.rand(2, 1, 8, 8), torch.tensor([0, -1]))], r"got values in -1\.\.0"),
        (ATTACKS, [(torch.rand(2, 1, 8, 8), torch.tensor([0]))], "expected 2 labels, one per image, got 1"),
        (ATTACKS, [(2 * torch.ones(2, 1, 8, 8), torch.tensor([0, 1]))], r"expected values in \[0, 1\], got values in \[2, 2\]"),
        (ATTACKS, [(torch.rand(2, 8, 8), torch.tensor([0, 1]))], "got rank 3"),
    ],
)
def test_bad_input(attacks, batches, message):
    with pytest.raises(GenclsError, match=message):
        evaluate(small_cnn(), attacks, batches)


def test_scores_that_are_not_finite(samples):
    class Broken(nn.Module):
        def forward(self, images):
            return small_cnn()(images) * float("nan")

    with pytest.raises(GenclsError, match="Broken: expected finite scores, got NaN or infinity in 64 rows"):
        evaluate(Broken().eval(), ATTACKS, [samples])


@pytest.mark.parametrize("draws", [{"eot_samples": 0}, {"judge_draws": 0}])
def test_bad_draws(draws, samples):
    with pytest.raises(GenclsError, match="expected eot_samples >= 1 and judge_draws >= 1"):
        evaluate(small_cnn(), ATTACKS, [samples], **draws)


class Odd(nn.Module):
    """A network whose scores are those of another, and whose gradient is what a test wants."""

    def __init__(self, network, change):
        super().__init__()
        self.network, self.change = network, change

    def forward(self, images):
        return self.change(self.network(images), images)


def nan_gradient(scores, images):
    return scores + (images * 0).abs().pow(0.5).sum() * 0  # the derivative of the root at 0 is infinite, times 0


def zero_gradient(scores, images):
    return scores.detach() + images.flatten(1)[:, :1] * 0


def detached(scores, images):
    return scores.detach()


@pytest.mark.parametrize(
    ("change", "message"),
    [(nan_gradient, "expected finite gradients, got NaN or infinity"), (detached, "expected scores with a gradient")],
)
def test_an_attack_without_a_gradient_is_no_attack(samples, change, message):
    with pytest.raises(GenclsError, match=message):
        evaluate(Odd(small_cnn(), change).eval(), {"pgd": PGD(LINF, steps=1)}, batched(samples, 64))


def test_zero_gradients_are_reported(samples):
    table = evaluate(Odd(small_cnn(), zero_gradient).eval(), {"pgd": PGD(LINF, steps=2)}, batched(samples, 64)).summary()
    assert "100 % of the gradients were exactly zero" in table["warnings"][0]


def test_a_module_that_hides_its_noise_is_refused(samples):
    noisy = Odd(small_cnn(), lambda scores, _: scores + torch.randn_like(scores)).eval()
    with pytest.raises(GenclsError, match="stochastic is not set, got others"):
        evaluate(noisy, {"pgd": PGD(LINF, steps=1)}, batched(samples, 64))


def test_repeated_samples_count_as_often_as_they_come(samples):
    images, labels = (torch.cat([part[:8], part[:3]]) for part in samples)
    table = evaluate(small_cnn(), {"pgd": PGD(LINF, steps=1)}, [(images[:6], labels[:6]), (images[6:], labels[6:])]).summary()
    assert set(table["n"]) == {11}
