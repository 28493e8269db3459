"""A classifier without a defense: the baseline of every table."""

from collections.abc import Mapping

from torch import Tensor, nn

from gencls.core import Defense, GenclsError, checked, declared, forward_draws, surrogates_of

__all__ = ["PlainClassifier"]


class PlainClassifier(Defense):
    """Any module that maps images to scores, as a :class:`~gencls.core.Defense`.

    Around another defense it changes nothing: gradient modes, randomness and draws are those of that defense.
    """

    @checked
    def __init__(
        self, network: nn.Module, num_classes: int, *, stochastic: bool = False, batch_dependent: bool = False
    ) -> None:
        """Wrap a network.

        Args:
            network: images (N, C, H, W) in [0, 1] -> scores (N, K); normalisation lives inside.
            num_classes: K >= 2.
            stochastic: whether two forwards on the same images may differ; a network that says so itself need not be told.
            batch_dependent: whether the scores of an image depend on the rest of the batch; it is then asked image by image.

        Raises:
            GenclsError: for fewer than two classes.
        """
        super().__init__()
        if num_classes < 2:
            raise GenclsError(f"PlainClassifier: expected num_classes >= 2, got {num_classes}")
        self.network = network
        self.num_classes = num_classes
        self.stochastic = stochastic or declared(network, "stochastic")
        self.batch_dependent = batch_dependent or declared(network, "batch_dependent")
        self.training = network.training

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N, K) of the network."""
        scores: Tensor = self.network(images)
        return scores

    def forward_draws(self, images: Tensor, count: int) -> Tensor:
        """Scores (N * count, K): the network decides what it does once per image."""
        return forward_draws(self.network, images, count)

    def surrogates(self) -> Mapping[str, nn.Module]:
        """The network's gradient modes, see :func:`gencls.core.surrogates_of`; an ordinary network has the exact gradient."""
        return {name: self if module is self.network else module for name, module in surrogates_of(self.network).items()}
