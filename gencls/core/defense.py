"""What a defense is: a function from images to class scores, built in one of two ways."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from gencls.core.eot import forward_draws, repeat_rows
from gencls.core.errors import GenclsError
from gencls.core.gradient_modes import EXACT
from gencls.core.modules.wrappers import chained, declared, surrogates_of
from gencls.core.names import did_you_mean
from gencls.core.settings import checked

__all__ = ["Defense", "Transform", "TransformedClassifier"]


class _Differentiable(nn.Module, ABC):
    """A module that declares how an adaptive attacker may differentiate it."""

    stochastic: bool = False
    """Two forwards on the same images may differ."""

    batch_dependent: bool = False
    """The scores of an image depend on the rest of the batch. An evaluation then asks image by image."""

    _shown: tuple[str, ...] = ()
    """Names of the settings that ``repr`` shows."""

    if TYPE_CHECKING:  # nn.Module.__call__ returns Any

        def __call__(self, images: Tensor) -> Tensor: ...

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Apply the module to images (N, C, H, W) in [0, 1]."""

    def forward_draws(self, images: Tensor, count: int) -> Tensor:
        """Apply ``forward`` to every image ``count`` times: (N, C, H, W) -> (N * count, ...).

        :class:`~gencls.core.EoT` asks for this. A module overrides it if its work before the first random number is costly: it
        does that part once per image and passes the result through :func:`repeat_rows`.
        """
        return self(repeat_rows(images, count))

    def surrogates(self) -> Mapping[str, nn.Module]:
        """The gradient modes: name -> what an attacker differentiates in place of this module; the first is the default.

        An evaluation attacks through every mode, and the worst result of each sample counts. The default is the exact gradient
        of the module itself. A transform with a zero or undefined gradient declares, for instance, ``{"bpda": BPDA(self,
        nn.Identity())}``. A :class:`~gencls.core.GradientMode` in place of a name also says what the mode means, and whether it
        is exact. Each module of a classifier returns scores of its ``num_classes``.

        Read it through :func:`gencls.core.surrogates_of`. That function refuses a class that holds a defense, computes its
        scores in a way of its own and inherits this method: the gradient modes of the inner defense would be lost.
        """
        return {EXACT.name: self}

    def surrogate(self, mode: str | None = None) -> nn.Module:
        """The module that an adaptive attacker differentiates in one gradient mode (None: the default mode).

        Raises:
            GenclsError: the defense does not declare this mode, or it hides the modes of another one inside it.
        """
        modes = surrogates_of(self)
        if mode is None:
            return next(iter(modes.values()))
        if mode not in modes:
            hint = did_you_mean(mode, modes)
            raise GenclsError(f"{type(self).__name__}: {hint}expected a gradient mode among {sorted(modes)}, got {mode!r}")
        return modes[mode]

    def extra_repr(self) -> str:
        """Show the settings."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self._shown)


class Defense(_Differentiable):
    """A defense is all that other code needs to know: images (N, C, H, W) in [0, 1] -> scores (N, K).

    Scores are compared by argmax only: their offset and scale are arbitrary (a Bayes classifier returns log joint densities),
    and evaluation code may not rely on them. Normalisation of the input lives inside. ``forward`` treats each sample on its
    own: ``f(x)[i] == f(x[i:i+1])``, for a stochastic defense in distribution.
    """

    num_classes: int


class Transform(_Differentiable):
    """A map from images to images of the same shape and range; it stands in front of a classifier."""


class TransformedClassifier(Defense):
    """A classifier behind a transform: ``classifier(transform(images))``. The class is final: it composes and adds nothing."""

    @checked
    def __init__(self, transform: Transform, classifier: nn.Module, num_classes: int) -> None:
        """Compose.

        Args:
            transform: images -> images.
            classifier: images (N, C, H, W) in [0, 1] -> scores (N, K), normalising inside.
            num_classes: K >= 2.

        Raises:
            GenclsError: for fewer than two classes.
        """
        super().__init__()
        if num_classes < 2:
            raise GenclsError(f"TransformedClassifier: expected num_classes >= 2, got {num_classes}")
        self.transform = transform
        self.classifier = classifier
        self.num_classes = num_classes
        self.stochastic = declared(transform, "stochastic") or declared(classifier, "stochastic")
        self.batch_dependent = declared(transform, "batch_dependent") or declared(classifier, "batch_dependent")
        self.training = transform.training or classifier.training

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N, K) of the transformed images."""
        scores: Tensor = self.classifier(self.transform(images))
        return scores

    def forward_draws(self, images: Tensor, count: int) -> Tensor:
        """Scores (N * count, K): the transform decides which part it computes once per image."""
        scores: Tensor = self.classifier(forward_draws(self.transform, images, count))
        return scores

    def surrogates(self) -> Mapping[str, nn.Module]:
        """Combine each mode of the transform with each of the classifier (see :func:`gencls.core.modules.wrappers.chained`)."""
        return chained((self.transform, self.classifier), self)
