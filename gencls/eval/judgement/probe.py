"""A probe checks what a defense declares: before a measurement, during its draws, and afterwards.

The declarations of a defense decide how it is attacked and judged. A wrong declaration would end in a wrong number.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, check_eval_mode, check_labels, declared, seeded, stream_seed
from gencls.core.keys.samples import device_of
from gencls.core.streams.keyed import Source, drawing
from gencls.eval.attacks.parts.attack_model import Metered
from gencls.eval.judgement.judge import Decisions, predict
from gencls.eval.scores.behaviour import ROUNDING, Behaviour, Examination, differ, handful, observe, observe_batch
from gencls.eval.scores.forward import check_called, scores_of

_Result = TypeVar("_Result")


class Probe:
    """A defense that behaves as it declares, now and later.

    Attributes:
        behaviour: the observed behaviour, which decides how the defense is asked.
        watched: whether draws for a whole batch were seen. Each forward pass is then watched to see who makes them.
    """

    def __init__(self, defense: nn.Module, images: Tensor, *, seed: int = 0, behaviour: Behaviour | None = None) -> None:
        """Observe a defense and compare its behaviour with its declarations.

        Args:
            defense: module of images (N, C, H, W) in [0, 1] -> scores (N, K), in eval mode. It may declare
                ``stochastic = True`` and ``batch_dependent = True``.
            images: (N, C, H, W) in [0, 1], on the defense's device.
            seed: seed of the random streams.
            behaviour: an earlier result of :func:`observe`; None observes.

        Raises:
            GenclsError: for randomness or dependence on the batch that is not declared.
        """
        self.name = type(defense).__name__
        self.stochastic = declared(defense, "stochastic")
        self.behaviour = behaviour or observe(defense, images, seed=seed)
        self.watched = False
        self._defense, self._seed, self._largest = defense, seed, 0
        self._again = Examination(self.behaviour.judged(defense), handful(images)[:1], seed)
        self._first = self._again.ask("later")
        self._check_declared()

    def _check_declared(self) -> None:
        if self.behaviour.random and not self.stochastic:
            raise _undeclared(self.name, repeatable=self.behaviour.repeatable)
        if self.behaviour.batch_dependent and not declared(self._defense, "batch_dependent"):
            raise GenclsError(
                f"{self.name}: expected scores that depend on one image only, got other scores of the same image when the rest "
                "of the batch changed (batch statistics, attention or sorting across the batch); mend that, or declare "
                "batch_dependent = True (for a network: PlainClassifier(network, num_classes, batch_dependent=True)), and each "
                "image is judged alone"
            )

    def check_batch(self, images: Tensor) -> None:
        """Observe the whole batch of a forward pass if it is larger than those before, see :func:`observe_batch`.

        Raises:
            GenclsError: for behaviour that is not declared.
        """
        if len(images) > self._largest:
            self.behaviour = observe_batch(self._defense, images, self.behaviour, seed=self._seed)
            self._largest = len(images)
            self._check_declared()

    def check_again(self) -> bool:
        """Ask the first image again, with the same random numbers.

        Returns:
            True if the scores are the same, or nobody expected that. Otherwise the defense counts as having random numbers of
            its own from now on, and is asked image by image.

        Raises:
            GenclsError: if the scores of a defense that declares no randomness have changed: it counts calls, learns, or looks
                at the clock.
        """
        if not self.behaviour.repeatable or not differ(self._first, self._again.ask("later"), ROUNDING):
            return True
        if self.stochastic:
            self.behaviour = replace(self.behaviour, random=True, repeatable=False, shared_draws=True)
            return False
        raise GenclsError(
            f"{self.name}: expected the same scores of the same images with the same random numbers, before an attack and "
            "after it, got others: the defense keeps a state (a counter, a cache, learning, time); a number would depend "
            "on what was asked before"
        )


def _undeclared(name: str, *, repeatable: bool = True) -> GenclsError:
    """The error for a defense that draws and does not say so."""
    source = "" if repeatable else ", also with the same random numbers (a generator of its own, a counter, time)"
    return GenclsError(
        f"{name}: expected the same scores at each forward, because stochastic is not set, got others{source}; set "
        "stochastic = True, or wrap it as PlainClassifier(network, num_classes, stochastic=True)"
    )


def check_defense(defense: nn.Module, image: Tensor, labels: Tensor, *, gradients: bool = True) -> None:
    """Check that a defense takes images like this one, (1, C, H, W) in [0, 1], and knows these labels.

    With ``gradients``, no gradient mode may be hidden.

    Raises:
        GenclsError: for training mode, images of another shape, scores that are not (1, K), labels beyond K, or an inner
            defense with a gradient mode that the outer one hides.
    """
    name = type(defense).__name__
    check_eval_mode(defense, name=name)
    image = image.to(device_of(defense) or image.device)
    with torch.no_grad(), seeded(0):
        scores: Tensor = check_called(defense, lambda: scores_of(defense, image)) if gradients else scores_of(defense, image)
    check_labels(labels, num_classes=scores.shape[1])


def probe_defense(
    defense: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    seed: int = 0,
    behaviour: Behaviour | None = None,
    gradients: bool = True,
) -> Probe:
    """Check a defense, see :func:`check_defense`, on images (N, C, H, W), and observe how it behaves, see :class:`Probe`.

    Raises:
        GenclsError: as both do, or for something that is no module.
    """
    if not isinstance(defense, nn.Module):
        name = type(defense).__name__
        raise GenclsError(f"defense: expected a torch.nn.Module, images (N, C, H, W) -> scores (N, K), got {name}")
    images = images[:8].to(device_of(defense) or images.device)
    check_defense(defense, images[:1], labels, gradients=gradients)
    return Probe(defense, images, seed=seed, behaviour=behaviour)


class _UnexpectedError(Exception):
    """A defense shows new behaviour that it may have, so it must be asked anew."""


class _SharedDrawError(_UnexpectedError):
    """A draw served the whole batch, although each row had counted as a draw of its own."""


class Roles:
    """The streams of one batch: every sample has one of its own for each role.

    Attributes:
        noted: remarks on the draws for the row of results.
    """

    def __init__(self, probe: Probe, hashes: list[str], seed: int, source: Source = "rows") -> None:
        self.probe, self.hashes, self.seed, self.source = probe, hashes, seed, source
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
        self._note(drew=probe.stochastic)

    def _note(self, *, drew: bool) -> None:
        if drew and self.source == "device":
            self.noted.add(
                "the device's generator drew for whole batches: results depend on the batch composition and the device"
            )

    def check_batch(self, images: Tensor) -> None:
        """See :meth:`gencls.eval.judgement.probe.Probe.check_batch`.

        Raises:
            GenclsError: for behaviour that is not declared.
            _UnexpectedError: for new behaviour that is declared.
        """
        before = self.probe.behaviour
        self.probe.check_batch(images)
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
        self._drew |= block.drew
        self._note(drew=block.drew)
        if block.shared:
            self._defense_draws_for_all()

    @contextmanager
    def attack(self, samples: list[int], meter: Metered, *path: object) -> Iterator[None]:
        """Inside the block some samples draw from the attack's streams of this path; the attack asks through the meter.

        Raises:
            _SharedDrawError: if a random defense turns out to draw for the whole batch. A foreign attack may do so, too. Only a
                watching meter can tell which of the two it was, see :attr:`~gencls.eval.judgement.probe.Probe.watched`.
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

    def confirm(
        self, defense: nn.Module, decisions: Decisions, images: Tensor, max_rows: int, *path: object, doubtful: bool = False
    ) -> None:
        """Ask a defense that is declared deterministic again if it drew: its draws must not change its decisions.

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
            raise _undeclared(self.probe.name)


def understood(probe: Probe, attempt: Callable[[], _Result]) -> _Result:
    """Attempt something in roles. If it shows behaviour that the probe's first images did not show, attempt it again.

    If a draw serves the whole batch, the second attempt finds out who makes it. After the attempt the defense is asked again,
    see :meth:`~gencls.eval.judgement.probe.Probe.check_again`.
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
