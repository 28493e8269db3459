"""Data sets, networks, training and trained weights: what a study of real defenses on real images is made of.

``load(name)`` gives a trained model or ready-made defense, ``names()`` lists them, ``load_data(name, split)`` gives
images.
"""

from typing import TYPE_CHECKING, Any

from gencls.zoo.data import ImageData, data_names, load_data, split_names

if TYPE_CHECKING:
    from gencls.zoo.models import load, names

__all__ = ["ImageData", "data_names", "load", "load_data", "names", "split_names"]


def __getattr__(name: str) -> Any:
    # Networks and defenses are imported by whoever asks for a model, not by whoever wants only images.
    if name in ("load", "names"):
        from gencls.zoo import models

        return getattr(models, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
