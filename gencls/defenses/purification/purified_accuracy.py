"""The objective for the alphas of MLVGM purification: accuracy on adversarial images of plain autoencoding (section 3)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gencls.core import GenclsError, Latents, check_eval_mode, check_images, check_labels, checked, key_of, keyed, repeat_rows
from gencls.core.balls import L2Ball
from gencls.core.modules.contents import contents
from gencls.core.rows import draws
from gencls.core.streams.seeds import stream_seed
from gencls.defenses.purification.mlvgm import MLVGMPurification

__all__ = ["PurifiedAccuracy", "fgsm_examples"]


@checked
def fgsm_examples(
    purification: MLVGMPurification,
    classifier: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    keep: Literal["successful", "all"] = "successful",
    batch_size: int = 32,
) -> tuple[Tensor, Tensor]:
    """One gradient step against the paper's base model, plain autoencoding and classifier: x + eps sign(g) / ||sign(g)||_2.

    Args:
        purification: its model attacks, in eval mode, with alphas 0 and without preprocessing.
        classifier: images (N, C, H, W) in [0, 1] -> logits (N, K); in eval mode.
        images: (N, C, H, W) in [0, 1].
        labels: int64 (N,).
        epsilon: L2 length of the step in [0, 1] pixel units, > 0; 4, 2 and 4 in the paper's tasks.
        keep: "successful" returns only images that the base model gets wrong after the step, as in the public code. "all"
            returns every image, as the paper writes.
        batch_size: images per pass.

    Returns:
        Adversarial images in [0, 1] as floats (the public code rounds them down to 8 bits), and their labels.

    Raises:
        GenclsError: for images or labels of the wrong kind, settings out of range, parts in training mode, a classifier that
            does not fit them or has no gradient, or if no image is left.
    """
    check_images(images)
    check_labels(labels, num_classes=None, count=len(images))
    if epsilon <= 0 or batch_size < 1:
        raise GenclsError(f"fgsm_examples: expected epsilon > 0 and batch_size >= 1, got {epsilon} and {batch_size}")
    _check_parts(purification, classifier, name="fgsm_examples")
    base = nn.Sequential(purification.base(), classifier)
    found, wrong = [], []
    for part, truth in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        part = part.detach().clone().requires_grad_()
        step = epsilon * L2Ball().direction(_gradient(base, part, truth).sign())
        with torch.no_grad():
            found.append((part + step).clamp(0.0, 1.0))
            wrong.append(base(found[-1]).argmax(dim=1) != truth)
    kept = torch.cat(wrong) if keep == "successful" else torch.ones_like(labels, dtype=torch.bool)
    if not bool(kept.any()):
        raise GenclsError(
            f"fgsm_examples: expected an epsilon at which the attack succeeds, got {epsilon}, at which it never does"
        )
    return torch.cat(found)[kept], labels[kept]


def _gradient(base: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    try:
        with torch.enable_grad():
            return torch.autograd.grad(functional.cross_entropy(base(images), labels, reduction="sum"), images)[0]
    except torch.OutOfMemoryError:
        raise
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        raise GenclsError(
            "fgsm_examples: expected a classifier that takes these images, has a class for each label and a gradient, got "
            f"{type(error).__name__}: {error}"
        ) from error


def _check_parts(purification: MLVGMPurification, classifier: nn.Module, *, name: str) -> None:
    check_eval_mode(purification.model, name=name, what="the purification's model")
    check_eval_mode(classifier, name=name, what="a classifier")


class PurifiedAccuracy:
    """Alphas -> accuracy of purification and classifier on fixed images, over the mean logits of several draws.

    Each call draws the same numbers for an image (common random numbers), so luck does not decide between alphas. Without
    preprocessing noise the encoder's output is kept between calls, as far as memory allows.
    """

    @checked
    def __init__(
        self,
        purification: MLVGMPurification,
        classifier: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        samples: int = 32,
        batch_size: int = 8,
        common_draws: bool = True,
        seed: int = 0,
        keep_bytes: int = 2**31,
    ) -> None:
        """Take defense and images.

        Args:
            purification: the defense, its model in eval mode. Each call replaces its alphas. The paper uses no preprocessing.
            classifier: images (N, C, H, W) in [0, 1] -> logits (N, K); in eval mode.
            images: adversarial images (N, C, H, W) in [0, 1], for instance of :func:`fgsm_examples`.
            labels: true classes, int64 (N,).
            samples: draws S per image, >= 1; 32 in the public code.
            batch_size: images per pass, >= 1. A pass has S times as many rows.
            common_draws: True gives all alphas the same draws. False derives the draws from the alphas, so a measurement can
                still be repeated.
            seed: seed of the draws.
            keep_bytes: most bytes of encoded images to keep between calls.

        Raises:
            GenclsError: for images or labels of the wrong kind, numbers below 1, or parts in training mode.
        """
        check_images(images)
        check_labels(labels, num_classes=None, count=len(images))
        if samples < 1 or batch_size < 1:
            raise GenclsError(f"PurifiedAccuracy: expected samples >= 1 and batch_size >= 1, got {samples} and {batch_size}")
        _check_parts(purification, classifier, name="PurifiedAccuracy")
        self.purification = purification
        self.classifier = classifier
        self.images = images
        self.labels = labels
        self.samples = samples
        self.batch_size = batch_size
        self.common_draws = common_draws
        self.seed = seed
        self.keep_bytes = keep_bytes
        self._kept: dict[int, Latents] = {}
        self._kept_of: tuple[int, list[object]] | None = None

    @torch.no_grad()
    def __call__(self, alphas: Sequence[float] | Tensor) -> float:
        """The accuracy in [0, 1] with these alphas in [0, 1], before the purification's ``highest``."""
        made_of = self.batch_size, contents(self.purification, self.images)
        if made_of != self._kept_of:  # encoded by other weights, or in other batches
            self._kept, self._kept_of = {}, made_of
        purification = self.purification.with_alphas(alphas)
        which = () if self.common_draws else purification.alphas
        right = 0
        for first in range(0, len(self.images), self.batch_size):
            labels = self.labels[first : first + self.batch_size]
            seeds = [stream_seed(self.seed, "purified", first + i, *which) for i in range(len(labels))]
            with keyed(seeds), draws(range(self.samples)):
                scores = self.classifier(purification.resample(self._encoded(first)))
            mean = scores.unflatten(0, (len(labels), self.samples)).mean(dim=1)
            right += int((mean.argmax(dim=1) == labels).sum())
        return right / len(self.images)

    def _encoded(self, first: int) -> Latents:
        """The rows of a batch, S per image."""
        images = self.images[first : first + self.batch_size]
        if self.purification.noise is not None:
            return self.purification.encode(images, self.samples)
        encoded = self._kept.get(first)
        if encoded is None:
            encoded = self.purification.encode(images)
            sizes = [part.numel() * part.element_size() for kept in (*self._kept.values(), encoded) for part in kept]
            if sum(sizes) <= self.keep_bytes:
                self._kept[first] = encoded
        return tuple(repeat_rows(part, self.samples) for part in encoded)

    def variance(self, accuracy: float) -> float:
        """Variance of a measured accuracy over n random images: p (1 - p) / n, p with a success and a failure more."""
        count = len(self.images)
        p = (accuracy * count + 1) / (count + 2)
        return p * (1 - p) / count

    def key(self) -> str:
        """A text that identifies the objective: images, labels, settings, weights and the measuring code, but not the alphas.

        ``batch_size`` and ``keep_bytes`` do not count.
        """
        neutral = self.purification.with_alphas((0.0,) * self.purification.model.num_levels)
        settings = (self.samples, self.common_draws, self.seed)
        return key_of((type(self), neutral, self.classifier, self.images, self.labels, *settings), type(self).__name__).whole
