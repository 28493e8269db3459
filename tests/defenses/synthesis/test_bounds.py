"""The lower bounds of eq. 2.7: the formula, the search for its minima, and the comparison with attacks."""

import pytest
import torch

from gencls.core import GenclsError
from gencls.defenses import (
    ABS,
    AnalysisBySynthesis,
    Ball,
    DirectPlus,
    Elimination,
    Enc,
    EncDPlus,
    PlainClassifier,
    Regularizer,
    compare_to_bound,
    lower_bound,
    robustness_bound,
)
from gencls.eval import ThreatModel
from gencls.perceptual import L2, Combined, SquaredL2
from tests.exact_classifiers import SEARCHED, Affine, digits, exact_bound, exact_classifier, principal_components
from tests.toys import LinearBlocks, LinearGaussian, SigmoidDecoders

MINIMAL = ThreatModel("l2")

CENTRES = torch.tensor([[0.1], [0.5], [0.9]], dtype=torch.float64)


def on_a_line(values):
    """Images of one pixel."""
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)


def test_the_bound_is_the_true_distance_between_two_centres():
    # Each class generates one image of one pixel. Decisions change halfway between two of them.
    defense = exact_classifier(Affine(torch.zeros(3, 1, 1, dtype=torch.float64), CENTRES, (1, 1, 1)))
    images = on_a_line([0.1, 0.15, 0.28, 0.32, 0.5, 0.61, 0.8, 0.9])
    labels = (images.flatten(1) - CENTRES.T).abs().argmin(1)
    halfway = torch.tensor([0.3, 0.7], dtype=torch.float64)
    true = (images.flatten(1) - halfway).abs().amin(1)
    found = exact_bound(defense, images, labels)
    torch.testing.assert_close(found.bound, true, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.sharper, true, rtol=0, atol=1e-12)  # R is 0 at every minimum
    direction = (halfway[(images.flatten(1) - halfway).abs().argmin(1)].view(-1, 1, 1, 1) - images).sign()
    for scale, kept in ((1 - 1e-9, True), (1 + 1e-9, False)):
        moved = images + scale * found.bound.view(-1, 1, 1, 1) * direction
        assert ((defense(moved).argmax(1) == labels) == kept).all()


def test_the_bound_is_too_small_beyond_a_centre():
    # From 0.02 a change costs 0.28; the bound, (0.48 - 0.08) / 2, thinks of losing and gaining in opposite directions.
    defense = exact_classifier(Affine(torch.zeros(3, 1, 1, dtype=torch.float64), CENTRES, (1, 1, 1)))
    found = exact_bound(defense, on_a_line([0.02]), torch.tensor([0]))
    assert found.bound.item() == pytest.approx(0.2, abs=1e-12)


@pytest.mark.parametrize("pixels", [1, 2, 6])
def test_bounds_lie_below_the_true_distance_where_classes_differ_by_a_shift(pixels):
    # With the same matrix for all classes l_k = (x - b_k)^T M (x - b_k), M = I - w w^T / (w^T w + lambda / 2), so that
    # classes are separated by planes, whose distance is (l_k - l_y) / (2 ||M (b_k - b_y)||).
    draw = torch.Generator().manual_seed(pixels)
    weight = 0.8
    slope = 0.6 * torch.randn(pixels, 1, generator=draw, dtype=torch.float64)
    shift = torch.rand(4, pixels, generator=draw, dtype=torch.float64)
    defense = exact_classifier(Affine(slope.expand(4, pixels, 1), shift, (1, 1, pixels)), weight=weight)
    images = torch.rand(400, 1, 1, pixels, generator=draw, dtype=torch.float64)
    metric = torch.eye(pixels, dtype=torch.float64) - slope @ slope.T / (slope.square().sum() + 0.5 * weight)
    residuals = images.flatten(1).unsqueeze(1) - shift
    losses = torch.einsum("nkp,pq,nkq->nk", residuals, metric, residuals)
    labels = losses.argmin(1)
    gaps = losses - losses.gather(1, labels.unsqueeze(1))
    normals = 2 * torch.einsum("pq,nkq->nkp", metric, shift - shift[labels].unsqueeze(1)).norm(dim=2)
    true = (gaps / normals).scatter(1, labels.unsqueeze(1), torch.inf).amin(1)
    found = exact_bound(defense, images, labels)
    torch.testing.assert_close(found.losses, losses, rtol=0, atol=1e-12)
    assert (found.bound <= found.sharper + 1e-12).all()
    assert (found.sharper <= true + 1e-12).all()
    assert (found.sharper > 0).all()
    if pixels == 1:  # a line of images reaches every image: d_k = 0, and eq. 2.7 says nothing
        assert (found.bound == 0).all()
    else:
        assert found.bound.max() > 0


