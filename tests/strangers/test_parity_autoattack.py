"""AutoAttack against the authors' own code on networks that others trained: the same samples must fall."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from gencls import zoo
from gencls.core import keyed
from gencls.eval import AutoAttack, ThreatModel

WEIGHTS = Path(os.environ.get("GENCLS_WEIGHTS") or Path(__file__).parents[3] / "shared" / "weights")


def convex_adversarial():
    """MNIST, provably robust at 0.1 (Wong and Kolter 2018, github.com/locuslab/convex_adversarial)."""
    network = nn.Sequential(
        *(nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(32 * 7 * 7, 100), nn.ReLU(), nn.Linear(100, 10)),
    )
    network.load_state_dict(_read("convex-adversarial/mnist.pth"))
    return network.eval()


class LeNet(nn.Module):
    """MNIST, PGD-trained at 0.3 (github.com/BorealisAI/advertorch)."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.linear1, self.linear2 = nn.Linear(3136, 200), nn.Linear(200, 10)
        self.load_state_dict(_read("advertorch-mnist/mnist_lenet5_advtrained.pt"))
        self.eval()

    def forward(self, images):
        maps = functional.max_pool2d(self.conv1(images).relu(), 2)
        maps = functional.max_pool2d(self.conv2(maps).relu(), 2)
        return self.linear2(self.linear1(maps.flatten(1)).relu())


def _read(name):
    path = WEIGHTS / name
    if not path.is_file():
        pytest.skip(f"needs {name} in the folder of weights, ../shared/weights or GENCLS_WEIGHTS; got {WEIGHTS}")
    return torch.load(path, map_location="cpu", weights_only=True)


def robust(network, epsilon, count):
    """Which of the first digits are robust by our attack and by the library's, (N,) bool each."""
    from pyautoattack import AutoAttack as Library

    digits = zoo.load_data("mnist-embedded", "test", limit=count)
    with keyed(range(count)):
        ours = AutoAttack(ThreatModel("linf", epsilon))(network, digits.images, digits.labels)
    library = Library(network, norm="Linf", eps=epsilon, version="standard", device="cpu")
    theirs, _ = library.run_standard_evaluation(digits.images, digits.labels, batch_size=count)
    with torch.no_grad():
        return tuple(network(found).argmax(1) == digits.labels for found in (ours, theirs))


@pytest.mark.slow
@pytest.mark.parametrize(("build", "epsilon", "count", "expected"), [(convex_adversarial, 0.1, 200, 191), (LeNet, 0.3, 60, 54)])
def test_the_same_samples_are_robust(build, epsilon, count, expected):
    ours, theirs = robust(build(), epsilon, count)
    assert (ours != theirs).sum() <= count // 100  # both search at random
    assert abs(int(ours.sum()) - expected) <= count // 40
