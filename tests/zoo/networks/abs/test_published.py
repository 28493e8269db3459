"""Reading and building the published ABS networks: files, variants, bad input. Their numbers: tests/golden."""

import math

import pytest
import torch

from gencls.core import GenclsError, seeded
from gencls.defenses import Posterior
from gencls.zoo.networks import official_abs_decoders
from gencls.zoo.networks.abs.official import unused_official_abs_keys
from gencls.zoo.networks.abs.published import official_abs, published_codes, published_confidence, read_official_abs

LATENT, WIDTHS = 3, (4, 3, 2)


def network(latent=LATENT, widths=WIDTHS):
    """One file's tensors, narrow, as published: without num_batches_tracked and with an encoder."""
    tensors = {"Encoder.conv_0.weight": torch.randn(4, 1, 5, 5), "Encoder.bn_0.running_var": torch.ones(4)}
    channels = (latent, *widths, 1)
    for i, kernel in enumerate((4, 5, 5, 4)):
        tensors[f"Decoder.conv_{i}.weight"] = torch.randn(channels[i], channels[i + 1], kernel, kernel) / 3
        tensors[f"Decoder.conv_{i}.bias"] = torch.randn(channels[i + 1]) / 10
        if i < 3:
            tensors |= {f"Decoder.bn_{i}.{leaf}": torch.randn(channels[i + 1]) / 10 for leaf in ("bias", "running_mean")}
            tensors |= {f"Decoder.bn_{i}.{leaf}": 1 + torch.rand(channels[i + 1]) for leaf in ("weight", "running_var")}
    return tensors


@pytest.fixture
def folder(tmp_path):
    for k in range(10):
        torch.save(network(), tmp_path / f"ABS_{k}.net")
    return tmp_path


@pytest.fixture
def state(folder):
    return read_official_abs(folder)


@pytest.fixture
def images():
    return torch.rand(3, 1, 28, 28)


def few(source, **settings):
    return official_abs(source, codes=published_codes(20, size=LATENT), **{"steps": 4, **settings})


def test_folder_and_mapping_give_the_same_classifier(folder, state, images):
    first, second = few(folder), few(state)
    assert first.num_classes == 10
    assert not first.training
    assert not first.stochastic
    assert torch.equal(first(images), second(images))
    assert not any(parameter.requires_grad for parameter in first.parameters())


def test_the_defaults_are_those_of_the_public_code(state):
    engine = official_abs(state).classifier
    assert torch.equal(engine.start.codes, published_codes(8000, size=LATENT))
    assert (engine.steps, engine.lr, engine.project.radius) == (49, 0.05, 5.0)


def test_scores_are_the_bound_and_not_divided_by_the_pixels(state, images):
    defense = few(state, beta=0.7)
    latents = defense.infer(images)[0].mean
    error = (images.unsqueeze(1) - defense.reconstruct(images, (Posterior(latents),))).square().sum((2, 3, 4))
    # float32 sums of 784 squares, of size 100
    torch.testing.assert_close(defense(images), -(error + 0.35 * latents.square().sum(2)), rtol=1e-5, atol=0)


def test_the_binary_variant_thresholds_and_weighs_classes(state, images):
    plain, binary = few(state), few(state, variant="binary")
    factors = torch.tensor([1.0, 0.96, 1.001, 1.06, 0.98, 0.96, 1.03, 1.0, 1.0, 1.0])
    images[0, 0, 0, 0] = 0.5  # becomes 1
    torch.testing.assert_close(binary(images), plain((images >= 0.5).float()) * factors, rtol=1e-6, atol=0)


def test_gradient_modes(state, images):
    assert set(few(state).surrogates()) == {"frozen", "unrolled"}
    binary = few(state, variant="binary")
    assert set(binary.surrogates()) == {"bpda+frozen", "bpda+unrolled"}
    behind = binary.classifier
    for mode in ("frozen", "unrolled"):
        # Straight through: the gradient at the image is that of the classifier at the binarised image.
        attacked, seen = images.clone().requires_grad_(), binary.transform(images).requires_grad_()
        (found,) = torch.autograd.grad(binary.surrogate(f"bpda+{mode}")(attacked)[:, 3].sum(), attacked)
        (expected,) = torch.autograd.grad(behind.surrogate(mode)(seen)[:, 3].sum(), seen)
        assert torch.equal(found, expected)
        assert found.abs().sum() > 0


def test_the_clip_of_the_public_code_is_an_option(state, images):
    losing, keeping = (few(state, radius=0.1, lr=1.0, keep_signs=keep).infer(images)[0].mean for keep in (False, True))
    assert (losing >= 0).all()
    assert (keeping < 0).any()
    for latents in (losing, keeping):
        assert latents.norm(dim=2).max() <= 0.1 + 1e-6


def test_codes_are_the_densest_in_drawing_order():
    codes, drawn = published_codes(90, size=4), published_codes(100, size=4, dismissed=0.0)
    assert codes.shape == (90, 4)
    assert codes.dtype == torch.float32
    longest = drawn.norm(dim=1).argsort()[-10:]
    kept = [i for i in range(100) if i not in longest.tolist()]
    assert torch.equal(codes, drawn[kept])
    assert not torch.equal(published_codes(90, size=4, seed=999), codes)


def test_codes_touch_no_global_random_state():
    with seeded(0):
        before = torch.rand(2)
    with seeded(0):
        published_codes(10)
        assert torch.equal(torch.rand(2), before)