def test_the_formula_as_printed_is_no_bound():
    # Eq. 2.7 has the square of the norm in its denominator. From 0.4, where c_y = 0.2 and c_k = 0.9, it is 0.15 to the change.
    centres = torch.tensor([[0.2], [0.9]], dtype=torch.float64)
    defense = exact_classifier(Affine(torch.zeros(2, 1, 1, dtype=torch.float64), centres, (1, 1, 1)))
    images, labels = on_a_line([0.4]), torch.tensor([0])
    found = exact_bound(defense, images, labels)
    assert found.bound.item() == pytest.approx(0.15, abs=1e-12)
    printed = (0.5**2 - 0.2**2) / (2 * 0.5 + 2 * 0.2**2)
    assert printed > 0.19
    assert defense(images + 0.16).argmax(1).item() == 1  # an adversarial under it


def test_distances_at_regularised_codes_are_too_large():
    defense = principal_components(pool=2)
    images, labels = digits("test", 2, limit=100)
    found = exact_bound(defense, images, labels)
    naive = (images.unsqueeze(1) - defense.reconstruct(images)).flatten(2).norm(dim=2)
    assert (naive > found.distances).all()
    overstated = lower_bound(naive, found.losses, found.error, labels) * found.correct
    held = found.bound > 0
    assert (overstated > found.bound)[held].all()
    assert (overstated <= found.sharper + 1e-6).all()  # so they do no harm where inference is exact
    printed = lower_bound(found.distances, found.losses, found.error**2, labels) * found.correct
    assert ((printed < found.bound) == (found.error > 1))[held].all()


def test_descent_finds_the_closed_forms(generator):
    images = torch.rand(5, 1, 3, 4, dtype=torch.float64)
    exact = exact_classifier(generator)
    labels = exact(images).argmax(1)
    expected = exact_bound(exact, images, labels)
    searching = ABS(generator, starts=50, steps=50, radius=None).eval()
    found = robustness_bound(searching, images, labels, steps=300, starts=0)
    # Distances end where Adam's last step size, 0.003, leaves them.
    for name in ("distances", "losses", "error", "bound", "sharper"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-4)
    assert found.assumption == SEARCHED.format(1)
    assert expected.assumption == "exact inference; minima are exact, on the word of the caller"


class Dent(SigmoidDecoders):
    """One pixel, b_k + 0.3 exp(-(z - 1.5)^2): flat, without a way to the dent, where z is far from it."""

    def __init__(self):
        super().__init__(num_classes=2, image_shape=(1, 1, 1), latent_size=1)
        self.register_buffer("shift", torch.tensor([0.1, 0.4]))

    def forward(self, latents, labels):
        return (self.shift[labels] + 0.3 * (-(latents[0][:, 0] - 1.5).square()).exp()).view(-1, 1, 1, 1)


def far(images):
    return (torch.full((len(images), 2, 1), -6.0),)


