"""A threat whose distance is a seminorm and whose key has a hyphen: L2 after 2x2 average pooling. It is one file, this one."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from gencls.core import GenclsError
from gencls.core.balls import L2Ball
from gencls.eval import ThreatModel, evaluate
from gencls.eval.attacks.parts.base import norms_of
from gencls.eval.attacks.presets import attack_by_name, names, settings_of
from gencls.eval.judgement.eight_bit import is_eight_bit, to_eight_bit
from gencls.eval.threats import protocol
from gencls.eval.threats.protocol import Threat, ThreatKind, kinds, made, register, searchable
from tests.toys import small_cnn


def spread(pooled):
    return interpolate(pooled, scale_factor=2.0, mode="nearest")


@dataclass(frozen=True)
class PooledL2(Threat):
    """Changes whose blocks average to 0 are free."""

    norm: str = "pooled-l2"

    def distance(self, clean, adversarial):
        return L2Ball().distance(avg_pool2d(adversarial.double() - clean.double(), 2))

    def largest(self, shape):
        return math.sqrt(shape[1:].numel() / 4)

    def step(self, gradient, size, images):
        coarse, ball = spread(avg_pool2d(gradient, 2)), L2Ball()
        change = 2 * (ball.direction(coarse) + ball.direction(gradient - coarse))
        return change * (size.view(-1, 1, 1, 1) if isinstance(size, torch.Tensor) else size)

    def project(self, images, clean):
        found = images
        for _ in range(20):
            found = (found - (1 - self.share(clean, found)) * spread(avg_pool2d(found - clean, 2))).clamp(0, 1)
        return torch.lerp(clean, found, self.share(clean, found))

    def start(self, clean):
        return self.project(torch.rand_like(clean), clean)

    def share(self, clean, images):
        distances = self.distance(clean, images).clamp_min(1e-12)
        return ((1 - 1e-6) * self.epsilon / distances).clamp_max(1).view(-1, 1, 1, 1).to(clean)


KIND = ThreatKind("pooled-l2", "pooled L2", r"$\ell_{2,p}$", "pooled pixel units", lambda epsilon: PooledL2(epsilon=epsilon))


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(protocol, "_KINDS", dict(kinds()))
    register(KIND)


@pytest.fixture
def samples():
    images = torch.randint(0, 256, (8, 1, 8, 8), generator=torch.Generator().manual_seed(1)) / 255
    return images, small_cnn()(images).argmax(1)


def test_attacks_of_any_threat_serve_it_by_name(samples):
    mine = [name for name in names() if name.endswith("-pooled-l2")]
    methods = ["fgsm", "pgd", "pgd-margin", "pgd-multi-targeted", "pgd-smoothed", "growing-noise"]
    assert mine == [f"{method}-pooled-l2" for method in methods]
    attacks = {name: attack_by_name(name, 0.4) for name in mine[:2]} | {mine[-1]: attack_by_name(mine[-1], steps=5)}
    assert attacks["pgd-pooled-l2"].threat == PooledL2(epsilon=0.4)
    assert settings_of("pgd-pooled-l2") == {"epsilon", "steps", "restarts"}
    assert "pooled-l2" in norms_of(attacks["pgd-pooled-l2"]) == searchable()
    summary = evaluate(small_cnn(), attacks, [samples]).summary()
    assert set(summary["norm"]) == {"pooled-l2"}
    assert (summary["excluded"] == 0).all()


def test_a_name_of_two_pairs_is_that_of_the_longer_method():
    register(ThreatKind("margin-l2", "margin L2", "", "", lambda epsilon: PooledL2("margin-l2", epsilon)))
    assert attack_by_name("pgd-margin-l2", 0.4).threat == ThreatModel("l2", 0.4)
    assert attack_by_name("fgsm-margin-l2", 0.4).threat == PooledL2("margin-l2", 0.4)
    assert len(names()) == len(set(names()))


@pytest.mark.parametrize("key", ["", "Pooled", "pooled l2", "pooled_l2", "-l2", "l2-", "a/b"])
def test_a_key_can_stand_in_a_name(key):
    with pytest.raises(GenclsError, match="register: expected a key of small letters, digits and hyphens between them"):
        register(ThreatKind(key, "", "", ""))


@pytest.mark.parametrize("epsilon", [0.001, 0.005, 0.05, 1.0])
def test_images_of_8_bits_stay_within_it(epsilon, samples):
    threat, clean = made("pooled-l2", epsilon), samples[0]
    adversarial = threat.project(clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(2)), clean)
    assert threat.allows(threat.distance(clean, adversarial)).all()
    rounded = to_eight_bit(adversarial, clean, threat)
    assert is_eight_bit(rounded)
    assert threat.allows(threat.distance(clean, rounded)).all()
    nearest = (adversarial.double() * 255).round() / 255
    stays = threat.allows(threat.distance(clean, nearest))
    torch.testing.assert_close(rounded[stays].double(), nearest[stays], rtol=0, atol=1e-7)
    assert stays.all() == (epsilon == 1)


def test_clean_images_of_more_bits_take_no_place(samples):
    threat, clean = made("pooled-l2", 0.005), samples[0] * 0.999
    adversarial = threat.project(clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(2)), clean)
    assert is_eight_bit(to_eight_bit(adversarial, clean, threat))


def test_errors_say_who_serves_it():
    with pytest.raises(
        GenclsError, match="expected a threat that ddn-smoothed searches, one of l2; got pooled-l2 in ddn-smoothed-pool"
    ):
        attack_by_name("ddn-smoothed-pooled-l2")
    with pytest.raises(
        GenclsError, match="expected norm to be one of 'linf', .* got 'pooled-l2', the norm of PooledL2; make a PooledL2"
    ):
        ThreatModel("pooled-l2", 0.5)
