"""Linear classifiers, whose worst and closest perturbations have closed forms in every norm; and digits."""

import pytest
import torch

from gencls import zoo
from gencls.core import keyed
from gencls.eval import ThreatModel
from tests.toys import Linear

SHAPES = [(1, 5, 7), (3, 9, 3)]

shapes_and_counts = pytest.mark.parametrize(
    ("shape", "count"),
    [
        (SHAPES[0], 64),
        (SHAPES[1], 1),
        pytest.param(SHAPES[0], 1, marks=pytest.mark.slow),
        pytest.param(SHAPES[1], 64, marks=pytest.mark.slow),
    ],
)


def run(attack, model, images, labels, first=0):
    """Attack with sample i on stream i."""
    with keyed(range(first, first + len(images))):
        return attack(model, images, labels)


def digits(count):
    """Real digits and their classes, for the zoo's networks."""
    found = zoo.load_data("mnist-embedded", "test", limit=count)
    return found.images, found.labels


def linear_problem(classes, shape, count):
    """Images in [0.3, 0.7], a linear classifier, and labels that it gets right."""
    pixels = torch.Size(shape).numel()
    model = Linear(torch.randn(classes, pixels), torch.randn(classes)).eval()
    images = 0.3 + 0.4 * torch.rand(count, *shape)
    return model, images, model(images).argmax(1)


def margins(model, images, labels):
    """Score of the label minus the score of each other class: (N, K - 1)."""
    scores = model(images)
    others = torch.ones_like(scores, dtype=torch.bool).scatter(1, labels[:, None], False)
    return scores.gather(1, labels[:, None]) - scores[others].view(len(scores), -1)


def to_others(model, labels):
    """Weights of the label minus those of each other class: (N, K - 1, P)."""
    differences = model.weight[labels].unsqueeze(1) - model.weight
    others = torch.ones(differences.shape[:2], dtype=torch.bool).scatter(1, labels[:, None], False)
    return differences[others].view(len(labels), -1, differences.shape[2])


def filled(differences, images, norm):
    """What entries cost and gain that go to the end of [0, 1], the best first: (N, K - 1, P) both; L1 and L0 only."""
    pixels = images.flatten(1).unsqueeze(1)
    room, rates = torch.where(differences > 0, pixels, 1 - pixels), differences.abs()
    order = (rates if norm == "l1" else rates * room).argsort(dim=2, descending=True)
    cost = room if norm == "l1" else torch.ones_like(room)
    return cost.gather(2, order), (rates * room).gather(2, order)


def optimal_margin(model, images, labels, norm, epsilon):
    """min over the ball of min_j (w_y - w_j) . x + c_y - c_j; in Linf and L2 where the box does not bind."""
    differences, clean = to_others(model, labels), margins(model, images, labels)
    if norm in ("linf", "l2"):
        return (clean - epsilon * differences.norm(p=1 if norm == "linf" else 2, dim=2)).amin(1)
    costs, gains = filled(differences, images, norm)
    paid = ((epsilon - costs.cumsum(2) + costs) / costs).clamp(0, 1)  # the share of each entry's way that can be paid
    return (clean - (gains * paid).sum(2)).amin(1)


def shortfall(model, images, labels, found, norm, epsilon):
    """How much of the optimal decrease of the margin is missing, per sample, and the optimal margin."""
    clean, best = margins(model, images, labels).amin(1), optimal_margin(model, images, labels, norm, epsilon)
    reached = margins(model, found, labels).amin(1)
    assert (reached >= best - 1e-4).all()
    return (reached - best) / (clean - best), best


def minimal_distance(model, images, labels, norm):
    """min over the other classes of the distance to their boundary; in Linf and L2 margin / dual norm."""
    differences, clean = to_others(model, labels), margins(model, images, labels)
    if norm in ("linf", "l2"):
        return (clean / differences.norm(p=1 if norm == "linf" else 2, dim=2)).amin(1)
    costs, gains = filled(differences, images, norm)
    needed = ((clean.unsqueeze(2) - gains.cumsum(2) + gains) / gains).clamp(0, 1)  # the share of each entry's way
    return (costs * (needed if norm == "l1" else needed.ceil())).sum(2).amin(1)


def halfway(model, images, labels, norm):
    """A threat that about half of the images can withstand, and by how much of their clean margin each falls short of it."""
    threat = ThreatModel(norm, minimal_distance(model, images, labels, norm).median().item())
    best = optimal_margin(model, images, labels, norm, threat.epsilon)
    return threat, best / margins(model, images, labels).amin(1)
