import pytest
import torch

from gencls.core import Defense, GenclsError, keyed
from gencls.eval import PGD, ThreatModel, evaluate
from gencls.eval.judgement.judge import decide, predict, verdict_of

LINF, L2 = ThreatModel("linf", 0.1), ThreatModel("l2", 0.5)


class Brightness(Defense):
    """Class 1 where the mean pixel exceeds a half; counts the rows that it is asked about."""

    num_classes = 2

    def __init__(self):
        super().__init__()
        self.rows = []

    def forward(self, images):
        self.rows.append(len(images))
        mean = images.flatten(1).mean(1)
        return torch.stack([0.5 - mean, mean - 0.5], dim=1)


class Coin(Defense):
    """Right (class 1) with a probability that the first pixel gives, independently for each draw."""

    num_classes = 2
    stochastic = True

    def forward(self, images):
        heads = torch.rand(len(images)) < images[:, 0, 0, 0]
        return torch.stack([~heads, heads], dim=1).float()


class Returns:
    """An attack that returns given images, whatever they are."""

    uses_gradients = False
    passes = (0, 0)

    def __init__(self, threat, change):
        self.threat = threat
        self.change = change

    def __repr__(self):
        return "Returns()"

    def __call__(self, model, images, labels):
        return self.change(images.clone())


@pytest.fixture
def images():
    found = 0.4 + 0.05 * torch.rand(6, 1, 4, 4)
    found[2, 0, 0, 0], found[5, 0, 3, 3] = 0.05, 0.95  # where a step within the ball leaves [0, 1]
    return found


def spoilt(images):
    """Six adversarials: fine, out of the ball, negative, NaN, infinite, above 1."""
    found = images + 0.09
    found[1] = images[1] + 0.2
    found[2, 0, 0, 0] = -0.01
    found[3, 0, 1, 1] = float("nan")
    found[4, 0, 1, 1] = float("inf")
    found[5, 0, 3, 3] = 1.001
    return found


