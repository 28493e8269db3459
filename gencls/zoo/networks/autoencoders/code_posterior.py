"""What an encoder says of the codes of images: a Gaussian for each, or one code alone."""

from typing import NamedTuple

import torch
from torch import Tensor


class CodePosterior(NamedTuple):
    """q(z | x) of N images: a diagonal Gaussian for each image, or all mass on one code.

    Attributes:
        mean: the means mu, (N, d).
        log_variance: log sigma^2, (N, d); None for a deterministic encoder, whose codes are the means.
    """

    mean: Tensor
    log_variance: Tensor | None = None

    def sample(self) -> Tensor:
        """Draw one code for each image, (N, d): mu + sigma zeta with fresh normal zeta, or mu of a deterministic encoder.

        Gradients reach mean and variance.
        """
        if self.log_variance is None:
            return self.mean
        return self.mean + (0.5 * self.log_variance).exp() * torch.randn_like(self.mean)
