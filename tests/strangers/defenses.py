"""Defenses as strangers write them: their randomness and their state in every place where one can be hidden."""

import itertools
import random
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tests.toys import small_cnn


class Stranger(nn.Module):
    """A network for 8 x 8 images behind something of its own."""

    stochastic = False

    def __init__(self, network=None):
        super().__init__()
        self.network = small_cnn() if network is None else network
        self.eval()

    @classmethod
    def plain(cls):
        """The network alone."""
        return small_cnn().eval()


class ResizeAndPad(Stranger):
    """One size per call (Xie et al. 2018, arXiv:1711.01991), from a scalar draw of one of several generators."""

    def __init__(self, source, network=None, smallest=5):
        super().__init__(network)
        self.source, self.smallest = source, smallest

    def forward(self, images):
        side = images.shape[-1]
        size = self.smallest + int(SOURCES[self.source]() * (side + 1 - self.smallest))
        left = (side - size) // 2
        small = functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
        return self.network(functional.pad(small, (left, side - size - left, left, side - size - left)))


SOURCES = {
    "torch scalar": lambda: torch.rand(()).item(),
    "torch one": lambda: torch.rand(1).item(),
    "torch three": lambda: torch.rand(3)[0].item(),  # as many as the images of a probe
    "torch randint": lambda: torch.randint(0, 997, (1,)).item() / 997,
    "torch randperm": lambda: torch.randperm(997)[0].item() / 997,
    "numpy": lambda: np.random.rand(),
    "python": random.random,
    "python choice": lambda: random.choice(range(997)) / 997,
}


class OneOfFive(Stranger):
    """One network of an ensemble per call."""

    def __init__(self, networks=None):
        super().__init__()
        self.networks = nn.ModuleList(networks or [small_cnn(seed=seed) for seed in range(5)]).eval()

    def forward(self, images):
        return self.networks[int(torch.randint(5, (1,)))](images)


ENTRIES = {
    "first": lambda images: torch.rand(len(images))[0] < 0.7,
    "last pixel": lambda images: torch.randn_like(images)[-1].sum() < 0,
    "mean": lambda images: torch.rand(len(images)).mean() < 0.5,
    "integer": lambda images: bool(torch.randint(0, 2, (len(images),))[0]),
}
"""A draw with an entry for each image, of which one or all serve the whole batch."""


class OneEntry(Stranger):
    """One of two networks per call."""

    def __init__(self, entry):
        super().__init__()
        self.other, self.entry = small_cnn(seed=1).eval(), entry

    def forward(self, images):
        return (self.network if ENTRIES[self.entry](images) else self.other)(images)


class Guard(Stranger):
    """Tosses a coin of its own where the two best classes are close."""

    def __init__(self, seed=0):
        super().__init__()
        self.generator = np.random.default_rng(seed)

    def forward(self, images):
        scores = self.network(images)
        best = scores.topk(2, dim=1).values
        unsure = best[:, 0] - best[:, 1] < 0.02
        coin = torch.from_numpy(self.generator.random(len(images)) < 0.5)
        return torch.where((unsure & coin).view(-1, 1), scores.roll(1, dims=1), scores)


class RandomRotation(Stranger):
    """One random angle per call."""

    def forward(self, images):
        angle = (torch.rand(1) - 0.5) * 1.6
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(1)
        theta = torch.stack([torch.cat([cos, -sin, zero]), torch.cat([sin, cos, zero])]).expand(len(images), 2, 3)
        grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
        return self.network(functional.grid_sample(images, grid, align_corners=False))


class PartlyShared(Stranger):
    """Noise per image, of a size that one draw decides for the whole batch."""

    def forward(self, images):
        return self.network(images + torch.rand(1) * torch.randn_like(images))


class OwnGenerator(Stranger):
    """A torch.Generator of its own."""

    def __init__(self, network=None):
        super().__init__(network)
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, images):
        return self.network(images + 0.5 * torch.randn(images.shape, generator=self.generator))


class OwnNumpy(Stranger):
    """A numpy Generator of its own; one of five networks per call."""

    def __init__(self):
        super().__init__()
        self.networks = nn.ModuleList(small_cnn(seed=seed) for seed in range(5)).eval()
        self.generator = np.random.default_rng(3)

    def forward(self, images):
        return self.networks[self.generator.integers(5)](images)


class Counter(Stranger):
    """Another network at every second call."""

    def __init__(self):
        super().__init__()
        self.other = small_cnn(seed=1).eval()
        self.calls = itertools.count()

    def forward(self, images):
        return (self.other if next(self.calls) % 2 else self.network)(images)


class LateCounter(Stranger):
    """Another network after the first forty calls, which no look at the beginning shows."""

    def __init__(self):
        super().__init__()
        self.other = small_cnn(seed=1).eval()
        self.calls = itertools.count()

    def forward(self, images):
        return (self.other if next(self.calls) > 40 else self.network)(images)


