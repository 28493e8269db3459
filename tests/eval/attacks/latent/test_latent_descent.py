import pytest
import torch

from gencls.core import BayesClassifier, GenclsError, TransformedClassifier, keyed
from gencls.defenses import AnalysisBySynthesis, GaussianBlur, GaussianKL
from gencls.eval import Attack, AttackModel, ThreatModel, evaluate
from gencls.eval.attacks.latent.latent_descent import LatentDescent
from gencls.perceptual import SquaredL2

L2 = ThreatModel("l2")


class Prototypes(BayesClassifier[torch.Tensor]):
    """log p(x, k) = -||x - m_k||^2: the reconstruction of class k is m_k, whatever the image."""

    def __init__(self, means):
        super().__init__()
        self.register_buffer("means", means)
        self.num_classes = len(means)
        self.inferences = 0

    def infer(self, images):
        self.inferences += len(images)
        return self.means.expand(len(images), *self.means.shape)

    def log_joint(self, images, q):
        return -(images.unsqueeze(1) - q).flatten(2).square().sum(2)

    def reconstruct(self, images, q=None):
        return self.infer(images) if q is None else q


class Noisy(Prototypes):
    stochastic = True

    def log_joint(self, images, q):
        return super().log_joint(images, q) + 0.02 * torch.randn(len(images), len(self.means))


@pytest.fixture
def prototypes():
    return Prototypes(torch.rand(3, 1, 3, 4, generator=torch.Generator().manual_seed(1))).eval()


@pytest.fixture
def images(prototypes):
    """Near the prototype of class 0."""
    return (prototypes.means[0] + 0.05 * torch.randn(6, 1, 3, 4)).clamp(0, 1)


LABELS = torch.zeros(6, dtype=torch.long)


def crossing(means, images, other):
    """Where the line from an image to the prototype of another class meets its boundary with class 0: distance (N,)."""
    line = (means[other] - images).flatten(1)
    scores = [(images - means[k]).flatten(1).square().sum(1) for k in (0, other)]
    # ||x + t l - m_0||^2 = ||x + t l - m_j||^2 is linear in t
    share = (scores[1] - scores[0]) / (2 * (line * (means[other] - means[0]).flatten(1)).sum(1))
    return share * line.norm(dim=1)


def test_finds_the_crossing_of_the_line(prototypes, images):
    """With fixed reconstructions the walk is a straight line; the best other class is that of the higher score."""
    scores = prototypes(images)
    assert (scores.argmax(1) == 0).all()
    best = 1 + scores[:, 1:].argmax(1)
    expected = torch.stack([crossing(prototypes.means, images[i : i + 1], k)[0] for i, k in enumerate(best)])
    attack = LatentDescent(L2, bisections=12)
    found = attack(prototypes, images, LABELS)
    assert isinstance(attack, Attack)
    assert (prototypes(found).argmax(1) != 0).all()
    torch.testing.assert_close(L2.distance(images, found).float(), expected, rtol=1e-3, atol=0)


def test_coarse_steps_are_refined(prototypes, images):
    fine = L2.distance(images, LatentDescent(L2)(prototypes, images, LABELS))
    coarse = L2.distance(images, LatentDescent(L2, steps=3, step_size=0.9)(prototypes, images, LABELS))
    torch.testing.assert_close(coarse, fine, rtol=5e-3, atol=0)
    rough = L2.distance(images, LatentDescent(L2, step_size=0.9, bisections=0)(prototypes, images, LABELS))
    assert (rough > 1.2 * fine).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_linear_gaussian_generators(generator, norm):
    """What is returned is wrong, and right when it is 2 % closer along its line: the boundary of the classifier itself."""

    class Zeros(torch.nn.Module):
        def forward(self, images):
            return (images.new_zeros(len(images), 3, 4),)

    defense = AnalysisBySynthesis(
        generator,
        start=Zeros(),
        distance=SquaredL2(),
        regularizer=GaussianKL(),
        weight=0.7,
        steps=20,
        lr=0.1,
        optimizer="gradient",
    ).eval()
    images = torch.rand(3, 1, 3, 4, dtype=torch.float64)
    labels = defense(images).argmax(1)
    threat = ThreatModel(norm)
    found = LatentDescent(threat)(AttackModel(defense.surrogate("unrolled")), images, labels)
    assert (defense(found).argmax(1) != labels).all()
    assert (defense(images.lerp(found, 0.98)).argmax(1) == labels).all()
    assert torch.equal(defense.reconstruct(images, defense.infer(images)), defense.reconstruct(images))


def test_wrong_images_and_hopeless_ones_stay_as_they_are(prototypes, images):
    labels = LABELS.clone()
    labels[0] = 1  # wrong to begin with
    found = LatentDescent(L2, steps=2, step_size=0.01)(prototypes, images, labels)
    assert torch.equal(found, images)


def test_samples_leave_and_do_not_depend_on_their_batch(prototypes, images):
    attack = LatentDescent(L2)
    prototypes.inferences = 0
    model = AttackModel(prototypes)
    together = attack(model, images, LABELS)
    assert prototypes.inferences == model.meter.forwards < 6 * 150  # one inference per look, and it is counted
    parts = torch.cat([attack(prototypes, images[i : i + 1], LABELS[:1]) for i in range(6)])
    torch.testing.assert_close(parts, together, rtol=0, atol=1e-6)
    assert model.meter.forwards <= 6 * attack.passes[0]


def test_a_stochastic_decision_is_a_vote(prototypes, images):
    noisy = Noisy(prototypes.means).eval()
    with keyed(range(6)):
        found = LatentDescent(L2)(AttackModel(noisy, samples=16), images, LABELS)
    wrong = torch.stack([noisy(found).argmax(1) != 0 for _ in range(500)]).double().mean(0)
    assert (wrong > 0.5).all()


def test_in_an_evaluation(prototypes, images):
    found = evaluate(prototypes, {"lda": LatentDescent(ThreatModel("linf"))}, [(images, LABELS)])
    assert (found.records.correct == 0).all()
    assert (found.records.distance > 0).all()
    assert set(found.records.gradient) == {"none"}


def test_behind_a_transform(prototypes, images):
    attack = LatentDescent(L2, steps=200, step_size=0.01)
    plain = attack(AttackModel(prototypes), images, LABELS)
    defense = TransformedClassifier(GaussianBlur(sigma=0.01), prototypes, num_classes=3).eval()  # as good as the identity
    torch.testing.assert_close(attack(AttackModel(defense), images, LABELS), plain, rtol=0, atol=1e-5)


def test_needs_a_bayes_classifier_with_reconstructions(cnn, digits):
    with pytest.raises(GenclsError, match="BayesClassifier"):
        LatentDescent(L2)(cnn, *digits)

    class Mute(Prototypes):
        reconstruct = BayesClassifier.reconstruct

    with pytest.raises(GenclsError, match="reconstructions"):
        LatentDescent(L2)(Mute(torch.rand(2, 1, 2, 2)).eval(), torch.rand(1, 1, 2, 2), torch.zeros(1, dtype=torch.long))


@pytest.mark.parametrize("settings", [{"steps": 0}, {"step_size": 0.0}, {"step_size": 1.5}, {"bisections": -1}])
def test_bad_settings(settings):
    with pytest.raises(GenclsError):
        LatentDescent(L2, **settings)


def test_has_no_epsilon():
    with pytest.raises(GenclsError, match="epsilon"):
        LatentDescent(ThreatModel("l2", 1.0))
