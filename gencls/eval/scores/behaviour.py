"""How a defense behaves, and how it must be asked therefore."""

from dataclasses import dataclass

from torch import nn

from gencls.eval.scores.forward import ImageByImage


@dataclass(frozen=True)
class Behaviour:
    """What was seen.

    Attributes:
        random: scores of the same images differ between calls.
        repeatable: with the same random streams they do not.
        shared_draws: one draw serves the whole batch, so that the rows of a batch are not independent draws.
        batch_dependent: the scores of an image depend on the other images in the batch.
        place_dependent: they depend on its place in the batch or on the size of the batch, but not on the other images, as
            where a module seeds torch's generator and adds noise to the batch.
        changed_with_size: how many images of a batch, and of how many, had other scores in a smaller one, where these are too
            few to tell dependence from rounding.
        classes: how many the scores have, K; 0 if none were seen.
    """

    random: bool = False
    repeatable: bool = True
    shared_draws: bool = False
    batch_dependent: bool = False
    place_dependent: bool = False
    changed_with_size: tuple[int, int] = (0, 0)
    classes: int = 0

    def judged(self, defense: nn.Module) -> nn.Module:
        """What is asked for decisions, each row of a batch a draw of its own: the defense, image by image if need be."""
        return ImageByImage(defense) if self.shared_draws else self.attacked(defense)

    def attacked(self, surrogate: nn.Module) -> nn.Module:
        """What an attack asks. Of shared draws a batch is one draw, which serves a gradient; see :meth:`draws_per_pass`."""
        return ImageByImage(surrogate) if self.batch_dependent or self.place_dependent else surrogate

    def draws_per_pass(self, samples: int) -> int:
        """How many EoT draws one forward pass of a batch can make, of ``samples``."""
        return 1 if self.shared_draws else samples
