"""The discriminator of codes of adversarial autoencoders."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gencls.core.errors import GenclsError
from gencls.core.settings import checked
from gencls.zoo.networks.abs.latent_discriminator import LatentDiscriminator
from gencls.zoo.networks.autoencoders.code_posterior import CodePosterior
from gencls.zoo.networks.autoencoders.regularizers.base import CodeRegularizer


class Adversarial(CodeRegularizer):
    """A discriminator D of codes, which learns beside the autoencoder, takes the place of a divergence.

        encoder        E[-log D(z)]
        discriminator  E[-log D(z_s)] + E[-log(1 - D(z))],        z_s ~ N(0, I)

    D(z) is the probability that z is a draw from the prior. No gradient of the encoder's loss reaches D, and none of the
    discriminator's loss reaches the encoder, so a training may add both and take one step, or step twice with two optimisers.
    At equilibrium D = 1/2 everywhere: the losses are log 2 and 2 log 2.

    Source: adversarial autoencoders (Makhzani et al. 2015, arXiv:1511.05644), section 2, with the encoder's loss that does not
    saturate (Goodfellow et al. 2014). They use two hidden layers of 1000 neurons for MNIST, with ReLU; here it is the Leaky
    ReLU of :class:`~gencls.zoo.networks.LatentDiscriminator`.

    Args:
        code_size: d, the length of the codes.
        hidden: neurons of the discriminator's hidden layers.

    Raises:
        GenclsError: a size is below 1. A call with codes of another length raises it as well.
    """

    @checked
    def __init__(self, code_size: int, *, hidden: Sequence[int] = (1000, 1000)) -> None:
        super().__init__()
        if min((code_size, *hidden)) < 1:
            raise GenclsError(f"Adversarial: expected sizes >= 1, got code_size {code_size} and hidden {tuple(hidden)}")
        self.code_size = code_size
        self.discriminator = LatentDiscriminator(code_size, hidden)

    def check(self, codes: Tensor) -> None:
        """Refuse codes of another length than the discriminator's, besides what every penalty refuses.

        Raises:
            GenclsError: an expectation does not hold.
        """
        super().check(codes)
        if codes.shape[1] != self.code_size:
            raise GenclsError(
                f"Adversarial: expected codes of shape (N, {self.code_size}), as the discriminator takes, got "
                f"{tuple(codes.shape)}"
            )

    def penalty(self, codes: Tensor, posterior: CodePosterior) -> Tensor:
        """Compute the encoder's loss: the mean of -log D(z), without gradients of the discriminator's weights."""
        return F.softplus(-self.discriminator.frozen(codes)).mean()

    def discriminator_loss(self, codes: Tensor) -> Tensor:
        """Compute the discriminator's loss on codes (N, d), which get no gradient, and as many fresh draws from the prior.

        Raises:
            GenclsError: for other codes than a call of this module takes.
        """
        self.check(codes)
        prior = torch.randn_like(codes)
        logits = self.discriminator(torch.cat([prior, codes.detach()]))
        of_prior, of_codes = logits.chunk(2)
        return F.softplus(-of_prior).mean() + F.softplus(of_codes).mean()
