"""Networks as people bring them, under every attack and inside every constructor: nothing of them changes."""

import pytest
import torch
from torch import nn

from gencls.core import BPDA, BayesClassifier, EoT, GenclsError, TransformedClassifier, Unrolled, keyed
from gencls.defenses import (
    ABS,
    Binarize,
    DefenseGAN,
    MLVGMPurification,
    PlainClassifier,
    RandomizedSmoothing,
    VariationalSmoothing,
    fgsm_examples,
)
from gencls.defenses.synthesis.starts import EncoderStart
from gencls.eval import (
    APGD,
    DDN,
    FAB,
    FMN,
    NES,
    PGD,
    AttackModel,
    AutoAttack,
    Boundary,
    CarliniWagner,
    DeepFool,
    GaussianNoiseAttack,
    GrowingNoise,
    LatentDescent,
    SparseRS,
    Square,
    ThreatModel,
)
from gencls.eval.adapters import as_foolbox, as_module
from tests.strangers.fuzz_values import Answers
from tests.strangers.networks import (
    LINF,
    STEP,
    Around,
    WithNorm,
    declared,
    dropping,
    fails,
    in_place,
    network,
    same,
    samples,
    state,
)
from tests.toys import MeanRowsPixels, SigmoidDecoders

__all__ = ["samples"]


