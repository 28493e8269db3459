"""Who draws when: the random streams of a batch, and what is done where they show that a defense must be asked otherwise."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from gencls.core import stream_seed
from gencls.core.streams.keyed import Source, drawing
from gencls.eval.attacks.parts.attack_model import Metered
from gencls.eval.scores.probe import Probe

_Result = TypeVar("_Result")


class _UnexpectedError(Exception):
    """A defense shows new behaviour that it may have, so it must be asked anew."""


class _SharedDrawError(_UnexpectedError):
    """A draw served the whole batch, although each row had counted as a draw of its own."""


class Roles:
    """The streams of one batch: every sample has one of its own for each role.

    Attributes:
        noted: remarks on the draws for the row of results.
        drew: whether anything was drawn since the decisions of the defense were confirmed.
    """

    def __init__(self, probe: Probe, hashes: list[str], seed: int, source: Source = "rows") -> None:
        self.probe, self.hashes, self.seed, self.source = probe, hashes, seed, source
        self.noted: set[str] = set()
        self.drew = False
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
        self._note(drew=probe.stochastic)

    def _note(self, *, drew: bool) -> None:
        if drew and self.source == "device":
            self.noted.add(
                "the device's generator drew for whole batches: results depend on the batch composition and the device"
            )

    @contextmanager
    def unsurprised(self) -> Iterator[None]:
        """Inside the block the probe looks again.

        Raises:
            _UnexpectedError: for new behaviour.
        """
        before = self.probe.behaviour
        yield
        if self.probe.behaviour != before:
            raise _UnexpectedError

    @contextmanager
    def judge(self, *path: object) -> Iterator[None]:
        """Inside the block every sample draws from the judge's stream of this path.

        Raises:
            _SharedDrawError: if a random defense turns out to draw for the whole batch.
        """
        with drawing([stream_seed(self.seed, sample, "judge", *path) for sample in self.hashes], self.source) as block:
            yield
        self.drew |= block.drew
        self._note(drew=block.drew)
        if block.shared:
            self._defense_draws_for_all()

    @contextmanager
    def attack(self, samples: list[int], meter: Metered, *path: object) -> Iterator[None]:
        """Inside the block some samples draw from the attack's streams of this path; the attack asks through the meter.

        Raises:
            _SharedDrawError: if a random defense turns out to draw for the whole batch. A foreign attack may do so, too. Only a
                watching meter can tell which of the two it was, see :attr:`~gencls.eval.scores.probe.Probe.watched`.
        """
        meter.watch = self.probe.watched
        with drawing([stream_seed(self.seed, self.hashes[i], "attack", *path) for i in samples], self.source) as block:
            yield
        self._note(drew=block.drew)
        if block.shared and meter.watch and not meter.shared:
            self.noted.add("the attack draws once for the whole batch: what it finds depends on the batch composition")
        elif block.shared:
            self._defense_draws_for_all()

    def _defense_draws_for_all(self) -> None:
        if not self.probe.stochastic:
            return
        if not self.probe.behaviour.shared_draws:
            raise _SharedDrawError
        self.noted.add("one draw serves the whole batch: what the attack finds depends on the batch composition")


def understood(probe: Probe, attempt: Callable[[], _Result]) -> _Result:
    """Attempt something in roles. If it shows behaviour that the probe's first images did not show, attempt it again.

    If a draw serves the whole batch, the second attempt finds out who makes it. After the attempt the defense is asked again,
    see :meth:`~gencls.eval.scores.probe.Probe.check_again`.
    """
    while True:
        try:
            result = attempt()
        except _SharedDrawError:
            if probe.watched:
                probe.behaviour = replace(probe.behaviour, shared_draws=True)  # the first few images had not shown it
            else:
                probe.watched = True
        except _UnexpectedError:
            continue
        else:
            if probe.check_again():
                return result
