"""Networks of torchvision and robustbench as defenses, and robustbench's benchmark on a defense."""

import pytest
import torch
from pandas.testing import assert_frame_equal
from torch import nn

from gencls.core import seeded
from gencls.defenses import PlainClassifier
from gencls.eval import PGD, ThreatModel, evaluate
from gencls.eval.adapters import as_robustbench
from gencls.zoo.networks.classifiers.robustbench import import_robustbench
from tests.eval.test_adapters import RescaledDefense, broken, torchattacks_pgd
from tests.toys import Linear


@pytest.mark.slow
def test_robustbench_measures_a_defense(monkeypatch, capsys):
    package = import_robustbench()
    source = torch.Generator().manual_seed(0)
    weight = torch.randn(10, 48, generator=source)
    defense = RescaledDefense(PlainClassifier(Linear(weight, torch.zeros(10)), 10), shift=-100.0)
    images = 0.3 + 0.4 * torch.rand(10, 3, 4, 4, generator=source)  # the ball lies within [0, 1]
    scores = defense(images)
    labels = scores.argmax(1)
    radii = (scores.amax(1, keepdim=True) - scores) / (weight[labels].unsqueeze(1) - weight).abs().sum(dim=2)
    radii = radii.nan_to_num(torch.inf).amin(dim=1)
    epsilon = float(radii.sort().values[6:8].mean())  # the closed form leaves 3 of 10 robust
    assert epsilon < 0.3
    labels[radii.argmax()] = 9 - labels[radii.argmax()]  # a clean error, among these
    assert package.utils.clean_accuracy(as_robustbench(defense), images, labels, batch_size=7) == pytest.approx(0.9)
    monkeypatch.setattr(package.eval, "load_clean_dataset", lambda *_: (images, labels))
    clean, robust = package.benchmark(as_robustbench(defense), n_examples=10, threat_model="Linf", eps=epsilon)
    assert clean == pytest.approx(0.9)
    assert robust == pytest.approx(0.2)
    assert "Adversarial accuracy: 20.00%" in capsys.readouterr().out


def torchvision_network():
    from torchvision.models import resnet18

    return resnet18(num_classes=5)


def robustbench_network():
    import_robustbench()
    from robustbench.model_zoo.architectures.wide_resnet import WideResNet

    return WideResNet(depth=10, num_classes=5, widen_factor=1)


@pytest.mark.parametrize("make", [torchvision_network, robustbench_network])
def test_a_foreign_network_is_a_defense_in_one_line(make):
    with seeded(0):
        network = make().eval()
        images = torch.rand(4, 3, 32, 32)
    defense = PlainClassifier(network, num_classes=5).eval()
    labels = defense(images).argmax(1)
    torch.testing.assert_close(defense(images), network(images), rtol=0, atol=0)
    assert broken(torchattacks_pgd, defense, images, labels, epsilon=0.1) >= 2


class SparseLayer(nn.Module):
    """A linear network whose weights are sparse, or written out."""

    def __init__(self, sparse):
        super().__init__()
        weights = torch.randn(5, 64) * (torch.rand(5, 64) < 0.3)
        self.register_buffer("weights", weights.to_sparse() if sparse else weights)

    def forward(self, images):
        return (self.weights @ images.flatten(1).T).T


def test_a_network_with_sparse_weights_is_evaluated_as_if_they_were_written_out():
    images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 5
    found = []
    for sparse in (True, False):
        with seeded(0):
            network = SparseLayer(sparse).eval()
        attacks = {"pgd": PGD(ThreatModel("linf", 0.02), steps=5)}
        found.append(evaluate(network, attacks, [(images, labels)]).summary()[["clean_accuracy", "robust_accuracy"]])
    assert_frame_equal(*found)
