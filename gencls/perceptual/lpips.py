"""Learned perceptual image patch similarity."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from gencls.core import Embedding, GenclsError, ImageDistance, checked
from gencls.perceptual.maps import as_channels, check_dtype
from gencls.perceptual.published import filled_trunk, learned_weights, package_weights, trunk_weights
from gencls.perceptual.shapes import check_one_shape
from gencls.perceptual.trunks import TRUNKS, TrunkName

__all__ = ["LPIPS"]

_DEAD = 1e-20
"""A pixel whose squared length over the channels is smaller counts as 0: LPIPS divides by the length plus 1e-10."""


class LPIPS(ImageDistance):
    """Weighted distance of the maps of a network: sum_l 1/(h_l w_l) sum_hw sum_c v_lc (F_l(x) - F_l(x'))_hwc^2.

    The features of each pixel have length 1 over the channels; a pixel without features is 0, with gradient 0. The weights
    v_lc >= 0 were learned from human judgements. The embedding holds one normalised map per layer, (N, c_l, h_l, w_l).

    Source: Zhang et al. 2018, arXiv:1801.03924; values equal those of the package ``lpips`` 0.1. Shift-tolerant: Ghildyal and
    Liu 2022, arXiv:2207.13686; values equal those of the package ``stlpips-pytorch``. The GAN-inversion thesis uses LPIPS on
    images that are rescaled to 64 x 64 pixels on CIFAR10, and on ImageNet as "VGG" the same with ``lpips=False``.

    Args:
        trunk: the network's weights: a file, or its tensors by name, with or without ``module.`` in front of all names (of
            DataParallel). For the plain networks it is torchvision's:
            ``vgg16-397923af.pth``, ``alexnet-owt-7be5be79.pth`` or ``squeezenet1_1-b8a52dc0.pth`` from
            https://download.pytorch.org/models/, and None is refused, because no package carries them. For the shift-tolerant
            ones it is ``vgg_shift_tolerant.pth`` or ``alex_shift_tolerant.pth`` of the package ``stlpips-pytorch``; None finds
            it where that is installed (``pip install gencls[shift-tolerant]``). The code of the package does not run.
        net: the network: ``"vgg"`` (VGG-16), ``"alex"`` (AlexNet) or ``"squeeze"`` (SqueezeNet 1.1), trained on ImageNet, or
            ``"shift-tolerant-vgg"`` or ``"shift-tolerant-alex"``.
        lpips: whether the learned weights v_lc count; if not they are 1. Those of the plain networks come with the package
            ``lpips``, those of the shift-tolerant ones with the trunk.
        size: height and width in pixels to which images are rescaled first, bilinearly; None leaves them as they are.
        grey_as_rgb: whether images with one channel are repeated; the networks take three.

    Raises:
        GenclsError: the weights are missing (the message says where to get them), belong to another network or are not
            finite; images have another number of channels or another dtype than the network, or are too small for it.
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
        weights, where = trunk_weights(trunk, net, owner="LPIPS")
        self.trunk = filled_trunk(net, weights, where, owner="LPIPS")
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        if lpips:
            own = net.startswith("shift-tolerant")
            learned = weights if own else package_weights("lpips", f"weights/v0.1/{net}.pth", owner="LPIPS")
            origin = where if own else "the package lpips"
            heads = learned_weights(learned, len(self.trunk.taken), net, origin, owner="LPIPS")
            for name, head in heads.items():
                self.register_buffer(name, head)

    def train(self, mode: bool = True) -> Self:
        """Do nothing: the network of a distance stays in eval mode."""
        return super().train(False)

    def extra_repr(self) -> str:
        """The settings."""
        return f"net={self.net!r}, lpips={self.lpips}, size={self.size}, grey_as_rgb={self.grey_as_rgb}"

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
        check_one_shape(self, first, second, "maps (c, h, w)")
        means = [(a - b).square().mean((-2, -1)) for a, b in zip(first, second, strict=True)]
        parts = [part @ getattr(self, f"head{layer}") if self.lpips else part.sum(-1) for layer, part in enumerate(means)]
        return sum(parts[1:], parts[0])


def _normalized(part: Tensor) -> Tensor:
    power = part.square().sum(1, keepdim=True)
    alive = power >= _DEAD
    length = power.where(alive, power.new_ones(())).sqrt()
    return part / (length + 1e-10) * alive
