"""What the engine takes besides the parts of ABS and E-ABS: several levels, features, an encoder, R(z, z_init)."""

import pytest
import torch
from torch import nn

from gencls.core import ClassConditionalGenerator, GenclsError, ImageDistance, keyed
from gencls.defenses import AnalysisBySynthesis, EncoderStart, GaussianKL, Posterior, RandomStarts, Regularizer
from gencls.defenses.synthesis.elimination import Elimination
from gencls.defenses.synthesis.posterior import means, moved, together, variables
from gencls.perceptual import L2, SquaredL2

CLASSES, WEIGHT, LR = 3, 0.7, 0.06


class TwoLevels(ClassConditionalGenerator):
    """G_k(z) = A_k z_0 + B z_1 + b_k with b_k in [0, 1]: a conditional generator, whose classes share the second level."""

    num_classes = CLASSES
    latent_shapes = (torch.Size([2]), torch.Size([1, 2]))

    def __init__(self):
        super().__init__()
        source = torch.Generator().manual_seed(4)
        for name, *shape in (("a", CLASSES, 12, 2), ("b", 12, 2), ("c", CLASSES, 12)):
            setattr(self, name, nn.Parameter(0.3 * torch.randn(*shape, generator=source, dtype=torch.float64)))
        self.c.data.abs_()  # images in [0, 1] where the latents are 0

    def forward(self, latents, labels):
        flat = torch.einsum("mpd,md->mp", self.a[labels], latents[0]) + latents[1].flatten(1) @ self.b.T + self.c[labels]
        return flat.view(-1, 1, 3, 4)


class Features(ImageDistance):
    """Squared distance of two maps of features, of other sizes than the image; counts the images that it embeds."""

    def __init__(self):
        super().__init__()
        source = torch.Generator().manual_seed(5)
        self.maps = nn.ParameterList(
            0.3 * torch.randn(*shape, generator=source, dtype=torch.float64) for shape in ((8, 12), (5, 12))
        )
        self.embedded = []

    def embed(self, images):
        self.embedded.append(len(images))
        first, second = (images.flatten(1) @ part.T for part in self.maps)
        return first.view(-1, 2, 2, 2), second.view(-1, 5, 1, 1)

    def compare(self, first, second):
        return sum((a - b).square().flatten(-3).sum(-1) for a, b in zip(first, second, strict=True))


class FromStart(Regularizer):
    """||z - z_init||^2 (thesis, eq. 3.4)."""

    from_start = True

    def forward(self, latents):
        return torch.zeros(latents[0].shape[:2], dtype=latents[0].dtype)

    def expected(self, q, latents):
        return sum((z - level.start).square().flatten(2).sum(2) for z, level in zip(latents, q, strict=True))


class Encoder(nn.Module):
    """z_init = E(x), differentiable in the image."""

    def forward(self, images):
        codes = torch.stack([images.flatten(1)[:, 4 * k : 4 * k + 4] for k in range(CLASSES)], dim=1)
        return codes[..., :2], codes[..., None, 2:]


def engine(*, steps=4, distance=None, optimizer="gradient", **settings):
    return AnalysisBySynthesis(
        TwoLevels(),
        distance=distance or Features(),
        weight=WEIGHT,
        steps=steps,
        lr=LR,
        optimizer=optimizer,
        **{"start": Encoder(), "regularizer": FromStart(), **settings},
    ).eval()