def test_a_search_that_misses_the_minimum_overstates_the_bound():
    # Both classes could have made 0.3 to 0.4; from z = -6 neither finds out.
    defense = exact_classifier(Dent(), weight=0.01, start=far)
    images, labels = torch.full((1, 1, 1, 1), 0.6), torch.tensor([1])
    blind = robustness_bound(defense, images, labels, steps=60, starts=0)
    found = robustness_bound(defense, images, labels, steps=60, starts=2, codes=50)
    torch.testing.assert_close(blind.distances, torch.tensor([[0.5, 0.2]]), rtol=0, atol=1e-5)
    # Class 0 reaches 0.4 at z = 1.5; class 1 passes 0.6 exactly.
    torch.testing.assert_close(found.distances, torch.tensor([[0.2, 0.0]]), rtol=0, atol=2e-3)
    assert blind.bound > 0
    wrong = robustness_bound(defense, images, torch.tensor([0]), steps=60, starts=2, codes=50)
    assert not wrong.correct.any()
    assert wrong.bound.item() == wrong.sharper.item() == 0


def test_codes_stay_where_the_classifier_keeps_them():
    # With |z| <= 0.5 a class reaches b_k +- 0.1, and a code of the prior outside must not count.
    matrix = torch.full((3, 1, 1), 0.2, dtype=torch.float64)
    defense = ABS(Affine(matrix, CENTRES, (1, 1, 1)), starts=20, steps=20, radius=0.5).eval()
    images = on_a_line([0.15, 0.5, 0.75])
    found = robustness_bound(defense, images, torch.tensor([0, 1, 2]), steps=150, starts=1, codes=30)
    expected = ((images.flatten(1) - CENTRES.T).abs() - 0.1).clamp_min(0)
    torch.testing.assert_close(found.distances, expected, rtol=0, atol=1e-4)


def test_results_depend_on_neither_chunks_nor_modes_nor_the_global_state():
    defense = ABS(SigmoidDecoders(), starts=50, steps=5).eval()
    images, labels = torch.rand(5, 1, 8, 8), torch.randint(0, 4, (5,))
    settings = {"steps": 6, "starts": 2, "codes": 100}
    state = torch.get_rng_state()
    expected = robustness_bound(defense, images, labels, **settings)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(7)
    with torch.inference_mode():
        found = robustness_bound(defense, images, labels, chunk=2, **settings)
    for name in ("distances", "losses", "bound", "sharper"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-4)


def test_block_codes_are_covered_as_they_are_one_generator_of_several_levels():
    # (z, z_1, z_2) enter as one code: with A_k = (A_0 + A_1 + A_2, A_1, A_2) all minima are closed forms.
    network = LinearBlocks(3, (1, 4, 5), 2, blocks=2, clamp=False, scale=0.3).double()
    matrices = network.weight.detach()
    whole = torch.cat([matrices.sum(0), matrices[1], matrices[2]], dim=2)
    as_one = exact_classifier(Affine(whole, network.bias.detach(), (1, 4, 5)), weight=2.0)  # lambda ||z||^2 of KL ||z||^2 / 2
    defense = DirectPlus(network, distance=SquaredL2(), weight=1.0, steps=300, max_lr=0.2).double().eval()
    images = torch.rand(5, 1, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = as_one(images).argmax(1)
    expected = exact_bound(as_one, images, labels)
    found = robustness_bound(defense, images, labels, steps=300, starts=0)
    # Distances end where Adam's last step size leaves them.
    for name in ("distances", "losses", "error", "bound", "sharper"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-3)
    assert found.sharper.mean() > 0.05


def test_the_warm_gradient_leaves_the_bound():
    images, labels = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2])
    cold, warm = (ABS(SigmoidDecoders(), starts=50, steps=5, warm_steps=steps).eval() for steps in (None, 2))
    expected, found = (robustness_bound(one, images, labels, steps=6, starts=1, codes=50) for one in (cold, warm))
    assert torch.equal(found.sharper, expected.sharper)
    assert found.assumption == expected.assumption


