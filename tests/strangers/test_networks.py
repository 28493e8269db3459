"""Networks as people bring them: in every dtype, mode and form, under every way in. They work, or a message says what to do."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional

from gencls._commands.asked import build_defense
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
    FGSM,
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
    Protocol,
    Square,
    Study,
    ThreatModel,
    Transfer,
    evaluate,
    judge,
)
from gencls.eval.adapters import as_foolbox, as_module
from gencls.eval.doctor import diagnose
from gencls.eval.doctor.patient import Effort
from tests.strangers.fuzz_values import Answers
from tests.toys import MeanRowsPixels, SigmoidDecoders

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


def by_path(module, images, labels, folder, monkeypatch):
    monkeypatch.setattr("tests.strangers.test_networks.BROUGHT", module, raising=False)
    defense = build_defense("tests.strangers.test_networks:BROUGHT", images)
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


def thinned(pairs, everywhere):
    """Pairs of a kind and a way in: one kind is tried every way, the others quickly the shortest ways, else slowly."""
    fast = ("evaluate", "import path", "FGSM")
    return [pytest.param(*pair, marks=() if pair[0] == everywhere or pair[1] in fast else pytest.mark.slow) for pair in pairs]


@dataclass
class Classified:
    """As HuggingFace's models answer."""

    logits: torch.Tensor


def only_one(images):
    if len(images) != 1:
        raise IndexError("one image, please")
    return images


def fails(images):
    raise KeyError("colour")


class Mixed(Around):
    def __init__(self):
        super().__init__()
        self.network[0].half()


REFUSED = {
    "half precision": (lambda: network().half(), "dtype of the images, torch.float32, got torch.float16"),
    "bfloat16": (lambda: network().bfloat16(), "dtype of the images, torch.float32, got torch.bfloat16"),
    "float64": (lambda: network().double(), "dtype of the images, torch.float32, got torch.float64"),
    "mixed": (Mixed, "torch.float32, got torch.float16 and torch.float32"),
    "other images": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(65, 3)).eval(), "expected images of the shape"),
    "a row less": (lambda: Around(lambda scores: scores[1:]), "expected scores of shape"),
    "bool": (lambda: Around(lambda scores: scores > 0), "expected floating-point scores, got torch.bool"),
    "complex": (lambda: Around(lambda scores: scores + 0j), "expected floating-point scores, got torch.complex64"),
    "integers": (lambda: Around(lambda scores: scores.long()), "expected floating-point scores, got torch.int64"),
    "a tuple": (lambda: Around(lambda scores: (scores, 0)), r"got tuple of 2; wrap .* such as network\(images\)\[0\]"),
    "a list": (lambda: Around(lambda scores: [scores]), "got list of 1; wrap"),
    "a dict": (lambda: Around(lambda scores: {"a": 0, "logits": scores}), r"a, logits; wrap .* network\(images\)\['logits'\]"),
    "logits": (lambda: Around(lambda scores: Classified(scores)), r"got Classified; wrap .* network\(images\).logits"),
    "nothing": (lambda: Around(lambda scores: None), "got NoneType"),
    "one number": (lambda: Around(lambda scores: scores[:, 0]), "expected scores of shape"),
    "maps": (lambda: Around(lambda scores: scores[..., None, None]), r"flatten them: network\(images\).flatten\(1\)"),
    "one class": (lambda: Around(lambda scores: scores[:, :1]), "at least 2 classes, got 1"),
    "one image at a time": (lambda: Around(before=only_one), "batch_dependent = True"),
    "squeezed": (lambda: Around(lambda scores: scores.squeeze(0)), "keep the batch dimension|got no error"),
    "an error of its own": (lambda: Around(before=fails), "fails on any image: KeyError: 'colour'"),
}


EVERYWHERE = ("half precision", "mixed", "a tuple", "one image at a time", "an error of its own")
PAIRS = [(kind, way) for kind in REFUSED for way in WAYS if kind in EVERYWHERE or way in ("evaluate", "import path", "FGSM")]


@pytest.mark.parametrize(("kind", "way"), thinned(PAIRS, "half precision"))
def test_what_cannot_be_asked_is_refused_in_words(kind, way, samples, tmp_path, monkeypatch):
    make, message = REFUSED[kind]
    whole_batches = way in ("FGSM", "Square", "import path")  # not asked about one image
    if kind == "squeezed" and whole_batches:
        pytest.skip("batches of several images are answered rightly")
    with pytest.raises(GenclsError, match=message) as caught:
        bring(way, make(), samples, tmp_path, monkeypatch)
    if "fails" in message or "dtype" in message:
        assert caught.value.__cause__ is not None
    if "float32, got" not in message:
        assert "dtype" not in str(caught.value)


def in_place(images):
    return images.sub_(0.5).div_(0.5)


def with_gradient_inside(images):
    with torch.enable_grad():
        leaf = images.detach().requires_grad_()
        (slope,) = torch.autograd.grad(leaf.square().sum(), leaf)
    return images + 0.1 * slope


def double_of(samples):
    return samples[0].double(), samples[1]