def test_confidence_has_the_published_form():
    bounds = torch.tensor([[0.01, 0.02, 0.5], [0.5, 0.6, 0.7]])
    found = published_confidence(-784 * bounds)
    first = [math.exp(-4.4) + 3.9e-5, math.exp(-8.8) + 3.9e-5, 3.9e-5]
    expected = torch.tensor([[value / sum(first) for value in first], [1 / 3] * 3])  # exp(-220) is nothing beside 3.9e-5
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(published_confidence(-16 * bounds, pixels=16), found)


def test_encoders_are_named_as_unused(state):
    expected = {f"VAE_{k}.Encoder.{leaf}" for k in range(10) for leaf in ("conv_0.weight", "bn_0.running_var")}
    assert set(unused_official_abs_keys(state)) == expected
    decoders = official_abs_decoders({key: value for key, value in state.items() if key not in expected})
    latents = (torch.randn(2, 10, LATENT),)
    assert torch.equal(decoders.decode_all(latents), official_abs_decoders(state).decode_all(latents))


# --- bad input -------------------------------------------------------------------------------------------------------


def test_a_file_is_missing(folder):
    (folder / "ABS_4.net").unlink()
    (folder / "ABS_9.net").unlink()
    with pytest.raises(GenclsError, match=r"expected ABS_0.net to ABS_9.net; there is no ABS_4.net, ABS_9.net"):
        official_abs(folder)
    with pytest.raises(GenclsError, match=r"there is no ABS_0.net, ABS_1.net"):
        official_abs(folder / "elsewhere")


def test_an_html_page(folder):
    (folder / "ABS_7.net").write_text("<!DOCTYPE html><html><body>Not found</body></html>")
    with pytest.raises(GenclsError, match=r"ABS_7.net: expected a weights file; got an HTML page"):
        official_abs(folder)


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("conv_1.weight", (4, 3, 5), r"expected VAE_2.Decoder.conv_1.weight of rank 4, got shape \(4, 3, 5\)"),
        ("conv_1.weight", (5, 3, 5, 5), r"expected VAE_2.Decoder.conv_1.weight with 4 input channels, got 5"),
        ("conv_1.bias", (4,), r"expected VAE_2.Decoder.conv_1.bias of shape"),
        ("bn_2.running_var", (3,), r"expected VAE_2.Decoder.bn_2.running_var of shape"),
        ("conv_3.weight", (2, 1, 5, 5), r"expected decoders of one layout; decoder 0 is .* decoder 2 is"),
        ("conv_0.weight", (4, 4, 4, 4), r"expected decoders of one layout; decoder 0 is .* decoder 2 is"),
    ],
)
def test_wrong_shapes(folder, key, shape, message):
    torch.save({**network(), f"Decoder.{key}": torch.ones(shape)}, folder / "ABS_2.net")
    with pytest.raises(GenclsError, match=f"(?s){message}"):
        official_abs(folder)


@pytest.mark.parametrize("key", ["Decoder.conv_0.weight", "Decoder.conv_2.bias", "Decoder.bn_1.running_mean"])
def test_a_tensor_is_missing(folder, key):
    torch.save({name: tensor for name, tensor in network().items() if name != key}, folder / "ABS_5.net")
    with pytest.raises(GenclsError, match=r"expected .*VAE_5.Decoder"):
        official_abs(folder)


def test_other_networks(folder):
    torch.save({"conv1.weight": torch.ones(1)}, folder / "ABS_1.net")
    with pytest.raises(GenclsError, match=r"expected keys VAE_0.Decoder.conv_0.weight, ...; got VAE_1.conv1.weight"):
        official_abs(folder)
    with pytest.raises(GenclsError, match=r"expected keys VAE_0.Decoder.conv_0.weight, ...; got nothing"):
        official_abs({})


def test_only_encoders_in_one_file(folder):
    torch.save({key: tensor for key, tensor in network().items() if "Encoder" in key}, folder / "ABS_9.net")
    with pytest.raises(GenclsError, match=r"expected VAE_9.Decoder.conv_0.weight of rank 4, got nothing"):
        official_abs(folder)


def test_unknown_variant(state):
    with pytest.raises(GenclsError, match=r"expected variant to be one of \('plain', 'binary'\), got 'grey'"):
        official_abs(state, variant="grey")


def test_factors_are_known_for_ten_classes_only(folder):
    state = read_official_abs(folder, num_classes=3)
    assert few(state).num_classes == 3
    with pytest.raises(GenclsError, match="expected 3 positive factors, got"):
        few(state, variant="binary")


@pytest.mark.parametrize(
    "codes", [torch.zeros(5, LATENT + 1), torch.zeros(LATENT), torch.full((5, LATENT), math.nan), torch.zeros(0, LATENT)]
)
def test_bad_codes(state, codes):
    with pytest.raises(GenclsError, match=r"expected (finite codes of shape \(S, 3\)|count >= 1 random codes), got"):
        official_abs(state, codes=codes)


@pytest.mark.parametrize("settings", [{"count": 0}, {"size": 0}, {"dismissed": 1.0}, {"dismissed": -0.1}])
def test_bad_numbers_of_codes(settings):
    with pytest.raises(GenclsError, match="expected count >= 1, size >= 1 and dismissed"):
        published_codes(**settings)
