"""The behaviour of a defense, and how it must therefore be asked."""

from dataclasses import dataclass

from torch import nn

from gencls.eval.scores.forward import ImageByImage


@dataclass(frozen=True)
class Behaviour:
    """The observed behaviour of a defense.

    Attributes:
        random: whether scores of the same images differ between calls.
        repeatable: whether they are the same under the same random streams.
        shared_draws: whether one draw serves the whole batch, so that the rows of a batch are not independent draws.
        batch_dependent: whether the scores of an image depend on the other images in the batch.
        place_dependent: whether they depend on the image's place in the batch or on the batch's size, but not on the other
            images. A module that seeds torch's generator and adds noise to the batch is an example.
        changed_with_size: two counts: images of a batch that had other scores in a smaller one, and images of that batch. They
            are set if the former are too few to tell dependence from rounding.
        classes: the number of classes K of the scores; 0 if none were seen.
    """

    random: bool = False
    repeatable: bool = True
    shared_draws: bool = False
    batch_dependent: bool = False
    place_dependent: bool = False
    changed_with_size: tuple[int, int] = (0, 0)
    classes: int = 0

    def judged(self, defense: nn.Module) -> nn.Module:
        """The module that gives decisions, each row of a batch a draw of its own: the defense, image by image if need be."""
        return ImageByImage(defense) if self.shared_draws else self.attacked(defense)

    def attacked(self, surrogate: nn.Module) -> nn.Module:
        """The module that an attack asks. A batch of one shared draw is enough for a gradient; see :meth:`draws_per_pass`."""
        return ImageByImage(surrogate) if self.batch_dependent or self.place_dependent else surrogate

    def draws_per_pass(self, samples: int) -> int:
        """How many of ``samples`` EoT draws one forward pass of a batch can make."""
        return 1 if self.shared_draws else samples