def test_what_breaks_the_rules_is_not_judged(images):
    adversarial = spoilt(images)
    assert LINF.allows(LINF.distance(images, adversarial)).tolist() == [True, False, True, False, False, True]
    defense = Brightness()
    verdict = verdict_of(defense, images, adversarial, LINF, count=1)
    assert verdict.valid.tolist() == [True, False, False, False, False, False]
    torch.testing.assert_close(verdict.images, adversarial, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(verdict.distances[0].item(), 0.09, rtol=0, atol=1e-6)
    assert verdict.distances[1:].isnan().all()
    assert verdict.predictions.tolist() == [[1]] + 5 * [[-1]]
    assert defense.rows == [1]  # nobody was asked about the others
    labels = torch.ones(6, dtype=torch.int64)
    assert verdict.decisions.correct(labels).isnan().tolist() == [False] + 5 * [True]
    assert not verdict.decisions.undecided(labels)[1:].any()
    assert verdict.broken(1 - labels).tolist() == [True] + 5 * [False]
    torch.testing.assert_close(verdict.left_range, torch.tensor([0, 0, 0.01, torch.inf, torch.inf, 0.001]).double())
    torch.testing.assert_close(verdict.left_ball, torch.tensor([0, 0.1, 0, 0, 0, 0]).double(), rtol=0, atol=1e-6)


class Features(ThreatModel):
    """A distance by a network that has parameters, and takes images in [0, 1] only."""

    def distance(self, clean, adversarial):
        network = torch.nn.Conv2d(1, 1, 1, bias=False)
        torch.nn.init.constant_(network.weight, 2.0)
        for images in (clean, adversarial):
            assert len(images)
            assert torch.isfinite(images).all()
            assert images.min() >= 0
            assert images.max() <= 1
        return (network(adversarial) - network(clean)).double().flatten(1).norm(dim=1)


@pytest.mark.parametrize("eight_bit", [False, True])
def test_a_threat_sees_images_that_keep_to_the_rules_and_no_gradients(images, eight_bit):
    threat = Features("l2", 1.0)
    verdict = verdict_of(Brightness(), images, spoilt(images), threat, count=1, eight_bit=eight_bit)
    assert not verdict.distances.requires_grad
    assert verdict.valid.tolist() == [True] + 5 * [False]
    torch.testing.assert_close(verdict.distances[0].item(), 2 * 4 * 0.09, rtol=0, atol=2e-2 if eight_bit else 1e-6)
    assert verdict.left_ball[1] > 0
    assert not verdict.left_ball[2:].any()
    outside = verdict_of(Brightness(), images, images + 2, threat, count=1, eight_bit=eight_bit)
    assert outside.distances.isnan().all()


@pytest.mark.parametrize("threat", [LINF, L2])
def test_the_tolerance_is_rounding_and_no_more(threat, images):
    direction = torch.ones_like(images) if threat.norm == "linf" else torch.ones_like(images) / 4
    for excess, valid in ((0.0, True), (5e-7, True), (5e-6, False)):
        inside = images.double().clamp(max=0.5)
        verdict = verdict_of(Brightness(), inside, inside + (threat.epsilon + excess) * direction, threat, count=1)
        assert verdict.valid.tolist() == [valid] * 6


def test_distances_are_measured_from_the_images(images):
    adversarial = (images + 0.05 * torch.randn_like(images)).clamp(0, 1)
    for norm, order in (("linf", torch.inf), ("l2", 2)):
        verdict = verdict_of(Brightness(), images, adversarial, ThreatModel(norm), count=1)
        expected = (adversarial.double() - images.double()).flatten(1).norm(p=order, dim=1)
        torch.testing.assert_close(verdict.distances, expected)
        assert verdict.valid.all()


def test_another_shape(images):
    with pytest.raises(GenclsError, match=r"expected images of shape \(6, 1, 4, 4\), got \(5, 1, 4, 4\)"):
        verdict_of(Brightness(), images, images[:5], LINF, count=1)


def test_the_evaluation_reports_what_was_not_valid(images):
    result = evaluate(Brightness().eval(), {"broken": Returns(LINF, spoilt)}, [(images, torch.zeros(6, dtype=torch.int64))])
    assert result.records["valid"].tolist() == [True, False, False, False, False, False]
    assert result.records["correct"].isna().tolist() == [False] + 5 * [True]
    assert result.records["distance"].isna().tolist() == [False] + 5 * [True]
    table = result.summary()
    assert table[["n", "excluded", "robust_accuracy"]].to_numpy().tolist() == 2 * [[1, 5, 0.0]]
    rules = (
        "5 of 6 adversarials broke the rules (NaN or infinite pixels, left [0, 1] by up to 0.01, left the ball by up to 0.1)"
    )
    assert rules + " and are excluded: N = 1" in table["warnings"][0]
    assert rules + ", samples without a valid one are excluded: N = 1" in table["warnings"][1]


def test_draws_are_split_into_passes(images):
    defense = Brightness()
    assert predict(defense, images, 7, max_rows=20).shape == (6, 7)
    assert defense.rows == [18, 18, 6]
    assert predict(defense, images, 2, max_rows=1).shape == (6, 2)  # at least one draw of every image


def test_passes_do_not_change_the_draws():
    images = torch.full((5, 1, 2, 2), 0.5)
    found = []
    for rows in (5, 15, 1000):
        with keyed(range(5)):
            found.append(predict(Coin(), images, 12, max_rows=rows))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert 0.2 < found[0].double().mean() < 0.8


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite(bad, images):
    class Broken(Brightness):
        def forward(self, images):
            scores = super().forward(images)
            scores[1] = bad
            return scores

    with pytest.raises(GenclsError, match="Broken: expected finite scores, got NaN or infinity in 1 rows"):
        verdict_of(Broken(), images, images, LINF, count=1)


def test_accuracies_of_a_stochastic_defense_that_is_known():
    """Sample i is right with probability p_i in each of 200 draws, whatever the attack does to the other pixels."""
    chances = torch.tensor([0.0, 0.3, 0.45, 0.6, 0.8, 0.9, 0.97, 1.0]).repeat(5)
    images = torch.full((40, 1, 3, 3), 0.5)
    images[:, 0, 0, 0] = chances
    images[:, 0, 2, 2] = torch.linspace(0.2, 0.7, 40)  # samples are told apart by their pixels

    def other_pixels(images):
        images[:, 0, 1, 1] += 0.1
        return images

    labels = torch.ones(40, dtype=torch.int64)
    result = evaluate(Coin().eval(), {"none": Returns(LINF, other_pixels)}, [(images, labels)], judge_draws=200, most_draws=200)
    row = result.summary().iloc[0]
    assert row["draws"] == 200
    assert row["n"] == 40
    # The standard error of the mean over 40 samples of 200 draws is below 0.005.
    assert row["robust_accuracy"] == pytest.approx(chances.mean().item(), abs=0.02)
    assert row["clean_accuracy"] == pytest.approx(chances.mean().item(), abs=0.02)
    predictions = torch.tensor(result.records["predictions"].tolist())
    assert predictions.shape == (40, 200)
    share = predictions.double().mean(1)
    torch.testing.assert_close(share, chances.double(), rtol=0, atol=0.15)  # 4 standard errors of one sample
    assert row["robust_accuracy"] == pytest.approx(share.mean().item())
    assert row["majority_accuracy"] == pytest.approx((share > 0.5).double().mean().item()) == pytest.approx(5 / 8, abs=0.05)
    assert row["any_draw_accuracy"] == pytest.approx(1 / 8)  # with 200 draws even 0.97 is wrong once
    # The judge's draws on the clean and on the adversarial image are different ones.
    assert result.records["predictions"].tolist() != result.records["clean_predictions"].tolist()


def test_more_draws_are_made_only_of_samples_whose_majority_is_open():
    chances = torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0])
    images = torch.full((5, 1, 3, 3), 0.5)
    images[:, 0, 0, 0] = chances
    labels = torch.ones(5, dtype=torch.int64)
    with keyed(range(5)):
        decisions = decide(Coin().eval(), images, labels, 32, 512)
    made = (decisions.predictions >= 0).sum(1)
    assert made.tolist()[0] == made.tolist()[4] == 32  # all draws agree
    assert made[2] == 512  # nothing to decide
    assert decisions.undecided(labels).tolist() == [False, False, True, False, False]
    assert decisions.majority_correct(labels).tolist()[3:] == [True, True]
    with keyed(range(5)):
        first = predict(Coin().eval(), images, 32)
    assert torch.equal(decisions.predictions[:, :32], first)
    assert torch.equal(decisions.correct(labels), (first == 1).double().mean(1))  # of these only: no optional stopping
    assert [len(row) for row in decisions.lists()] == made.tolist()
    with keyed([2]):  # alone
        assert torch.equal(decide(Coin().eval(), images[2:3], labels[2:3], 32, 512).predictions[0], decisions.predictions[2])


