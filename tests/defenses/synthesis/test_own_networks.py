"""Networks of the caller: the starts follow their changes, classifying changes nothing in them, and misuse is refused."""

import copy

import pytest
import torch
from torch import nn

from gencls.core import BlockwiseGenerator, ClassConditionalGenerator, GenclsError
from gencls.defenses import ABS, EABS, AnalysisBySynthesis, Direct, DirectPlus, Enc, EncPlus, RandomStarts, SquaredNorm
from gencls.defenses.synthesis.regularizers import SquaredShift
from gencls.perceptual import SquaredL2
from tests.plain_generator import PlainGenerator
from tests.toys import LinearBlocks, SigmoidDecoders, small_cnn

PIXELS = {"distance": SquaredL2()}


class Small(ClassConditionalGenerator):
    """A layer, what stands between, and a layer; ``writes`` scales its latents in place."""

    def __init__(self, classes=3, *, between=None, writes=False, seed=0):
        super().__init__()
        self.num_classes, self.latent_shapes, self.writes = classes, (torch.Size([5]),), writes
        source = torch.Generator().manual_seed(seed)
        self.label, self.first, self.last = nn.Embedding(classes, 5), nn.Linear(5, 16), nn.Linear(16, 64)
        self.between = between or nn.Identity()
        for parameter in (*self.label.parameters(), *self.first.parameters(), *self.last.parameters()):
            parameter.data = 1.5 * torch.randn(parameter.shape, generator=source)

    def forward(self, latents, labels):
        code = latents[0].mul_(0.5) if self.writes else 0.5 * latents[0]
        return self.last(self.between((self.first(code + self.label(labels))).tanh())).sigmoid().view(-1, 1, 8, 8)


class Quiet(nn.Module):
    """A layer that is another function in training mode, which its code does not show."""

    def forward(self, values):
        return -values if getattr(self, "train" + "ing") else values


@pytest.fixture
def images():
    return torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def direct(generator, **settings):
    return Direct(generator, **{**PIXELS, "steps": 0, "starts": 40, **settings})


def copied(generator):
    """Exponential averages are often copied like this; torch does not count such writes."""
    other = Small(seed=7).state_dict()
    for name, parameter in generator.named_parameters():
        parameter.data.copy_(other[name])


def classes_exchanged(generator):
    generator.label.weight.data.copy_(generator.label.weight.data[[2, 0, 1]])


CHANGES = {
    "copied through data": copied,
    "classes exchanged through data": classes_exchanged,
    "a write": lambda generator: generator.last.bias.detach().neg_(),
    "a mode that no check sees": lambda generator: generator.train(),
}


@pytest.mark.parametrize("ranked_by", ["l2", "l1"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_starts_follow_the_generator(images, change, ranked_by):
    generator = Small(between=Quiet()).eval()
    used = direct(generator, ranked_by=ranked_by).eval()
    before = used(images)
    change(generator)
    fresh = direct(generator, ranked_by=ranked_by)
    found = used(images)
    assert torch.equal(found, fresh(images))
    assert not torch.equal(found, before)


def test_starts_follow_their_own_weight(images):
    start = RandomStarts(Small().eval(), SquaredNorm(), 0.0, count=40, seed=0)
    start(images)
    start.weight = 1e6
    shortest = start.codes[start.codes.square().sum(1).argmin()]
    assert torch.equal(start(images)[0], shortest.expand(4, 3, 5))


def test_an_unchanged_generator_is_decoded_once(images):
    generator = Small().eval()
    used = direct(generator)
    start, seen = used.start, []
    start(images)
    generator.decode_all = lambda latents: seen.append(len(latents[0]))
    start(images)
    start(images)
    assert seen == []


class Wrapper(PlainGenerator):
    def forward(self, latents, labels):
        return self.network(latents, labels)


@pytest.mark.parametrize("make", [direct, lambda generator: Enc(generator, small_cnn(5), **PIXELS)])
def test_another_generator_in_its_place_is_refused(images, make):
    defense = make(Small().eval())
    own = defense.generator
    with pytest.raises(GenclsError, match="expected the generator that it was built with, or a wrapper .* got another Small"):
        defense.generator = Small(seed=1)
    with pytest.raises(GenclsError, match="AnalysisBySynthesis: expected the generator .* got another NoneType"):
        defense.generator = None
    assert defense.generator is own
    expected = defense(images)
    defense.generator = Wrapper(own)
    assert torch.equal(defense(images), expected)
    assert copy.deepcopy(defense).generator.network is not own


def test_another_generator_behind_block_codes_is_refused():
    defense = DirectPlus(LinearBlocks(), **PIXELS, starts=4, steps=1)
    with pytest.raises(
        GenclsError, match="BlockCodes: expected the generator that it was built with, .* got another LinearBlocks"
    ):
        defense.generator.generator = LinearBlocks(seed=1)


BETWEEN = {"batch norm": lambda: nn.BatchNorm1d(16), "dropout": lambda: nn.Dropout(0.5)}


@pytest.mark.parametrize("make", BETWEEN.values(), ids=BETWEEN)
def test_networks_in_training_mode_are_refused_and_stay_as_they_are(images, make):
    generator, encoder = Small(between=make()), nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5))
    states = [{name: value.clone() for name, value in part.state_dict().items()} for part in (generator, encoder)]
    whole, q = direct(generator.eval(), steps=2), direct(generator.eval(), steps=2).eval().infer(images)
    generator.train()
    asks = {
        "scores": lambda: whole(images),
        "inference": lambda: whole.infer(images),
        "scores of a q": lambda: whole.log_joint(images, q),
        "reconstructions": lambda: whole.reconstruct(images, q),
        "images per graph": lambda: whole.images_per_graph(images),
        "unrolled": lambda: whole.surrogate("unrolled")(images.clone().requires_grad_()),
        "warm": lambda: direct(generator, warm_steps=1).surrogate("warm")(images),
        "starts alone": lambda: RandomStarts(generator, SquaredNorm(), 0.0, count=4, seed=0)(images),
    }
    for ask in asks.values():
        with pytest.raises(GenclsError, match="expected networks in eval mode, got training mode of .*between.*; call .eval"):
            ask()
    with pytest.raises(GenclsError, match=r"got training mode of start\.encoder\.2 \(BatchNorm1d\)"):
        Enc(generator.eval(), encoder, **PIXELS)(images)
    for part, before in zip((generator, encoder), states, strict=True):
        assert all(torch.equal(value, before[name]) for name, value in part.state_dict().items())


