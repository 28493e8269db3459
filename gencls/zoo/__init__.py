"""Data sets, networks, training and trained weights: real defenses on real images, for studies.

``load(name)`` gives a trained model or ready-made defense, and ``names()`` lists them. ``load_generator(name)`` gives a trained
generator with several latent levels, ``load_distance(name)`` a distance of deep features. ``load_data(name, split)`` gives
images. ``load_state_dict(path)`` gives the weights in anybody's file, without running code that is in it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gencls.zoo.data import ImageData, data_names, load_data, split_names

if TYPE_CHECKING:
    from gencls.zoo.checkpoints.reading import load_state_dict
    from gencls.zoo.registry import distance_names, generator_names, load, load_distance, load_generator, names

__all__ = [
    "ImageData",
    "data_names",
    "distance_names",
    "generator_names",
    "load",
    "load_data",
    "load_distance",
    "load_generator",
    "load_state_dict",
    "names",
    "split_names",
]

# Networks and defenses are imported only when a caller asks for a model, since some callers want images alone.
_LATER = {
    **dict.fromkeys(("load", "names", "generator_names", "load_generator", "distance_names", "load_distance"), "registry"),
    "load_state_dict": "checkpoints.reading",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f"gencls.zoo.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
