"""What stands around a defense, in it or behind it, is attacked and judged as it is: nothing is bypassed, nothing hidden."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from gencls.core import GenclsError, TransformedClassifier, forward_draws, surrogates_of
from gencls.defenses import Binarize, GaussianNoise, PlainClassifier
from gencls.eval import DDN, PGD, AttackModel, Boundary, Protocol, Square, ThreatModel, evaluate, run_cell
from tests.toys import NoisyLogits, small_cnn

LINF = ThreatModel("linf", 0.1)
ATTACKS = {"pgd": PGD(LINF, steps=8), "ddn": DDN(ThreatModel("l2"), steps=15)}


def blur(images):
    return functional.avg_pool2d(images, 3, 1, 1)


class Blurred(nn.Module):
    """A network behind a filter, as a stranger writes it; the truth for all that follows."""

    def __init__(self):
        super().__init__()
        self.network = small_cnn()

    def forward(self, images):
        return self.network(blur(images))


class Subclass(PlainClassifier):
    """Overrides ``forward`` only."""

    def forward(self, images):
        return super().forward(blur(images))


def hooked():
    defense = PlainClassifier(small_cnn(), 4)
    defense.register_forward_pre_hook(lambda module, given: (blur(given[0]),))
    return defense


def hooked_after():
    defense = PlainClassifier(Blurred(), 4)
    defense.register_forward_hook(lambda module, given, scores: 2 * scores)
    return defense


def patched():
    defense = PlainClassifier(small_cnn(), 4)
    defense.forward = lambda images: defense.network(blur(images))
    return defense


def hooked_within():
    transform = GaussianNoise(1e-6)
    transform.register_forward_pre_hook(lambda module, given: (blur(given[0]),))
    return TransformedClassifier(transform, small_cnn(), 4)


FILTERS = {
    "subclass": lambda: Subclass(small_cnn(), 4),
    "hook": hooked,
    "hook behind": hooked_after,
    "instance": patched,
    "hook on a transform": hooked_within,
}


@pytest.fixture(scope="module")
def samples():
    images = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    return images, Blurred().eval()(images).argmax(dim=1)


@pytest.mark.parametrize("kind", FILTERS)
def test_attacks_see_the_forward_that_the_judge_sees(kind, samples):
    expected = evaluate(Blurred().eval(), ATTACKS, [samples]).records.groupby("attack")
    defense = FILTERS[kind]().eval()
    drawn = forward_draws(defense, samples[0], 2).detach()
    torch.testing.assert_close(drawn.argmax(dim=1), defense(samples[0]).argmax(dim=1).repeat_interleave(2))
    found = evaluate(defense, ATTACKS, [samples], judge_draws=4, eot_samples=2).records.groupby("attack")
    assert found["correct"].mean()["pgd"] <= expected["correct"].mean()["pgd"] + 1 / 12
    assert found["distance"].median()["ddn"] <= 1.1 * expected["distance"].median()["ddn"]


def test_a_hook_on_a_defense_whose_modes_do_not_pass_it_is_refused(samples):
    defense = TransformedClassifier(Binarize(), small_cnn(), 4).eval()
    defense.register_forward_pre_hook(lambda module, given: (1 - given[0],))
    with pytest.raises(GenclsError, match="hides no gradient mode"):
        evaluate(defense, ATTACKS, [samples])


class Anew(nn.Module):
    """Makes the defense when it is called: no search through attributes finds it."""

    def forward(self, images):
        return TransformedClassifier(Binarize(), small_cnn(), 4).eval()(images)


PLACE = SimpleNamespace()


class FromAnywhere(nn.Module):
    """Takes the defense from where the process keeps it."""

    def forward(self, images):
        return sys.modules[__name__].PLACE.defense(images)


class Built(nn.Module):
    """A wrapper around the call itself."""

    def __call__(self, images):
        return Anew()(images)


HIDDEN = {
    "made anew": lambda: Anew(),
    "from anywhere": lambda: FromAnywhere(),
    "behind ours": lambda: PlainClassifier(Anew(), 4),
    "behind a sequence": lambda: nn.Sequential(nn.Identity(), Anew()),
    "overridden call": lambda: Built(),
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_a_defense_that_only_a_call_shows_is_refused(kind, samples):
    PLACE.defense = TransformedClassifier(Binarize(), small_cnn(), 4).eval()
    with pytest.raises(GenclsError, match="hides no gradient mode of a defense that it calls.*bpda"):
        evaluate(HIDDEN[kind]().eval(), ATTACKS, [samples])


def test_what_a_call_shows_is_no_alarm_where_all_modes_are_known(samples):
    binary = TransformedClassifier(Binarize(), small_cnn(), 4)
    for defense in (binary, nn.Sequential(nn.Identity(), binary), PlainClassifier(binary, 4), PlainClassifier(Blurred(), 4)):
        found = evaluate(defense.eval(), {"pgd": PGD(LINF, steps=1)}, [samples]).records
        assert set(found["gradient"]) == set(surrogates_of(defense))


def test_a_library_that_puts_the_mode_back_finds_eval_mode(samples):
    """torchattacks notes ``model.training`` and restores it at the end."""

    class Restoring:
        threat, uses_gradients, passes = LINF, True, (1, 1)

        def __repr__(self):
            return "Restoring()"

        def __call__(self, model, images, labels):
            mode = model.training
            model.eval()
            found = PGD(LINF, steps=2)(model, images, labels)
            model.train(mode)
            return found

    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 4)).eval()
    evaluate(network, {"restoring": Restoring()}, [samples])
    assert not any(part.training for part in network.modules())
    assert int(network[1].num_batches_tracked) == 0


def test_a_first_layer_in_place_can_be_attacked(samples):
    found = evaluate(nn.Sequential(nn.ReLU(inplace=True), small_cnn()).eval(), ATTACKS, [samples]).adversarials
    expected = evaluate(nn.Sequential(nn.ReLU(), small_cnn()).eval(), ATTACKS, [samples]).adversarials
    assert all(torch.equal(found[key], expected[key]) for key in expected)


BAD = {
    "a function": (lambda: lambda images: images.flatten(1)[:, :4], "expected a torch.nn.Module"),
    "booleans": (lambda: Scores(lambda scores: scores > 0), "expected floating-point scores, got torch.bool"),
    "complex": (lambda: Scores(lambda scores: scores * 1j), "expected floating-point scores, got torch.complex64"),
}


class Scores(nn.Module):
    """Scores of another kind."""

    def __init__(self, change):
        super().__init__()
        self.network, self.change = small_cnn(), change

    def forward(self, images):
        return self.change(self.network(images))


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_defense_is_refused(kind, samples):
    make, message = BAD[kind]
    defense = make()
    with pytest.raises(GenclsError, match=message):
        evaluate(defense.eval() if isinstance(defense, nn.Module) else defense, ATTACKS, [samples])


def test_what_is_no_attack_is_refused(samples):
    with pytest.raises(GenclsError, match="attack: expected an attack, an object with threat"):
        run_cell(small_cnn(), lambda model, images, labels: images, "exact", *samples, Protocol())


PROGRAM = """
import torch
from gencls.eval import PGD, ThreatModel, evaluate
from tests.toys import small_cnn