class Clock(Stranger):
    """Noise from the time."""

    def forward(self, images):
        noise = torch.Generator().manual_seed(time.perf_counter_ns())
        return self.network(images + 0.5 * torch.randn(images.shape, generator=noise))


class SeedsItself(Stranger):
    """The same noise at every call."""

    def forward(self, images):
        torch.manual_seed(0)
        return self.network(images + 0.3 * torch.randn(1, *images.shape[1:]))


class SeedsItselfPerRow(Stranger):
    """The same noise at every call, another one for each place in the batch."""

    def forward(self, images):
        torch.manual_seed(0)
        return self.network(images + 0.3 * torch.randn_like(images))


class SeedsNumpy(Stranger):
    """The same, by numpy."""

    def forward(self, images):
        np.random.seed(0)
        return self.network(images + 0.3 * torch.from_numpy(np.random.randn(*images.shape[1:])).float())


class DrawsForNothing(Stranger):
    """Draws that change no score."""

    def forward(self, images):
        return self.network(images) + 0.0 * torch.randn(len(images), 1) + 0 * random.random()


class SometimesRandom(Stranger):
    """Noise only where the first pixel is bright: a handful of dark images shows none."""

    def forward(self, images):
        noise = 3.0 * torch.randn_like(images) * (images[:, :1, :1, :1] > 0.9)
        return self.network(images + noise)


class BatchNormOfTheBatch(Stranger):
    """``F.batch_norm(training=True)`` in eval mode."""

    def forward(self, images):
        return self.network(functional.batch_norm(images, None, None, training=True))


class NoRunningStatistics(Stranger):
    """A layer without running statistics uses those of the batch, also in eval mode."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1, track_running_stats=False).eval()

    def forward(self, images):
        return self.network(self.norm(images))


class AttentionAcross(Stranger):
    """Images attend to each other."""

    def forward(self, images):
        scores = self.network(images)
        return torch.softmax(scores @ scores.T, dim=1) @ scores


class RanksAcross(Stranger):
    """Scores are ranks within the batch."""

    def forward(self, images):
        return self.network(images).argsort(dim=0).argsort(dim=0).float()


class MeanOfTheBatch(Stranger):
    """The mean image of the batch is subtracted."""

    def forward(self, images):
        return self.network(images - images.mean(dim=0, keepdim=True))


class RunningSum(Stranger):
    """The scores of the images before are added: the first image depends on none."""

    def forward(self, images):
        return self.network(images).cumsum(dim=0)


class MeanOfTheFollowers(Stranger):
    """The first image is left alone, from the others their mean is subtracted."""

    def forward(self, images):
        rest = images[1:]
        return self.network(torch.cat([images[:1], rest - rest.mean(dim=0, keepdim=True)]) if len(rest) else images)


class Expert(Stranger):
    """Takes four images of a batch, as in a mixture of experts; what comes later is not looked at."""

    def forward(self, images):
        place = torch.arange(len(images)).view(-1, 1)
        return torch.where(place < 4, self.network(images), -self.network(images))


class MeanOfManyImages(Stranger):
    """Subtracts the mean of the batch, where there are more than four."""

    def forward(self, images):
        return self.network(images - images.mean(dim=0, keepdim=True) if len(images) > 4 else images)


class LastOfMany(Stranger):
    """The last image of a large batch is not looked at."""

    def forward(self, images):
        forgotten = (torch.arange(len(images)) == len(images) - 1) & (len(images) >= 30)
        return self.network(images) * torch.where(forgotten, -1.0, 1.0).view(-1, 1)


class BatchNormOfFeatures(Stranger):
    """Batch statistics of features, which one image does not have: torch raises an error."""

    def forward(self, images):
        return functional.batch_norm(self.network(images), None, None, training=True)


class RarelyRandom(Stranger):
    """Wrong in every twentieth call."""

    def forward(self, images):
        return self.network(images) * (-1 if torch.rand(1) < 0.05 else 1)


class RarelyRandomInSecret(Stranger):
    """Wrong in every fifth call, by a generator of its own."""

    def __init__(self, seed=0):
        super().__init__()
        self.generator = np.random.default_rng(seed)

    def forward(self, images):
        return self.network(images) * (-1 if self.generator.random() < 0.2 else 1)


class SometimesShared(Stranger):
    """Noise per image, and one shift for the whole batch where an image is bright: a handful of dark images shows none."""

    def forward(self, images):
        noisy = images + 0.5 * torch.randn_like(images)
        bright = images[:, :1, :1, :1] > 0.9
        return self.network(noisy + 2 * torch.rand(1) * bright if bool(bright.any()) else noisy)


class InPlace(Stranger):
    """Normalises its input in place."""

    def forward(self, images):
        return self.network(images.sub_(0.5).div_(0.5))
