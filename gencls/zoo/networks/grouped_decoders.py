"""The K decoders of ABS as one network: grouped transposed convolutions with batch norm folded in."""

import copy
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gencls.core.errors import GenclsError
from gencls.core.generator import ClassConditionalGenerator, Latents
from gencls.zoo.networks.class_conditional_autoencoder import ClassDecoders
from gencls.zoo.networks.conv_decoder import ConvDecoder

__all__ = ["DecoderStage", "GroupedDecoders"]

Activation = Literal["relu", "elu", "sigmoid"]
_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"relu": F.relu, "elu": F.elu, "sigmoid": torch.sigmoid}


# From so many images on a CPU is busy enough with one class after the other, which then takes two thirds of the time.
_FULL = 4
# Matrix products of fewer rows may take another kernel, which rounds differently.
_ROWS = 16


class DecoderStage(NamedTuple):
    """A transposed convolution of one decoder, with what follows it."""

    conv: nn.ConvTranspose2d
    norm: nn.BatchNorm2d | None
    activation: Activation


class GroupedDecoders(ClassConditionalGenerator):
    """K trained decoders of equal layout, evaluated together.

    Inference by optimisation decodes one latent per class in every step. One transposed convolution with K groups
    does for all classes what a loop does one by one; batch norm in eval mode is an affine map and disappears into the
    weights, and so does the linear layer in front, since a transposed convolution of a 1 x 1 map is linear. On one CPU
    core a step takes 0.2 (one image) to 0.7 (32 images) of the time of the trained decoders in a loop.

    An image is decoded to the same bits in a batch of any size (x86 CPU). This matters because inference amplifies: after
    50 Adam steps, differences of the last bit in the images had become 7e-4 of a score.

    The weights are buffers: nothing here can be trained, and no backward pass computes gradients of weights. Latents
    are one level of length d with a standard normal prior; ``log_prior`` is -||z||^2 / 2, without the constant.

    Args:
        stages: for each of the K classes its decoder's stages; the first one acts on a 1 x 1 map.
        linears: for each class a linear layer from the latent to the depth of the first stage; None gives the latent
            itself to the first stage.

    Raises:
        GenclsError: if there are no decoders or they differ in layout.
    """

    def __init__(self, stages: Sequence[Sequence[DecoderStage]], *, linears: Sequence[nn.Linear] | None = None) -> None:
        super().__init__()
        _check_layout(stages, linears)
        self.num_classes = len(stages)
        dtype = stages[0][0].conv.weight.dtype
        first, *rest = zip(*stages, strict=True)
        heads = [_fold_head(stage, linears[k] if linears else None) for k, stage in enumerate(first)]
        self.latent_shapes = (torch.Size([len(heads[0][0])]),)
        self._head_shape = heads[0][1].shape
        self.register_buffer("head_weight", torch.stack([weight.flatten(1) for weight, _ in heads]).to(dtype))
        self.register_buffer("head_bias", torch.stack([bias.flatten() for _, bias in heads]).to(dtype))
        self._strides = [layers[0].conv.stride for layers in rest]
        self._paddings = [layers[0].conv.padding for layers in rest]
        self._activations = [_ACTIVATIONS[layers[0].activation] for layers in (first, *rest)]
        for index, layers in enumerate(rest):
            folded = [_fold(stage) for stage in layers]
            self.register_buffer(f"weight_{index}", torch.stack([weight for weight, _ in folded]).to(dtype))
            self.register_buffer(f"bias_{index}", torch.stack([bias for _, bias in folded]).to(dtype))

    @classmethod
    def from_decoders(cls, decoders: ClassDecoders) -> Self:
        """Fold the decoders of class-conditional VAEs; they are not changed and no longer needed.

        Args:
            decoders: K trained decoders. Dropout is left out, as in eval mode.
        """
        parts = [decoders[k] for k in range(decoders.num_classes)]
        return cls([_stages(part) for part in parts], linears=[part.linear for part in parts])

    def decode_all(self, latents: Latents) -> Tensor:
        """Decode one latent per class for each of N images, in one pass.

        Args:
            latents: one level, (N, K, d).

        Returns:
            Images (N, K, C, H, W) in [0, 1].
        """
        (codes,) = latents
        if codes.device.type != "cpu" or len(codes) < _FULL:
            return self._decode(codes.transpose(0, 1), slice(None))
        images = [self._decode(codes[:, k].unsqueeze(0), slice(k, k + 1)) for k in range(self.num_classes)]
        return torch.cat(images, dim=1)

    def forward(self, latents: Latents, labels: Tensor) -> Tensor:
        """Decode M latents, each for its own class.

        Args:
            latents: one level, (M, d).
            labels: int64 (M,).

        Returns:
            Images (M, C, H, W) in [0, 1].
        """
        (codes,) = latents
        order = labels.argsort()
        groups = codes[order].split(labels.bincount(minlength=self.num_classes).tolist())
        images = [self._decode(group.unsqueeze(0), slice(k, k + 1)).squeeze(1) for k, group in enumerate(groups) if len(group)]
        return torch.cat(images)[order.argsort()]

    def extra_repr(self) -> str:
        """The layout."""
        activations = [activation.__name__ for activation in self._activations]
        return f"strides={self._strides}, paddings={self._paddings}, activations={activations}"

    def _decode(self, codes: Tensor, classes: slice) -> Tensor:
        """Codes (G, N, d) for the G chosen classes to images (N, G, C, H, W)."""
        weight, bias = self.get_buffer("head_weight")[classes], self.get_buffer("head_bias")[classes]
        count = len(weight)
        padded = F.pad(codes, (0, 0, 0, -codes.shape[1] % _ROWS))
        maps: Tensor = torch.baddbmm(bias.unsqueeze(1), padded, weight)[:, : codes.shape[1]].transpose(0, 1)
        maps = self._activations[0](maps.unflatten(2, self._head_shape).flatten(1, 2))
        for index, activation in enumerate(self._activations[1:]):
            weight, bias = self.get_buffer(f"weight_{index}")[classes], self.get_buffer(f"bias_{index}")[classes]
            maps = activation(_transposed_convolution(maps, weight, bias, self._strides[index], self._paddings[index]))
        images: Tensor = maps.unflatten(1, (count, -1))
        return images


