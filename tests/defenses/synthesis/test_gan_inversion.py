"""Direct, Enc, Enc-D and their overparameterised forms against closed forms, a plain loop and finite differences."""

import inspect
import pickle
import re

import pytest
import torch
from torch import nn

from gencls.core import BayesClassifier, GenclsError, ImageDistance, keyed
from gencls.defenses import CyclicalRate, Direct, DirectPlus, Elimination, Enc, EncD, EncDPlus, EncPlus, interpolated
from gencls.defenses.synthesis.posterior import means
from gencls.defenses.synthesis.regularizers import SquaredNorm
from gencls.defenses.synthesis.starts import RandomStarts
from gencls.perceptual import SquaredL2
from tests.toys import LinearBlocks, SigmoidDecoders

CLASSES, SHAPE, SIZE, BLOCKS, WEIGHT = 3, (1, 3, 4), 3, 2, 0.7

PLAIN = {"distance": SquaredL2(), "weight": WEIGHT}
CONVERGING = {**PLAIN, "steps": 400, "max_lr": 0.2}


class LinearEncoder(nn.Module):
    """z = E x, in float64."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, SIZE, bias=False, dtype=torch.float64)
        source = torch.Generator().manual_seed(8)
        self.layer.weight.data = 0.5 * torch.randn(SIZE, 12, generator=source, dtype=torch.float64)

    def forward(self, images):
        return self.layer(images.flatten(1))


class Features(ImageDistance):
    """Squared distance of two layers of tanh features, as a perceptual distance has them."""

    def __init__(self):
        super().__init__()
        source = torch.Generator().manual_seed(5)
        for name in ("first", "second"):
            self.register_buffer(name, torch.randn(8, 12, generator=source, dtype=torch.float64))

    def embed(self, images):
        first = (images.flatten(1) @ self.first.T).tanh()
        second = (images.flatten(1) @ self.second.T).tanh()
        return first.view(-1, 2, 2, 2), second.view(-1, 8, 1, 1)

    def compare(self, first, second):
        return sum((a - b).square().flatten(-3).sum(-1) for a, b in zip(first, second, strict=True))


def generator(*, clamp=False):
    return LinearBlocks(CLASSES, SHAPE, SIZE, BLOCKS, clamp=clamp, scale=0.4).double()


def build(method, *, clamp=False, **settings):
    encoded = method not in (Direct, DirectPlus)
    networks = (generator(clamp=clamp), LinearEncoder()) if encoded else (generator(clamp=clamp),)
    return method(*networks, **{**PLAIN, **settings}).double().eval()


@pytest.fixture
def images():
    return torch.rand(5, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def closed_form(network, images, begins, own):
    """min ||A_0 z + sum_i A_i (z + z_i) + b - x||^2 + lambda (||z - z_init||^2 + sum_i ||z_i||^2), z_i for ``own`` blocks."""
    matrices, rows = network.weight.detach(), []
    for image, begin in zip(images, begins, strict=True):
        losses = []
        for k in range(CLASSES):
            whole = torch.cat([matrices[:, k].sum(0), *matrices[1 : 1 + own, k]], dim=1)
            offset = network.bias[k].detach() - image.flatten()
            pull = torch.cat([begin, begin.new_zeros(own * SIZE)])
            normal = whole.T @ whole + WEIGHT * torch.eye(len(pull), dtype=torch.float64)
            z = torch.linalg.solve(normal, WEIGHT * pull - whole.T @ offset)
            losses.append((whole @ z + offset).square().sum() + WEIGHT * (z - pull).square().sum())
        rows.append(torch.stack(losses))
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("method", "settings", "own"),
    [
        (Direct, {"starts": 5}, 0),
        (DirectPlus, {"starts": 5}, BLOCKS),
        (Direct, {"starts": 5, "blocks": 1}, 1),
        (Enc, {}, 0),
        (EncPlus, {}, BLOCKS),
        (EncD, {}, 0),
        (EncDPlus, {}, BLOCKS),
        (EncDPlus, {"blocks": 1}, 1),
    ],
)
def test_of_a_linear_generator_and_pixels_the_minimum_has_a_closed_form(images, method, settings, own):
    defense = build(method, **CONVERGING, **settings)
    encoded = method not in (Direct, DirectPlus)
    begins = LinearEncoder()(images).detach() if encoded else torch.zeros(5, SIZE, dtype=torch.float64)
    expected = closed_form(defense.generator if own == 0 else defense.generator.generator, images, begins, own)
    torch.testing.assert_close(defense(images).detach(), -expected, rtol=0, atol=1e-5)
    q = defense.infer(images)
    assert [level.mean.shape for level in q] == [torch.Size([5, CLASSES, SIZE])] * (1 + own)


def test_direct_begins_at_the_nearest_of_its_codes(images):
    network = generator()
    for ranked_by, order in (("l2", 2), ("l1", 1)):
        defense = build(Direct, starts=50, steps=0, ranked_by=ranked_by)
        codes = defense.start.codes
        made = torch.stack([network((codes,), torch.full((50,), k)) for k in range(CLASSES)])
        distances = torch.linalg.vector_norm((made[None] - images[:, None, None]).flatten(3), ord=order, dim=3)
        assert torch.equal(defense.infer(images)[0].mean, codes[distances.argmin(2)])


def test_offsets_begin_at_zero_and_the_image_is_the_generators(images):
    for method in (DirectPlus, EncDPlus):
        shared, *offsets = build(method, steps=0).infer(images)
        assert len(offsets) == BLOCKS
        assert all(not bool(level.mean.any()) for level in offsets)
        codes = shared.mean
        plain = build(Direct if method is DirectPlus else EncD, steps=0)
        torch.testing.assert_close(plain.infer(images)[0].mean, codes)
        torch.testing.assert_close(plain(images), build(method, steps=0)(images))


def loop(network, images, encoder, distance, *, steps, own, max_lr=0.1):
    """Algorithm 2 as one would write it: class by class, torch's Adam and scheduler, and a plain call of the distance."""
    rate, scores = CyclicalRate(), []
    for k in range(CLASSES):
        begin = encoder(images).detach()
        z = begin.clone().requires_grad_()
        offsets = [torch.zeros_like(z, requires_grad=True) for _ in range(own)]
        labels = torch.full((len(images),), k)

        def losses(z=z, offsets=offsets, labels=labels, begin=begin):
            rest = BLOCKS - len(offsets)
            made = network.decode_codes((z, *(z + one for one in offsets), *[z] * rest), labels)
            price = (z - begin).square().sum(1) + sum((one.square().sum(1) for one in offsets), torch.tensor(0.0))
            return distance(images, made) + WEIGHT * price

        adam = torch.optim.Adam([z, *offsets], lr=max_lr)
        scheduler = torch.optim.lr_scheduler.LambdaLR(adam, lambda done: rate(done + 1, steps))
        for _ in range(steps):
            adam.zero_grad()
            losses().sum().backward()
            adam.step()
            scheduler.step()
        scores.append(-losses().detach())
    return torch.stack(scores, dim=1)


