"""Where the perceptual distances of a profile come from, and which of them are at hand."""

from importlib.util import find_spec
from pathlib import Path

from gencls.core import GenclsError, ImageDistance
from gencls.perceptual import ELPIPS, LPIPS
from gencls.perceptual.trunks import TrunkName
from gencls.zoo.distances import DISTANCES as NAMED
from gencls.zoo.registry import load_distance
from recipes.gan_inversion.settings import Profile
from recipes.harness.folders import weights_path

__all__ = ["averaged", "is_here", "make", "trained", "weights_of"]

_TRUNKS = {
    "lpips": ("vgg16.pth", "vgg16-397923af.pth"),
    "st-lpips": ("alex_shift_tolerant.pth", "alex_shift_tolerant_fp16.pth"),
}
"""Distance -> the names that the file of its network may have in the user's folder of weights."""

_LPIPS_SIZE = 64
"""Pixels to which LPIPS rescales small images (section 3.3)."""


def trained(profile: Profile, distance: str) -> str:
    """Name of the training of a distance's network; "" if its weights are not ours."""
    name = profile.features.get(distance, "")
    return NAMED[name].trained if name else ""


def weights_of(profile: Profile, distance: str, weights: Path | None) -> Path | None:
    """Where the weights of a distance lie or should lie: those of ours, or in the user's folder; None if it needs none there.

    A feature network of others has the name of its distance in the zoo and ends with .pt. The file of a trunk has one of two
    names. The network of shift-tolerant LPIPS may come with its package instead.

    Raises:
        GenclsError: without a folder of weights, for a distance whose file lies there.
    """
    if distance in ("e-lpips", "e-plain"):
        return weights_of(profile, averaged(profile, distance, weights), weights)
    if ours := trained(profile, distance):
        return weights_path(ours, weights)
    files = _files(profile, distance)
    if not files:
        return None
    places = [weights / file for file in files] if weights else []
    found = next((place for place in places if place.is_file()), None)
    if found or (distance == "st-lpips" and find_spec("stlpips_pytorch")):
        return found
    if not places:
        raise GenclsError(
            f"{distance}: expected --weights FOLDER with {' or '.join(files)}, got no folder; docs/distances.md says where the "
            "file comes from"
        )
    return places[0]


def _files(profile: Profile, distance: str) -> tuple[str, ...]:
    """The names that a distance's file of others may have; none if it needs no such file."""
    if name := profile.features.get(distance, ""):
        return (f"{name}.pt",) if NAMED[name].file else ()
    return _TRUNKS.get("lpips" if distance == "plain" else distance, ())


def is_here(profile: Profile, distance: str, weights: Path | None) -> bool:
    """Whether all that a distance needs is at hand."""
    try:
        path = weights_of(profile, distance, weights)
    except GenclsError:
        return False
    return path is None or path.is_file()


def make(profile: Profile, distance: str, weights: Path | None, samples: int) -> ImageDistance | None:
    """Make a perceptual distance, without pixels; None for pixels alone.

    Args:
        profile: the profile.
        distance: key of :data:`~recipes.gan_inversion.settings.DISTANCES`.
        weights: the user's folder of weights.
        samples: transformations that E-LPIPS averages over.

    Raises:
        GenclsError: if its weights are missing; the message says where they come from.
    """
    if distance == "pixels":
        return None
    if distance in ("e-lpips", "e-plain"):
        base = make(profile, averaged(profile, distance, weights), weights, samples)
        if base is None:
            raise GenclsError(f"{distance}: expected a distance to average, got none")
        small = distance == "e-lpips" and profile.size is None
        if isinstance(base, LPIPS):
            base.size = None  # images are rescaled before they are transformed
        return ELPIPS(base, samples=samples, size=_LPIPS_SIZE if small else None, keep_size=distance == "e-plain")
    path = weights_of(profile, distance, weights)
    if distance in profile.features:
        return load_distance(profile.features[distance], weights=path)
    size = None if profile.size else _LPIPS_SIZE
    net: TrunkName = "shift-tolerant-alex" if distance == "st-lpips" else "vgg"
    return LPIPS(path, net, lpips=distance != "plain", size=size, grey_as_rgb=True)


def averaged(profile: Profile, distance: str, weights: Path | None) -> str:
    """The distance that "e-lpips" or "e-plain" averages: of LPIPS the one that is at hand."""
    if distance == "e-plain":
        return "plain"
    return "lpips" if is_here(profile, "lpips", weights) else "st-lpips"