def test_elimination_may_send_out_the_winner_which_the_bound_assumes_not_to_happen():
    # Class 0 generates every pixel from a code that starts at 0.3, class 1 only 0.7. From 0.53 class 0 starts so much worse
    # that the rule sends it out.
    slope, shift = torch.tensor([[[1.0]], [[0.0]]], dtype=torch.float64), torch.tensor([[0.3], [0.7]], dtype=torch.float64)
    parts = {"weight": 1e-6, "start": lambda x: (x.new_zeros(len(x), 2, 1),), "steps": 100, "lr": 0.05}
    generator = Affine(slope, shift, (1, 1, 1))
    whole, fast = (exact_classifier(generator, elimination=rule, **parts) for rule in (None, Elimination(((1, 0.5),))))
    images, labels = on_a_line([0.5]), torch.tensor([0])
    expected, found = (robustness_bound(one, images, labels, starts=0) for one in (whole, fast))
    assert torch.equal(found.bound, expected.bound)
    assert found.bound > 0.05
    assert whole(images + 0.03).argmax(1).item() == 0
    assert fast(images + 0.03).argmax(1).item() == 1
    assert expected.assumption == SEARCHED.format(1)
    assert found.assumption == SEARCHED.format(1).replace("inference", "inference, elimination keeps the winner")
    with pytest.raises(GenclsError, match="expected a defense that infers all classes to the end .* got elimination"):
        exact_bound(fast, images, labels)


class Squeezing(torch.nn.Module):
    """The code of an image moves thirty times as fast as the image."""

    def forward(self, images):
        return 30 * (images.flatten(1)[:, :4] - 0.5)


def encoded(method, **settings):
    network = LinearBlocks(3, (1, 3, 4), 4, clamp=False, scale=0.4).double()
    return method(network, Squeezing(), distance=SquaredL2(), steps=5, **settings).eval()


def test_a_start_that_moves_with_the_image_has_no_bound():
    # Where z_init moves, a change of the image by 1e-3 may change l_k by more than the proof's 2 eps a + eps^2.
    defense = encoded(Enc, weight=10.0)
    image = torch.full((1, 1, 3, 4), 0.6, dtype=torch.float64)
    moved = image.clone()
    moved[..., 0, :] += 1e-3
    before, after = (-defense(x)[0, 0] for x in (image, moved))
    error = (image - defense.reconstruct(image)[:, 0]).norm()
    epsilon = (moved - image).norm()
    assert after > before + 2 * epsilon * error + epsilon**2
    with pytest.raises(
        GenclsError, match="expected a regularizer that does not depend on the image, got SquaredShift, taken from"
    ):
        robustness_bound(defense, image, torch.tensor([0]))


class Negative(Regularizer):
    """-1 whatever the latents."""

    def forward(self, latents):
        return -torch.ones_like(latents[0][..., 0])


class Elsewhere(Regularizer):
    """Another price for the classifier than for a latent alone."""

    def forward(self, latents):
        return torch.zeros_like(latents[0][..., 0])

    def expected(self, q, latents):
        return torch.ones_like(latents[0][..., 0])


class Halved(AnalysisBySynthesis):
    """Scores of another scale."""

    def log_joint(self, images, q):
        return 0.5 * super().log_joint(images, q)


