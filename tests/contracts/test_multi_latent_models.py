"""What every multi-latent model promises, alone and under purification."""

import copy
import pickle

import pytest
import torch

import gencls.zoo.networks
from gencls.core import GenclsError, MultiLatentModel, draws, keyed, repeat_rows, seeded
from gencls.defenses import MLVGMPurification
from gencls.zoo.networks import GenerativeAutoencoder, SingleLevel
from tests import nvae_models, style_models
from tests.contracts.tables import check_rows, public_classes
from tests.toys import MeanRowsPixels
from tests.zoo.networks.test_networks import with_statistics


def single_level(variational: bool) -> SingleLevel:
    with seeded(0):
        return SingleLevel(
            with_statistics(GenerativeAutoencoder((2, 9, 8), code_size=5, widths=(6, 4), variational=variational))
        )


MODELS = {
    "MeanRowsPixels": MeanRowsPixels,
    **style_models.MODELS,
    **{f"NVAE {name}": lambda name=name: nvae_models.build(name) for name in nvae_models.SETTINGS},
    **{f"SingleLevel {kind}": lambda kind=kind: single_level(kind == "VAE") for kind in ("VAE", "DAE")},
}
"""Small instances in eval mode. A new model gets a row here, and with it every test."""

COUNT = 3
TOLERANCE = 1e-5  # rounding differs with the size of the batch, and for attention under keyed streams, which end its fast path


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]().eval()


@pytest.fixture
def images(model):
    """Away from 0 and 1, where the toy, whose decoder is the identity, would leave the range and be clamped."""
    return 0.2 + 0.6 * torch.rand(COUNT, *getattr(model, "image_shape", (1, 8, 8)))


def encoded_only(level, encoded, sampled):
    return encoded


def sampled_only(level, encoded, sampled):
    return sampled


def half(level, encoded, sampled):
    return 0.5 * encoded + 0.5 * sampled


def autoencode(model, images, mix, first=100):
    """Image i always meets the draws of its own stream."""
    with keyed(range(first, first + len(images))) as streams:
        found = model.autoencode(images, mix)
    assert not streams.shared
    return found


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


@pytest.fixture(scope="module")
def tested():
    return {type(make()).__name__ for make in MODELS.values()}


@pytest.mark.parametrize("name", public_classes(gencls.zoo.networks, MultiLatentModel))
def test_every_model_is_in_the_table(name, tested):
    where = "MODELS in tests/contracts/test_multi_latent_models.py"
    check_rows([name], tested, where=where, row='"{name}": a function that makes a tiny one')


@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0])
def test_shape_dtype_and_range(model, images, scale):
    for mix in (encoded_only, sampled_only, half):
        found = model.autoencode(images, lambda *codes, mix=mix: scale * mix(*codes))
        assert found.shape == images.shape
        assert found.dtype == images.dtype
        assert found.min() >= 0
        assert found.max() <= 1


def test_mix_is_called_once_per_level_in_order_with_two_codes_of_one_shape(model, images):
    levels = []

    def mix(level, encoded, sampled):
        assert encoded.shape == sampled.shape
        assert len(encoded) == COUNT
        levels.append(level)
        return encoded

    model.autoencode(images, mix)
    assert levels == list(range(model.num_levels))


def test_every_level_counts(model, images):
    plain = model.autoencode(images, encoded_only)
    for chosen in range(model.num_levels):
        other = autoencode(model, images, lambda level, *codes, chosen=chosen: codes[level == chosen])
        assert not torch.equal(other, plain)


def test_encoded_codes_alone_do_not_depend_on_the_draws(model, images):
    first = model.autoencode(images, encoded_only)
    assert torch.equal(model.autoencode(images, encoded_only), first)
    assert not torch.equal(model.autoencode(images.flip(0), encoded_only), first)


