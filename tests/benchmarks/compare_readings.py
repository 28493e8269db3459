"""What the readings of variational smoothing do to accuracy and scores (docs/smoothing.md).

    python tests/benchmarks/compare_readings.py scores DATA    200 test images of FashionMNIST, four seeds, d = 8/255 in Linf
    python tests/benchmarks/compare_readings.py bound DATA     optimisers of the full form: its bound on 50 images, 50 draws
    python tests/benchmarks/compare_readings.py losses DATA    PGD by its losses, 60 images, Linf 8/255, 20 steps, four draws

DATA is the folder of the data sets. "Own" is the mean score of the true class, "all" that of all ten, "ties" how often the
largest number of votes is shared, "KL" and "KL spread" the mean of ||mu_y||^2 / (2 sigma^2) and its standard deviation between
classes. How far means and deviations move is a root mean square.
"""

import sys
from statistics import mean

import torch
from torch import Tensor, nn

from gencls import zoo
from gencls.core import keyed, stream_seed
from gencls.defenses import VariationalPosteriorSmoothing, VariationalSmoothing
from gencls.defenses.synthesis.posterior import variables
from gencls.eval import PGD, ThreatModel, evaluate

RADIUS, SEEDS = 8 / 255, range(4)
NETWORKS = {"plain": "cnn-plain-fashion", "noise": "cnn-fashion"}
READINGS = {
    "radius=0": {"radius": 0.0},
    "default": {},
    "objective=minimize": {"objective": "minimize"},
    "kl": {"kl": True},
    "hard": {"hard": True},
    "hard, 100 draws": {"hard": True, "draws": 100},
    "sigma=0.224": {"sigma": 0.05**0.5},
}


def scores(data: zoo.ImageData) -> None:
    """Accuracy and scores of all readings."""
    for title, name in NETWORKS.items():
        network = zoo.load(name)
        clipped = nn.Sequential(nn.Hardtanh(0, 1), network).eval()
        report(f"{title}: alone", [network(data.images).log_softmax(1)], data.labels)
        for reading, settings in READINGS.items():
            defense = VariationalSmoothing(network, 10, **{"radius": RADIUS, **settings}).eval()
            seeds = SEEDS[:1] if "draws" in settings else SEEDS
            report(f"{title}: {reading}", [drawn(defense, data.images, seed) for seed in seeds], data.labels)
        defense = VariationalSmoothing(clipped, 10, radius=RADIUS).eval()
        report(f"{title}: clipped", [drawn(defense, data.images, seed) for seed in SEEDS], data.labels)
        full = VariationalPosteriorSmoothing(network, 10).eval()
        report(f"{title}: full form", [drawn(full, data.images, seed) for seed in SEEDS], data.labels)
        search = VariationalSmoothing(network, 10, radius=RADIUS).eval()
        with torch.enable_grad(), keyed(range(len(data.images))):
            kl = search.infer(data.images).flatten(2).square().sum(2) / (2 * search.sigma**2)
        print(f"{title}: KL {kl.mean():.1f}, KL spread {kl.std(1).mean():.2f}")


def drawn(defense: nn.Module, images: Tensor, seed: int) -> Tensor:
    """Scores from the streams of a seed."""
    with keyed([stream_seed(seed, number) for number in range(len(images))]):
        found: Tensor = defense(images)
    return found


def report(title: str, every: list[Tensor], labels: Tensor) -> None:
    """One line, averaged over the seeds."""
    accuracy = mean(float((one.argmax(1) == labels).float().mean()) for one in every)
    own = mean(float(one.gather(1, labels[:, None]).mean()) for one in every)
    line = f"{title}: accuracy {100 * accuracy:.1f} %, own {own:.2f}, all {mean(float(one.mean()) for one in every):.1f}"
    if "hard" in title:
        votes = [(one.exp() * ((draws := 100 if "100" in title else 5) + 1) - 0.5).floor().clamp_max(draws) for one in every]
        tied = mean(float(((one == one.amax(1, keepdim=True)).sum(1) > 1).float().mean()) for one in votes)
        first = mean(float((one.argmax(1) == labels).float().mean()) for one in votes)
        line += f", ties {100 * tied:.0f} %, accuracy with the lowest class in place of probabilities {100 * first:.0f} %"
    print(line, flush=True)


def bound(data: zoo.ImageData) -> None:
    """The full form's bound, averaged over classes, by optimiser."""
    images = data.images[:50]
    tried = [("gradient", steps, lr) for steps, lr in ((0, 0.2), (10, 0.1), (10, 0.2), (10, 0.5), (40, 0.2), (100, 0.1))]
    tried += [("adam", steps, lr) for steps, lr in ((10, 0.01), (10, 0.03), (10, 0.1), (40, 0.03))]
    for optimizer, steps, lr in tried:
        defense = VariationalPosteriorSmoothing(
            zoo.load(NETWORKS["plain"]), 10, draws=50, steps=steps, lr=lr, optimizer=optimizer
        ).eval()
        with torch.enable_grad(), keyed(range(len(images))):
            means, log_stds = (level.square().mean().sqrt() for level in variables(defense.infer(images)))
        moved = f"means move by {means:.3f} of the prior's deviation, log deviations by {log_stds:.5f}"
        print(f"{optimizer}, {steps} steps of {lr}: {drawn(defense, images, 0).mean():.2f}; {moved}", flush=True)


def losses(data: zoo.ImageData) -> None:
    """What PGD leaves, frozen gradient, by its loss: of the plain classifier, and of the inference around it."""
    network = zoo.load(NETWORKS["plain"])
    threat, batch = ThreatModel("linf", RADIUS), [(data.images[:60], data.labels[:60])]
    attacks = {
        "cross-entropy": PGD(threat, steps=20),
        "margin": PGD(threat, steps=20, loss="margin"),
        "multi-targeted": PGD(threat, steps=20, restarts=2, loss="multi-targeted"),
    }
    for defense in (network, VariationalSmoothing(network, 10, radius=RADIUS).eval()):
        modes = None if defense is network else ["frozen"]
        found = evaluate(defense, attacks, batch, eot_samples=4, judge_draws=16, most_draws=64, modes=modes).records
        for loss, records in found.groupby("attack"):
            right = records["majority_correct"] & records["clean_majority_correct"]
            print(f"{type(defense).__name__}, {loss}: {100 * right.mean():.1f} %", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        {"scores": scores, "bound": bound, "losses": losses}[sys.argv[1]](
            zoo.load_data("fashion-mnist", "test", root=sys.argv[2], limit=200)
        )