def small(**parts):
    return exact_classifier(LinearGaussian(3, (1, 3, 4), 4), **parts)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PlainClassifier(torch.nn.Flatten(), 12), "expected AnalysisBySynthesis with SquaredL2, got PlainClassifier"),
        (lambda: small(distance=L2()), "expected AnalysisBySynthesis with SquaredL2, got L2"),
        (lambda: small(distance=Combined(SquaredL2(), L2(), 0.1)), "expected AnalysisBySynthesis with SquaredL2, got Combined"),
        (lambda: encoded(EncDPlus, weight=0.0), "does not depend on the image, got SquaredShift"),
        (lambda: small(project=Ball(1.0)), "expected steps >= 1 of a defense with a projection, .* got 0"),
        (lambda: small(regularizer=Elsewhere()), "of one scale for all classes, got scores that differ from it by up to"),
        (lambda: small(variational=True), "expected point inference, .* got inference of distributions"),
        (lambda: small().train(), "expected a defense in eval mode, got training mode"),
        (lambda: small(regularizer=Negative()), r"expected a regularizer that is never negative, got lambda R\(z\) = -1"),
        (lambda: small(kind=Halved), "of one scale for all classes, got scores that differ from it by up to"),
    ],
)
def test_defenses_without_the_proof(make, message):
    with pytest.raises(GenclsError, match=message):
        robustness_bound(make(), torch.rand(2, 1, 3, 4, dtype=torch.float64), torch.tensor([0, 1]), steps=0, starts=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": -1}, "expected steps >= 0, .* got steps=-1"),
        ({"starts": 3, "codes": 2}, "expected .* 0 <= starts <= codes, .* got .*starts=3, codes=2"),
        ({"lr": 0.0}, "expected .* lr > 0, got .*lr=0.0"),
        ({"chunk": 0}, "expected .* chunk >= 1 .* got .*chunk=0"),
        ({"exact": True}, "expected nearest, the minimisers of the plain distance, for exact=True, got None"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(GenclsError, match=message):
        robustness_bound(small(), torch.rand(2, 1, 3, 4, dtype=torch.float64), torch.tensor([0, 1]), **settings)


def test_terms_that_do_not_fit():
    distances, losses, error, labels = torch.ones(2, 3), torch.ones(2, 3), torch.ones(2), torch.tensor([0, 2])
    with pytest.raises(GenclsError, match=r"expected distances and losses \(N, K\), K >= 2, .* got shapes \(2, 3\), \(2, 4\)"):
        lower_bound(distances, torch.ones(2, 4), error, labels)
    with pytest.raises(GenclsError, match=r"expected values in 0..2 for 3 classes, got values in 0..3"):
        lower_bound(distances, losses, error, torch.tensor([0, 3]))
    with pytest.raises(GenclsError, match=r"expected losses >= 0, got -1.0"):
        lower_bound(distances, -losses, error, labels)
    with pytest.raises(GenclsError, match=r"expected error >= 0, got nan"):
        lower_bound(distances, losses, error * torch.nan, labels)


def test_an_image_that_two_classes_generate_has_the_bound_zero():
    nothing = torch.zeros(1, 2)
    assert lower_bound(nothing, nothing, torch.zeros(1), torch.tensor([0])).item() == 0


def test_the_comparison_names_the_closest_attack_and_every_violation():
    bound = torch.tensor([0.5, 0.5, 0.5, 0.0, 0.5])
    distances = {
        "a": torch.tensor([1.0, 0.4, torch.inf, 0.0, 0.5 - 1e-6]),
        "b": torch.tensor([0.75, 2.0, torch.inf, torch.inf, torch.inf]),
    }
    table = compare_to_bound(bound, distances)
    assert table["distance"].tolist() == pytest.approx([0.75, 0.4, float("inf"), 0.0, 0.5], abs=1e-5)
    assert table["attack"].tolist() == ["b", "a", "", "a", "a"]
    assert table["violation"].tolist() == [False, True, False, False, False]
    assert table["ratio"].tolist()[:3] == pytest.approx([1.5, 0.8, float("inf")])
    assert table["ratio"].isna().tolist() == [False, False, False, True, False]


@pytest.mark.parametrize(
    ("bound", "distances", "message"),
    [
        (torch.ones(2, 1), {"a": torch.ones(2)}, r"expected bounds \(N,\) >= 0"),
        (-torch.ones(2), {"a": torch.ones(2)}, r"expected bounds \(N,\) >= 0"),
        (torch.ones(2), {}, "expected the distances of at least one attack, got none"),
        (torch.ones(2), {"a": torch.ones(3)}, r"expected 2 distances >= 0 of a, got shape \(3,\)"),
        (torch.ones(2), {"a": torch.tensor([1.0, torch.nan])}, "expected 2 distances >= 0 of a, got negative or NaN ones"),
    ],
)
def test_bad_comparisons(bound, distances, message):
    with pytest.raises(GenclsError, match=message):
        compare_to_bound(bound, distances)
