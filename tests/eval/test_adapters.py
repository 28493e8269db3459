"""The adapters against the real libraries: foolbox, ART, torchattacks, pyautoattack, robustbench."""

import numpy
import pytest
import torch
from torch import nn
from torch.nn import functional

from gencls.core import Defense, GenclsError, TransformedClassifier, keyed, seeded
from gencls.defenses import ABS, GaussianNoise, PlainClassifier
from gencls.eval import AttackModel, ThreatModel, judge
from gencls.eval.adapters import as_art, as_autoattack, as_foolbox, as_module, as_robustbench, as_torchattacks
from gencls.eval.judgement.judge import predict
from tests.toys import Linear, NoisyLogits, Rescaled, SigmoidDecoders, small_cnn

COUNT, STEPS = 50, 20
SHAPE = (1, 8, 8)
SLOW = pytest.mark.slow
SCALES = {"shifted": {"shift": -100.0}, "small": {"scale": 1 / 200}, "large": {"scale": 200.0}}

every_scale = pytest.mark.parametrize(
    "how",
    [{}, *(pytest.param(how, marks=[SLOW] * (name != "small")) for name, how in SCALES.items())],
    ids=["as it is", *SCALES],
)


class RescaledDefense(Defense):
    """The same decisions and gradient modes, with scores of another offset and scale."""

    def __init__(self, defense, **how):
        super().__init__()
        self.defense = defense
        self.how = how
        self.num_classes, self.stochastic = defense.num_classes, defense.stochastic
        self.eval()

    def forward(self, images):
        return Rescaled(self.defense, **self.how)(images)

    def surrogates(self):
        return {mode: Rescaled(surrogate, **self.how) for mode, surrogate in self.defense.surrogates().items()}


class Rows(Defense):
    """Counts the rows that it is asked about; no parameters, no buffers."""

    num_classes = 3

    def __init__(self, stochastic):
        super().__init__()
        self.stochastic = stochastic
        self.rows = []
        self.eval()

    def forward(self, images):
        self.rows.append(len(images))
        noise = torch.randn(len(images), 3) if self.stochastic else 0.0
        return images.flatten(1)[:, :3] + noise


# What each library does: (defense, images, labels, epsilon) -> adversarial images.


def foolbox_pgd(defense, images, labels, epsilon):
    import foolbox

    attack = foolbox.attacks.LinfPGD(steps=STEPS, abs_stepsize=epsilon / 8)
    return attack(as_foolbox(defense), images, labels, epsilons=epsilon)[1]


def art_pgd(defense, images, labels, epsilon):
    from art.attacks.evasion import ProjectedGradientDescent

    settings = {"eps": epsilon, "eps_step": epsilon / 8, "max_iter": STEPS, "num_random_init": 1, "verbose": False}
    attack = ProjectedGradientDescent(as_art(defense, tuple(images.shape[1:])), batch_size=len(images), **settings)
    one_hot = numpy.eye(defense.num_classes)[labels.numpy()]
    return torch.from_numpy(attack.generate(images.numpy(), one_hot))


def torchattacks_pgd(defense, images, labels, epsilon):
    import torchattacks

    return torchattacks.PGD(as_torchattacks(defense), eps=epsilon, alpha=epsilon / 8, steps=STEPS)(images, labels)


def apgd_ce(defense, images, labels, epsilon):
    import pyautoattack

    attack = pyautoattack.AutoAttack(
        as_autoattack(defense), norm="Linf", eps=epsilon, version="custom", attacks=["apgd-ce"], seed=0
    )
    attack.apgd.n_iter, attack.apgd.n_restarts = STEPS, 1
    return attack.run_standard_evaluation(images, labels)[0]


def foolbox_ddn(defense, images, labels, epsilon):
    import foolbox

    return foolbox.attacks.DDNAttack(steps=STEPS)(as_foolbox(defense), images, labels, epsilons=None)[0]


def torchattacks_cw(defense, images, labels, epsilon):
    import torchattacks

    return torchattacks.CW(as_torchattacks(defense), c=1, steps=60, lr=0.05)(images, labels)


PGDS = [foolbox_pgd, art_pgd, torchattacks_pgd, apgd_ce]
MINIMAL_NORM = [foolbox_ddn, torchattacks_cw]


