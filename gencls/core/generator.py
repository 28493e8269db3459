"""Generators: the networks that make images for a generative defense, and the methods that it calls on them."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.core.words import counted

__all__ = ["BlockwiseGenerator", "ClassConditionalGenerator", "Latents", "Mix", "MultiLatentModel"]

Latents = tuple[Tensor, ...]
"""One tensor per latent level, coarse to fine; a plain GAN or VAE has one level."""

Mix = Callable[[int, Tensor, Tensor], Tensor]
"""A function (level, encoded code, sampled code) -> the code that this level uses."""


class MultiLatentModel(nn.Module, ABC):
    """MLVGM: an autoencoder with L latent levels whose prior can be sampled level by level.

    A model mixes codes while it decodes them. In a hierarchical VAE both the posterior and the prior of level i depend on the
    codes that were *mixed* at the levels above, so the codes cannot be computed before mixing. :meth:`encode_once` computes all
    that does not depend on them.

    Source: "Pre-trained Multiple Latent Variable Generative Models are good defenders against adversarial attacks",
    Appendix A.
    """

    num_levels: int

    def autoencode(self, images: Tensor, mix: Mix) -> Tensor:
        """Encode, mix and decode.

        Args:
            images: (N, C, H, W) in [0, 1].
            mix: a function called once per level, in order, with the encoded and the sampled code of that level.

        Returns:
            Images (N, C, H, W) in [0, 1]. If ``mix`` always returns its second argument, this is plain autoencoding. If it
            always returns its third, the samples do not depend on the images.
        """
        return self.decode_mixed(self.encode_once(images), mix)

    @abstractmethod
    def encode_once(self, images: Tensor) -> Latents:
        """Compute the part of :meth:`autoencode` that depends on the images alone: no random number, no mixed code.

        A purifier that needs S draws of an image calls it once and repeats the rows of the result.

        Args:
            images: (N, C, H, W) in [0, 1].

        Returns:
            Tensors (N, ...): the codes of a StyleGAN2 encoder, the features of NVAE's bottom-up pass, or the images themselves
            if the model has no such part.
        """

    @abstractmethod
    def decode_mixed(self, encoded: Latents, mix: Mix) -> Tensor:
        """Do the rest of :meth:`autoencode`: sample, mix and decode.

        Args:
            encoded: tensors from :meth:`encode_once`, with rows repeated or chosen at will.
            mix: a function as in :meth:`autoencode`.

        Returns:
            Images in [0, 1], one per row of ``encoded``.
        """


class ClassConditionalGenerator(nn.Module, ABC):
    """The decoder p(x | z, k) and the prior p(z) for K classes: the K decoders of ABS and a conditional GAN alike."""

    num_classes: int
    latent_shapes: tuple[torch.Size, ...]
    """The shape of one latent at each level, without a batch dimension."""

    @abstractmethod
    def forward(self, latents: Latents, labels: Tensor) -> Tensor:
        """Decode M latents, each for its own class.

        Args:
            latents: one tensor (M, *shape) per level.
            labels: the class of each latent, int64 (M,), values in 0 .. K - 1.

        Returns:
            Images (M, C, H, W) in [0, 1].
        """

    def decode_all(self, latents: Latents) -> Tensor:
        """Decode one latent per class for each of N images; networks with stacked decoders override it.

        Args:
            latents: one tensor (N, K, *shape) per level.

        Returns:
            Images (N, K, C, H, W) in [0, 1].
        """
        count = latents[0].shape[0]
        labels = torch.arange(self.num_classes, device=latents[0].device).repeat(count)
        images: Tensor = self(tuple(level.flatten(0, 1) for level in latents), labels)
        return images.view(count, self.num_classes, *images.shape[1:])

    def log_prior(self, latents: Latents) -> Tensor:
        """Log density of the standard normal prior, up to a constant: -||z||^2 / 2, (M,); override for another prior."""
        flat = torch.cat([level.flatten(1) for level in latents], dim=1)
        return flat.square().sum(1).mul(-0.5)

    def sample_latents(self, count: int) -> Latents:
        """Draw latents from the prior: one standard normal tensor (count, *shape) per level; override for another prior."""
        like = _number_of(self)
        return tuple(torch.randn(count, *shape, device=like.device, dtype=like.dtype) for shape in self.latent_shapes)


class BlockwiseGenerator(ClassConditionalGenerator):
    """A self-modulated generator: its first layer and each of its blocks take a code of their own.

    In training all of them take the same latent, the one level of :attr:`latent_shapes`. GAN inversion with
    overparameterisation gives each block another code (thesis, section 3.2, Figure 3.2).
    """

    num_blocks: int

    @abstractmethod
    def decode_codes(self, codes: Latents, labels: Tensor) -> Tensor:
        """Decode M images from the codes of the first layer and of each block.

        Args:
            codes: ``1 + num_blocks`` tensors (M, *shape).
            labels: the class of each image, int64 (M,), values in 0 .. K - 1.

        Returns:
            Images (M, C, H, W) in [0, 1].
        """

    def forward(self, latents: Latents, labels: Tensor) -> Tensor:
        """Decode M latents of one level, (M, *shape), each for its own class: every block takes the same code.

        Raises:
            GenclsError: for latents of another shape, or of more levels.
        """
        check_latents(self, latents, (len(labels),))
        return self.decode_codes(latents * (1 + self.num_blocks), labels)


def zero_latents(generator: ClassConditionalGenerator, leading: tuple[int, ...]) -> Latents:
    """Latents of zeros, one tensor (*leading, *shape) per level, of the type of the generator's numbers and on its device."""
    like = _number_of(generator)
    return tuple(torch.zeros(*leading, *shape, device=like.device, dtype=like.dtype) for shape in generator.latent_shapes)


