"""Deep image structure and texture similarity."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from gencls.core import Embedding, ImageDistance, checked
from gencls.perceptual.maps import as_channels, check_dtype
from gencls.perceptual.published import filled_trunk, package_weights, trunk_weights
from gencls.perceptual.shapes import check_one_shape

__all__ = ["DISTS"]

_STEADY = 1e-6
"""The constants c1 and c2 of the paper."""


class DISTS(ImageDistance):
    """1 - sum of textures and structures of maps: sum_lc alpha_lc (1 - t_lc) + beta_lc (1 - s_lc).

    For channel c of map l the texture t = (2 m m' + c1) / (m^2 + m'^2 + c1) compares the means, the structure
    s = (2 cov + c2) / (var + var' + c2) the maps around them. The maps are the image and five of a VGG-16 whose poolings are
    L2 means. The weights alpha and beta were learned and sum to 1. Shifted textures remain alike. The embedding holds the maps.

    Source: Ding et al. 2020, arXiv:2004.07728; values equal those of torchmetrics, which holds alpha and beta.

    Args:
        trunk: the weights of the VGG-16, trained on ImageNet: torchvision's file ``vgg16-397923af.pth``, from
            https://download.pytorch.org/models/, or its tensors by name. No package carries it, so None is refused.
        grey_as_rgb: whether images with one channel are repeated; the network takes three.

    Raises:
        GenclsError: the weights are missing (the message says where to get them), belong to another network or are not
            finite; images have another number of channels or another dtype than the network.
    """

    mean: Tensor
    std: Tensor
    alpha: Tensor
    beta: Tensor

    @checked
    def __init__(self, trunk: str | Path | Mapping[str, Tensor] | None = None, *, grey_as_rgb: bool = False) -> None:
        super().__init__()
        self.grey_as_rgb = grey_as_rgb
        self.trunk = filled_trunk("dists", *trunk_weights(trunk, "dists", owner="DISTS"), owner="DISTS")
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        found = package_weights("torchmetrics", "functional/image/dists_models/weights.pt", owner="DISTS")
        learned = {name: part.detach().float().flatten() for name, part in found.items()}
        whole = learned["alpha"].sum() + learned["beta"].sum()
        for name in ("alpha", "beta"):
            self.register_buffer(name, learned[name] / whole)

    def train(self, mode: bool = True) -> Self:
        """Do nothing: the network of a distance stays in eval mode."""
        return super().train(False)

    def extra_repr(self) -> str:
        """The setting."""
        return f"grey_as_rgb={self.grey_as_rgb}"

    def embed(self, images: Tensor) -> Embedding:
        """The image and its five maps, (N, c, h, w)."""
        images = as_channels(images, 3, grey_as_rgb=self.grey_as_rgb, owner="DISTS")
        check_dtype(self.trunk, images, owner="DISTS")
        return (images, *self.trunk((images - self.mean) / self.std))

    def compare(self, first: Embedding, second: Embedding) -> Tensor:
        """Distances >= 0, over the leading dimensions of both."""
        check_one_shape(self, first, second, "maps (c, h, w)")
        textures, structures = [], []
        for a, b in zip(first, second, strict=True):
            means = a.mean((-2, -1), keepdim=True), b.mean((-2, -1), keepdim=True)
            rest = a - means[0], b - means[1]
            flat = means[0].flatten(-3), means[1].flatten(-3)
            # (x - y)^2 / (x^2 + y^2 + c) is 1 - (2 x y + c) / (x^2 + y^2 + c), but exactly 0 for equal maps.
            textures.append((flat[0] - flat[1]).square() / (flat[0].square() + flat[1].square() + _STEADY))
            power = rest[0].square().mean((-2, -1)) + rest[1].square().mean((-2, -1))
            structures.append((rest[0] - rest[1]).square().mean((-2, -1)) / (power + _STEADY))
        return torch.cat(textures, -1) @ self.alpha + torch.cat(structures, -1) @ self.beta