NEAR, FAR = ThreatModel("l2"), ThreatModel("linf")
ATTACKS = {
    "PGD": PGD(LINF, steps=2, smoothing=(0.0, 0.1), smoothing_draws=2),
    "FGSM": STEP,
    "GaussianNoiseAttack": GaussianNoiseAttack(LINF, tries=1),
    "NES": NES(LINF, steps=2, samples=4),
    "Square": Square(LINF, queries=4),
    "SparseRS": SparseRS(ThreatModel("l0", 3.0), queries=4),
    "APGD": APGD(LINF, steps=3),
    "AutoAttack": AutoAttack(LINF, steps=2, queries=4, targets=2),
    "GrowingNoise": GrowingNoise(FAR, sizes=2),
    "DeepFool": DeepFool(FAR, steps=2),
    "FAB": FAB(FAR, steps=2, restarts=1),
    "DDN": DDN(NEAR, steps=3),
    "FMN": FMN(FAR, steps=3),
    "CarliniWagner": CarliniWagner(NEAR, steps=3, searches=1),
    "Boundary": Boundary(NEAR, queries=20),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_training_mode_is_refused_by_attacks_and_nothing_changes(attack, samples):
    module = WithNorm().train()
    before = state(module)
    with pytest.raises(GenclsError, match="WithNorm: expected a model in eval mode, got training mode"):
        ATTACKS[attack](module, *samples)
    assert same(state(module), before)


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_leave_no_trace_on_a_network(attack, samples):
    module = WithNorm()
    module.layers[0].weight.requires_grad_(False)
    before = state(module)
    with keyed(range(6)):
        ATTACKS[attack](module, *samples)
    assert same(state(module), before)
    module.layers.append(nn.Identity())
    module.layers[-1].forward = fails
    before = state(module)
    with pytest.raises(GenclsError, match="KeyError"):
        ATTACKS[attack](module, *samples)
    assert same(state(module), before)


@pytest.mark.parametrize("attack", ATTACKS)
def test_normalisation_in_place_under_every_attack(attack, samples):
    images, labels = samples
    before, found = images.clone(), []
    for preprocess in (in_place, lambda images: (images - 0.5) / 0.5):
        module = Around(before=preprocess)
        with keyed(range(6)):
            found.append(ATTACKS[attack](module, images, labels))
    assert torch.equal(images, before)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_compiled_networks_under_every_attack(attack, samples):
    found = []
    for module in (torch.compile(network(), backend="eager"), network()):
        with keyed(range(6)):
            found.append(ATTACKS[attack](module, *samples))
    assert torch.equal(*found)


class Near(BayesClassifier):
    """Near which centre an image lies, where the encoder has moved it to."""

    num_classes = 3

    def __init__(self, work):
        super().__init__()
        self.work = work

    def infer(self, images):
        return self.work(images).mean((1, 2, 3)).unsqueeze(1) * torch.arange(3)

    def log_joint(self, images, q):
        return -(images.mean((1, 2, 3)).unsqueeze(1) - q).square()


def started(work, images):
    images = images.clone()
    return EncoderStart(Answers(lambda images: (work(images), torch.zeros(()))))(images)[0].mean + images


OF_BAYES = {
    "unrolled": lambda work, images: Unrolled(Near(work))(images.clone()),
    "unrolled in parts": lambda work, images: Unrolled(Parted(work))(images.clone()),
    "start": started,
}


class Parted(Near):
    def images_per_graph(self, images):
        return 2


@pytest.mark.parametrize("way", OF_BAYES)
def test_classifiers_of_bayes_with_parts_that_work_in_place(way, samples):
    found = []
    for work in (in_place, lambda images: (images - 0.5) / 0.5):
        images = samples[0].clone().requires_grad_()
        answer = OF_BAYES[way](work, images)
        found.append((answer.detach(), *torch.autograd.grad(answer[:, 0].sum(), images)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


CONSTRUCTORS = {
    "PlainClassifier": (network, lambda module: PlainClassifier(module, 3)),
    "TransformedClassifier": (network, lambda module: TransformedClassifier(Binarize(0.5), module, 3)),
    "RandomizedSmoothing": (network, lambda module: RandomizedSmoothing(module, 3, sigma=0.25)),
    "VariationalSmoothing": (network, lambda module: VariationalSmoothing(module, 3, radius=0.1, draws=2)),
    "EoT": (network, lambda module: EoT(module, 2)),
    "BPDA": (network, lambda module: BPDA(module, module)),
    "AttackModel": (network, AttackModel),
    "ABS": (SigmoidDecoders, lambda module: ABS(module, starts=4, steps=2)),
    "adapter": (network, lambda module: as_module(PlainClassifier(module, 3))),
}


@pytest.mark.parametrize("kind", CONSTRUCTORS)
@pytest.mark.parametrize("training", [False, True])
def test_constructors_leave_the_flags_of_what_they_are_given(kind, training, samples):
    make, wrap = CONSTRUCTORS[kind]
    module = make().train(training)
    next(module.parameters()).requires_grad_(kind == "ABS")
    before = state(module)
    if training and kind == "adapter":
        with pytest.raises(GenclsError, match="training mode"):
            wrap(module)
    else:
        wrapped = wrap(module)
        assert same(state(module), before)
        if not training:
            wrapped.train(False)
            images = samples[0].clone().requires_grad_()
            scores = wrapped(images)
            if scores.requires_grad:
                scores.sum().backward()
            assert kind not in ("ABS", "VariationalSmoothing") or all(each.grad is None for each in module.parameters())
            module.zero_grad()
    assert same(state(module), before)


def test_defense_gan_leaves_the_flags_of_its_generator():
    class Generator(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 64)

        def forward(self, latents):
            return self.layer(latents).sigmoid().view(-1, 1, 8, 8)

    generator = Generator().eval()
    before = state(generator)
    defense = DefenseGAN(generator, (3,), restarts=2, steps=3)
    images = torch.rand(2, 1, 8, 8, requires_grad=True)
    defense.surrogate("unrolled")(images).sum().backward()
    assert same(state(generator), before)


def test_foreign_libraries_leave_no_trace(samples):
    import foolbox

    module = dropping()
    defense = declared(module)
    before = state(module)
    foolbox.attacks.LinfPGD(steps=2)(as_foolbox(defense, samples=2), *samples, epsilons=0.05)
    as_module(defense, samples=2).train()
    assert same(state(module), before)


def test_latent_descent_names_images_and_labels_that_do_not_fit():
    """It asks the classifier's parts one by one."""
    model = ABS(SigmoidDecoders(), starts=4, steps=1).eval()
    attack = LatentDescent(ThreatModel("l2"), steps=1, bisections=1)
    with pytest.raises(GenclsError, match=r"expected floating-point images of shape \(N, 1, 8, 8\), as the generator makes"):
        attack(model, torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 2]))
    with pytest.raises(GenclsError, match=r"labels: expected values in 0\.\.3 for 4 classes, got values in 1\.\.4"):
        attack(model, torch.rand(3, 1, 8, 8), torch.tensor([1, 2, 4]))


NO_CLASSIFIERS = {
    "no gradient": lambda images: images.new_zeros(len(images), 4),
    "images for scores": lambda images: images,
    "another dtype": nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).double().eval(),
    "too few classes": nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval(),
}


@pytest.mark.parametrize("what", NO_CLASSIFIERS)
def test_examples_of_a_step_need_a_classifier_that_fits(what):
    answer = NO_CLASSIFIERS[what]
    classifier = answer if isinstance(answer, nn.Module) else Answers(answer)
    purification = MLVGMPurification(MeanRowsPixels(), "linear").eval()
    with pytest.raises(GenclsError, match="fgsm_examples: expected a classifier that takes these images"):
        fgsm_examples(purification, classifier, torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 3]), epsilon=0.5)
