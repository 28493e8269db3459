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
_IN_PLACE: dict[Activation, Callable[[Tensor], Tensor]] = {"relu": F.relu_, "elu": F.elu_, "sigmoid": torch.sigmoid_}

# From so many images on a CPU is busy enough with one class after the other, which then takes less time.
_FULL = 12
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
    weights, and so does the linear layer in front, since a transposed convolution of a 1 x 1 map is linear. All maps lie
    in memory channels last, which the convolutions of CPUs prefer. docs/performance.md has the times.

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

    head_weight: Tensor
    head_bias: Tensor

    def __init__(self, stages: Sequence[Sequence[DecoderStage]], *, linears: Sequence[nn.Linear] | None = None) -> None:
        super().__init__()
        _check_layout(stages, linears)
        self.num_classes = len(stages)
        dtype = stages[0][0].conv.weight.dtype
        first, *rest = zip(*stages, strict=True)
        heads = [_fold_head(stage, linears[k] if linears else None) for k, stage in enumerate(first)]
        self.latent_shapes = (torch.Size([len(heads[0][0])]),)
        self._head_shape = heads[0][1].shape
        # The first maps come out channels last: (K, d, h w C) and (K, h w C).
        self.register_buffer("head_weight", torch.stack([w.permute(0, 2, 3, 1).flatten(1) for w, _ in heads]).to(dtype))
        self.register_buffer("head_bias", torch.stack([b.permute(1, 2, 0).flatten() for _, b in heads]).to(dtype))
        self._strides = [layers[0].conv.stride for layers in rest]
        self._paddings = [layers[0].conv.padding for layers in rest]
        self._activations = [layers[0].activation for layers in (first, *rest)]
        self._order: _Order | None = None
        self._ready: dict[int | None, _Weights] = {}
        self._made_of: Tensor | None = None
        for index, layers in enumerate(rest):
            folded = [_fold(stage) for stage in layers]
            self.register_buffer(f"weight_{index}", _channels_last(torch.stack([weight for weight, _ in folded]).to(dtype)))
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
            return self._decode(codes.transpose(0, 1))
        images = [self._decode(part.unsqueeze(0), k) for k, part in enumerate(codes.unbind(1))]
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
        if self._order is None or not self._order.is_of(labels):  # a descent asks for the same classes at every step
            self._order = _Order(labels, self.num_classes)
        groups = codes[self._order.rows].split(self._order.counts)
        images = [self._decode(group.unsqueeze(0), k).squeeze(1) for k, group in enumerate(groups) if len(group)]
        return torch.cat(images)[self._order.back]

    def extra_repr(self) -> str:
        """The layout."""
        return f"strides={self._strides}, paddings={self._paddings}, activations={self._activations}"

    def _decode(self, codes: Tensor, chosen: int | None = None) -> Tensor:
        """Codes (G, N, d) of all classes, or (1, N, d) of the chosen one, to images (N, G, C, H, W)."""
        head, bias, stages = self._weights(chosen)
        (groups, count, _), (channels, height, width) = codes.shape, self._head_shape
        pixels: Tensor = torch.baddbmm(bias, F.pad(codes, (0, 0, 0, -count % _ROWS)), head)[:, :count]
        # (G, N, h w C) to (N, G C, h, w), which is (N, h, w, G, C) in memory.
        pixels = pixels.view(groups, count, height, width, channels).permute(1, 2, 3, 0, 4)
        maps = pixels.reshape(count, height, width, -1).permute(0, 3, 1, 2)
        maps = _ACTIVATIONS[self._activations[0]](maps)
        for stage, activation in zip(stages, self._activations[1:], strict=True):
            maps = (_ACTIVATIONS if stage.products else _IN_PLACE)[activation](stage(maps))
        return maps.view(count, groups, -1, *maps.shape[2:]).contiguous()

    def _weights(self, chosen: int | None) -> "_Weights":
        """Those of all classes or of one, ready for use."""
        if self._made_of is not self.head_weight:  # the module has been moved or copied
            self._ready, self._made_of = {}, self.head_weight
        if chosen not in self._ready:
            classes = slice(None) if chosen is None else slice(chosen, chosen + 1)
            stages = [
                _Stage(self.get_buffer(f"weight_{i}")[classes], self.get_buffer(f"bias_{i}")[classes], stride, padding)
                for i, (stride, padding) in enumerate(zip(self._strides, self._paddings, strict=True))
            ]
            self._ready[chosen] = _Weights(self.head_weight[classes], self.head_bias[classes].unsqueeze(1), stages)
        return self._ready[chosen]


class _Weights(NamedTuple):
    """Of G classes: (G, d, h w C) and (G, 1, h w C) for the first maps, then the stages."""

    head: Tensor
    bias: Tensor
    stages: "list[_Stage]"


class _Stage:
    """A transposed convolution for G classes: maps (N, G * in, h, w) to (N, G * out, h', w'), all channels last."""

    def __init__(self, weight: Tensor, bias: Tensor, stride: tuple[int, ...], padding: tuple[int, ...]) -> None:
        """Take weight (G, in, out, k, k) and bias (G, out)."""
        self.groups = len(weight)
        self.weight, self.bias, self.stride, self.padding = weight.flatten(0, 1), bias.flatten(), stride, padding
        self.products = None
        if weight.shape[3:] == (1, 1) and stride == (1, 1) and padding == (0, 0):
            self.products = [(b, w[..., 0, 0]) for b, w in zip(bias, weight, strict=True)]

    def __call__(self, maps: Tensor) -> Tensor:
        if self.products is None:
            return F.conv_transpose2d(maps, self.weight, self.bias, self.stride, self.padding, groups=self.groups)
        # One matrix product per class: torch's convolution rounds differently in batches of less than 16.
        count, _, height, width = maps.shape
        parts = maps.permute(0, 2, 3, 1).reshape(count * height * width, self.groups, -1).unbind(1)
        mixed = [torch.addmm(bias, part, weight) for part, (bias, weight) in zip(parts, self.products, strict=True)]
        pixels = mixed[0] if len(mixed) == 1 else torch.stack(mixed, dim=1)
        return pixels.view(count, height, width, -1).permute(0, 3, 1, 2)


class _Order:
    """Rows sorted by class, and back; asking for the counts waits for a GPU, so it is done once."""

    def __init__(self, labels: Tensor, num_classes: int) -> None:
        self._labels, self._version = labels, -1 if labels.is_inference() else labels._version
        self.rows = labels.argsort(stable=True)
        self.back = self.rows.argsort()
        self.counts = labels.bincount(minlength=num_classes).tolist()

    def is_of(self, labels: Tensor) -> bool:
        return labels is self._labels and not labels.is_inference() and labels._version == self._version


def _channels_last(weight: Tensor) -> Tensor:
    """The same weight (G, in, out, k, k), in memory (G, in, k, k, out)."""
    return weight.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


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