@pytest.fixture(scope="module")
def defenses():
    bayes = ABS(SigmoidDecoders(), starts=50, steps=5).requires_grad_(True)
    return {
        "cnn": PlainClassifier(small_cnn(), 4).eval(),
        "bayes": bayes.eval(),
        "noisy": TransformedClassifier(GaussianNoise(0.1), small_cnn(), 4).eval(),
    }


@pytest.fixture(params=["cnn", "bayes", "noisy"])
def defense(request, defenses):
    return defenses[request.param]


@pytest.fixture
def images():
    return torch.rand(COUNT, *SHAPE, generator=torch.Generator().manual_seed(5))


def majority(defense, images):
    """Decisions of the real defense, by 33 draws if it is stochastic."""
    return predict(defense, images, 33 if defense.stochastic else 1).mode(dim=1).values


def attacked(run, defense, images, labels, epsilon):
    with seeded(1):
        numpy.random.seed(1)  # ART draws its random starts there
        return run(defense, images, labels, epsilon).detach()


def broken(run, defense, images, labels, epsilon=0.05):
    """How many adversarials the judge confirms."""
    adversarial = attacked(run, defense, images, labels, epsilon)
    threat = ThreatModel("l2") if run in MINIMAL_NORM else ThreatModel("linf", epsilon)
    with seeded(2):
        verdict = judge(defense, images, adversarial, threat, count=33 if defense.stochastic else 1)
    assert verdict.valid.all()
    return int((verdict.predictions.mode(dim=1).values != labels).sum())


@pytest.mark.parametrize("run", PGDS)
@every_scale
def test_pgd_breaks_what_can_be_broken_of_a_linear_classifier(run, how):
    source = torch.Generator().manual_seed(0)
    weight, offset = torch.randn(4, 64, generator=source), torch.randn(4, generator=source)
    defense = RescaledDefense(PlainClassifier(Linear(weight, offset), 4), **how)
    images = 0.3 + 0.4 * torch.rand(COUNT, *SHAPE, generator=source)  # the ball lies within [0, 1]
    scores = Linear(weight, offset)(images)
    labels = scores.argmax(1)
    margins = scores.gather(1, labels.unsqueeze(1)) - scores
    radii = (margins / (weight[labels].unsqueeze(1) - weight).abs().sum(dim=2)).nan_to_num(torch.inf).amin(dim=1)
    epsilon = float(radii.sort().values[30:32].mean())  # 31 can be broken
    # One may be missed: the loss does not climb towards the nearest of three classes from everywhere.
    assert 30 <= broken(run, defense, images, labels, epsilon) <= 31


