"""The latent discriminator of the adversarial autoencoders in E-ABS."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LatentDiscriminator(nn.Module):
    """D(z): how likely a latent vector is a sample of the prior and not an encoded image.

    Source: E-ABS (thesis, section 2.3 "Models": a feed-forward network with two hidden layers, sizes in Table 2.1). The thesis
    does not name the activation; here it is Leaky ReLU, as in the encoder.

    Args:
        latent_dim: length of the latent vectors.
        hidden: neurons of the hidden layers.
        negative_slope: slope of the Leaky ReLU below 0.
    """

    def __init__(self, latent_dim: int, hidden: Sequence[int], *, negative_slope: float = 0.01) -> None:
        super().__init__()
        sizes = [latent_dim, *hidden]
        self.hidden = nn.ModuleList(nn.Linear(above, below) for above, below in zip(sizes, sizes[1:], strict=False))
        self.last = nn.Linear(sizes[-1], 1)
        self.negative_slope = negative_slope

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (..., latent_dim) to log D(z) / (1 - D(z)), (...): above 0 for what looks like the prior."""
        for layer in self.hidden:
            latents = F.leaky_relu(layer(latents), self.negative_slope)
        logits: Tensor = self.last(latents)
        return logits.squeeze(-1)

    def frozen(self, latents: Tensor) -> Tensor:
        """Logits without gradients of the weights; the encoder learns from them."""
        weights = {name: weight.detach() for name, weight in self.named_parameters()}
        logits: Tensor = torch.func.functional_call(self, weights, (latents,))
        return logits
