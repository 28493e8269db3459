"""Layers of BigGAN: convolutions, linear layers and embeddings under spectral norm, batch norms, attention, a block."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_MOMENTUM = 0.1
_COLUMNS = 7  # from so many columns on, the transposed convolution takes half the time; below, its weights take it


class SpectralWeight(nn.Module):
    """A layer that uses W / sigma, where sigma is what one power step from the stored u_0 says is W's largest singular value.

    With W as a matrix (out, rest),

        v = u_0 W / ||u_0 W||,   u = v W^T / ||v W^T||,   sigma = v W^T u^T,

    whose norms are at least ``sn_eps``. Gradients of W go through sigma, not through u and v. The step is done in eval mode
    too, always from the same u_0. In training u becomes u_0, and ``sv0`` keeps sigma.

    Source: Miyato et al. 2018, arXiv:1802.05957; buffers as in GitHub ajbrock/BigGAN-PyTorch.
    """

    weight: Tensor
    u0: Tensor
    sv0: Tensor
    sn_eps: float

    def add_power_step(self, sn_eps: float) -> None:
        """Add the buffers u_0 (1, out) and sigma (1,)."""
        self.sn_eps = sn_eps
        self.register_buffer("u0", torch.randn(1, len(self.weight)))
        self.register_buffer("sv0", torch.ones(1))

    def normalized_weight(self) -> Tensor:
        """W / sigma, in the shape of W."""
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            v = F.normalize(self.u0 @ matrix, eps=self.sn_eps)
        image = F.linear(v, matrix)
        u = F.normalize(image.detach(), eps=self.sn_eps)
        sigma = (image * u).sum()
        if self.training:
            with torch.no_grad():
                self.u0.copy_(u)
                self.sv0.fill_(sigma)
        return self.weight / sigma


class SNLinear(SpectralWeight, nn.Linear):
    """A linear layer under spectral norm."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, sn_eps: float = 1e-6) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.add_power_step(sn_eps)

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., in) to (..., out)."""
        return F.linear(features, self.normalized_weight(), self.bias)


class SNEmbedding(SpectralWeight, nn.Embedding):
    """A table of vectors under spectral norm."""

    def __init__(self, count: int, length: int, *, sn_eps: float = 1e-6) -> None:
        super().__init__(count, length)
        self.add_power_step(sn_eps)

    def forward(self, labels: Tensor) -> Tensor:
        """Labels (...) to vectors (..., length)."""
        return F.embedding(labels, self.normalized_weight())


class SNConv2d(SpectralWeight, nn.Conv2d):
    """A convolution of an odd kernel under spectral norm, which keeps the size of its maps.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        kernel: 3 or 1.
        bias: whether there is a bias.
        upsample: whether nearest-neighbour upsampling by 2 precedes.
        sn_eps: least norm of the power step.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, bias: bool = True, upsample: bool = False, sn_eps: float = 1e-6
    ) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
        self.upsample = upsample
        self.add_power_step(sn_eps)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, in, H, W) to (N, out, H, W), or (N, out, 2 H, 2 W) with ``upsample``."""
        weight = self.normalized_weight()
        if self.upsample:
            return convolve_upsampled(maps, weight, self.bias)
        return F.conv2d(maps, weight, self.bias, padding=self.kernel_size[0] // 2)


def convolve_upsampled(maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Nearest-neighbour upsampling by 2, then a convolution that keeps the size: (N, in, H, W) to (N, out, 2 H, 2 W).

    A 1 x 1 convolution may as well precede the upsampling. Upsampling and a 3 x 3 convolution are one transposed convolution
    with kernel 4 and stride 2, of less than half the products.

    Args:
        maps: (N, in, H, W).
        weight: (out, in, 3, 3) or (out, in, 1, 1).
        bias: (out,), or None.
    """
    if weight.shape[-1] == 1:
        return _upsampled(F.conv2d(maps, weight, bias))
    if maps.shape[-1] < _COLUMNS:
        return F.conv2d(_upsampled(maps), weight, bias, padding=1)
    return F.conv_transpose2d(maps, _spread(weight), bias, stride=2, padding=1)


def _upsampled(maps: Tensor) -> Tensor:
    return F.interpolate(maps, scale_factor=2.0, mode="nearest")


def _spread(weight: Tensor) -> Tensor:
    """The kernel (in, out, 4, 4) of the transposed convolution, from (out, in, 3, 3).

    Along an axis, value i of the input is the values 2 i and 2 i + 1 of the upsampled one. So it adds w[2], w[1] + w[2],
    w[0] + w[1] and w[0] times itself to the values 2 i - 1 .. 2 i + 2 of the output.
    """
    sums = weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
    both = torch.einsum("ar,bs->rsab", sums, sums).reshape(9, 16)
    outputs, inputs = weight.shape[:2]
    return (weight.transpose(0, 1).reshape(-1, 9) @ both).view(inputs, outputs, 4, 4)