def test_a_network_without_such_layers_works_in_training_mode_and_alone_as_in_a_batch(images):
    defense = direct(Small(), steps=3)
    assert defense.training
    expected = copy.deepcopy(defense).eval()(images)
    assert torch.equal(defense(images), expected)
    torch.testing.assert_close(defense(images[1:2]), expected[1:2], rtol=0, atol=1e-5)  # rounding of smaller products


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("unrolled", [False, True])
def test_a_generator_that_writes_into_its_latents_changes_nothing(images, classes, steps, unrolled):
    defense, expected = (direct(Small(classes, writes=writes).eval(), steps=steps) for writes in (True, False))
    codes = defense.start.codes.clone()
    leaf = images.clone().requires_grad_(unrolled)
    found, wanted = (one.surrogate("unrolled" if unrolled else None)(leaf) for one in (defense, expected))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    q = defense.infer(images)
    kept = q[0].mean.clone()
    with torch.no_grad():
        defense.log_joint(images, q)
    defense.reconstruct(images, q)
    assert torch.equal(q[0].mean, kept)
    assert torch.equal(defense.start.codes, codes)


class Halving(nn.Module):
    """Logits of a discriminator that works in place."""

    def forward(self, codes):
        return codes.mul_(0.5).sum(-1)


def test_a_discriminator_that_writes_into_its_latents_changes_nothing(images):
    defense = EABS(Small(1).eval(), discriminator=Halving(), variational=False, starts=8, steps=0).eval()
    codes = defense.start.codes.clone()
    q = defense.infer(images)
    kept = q[0].mean.clone()
    with torch.no_grad():
        defense.log_joint(images, q)
    assert torch.equal(q[0].mean, kept)
    assert torch.equal(defense.start.codes, codes)


def test_an_encoder_that_is_no_module_is_refused():
    network = small_cnn(5)
    message = "expected encoder to be a torch.nn.Module, which is moved, .* got <lambda>, which is none"
    with pytest.raises(GenclsError, match=f"EncodedStart: {message}"):
        Enc(Small(), lambda images: network(images), **PIXELS)
    with pytest.raises(GenclsError, match=f"EncoderStart: {message}"):
        EABS(Small(), encoder=lambda images: network(images))


def test_parameters_in_a_start_that_is_a_function_collect_no_gradients(images):
    network = small_cnn(5)
    defense = AnalysisBySynthesis(
        Small().eval(),
        start=lambda x: (network(x).unsqueeze(1).expand(-1, 3, -1),),
        regularizer=SquaredShift(),
        weight=1.0,
        steps=2,
        lr=0.1,
        **PIXELS,
    ).eval()
    assert not defense(images).requires_grad
    leaf = images.clone().requires_grad_()
    defense(leaf).sum().backward()
    assert all(parameter.grad is None for parameter in network.parameters())


class TwoLevels(SigmoidDecoders):
    def __init__(self):
        super().__init__()
        self.latent_shapes = (torch.Size([3]), torch.Size([2]))


class TwoLevelBlocks(LinearBlocks, BlockwiseGenerator):
    def __init__(self):
        super().__init__()
        self.latent_shapes = (torch.Size([3]), torch.Size([2]))


