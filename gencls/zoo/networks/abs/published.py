"""The published ABS networks, classifying as the public code does (Schott et al. 2019, arXiv:1805.09190).

Code and weights: GitHub bethgelab/AnalysisBySynthesis, Apache-2.0; the files ABS_0.net to ABS_9.net, one VAE per digit.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from gencls.core import Defense, Embedding, GenclsError, TransformedClassifier
from gencls.defenses import AnalysisBySynthesis, Ball, Binarize, ClassFactors, GaussianKL, RandomStarts, SignLosingBall
from gencls.perceptual import SquaredL2
from gencls.zoo.checkpoints.reading import load_state_dict
from gencls.zoo.networks.abs.official import official_abs_decoders

Variant = Literal["plain", "binary"]

_FACTORS = (1.0, 0.96, 1.001, 1.06, 0.98, 0.96, 1.03, 1.0, 1.0, 1.0)


def official_abs(
    source: str | Path | Mapping[str, Tensor],
    *,
    variant: Variant = "plain",
    codes: Tensor | None = None,
    steps: int = 49,
    lr: float = 0.05,
    beta: float = 1.0,
    radius: float | None = 5.0,
    keep_signs: bool = False,
    memory_budget: int = 2**31,
) -> Defense:
    """Build the published classifier on our engine; the defaults are those of the public code.

    "plain" is its ``get_VAE``. "binary" is its ``get_ABS``: it binarises images at 0.5 and multiplies the bound of each class
    by a factor. As in :func:`~gencls.defenses.ABS`, scores are not divided by the number of pixels, which would make the
    softmax of the logits all but uniform: scores / 784 are the logits of the public code. The bound that Adam minimises is
    divided here too, as there, since Adam's constant 1e-8 adds to the size of the gradient. Without the division, latents
    differ by up to 3e-3 from those of the public code (scores / 784 by 1e-7), with it by 1e-5.

    Args:
        source: folder with ABS_0.net to ABS_9.net, or the mapping that :func:`read_official_abs` gives.
        variant: "plain" or "binary".
        codes: (S, d), the candidate starts; None takes :func:`published_codes`.
        steps: Adam steps; the public code's 50 iterations evaluate 50 times and step between.
        lr: Adam's step size.
        beta: weight of the KL term.
        radius: latents stay within this L2 norm; None does not project.
        keep_signs: whether latents keep their signs when projected; in the public code they do not.
        memory_budget: bytes of activations per chunk of images.

    Returns:
        The defense in eval mode; scores (N, K). Its gradient modes are "frozen" and "unrolled", of the binary variant
        "bpda+frozen" and "bpda+unrolled".

    Raises:
        GenclsError: for an unknown variant, files that are missing, damaged or hold something else, other than ten classes for
            the binary variant, codes of another shape or not finite, or settings that the parts refuse.
    """
    if variant not in get_args(Variant):
        raise GenclsError(f"official_abs: expected variant to be one of {get_args(Variant)}, got {variant!r}")
    state = source if isinstance(source, Mapping) else read_official_abs(source)
    decoders = official_abs_decoders(state)
    size = decoders.latent_shapes[0].numel()
    codes = published_codes(size=size) if codes is None else codes
    if codes.ndim != 2 or codes.shape[1] != size or not bool(codes.isfinite().all()):
        raise GenclsError(f"official_abs: expected finite codes of shape (S, {size}), got shape {tuple(codes.shape)}")
    regularizer = GaussianKL()
    start = RandomStarts(decoders, regularizer, beta, count=len(codes), seed=0)
    start.codes.copy_(codes)
    pixels = decoders((codes[:1],), torch.tensor([0])).numel()
    project = None if radius is None else Ball(radius) if keep_signs else SignLosingBall(radius)
    engine = AnalysisBySynthesis(
        decoders,
        start=start,
        distance=_MeanSquare(),
        regularizer=regularizer,
        weight=beta / pixels,
        steps=steps,
        lr=lr,
        project=project,
        memory_budget=memory_budget,
    )
    factors = _FACTORS if variant == "binary" else (1.0,) * decoders.num_classes
    classifier = ClassFactors(engine, [pixels * factor for factor in factors])
    if variant == "plain":
        return classifier.eval()
    return TransformedClassifier(Binarize(0.5), classifier, classifier.num_classes).eval()


class _MeanSquare(SquaredL2):
    """||a - b||_2^2 over the number of values of an image."""

    def compare(self, first: Embedding, second: Embedding) -> Tensor:
        return super().compare(first, second) / second[0].shape[-3:].numel()


def read_official_abs(folder: str | Path, *, num_classes: int = 10) -> dict[str, Tensor]:
    """Read ABS_0.net, ABS_1.net, ... into one mapping, the keys of file k behind ``VAE_k.``.

    Raises:
        GenclsError: for files that are missing, damaged, or hold anything else than tensors by name.
    """
    paths = [Path(folder) / f"ABS_{k}.net" for k in range(num_classes)]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise GenclsError(f"{folder}: expected {paths[0].name} to {paths[-1].name}; there is no {', '.join(missing)}")
    return {f"VAE_{k}.{key}": tensor for k, path in enumerate(paths) for key, tensor in load_state_dict(path).items()}


def published_codes(count: int = 8000, *, size: int = 8, dismissed: float = 0.1, seed: int = 1234) -> Tensor:
    """The candidate starts that the public code draws, shared by all classes and images.

    It draws int(count / (1 - dismissed)) standard normal vectors and keeps the ``count`` densest, in drawing order.
    It uses numpy's global generator and scipy's multivariate normal, which for a unit covariance gives the generator's own
    normal draws; numpy guarantees that ``RandomState`` never changes them.

    Args:
        count: how many to keep, >= 1.
        size: d, numbers in a latent, >= 1.
        dismissed: the share that is not kept, in [0, 1).
        seed: the seed of the draws; no global random state is touched.

    Returns:
        (count, size), float32.

    Raises:
        GenclsError: for values out of range.
    """
    if count < 1 or size < 1 or not 0 <= dismissed < 1:
        raise GenclsError(
            f"published_codes: expected count >= 1, size >= 1 and dismissed in [0, 1), got {count}, {size} and {dismissed}"
        )
    drawn = np.random.RandomState(seed).standard_normal((int(count / (1 - dismissed)), size))
    densest = np.square(drawn).sum(axis=1).argsort()[:count]
    return torch.from_numpy(drawn[np.sort(densest)].astype(np.float32))


def published_confidence(scores: Tensor, *, pixels: int = 784, scale: float = 440.0, floor: float = 3.9e-5) -> Tensor:
    """The confidences that the public code reports beside its logits.

    With E_k = -score_k / pixels,

        p_k = (exp(-scale E_k) + floor) / sum_c (exp(-scale E_c) + floor),

    An image that no class explains has p_k near 1 / K, where a softmax may still be certain.

    Args:
        scores: scores (N, K) of a classifier that :func:`official_abs` built.
        pixels: numbers in an image.
        scale: factor of the logits; the authors found it on MNIST.
        floor: number added to each likelihood; the authors found it on MNIST.

    Returns:
        (N, K) in (0, 1); rows sum to 1.
    """
    likelihoods = (scores * (scale / pixels)).exp() + floor
    return likelihoods / likelihoods.sum(dim=1, keepdim=True)
