"""Who draws when: the random streams of the judge and of an attack, and what is seen of the draws made in them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor, nn

from gencls.core import keyed, seeded, stream_seed
from gencls.core.streams.keyed import watched
from gencls.eval.attacks.parts.attack_model import Metered
from gencls.eval.judgement.judge import Decisions, predict
from gencls.eval.judgement.probe import Probe, undeclared

__all__ = ["NotAsExpected", "Roles", "SharedDraw", "understood"]

_Result = TypeVar("_Result")


class NotAsExpected(Exception):
    """A defense behaves otherwise than was known, in a way that it may: it must be asked anew."""


class SharedDraw(NotAsExpected):
    """A draw served the whole batch where each row was taken for a draw of its own."""


class Roles:
    """The streams of one batch: every sample has one of its own for each role.

    Attributes:
        noted: what a row of results must say of the draws.
    """

    def __init__(self, probe: Probe, hashes: list[str], seed: int) -> None:
        """Take what is known of the defense, the keys of the N samples, and the seed of the study."""
        self.probe, self.hashes, self.seed = probe, hashes, seed
        self.noted: set[str] = set()
        self._drew = False
        if not probe.behaviour.repeatable:
            self.noted.add("random numbers of the defense's own, which no seed reaches: this row cannot be repeated")
        if probe.stochastic and not probe.behaviour.random:
            self.noted.add("declared stochastic, but the same images had the same scores in every call before the attack")
        changed, count = probe.behaviour.changed_with_size
        if changed:
            self.noted.add(
                f"{changed} of {count} images had other scores in a smaller batch: rounding at a threshold of the network, or "
                "dependence on the rest of the batch"
            )
        if probe.behaviour.place_dependent:
            self.noted.add("scores depend on the place in the batch: each image was asked alone")

    def check_batch(self, images: Tensor) -> None:
        """See :meth:`gencls.eval.judgement.probe.Probe.check_batch`.

        Raises:
            GenclsError: see there.
            NotAsExpected: if that shows more than was known.
        """
        before = self.probe.behaviour
        self.probe.check_batch(images)
        if self.probe.behaviour != before:
            raise NotAsExpected

    @contextmanager
    def judge(self, *path: object) -> Iterator[None]:
        """Inside the block every sample draws from the judge's stream of this path.

        Raises:
            SharedDraw: if it turns out that a random defense draws for the whole batch.
        """
        seeds = [stream_seed(self.seed, sample, "judge", *path) for sample in self.hashes]
        with seeded(stream_seed(*seeds)), keyed(seeds) as streams, watched() as block:
            yield
        self._drew |= streams.used or block.shared
        if block.shared:
            self._defense_draws_for_all()

    @contextmanager
    def attack(self, samples: list[int], meter: Metered, *path: object) -> Iterator[None]:
        """Inside the block some samples draw from the attack's streams of this path; the model is asked through the meter.

        Raises:
            SharedDraw: see :meth:`judge`. An attack of a stranger's may draw for the whole batch, too. Which of the two it was
                is only known if the meter watches, see :attr:`~gencls.eval.judgement.probe.Probe.watched`.
        """
        seeds = [stream_seed(self.seed, self.hashes[i], "attack", *path) for i in samples]
        meter.watch = self.probe.watched
        with seeded(stream_seed(*seeds)), keyed(seeds), watched() as block:
            yield
        if block.shared and meter.watch and not meter.shared:
            self.noted.add("the attack draws once for the whole batch: what it finds depends on the batch composition")
        elif block.shared:
            self._defense_draws_for_all()

    def _defense_draws_for_all(self) -> None:
        if not self.probe.stochastic:
            return
        if not self.probe.behaviour.shared_draws:
            raise SharedDraw
        self.noted.add("one draw serves the whole batch: what the attack finds depends on the batch composition")

    def confirm(
        self,
        defense: nn.Module,
        decisions: Decisions,
        images: Tensor,
        max_rows: int,
        *path: object,
        doubtful: bool = False,
    ) -> None:
        """Draws of a defense that is declared deterministic must not change its decisions: ask again where it drew.

        Args:
            defense: what was judged.
            decisions: about the images, in the judge's stream of the path.
            images: (N, C, H, W) in [0, 1].
            max_rows: of one forward pass.
            path: of the stream.
            doubtful: ask also where no draw was seen.

        Raises:
            GenclsError: if they do.
        """
        if self.probe.stochastic or not (self._drew or doubtful):
            return
        with self.judge(*path, "again"):
            again = predict(defense, images, 1, max_rows=max_rows).cpu()
        self._drew = False
        made = decisions.predictions.cpu()[:, :1]
        if bool(((again != made) & (made >= 0)).any()):
            raise undeclared(self.probe.name)


def understood(probe: Probe, attempt: Callable[[], _Result]) -> _Result:
    """Attempt something in roles, and again with what that shows: the images that a probe asks beforehand do not show all.

    Where a draw serves the whole batch, the second attempt finds out whose it is. After the attempt the defense is asked again,
    see :meth:`~gencls.eval.judgement.probe.Probe.check_again`.
    """
    while True:
        try:
            result = attempt()
        except SharedDraw:
            if probe.watched:
                probe.draws_are_shared()
            else:
                probe.watched = True
        except NotAsExpected:
            continue
        else:
            if probe.check_again():
                return result