LEVELS = {
    "Enc": (lambda: Enc(TwoLevels(), small_cnn(3), **PIXELS), "EncodedStart: expected a generator with one .* got 2 levels"),
    "Enc+": (lambda: EncPlus(TwoLevelBlocks(), small_cnn(3), **PIXELS), "EncodedStart: expected a generator with one .* got 2"),
    "Direct+": (
        lambda: DirectPlus(TwoLevelBlocks(), **PIXELS),
        "BlockCodes: expected a generator with one latent level, got 2",
    ),
}


@pytest.mark.parametrize(("make", "message"), LEVELS.values(), ids=LEVELS)
def test_a_generator_with_two_levels(make, message):
    with pytest.raises(GenclsError, match=message):
        make()


def test_a_start_of_other_levels_than_the_generator(images):
    start = RandomStarts(TwoLevels(), SquaredNorm(), 0.0, count=2, seed=0)
    defense = AnalysisBySynthesis(
        Small(),
        start=lambda x: start.latents(start.codes[:1].expand(len(x), 3, -1)),
        regularizer=SquaredNorm(),
        weight=1.0,
        steps=0,
        lr=0.1,
        **PIXELS,
    )
    with pytest.raises(GenclsError, match="expected a start with 1 latent level, as the generator takes, got 2"):
        defense(images)
    blocks = DirectPlus(LinearBlocks(), **PIXELS)
    blocks.start.start = start
    with pytest.raises(GenclsError, match="ZeroOffsets: expected a start with one latent level, got 2 levels"):
        blocks(images)


NUMBERS = {
    "lambda": (lambda: direct(Small(), weight=-1.0), "GAN inversion: expected weight >= 0, got -1.0"),
    "beta of ABS": (lambda: ABS(Small(), beta=-1.0), "ABS: expected beta >= 0, got -1.0"),
    "beta of E-ABS": (lambda: EABS(Small(), beta=1e30), r"EABS: expected beta <= 1e\+15, .* got 1e\+30"),
    "budget": (lambda: ABS(Small(), memory_budget=-1), "expected memory_budget >= 1 byte, got -1"),
}


@pytest.mark.parametrize(("make", "message"), NUMBERS.values(), ids=NUMBERS)
def test_numbers_out_of_range_are_called_as_the_user_calls_them(make, message):
    with pytest.raises(GenclsError, match=message):
        make()


def test_the_heaviest_weight_still_descends(images):
    # Twice the weight squares to more than float32 holds at |z| = 9,000 only; codes are far shorter.
    defense = direct(Small().eval(), weight=1e15, steps=50, rate=None)
    before, after = (
        level.mean.norm(dim=2) for level in (*defense._begin(images, defense._embed(images)), *defense.infer(images))
    )
    assert bool((after < before).all())


def test_losses_that_are_not_finite_are_an_error(images):
    broken = Small().eval()
    broken.last.bias.data[0] = torch.nan
    with pytest.raises(
        GenclsError, match=r"expected finite losses, got 12 of 12 that are NaN or infinite; .*\(weight=1.0, lr=0.1\)"
    ):
        direct(broken)(images)
    with pytest.raises(GenclsError, match=r"expected finite losses, .* lr=1e\+38\)"):
        direct(Small().eval(), steps=3, max_lr=1e38)(images)


class Scaled(Small):
    """Other images of the same weights."""

    def __init__(self, low, high):
        super().__init__()
        self.low, self.high = low, high

    def forward(self, latents, labels):
        images = super().forward(latents, labels)
        return self.low + (self.high - self.low) * (images - images.min()) / (images.max() - images.min())


@pytest.mark.parametrize("make", [direct, lambda generator: Enc(generator, small_cnn(5), **PIXELS, steps=1)])
def test_the_range_of_decoded_images(images, make):
    message = r"Scaled: expected images in \[0, 1\] of the generator, got values from {} to {}"
    with pytest.raises(GenclsError, match=message.format(-1, 1) + r"; a generator that ends in tanh needs \(images \+ 1\) / 2"):
        make(Scaled(-1.0, 1.0))(images)
    with pytest.raises(GenclsError, match=message.format(0, 255) + "$"):
        make(Scaled(0.0, 255.0))(images)
    with pytest.raises(GenclsError, match=message.format(-0.02, 0.5)):
        make(Scaled(-0.02, 0.5)).surrogate("unrolled")(images.clone().requires_grad_())
    assert make(Scaled(-0.005, 1.005))(images).isfinite().all()


def test_the_size_of_the_graph_is_measured_for_each_type(images):
    defense = direct(Small().eval(), steps=1, memory_budget=2**16)
    fit = defense.images_per_graph(images)
    assert defense.images_per_graph(images[:0]) == fit
    assert defense.double().images_per_graph(images.double()) < 0.7 * fit
