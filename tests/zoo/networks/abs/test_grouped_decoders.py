"""How stacked decoders are evaluated: bits, and what is kept between calls."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from gencls.zoo.networks import DecoderStage, GroupedDecoders
from gencls.zoo.networks.abs.decoder_layers import ColumnPairs

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="the convolutions of other machines may round by batch"
)


def make(seed: int = 0, channels: int = 2, stride: int = 2, classes: int = 4) -> GroupedDecoders:
    """Codes of 3, images (channels, 12, 12) or with stride 1 (channels, 8, 8): whole vectors of 16 pixels, as in Table 2.1."""
    torch.manual_seed(seed)
    decoders = [
        [
            DecoderStage(nn.ConvTranspose2d(3, 16, 5), nn.BatchNorm2d(16).eval(), "relu"),
            DecoderStage(nn.ConvTranspose2d(16, 8, 4, stride), nn.BatchNorm2d(8).eval(), "elu"),
            DecoderStage(nn.ConvTranspose2d(8, channels, 1), None, "sigmoid"),
        ]
        for _ in range(classes)
    ]
    return GroupedDecoders(decoders)


def pairs(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (count, 4, 3), and some of the (image, class) pairs in random order."""
    codes = torch.randn(count, 4, 3)
    images, labels = (torch.rand(count, 4) < 0.4).nonzero(as_tuple=True)
    order = torch.randperm(len(images))
    return codes, images[order], labels[order]