@pytest.mark.parametrize(("method", "own"), [(Enc, 0), (EncDPlus, BLOCKS)])
def test_all_classes_at_once_are_a_plain_loop_over_the_classes(images, method, own):
    defense = build(method, clamp=True, distance=Features(), steps=40)
    expected = loop(generator(clamp=True), images, LinearEncoder(), Features(), steps=40, own=own)
    torch.testing.assert_close(defense(images).detach(), expected, rtol=0, atol=1e-5)


STRICT = Elimination(((2, 0.1), (4, 0.0)))
"""It leaves one class from the fourth step on."""


@pytest.mark.parametrize("fast", [False, STRICT], ids=["all classes", "fast"])
@pytest.mark.parametrize("method", [Direct, DirectPlus, EncD, EncDPlus])
def test_gradients(images, method, fast):
    """Unrolled: finite differences of the classifier. Frozen: those of the last loss, whose q and z_init are constants."""
    defense = build(method, clamp=True, distance=Features(), steps=5, max_lr=0.05, fast=fast)
    weights = torch.linspace(-1, 2, CLASSES, dtype=torch.float64)
    leaf = images.clone().requires_grad_()
    (unrolled,) = torch.autograd.grad((defense.surrogate("unrolled")(leaf) * weights).sum(), leaf)
    (frozen,) = torch.autograd.grad((defense.surrogate("frozen")(leaf) * weights).sum(), leaf)
    q, step = defense.infer(images), 1e-7
    for i in (0, 5, 11):
        moved = images.flatten(1).repeat(2, 1, 1)
        moved[0, :, i] += step
        moved[1, :, i] -= step
        up, down = ((defense(x.view_as(images)) * weights).sum(1).detach() for x in moved)
        torch.testing.assert_close(unrolled.flatten(1)[:, i], (up - down) / (2 * step), rtol=1e-4, atol=1e-5)
        up, down = ((defense.log_joint(x.view_as(images), q) * weights).sum(1).detach() for x in moved)
        torch.testing.assert_close(frozen.flatten(1)[:, i], (up - down) / (2 * step), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(unrolled, frozen)


@pytest.mark.parametrize("method", [Direct, EncDPlus])
def test_elimination_with_huge_margins_changes_nothing(images, method):
    exact, fast = (build(method, clamp=True, distance=Features(), steps=9, fast=rule) for rule in (False, LENIENT))
    torch.testing.assert_close(fast(images), exact(images), rtol=0, atol=1e-10)


LENIENT = Elimination(((1, 1e9), (4, 1e9)))


@pytest.mark.parametrize("method", [Direct, EncDPlus])
def test_a_class_that_left_stays_where_it_was_and_the_others_go_on_as_without(images, method):
    found, short, whole = (
        build(method, clamp=True, distance=Features(), steps=steps, rate=None, fast=rule)(images)
        for steps, rule in ((9, STRICT), (1, False), (9, False))
    )
    best = found.argmax(1, keepdim=True)
    torch.testing.assert_close(found.gather(1, best), whole.gather(1, best), rtol=0, atol=1e-10)
    left = ~found.isclose(whole, rtol=0, atol=1e-10)
    assert torch.equal(left.sum(1), torch.full((5,), CLASSES - 1))
    early = found.isclose(short, rtol=0, atol=1e-10)  # they left at the second look, after one step
    assert early.any()
    assert (found[left & ~early] > short[left & ~early]).all()  # these went on for two more steps


def test_the_rounds_of_fast_are_shares_of_the_steps():
    rounds = [[step for step, _ in build(Direct, steps=steps, fast=True).elimination.rounds] for steps in (10, 100)]
    assert rounds == [[2, 4], [11, 31]]
    assert build(Direct).elimination is None
    assert build(Direct, fast=LENIENT).elimination == LENIENT


@pytest.mark.parametrize("method", [Direct, EncDPlus])
def test_chunks_change_nothing(images, method):
    roomy, tight = (build(method, clamp=True, steps=9, memory_budget=budget) for budget in (2**30, 1))
    torch.testing.assert_close(tight(images), roomy(images), rtol=0, atol=1e-12)


def test_the_warm_gradient(images):
    defense = build(EncDPlus, clamp=True, steps=9, warm_steps=2)
    assert list(defense.surrogates()) == ["warm", "unrolled"]
    warm = defense.surrogate("warm")
    with keyed(range(5)):
        torch.testing.assert_close(warm(images), defense(images))
        assert bool(warm((images + 0.02).clamp(0, 1)).isfinite().all())


def test_a_short_look_at_the_same_image_stays_at_the_optimum(images):
    defense = build(EncDPlus, steps=300)
    found = defense.infer(images)
    before, after = (-defense.log_joint(images, q) for q in (found, defense.resume(images, found, 3)))
    assert bool((after <= 1.002 * before + 1e-3).all())  # Adam's first steps are signs; a new cycle's peak raises it by more


def test_it_recognises_what_a_class_generates():
    network = SigmoidDecoders()
    labels = torch.arange(4).repeat(10)
    images = network(network.sample_latents(40), labels).detach()
    defense = Direct(network, distance=SquaredL2(), weight=0.1, steps=50).eval()
    assert isinstance(defense, BayesClassifier)
    assert (defense(images).argmax(1) == labels).double().mean() > 0.95


def test_interpolation_goes_from_one_inversion_to_another(images):
    """Table 3.4: k = 0 is z_1 if a = 1 - k / 10 counts the share of z_1."""
    first, second = (build(Direct, starts=5, seed=seed, steps=3).infer(images) for seed in (0, 1))
    defense = build(Direct)
    for share, expected in ((1.0, first), (0.0, second)):
        assert all(torch.equal(*pair) for pair in zip(means(interpolated(first, second, share)), means(expected), strict=True))
    halfway = defense.reconstruct(images, interpolated(first, second, 0.5))
    ends = [defense.reconstruct(images, q) for q in (first, second)]
    torch.testing.assert_close(halfway, (ends[0] + ends[1]) / 2)  # of a linear generator
    distances = defense.distance.to_each(images, halfway)
    torch.testing.assert_close(distances, (halfway - images[:, None]).square().flatten(2).sum(2))


def test_parameters_are_settings_of_the_module():
    shown = repr(build(DirectPlus, starts=7))
    assert "rate=CyclicalRate(start=0.1" in shown
    assert "blocks=2" in shown
    assert "count=7" in shown


@pytest.mark.parametrize(("variant", "method"), [(EncD, Enc), (DirectPlus, Direct), (EncPlus, Enc), (EncDPlus, Enc)])
def test_variants_show_the_settings_of_their_methods(variant, method):
    own, others = (inspect.signature(one).parameters for one in (variant, method))
    assert list(own) == list(others)
    changed = {name: one.default for name, one in own.items() if one.default != others[name].default}
    assert changed == ({} if variant is EncD else {"blocks": None})
    assert inspect.getdoc(variant).partition("Args:")[2] == inspect.getdoc(method).partition("Args:")[2] != ""
    assert inspect.getdoc(variant) != inspect.getdoc(method)
    assert pickle.loads(pickle.dumps(variant)) is variant


KNOWN = {
    Direct: "expected settings among generator, distance, weight, steps, max_lr, rate, blocks, starts, ranked_by, seed, fast, ",
    Enc: "expected settings among generator, encoder, distance, weight, steps, max_lr, rate, blocks, fast, warm_steps",
}
BAD = [
    (Direct, {"wieght": 1.0}, f"Direct: did you mean 'weight'? {KNOWN[Direct]}"),
    (DirectPlus, {"wieght": 1.0}, f"DirectPlus: did you mean 'weight'? {KNOWN[Direct]}"),
    *((one, {"starts": 5}, f"{one.__name__}: {KNOWN[Enc]}") for one in (Enc, EncD, EncPlus, EncDPlus)),
    (EncDPlus, {"steps": 2.5}, "EncDPlus: expected steps to be an int, got 2.5"),
    (Direct, {"weight": -0.1}, "GAN inversion: expected weight >= 0, got -0.1"),
    (EncPlus, {"weight": 1e38}, "GAN inversion: expected weight <= 1e+15, or squared gradients overflow float32; got 1e+38"),
    (EncD, {"steps": -1}, "GAN inversion: expected steps >= 0, got -1"),
    (Enc, {"max_lr": 0.0}, "GAN inversion: expected max_lr > 0, got 0.0"),
    (Direct, {"starts": 0}, "GAN inversion: expected starts >= 1, got 0"),
    (Enc, {"memory_budget": 0}, "AnalysisBySynthesis: expected memory_budget >= 1 byte, got 0"),
    (Direct, {"ranked_by": "l3"}, "Direct: expected ranked_by to be one of 'l2', 'l1', got 'l3'"),
    (Direct, {"fast": 3}, "Direct: expected fast to be True or False or an Elimination, got 3"),
    (DirectPlus, {"blocks": 3}, "BlockCodes: expected 1 to 2 codes, one for a block, got 3"),
    (EncDPlus, {"blocks": -1}, "GAN inversion: expected blocks >= 0, or None for all of them, got -1"),
    (Enc, {"distance": "vgg"}, "Enc: expected distance to be an ImageDistance, got 'vgg'"),
]


@pytest.mark.parametrize(("method", "settings", "message"), BAD)
def test_bad_settings(method, settings, message):
    with pytest.raises(GenclsError, match=re.escape(message)):
        build(method, **settings)


def test_a_wrong_number_of_blocks_does_not_blame_the_generator():
    with pytest.raises(GenclsError, match="expected blocks >= 0, or None for all of them, got -1"):
        Direct(SigmoidDecoders(), distance=SquaredL2(), blocks=-1)


def test_a_generator_whose_blocks_take_no_codes():
    with pytest.raises(GenclsError, match="expected generator to be a BlockwiseGenerator, got SigmoidDecoders"):
        DirectPlus(SigmoidDecoders(), distance=SquaredL2())


def test_codes_of_another_size_than_the_generators(images):
    defense = Enc(generator(), nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).double(), **PLAIN)
    with pytest.raises(GenclsError, match=r"expected codes \(1, 3\) of the encoder, as the generator takes, got \(1, 5\)"):
        defense(images[:1])


