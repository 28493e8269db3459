"""Random defenses whose mean scores say little about how many draws are wrong: smallest models, draws wrong after an attack.

Every draw of these models is linear in two numbers that an attack controls, so the best answers have a closed form.
"""

import pytest
import torch

from gencls import zoo
from gencls.core import Defense, keyed
from gencls.defenses import MLVGMPurification, TransformedClassifier
from gencls.eval import APGD, DDN, FMN, NES, PGD, CarliniWagner, DeepFool, RestartedCarliniWagner, ThreatModel
from gencls.eval.attacks.parts.attack_model import AttackModel
from gencls.eval.judgement.judge import predict
from gencls.eval.scores.margins import margin, mean_shortfall, shortfall
from tests.toys import small_cnn


class TwoKinds(Defense):
    """Draws of two kinds, each with its margin of class 0 over class 1; class 2 is far off.

    Let a and b be the changes of the means of the left and the right half of an image, times 8. In 4 x 4 pixels a change of L2
    length r moves (a, b) by 8 r / sqrt(8) at most. A margin is 1 - slope . (a, b), times the kind's scale.
    """

    stochastic = True
    num_classes = 3

    def __init__(self, share, slopes, scale=1.0):
        super().__init__()
        self.share = share  # of the draws of the first kind
        self.slopes = slopes  # of both kinds
        self.scale = scale  # of the first kind's scores
        self.eval()

    def forward(self, images):
        first = torch.rand(len(images)) < self.share
        moved = 8 * (images - 0.5).unflatten(3, (2, 2)).mean(dim=(1, 2, 4))
        slope = torch.tensor(self.slopes).to(images)[(~first).long()]
        lead = 1 - (slope * moved).sum(dim=1)
        scores = torch.stack([lead / 2, -lead / 2, -3 - 0 * lead], dim=1)
        return scores * torch.where(first, self.scale, 1.0).unsqueeze(1)


# A tenth of the draws has scores a hundred times as large, and is wrong exactly where the others are right.
LOUD = TwoKinds(0.1, [[-1.0, -1.0], [1.0, 1.0]], scale=100.0)
# Two fifths of the draws become wrong easily, the others slowly and by other pixels. In the ball all can be.
EAGER = TwoKinds(0.4, [[3.0, 0.0], [0.0, 1.0]])

BALL = ThreatModel("l2", 0.55)


def wrong_draws(model, images):
    return (predict(model, images, 256) != 0).double().mean(dim=1)


def attacked(model, attack, samples=16, count=4, **settings):
    images, labels = torch.full((count, 1, 4, 4), 0.5), torch.zeros(count, dtype=torch.int64)
    with keyed(range(count)):
        found = attack(AttackModel(model, samples=samples, **settings), images, labels)
    return wrong_draws(model, found), (found - images).flatten(1).norm(dim=1)


LOUD_ROWS = [
    PGD(BALL, steps=10, loss="margin"),
    PGD(BALL, steps=10, loss="multi-targeted", restarts=2),
    NES(BALL, steps=5, loss="margin", samples=10),
    APGD(BALL, steps=10, loss="dlr"),
    APGD(BALL, steps=10, loss="targeted-dlr", targets=2),
    APGD(BALL, steps=10, loss="multi-targeted", targets=2),
]
EAGER_ROWS = [PGD(BALL, steps=20, loss="margin"), PGD(BALL, steps=20, loss="multi-targeted", restarts=2)]


@pytest.mark.parametrize("attack", LOUD_ROWS, ids=str)
def test_few_draws_with_large_scores_do_not_hide_the_others(attack):
    """Means of scores went where a tenth of the draws is wrong."""
    wrong, _ = attacked(LOUD, attack)
    assert (wrong > 0.8).all(), wrong


@pytest.mark.parametrize("attack", EAGER_ROWS, ids=str)
def test_draws_that_are_wrong_by_far_no_longer_pull(attack):
    """The margin of mean scores went on for two fifths of the draws."""
    wrong, _ = attacked(EAGER, attack)
    assert (wrong == 1).all(), wrong


@pytest.mark.parametrize(
    "attack",
    [
        CarliniWagner(ThreatModel("l2"), searches=3, steps=20),
        RestartedCarliniWagner(ThreatModel("l2"), restarts=2, steps=20, learning_rate=0.02, regularisation=4.0, start_norm=0.5),
        DeepFool(ThreatModel("l2"), steps=10),
        DDN(ThreatModel("l2"), steps=20),
        FMN(ThreatModel("l2"), steps=20),
    ],
    ids=str,
)
def test_attacks_that_minimise_the_distance_find_what_most_draws_get_wrong(attack):
    """With the mean scores in place of the draws all but FMN found nothing for some images or all."""
    wrong, distance = attacked(LOUD, attack)
    assert (wrong > 0.8).all(), wrong
    # (a, b) must be beyond 1 / 4 in length for the common draws, 16 of which are all common only now and then.
    assert (distance > 0.24).all()
    assert (distance < 0.5).all(), distance