class BatchNorm(nn.Module):
    """Batch norm of maps with scale g and shift b: (x - mean) / sqrt(var + eps) g + b.

    Mean and variance are those of the batch in training, and then the stored ones move towards them by a tenth.
    """

    stored_mean: Tensor
    stored_var: Tensor

    def __init__(self, channels: int, *, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def normalize(self, maps: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Maps (N, C, H, W), scale and shift (N or 1, C)."""
        if self.training:
            maps = F.batch_norm(maps, self.stored_mean, self.stored_var, None, None, True, _MOMENTUM, self.eps)
        else:  # one affine map instead of two
            scale = scale * (self.stored_var + self.eps).rsqrt()
            shift = shift - self.stored_mean * scale
        return torch.addcmul(shift[:, :, None, None], maps, scale[:, :, None, None])


class PlainBatchNorm(BatchNorm):
    """Batch norm whose scale ``gain`` and shift ``bias`` are learned."""

    def __init__(self, channels: int, *, eps: float) -> None:
        super().__init__(channels, eps=eps)
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H, W) to maps of the same shape."""
        return self.normalize(maps, self.gain[None], self.bias[None])


class ConditionalBatchNorm(BatchNorm):
    """Batch norm with scale 1 + gain(c) and shift bias(c) for a condition c.

    Args:
        channels: C.
        condition: length of the condition, which two linear layers under spectral norm take; None for a label, which two
            embeddings without spectral norm take.
        num_classes: K, rows of these embeddings.
        eps: least variance.
        sn_eps: least norm of the power step.
    """

    def __init__(self, channels: int, condition: int | None, num_classes: int, *, eps: float, sn_eps: float) -> None:
        super().__init__(channels, eps=eps)
        self.gain, self.bias = (
            nn.Embedding(num_classes, channels)
            if condition is None
            else SNLinear(condition, channels, bias=False, sn_eps=sn_eps)
            for _ in range(2)
        )

    def forward(self, maps: Tensor, condition: Tensor) -> Tensor:
        """Maps (N, C, H, W), each with its condition (N, length) or its label (N,), to maps of the same shape."""
        return self.normalize(maps, 1 + self.gain(condition), self.bias(condition))


class Attention(nn.Module):
    """Self-attention: maps plus gamma times what each place takes from all others, which are pooled 2 x 2.

    With 1 x 1 convolutions theta, phi (C -> C / 8), g (C -> C / 2) and o (C / 2 -> C),

        x + gamma o(softmax(theta(x)^T phi(x)) g(x)).

    Source: Zhang et al. 2019, arXiv:1805.08318.
    """

    def __init__(self, channels: int, *, sn_eps: float) -> None:
        super().__init__()
        few, half = channels // 8, channels // 2
        self.theta, self.phi = (SNConv2d(channels, few, 1, bias=False, sn_eps=sn_eps) for _ in range(2))
        self.g = SNConv2d(channels, half, 1, bias=False, sn_eps=sn_eps)
        self.o = SNConv2d(half, channels, 1, bias=False, sn_eps=sn_eps)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H, W) with H and W even to maps of the same shape."""
        asked, offered, taken = (
            part.flatten(2).transpose(1, 2)  # one row for each place
            for part in (self.theta(maps), F.max_pool2d(self.phi(maps), 2), F.max_pool2d(self.g(maps), 2))
        )
        # Fused attention has no second derivative, which unrolled gradients need.
        mixed = ((asked @ offered.transpose(1, 2)).softmax(-1) @ taken).transpose(1, 2).unflatten(2, maps.shape[2:])
        attended: Tensor = maps + self.gamma * self.o(mixed)
        return attended


class DownBlock(nn.Module):
    """A block of a discriminator: ReLU (not in the first block), convolution, ReLU, convolution, perhaps the mean of 2 x 2.

    The result is added to the input, which is convolved too if the block halves the size or changes the number of channels.
    """

    def __init__(self, before: int, after: int, *, halved: bool, first: bool, sn_eps: float) -> None:
        super().__init__()
        self.halved, self.first = halved, first
        self.conv1 = SNConv2d(before, after, 3, sn_eps=sn_eps)
        self.conv2 = SNConv2d(after, after, 3, sn_eps=sn_eps)
        self.conv_sc = SNConv2d(before, after, 1, sn_eps=sn_eps) if halved or before != after else None

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, before, H, W) to (N, after, H, W), or half as high and wide."""
        inner: Tensor = self.conv2(self.conv1(maps if self.first else maps.relu()).relu())
        beside = maps if self.conv_sc is None else self.conv_sc(self._halve(maps))  # the mean and a 1 x 1 convolution commute
        return self._halve(inner) + beside

    def _halve(self, maps: Tensor) -> Tensor:
        return F.avg_pool2d(maps, 2) if self.halved else maps


def orthogonal_start(network: nn.Module) -> None:
    """Give all convolutions, linear layers and embeddings orthogonal weights, as the paper does.

    Source: Brock et al. 2019, arXiv:1809.11096.
    """
    for part in network.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear, nn.Embedding)) and not part.weight.is_meta:
            nn.init.orthogonal_(part.weight)
