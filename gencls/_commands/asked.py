"""Turns the words of a command line into objects: defenses with their weights, images, and draws."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gencls.core import Defense
    from gencls.zoo import ImageData

__all__ = ["build_defense", "draw_settings", "load_images", "weights_of", "wrong_classes"]

_FIRST = 4
"""How many images show what a module is, if the module does not declare it."""


def build_defense(spec: str, data: "ImageData", weights: Path | None = None) -> "Defense":
    """Load a defense of the zoo by name or from a weights file, or any module by import path, in eval mode.

    Args:
        spec: a name; the path of a .safetensors file with its card; or ``package.module:attribute``, where the attribute is a
            module (N, C, H, W) in [0, 1] -> (N, K) or a function without arguments that returns one.
        data: the images that the defense will see. A module that is no :class:`~gencls.core.Defense` is tried on the first few.
        weights: the weights file for a defense given by name; None takes the committed one.

    Raises:
        GenclsError: for an unknown name, an attribute that cannot be imported or is no module, or scores of another shape.
    """
    from torch import nn

    from gencls import zoo
    from gencls.core import Defense, check_eval_mode, in_eval_mode
    from gencls.zoo.imported import imported
    from gencls.zoo.registry import is_weights_file

    if ":" not in spec or is_weights_file(spec):
        _check_row(spec)
        return zoo.load(spec) if weights is None else zoo.load(spec, weights=weights)
    found: Any = imported(spec, lambda found: isinstance(found, nn.Module), "a torch.nn.Module")
    module = in_eval_mode(found)
    check_eval_mode(module, name=spec, may_drop=True)
    return module if isinstance(module, Defense) else _looked_at(module, data.images[:_FIRST], name=spec)


def _looked_at(module: "nn.Module", images: "Tensor", *, name: str) -> "Defense":
    """Make a defense of a module that declares nothing: stochastic if two forward passes of the same images differ."""
    import torch

    from gencls.core import seeded
    from gencls.defenses import PlainClassifier
    from gencls.eval.scores.forward import scores_of
    from gencls.eval.scores.probe import observe

    with torch.no_grad(), seeded(0):
        scores = scores_of(module, images, name=name)
    return PlainClassifier(module, scores.shape[1], stochastic=observe(module, images).random)


def weights_of(specs: list[str], folder: Path | None) -> dict[str, Path]:
    """The weights files in the folder ``--weights``, one for each defense given by name that has weights.

    Raises:
        GenclsError: ``folder`` is no folder, it lacks the weights of one of the defenses, or a defense is unknown.
    """
    from gencls.core import GenclsError
    from gencls.zoo.registry import find_weights, is_weights_file

    if folder is None:
        return {}
    named = [spec for spec in specs if ":" not in spec and not is_weights_file(spec)]
    for spec in named:
        _check_row(spec)
    found = {spec: path for spec in named if (path := find_weights(spec, folder)) is not None}
    if not found:
        raise GenclsError(f"--weights: expected a defense by name, got {', '.join(specs)}, which have their own; leave it out")
    return found


def _check_row(name: str) -> None:
    """Refuse a training that no row makes a defense of. The registry cannot check this: it does not import trainings."""
    from gencls.core import GenclsError
    from gencls.zoo.rows import GENERATORS, PARTS, ROWS

    if name in ROWS or name in GENERATORS or name in PARTS:
        return
    from gencls.zoo.training import PRESETS

    if name in PRESETS:
        raise GenclsError(f"{name} has a training but no row: add it to ROWS in gencls/zoo/rows.py")


def load_images(options: argparse.Namespace, seed: int) -> "ImageData":
    """Load the images that a command line names; the seed chooses among them."""
    from gencls import zoo

    chosen = {"root": options.data_root, "limit": options.limit, "size": options.size}
    return zoo.load_data(options.data, options.split, seed=seed, **chosen)


def wrong_classes(defenses: "Mapping[str, Defense]", data: "ImageData", name: str) -> str:
    """Warn, also on stderr, of defenses whose number of classes differs from that of a data set of the zoo.

    This is no error: a set may have a part of a network's classes on purpose, with the network's labels. Images of the user's
    own bring no warning, since their number of classes may be counted from the labels.

    Returns:
        The warning; empty if there is none.
    """
    from gencls.zoo import data_names

    others = [
        f"{key} has {found.num_classes} classes" for key, found in defenses.items() if found.num_classes != data.num_classes
    ]
    if not others or name not in data_names():
        return ""
    said = f"{', '.join(others)}, {name} has {data.num_classes}; see that a label means the same class in both"
    print(f"gencls: warning: {said}", file=sys.stderr)
    return said


_DRAWS = {"eot": "eot_samples", "draws": "judge_draws", "reduce": "reduce", "common_draws": "common_draws"}
"""The flags about draws, each with its name in Python."""


def draw_settings(options: argparse.Namespace, defenses: "Mapping[str, Defense]") -> dict[str, Any]:
    """The settings about draws that the user gave, by their names in Python.

    Raises:
        GenclsError: the user gave one, but no defense is random.
    """
    from gencls.core import GenclsError

    asked = {flag: getattr(options, flag, None) for flag in _DRAWS}  # the doctor has fewer flags
    given = {flag: value for flag, value in asked.items() if value is not None and value is not False}
    if given and not any(defense.stochastic for defense in defenses.values()):
        flags = ", ".join("--" + flag.replace("_", "-") for flag in given)
        raise GenclsError(
            f"{flags}: expected a defense that is random, got {', '.join(defenses)}, whose scores are the same in every draw; "
            "leave it out"
        )
    return {_DRAWS[flag]: value for flag, value in given.items()}