def test_a_deterministic_defense_is_attacked_as_before():
    network, images, labels = small_cnn(), torch.rand(5, 1, 8, 8), torch.arange(5) % 4
    model, asked = AttackModel(network), images.clone().requires_grad_()
    scores, others = network(asked).double(), (labels + 1) % 4
    rows = torch.arange(5)
    for targeted, targets, value in (
        (False, None, -margin(scores, labels)),
        (True, None, margin(scores, labels)),
        (False, others, scores[rows, others] - scores[rows, labels]),
    ):
        (expected,) = torch.autograd.grad(value.sum(), asked, retain_graph=True)
        missing = model.shortfall(model.per_draw(asked), labels, targets=targets, targeted=targeted)
        assert torch.equal(-missing, value)
        assert torch.equal(torch.autograd.grad(-missing.sum(), asked)[0], expected)
    response = model.look(images, labels)
    assert torch.equal(response.margin, margin(scores, labels).detach())


def gradient(draws, labels, **how):
    asked = draws.clone().requires_grad_()
    value = mean_shortfall(asked, labels, **how)
    return value.detach(), torch.autograd.grad(value.sum(), asked)[0]


@pytest.mark.parametrize("how", [{}, {"targeted": True}, {"targets": torch.tensor([1, 0, 3])}], ids=str)
def test_offset_and_scale_of_the_scores_do_not_matter(how):
    draws, labels = torch.randn(3, 5, 4, dtype=torch.float64), torch.tensor([0, 3, 2])
    value, slope = gradient(draws, labels, **how)
    scale, shift = torch.tensor([1e-3, 1.0, 1e5]).double().view(3, 1, 1), 1e3 * torch.randn(3, 5, 1).double()
    other, same = gradient(scale * draws + scale * shift, labels, **how)
    torch.testing.assert_close(other, value * scale.view(3), rtol=1e-9, atol=0)
    torch.testing.assert_close(same, slope, rtol=1e-9, atol=1e-12)


def test_the_largest_scale_of_few_draws_does_not_matter():
    draws, labels = torch.randn(2, 5, 4, dtype=torch.float64), torch.tensor([0, 3])
    louder = draws.clone()
    loudest = (draws.amax(2) - draws.mean(2)).argmax(dim=1)
    draws[torch.arange(2), loudest] *= 10  # beyond twice the median
    louder[torch.arange(2), loudest] *= 1000
    torch.testing.assert_close(gradient(louder, labels)[0], gradient(draws, labels)[0])


def test_draws_without_a_scale_say_nothing_about_that_of_the_others():
    draws, labels = torch.zeros(1, 5, 3, dtype=torch.float64), torch.tensor([0])
    draws[0, 3:] = torch.tensor([1e-6, 0.0, -1e-6])
    torch.testing.assert_close(gradient(draws, labels)[0], torch.tensor([2 / 5 * 1e-6]).double())


def test_the_mean_of_the_draws_margins():
    """Gaps 1, 2 and 100; margins 1.5 (right), -3 (wrong, by more than the median gap) and 150, on twice the median scale 6."""
    one = torch.tensor([[1.0, -0.5, -0.5], [-1.0, 2.0, -1.0], [100.0, -50.0, -50.0]], dtype=torch.float64)
    value, slope = gradient(one.unsqueeze(0), torch.tensor([0]))
    assert value.item() == pytest.approx((1.5 + (-2 - 0.01) + 6) / 3)
    assert slope[0, :, 0].tolist() == pytest.approx([1 / 3, 0.01 / 3, 0.04 / 3])


def test_the_single_draw_of_a_random_defense_has_its_margin():
    draws, labels = torch.randn(6, 1, 4, dtype=torch.float64), torch.arange(6) % 4
    right = draws.squeeze(1).argmax(1) == labels
    assert torch.equal(mean_shortfall(draws, labels)[right], shortfall(draws.squeeze(1), labels)[right])


def test_starts_of_a_random_defense_are_compared_on_64_draws():
    model = AttackModel(LOUD, samples=16)
    images = torch.full((3, 1, 4, 4), 0.5)
    with keyed(range(3)):
        PGD(ThreatModel("l2", 0.01), steps=2, restarts=2, loss="margin")(model, images, torch.zeros(3, dtype=torch.int64))
    assert model.meter.forwards == 3 * 2 * (2 * 16 + 64)


@pytest.mark.slow
def test_margins_find_no_less_than_the_cross_entropy_on_purified_digits():
    """Six digits on which losses disagreed; the margin of the mean scores left half of the draws right."""
    numbers = [2, 68, 117, 123, 142, 143]
    data = zoo.load_data("mnist-embedded", "test", limit=144)
    images, labels = data.images[numbers], data.labels[numbers]
    purification = MLVGMPurification(zoo.load_generator("nvae-mnist"), "linear")
    defense = TransformedClassifier(purification, zoo.load("cnn-mnist"), 10).eval()
    with keyed(numbers):
        found = PGD(ThreatModel("l2", 0.6), steps=20, loss="margin")(AttackModel(defense, samples=8), images, labels)
    wrong = (predict(defense, found, 64, max_rows=256) != labels.unsqueeze(1)).double().mean(dim=1)
    assert wrong.mean() > 0.6, wrong
