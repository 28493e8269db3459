"""A classifier without a defense: the baseline of every table."""

from torch import Tensor, nn

from gencls.core import Defense, GenclsError, checked

__all__ = ["PlainClassifier"]


class PlainClassifier(Defense):
    """Any module that maps images to scores, as a :class:`~gencls.core.Defense`."""

    @checked
    def __init__(self, network: nn.Module, num_classes: int, *, stochastic: bool = False) -> None:
        """Wrap a network.

        Args:
            network: images (N, C, H, W) in [0, 1] -> scores (N, K); normalisation lives inside.
            num_classes: K >= 2.
            stochastic: whether two forwards on the same images may differ; a network that says so itself need not be told.

        Raises:
            GenclsError: for fewer than two classes.
        """
        super().__init__()
        if num_classes < 2:
            raise GenclsError(f"PlainClassifier: expected num_classes >= 2, got {num_classes}")
        self.network = network
        self.num_classes = num_classes
        self.stochastic = stochastic or bool(getattr(network, "stochastic", False))

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N, K) of the network."""
        scores: Tensor = self.network(images)
        return scores
