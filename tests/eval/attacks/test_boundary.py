import pytest
import torch

from gencls.core import GenclsError, keyed
from gencls.eval import AttackModel, ThreatModel
from gencls.eval.attacks.boundary import Boundary
from tests.toys import Linear, NoisyLogits, small_cnn

L2 = ThreatModel("l2")


def run(attack, model, images, labels, first=0):
    with keyed(range(first, first + len(images))):
        return attack(model, images, labels)


def linear_problem(count=16, shape=(1, 5, 7)):
    """Two classes, images near the middle, so that the closest other image lies in [0, 1]; its distance in closed form."""
    model = Linear(torch.randn(2, torch.Size(shape).numel()), torch.zeros(2)).eval()
    model.offset[:] = torch.stack([(0.5 * model.weight[1]).sum(), (0.5 * model.weight[0]).sum()])  # the middle is a tie
    images = 0.4 + 0.2 * torch.rand(count, *shape)
    scores = model(images)
    best = (scores[:, 0] - scores[:, 1]).abs() / (model.weight[0] - model.weight[1]).norm()
    return model, images, scores.argmax(1), best.double()


def test_close_to_the_closed_form():
    """On 35 pixels 3,000 queries come within 2 % of the optimum, 100 do not."""
    model, images, labels, best = linear_problem()
    ratio = L2.distance(images, run(Boundary(L2, queries=3000), model, images, labels)) / best
    assert (ratio >= 1 - 1e-4).all()
    assert ratio.max() < 1.02
    few = run(Boundary(L2, queries=100), model, images, labels)
    assert (L2.distance(images, few) / best).median() > 1.02
    assert (model(few).argmax(1) != labels).all()


def test_samples_are_the_same_in_every_batch():
    """In float64, where the rounding of another batch size decides nothing: a walk amplifies every bit."""
    cnn = small_cnn().double()
    images = torch.rand(6, 1, 8, 8, dtype=torch.float64)
    labels = cnn(images).argmax(1)
    attack = Boundary(L2, queries=300)
    together = run(attack, cnn, images, labels)
    alone = torch.cat([run(attack, cnn, images[i : i + 1], labels[i : i + 1], first=i) for i in range(6)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-9)
    assert (cnn(together).argmax(1) != labels).all()


class FirstPixel(torch.nn.Module):
    """Class 1 where the first pixel exceeds a half, else class 0; never class 2."""

    def forward(self, images):
        wrong = images[:, 0, 0, 0].unsqueeze(1) - 0.5
        return torch.cat([torch.zeros_like(wrong), wrong, torch.full_like(wrong, -1.0)], dim=1)


def test_a_failed_start_concerns_only_its_own_sample():
    """Nothing is of class 2, so targets of class 2 cannot be reached; targets of class 1 can."""
    images = torch.full((4, 1, 3, 3), 0.2)
    attack = Boundary(ThreatModel("l2", targeted=True), queries=1500, tries=20)
    found = run(attack, FirstPixel().eval(), images, torch.tensor([2, 1, 2, 1]))
    assert torch.equal(found[[0, 2]], images[[0, 2]])
    distance = L2.distance(images, found)[[1, 3]]
    assert (distance > 0.3 - 1e-6).all()  # the first pixel must rise to a half
    assert (distance < 0.31).all()


def test_wrong_images_stay_as_they_are_and_cost_one_query(cnn, digits):
    images, labels = digits[0], (cnn(digits[0]).argmax(1) + 1) % 4
    model = AttackModel(cnn)
    assert torch.equal(run(Boundary(L2, queries=100), model, images, labels), images)
    assert model.meter.forwards == 64


def test_the_budget_is_kept_and_converged_samples_leave():
    model, images, labels, _ = linear_problem()
    meter = AttackModel(model)
    run(Boundary(L2, queries=200), meter, images, labels)
    assert 16 * 190 < meter.meter.forwards <= 16 * 200
    meter = AttackModel(model)
    run(Boundary(L2, queries=20_000, converged=1e-3), meter, images, labels)
    assert meter.meter.forwards < 16 * 5_000


def test_starts_from_given_images():
    """Only the one of class 1 will do."""
    images = torch.full((3, 1, 3, 3), 0.2)
    pool = torch.full((2, 1, 3, 3), 0.1)
    pool[1, 0, 0, 0] = 0.9
    attack = Boundary(L2, starts=pool, queries=1500, tries=30)
    found = run(attack, FirstPixel().eval(), images, torch.zeros(3, dtype=torch.long))
    assert (L2.distance(images, found) < 0.31).all()
    useless = Boundary(L2, starts=pool[:1], queries=500, tries=30)
    assert torch.equal(run(useless, FirstPixel().eval(), images, torch.zeros(3, dtype=torch.long)), images)
    with pytest.raises(GenclsError, match="starts"):
        attack(FirstPixel().eval(), torch.rand(1, 1, 4, 4), torch.zeros(1, dtype=torch.long))


def test_digits_of_the_class_of_all_noise_are_attacked():
    """A CNN takes all uniform noise for an 8."""
    from gencls.zoo import load, load_data

    digits = load_data("mnist-embedded", "test", limit=200)
    model = load("cnn-mnist").eval()
    images, labels = digits.images.float(), digits.labels
    chosen = ((labels == 8) & (model(images).argmax(1) == 8)).nonzero().squeeze(1)[:4]
    assert (model(torch.rand(50, 1, 28, 28)).argmax(1) == 8).all()
    found = run(Boundary(L2, queries=300), model, images[chosen], labels[chosen])
    assert (model(found).argmax(1) != 8).all()


def test_a_stochastic_decision_is_a_vote():
    """The images returned are wrong in most draws, and not lucky: judged by 1,000 fresh draws."""
    model, images, labels, _ = linear_problem()
    noisy = NoisyLogits(model, sigma=0.3, num_classes=2)
    found = run(Boundary(L2, queries=1500), AttackModel(noisy, samples=16), images, labels)
    wrong = torch.stack([noisy(found).argmax(1) != labels for _ in range(1000)]).double().mean(0)
    assert (wrong > 0.5).all()
    assert L2.distance(images, found).median() < 0.5  # the starts are 3 away, the boundary of the mean scores 0.04


def test_the_repr_counts_the_starts():
    assert "starts=2 images" in repr(Boundary(L2, starts=torch.zeros(2, 1, 2, 2)))
    assert "queries=5, starts=None" in repr(Boundary(L2, queries=5))


@pytest.mark.parametrize("settings", [{"queries": 0}, {"tries": 0}, {"converged": 0.0}, {"source_step": 1e-9}])
def test_bad_settings(settings):
    with pytest.raises(GenclsError):
        Boundary(L2, **settings)


@pytest.mark.parametrize("threat", [ThreatModel("l2", 0.5), ThreatModel("linf")])
def test_threats(threat):
    with pytest.raises(GenclsError):
        Boundary(threat)


def test_bad_starts():
    with pytest.raises(GenclsError, match="starts"):
        Boundary(L2, starts=torch.full((1, 1, 2, 2), 2.0))