@pytest.mark.parametrize(
    ("name", "run"),
    [
        pytest.param(name, run, marks=[] if name == "cnn" or run in (torchattacks_pgd, foolbox_ddn) else SLOW)
        for name in ("cnn", "bayes", "noisy")
        for run in (*PGDS, *MINIMAL_NORM)
    ],
)
@pytest.mark.parametrize("scale", ["shifted", pytest.param("small", marks=SLOW)])
def test_the_judge_confirms_what_libraries_find_whatever_the_scale_of_the_scores(name, run, scale, defenses, images):
    defense = defenses[name]
    labels = majority(defense, images)
    found = broken(run, defense, images, labels)
    # A minimal perturbation of a noisy classifier ends where half of the draws are wrong, and the judge's are others.
    assert found >= (COUNT // 4 if defense.stochastic and run in MINIMAL_NORM else COUNT // 2)
    assert abs(broken(run, RescaledDefense(defense, **SCALES[scale]), images, labels) - found) <= 1


@pytest.mark.parametrize("run", MINIMAL_NORM)
@every_scale
def test_minimal_norm_attacks_break_every_sample(run, how, defenses, images):
    for name in ("cnn", "bayes"):
        defense = RescaledDefense(defenses[name], **how)
        assert broken(run, defense, images, majority(defense, images)) == COUNT


@pytest.mark.parametrize("adapter", [as_module, as_torchattacks, as_autoattack, as_robustbench])
def test_scores_decide_as_the_defense_does(adapter, defense, images):
    module = adapter(defense)
    scores = module(images)
    assert scores.shape == (COUNT, 4)
    assert scores.dtype == torch.float32
    if not defense.stochastic:
        assert torch.equal(scores.argmax(1), defense(images).argmax(1))
        return
    with keyed(range(COUNT)):
        found = module(images)
    with keyed(range(COUNT)):
        expected = AttackModel(defense, samples=16)(images)
    assert torch.equal(found.argmax(1), expected.argmax(1))


def test_foolbox_and_art_see_the_same_scores(defenses, images):
    expected = as_module(defenses["cnn"])(images)
    seen = as_foolbox(defenses["cnn"])
    assert seen.bounds == (0, 1)
    torch.testing.assert_close(seen(images), expected, rtol=0, atol=0)
    classifier = as_art(defenses["cnn"], SHAPE)
    assert classifier.nb_classes == 4
    assert classifier.input_shape == SHAPE
    assert [float(value) for value in classifier.clip_values] == [0.0, 1.0]
    # in batches of 128: the sum over a batch and that over an image may differ in the last digits
    numpy.testing.assert_allclose(classifier.predict(images.numpy()), expected.detach().numpy(), rtol=0, atol=1e-5)


@every_scale
@pytest.mark.parametrize("mode", ["first", "last"])
def test_gradients_are_finite_and_none_is_zero(how, mode, defense, images):
    name = list(defense.surrogates())[0 if mode == "first" else -1]
    module = as_module(RescaledDefense(defense, **how), mode=name)
    asked = images.clone().requires_grad_()
    functional.cross_entropy(module(asked), majority(defense, images)).backward()
    assert torch.isfinite(asked.grad).all()
    assert (asked.grad.flatten(1).abs().amax(dim=1) > 0).all()


@pytest.mark.parametrize("adapter", [as_module, as_torchattacks])
@pytest.mark.parametrize("reduce", ["logits", "probs"])
def test_a_confident_decision_keeps_the_label_in_the_gradient(adapter, reduce):
    weight = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    defense = PlainClassifier(Linear(1e4 * weight, torch.zeros(2)), 2).eval()
    images = torch.rand(8, *SHAPE).requires_grad_()
    labels = defense(images).argmax(1)
    functional.cross_entropy(adapter(defense, reduce=reduce)(images), labels).backward()
    found, expected = images.grad.flatten(1), weight[1 - labels] - weight[labels]
    cosines = (found @ expected.T).diagonal() / found.norm(dim=1) / expected.norm(dim=1)
    # Of two classes the loss has one direction. Without the label's half the cosine would be about sqrt(1/2).
    torch.testing.assert_close(cosines, torch.ones(8), rtol=0, atol=1e-5)
    if reduce == "logits":
        assert (found.norm(dim=1) > 1e-5).all()  # far above 1e-7, which ART adds before it divides


def test_gradients_are_those_of_the_attack_model(defenses, images):
    defense, labels = defenses["cnn"], majority(defenses["cnn"], images)
    asked = images.clone().requires_grad_()
    scores = AttackModel(defense)(asked) * 0.75  # 3 of 4 classes: the other ones, not all, lie 10 nats below
    (expected,) = torch.autograd.grad(functional.cross_entropy(scores, labels, reduction="sum"), asked)
    (found,) = torch.autograd.grad(functional.cross_entropy(as_module(defense)(asked), labels, reduction="sum"), asked)
    torch.testing.assert_close(
        found, expected, rtol=1e-4, atol=1e-6
    )  # float32 against float64 softmax: the label's part is a difference from 1


def test_averages_of_probabilities_and_bare_scores(images):
    defense = NoisyLogits(small_cnn(), sigma=0.5)
    with keyed(range(COUNT)):
        found = as_module(defense, samples=5, reduce="probs")(images)
    with keyed(range(COUNT)):
        expected = AttackModel(defense, samples=5, reduce="probs")(images)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)
    with keyed(range(COUNT)):
        bare = as_module(defense, samples=400, calibrated=False)(images)
    # five standard errors of a mean of 400 draws
    torch.testing.assert_close(bare, defense.classifier(images), rtol=0, atol=5 * 0.5 / 20)


@pytest.mark.parametrize(("stochastic", "samples", "rows"), [(True, None, 16), (True, 1, 1), (True, 5, 5), (False, None, 1)])
def test_a_stochastic_defense_is_averaged_unless_asked_otherwise(stochastic, samples, rows, images):
    defense = Rows(stochastic)
    as_module(defense, samples=samples)(images)
    assert defense.rows[-1] == rows * COUNT  # before it a few are asked alone, if there are draws to be averaged


