import pytest
import torch

from gencls.core import GenclsError, keyed
from gencls.defenses import ABS
from gencls.eval import PGD, Attack, AttackModel, GrowingNoise, ThreatModel, evaluate
from gencls.eval.attacks.transfer import Transfer
from tests.toys import NoisyLogits, SigmoidDecoders, small_cnn

LINF = ThreatModel("linf", 0.1)
ATTACK = PGD(LINF, steps=5, to_the_end=True)


@pytest.mark.parametrize("attack", [ATTACK, GrowingNoise(ThreatModel("l2"), sizes=5)], ids=["PGD", "GrowingNoise"])
def test_equals_the_attack_on_the_source(attack, cnn, digits):
    source = small_cnn(seed=1)
    transfer = Transfer(source, attack)
    with keyed(range(64)):
        expected = attack(source, *digits)
    with keyed(range(64)):
        found = transfer(cnn, *digits)
    assert torch.equal(found, expected)
    assert isinstance(transfer, Attack)
    assert (transfer.threat, transfer.passes, transfer.uses_gradients) == (attack.threat, attack.passes, False)


def test_a_stochastic_source_is_averaged_over_as_many_draws_as_the_target(cnn, digits):
    source = NoisyLogits(small_cnn(seed=1), sigma=0.2)
    with keyed(range(64)):
        expected = ATTACK(AttackModel(source, samples=3), *digits)
    with keyed(range(64)):
        found = Transfer(source, ATTACK)(AttackModel(cnn, samples=3), *digits)
    assert torch.equal(found, expected)


def test_a_defense_is_attacked_through_its_default_mode(cnn, digits):
    source = ABS(SigmoidDecoders(), starts=16, steps=2).eval()
    expected = PGD(LINF, steps=2, random_start=False)(source.surrogate("frozen"), digits[0][:4], digits[1][:4])
    found = Transfer(source, PGD(LINF, steps=2, random_start=False))(cnn, digits[0][:4], digits[1][:4])
    assert torch.equal(found, expected)


def test_the_target_is_never_asked_and_the_source_costs_nothing(cnn, digits):
    target = AttackModel(cnn)
    source = small_cnn(seed=1)
    Transfer(source, ATTACK)(target, *digits)
    assert (target.meter.forwards, target.meter.backwards) == (0, 0)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in source.parameters())


def test_similar_models_fool_each_other(cnn, digits):
    """The source is the target with slightly moved weights."""
    images, labels = digits[0], cnn(digits[0]).argmax(1)
    source = small_cnn()
    for parameter in source.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    found = evaluate(cnn, {"transfer": Transfer(source, PGD(ThreatModel("linf", 0.2), to_the_end=True))}, [(images, labels)])
    assert set(found.records.gradient) == {"none"}
    assert found.records.correct.mean() < 0.3


def test_the_repr_names_the_attack():
    assert repr(Transfer(small_cnn(), ATTACK)) == f"Transfer(attack={ATTACK!r})"


def test_bad_settings(cnn):
    with pytest.raises(GenclsError, match="eval mode"):
        Transfer(torch.nn.Sequential(torch.nn.Flatten()).train(), ATTACK)
    with pytest.raises(GenclsError, match="attack"):
        Transfer(cnn, "PGD")
    with pytest.raises(GenclsError, match="source"):
        Transfer("cnn", ATTACK)
