"""Where the inner optimisation of analysis by synthesis begins: the I of the thesis's Algorithm 2."""

from typing import Any

import torch
from torch import Tensor, nn

from gencls.core import ClassConditionalGenerator, Embedding, GenclsError, ImageDistance, Latents, checked, seeded
from gencls.core.images import check_image_shape
from gencls.core.modules.contents import contents
from gencls.core.modules.modes import check_mode_is_settled
from gencls.defenses.synthesis.checks import check_one_level
from gencls.defenses.synthesis.posterior import Posterior, Q

__all__ = ["EncodedStart", "EncoderStart", "RandomStarts"]


class RandomStarts(nn.Module):
    """Algorithm 3: the best of N random codes per class, by a distance and the regulariser.

    All classes share the codes, and their images are decoded once and cached. By default the distance is squared L2, as in the
    thesis, even if the engine has another one. With cached norms, one matrix product then gives the distances of all images to
    all N x K candidates: ||x - g||^2 = ||x||^2 + ||g||^2 - 2 <x, g>. For another distance the embeddings are cached.

    The cache is made anew when weights, codes, ``weight`` or training modes have changed, also by writes through ``.data``. A
    Python attribute that the generator's ``forward`` reads cannot be noticed: make the classifier anew after changing one.
    """

    codes: Tensor

    @checked
    def __init__(
        self,
        generator: ClassConditionalGenerator,
        regularizer: nn.Module,
        weight: float,
        *,
        count: int,
        seed: int,
        distance: ImageDistance | None = None,
    ) -> None:
        """Draw the codes; they are part of the state dict, so a saved classifier keeps them.

        Args:
            generator: decodes and samples latents.
            regularizer: R, latents (M, K, *shape) per level -> (M, K).
            weight: lambda, the factor of R.
            count: N, number of codes, >= 1.
            seed: seed of the codes; the global random state does not change.
            distance: image distance that ranks the codes, for instance the engine's; None takes squared L2.

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
        self._parts = (generator, regularizer, distance)  # in a tuple: the engine owns these modules
        self._bank: tuple[Embedding, Tensor] | None = None
        self._image_shape = torch.Size()
        self._bank_is_of: list[object] = []
        self.register_buffer("codes", torch.cat([level.flatten(1) for level in codes], dim=1))

    def latents(self, codes: Tensor) -> Latents:
        """Flat codes (..., d) -> one tensor (..., *shape) per level."""
        sizes = [shape.numel() for shape in self.shapes]
        return tuple(
            flat.unflatten(-1, tuple(shape)) for flat, shape in zip(codes.split(sizes, dim=-1), self.shapes, strict=True)
        )

    def bank(self) -> tuple[Embedding, Tensor]:
        """Embeddings (K, N, ...) of the codes' images and lambda R, (K, N); for L2 (K, N, C*H*W) and (||g||^2 + lambda R) / 2.

        They are made when first needed.

        Raises:
            GenclsError: to make them, the generator would have to decode in training mode, which matters to one of its layers.
        """
        generator, regularizer, distance = self._parts
        made_of = [self.weight, *contents(self.codes, *(part for part in self._parts if part is not None))]
        if self._bank is None or made_of != self._bank_is_of:
            check_mode_is_settled(generator, name="RandomStarts")
            classes = generator.num_classes
            pieces, penalties = [], []
            with torch.no_grad():
                for codes in self.codes.split(64):  # larger pieces are slower: the activations leave the cache
                    shared = codes.unsqueeze(1).expand(-1, classes, -1)
                    made = generator.decode_all(self.latents(shared.clone()))  # it may work in place
                    self._image_shape = made.shape[2:]
                    pieces.append(_embedded(made, distance))
                    penalties.append(regularizer(self.latents(shared.clone())).T)
                embedded = tuple(torch.cat(parts, dim=1) for parts in zip(*pieces, strict=True))
                penalty = self.weight * torch.cat(penalties, dim=1)
                if distance is None:
                    penalty = 0.5 * (embedded[0].square().sum(2) + penalty)
                self._bank, self._bank_is_of = (embedded, penalty), made_of
        return self._bank

    @torch.no_grad()
    def forward(self, images: Tensor) -> Latents:
        """Images (N, C, H, W) -> the best code for each class, (N, K, *shape) per level.

        Raises:
            GenclsError: the generator makes images of another shape.
        """
        parts, penalties = self.bank()
        check_image_shape(images, self._image_shape, name="RandomStarts", why=", as the generator makes")
        distance = self._parts[2]
        if distance is None:
            flat = images.detach().flatten(1).to(parts[0].dtype)
            losses = [torch.addmm(own, flat, bank.T, alpha=-1.0) for bank, own in zip(parts[0], penalties, strict=True)]
            best = torch.stack([of_class.argmin(1) for of_class in losses], dim=1)
        else:
            embedded = zip(*distance.embed(images.detach()), strict=True)
            best = torch.stack([(distance.compare_all(one, parts, penalties.shape) + penalties).argmin(1) for one in embedded])
        return self.latents(self.codes[best])

    def __getstate__(self) -> dict[str, Any]:
        """Copies, files and keys hold the codes alone, not their decoded images."""
        return {**self.__dict__, "_bank": None, "_bank_is_of": [], "_image_shape": torch.Size()}

    def extra_repr(self) -> str:
        """The settings."""
        return f"count={self.count}, weight={self.weight}"


class EncoderStart(nn.Module):
    """A proposal of E-ABS: the encoder's Q(z | x) of each class, "we also include the encoder's output" (thesis, section 2.2).

    Its encoder gives a Gaussian per class. That of :class:`EncodedStart`, of GAN inversion, gives one code for all classes.
    """

    @checked
    def __init__(self, encoder: nn.Module) -> None:
        """Take the encoder of all classes: images (N, C, H, W) -> mean and log-variance, each (N, K, d).

        Raises:
            GenclsError: for an encoder that is no module.
        """
        super().__init__()
        self.encoder = _module(encoder, owner="EncoderStart")

    def forward(self, images: Tensor) -> Q:
        """Images (N, C, H, W) -> means and log standard deviations (N, K, d) of one level; differentiable."""
        mean, log_variance = self.encoder(images.clone())  # it may work in place
        return (Posterior(mean, 0.5 * log_variance),)


class EncodedStart(nn.Module):
    """The start of Enc and Enc-D, Algorithm 4: the encoder's code of the image, the same for all classes.

    It is differentiable in the image. :class:`EncoderStart` is the proposal of E-ABS, with a Gaussian per class.
    """

    @checked
    def __init__(self, encoder: nn.Module, generator: ClassConditionalGenerator) -> None:
        """Take E, images (N, C, H, W) -> codes (N, *shape), and the generator, whose only level takes such codes.

        Raises:
            GenclsError: for an encoder that is no module, or a generator with several levels.
        """
        super().__init__()
        check_one_level(len(generator.latent_shapes), owner="EncodedStart", what="a generator")
        self.encoder = _module(encoder, owner="EncodedStart")
        self.num_classes = generator.num_classes
        self.shape = generator.latent_shapes[0]

    def forward(self, images: Tensor) -> Latents:
        """Images (N, C, H, W) -> codes (N, K, *shape) of one level.

        Raises:
            GenclsError: the encoder's codes have another shape than the generator's.
        """
        codes = self.encoder(images.clone())  # it may work in place
        if not isinstance(codes, Tensor) or codes.shape != (len(images), *self.shape):
            got = tuple(codes.shape) if isinstance(codes, Tensor) else type(codes).__name__
            raise GenclsError(
                f"EncodedStart: expected codes {(len(images), *self.shape)} of the encoder, as the generator takes, got {got}"
            )
        return (codes.unsqueeze(1).expand(-1, self.num_classes, *self.shape),)


def _module(encoder: nn.Module, *, owner: str) -> nn.Module:
    """Refuse a function: it could be neither moved to a device, nor switched to eval mode, nor frozen with the classifier."""
    if not isinstance(encoder, nn.Module):
        got = getattr(encoder, "__name__", type(encoder).__name__)
        raise GenclsError(
            f"{owner}: expected encoder to be a torch.nn.Module, which is moved, switched to eval mode and frozen with the "
            f"classifier; got {got}, which is none. Call it in the forward of a module that holds its networks"
        )
    return encoder


def _embedded(made: Tensor, distance: ImageDistance | None) -> Embedding:
    """Images (S, K, C, H, W) -> embeddings (K, S, ...)."""
    if distance is None:
        return (made.flatten(2).transpose(0, 1),)
    return tuple(part.view(*made.shape[:2], *part.shape[1:]).transpose(0, 1) for part in distance.embed(made.flatten(0, 1)))