class Mine:
    threat, uses_gradients, passes = ThreatModel("linf", 0.1), True, (1, 2)
    def __call__(self, model, images, labels):
        return PGD(self.threat, steps=2)(model, images, labels)

padding = [object() for _ in range({number})]
attack = Mine()
images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
found = evaluate(small_cnn(), {{"mine": attack}}, [(images, torch.zeros(4, dtype=torch.long))])
print(found.adversarials["mine", "exact"].double().sum().item())
"""


@pytest.mark.slow
def test_an_attack_without_a_name_of_its_own_is_the_same_in_every_process():
    answers = {
        subprocess.run([sys.executable, "-c", PROGRAM.format(number=n)], capture_output=True, text=True, check=True).stdout
        for n in (0, 1000)
    }
    assert len(answers) == 1


def test_looks_at_the_same_draws_are_not_counted_as_many():
    """Square needs 64 draws that are all wrong; with common draws every look shows the same ones."""
    network = NoisyLogits(small_cnn(), 0.0)
    images = torch.rand(6, 1, 8, 8)
    labels = network(images).argmax(dim=1)
    spent = {}
    for common in (False, True):
        model = AttackModel(network, samples=2, common_draws=common, stochastic=True)
        Square(ThreatModel("linf", 0.3), queries=120)(model, images, labels)
        spent[common] = model.meter.forwards
    assert spent[False] < spent[True]
    assert spent[True] == 6 * 2 * (1 + 2 * 59)  # to the end


def test_boundary_confirms_with_fresh_draws():
    looks = []

    class Noted(AttackModel):
        def look(self, *args, fresh=False, **settings):
            looks.append(fresh)
            return super().look(*args, fresh=fresh, **settings)

    images = torch.rand(4, 1, 8, 8)
    model = Noted(NoisyLogits(small_cnn(), 0.1), samples=4, common_draws=True, stochastic=True)
    Boundary(ThreatModel("l2"), queries=40)(model, images, torch.zeros(4, dtype=torch.long))
    assert 0 < sum(looks) < len(looks)
