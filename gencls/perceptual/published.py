"""Reads the published weights of distances: files of the user, and files in installed packages, whose code does not run."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from gencls.core import GenclsError
from gencls.core.weights import check_state, unwrapped
from gencls.perceptual.trunks import TRUNKS, Trunk

__all__ = ["Weights", "filled_trunk", "learned_weights", "package_weights", "trunk_weights"]

Weights = str | Path | Mapping[str, Tensor] | None
"""A file, or tensors by name; None: the file in a package."""

_PACKAGED = {
    "shift-tolerant-vgg": ("stlpips_pytorch", "weights/vST0.0/vgg_shift_tolerant.pth"),
    "shift-tolerant-alex": ("stlpips_pytorch", "weights/vST0.0/alex_shift_tolerant.pth"),
}
"""The trunks in packages: the package, and the file in it."""


def trunk_weights(weights: Weights, net: str, *, owner: str) -> tuple[Mapping[str, Tensor], str]:
    """The tensors of a trunk by name, without the prefixes of torch's wrappers, and where they come from.

    Raises:
        GenclsError: there is no file, or another kind of file; the message says where to get the right one.
    """
    if isinstance(weights, Mapping):
        return _by_name(weights), "the tensors that were given"
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
        GenclsError: a tensor is missing or has another shape, and the message says where to get the right file; a tensor is not
            of finite numbers, or none that a network has, see :func:`gencls.core.weights.check_state`.
    """
    published, trunk = TRUNKS[net], TRUNKS[net].make()
    sliced = {re.sub(r"^net\.slice\d+\.", "features.", name): name for name in weights}
    names = {own: sliced.get(f"features.{own}", f"features.{own}") for own, _ in trunk.state_dict().items()}
    found = {own: _tensor_of(weights, name, net, where, owner=owner) for own, name in names.items()}
    source = f"{owner}: {where}"
    check_state(source, {names[own]: tensor for own, tensor in found.items()}, finite=False)
    for own, value in trunk.state_dict().items():
        if value.shape != found[own].shape:
            raise GenclsError(
                f"{owner}: expected {names[own]} of shape {tuple(value.shape)}, as in {published.title}, got "
                f"{tuple(found[own].shape)} in {where}; take {published.source}"
            )
        if not found[own].is_floating_point():
            raise GenclsError(f"{source}: expected {names[own]} of floating point numbers, got {found[own].dtype}")
    trunk.load_state_dict(found)
    # In the trunk's own precision, which may be too coarse for the file's largest numbers.
    check_state(source, {names[own]: value for own, value in trunk.state_dict().items()})
    return trunk.eval().requires_grad_(False)


def _tensor_of(weights: Mapping[str, Tensor], name: str, net: str, where: str, *, owner: str) -> Tensor:
    """One tensor of a trunk's weights.

    Raises:
        GenclsError: it is missing; the message says which keys there are, and where to get the right file.
    """
    found = weights.get(name)
    if isinstance(found, Tensor):
        return found
    keys = f"; its keys are {', '.join([*list(weights)[:3], *['...'] * (len(weights) > 3)])}" if weights else ""
    raise GenclsError(f"{owner}: expected {name} of {TRUNKS[net].title}, got none in {where}{keys}; take {TRUNKS[net].source}")


def learned_weights(weights: Mapping[str, Tensor], layers: int, net: str, where: str, *, owner: str) -> dict[str, Tensor]:
    """The learned weights (c,) of each map of a trunk, by ``head`` and the number of the map.

    Raises:
        GenclsError: some are missing, negative or not finite, or no tensors that a network has.
    """
    names = [f"lin{layer}.model.1.weight" for layer in range(layers)]
    found = {name: _tensor_of(weights, name, net, where, owner=owner) for name in names}
    check_state(f"{owner}: {where}", found)
    for name, tensor in found.items():
        if bool((tensor < 0).any()):
            raise GenclsError(
                f"{owner}: {where}: expected {name} >= 0, so that no distance is negative, got {float(tensor.min()):.3g}"
            )
    return {f"head{layer}": found[name].float().flatten() for layer, name in enumerate(names)}


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
        got = "a folder; name the file in it" if path.is_dir() else "no such file"
        raise GenclsError(f"{owner}: expected {wanted}, as {path}, got {got}")
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
    return _by_name(inner)


def _by_name(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return unwrapped({str(name): tensor for name, tensor in tensors.items()})