def _transposed_convolution(
    maps: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, ...], padding: tuple[int, ...]
) -> Tensor:
    """Maps (N, G * in, h, w), weight (G, in, out, k, k), bias (G, out) to maps (N, G * out, h', w')."""
    groups = len(weight)
    if weight.shape[3:] == (1, 1) and stride == (1, 1) and padding == (0, 0):
        # One matrix product per image and class: torch's convolution rounds differently in batches of less than 16.
        pixels = maps.unflatten(1, (groups, -1)).flatten(3)
        mixed: Tensor = weight[..., 0, 0].transpose(1, 2) @ pixels + bias.unsqueeze(2)
        return mixed.view(len(maps), -1, *maps.shape[2:])
    return F.conv_transpose2d(maps, weight.flatten(0, 1), bias.flatten(), stride, padding, groups=groups)


def _stages(decoder: ConvDecoder) -> list[DecoderStage]:
    *inner, last = (cast(nn.ConvTranspose2d, conv) for conv in decoder.convs)
    norms = (cast(nn.BatchNorm2d, norm) for norm in decoder.norms)
    return [
        *(DecoderStage(conv, norm, "relu") for conv, norm in zip(inner, norms, strict=True)),
        DecoderStage(last, None, "sigmoid"),
    ]


def _fold(stage: DecoderStage) -> tuple[Tensor, Tensor]:
    """Weight (in, out, k, k) and bias (out,) of the convolution and the batch norm after it, in float64."""
    conv = copy.deepcopy(stage.conv).double().eval()
    if stage.norm is not None:
        conv = fuse_conv_bn_eval(conv, copy.deepcopy(stage.norm).double().eval(), transpose=True)
    weight = conv.weight.detach()
    return weight, weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()


def _fold_head(stage: DecoderStage, linear: nn.Linear | None) -> tuple[Tensor, Tensor]:
    """Weight (d, C, h, w) and bias (C, h, w) of the linear layer and the first stage on its 1 x 1 map, in float64."""
    weight, offsets = _fold(stage)
    # The one input pixel writes its kernel to the output, from which the padding is cut off.
    (top, left), (height, width) = cast(tuple[int, int], stage.conv.padding), weight.shape[2:]
    weight = weight[:, :, top : height - top, left : width - left]
    bias = offsets[:, None, None].expand(weight.shape[1:])
    if linear is not None:
        bias = bias + torch.einsum("c,cohw->ohw", linear.bias.detach().double(), weight)
        weight = torch.einsum("cd,cohw->dohw", linear.weight.detach().double(), weight)
    return weight, bias


def _check_layout(stages: Sequence[Sequence[DecoderStage]], linears: Sequence[nn.Linear] | None) -> None:
    if not stages or not stages[0]:
        raise GenclsError("GroupedDecoders: expected at least one decoder of at least one stage, got none")
    if linears is not None and len(linears) != len(stages):
        raise GenclsError(f"GroupedDecoders: expected {len(stages)} linear layers, one per decoder, got {len(linears)}")
    expected = _layout(stages[0], linears[0] if linears else None)
    for k, decoder in enumerate(stages):
        found = _layout(decoder, linears[k] if linears else None)
        if found != expected:
            raise GenclsError(
                f"GroupedDecoders: expected decoders of one layout; decoder 0 is {expected}, decoder {k} is {found}"
            )


def _layout(decoder: Sequence[DecoderStage], linear: nn.Linear | None) -> list[object]:
    rows: list[object] = [] if linear is None else [tuple(linear.weight.shape)]
    return [
        *rows,
        *((tuple(stage.conv.weight.shape), stage.conv.stride, stage.conv.padding, stage.activation) for stage in decoder),
    ]