class Means(ImageDistance):
    """A user's own distance, which takes images of any shape: the squared difference of their means."""

    def embed(self, images):
        return (images.mean((1, 2, 3), keepdim=True),)

    def compare(self, first, second):
        return (first[0] - second[0]).square().flatten(-3).sum(-1)


class MeanEncoder(nn.Module):
    def forward(self, images):
        return images.mean((1, 2, 3)).unsqueeze(1).expand(-1, SIZE)


@pytest.mark.parametrize("shape", [(3, 3, 4), (1, 4, 3), (1, 6, 8)])
@pytest.mark.parametrize("distance", [SquaredL2(), Means()])
@pytest.mark.parametrize("method", [Direct, DirectPlus, Enc, EncDPlus])
def test_images_of_another_shape_than_the_generators(method, distance, shape):
    encoder = () if method in (Direct, DirectPlus) else (MeanEncoder(),)
    defense = method(generator(), *encoder, distance=distance, steps=2).double().eval()
    images = torch.rand(2, *shape, dtype=torch.float64)
    message = rf"expected floating-point images of shape \(N, 1, 3, 4\), as the generator makes, got .* \(2, {shape[0]}, "
    looks = (defense, defense.infer, defense.surrogates()["unrolled"])
    for look in looks:
        with pytest.raises(GenclsError, match=message):
            look(images.requires_grad_())
    fitting = torch.rand(2, *SHAPE, dtype=torch.float64)
    assert defense(fitting).shape == (2, CLASSES)
    for look in looks:  # the generator is known by now
        with pytest.raises(GenclsError, match=message):
            look(images)


def test_the_shape_of_the_generators_images_is_looked_up_once(images):
    defense, decoded = build(Enc, steps=3), []
    defense.generator.register_forward_pre_hook(lambda module, given: decoded.append(len(given[1])))
    defense(images)
    first = len(decoded)
    decoded.clear()
    defense(images)
    assert decoded == [CLASSES * len(images)] * 4  # three steps and the scores
    assert first == 4 + 1 + 2  # once for the shape, twice for the memory of a step


def test_random_starts_of_another_shape(images):
    starts = RandomStarts(generator(), SquaredNorm(), 1.0, count=2, seed=0)
    for shape in ((2, 3, 4), (1, 4, 3)):
        message = rf"RandomStarts: expected .* shape \(N, 1, 3, 4\), as the generator makes, got .* shape \(5, {shape[0]}, "
        with pytest.raises(GenclsError, match=message):
            starts(torch.rand(5, *shape, dtype=torch.float64))
    assert starts(images)[0].shape == (5, CLASSES, SIZE)