def test_the_sign_test_keeps_its_error():
    """Of samples that are right in exactly half of the draws, at most 5 % are called decided at any of the looks."""
    images = torch.full((500, 1, 1, 1), 0.5)
    labels = torch.ones(500, dtype=torch.int64)
    with keyed(range(500)):
        decisions = decide(Coin().eval(), images, labels, 16, 128)
    stopped = (decisions.predictions >= 0).sum(1) < 128
    assert stopped.double().mean() <= 0.05 + 3 * (0.05 * 0.95 / 500) ** 0.5


def test_the_value_of_a_noisy_classifier_is_unbiased():
    """The short form of the test below: one run, all in closed form."""
    defense = NoisyPair().eval()
    images = 0.2 + 0.6 * torch.rand(400, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    labels = (defense.gap(images) > 0).long()
    attacks = {"none": Returns(ThreatModel("l2", 0.1), lambda x: x)}
    row = evaluate(defense, attacks, [(images, labels)], eot_samples=1, judge_draws=32).summary().iloc[0]
    truth = defense.chance(images, labels).mean().item()
    assert row["robust_accuracy"] == pytest.approx(truth, abs=3 * (0.25 / (400 * 32)) ** 0.5)
    assert row["ci_low"] <= truth <= row["ci_high"]


def test_a_sequential_judge_needs_labels(images):
    with pytest.raises(GenclsError, match="expected labels where more draws are made"):
        verdict_of(Brightness(), images, images, LINF, count=1, most=4)


class NoisyPair(Defense):
    """Two classes, linear scores with Gaussian noise: the chance to be right has a closed form."""

    num_classes, stochastic, sigma = 2, True, 0.5

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.randn(16, generator=torch.Generator().manual_seed(3)))

    def gap(self, images):
        return (images - 0.5).flatten(1) @ self.weight

    def forward(self, images):
        gap = self.gap(images) + self.sigma * torch.randn_like(images[:, 0, 0, 0])
        return torch.stack([-gap, gap], dim=1)

    def chance(self, images, labels):
        return torch.special.ndtr((2 * labels - 1) * self.gap(images) / self.sigma)


@pytest.mark.slow
def test_the_interval_of_a_noisy_classifier_covers_the_truth():
    """100 runs on fresh images; the truth is the mean chance on what each run's attack found, and over all runs."""
    defense, threat = NoisyPair().eval(), ThreatModel("l2", 0.1)
    with keyed([0]):
        image = torch.full((1, 1, 4, 4), 0.52)
        drawn = (predict(defense, image, 10_000) == 1).double().mean().item()
    assert drawn == pytest.approx(defense.chance(image, torch.tensor([1])).item(), abs=0.02)  # 4 standard errors
    source, covered, rows, truths = torch.Generator().manual_seed(0), [], [], []
    for seed in range(100):
        images = 0.2 + 0.6 * torch.rand(50, 1, 4, 4, generator=source)
        labels = (defense.gap(images) > 0).long()
        result = evaluate(
            defense, {"pgd": PGD(threat, steps=3)}, [(images, labels)], eot_samples=4, judge_draws=8, most_draws=8, seed=seed
        )
        row = result.summary().iloc[0]
        found = result.adversarials["pgd", "exact"]
        truths.append(defense.chance(found, labels).mean().item())
        rows.append(row)
    overall = sum(truths) / len(truths)
    covered = [row["ci_low"] <= overall <= row["ci_high"] for row in rows]
    assert sum(covered) >= 93
    assert sum(row["ci_low"] <= truth <= row["ci_high"] for row, truth in zip(rows, truths, strict=True)) >= 93
    assert sum(row["robust_accuracy"] for row in rows) / 100 == pytest.approx(overall, abs=0.01)  # unbiased
    assert {"claimed_robust_accuracy", "robust_accuracy"} <= set(rows[0].index)
