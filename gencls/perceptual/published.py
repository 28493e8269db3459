"""Reads the published weights of distances: files of the user, and files in installed packages, whose code does not run."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from gencls.core import GenclsError
from gencls.perceptual.trunks import TRUNKS, Trunk

__all__ = ["Weights", "filled_trunk", "package_weights", "tensor_of", "trunk_weights"]

Weights = str | Path | Mapping[str, Tensor] | None
"""A file, or tensors by name; None: the file in a package."""

_PACKAGED = {
    "shift-tolerant-vgg": ("stlpips_pytorch", "weights/vST0.0/vgg_shift_tolerant.pth"),
    "shift-tolerant-alex": ("stlpips_pytorch", "weights/vST0.0/alex_shift_tolerant.pth"),
}
"""The trunks in packages: the package, and the file in it."""


def trunk_weights(weights: Weights, net: str, *, owner: str) -> tuple[Mapping[str, Tensor], str]:
    """The tensors of a trunk by name, and where they come from.

    Raises:
        GenclsError: there is no file, or another kind of file; the message says where to get the right one.
    """
    if isinstance(weights, Mapping):
        return weights, "the tensors that were given"
    wanted = TRUNKS[net].source
    if weights is not None:
        return _read(Path(weights), wanted, owner), str(weights)
    path = _in_package(*_PACKAGED[net]) if net in _PACKAGED else None
    if path is None:
        raise GenclsError(f"{owner}: expected trunk, the weights of {TRUNKS[net].title}, got none; take {wanted}")
    return _read(path, wanted, owner), str(path)


def filled_trunk(net: str, weights: Mapping[str, Tensor], where: str, *, owner: str) -> Trunk:
    """The trunk with these weights, in eval mode, without gradients of its parameters.

    Raises:
        GenclsError: a tensor is missing or has another shape; the message says where to get the right file.
    """
    published, trunk = TRUNKS[net], TRUNKS[net].make()
    sliced = {re.sub(r"^net\.slice\d+\.", "features.", name): name for name in weights}
    names = {own: sliced.get(f"features.{own}", f"features.{own}") for own, _ in trunk.state_dict().items()}
    found = {own: tensor_of(weights, name, net, where, owner=owner) for own, name in names.items()}
    for own, value in trunk.state_dict().items():
        if value.shape != found[own].shape:
            raise GenclsError(
                f"{owner}: expected {names[own]} of shape {tuple(value.shape)}, as in {published.title}, got "
                f"{tuple(found[own].shape)} in {where}; take {published.source}"
            )
    trunk.load_state_dict(found)
    return trunk.eval().requires_grad_(False)


def tensor_of(weights: Mapping[str, Tensor], name: str, net: str, where: str, *, owner: str) -> Tensor:
    """One tensor of a trunk's weights.

    Raises:
        GenclsError: it is missing; the message says where to get the right file.
    """
    found = weights.get(name)
    if isinstance(found, Tensor):
        return found
    raise GenclsError(f"{owner}: expected {name} of {TRUNKS[net].title}, got none in {where}; take {TRUNKS[net].source}")


def package_weights(package: str, file: str, *, owner: str) -> Mapping[str, Tensor]:
    """The tensors in a file of an installed package, by name.

    Raises:
        GenclsError: the package is not installed, or has no such file.
    """
    path = _in_package(package, file)
    if path is None:
        raise GenclsError(f"{owner}: expected the package {package}, which holds the learned weights, got none; install it")
    return _read(path, f"{file} of the package {package}", owner)


def _in_package(package: str, file: str) -> Path | None:
    spec = find_spec(package)
    return Path(spec.submodule_search_locations[0]) / file if spec and spec.submodule_search_locations else None


def _read(path: Path, wanted: str, owner: str) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise GenclsError(f"{owner}: expected {wanted}, as {path}, got no such file")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever is in the file: torch raises many kinds
        raise GenclsError(
            f"{owner}: expected {wanted}, got {path}, which torch.load cannot read ({type(error).__name__}); of another "
            "kind of file give the tensors by their names"
        ) from error
    inner = found.get("state_dict", found) if isinstance(found, Mapping) else None
    if not isinstance(inner, Mapping):
        raise GenclsError(f"{owner}: expected {wanted}, got {path} with {type(found).__name__} inside")
    return inner