def both(decode: nn.Module, codes: Tensor, *chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Images of the chosen pairs, or of all, and the gradient of a sum of squares."""
    leaf = codes.clone().requires_grad_()
    found = decode((leaf[chosen],), chosen[1]) if chosen else decode.decode_all((leaf,))  # type: ignore[operator]
    return found.detach(), torch.autograd.grad((found - 0.3).square().sum(), leaf)[0]


@needs_onednn
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("count", [1, 3, 20])
def test_chosen_pairs_are_decoded_to_the_same_bits(count: int, channels: int, stride: int) -> None:
    generator = make(channels=channels, stride=stride)
    codes, images, labels = pairs(count)
    whole, gradient = both(generator, codes)
    some, partial = both(generator, codes, images, labels)
    assert torch.equal(some, whole[images, labels])
    assert torch.equal(partial[images, labels], gradient[images, labels])
    mask = torch.ones(count, 4, dtype=torch.bool)
    mask[images, labels] = False
    assert not bool(partial[mask].any())


@needs_onednn
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("classes", [3, 4])
def test_every_size_of_batch_gives_the_same_bits(classes: int, channels: int, stride: int) -> None:
    generator = make(channels=channels, stride=stride, classes=classes)
    codes = torch.randn(33, classes, 3)
    whole = both(generator, codes)
    for size in (1, 2, 5, 11, 12, 17):
        for found, expected in zip(both(generator, codes[:size]), whole, strict=True):
            assert torch.equal(found, expected[:size])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", [0, 1])
def test_two_columns_at_once_are_the_transposed_convolution(channels: int, padding: int) -> None:
    torch.manual_seed(0)
    layers = [
        (
            nn.ConvTranspose2d(3, 16, 5).double(),
            nn.ConvTranspose2d(16, 8, 4, 1, padding).double(),
            nn.ConvTranspose2d(8, channels, 1).double(),
        )
        for _ in range(2)
    ]
    decoders = [
        [DecoderStage(first, None, "elu"), DecoderStage(second, None, "elu"), DecoderStage(last, None, "sigmoid")]
        for first, second, last in layers
    ]
    generator = GroupedDecoders(decoders)
    assert any(isinstance(layer, ColumnPairs) for layer in generator._weights((0, 1)).layers)

    def plain(codes: Tensor, k: int) -> Tensor:
        first, second, last = layers[k]
        elu = nn.functional.elu
        return torch.sigmoid(last(elu(second(elu(first(codes[:, :, None, None]))))))

    codes = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)
    expected = torch.stack([plain(codes[:, k], k) for k in range(2)], dim=1)
    found = generator.decode_all((codes,))
    torch.testing.assert_close(found, expected)
    one, label = codes[:1, 1].detach().requires_grad_(), torch.tensor([1])
    torch.testing.assert_close(generator((one,), label), expected[:1, 1])
    # First and second derivatives, as the unrolled gradient needs them; a single class takes a path of its own.
    for decode, leaf in ((lambda z: generator.decode_all((z,)), codes), (lambda z: generator((z,), label), one)):
        torch.autograd.gradcheck(decode, leaf)
        torch.autograd.gradgradcheck(lambda z, decode=decode: decode(z).square().mean(), leaf)
    # The same through torch.func, one image at a time.
    loss = lambda z: generator.decode_all((z[None],)).square().sum()  # noqa: E731
    (gradient,) = torch.autograd.grad(expected.square().sum(), codes)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(codes.detach()), gradient)


def test_labels_that_change_in_place_are_noticed() -> None:
    generator = make()
    codes, labels = torch.randn(5, 3), torch.tensor([0, 3, 1, 1, 2])
    first = generator((codes,), labels)
    assert torch.equal(generator((codes,), labels), first)
    labels.copy_(labels.flip(0))
    torch.testing.assert_close(generator((codes,), labels), generator((codes,), labels.clone()), rtol=0, atol=0)
    assert not torch.equal(generator((codes,), labels), first)


def test_labels_may_come_from_inference_mode() -> None:
    generator, codes = make(), torch.randn(5, 3)
    with torch.inference_mode():
        labels = torch.tensor([0, 3, 1, 1, 2])
        expected = generator((codes,), labels)
    leaf = codes.clone().requires_grad_()
    found = generator((leaf,), labels.clone())
    torch.testing.assert_close(found.detach(), expected, rtol=0, atol=1e-6)
    assert torch.isfinite(torch.autograd.grad(found.sum(), leaf)[0]).all()


@pytest.mark.parametrize("count", [2, 20])
def test_other_weights_and_precisions_are_noticed(count: int) -> None:
    generator, other = make(0), make(1)
    codes = torch.randn(count, 4, 3)
    expected = other.decode_all((codes,))
    generator.decode_all((codes,))  # before, so that what is kept between calls is of the old weights
    twin = copy.deepcopy(generator)
    assert generator._ready
    assert not twin._ready
    generator.load_state_dict(other.state_dict())
    assert torch.equal(generator.decode_all((codes,)), expected)
    assert not torch.equal(twin.decode_all((codes,)), expected)
    twin.load_state_dict(other.state_dict())
    assert torch.equal(twin.decode_all((codes,)), expected)
    double = generator.double().decode_all((codes.double(),))
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), expected, rtol=0, atol=1e-5)


def test_copies_and_files_hold_the_weights_alone() -> None:
    generator = make()
    codes, labels = torch.randn(5, 3), torch.tensor([0, 3, 1, 1, 2])
    expected = generator((codes,), labels)
    generator.decode_all((torch.randn(20, 4, 3),))
    kept = ("_order", "_ready", "_made_of")
    assert all(getattr(generator, name) for name in kept)
    for twin in (copy.deepcopy(generator), pickle.loads(pickle.dumps(generator))):
        assert not any(getattr(twin, name) for name in kept)
        assert torch.equal(twin((codes,), labels), expected)


def test_images_are_contiguous() -> None:
    # Sums over pixels round by the order in memory.
    for count in (2, 20):
        assert make().decode_all((torch.randn(count, 4, 3),)).is_contiguous()


def test_decoders_of_a_single_stage() -> None:
    torch.manual_seed(0)
    convs = [nn.ConvTranspose2d(3, 1, 5) for _ in range(2)]
    generator = GroupedDecoders([[DecoderStage(conv, None, "sigmoid")] for conv in convs])
    codes = torch.randn(2, 2, 3)
    expected = torch.stack([torch.sigmoid(conv(codes[:, k, :, None, None])) for k, conv in enumerate(convs)], dim=1)
    torch.testing.assert_close(generator.decode_all((codes,)), expected)


def test_pairs_of_columns_are_for_cpus() -> None:
    assert any(isinstance(layer, ColumnPairs) for layer in make(stride=1)._weights((0, 1)).layers)
    assert not any(isinstance(layer, ColumnPairs) for layer in make(stride=1).to("meta")._weights((0, 1)).layers)
