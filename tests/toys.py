"""Small models with known answers, shared by the tests."""

import warnings
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from gencls.core import BlockwiseGenerator, ClassConditionalGenerator, Defense, MultiLatentModel, seeded


class LinearGaussian(ClassConditionalGenerator):
    """G_k(z) = A_k z + b_k, not clamped to [0, 1]: every inner minimum has a closed form."""

    def __init__(self, num_classes, image_shape, latent_size, *, dtype=torch.float64, scale=0.3, seed=0):
        super().__init__()
        self.num_classes = num_classes
        self.image_shape = tuple(image_shape)
        self.latent_shapes = (torch.Size([latent_size]),)
        pixels = torch.Size(image_shape).numel()
        source = torch.Generator().manual_seed(seed)
        matrix = scale * torch.randn(num_classes, pixels, latent_size, generator=source, dtype=torch.float64)
        offset = torch.rand(num_classes, pixels, generator=source, dtype=torch.float64)
        self.register_buffer("matrix", matrix.to(dtype))
        self.register_buffer("offset", offset.to(dtype))

    def forward(self, latents, labels):
        flat = torch.einsum("mpd,md->mp", self.matrix[labels], latents[0]) + self.offset[labels]
        return flat.view(-1, *self.image_shape)


class SigmoidDecoders(ClassConditionalGenerator):
    """Sigmoid of a linear map: images in (0, 1). The weights are parameters."""

    def __init__(self, num_classes=4, image_shape=(1, 8, 8), latent_size=3, seed=0):
        super().__init__()
        self.num_classes = num_classes
        self.image_shape = tuple(image_shape)
        self.latent_shapes = (torch.Size([latent_size]),)
        source = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(num_classes, latent_size, torch.Size(image_shape).numel(), generator=source))

    def forward(self, latents, labels):
        return torch.bmm(latents[0].unsqueeze(1), self.weight[labels]).sigmoid().view(-1, *self.image_shape)


class LinearBlocks(BlockwiseGenerator):
    """G_k(c_0, ..., c_B) = sum_i A_ki c_i + b_k, with B blocks and b_k in [0, 1], not clamped to [0, 1] unless ``clamp``.

    With ``clamp`` it is the sigmoid of this, with any b_k. The weights are parameters.
    """

    def __init__(self, num_classes=4, image_shape=(1, 8, 8), latent_size=3, blocks=2, *, clamp=True, scale=1.0, seed=0):
        super().__init__()
        self.num_classes, self.num_blocks, self.clamp = num_classes, blocks, clamp
        self.image_shape = tuple(image_shape)
        self.latent_shapes = (torch.Size([latent_size]),)
        source, pixels = torch.Generator().manual_seed(seed), torch.Size(image_shape).numel()
        self.weight = nn.Parameter(scale * torch.randn(1 + blocks, num_classes, pixels, latent_size, generator=source))
        bias = scale * torch.randn(num_classes, pixels, generator=source)
        self.bias = nn.Parameter(bias if clamp else torch.rand(num_classes, pixels, generator=source))

    def decode_codes(self, codes, labels):
        # One sum per pixel, whose rounding does not depend on the number of codes.
        parts = ((matrix[labels] * code.unsqueeze(1)).sum(2) for matrix, code in zip(self.weight, codes, strict=True))
        flat = sum(parts) + self.bias[labels]
        return (flat.sigmoid() if self.clamp else flat).view(-1, *self.image_shape)


class MeanRowsPixels(MultiLatentModel):
    """Three levels, linear and Gaussian, for images of any size: mean of a channel, means of its rows, pixels.

    The encoder gives orthogonal parts of x - 1/2 that add up to it, so mixing by alphas has the Jacobian
    sum_i (1 - a_i) P_i with the projections P_i; sampled codes are N(0, sigma^2).
    """

    num_levels = 3

    def __init__(self, sigma=0.1, *, clamp=True):
        super().__init__()
        self.sigma = sigma
        self.clamp = clamp
        self._encoded = 0  # images, counted

    def encode_once(self, images):
        self._encoded += len(images)
        rows = images.mean(dim=3, keepdim=True)
        mean = rows.mean(dim=2, keepdim=True)
        return mean - 0.5, rows - mean, images - rows

    @property
    def encoded(self):
        return self._encoded

    def __getstate__(self):
        return {**self.__dict__, "_encoded": 0}  # keys leave the count out

    def decode_mixed(self, encoded, mix):
        image = 0.5 + sum(mix(level, code, self.sigma * torch.randn_like(code)) for level, code in enumerate(encoded))
        return image.clamp(0, 1) if self.clamp else image


