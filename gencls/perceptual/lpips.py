"""Learned perceptual image patch similarity."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from gencls.core import Embedding, GenclsError, ImageDistance, checked
from gencls.perceptual.maps import as_channels, check_dtype
from gencls.perceptual.trunks import TRUNKS, Trunk, TrunkName

__all__ = ["LPIPS"]

_DEAD = 1e-20
"""A pixel whose squared length over the channels is smaller counts as 0: LPIPS divides by the length plus 1e-10."""

_FILES = {
    "shift-tolerant-vgg": "weights/vST0.0/vgg_shift_tolerant.pth",
    "shift-tolerant-alex": "weights/vST0.0/alex_shift_tolerant.pth",
}
"""The files in the package stlpips_pytorch."""


class LPIPS(ImageDistance):
    """Weighted distance of the maps of a network: sum_l 1/(h_l w_l) sum_hw sum_c v_lc (F_l(x) - F_l(x'))_hwc^2.

    The features of each pixel have length 1 over the channels; a pixel without features is 0, with gradient 0. The weights
    v_lc >= 0 were learned from human judgements. The embedding holds one normalised map per layer, (N, c_l, h_l, w_l).

    Source: Zhang et al. 2018, arXiv:1801.03924; values equal those of the package ``lpips`` 0.1. Shift-tolerant: Ghildyal and
    Liu 2022, arXiv:2207.13686; values equal those of the package ``stlpips-pytorch``. The GAN-inversion thesis uses LPIPS on
    images that are rescaled to 64 x 64 pixels on CIFAR10, and on ImageNet as "VGG" the same with ``lpips=False``.

    Args:
        trunk: the network's weights: a file, or its tensors by name, in torchvision's layout, or for the shift-tolerant
            networks in that of their package. None: the file in the installed package ``stlpips-pytorch``, whose code does not
            run; the weights of torchvision's networks are in no package.
        net: the network: ``"vgg"`` (VGG-16), ``"alex"`` (AlexNet) or ``"squeeze"`` (SqueezeNet 1.1), trained on ImageNet, or
            ``"shift-tolerant-vgg"`` or ``"shift-tolerant-alex"``.
        lpips: whether the learned weights v_lc count; if not they are 1. Those of the plain networks come with the package
            ``lpips``, those of the shift-tolerant ones with the trunk.
        size: height and width in pixels to which images are rescaled first, bilinearly; None leaves them as they are.
        grey_as_rgb: whether images with one channel are repeated; the networks take three.

    Raises:
        GenclsError: the weights are missing (the message says where to get them) or belong to another network; images have
            another number of channels or another dtype than the network, or are too small for it.
    """

    shift: Tensor
    scale: Tensor

    @checked
    def __init__(
        self,
        trunk: str | Path | Mapping[str, Tensor] | None = None,
        net: TrunkName = "vgg",
        *,
        lpips: bool = True,
        size: int | None = None,
        grey_as_rgb: bool = False,
    ) -> None:
        super().__init__()
        if size is not None and size < 1:
            raise GenclsError(f"LPIPS: expected size >= 1 pixel, got {size}")
        self.net, self.lpips, self.size, self.grey_as_rgb = net, lpips, size, grey_as_rgb
        weights, where = _weights(trunk, net)
        self.trunk = _filled(net, weights, where)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        if lpips:
            found, where = (weights, where) if net in _FILES else _package_heads(net)
            for layer in range(len(self.trunk.taken)):
                self.register_buffer(f"head{layer}", _tensor(found, f"lin{layer}.model.1.weight", net, where).float().flatten())

    def train(self, mode: bool = True) -> Self:
        """Do nothing: the network of a distance stays in eval mode."""
        return super().train(False)

    def embed(self, images: Tensor) -> Embedding:
        """One map per layer, (N, c, h, w), of length 1 over the channels."""
        images = as_channels(images, 3, grey_as_rgb=self.grey_as_rgb, owner="LPIPS")
        check_dtype(self.trunk, images, owner="LPIPS")
        if self.size is not None:
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", align_corners=False)
        smallest = TRUNKS[self.net].smallest
        if min(images.shape[-2:]) < smallest:
            height, width = images.shape[-2:]
            raise GenclsError(
                f"LPIPS: expected images of at least {smallest} x {smallest} pixels for {TRUNKS[self.net].title}, got "
                f"{height} x {width}; set size={max(64, smallest)} to rescale them"
            )
        return tuple(_normalized(part) for part in self.trunk((2 * images - 1 - self.shift) / self.scale))

    def compare(self, first: Embedding, second: Embedding) -> Tensor:
        """Distances >= 0, over the leading dimensions of both."""
        means = [(a - b).square().mean((-2, -1)) for a, b in zip(first, second, strict=True)]
        parts = [part @ getattr(self, f"head{layer}") if self.lpips else part.sum(-1) for layer, part in enumerate(means)]
        return sum(parts[1:], parts[0])


def _normalized(part: Tensor) -> Tensor:
    power = part.square().sum(1, keepdim=True)
    alive = power >= _DEAD
    length = power.where(alive, power.new_ones(())).sqrt()
    return part / (length + 1e-10) * alive


def _weights(trunk: str | Path | Mapping[str, Tensor] | None, net: TrunkName) -> tuple[Mapping[str, Tensor], str]:
    """The tensors of a trunk, and where they come from."""
    if isinstance(trunk, Mapping):
        return trunk, "the tensors that were given"
    if trunk is not None:
        return _read(Path(trunk), net), str(trunk)
    folder = _folder("stlpips_pytorch") if net in _FILES else None
    if folder is None:
        raise GenclsError(f"LPIPS: expected trunk, the weights of {TRUNKS[net].title}, got none; take {TRUNKS[net].source}")
    return _read(folder / _FILES[net], net), str(folder / _FILES[net])


def _read(path: Path, net: TrunkName) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise GenclsError(f"LPIPS: expected {TRUNKS[net].source}, as {path}, got no such file")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever is in the file: torch raises many kinds
        raise GenclsError(
            f"LPIPS: expected {TRUNKS[net].source}, got {path}, which torch.load cannot read ({type(error).__name__}); of "
            "another kind of file give the tensors by their names"
        ) from error
    inner = found.get("state_dict", found) if isinstance(found, Mapping) else None
    if not isinstance(inner, Mapping):
        raise GenclsError(f"LPIPS: expected {TRUNKS[net].source}, got {path} with {type(found).__name__} inside")
    return inner


def _filled(net: TrunkName, weights: Mapping[str, Tensor], where: str) -> Trunk:
    """The trunk with these weights, in eval mode, without gradients of its parameters."""
    trunk = TRUNKS[net].make()
    tolerant = {re.sub(r"^net\.slice\d+\.", "features.", name): name for name in weights} if net in _FILES else {}
    names = {name: tolerant.get(f"features.{name}", f"features.{name}") for name in trunk.state_dict()}
    found = {name: _tensor(weights, published, net, where) for name, published in names.items()}
    for name, own in trunk.state_dict().items():
        if own.shape != found[name].shape:
            raise GenclsError(
                f"LPIPS: expected {names[name]} of shape {tuple(own.shape)}, as in {TRUNKS[net].title}, got "
                f"{tuple(found[name].shape)} in {where}; take {TRUNKS[net].source}"
            )
    trunk.load_state_dict(found)
    return trunk.eval().requires_grad_(False)


def _tensor(weights: Mapping[str, Tensor], name: str, net: TrunkName, where: str) -> Tensor:
    found = weights.get(name)
    if isinstance(found, Tensor):
        return found
    raise GenclsError(f"LPIPS: expected {name} of {TRUNKS[net].title}, got none in {where}; take {TRUNKS[net].source}")


def _package_heads(net: TrunkName) -> tuple[Mapping[str, Tensor], str]:
    folder = _folder("lpips")
    if folder is None:
        raise GenclsError("LPIPS: expected the package lpips, which holds the learned weights, got none; pip install lpips")
    path = folder / "weights" / "v0.1" / f"{net}.pth"
    return _read(path, net), str(path)


def _folder(package: str) -> Path | None:
    """The folder of an installed package, whose code does not run."""
    spec = find_spec(package)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None
