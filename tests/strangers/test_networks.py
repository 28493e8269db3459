"""Networks as people bring them: in every dtype, mode and form, under every way in. They work, or a message says what to do."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from gencls.core import GenclsError
from gencls.defenses import PlainClassifier
from gencls.eval import evaluate, judge
from gencls.eval.adapters import as_module
from gencls.eval.doctor import diagnose
from tests.strangers.networks import GLANCE, LINF, STEP, WAYS, Around, bring, every_way, fails, in_place, network, samples

__all__ = ["samples"]


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