class NoisyRows(nn.Module):
    """Row means plus pixel noise, for images of any size, as the network of A-VAE and of ND-VAE."""

    def __init__(self, sigma=0.1):
        super().__init__()
        self.sigma = sigma

    def encode(self, images):
        return (0.5 * images + 0.5 * images.mean(dim=3, keepdim=True),)

    def noise(self, encoded):
        return (torch.randn_like(encoded[0]),)

    def decode(self, encoded, noise, *, temperature):
        return (encoded[0] + temperature * self.sigma * noise[0]).clamp(0, 1)

    def forward(self, images):
        encoded = self.encode(images)
        return self.decode(encoded, self.noise(encoded), temperature=1.0)


class SigmoidGenerator(nn.Module):
    """Sigmoid of a linear map, latents (M, 3) to images (M, 1, 8, 8); the weights are parameters."""

    def __init__(self, seed=0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 64, generator=torch.Generator().manual_seed(seed)))

    def forward(self, latents):
        # One sum per pixel, whose rounding does not depend on the number of latents, as that of a matrix product does.
        return (latents.unsqueeze(2) * self.weight).sum(1).sigmoid().view(-1, 1, 8, 8)


class NoisyLogits(Defense):
    """A classifier with Gaussian noise on its scores."""

    stochastic = True

    def __init__(self, classifier, sigma, num_classes=4):
        super().__init__()
        self.classifier = classifier
        self.sigma = sigma
        self.num_classes = num_classes
        self.eval()

    def forward(self, images):
        scores = self.classifier(images)
        return scores + self.sigma * torch.randn_like(scores)


class Linear(nn.Module):
    """Scores W x + c on flattened images: margins and optimal perturbations have closed forms."""

    def __init__(self, weight, offset):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("offset", offset)

    def forward(self, images):
        return images.flatten(1) @ self.weight.T + self.offset


class Rescaled(nn.Module):
    """Scores of another model times a number plus a number."""

    def __init__(self, model, *, scale=1.0, shift=0.0):
        super().__init__()
        self.model = model
        self.scale = scale
        self.shift = shift

    def forward(self, images):
        return self.scale * self.model(images) + self.shift


def small_cnn(num_classes=4, channels=1, seed=0):
    """A random network for images of 8 x 8 pixels, in eval mode; its decisions vary from image to image."""
    with seeded(seed):
        network = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 3 * 3, num_classes),
        )
        for parameter in network.parameters():
            parameter.data.mul_(2.0)
        network[-1].bias.data.zero_()
    return network.eval()


class Pyramid(MultiLatentModel):
    """Of images (N, C, 28, 28) four levels: 2 x 2 means, and what each next size adds. Samples are noise. It costs nothing."""

    num_levels = 4
    sizes = (2, 4, 14, 28)

    def encode_once(self, images):
        small = [functional.adaptive_avg_pool2d(images, size) for size in self.sizes]
        added = (after - functional.interpolate(before, after.shape[-1]) for before, after in pairwise(small))
        return small[0], *added

    def decode_mixed(self, encoded, mix):
        image = torch.zeros_like(encoded[0])
        for level, (size, code) in enumerate(zip(self.sizes, encoded, strict=True)):
            image = functional.interpolate(image, size) + mix(level, code, 0.2 * torch.randn_like(code))
        return image.clamp(0, 1)


def scores_under_lightning(defense, images):
    """Scores from the test step of a LightningModule, batches of 3: Lightning runs it in inference mode."""
    import lightning

    class Scores(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.defense = defense
            self.seen = []

        def test_step(self, batch, index):
            assert torch.is_inference_mode_enabled()
            self.seen.append(self.defense(batch).clone())

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    module = Scores()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of Lightning's own use of torch
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        warnings.filterwarnings("ignore", message=".*GPU available but not used")
        lightning.Trainer(accelerator="cpu", **quiet).test(module, DataLoader(images, batch_size=3), verbose=False)
    return torch.cat(module.seen)