WORK = {
    "in place": lambda: Around(before=in_place),
    "a cast": lambda: nn.Sequential(Cast(torch.float16), network().half(), Cast(torch.float32)).eval(),
    "differentiates inside": lambda: Around(before=with_gradient_inside),
    "scripted": lambda: torch.jit.script(network()),
    "traced": lambda: torch.jit.trace(network(), torch.rand(6, 1, 8, 8)),
}


class Cast(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def forward(self, images):
        return images.to(self.dtype)


@pytest.mark.parametrize(("kind", "way"), thinned(list(itertools.product(WORK, WAYS)), "in place"))
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_what_works_by_itself_works_and_images_stay(kind, way, samples, tmp_path, monkeypatch):
    before = samples[0].clone()
    bring(way, WORK[kind](), samples, tmp_path, monkeypatch)
    assert torch.equal(samples[0], before)


@every_way
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_compiled_networks_work_and_images_stay(way, samples, tmp_path, monkeypatch):
    before = samples[0].clone()
    bring(way, torch.compile(network(), backend="eager"), samples, tmp_path, monkeypatch)
    assert torch.equal(samples[0], before)


SEVERAL = pytest.mark.parametrize(
    "way", ["evaluate", "judge", "foolbox", "FGSM", pytest.param("Study", marks=pytest.mark.slow)]
)


@SEVERAL
def test_float64_networks_take_float64_images(way, samples, tmp_path, monkeypatch):
    images, labels = double_of(samples)
    before = images.clone()
    bring(way, network().double(), (images, labels), tmp_path, monkeypatch)
    assert torch.equal(images, before)


def test_float64_images_are_to_be_cast(samples):
    with pytest.raises(GenclsError, match="torch.float64, got torch.float32 .*; give the images in float32, or call .double"):
        STEP(network(), *double_of(samples))


@SEVERAL
def test_float64_as_the_default_dtype(way, samples, tmp_path, monkeypatch):
    images, labels = double_of(samples)
    before = images.clone()
    torch.set_default_dtype(torch.float64)
    try:
        bring(way, network(), (images, labels), tmp_path, monkeypatch)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(images, before)


NEAR, FAR = ThreatModel("l2"), ThreatModel("linf")
ATTACKS = {
    "PGD": PGD(LINF, steps=2, smoothing=(0.0, 0.1), smoothing_draws=2),
    "FGSM": STEP,
    "GaussianNoiseAttack": GaussianNoiseAttack(LINF, tries=1),
    "NES": NES(LINF, steps=2, samples=4),
    "Square": Square(LINF, queries=4),
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
    return EncoderStart(lambda images: (work(images), torch.zeros(())))(images)[0].mean + images


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


@every_way
def test_a_part_in_training_mode_is_named(way, samples, tmp_path, monkeypatch):
    module = WithNorm()
    module.layers[1].train()
    before = state(module)
    with pytest.raises(GenclsError, match=r"training mode of (network\.)?layers.1 \(BatchNorm2d\)"):
        bring(way, module, samples, tmp_path, monkeypatch)
    assert same(state(module), before)


def dropping():
    """The usual recipe of test-time dropout."""
    module = WithNorm()
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.train()
    return module


@pytest.mark.parametrize("way", [way for way in WAYS if way != "import path"])
def test_dropout_at_test_time_must_be_declared(way, samples, tmp_path, monkeypatch):
    module = dropping()
    with pytest.raises(GenclsError, match="Dropout.*test-time dropout set stochastic = True|stochastic"):
        bring(way, module, samples, tmp_path, monkeypatch)


def declared(module):
    return PlainClassifier(module, 3, stochastic=True)


DROPPING = {
    "Study": lambda module, samples, folder: in_study(declared(module), *samples, folder),
    "evaluate": lambda module, samples, folder: evaluate(declared(module), {"fgsm": STEP}, [samples], eot_samples=2),
    "judge": lambda module, samples, folder: judge(declared(module), samples[0], samples[0], LINF, count=4),
    "doctor": lambda module, samples, folder: diagnose(declared(module), *samples, epsilon=0.05, effort=GLANCE, eot_samples=2),
    "module": lambda module, samples, folder: as_module(declared(module), samples=2)(samples[0]),
    "FGSM": lambda module, samples, folder: STEP(AttackModel(declared(module), samples=2), *samples),
    "Transfer": lambda module, samples, folder: Transfer(declared(module), STEP)(network(), *samples),
}


@pytest.mark.parametrize("way", DROPPING)
def test_dropout_at_test_time_stays_on(way, samples, tmp_path):
    module, drawn = dropping(), []
    before = state(module)
    module.layers[2].forward = lambda images: drawn.append(1) or functional.dropout(images, 0.5, module.layers[2].training)
    DROPPING[way](module, samples, tmp_path)
    assert drawn
    assert same(state(module), before)


def test_dropout_at_test_time_is_found_by_import_path(samples, monkeypatch):
    module = dropping()
    monkeypatch.setattr("tests.strangers.test_networks.BROUGHT", module, raising=False)
    defense = build_defense("tests.strangers.test_networks:BROUGHT", samples[0])
    assert defense.stochastic
    assert module.layers[2].training
    assert not defense.training
    result = evaluate(defense, {"fgsm": STEP}, [samples], eot_samples=2, judge_draws=16)
    assert any(len(set(row)) > 1 for row in result.records["predictions"])


def test_what_was_never_switched_is_switched_by_import_path(samples, monkeypatch):
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = dropping()

        def forward(self, images):
            return self.inner(images)

    class Headed(nn.Module):
        """A network that was switched, and dropout of its own that was not."""

        def __init__(self):
            super().__init__()
            self.inner, self.drop = WithNorm(), nn.Dropout(0.5)

        def forward(self, images):
            return self.inner(self.drop(images))

    for module, stays in ((WithNorm().train(), False), (Wrapper(), True), (Headed(), False), (Headed().eval(), False)):
        monkeypatch.setattr("tests.strangers.test_networks.BROUGHT", module, raising=False)
        defense = build_defense("tests.strangers.test_networks:BROUGHT", samples[0])
        assert defense.stochastic == stays
        dropout = next(part for part in module.modules() if isinstance(part, nn.Dropout))
        assert (module.training, dropout.training) == (False, stays)


def test_a_new_head_in_training_mode_is_named_by_import_path(samples, monkeypatch):
    module = WithNorm()
    module.layers[5] = nn.Sequential(nn.Dropout(0.5), module.layers[5])
    monkeypatch.setattr("tests.strangers.test_networks.BROUGHT", module, raising=False)
    with pytest.raises(GenclsError, match=r"training mode of layers.5 \(Sequential\)"):
        build_defense("tests.strangers.test_networks:BROUGHT", samples[0])


SURROGATES = {
    "declares it": lambda defense: BPDA(defense, nn.Sequential(nn.Flatten(), nn.Linear(64, 3))),
    "is the network": lambda defense: defense.network,
    "holds the network": lambda defense: nn.Sequential(defense.network),
}


@pytest.mark.parametrize("kind", SURROGATES)
def test_a_surrogate_drops_where_its_defense_does(kind, samples):
    class Smoothed(PlainClassifier):
        def surrogates(self):
            return {"smooth": SURROGATES[kind](self)}

    module = dropping()
    evaluate(Smoothed(module, 3, stochastic=True), {"fgsm": STEP}, [samples], eot_samples=2, judge_draws=4)
    assert module.layers[2].training


@pytest.mark.parametrize("way", DROPPING)
def test_flags_that_change_nothing_stay_too(way, samples, tmp_path):
    module = WithNorm()
    module.layers[3].train()  # the ReLU
    before = state(module)
    DROPPING[way](module, samples, tmp_path)
    assert same(state(module), before)


def test_a_name_alone_is_no_dropout(samples):
    class DropNorm(nn.BatchNorm2d):
        pass

    module = nn.Sequential(DropNorm(1), network()).eval()
    module[0].train()
    before = state(module)
    with pytest.raises(GenclsError, match=r"training mode of network.0 \(DropNorm\)"):
        evaluate(declared(module), {"fgsm": STEP}, [samples])
    assert same(state(module), before)


def test_images_one_at_a_time(samples):
    module = Around(before=only_one)
    defense = PlainClassifier(module, 3, batch_dependent=True)
    evaluate(defense, {"fgsm": STEP}, [samples])
    assert judge(defense, samples[0], samples[0], LINF, count=1).valid.all()
    assert STEP(defense, *samples).shape == samples[0].shape
    as_module(defense)(samples[0])


def test_no_gradient_inside_is_said(samples):
    class NoGrad(Around):
        def forward(self, images):
            with torch.no_grad():
                return self.network(images)

    for way in ("evaluate", "FGSM"):
        with pytest.raises(GenclsError, match="expected scores with a gradient, got detached ones"):
            WAYS[way](NoGrad(), *samples)
    assert not diagnose(NoGrad(), *samples, epsilon=0.05, effort=GLANCE).passed


def test_a_network_that_differentiates_without_saying_so_is_told(samples):
    def careless(images):
        leaf = images.detach().requires_grad_()
        return images + torch.autograd.grad(leaf.square().sum(), leaf)[0]

    with pytest.raises(GenclsError, match="torch.enable_grad"):
        evaluate(Around(before=careless), {"fgsm": STEP}, [samples])


@pytest.mark.parametrize("way", ["evaluate", "FGSM"])
def test_what_fails_only_with_gradients_is_said(way, samples):
    def leaves_torch(images):
        return torch.from_numpy(images.numpy())

    with pytest.raises(GenclsError, match=r"fails on any image: Can't call numpy\(\)"):
        WAYS[way](Around(before=leaves_torch), *samples)


def test_an_error_in_the_backward_pass_is_said(samples):
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, images):
            return images.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise LookupError("no way back")

    with pytest.raises(GenclsError, match="backward pass: LookupError: no way back"):
        STEP(Around(before=Broken.apply), *samples)


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
    with pytest.raises(GenclsError, match="expected images of the shape"):
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