def check_latents(generator: ClassConditionalGenerator, latents: Latents, leading: tuple[int, ...]) -> None:
    """Refuse latents of a generator with one level that are not one tensor (*leading, *shape).

    Raises:
        GenclsError: for other latents.
    """
    expected = (*leading, *generator.latent_shapes[0])
    shapes = [tuple(level.shape) for level in latents]
    if shapes != [expected]:
        owner = type(generator).__name__
        raise GenclsError(f"{owner}: expected one level of latents, of shape {expected}; got {shapes}")


def check_classes(generator: ClassConditionalGenerator, labels: Tensor, count: int, *, wait: bool) -> None:
    """Refuse the labels of ``count`` latents that are not int64 (count,), or name none of the K classes.

    Args:
        generator: the generator.
        labels: the labels.
        count: number of latents.
        wait: whether the values are also read on a GPU: the caller waits for it. An inner loop does not.

    Raises:
        GenclsError: for other labels.
    """
    owner, classes = type(generator).__name__, generator.num_classes
    if labels.dtype != torch.int64 or labels.shape != (count,):
        raise GenclsError(
            f"{owner}: expected labels int64 of shape ({count},), one for each latent; got {labels.dtype} of shape "
            f"{tuple(labels.shape)}"
        )
    if count == 0 or not (wait or labels.device.type == "cpu"):
        return
    low, high = torch.stack(labels.aminmax()).tolist()  # together: a GPU is waited for once
    if low < 0 or high >= classes:
        raise GenclsError(
            f"{owner}: expected labels in 0 .. {classes - 1}, since the generator has {counted(classes, 'class')}; got labels "
            f"from {low} to {high}"
        )


def _number_of(generator: nn.Module) -> Tensor:
    """One of the generator's parameters or buffers, whose type and device its latents have."""
    numbers = (tensor for tensor in (*generator.parameters(), *generator.buffers()) if tensor.is_floating_point())
    return next(numbers, torch.empty(0))
