"""The generator of a conditional GAN whose blocks all see the latent code: self-modulation."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core.errors import GenclsError
from gencls.core.generator import BlockwiseGenerator, Latents, check_classes
from gencls.core.settings import checked
from gencls.zoo.networks.gans.biggan_layers import convolve_upsampled

_HIDDEN = 32
"""Hidden neurons between a code and the gains and biases of a batch norm (Chen et al. 2019, section 3)."""

_SMALLEST = 8
"""The first feature map is smaller than this: 4 pixels for images of 32, 7 for images of 28."""


class SelfModulatedGenerator(BlockwiseGenerator):
    """G(z, y): a linear layer, residual blocks that double the size, and a convolution with a sigmoid.

    Each batch norm takes its gains and biases from the code of its block,

        gamma(z') BN(h) + beta(z'),        z' = z + E(y) + E'(y) * z,

    with gamma and beta small networks of one hidden layer and E, E' embeddings of the class. The first layer takes the code
    alone, the last batch norm the code of the last block.

    Sources: self-modulation (Chen et al. 2019, arXiv:1810.01365, section 2); residual blocks as in the generator of Miyato &
    Koyama 2018, arXiv:1802.05637. The thesis (section 3.3) names both. Theirs have equally many channels everywhere; here each
    block halves them.

    Args:
        num_classes: K.
        latent_dim: length of the codes.
        width: channels of the last block; each block before it has twice as many as the one after it.
        image_shape: (C, H, W) of the images; H = W, 28 and 32 for instance: halved until it is smaller than 8.

    Raises:
        GenclsError: for a size below 1, or images that are not square or cannot be halved so often.
    """

    @checked
    def __init__(self, *, num_classes: int, latent_dim: int = 64, width: int = 16, image_shape: Sequence[int]) -> None:
        super().__init__()
        if min(num_classes, latent_dim, width) < 1:
            raise GenclsError(
                "SelfModulatedGenerator: expected num_classes, latent_dim and width of at least 1, got "
                f"{num_classes}, {latent_dim} and {width}"
            )
        self.num_classes, self.latent_dim = num_classes, latent_dim
        self.image_shape = tuple(image_shape)
        self.start, self.num_blocks = halvings(self.image_shape)
        self.latent_shapes = (torch.Size([latent_dim]),)
        channels = [width * 2**level for level in range(self.num_blocks, -1, -1)]
        self.first = nn.Linear(latent_dim, channels[0] * self.start**2)
        self.shift = nn.Embedding(num_classes, latent_dim)
        self.scale = nn.Embedding(num_classes, latent_dim)
        self.blocks = nn.ModuleList(
            _UpBlock(before, after, latent_dim) for before, after in zip(channels[:-1], channels[1:], strict=True)
        )
        self.norm = _ModulatedNorm(channels[-1], latent_dim)
        self.last = nn.Conv2d(channels[-1], self.image_shape[0], 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for norm in self.modules():
            if isinstance(norm, _ModulatedNorm):
                norm.start_plain()
        nn.init.normal_(self.scale.weight, std=0.02)

    def decode_codes(self, codes: Latents, labels: Tensor) -> Tensor:
        """Decode M images from codes (M, latent_dim), of the first layer and of each block, and int64 labels (M,).

        Raises:
            GenclsError: for another number of codes than ``1 + num_blocks``, codes of another shape, or a label that is none of
                the K classes. Labels on a GPU are not read: each step of an inversion would wait for it.
        """
        if len(codes) != 1 + self.num_blocks:
            raise GenclsError(
                f"SelfModulatedGenerator: expected {1 + self.num_blocks} codes, of the first layer and of {self.num_blocks} "
                f"blocks, got {len(codes)}"
            )
        expected, shapes = (len(codes[0]), self.latent_dim), dict.fromkeys(tuple(code.shape) for code in codes)
        if [*shapes] != [expected]:
            raise GenclsError(f"SelfModulatedGenerator: expected codes of shape {expected}, got {', '.join(map(str, shapes))}")
        check_classes(self, labels, len(codes[0]), wait=False)
        shift, scale = self.shift(labels), 1 + self.scale(labels)
        maps = self.first(codes[0]).view(len(labels), -1, self.start, self.start)
        if maps.device.type == "cpu":  # its convolutions prefer channels next to each other
            maps = maps.contiguous(memory_format=torch.channels_last)
        modulated = codes[-1]
        for block, code in zip(self.blocks, codes[1:], strict=True):
            modulated = shift + scale * code
            maps = block(maps, modulated)
        images: Tensor = self.last(F.relu(self.norm(maps, modulated))).contiguous()
        return torch.sigmoid(images)


def halvings(image_shape: Sequence[int]) -> tuple[int, int]:
    """The size of the smallest feature map of images (C, H, W), and how often their size is halved until it is reached.

    Raises:
        GenclsError: for images that are not square or cannot be halved so often.
    """
    shape = tuple(image_shape)
    size, count = shape[-1] if shape else 0, 0
    while size >= _SMALLEST and size % 2 == 0:
        size, count = size // 2, count + 1
    if len(shape) != 3 or min(shape) < 1 or shape[1] != shape[2] or size >= _SMALLEST or count == 0:
        raise GenclsError(
            f"expected image_shape (C, H, W) with H = W that halves to less than {_SMALLEST} pixels, as 28 and 32 do, "
            f"got {shape}"
        )
    return size, count


class _ModulatedNorm(nn.Module):
    """Batch norm whose gains and biases come from a code."""

    def __init__(self, channels: int, latent_dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.hidden = nn.Linear(latent_dim, _HIDDEN)
        self.gain_and_bias = nn.Linear(_HIDDEN, 2 * channels)

    def start_plain(self) -> None:
        """Begin with gains around 1 and biases around 0."""
        with torch.no_grad():
            self.gain_and_bias.bias.chunk(2)[0].fill_(1.0)

    def forward(self, maps: Tensor, code: Tensor) -> Tensor:
        gain, bias = self.gain_and_bias(F.relu(self.hidden(code)))[..., None, None].chunk(2, 1)
        return torch.addcmul(bias, gain, self.norm(maps))


class _UpBlock(nn.Module):
    """Norm, ReLU, doubling, convolution, norm, ReLU, convolution; beside it doubling and a convolution of one pixel."""

    def __init__(self, inputs: int, outputs: int, latent_dim: int) -> None:
        super().__init__()
        self.norm1 = _ModulatedNorm(inputs, latent_dim)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = _ModulatedNorm(outputs, latent_dim)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, maps: Tensor, code: Tensor) -> Tensor:
        out = convolve_upsampled(F.relu(self.norm1(maps, code)), self.conv1.weight, self.conv1.bias)
        inner: Tensor = self.conv2(F.relu(self.norm2(out, code)))
        return inner + convolve_upsampled(maps, self.skip.weight, self.skip.bias)
