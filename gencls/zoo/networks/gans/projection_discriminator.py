"""The projection discriminator of a conditional GAN, with spectral normalisation."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from gencls.core.errors import GenclsError
from gencls.core.settings import checked
from gencls.zoo.networks.gans.self_modulated import halvings


class ProjectionDiscriminator(nn.Module):
    """D(x, y) = <e_y, phi(x)> + psi(phi(x)): high for real images of their class.

    The features phi are those of residual blocks, summed over all pixels. Every layer has spectral norm 1. A first convolution
    halves the size; each block but the last halves it once more.

    Sources: Miyato & Koyama 2018, arXiv:1802.05637, eq. 7 and Figure 14; spectral normalisation (Miyato et al. 2018,
    arXiv:1802.05957). Their first block has two convolutions at full size; here it is one with stride 2, which costs an eighth.

    Args:
        num_classes: K.
        width: channels after the first convolution; twice as many from the first halving on, at most four times.
        image_shape: (C, H, W) of the images, as the generator's.
        auxiliary: whether there is a linear layer to class scores besides, as in AC-GAN (Odena et al. 2017, arXiv:1610.09585).

    Raises:
        GenclsError: for a size below 1, or images that do not halve as the generator's.
    """

    @checked
    def __init__(self, *, num_classes: int, width: int = 32, image_shape: Sequence[int], auxiliary: bool = False) -> None:
        super().__init__()
        if min(num_classes, width) < 1:
            raise GenclsError(
                f"ProjectionDiscriminator: expected num_classes and width of at least 1, got {num_classes} and {width}"
            )
        self.num_classes, self.image_shape, self.auxiliary = num_classes, tuple(image_shape), auxiliary
        _, count = halvings(self.image_shape)
        channels = [width * min(2**level, 4) for level in range(count)]
        self.first = _normal(nn.Conv2d(self.image_shape[0], width, 4, 2, 1))
        self.blocks = nn.ModuleList(
            [
                *(_Block(before, after, down=True) for before, after in zip(channels[:-1], channels[1:], strict=True)),
                _Block(channels[-1], channels[-1], down=False),
            ]
        )
        self.head = _normal(nn.Linear(channels[-1], 1))
        self.classes = _normal(nn.Embedding(num_classes, channels[-1]))
        self.scores = _normal(nn.Linear(channels[-1], num_classes)) if auxiliary else None

    def features(self, images: Tensor) -> Tensor:
        """phi(x) of images (N, C, H, W) in [0, 1]: (N, d), at least 0."""
        maps = self.first(2 * images - 1)
        for block in self.blocks:
            maps = block(maps)
        return F.relu(maps).sum((2, 3))

    def judge(self, features: Tensor, labels: Tensor) -> Tensor:
        """D of features phi(x), (N, d), and labels, int64 (N,): (N,)."""
        judged: Tensor = self.head(features).squeeze(1) + (self.classes(labels) * features).sum(1)
        return judged

    def classify(self, features: Tensor) -> Tensor:
        """The auxiliary head: scores (N, K) of features phi(x), (N, d).

        Raises:
            GenclsError: without such a head.
        """
        if self.scores is None:
            raise GenclsError("ProjectionDiscriminator: expected auxiliary=True for class scores, got False")
        scores: Tensor = self.scores(features)
        return scores

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] and int64 labels (N,) to D(x, y), (N,)."""
        return self.judge(self.features(images), labels)


def _normal(layer: nn.Module) -> nn.Module:
    """Give a layer spectral norm 1; the matrix of a convolution has a row for each output channel."""
    weight = layer.get_parameter("weight")
    nn.init.xavier_uniform_(weight)
    if isinstance(bias := getattr(layer, "bias", None), Tensor):
        nn.init.zeros_(bias)
    return spectral_norm(layer)


class _Block(nn.Module):
    """ReLU, convolution, ReLU, convolution; beside it, if the size is halved, the mean of 2 x 2 and a convolution of 1 x 1."""

    def __init__(self, inputs: int, outputs: int, *, down: bool) -> None:
        super().__init__()
        self.down = down
        self.conv1 = _normal(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.conv2 = _normal(nn.Conv2d(outputs, outputs, 4, 2, 1) if down else nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = _normal(nn.Conv2d(inputs, outputs, 1)) if down else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.conv2(F.relu(self.conv1(F.relu(maps))))
        beside: Tensor = self.skip(F.avg_pool2d(maps, 2) if self.down else maps)
        return out + beside
