"""Networks as people bring them, the ways in, and what is compared before and after."""

import pytest
import torch
from torch import nn

from gencls._commands.asked import build_defense
from gencls.defenses import PlainClassifier
from gencls.eval import FGSM, Protocol, Square, Study, ThreatModel, Transfer, evaluate, judge
from gencls.eval.adapters import as_foolbox, as_module
from gencls.eval.doctor import diagnose
from gencls.eval.doctor.patient import Effort
from gencls.zoo import ImageData

LINF = ThreatModel("linf", 0.05)
STEP = FGSM(LINF)
COUNTS = dict.fromkeys(
    ("images", "probes", "directions", "steps", "few_steps", "far_steps", "queries", "tries", "smoothing"), 1
)
GLANCE = Effort("glance", **COUNTS, all_modes=False)


def network(*inside):
    source = torch.Generator().manual_seed(1)
    made = nn.Sequential(nn.Conv2d(1, 4, 3), *inside, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=source, dtype=torch.float64))
    return made.eval()


@pytest.fixture
def samples():
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float32)
    return images, network().float()(images).argmax(1)


class Around(nn.Module):
    """A network and something done to what comes out of it."""

    def __init__(self, after=lambda scores: scores, before=lambda images: images):
        super().__init__()
        self.network, self.after, self.before = network(), after, before
        self.eval()

    def forward(self, images):
        return self.after(self.network(self.before(images)))


def in_study(module, images, labels, folder):
    attacks = {"fgsm": STEP}
    study = Study(folder / "study", defenses={"d": module}, attacks=attacks, images=images, labels=labels, protocol=QUICK)
    return study.run()


def data_of(images):
    count = len(images)
    return ImageData("toys", "test", images, torch.zeros(count, dtype=torch.long), ("0", "1", "2"), torch.arange(count))


def by_path(module, images, labels, folder, monkeypatch):
    monkeypatch.setattr("tests.strangers.networks.BROUGHT", module, raising=False)
    defense = build_defense("tests.strangers.networks:BROUGHT", data_of(images))
    return evaluate(defense, {"fgsm": STEP}, [(images, labels)], eot_samples=2, judge_draws=4)


def adapted(make):
    def ask(module, images, labels):
        model = make(PlainClassifier(module, 3))
        with torch.no_grad():
            return model(images)

    return ask


QUICK = Protocol(eot_samples=2, judge_draws=4)
WAYS = {
    "Study": in_study,
    "evaluate": lambda module, images, labels: evaluate(module, {"fgsm": STEP}, [(images, labels)]),
    "import path": by_path,
    "judge": lambda module, images, labels: judge(module, images, images, LINF, count=1),
    "doctor": lambda module, images, labels: diagnose(module, images, labels, epsilon=0.05, effort=GLANCE),
    "module": adapted(as_module),
    "foolbox": adapted(as_foolbox),
    "FGSM": lambda module, images, labels: STEP(module, images, labels),
    "Square": lambda module, images, labels: Square(LINF, queries=2)(module, images, labels),
    "Transfer": lambda module, images, labels: Transfer(module, STEP)(network(), images, labels),
}


def bring(way, module, samples, folder, monkeypatch):
    extra = {"Study": (folder,), "import path": (folder, monkeypatch)}.get(way, ())
    return WAYS[way](module, *samples, *extra)


every_way = pytest.mark.parametrize("way", WAYS)


def fails(images):
    raise KeyError("colour")


def in_place(images):
    return images.sub_(0.5).div_(0.5)


class WithNorm(nn.Module):
    """What training mode would change: batch norm and dropout."""

    def __init__(self):
        super().__init__()
        self.layers = network(nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.eval()

    def forward(self, images):
        return self.layers(images)


def state(module):
    flags = [(part.training, dict(part._forward_hooks), dict(part._backward_hooks)) for part in module.modules()]
    learning = [(parameter.requires_grad, parameter.grad) for parameter in module.parameters()]
    return flags, learning, {name: value.clone() for name, value in module.state_dict().items()}


def same(one, other):
    numbers = one[2].keys() == other[2].keys() and all(torch.equal(value, other[2][name]) for name, value in one[2].items())
    return one[:2] == other[:2] and numbers


def dropping():
    """The usual recipe of test-time dropout."""
    module = WithNorm()
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.train()
    return module


def declared(module):
    return PlainClassifier(module, 3, stochastic=True)
