"""What the engine refuses: numbers out of range, another generator than the one it was built with, losses that overflow."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gencls.core import GenclsError
from gencls.core.generator import ClassConditionalGenerator, Latents, zero_latents
from gencls.core.words import counted

__all__ = [
    "check_finite",
    "check_numbers",
    "check_one_level",
    "check_same_generator",
    "check_weight",
    "shape_of_images",
    "started",
]

_HEAVIEST = 1e15
"""The largest lambda. Adam squares the gradient 2 lambda z: in float32 it overflows at |z| = 9,000, and the descent stands."""

_TOLERANCE = 0.01
"""How far images may leave [0, 1]: more than half precision rounds by, and far less than a wrong scale shows."""


def check_weight(owner: str, name: str, value: float) -> None:
    """Refuse a weight of R that is negative, or whose squared gradients overflow float32.

    Raises:
        GenclsError: for such a weight; the message calls it by the name that the user knows.
    """
    if value < 0:
        raise GenclsError(f"{owner}: expected {name} >= 0, got {value}")
    if value > _HEAVIEST:
        raise GenclsError(f"{owner}: expected {name} <= {_HEAVIEST:g}, or squared gradients overflow float32; got {value}")


def check_numbers(
    weight: float, steps: int, lr: float, start_std: float, samples: int, warm_steps: int | None, memory_budget: int
) -> None:
    """Refuse settings of :class:`~gencls.defenses.AnalysisBySynthesis` that are out of range.

    Raises:
        GenclsError: for such a setting.
    """
    owner = "AnalysisBySynthesis"
    if weight < 0 or steps < 0 or lr <= 0:
        raise GenclsError(f"{owner}: expected weight >= 0, steps >= 0, lr > 0, got {weight}, {steps}, {lr}")
    check_weight(owner, "weight", weight)
    if start_std <= 0 or samples < 1:
        raise GenclsError(f"{owner}: expected start_std > 0 and samples >= 1, got {start_std}, {samples}")
    if warm_steps is not None and warm_steps < 1:
        raise GenclsError(f"{owner}: expected warm_steps >= 1 or None, got {warm_steps}")
    if memory_budget < 1:
        raise GenclsError(f"{owner}: expected memory_budget >= 1 byte, got {memory_budget}")


def check_same_generator(old: nn.Module | None, new: object, *, owner: str) -> None:
    """Refuse another generator in place of the one that a part was built with, unless it wraps that one.

    Random codes, the number of classes and the levels come from the generator. Starts would go on decoding with the old one.

    Raises:
        GenclsError: the new generator does not hold the old one.
    """
    held = new.modules() if isinstance(new, nn.Module) else ()
    if old is not None and not any(part is old for part in held):
        raise GenclsError(
            f"{owner}: expected the generator that it was built with, or a wrapper of it, since random starts and classes come "
            f"from it; got another {type(new).__name__}. Build the classifier anew, or load other weights into its generator"
        )


def started(start: Callable[[Tensor], Latents], images: Tensor, generator: ClassConditionalGenerator) -> Latents:
    """The latents where a start begins for some images.

    Raises:
        GenclsError: for more or fewer levels than the generator takes.
    """
    latents = start(images)
    expected = len(generator.latent_shapes)
    if len(latents) != expected:
        wanted = counted(expected, "latent level")
        raise GenclsError(f"AnalysisBySynthesis: expected a start with {wanted}, as the generator takes, got {len(latents)}")
    return latents


def shape_of_images(generator: ClassConditionalGenerator) -> torch.Size:
    """The shape (C, H, W) of the generator's images, from one image of each class.

    Raises:
        GenclsError: the images leave [0, 1].
    """
    with torch.no_grad():
        made = generator.decode_all(zero_latents(generator, (1, generator.num_classes)))
    low, high = torch.stack(made.aminmax()).tolist()
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        owner, hint = type(generator).__name__, "; a generator that ends in tanh needs (images + 1) / 2" if low < 0 else ""
        raise GenclsError(f"{owner}: expected images in [0, 1] of the generator, got values from {low:.4g} to {high:.4g}{hint}")
    return made.shape[2:]


def check_one_level(count: int, *, owner: str, what: str) -> None:
    """Refuse something that has more or fewer latent levels than one.

    Raises:
        GenclsError: for another number of levels.
    """
    if count != 1:
        raise GenclsError(f"{owner}: expected {what} with one latent level, got {count} levels")


def check_finite(losses: Tensor, weight: float, lr: float) -> None:
    """Refuse losses (N, K) that decide nothing. It waits for a GPU, once per call.

    Raises:
        GenclsError: for NaN or infinite losses.
    """
    bad = ~losses.isfinite()
    if bool(bad.any()):
        raise GenclsError(
            f"AnalysisBySynthesis: expected finite losses, got {int(bad.sum())} of {losses.numel()} that are NaN or infinite; "
            f"images, weights of a network, or settings too large for {losses.dtype} (weight={weight}, lr={lr}) can do that"
        )