def test_sampled_codes_alone_do_not_depend_on_the_images(model, images):
    first = autoencode(model, images, sampled_only)
    assert torch.equal(autoencode(model, 1 - images, sampled_only), first)
    assert not torch.equal(autoencode(model, images, sampled_only, first=7), first)


def test_images_do_not_depend_on_their_batch(model, images):
    together = autoencode(model, images, half)
    for i in range(COUNT):
        assert_close(autoencode(model, images[i : i + 1], half, first=100 + i), together[i : i + 1])


def test_what_is_encoded_once_draws_nothing_and_serves_any_rows(model, images):
    state = torch.get_rng_state()
    encoded = model.encode_once(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert {len(part) for part in encoded} == {COUNT}
    with keyed(range(100, 100 + COUNT)):
        assert_close(model.decode_mixed(encoded, half), autoencode(model, images, half))
    rows = torch.tensor([2, 0, 0, 1, 2])
    with keyed(range(5)):
        found = model.decode_mixed(tuple(part[rows] for part in encoded), half)
    assert_close(found, autoencode(model, images[rows], half, first=0))
    assert not torch.equal(found[1], found[2])


def test_gradients_agree_with_finite_differences(model, images):
    """In float64, along a random direction of each image."""
    model, images = copy.deepcopy(model).double(), images.double()
    direction, step = torch.randn_like(images), 1e-7  # small, or some of the many kinks of ReLUs lie between

    def total(inputs):
        return autoencode(model, inputs, half).square().sum((1, 2, 3))

    attacked = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(attacked).sum(), attacked)
    with torch.no_grad():
        slopes = (total(images + step * direction) - total(images - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum((1, 2, 3)), slopes, rtol=1e-5, atol=1e-5)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()


def test_use_leaves_the_weights_alone(model, images):
    before = copy.deepcopy(model.state_dict())
    attacked = images.clone().requires_grad_()
    torch.autograd.grad(model.autoencode(attacked, half).sum(), attacked)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(attacked.detach(), images)


def test_copies_and_pickles_give_the_same(model, images):
    expected = autoencode(model, images, half)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(autoencode(other, images, half), expected)


def test_images_that_do_not_fit(model, images):
    if not hasattr(model, "image_shape"):
        pytest.skip("takes images of any size")
    channels, *sides = model.image_shape
    shape = rf"shape \(N, {channels}, {sides[0]}, {sides[1]}\)"
    for wrong in (images[0], images[:, :0], torch.cat([images, images], 2), images[..., 1:], (255 * images).byte()):
        with pytest.raises(
            GenclsError, match=rf"{type(model).__name__}: expected floating-point images of {shape}, got {wrong.dtype}"
        ):
            model.autoencode(wrong, encoded_only)


# --- under purification ----------------------------------------------------------------------------------------------


def test_purification_with_alphas_0_is_autoencoding(model, images):
    purification = MLVGMPurification(model, [0.0] * model.num_levels)
    assert not purification.stochastic
    assert_close(purification(images), model.autoencode(images, encoded_only))


def test_purification_with_alphas_1_does_not_depend_on_the_image(model, images):
    purification = MLVGMPurification(model, [1.0] * model.num_levels)
    assert purification.stochastic
    found = []
    for batch in (images, 1 - images):
        with keyed(range(COUNT)):
            found.append(purification(batch))
    assert torch.equal(*found)  # 0 * encoded code + sampled code


def test_several_draws_of_an_image_are_those_of_a_repeated_image(model, images):
    purification = MLVGMPurification(model, "uniform")
    found = []
    for several in (lambda x: purification.forward_draws(x, 4), lambda x: purification(repeat_rows(x, 4))):
        attacked = images.clone().requires_grad_()
        with keyed(range(COUNT)), draws(range(4)):
            purified = several(attacked)
        found.append((purified, *torch.autograd.grad(purified.square().sum(), attacked)))
    assert_close(found[0][0], found[1][0])
    scale = found[1][1].abs().max()
    assert_close(found[0][1] / scale, found[1][1] / scale)
