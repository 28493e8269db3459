"""Modules that attacks differentiate in place of a part without a useful gradient."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gencls.core.gradient_modes import BPDA_MODE
from gencls.core.settings import checked

__all__ = ["BPDA"]


class BPDA(nn.Module):
    """Backward pass differentiable approximation: the value of ``exact``, the gradient of ``approx``.

    Source: Athalye, Carlini, Wagner, "Obfuscated gradients give a false sense of security", 2018, arXiv:1802.00420.
    """

    @checked
    def __init__(self, exact: nn.Module, approx: nn.Module) -> None:
        """Take two modules with the same input and output shape."""
        super().__init__()
        self.exact = exact
        self.approx = approx
        self.training = exact.training

    def forward(self, images: Tensor) -> Tensor:
        """Compute ``exact(images)``; the backward pass goes through ``approx(images)``."""
        with torch.no_grad():
            value: Tensor = self.exact(images.clone())  # it may work in place
        path = self.approx(images)
        return value.add(path - path.detach())

    def surrogates(self) -> Mapping[str, nn.Module]:
        """The one mode, ``bpda``: this module itself."""
        return {BPDA_MODE.name: self}
