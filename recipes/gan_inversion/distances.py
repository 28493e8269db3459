"""Where the perceptual distances of a profile come from, and which of them are at hand."""

from pathlib import Path

from gencls.core import ImageDistance
from gencls.zoo.distances import DISTANCES as NAMED
from gencls.zoo.distances import load_distance
from recipes.gan_inversion.settings import Profile
from recipes.harness.folders import weights_path

__all__ = ["is_here", "make", "trained", "weights_of"]


def trained(profile: Profile, distance: str) -> str:
    """Name of the training of a distance's network; "" if its weights are not ours."""
    name = profile.features.get(distance, "")
    return NAMED[name].trained if name else ""


def weights_of(profile: Profile, distance: str, weights: Path | None) -> Path | None:
    """Where the weights of a distance lie or should lie: those of ours, or in the user's folder; None if it needs none.

    Files of others have the distance's name in the zoo and end with .pt.
    """
    name = profile.features.get(distance, "")
    if not name:
        return None
    if ours := trained(profile, distance):
        return weights_path(ours, weights)
    return (weights or Path()) / f"{name}.pt" if NAMED[name].file else None


def is_here(profile: Profile, distance: str, weights: Path | None) -> bool:
    """Whether all that a distance needs is at hand."""
    path = weights_of(profile, distance, weights)
    return path is None or path.is_file()


def make(profile: Profile, distance: str, weights: Path | None) -> ImageDistance | None:
    """Make a perceptual distance, without pixels; None for pixels alone.

    Raises:
        GenclsError: if its weights are missing; the message says where they come from.
    """
    if distance == "pixels":
        return None
    path = weights_of(profile, distance, weights)
    return load_distance(profile.features[distance], weights=path, normalize=profile.normalize)
