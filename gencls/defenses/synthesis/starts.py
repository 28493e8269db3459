"""Where the inner optimisation of analysis by synthesis begins: the I of the thesis's Algorithm 2."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gencls.core import ClassConditionalGenerator, GenclsError, Latents, checked, seeded

__all__ = ["EncoderStart", "RandomStarts"]


class RandomStarts(nn.Module):
    """Algorithm 3: the best of N random codes per class, by squared L2 distance and the regulariser.

    The codes are shared by all classes and their images are decoded once and cached. With cached norms the distances of all
    images to all N x K candidates are one matrix product: ||x - g||^2 = ||x||^2 + ||g||^2 - 2 <x, g>.
    """

    codes: Tensor

    @checked
    def __init__(
        self, generator: ClassConditionalGenerator, regularizer: nn.Module, weight: float, *, count: int, seed: int
    ) -> None:
        """Draw the codes; they are part of the state dict, so a saved classifier keeps them.

        Args:
            generator: decodes and samples latents.
            regularizer: R, latents (M, K, *shape) per level -> (M, K).
            weight: lambda, the factor of R.
            count: N >= 1.
            seed: of the codes; the global random state is left as it was.

        Raises:
            GenclsError: for a count below 1.
        """
        super().__init__()
        if count < 1:
            raise GenclsError(f"RandomStarts: expected count >= 1 random codes, got {count}")
        with seeded(seed):
            codes = generator.sample_latents(count)
        self.count = count
        self.shapes = generator.latent_shapes
        self.weight = weight
        self._parts = (generator, regularizer)  # in a tuple: the engine owns these modules
        self._bank: tuple[Tensor, Tensor] | None = None
        self._bank_is_of: list[object] = []
        self.register_buffer("codes", torch.cat([level.flatten(1) for level in codes], dim=1))

    def latents(self, codes: Tensor) -> Latents:
        """Flat codes (..., d) -> one tensor (..., *shape) per level."""
        sizes = [shape.numel() for shape in self.shapes]
        return tuple(
            flat.unflatten(-1, tuple(shape)) for flat, shape in zip(codes.split(sizes, dim=-1), self.shapes, strict=True)
        )

    def bank(self) -> tuple[Tensor, Tensor]:
        """Images (K, N, C*H*W) of the codes, and ||g||^2 / 2 + lambda R / 2 as (K, N); decoded when first needed."""
        generator, regularizer = self._parts
        # Storage and version of all that it is decoded from: loading other weights or moving the module makes it anew.
        made_of: list[object] = [
            (t.data_ptr(), 0 if t.is_inference() else t._version, t.dtype, t.device)
            for module in self._parts
            for t in (self.codes, *module.parameters(), *module.buffers())
        ]
        if self._bank is None or made_of != self._bank_is_of:
            classes = generator.num_classes
            images, penalties = [], []
            with torch.no_grad():
                for codes in self.codes.split(64):  # larger pieces are slower: the activations leave the cache
                    shared = self.latents(codes.unsqueeze(1).expand(-1, classes, -1))
                    images.append(generator.decode_all(shared).flatten(2).transpose(0, 1))
                    penalties.append(regularizer(shared).T)
                decoded, penalty = torch.cat(images, dim=1), torch.cat(penalties, dim=1)
                self._bank = decoded, 0.5 * (decoded.square().sum(2) + self.weight * penalty)
                self._bank_is_of = made_of
        return self._bank

    def forward(self, images: Tensor) -> Latents:
        """Images (N, C, H, W) -> the best code for each class, (N, K, *shape) per level."""
        decoded, offsets = self.bank()
        flat = images.detach().flatten(1).to(decoded.dtype)
        best = torch.stack(
            [torch.addmm(offset, flat, bank.T, alpha=-1.0).argmin(1) for bank, offset in zip(decoded, offsets, strict=True)],
            dim=1,
        )
        return self.latents(self.codes[best])

    def __getstate__(self) -> dict[str, Any]:
        """Copies, files and keys hold the codes alone, not the images that were made of them."""
        return {**self.__dict__, "_bank": None, "_bank_is_of": []}

    def extra_repr(self) -> str:
        """The settings."""
        return f"count={self.count}, weight={self.weight}"


class EncoderStart(nn.Module):
    """The encoder's Q(z | x) as a candidate: "we also include the encoder's output" (thesis, section 2.2)."""

    @checked
    def __init__(self, encoder: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        """Take the encoder of all classes.

        Args:
            encoder: images (N, C, H, W) -> mean and log-variance, each (N, K, d).
        """
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Latents:
        """Images (N, C, H, W) -> mean and log standard deviation, each (N, K, d); differentiable."""
        mean, log_variance = self.encoder(images.clone())  # it may work in place
        return mean, 0.5 * log_variance