@pytest.mark.parametrize("run", [*PGDS, torchattacks_cw])
def test_a_defense_without_parameters_will_do(run, capsys):
    images = torch.tensor([0.5, 0.45, 0.4]).view(1, 1, 1, 3).repeat(6, 1, 1, 1)
    assert (Rows(False)(attacked(run, Rows(False), images, torch.zeros(6, dtype=torch.int64), 0.1)).argmax(1) != 0).all()
    assert "Failed" not in capsys.readouterr().out  # torchattacks says so where it finds no device


@pytest.mark.parametrize("run", [*PGDS, *MINIMAL_NORM])
def test_the_defense_is_left_as_it_was(run, defense, images):
    learning = [parameter for parameter in defense.parameters() if parameter.requires_grad]
    assert learning
    attacked(run, defense, images[:4], majority(defense, images[:4]), 0.05)
    assert all(parameter.grad is None for parameter in defense.parameters())
    assert [parameter for parameter in defense.parameters() if parameter.requires_grad] == learning
    assert not any(module.training for module in defense.modules())


def test_backward_reaches_no_parameters_and_training_mode_is_refused(defense, images):
    module = as_module(defense)
    module.train()
    assert not any(part.training for part in module.modules())
    module(images[:2].clone().requires_grad_()).sum().backward()
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)
def test_libraries_are_told_where_the_defense_lies(device):
    defense = PlainClassifier(small_cnn(), 4).eval().to(device)
    assert next(as_torchattacks(defense).parameters()).device.type == device
    assert as_foolbox(defense).device.type == device
    assert as_art(defense, SHAPE).device.type == device


def test_autoattack_calls_only_the_noisy_defense_randomised(defenses, images, caplog):
    for name, expected in {"cnn": False, "bayes": False, "noisy": True}.items():
        caplog.clear()
        apgd_ce(defenses[name], images[:4], majority(defenses[name], images[:4]), 0.05)
        assert ("randomized" in caplog.text) == expected


@pytest.mark.parametrize("attack", ["fab", "square", "apgd-dlr", "fab-t", "apgd-t"])
def test_every_part_of_autoattack_takes_the_scores(attack, defenses, images):
    import pyautoattack

    defense, labels = defenses["cnn"], majority(defenses["cnn"], images)
    whole = pyautoattack.AutoAttack(as_autoattack(defense), norm="Linf", eps=0.1, version="custom", attacks=[attack], seed=0)
    whole.apgd.n_iter = whole.fab.n_iter = whole.apgd_targeted.n_iter = 20
    whole.fab.n_restarts = whole.apgd.n_restarts = 1
    whole.fab.n_target_classes = whole.apgd_targeted.n_target_classes = 3
    whole.square.n_queries = 200
    adversarial = whole.run_standard_evaluation(images, labels)[0]
    verdict = judge(defense, images, adversarial, ThreatModel("linf", 0.1), count=1)
    assert verdict.valid.all()
    assert (verdict.predictions[:, 0] != labels).sum() >= COUNT // 2


def test_a_gradient_mode_is_chosen_by_name(defenses, images):
    gradients = []
    for mode in ("frozen", "unrolled"):
        asked = images.clone().requires_grad_()
        as_module(defenses["bayes"], mode=mode)(asked)[:, 0].sum().backward()
        gradients.append(asked.grad)
    assert not torch.allclose(*gradients, rtol=1e-3)
    with pytest.raises(GenclsError, match="frozen"):
        as_module(defenses["bayes"], mode="exact")


def test_bad_input_is_named(defenses):
    cnn = defenses["cnn"]
    with pytest.raises(GenclsError, match="PlainClassifier"):
        as_module(nn.Identity())
    with pytest.raises(GenclsError, match="eval mode"):
        as_foolbox(PlainClassifier(small_cnn(), 4).train())
    with pytest.raises(GenclsError, match="'logits', 'probs'"):
        as_module(cnn, reduce="loss")
    with pytest.raises(GenclsError, match="samples"):
        as_module(cnn, samples=0)
    with pytest.raises(GenclsError, match="image_shape"):
        as_art(cnn, (8, 8))


def test_a_missing_art_is_named(defenses, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "art.estimators.classification", None)
    with pytest.raises(GenclsError, match="adversarial-robustness-toolbox"):
        as_art(defenses["cnn"], SHAPE)
