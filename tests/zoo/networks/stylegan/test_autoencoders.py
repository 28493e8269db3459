"""StyleGAN2 with e4e and with the Style Transformer: codes, frames, bad input."""

import pytest
import torch
from torch.nn import functional as F

from gencls.core import GenclsError, seeded
from gencls.zoo.networks import E4EAutoencoder, E4EEncoder, StyleTransformerEncoder
from tests.style_models import BACKBONE, LEVELS, MODELS, e4e, generator, style_transformer


def encoded_only(level, encoded, sampled):
    return encoded


def half(level, encoded, sampled):
    return 0.5 * encoded + 0.5 * sampled


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]()


@pytest.fixture
def images():
    return torch.rand(3, 3, 32, 32)


def in_range(values):
    return (values + 1).div(2).clamp(0, 1)


def test_encoded_codes_only_is_plain_autoencoding(model):
    images = torch.rand(3, *model.image_shape)
    codes = model.encode(2 * images - 1) + model.latent_avg
    expected = in_range(model.frame(model.generator(codes)))
    found = model.autoencode(images, encoded_only)
    torch.testing.assert_close(found, expected)
    assert found.std() > 0.05
    assert not torch.equal(found[0], found[1])


def test_samples_are_those_of_the_mapping_of_independent_draws(model):
    images, codes, levels = torch.rand(3, *model.image_shape), {}, model.num_levels
    with seeded(2):
        model.autoencode(images, lambda level, encoded, sampled: codes.setdefault(level, sampled))
    with seeded(2):
        expected = model.generator.mapping(model.noise_std * torch.randn(3, levels, model.generator.style_dim))
    torch.testing.assert_close(torch.stack([codes[level] for level in range(levels)], dim=1), expected)
    assert len({tuple(row) for row in expected.flatten(0, 1).tolist()}) == 3 * levels


def test_state_dict_has_the_average_code(model):
    assert "latent_avg" in model.state_dict()
    assert {name.split(".")[0] for name in model.state_dict()} == {"latent_avg", "encoder", "generator"}


# --- frames ----------------------------------------------------------------------------------------------------------


def test_e4e_averages_the_generators_image():
    model = e4e(image_size=8)
    made = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model.frame(made), F.avg_pool2d(made, 2))


def test_style_transformer_does_not_see_its_bars(images):
    model = style_transformer()
    other = images.clone()
    other[:, :, :3] = other[:, :, -3:] = 0.7  # the bars have four rows; the fourth one is interpolated with the fifth
    assert torch.equal(model.encode_once(images)[0], model.encode_once(other)[0])
    other[:, :, 4] = 0.7
    assert not torch.equal(model.encode_once(images)[0], model.encode_once(other)[0])


def test_style_transformer_draws_its_bars(images):
    found = style_transformer().autoencode(images, half)
    assert (found[:, :, :4] == 0).all()
    assert (found[:, :, -4:] == 0).all()
    assert (found[:, :, 4:-4] > 0).any(dim=(0, 1, 3)).all()


# --- encoders --------------------------------------------------------------------------------------------------------


def test_e4e_stages_of_training():
    encoder = e4e().encoder
    images = torch.randn(2, 3, 48, 64)
    codes = encoder(images)
    for stage in range(LEVELS):
        found = encoder(images, stage=stage)
        torch.testing.assert_close(found[:, : stage + 1], codes[:, : stage + 1])
        torch.testing.assert_close(found[:, stage + 1 :], codes[:, :1].expand(-1, LEVELS - stage - 1, -1))
    assert len({tuple(code) for code in codes[0].tolist()}) == LEVELS


def test_feature_pyramid_has_a_quarter_an_eighth_and_a_sixteenth_of_the_pixels():
    maps = e4e().encoder.pyramid(torch.randn(1, 3, 48, 64))
    assert [tuple(m.shape) for m in maps] == [(1, 64, 3, 4), (1, 64, 6, 8), (1, 64, 12, 16)]


def test_style_transformer_queries_are_those_of_the_mapping(images):
    model = style_transformer()
    codes = model.encode_once(images)[0]
    model.generator.style[1].bias.add_(1)
    assert (model.encode_once(images)[0] - codes).abs().max() > 0.01


# --- bad input -------------------------------------------------------------------------------------------------------


def test_parts_that_do_not_fit():
    encoder = E4EEncoder(LEVELS, **BACKBONE)
    with pytest.raises(GenclsError, match="expected an encoder of 8 levels and 64 numbers .* 32 pixels has; got 6 levels"):
        E4EAutoencoder(encoder, generator(channels=(4, 4, 4, 4)), torch.zeros(64))
    with pytest.raises(GenclsError, match="expected an encoder of 6 levels and 32 numbers"):
        E4EAutoencoder(encoder, generator(style_dim=32), torch.zeros(32))
    for shape in ((8, 64), (LEVELS, 32), (), (1, 1, 64)):
        with pytest.raises(GenclsError, match=r"expected an average code of shape \(6, 64\), \(1, 64\) or \(64,\), got"):
            E4EAutoencoder(encoder, generator(), torch.zeros(shape))


def test_sizes_out_of_range():
    for size in (0, -3):
        with pytest.raises(GenclsError, match=f"StyleTransformerAutoencoder: expected image_size >= 1, got {size}"):
            style_transformer(image_size=size)
    for canvas in (20, 0, -8):
        with pytest.raises(GenclsError, match=f"expected a canvas that is a multiple of 8, got {canvas}"):
            style_transformer(canvas=canvas)
    with pytest.raises(GenclsError, match="expected image_size <= 256, got 257"):
        e4e(image_size=257)


@pytest.mark.parametrize("sizes", [{"widths": (16, 32, 48)}, {"widths": (8, 16, 32, 64)}, {"units": (1, 1, 0, 1)}])
@pytest.mark.parametrize("kind", [E4EEncoder, StyleTransformerEncoder])
def test_backbones_of_other_forms(kind, sizes):
    with pytest.raises(GenclsError, match="four widths >= 16 and four numbers of units >= 1, got"):
        kind(LEVELS, **{**BACKBONE, **sizes})


def test_images_that_are_too_large_for_e4e():
    with pytest.raises(GenclsError, match="expected images of at most 256 x 256 pixels, got 16 x 257"):
        e4e().encoder(torch.zeros(1, 3, 16, 257))
