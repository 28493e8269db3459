"""Binarisation in front of a classifier, as the binary variant of ABS has it (Schott et al. 2019, arXiv:1805.09190)."""

from collections.abc import Mapping

from torch import Tensor, nn

from gencls.core import BPDA, GenclsError, Transform, checked

__all__ = ["Binarize"]


class Binarize(Transform):
    """Each value becomes 1 if it is at least the threshold, else 0.

    The gradient is zero wherever it exists, so an attacker takes the straight-through one: gradient mode "bpda", the exact
    values with the gradient of the identity (Athalye et al. 2018, arXiv:1802.00420).
    """

    _shown = ("threshold",)

    @checked
    def __init__(self, threshold: float = 0.5) -> None:
        """Take the ``threshold`` in (0, 1), in [0, 1] pixel units.

        Raises:
            GenclsError: for a threshold outside (0, 1), which would make all images alike.
        """
        super().__init__()
        if not 0 < threshold < 1:
            raise GenclsError(f"Binarize: expected a threshold in (0, 1), got {threshold}")
        self.threshold = threshold

    def forward(self, images: Tensor) -> Tensor:
        """Images of zeros and ones, same shape and dtype, without a gradient."""
        return (images >= self.threshold).to(images.dtype)

    def surrogates(self) -> Mapping[str, nn.Module]:
        """``bpda`` only: the exact gradient is zero."""
        return {"bpda": BPDA(self, nn.Identity())}
