"""What the engine refuses: numbers out of range, another generator than the one it was built with, losses that overflow."""

from torch import Tensor, nn

from gencls.core import GenclsError
from gencls.core.generator import ClassConditionalGenerator, Latents

__all__ = ["check_budget", "check_finite", "check_levels", "check_one_level", "check_same_generator", "check_weight"]

_HEAVIEST = 1e15
"""The largest lambda. Adam squares the gradient 2 lambda z: in float32 it overflows at |z| = 9,000, and the descent stands."""


def check_weight(owner: str, name: str, value: float) -> None:
    """Refuse a weight of R that is negative, or whose squared gradients overflow float32.

    Raises:
        GenclsError: for such a weight; the message calls it by the name that the user knows.
    """
    if value < 0:
        raise GenclsError(f"{owner}: expected {name} >= 0, got {value}")
    if value > _HEAVIEST:
        raise GenclsError(f"{owner}: expected {name} <= {_HEAVIEST:g}, or squared gradients overflow float32; got {value}")


def check_budget(memory_budget: int) -> None:
    """Refuse a memory budget that holds nothing.

    Raises:
        GenclsError: for less than one byte.
    """
    if memory_budget < 1:
        raise GenclsError(f"AnalysisBySynthesis: expected memory_budget >= 1 byte, got {memory_budget}")


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


def check_levels(latents: Latents, generator: ClassConditionalGenerator) -> None:
    """Refuse starts with more or fewer levels than the generator takes.

    Raises:
        GenclsError: for another number of levels.
    """
    expected = len(generator.latent_shapes)
    if len(latents) != expected:
        raise GenclsError(f"AnalysisBySynthesis: expected a start with {expected} latent levels, got {len(latents)}")


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
