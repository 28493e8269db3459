"""The K decoders of ABS as one network: grouped transposed convolutions with batch norm folded in."""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gencls.core.errors import GenclsError
from gencls.core.generator import ClassConditionalGenerator, Latents
from gencls.zoo.networks.abs.class_conditional_autoencoder import ClassDecoders
from gencls.zoo.networks.abs.conv_decoder import ConvDecoder
from gencls.zoo.networks.abs.decoder_layers import Activation, Layer, Pointwise, activate, channels_last, layers_of

# With this many images a few classes at a time keep a CPU busy, and take less time.
_FULL = 12
# This many selections of classes keep their weights in memory.
_KEPT = 200
# Matrix products of fewer rows may take another kernel, which rounds differently.
_ROWS = 16


class DecoderStage(NamedTuple):
    """A transposed convolution of one decoder, with what follows it."""

    conv: nn.ConvTranspose2d
    norm: nn.BatchNorm2d | None
    activation: Activation


class GroupedDecoders(ClassConditionalGenerator):
    """K trained decoders of equal layout, evaluated together.

    Inference by optimisation decodes one latent per class in every step. One transposed convolution with K groups does this for
    all classes at once. Batch norm in eval mode is an affine map and disappears into the weights. So does the linear layer in
    front, since a transposed convolution of a 1 x 1 map is linear. All maps lie in memory channels last, which the convolutions
    of CPUs prefer. docs/performance.md has the times.

    An image is decoded to the same bits in a batch of any size (x86 CPU). This matters because inference amplifies: after
    50 Adam steps, differences of the last bit in the images had become 7e-4 of a score.

    The weights are buffers: nothing here can be trained, and no backward pass computes gradients of weights. Load a state dict
    to change them, or write under ``no_grad``. Writes through ``.data``, which torch does not count, stay unnoticed: to look
    for them in every step would cost too much. Latents are one level of length d with a standard normal prior; ``log_prior``
    is -||z||^2 / 2, without the constant.

    Args:
        stages: the stages of the decoder of each of the K classes; the first stage acts on a 1 x 1 map.
        linears: for each class a linear layer from the latent to the depth of the first stage. With None the first stage takes
            the latent itself.

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
        self._ready: dict[tuple[int, ...], _Weights] = {}
        self._made_of: list[tuple[Tensor, int]] = []
        for index, layers in enumerate(rest):
            folded = [_fold(stage) for stage in layers]
            self.register_buffer(f"weight_{index}", channels_last(torch.stack([weight for weight, _ in folded]).to(dtype)))
            self.register_buffer(f"bias_{index}", torch.stack([bias for _, bias in folded]).to(dtype))

    @classmethod
    def from_decoders(cls, decoders: ClassDecoders) -> Self:
        """Fold K trained decoders, as they are in eval mode. They do not change, and are not needed any more."""
        parts = [decoders[k] for k in range(decoders.num_classes)]
        return cls([_stages(part) for part in parts], linears=[part.linear for part in parts])

    def decode_all(self, latents: Latents) -> Tensor:
        """One latent per class for each of N images, one level (N, K, d), to images (N, K, C, H, W) in [0, 1], in one pass."""
        (codes,) = latents
        classes = tuple(range(self.num_classes))
        if codes.device.type != "cpu" or len(codes) < _FULL:
            return self._decode(codes.transpose(0, 1), classes)
        images = [self._decode(codes[:, some].transpose(0, 1), classes[some]) for some in _few(self.num_classes)]
        return torch.cat(images, dim=1)

    def forward(self, latents: Latents, labels: Tensor) -> Tensor:
        """M latents, one level (M, d), each for the class of its label (M,), to images (M, C, H, W) in [0, 1]."""
        (codes,) = latents
        if self._order is None or not self._order.is_of(labels):  # a descent asks for the same classes at every step
            with torch.inference_mode(False):  # a backward pass may ask for its indices later
                self._order = _Order(labels.clone() if labels.is_inference() else labels, self.num_classes)
        images = [self._decode(codes[rows], classes).flatten(0, 1) for classes, rows in self._order.parts]
        return torch.cat(images)[self._order.back]

    def __getstate__(self) -> dict[str, Any]:
        """Keep the weights alone in copies and files, not what was made of them."""
        return {**self.__dict__, "_order": None, "_ready": {}, "_made_of": []}

    def extra_repr(self) -> str:
        """The layout."""
        return f"strides={self._strides}, paddings={self._paddings}, activations={self._activations}"

    def _decode(self, codes: Tensor, chosen: tuple[int, ...]) -> Tensor:
        """Codes (G, N, d) of the chosen classes to images (N, G, C, H, W)."""
        head, bias, layers = self._weights(chosen)
        (groups, count, _), (channels, height, width) = codes.shape, self._head_shape
        pixels: Tensor = torch.baddbmm(bias, F.pad(codes, (0, 0, 0, -count % _ROWS)), head)[:, :count]
        # (G, N, h w C) to (N, G C, h, w), which is (N, h, w, G, C) in memory.
        pixels = pixels.view(groups, count, height, width, channels).permute(1, 2, 3, 0, 4)
        maps = pixels.reshape(count, height, width, -1).permute(0, 3, 1, 2)
        maps = activate(self._activations[0], maps)
        for layer, activation in zip(layers, self._activations[1:], strict=True):
            maps = activate(activation, layer(maps), in_place=not isinstance(layer, Pointwise))
        return maps.view(count, groups, -1, *maps.shape[2:]).contiguous()

    def _weights(self, chosen: tuple[int, ...]) -> "_Weights":
        """The weights of the chosen classes, ready for use."""
        made_of = [
            (tensor, 0 if tensor.is_inference() else tensor._version) for tensor in self._buffers.values() if tensor is not None
        ]
        pairs = zip(made_of, self._made_of, strict=False)
        same = all(tensor is old and version == old_version for (tensor, version), (old, old_version) in pairs)
        if not same or len(made_of) != len(self._made_of):
            self._ready, self._made_of = {}, made_of  # the module has been moved or copied, or has other weights
        if chosen not in self._ready:
            if len(self._ready) >= _KEPT:
                self._ready.clear()
            with torch.inference_mode(False):  # or nothing could be differentiated through them later
                self._ready[chosen] = self._select(list(chosen))
        return self._ready[chosen]

    def _select(self, classes: list[int]) -> "_Weights":
        chosen = [
            (self.get_buffer(f"weight_{i}")[classes], self.get_buffer(f"bias_{i}")[classes]) for i in range(len(self._strides))
        ]
        layers = layers_of(chosen, self._strides, self._paddings, width=self._head_shape[2])
        return _Weights(self.head_weight[classes], self.head_bias[classes].unsqueeze(1), layers)


class _Weights(NamedTuple):
    """Weights of G classes: (G, d, h w C) and (G, 1, h w C) for the first maps, then the layers."""

    head: Tensor
    bias: Tensor
    layers: list[Layer]


class _Order:
    """The rows to decode together, a few classes at a time. It is made once, because asking for counts waits for a GPU."""

    def __init__(self, labels: Tensor, num_classes: int) -> None:
        self._labels, self._version = labels, -1 if labels.is_inference() else labels._version
        rows = labels.argsort(stable=True).split(labels.bincount(minlength=num_classes).tolist())
        # Classes with about as many rows stand together, filled up to equally many.
        present = sorted((k for k in range(num_classes) if len(rows[k])), key=lambda k: len(rows[k]))
        self.parts: list[tuple[tuple[int, ...], Tensor]] = []
        """Classes (G,) and their rows (G, M)."""
        for some in _few(len(present)):
            classes = present[some]
            groups = [rows[k] for k in classes]
            if len(classes) == 1 and len(groups[0]) > 1:
                classes, groups = classes * 2, [groups[0][first::2] for first in (0, 1)]
            most = max(map(len, groups))
            filled = torch.stack([torch.cat([group, group[:1].expand(most - len(group))]) for group in groups])
            self.parts.append((tuple(classes), filled))
        decoded = torch.cat([group.T.flatten() for _, group in self.parts])
        self.back = torch.empty_like(labels).scatter_(0, decoded, torch.arange(len(decoded), device=labels.device))

    def is_of(self, labels: Tensor) -> bool:
        return labels is self._labels and not labels.is_inference() and labels._version == self._version


def _few(count: int) -> list[slice]:
    """Pair the classes; an odd number ends with three. For a single group a CPU takes other, slower kernels."""
    edges = [*range(0, max(1, count - 1), 2), count]
    return [slice(first, last) for first, last in zip(edges, edges[1:], strict=False)]


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