@pytest.fixture
def images():
    return torch.rand(5, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def system(defense, image, k):
    """The matrix M and the offset with which the embedded reconstruction of class k is M z + offset."""
    generator, features = defense.generator, torch.cat(list(defense.distance.maps))
    return features @ torch.cat([generator.a[k], generator.b], dim=1), features @ generator.c[k] - features @ image.flatten()


def closed_form(defense, images, begin):
    """min_z ||M z + o||^2 + lambda ||z - z_init||^2 solves (M'M + lambda) z = lambda z_init - M'o."""
    rows = []
    for image, of in zip(images, begin, strict=True):
        losses = []
        for k in range(CLASSES):
            matrix, offset = system(defense, image, k)
            z = torch.linalg.solve(matrix.T @ matrix + WEIGHT * torch.eye(4), WEIGHT * of[k] - matrix.T @ offset)
            losses.append((matrix @ z + offset).square().sum() + WEIGHT * (z - of[k]).square().sum())
        rows.append(torch.stack(losses))
    return torch.stack(rows)


def flat(latents):
    return torch.cat([level.flatten(2) for level in latents], dim=2)


def test_an_encoder_features_levels_and_the_way_from_the_start_have_a_closed_form(images):
    defense = engine(steps=400)
    expected = closed_form(defense, images, flat(defense.start(images)))
    torch.testing.assert_close(defense(images), -expected, rtol=0, atol=1e-9)
    assert defense.reconstruct(images).shape == (5, CLASSES, 1, 3, 4)
    q = defense.infer(images)
    assert [level.mean.shape[2:] for level in q] == [torch.Size([2]), torch.Size([1, 2])]
    assert all(torch.equal(level.start, z) for level, z in zip(q, defense.start(images), strict=True))


def test_the_frozen_gradient_holds_z_init_fixed_and_the_unrolled_one_follows_the_encoder(images):
    defense = engine(steps=3)
    leaf = images.clone().requires_grad_()
    (frozen,) = torch.autograd.grad(defense(leaf)[:, 1].sum(), leaf)
    q = defense.infer(images)
    (expected,) = torch.autograd.grad(defense.log_joint(leaf, q)[:, 1].sum(), leaf)
    assert torch.equal(frozen, expected)
    (unrolled,) = torch.autograd.grad(defense.surrogate("unrolled")(leaf)[:, 1].sum(), leaf)
    step = 1e-6
    for i in (0, 5, 11):
        moved_ = images.flatten(1).repeat(2, 1, 1)
        moved_[0, :, i] += step
        moved_[1, :, i] -= step
        above, below = defense(moved_.view(-1, 1, 3, 4))[:, 1].view(2, 5)
        torch.testing.assert_close(unrolled.flatten(1)[:, i], (above - below) / (2 * step), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(frozen, unrolled)


@pytest.mark.parametrize("elimination", [None, Elimination(((1, 1e9),))])
def test_the_image_is_embedded_once_for_all_classes_and_steps(images, elimination):
    distance = Features()
    defense = engine(distance=distance, steps=6, elimination=elimination)
    defense.infer(images)  # measures a step first
    distance.embedded.clear()
    defense.infer(images)
    assert distance.embedded.count(5) == 1
    assert distance.embedded == [5, *[5 * CLASSES] * 6]
    target = defense._embed(images)
    assert all(part.untyped_storage().nbytes() == part[:, 0].numel() * 8 for part in target)  # no copies for the classes
    assert [tuple(part.shape) for part in target] == [(5, CLASSES, 2, 2, 2), (5, CLASSES, 5, 1, 1)]


def test_a_resumed_inference_is_pulled_to_the_start_of_the_image_it_sees(images):
    defense = engine(steps=2, warm_steps=3)
    there = (images + 0.2).clamp(0, 1)
    resumed = defense.resume(there, defense.infer(images), 400)
    assert all(torch.equal(level.start, z) for level, z in zip(resumed, defense.start(there), strict=True))
    expected = closed_form(defense, there, flat(defense.start(there)))
    torch.testing.assert_close(defense.log_joint(there, resumed), -expected, rtol=0, atol=1e-9)
    with keyed(range(5)):
        warm = defense.surrogate("warm")
        warm(images)
        assert bool(warm(there).isfinite().all())


def test_variational_inference_from_an_encoder_that_is_a_proposal(images):
    defense = engine(
        start=RandomStarts(TwoLevels(), GaussianKL(), WEIGHT, count=4, seed=0).double(),
        proposals=[Proposal()],
        variational=True,
        start_std=0.1,
    )
    with keyed(range(5)):
        q = defense.infer(images)
    assert all(level.log_std.shape == level.mean.shape == level.start.shape for level in q)


class Proposal(nn.Module):
    def forward(self, images):
        return tuple(Posterior(z, torch.full_like(z, -2.0)) for z in Encoder()(images))


@pytest.mark.parametrize("distance", [SquaredL2(), L2(), Features()])
def test_starts_rank_by_the_distance_that_they_are_given(images, distance):
    generator, regularizer = TwoLevels(), GaussianKL()
    starts = RandomStarts(generator, regularizer, WEIGHT, count=70, seed=0, distance=distance).double()
    found = starts(images)
    codes = starts.latents(starts.codes)
    losses = []
    for k in range(CLASSES):
        made = generator(codes, torch.full((70,), k))
        price = WEIGHT * regularizer(tuple(z.unsqueeze(1) for z in codes)).squeeze(1)
        losses.append(torch.stack([distance(image.expand(70, -1, -1, -1), made) + price for image in images]))
    best = torch.stack(losses, dim=1).argmin(2)
    assert all(torch.equal(level, codes_[best]) for level, codes_ in zip(found, codes, strict=True))
    by_l2 = RandomStarts(generator, regularizer, WEIGHT, count=70, seed=0).double()(images)
    assert torch.equal(by_l2[0], found[0]) is isinstance(distance, SquaredL2)


class OfPairs(SquaredL2):
    """A distance that knows batches of pairs only."""

    def compare(self, first, second):
        return (first[0] - second[0]).square().flatten(1).sum(1)


def test_a_distance_that_does_not_broadcast_is_told_what_is_expected(images):
    message = r"OfPairs: expected compare to broadcast over the leading dimensions .* to \(N, K\); got \(1,\), not \(1, 3\)"
    with pytest.raises(GenclsError, match=message):
        engine(distance=OfPairs())(images)
    starts = RandomStarts(TwoLevels(), GaussianKL(), WEIGHT, count=70, seed=0, distance=OfPairs()).double()
    with pytest.raises(GenclsError, match=rf"OfPairs: expected compare .* not \({CLASSES}, 70\)"):
        starts(images)


def test_no_parameter_of_the_parts_learns_or_is_frozen_for_good(images):
    parts = {"distance": Features(), "encoder": nn.Linear(12, 6).double()}
    defense = engine(
        distance=parts["distance"], start=lambda x: (parts["encoder"](x.flatten(1)).view(-1, CLASSES, 2), Encoder()(x)[1])
    )
    leaf = images.clone().requires_grad_()
    for surrogate in defense.surrogates().values():
        surrogate(leaf).sum().backward()
    own = [*defense.parameters()]
    assert own
    assert all(parameter.requires_grad and parameter.grad is None for parameter in own)


def test_q_as_a_value():
    q = (Posterior(torch.ones(2, 3), torch.zeros(2, 3)), Posterior(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)))
    assert [tuple(z.shape) for z in variables(q)] == [(2, 3), (2, 3, 4)] * 2
    assert moved(q, variables(q)) == q
    twice = together(lambda one, two: torch.cat([one, two]), q, q)
    assert [tuple(level.mean.shape) for level in twice] == [(4, 3), (4, 3, 4)]
    point = (Posterior(torch.ones(2, 3)),)
    assert variables(point) == means(point)
    assert point[0].sample() is point[0].mean
    assert bool((point[0].std == 0).all())


class Twice(nn.Module):
    """The pixels as mean and as log-variance of one class."""

    def forward(self, images):
        return images.flatten(1).unsqueeze(1), images.flatten(1).unsqueeze(1)


def test_encoder_start_is_a_gaussian():
    (level,) = EncoderStart(Twice())(torch.ones(2, 1, 1, 3))
    assert torch.equal(level.log_std, 0.5 * level.mean)
