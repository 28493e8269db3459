"""How a defense behaves, found out by asking it, before anything is measured.

What a defense declares of itself decides how it is attacked and judged. A wrong declaration would end in a wrong number, so a
handful of images is asked first: the same images with the same random numbers, with others, one at a time, and in other
company.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, check_eval_mode, check_labels, declared, keyed, seeded, stream_seed
from gencls.core.generators import GlobalStates, own_seeds_end_here
from gencls.eval.fingerprint import device_of
from gencls.eval.image_by_image import ImageByImage
from gencls.eval.judge import scores_of
from gencls.eval.margins import score_gap

__all__ = ["Behaviour", "Probe", "check_defense", "observe", "probe_defense", "undeclared"]

_HANDFUL = 3
"""Images. An odd number: a draw for the whole batch, which has a size of its own, is less often taken for one per image."""

_ROUNDING = 1e-4
"""Differences of scores, in units of the gap between the best and the mean class, that parallel sums may cause."""

_COMPANY = 1e-3
"""The same for batches of another size, whose sums have another order; an inner optimisation makes more of it."""

_TRIES = 8
"""Further streams, where draws were seen that changed nothing: one network of five is the same in every fifth call."""


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
    """

    random: bool = False
    repeatable: bool = True
    shared_draws: bool = False
    batch_dependent: bool = False
    place_dependent: bool = False

    def judged(self, defense: nn.Module) -> nn.Module:
        """What is asked for decisions, each row of a batch a draw of its own: the defense, image by image if need be."""
        return ImageByImage(defense) if self.shared_draws else self.attacked(defense)

    def attacked(self, surrogate: nn.Module) -> nn.Module:
        """What an attack asks. Of shared draws a batch is one draw, which serves a gradient; see :meth:`draws_per_pass`."""
        return ImageByImage(surrogate) if self.batch_dependent or self.place_dependent else surrogate

    def draws_per_pass(self, samples: int) -> int:
        """How many EoT draws one forward pass of a batch can make, of ``samples``."""
        return 1 if self.shared_draws else samples


@torch.no_grad()
def observe(defense: nn.Module, images: Tensor, *, seed: int = 0) -> Behaviour:
    """Ask a defense about a handful of images and compare what it says.

    Args:
        defense: images (N, C, H, W) in [0, 1] -> scores (N, K), in eval mode. One that declares ``batch_dependent = True`` is
            believed, and asked image by image.
        images: (N, C, H, W) in [0, 1], on the defense's device; the first three count.
        seed: of the random streams.

    Raises:
        GenclsError: if the defense changes the images that it is given.
    """
    if declared(defense, "batch_dependent"):
        seen = _Examination(ImageByImage(defense), _handful(images), seed)
        return replace(seen.randomness(), batch_dependent=True)
    seen = _Examination(defense, _handful(images), seed)
    return seen.company(seen.randomness())


class Probe:
    """A defense whose behaviour is what it declares, and stays so.

    Attributes:
        behaviour: how it must be asked.
    """

    def __init__(self, defense: nn.Module, images: Tensor, *, seed: int = 0, behaviour: Behaviour | None = None) -> None:
        """Observe a defense and hold what was seen against what it declares.

        Args:
            defense: see :func:`observe`. It may declare ``stochastic = True`` and ``batch_dependent = True``.
            images: (N, C, H, W) in [0, 1], on the defense's device.
            seed: of the random streams.
            behaviour: what :func:`observe` has seen already; None looks.

        Raises:
            GenclsError: for randomness or dependence on the batch that is not declared.
        """
        self.name = type(defense).__name__
        self.stochastic = declared(defense, "stochastic")
        self.behaviour = behaviour or observe(defense, images, seed=seed)
        self._again = _Examination(self.behaviour.judged(defense), _handful(images), seed)
        self._first = self._again.ask("later")
        if self.behaviour.random and not self.stochastic:
            raise undeclared(self.name, repeatable=self.behaviour.repeatable)
        if self.behaviour.batch_dependent and not declared(defense, "batch_dependent"):
            raise GenclsError(
                f"{self.name}: expected scores that depend on one image only, got other scores of the same image when the rest "
                "of the batch changed (batch statistics, attention or sorting across the batch); mend that, or declare "
                "batch_dependent = True (for a network: PlainClassifier(network, num_classes, batch_dependent=True)), and each "
                "image is judged alone"
            )

    def draws_are_shared(self) -> None:
        """Take note that a draw was shared by the batch, which the handful of images had not shown."""
        self.behaviour = replace(self.behaviour, shared_draws=True)

    def check_again(self) -> None:
        """Ask the first images again, with the same random numbers.

        Raises:
            GenclsError: if the scores are others now: the defense counts calls, learns, or looks at the clock.
        """
        if self.behaviour.repeatable and _differ(self._first, self._again.ask("later"), _ROUNDING):
            raise GenclsError(
                f"{self.name}: expected the same scores of the same images with the same random numbers, before an attack and "
                "after it, got others: the defense keeps a state (a counter, a cache, learning, time); a number would depend "
                "on what was asked before"
            )


def undeclared(name: str, *, repeatable: bool = True) -> GenclsError:
    """The error for a defense that draws and does not say so."""
    source = "" if repeatable else ", also with the same random numbers (a generator of its own, a counter, time)"
    return GenclsError(
        f"{name}: expected the same scores at each forward, because stochastic is not set, got others{source}; set "
        "stochastic = True, or wrap it as PlainClassifier(network, num_classes, stochastic=True)"
    )


def _handful(images: Tensor) -> Tensor:
    """Three different images: the first ones, or mirrored and inverted ones where there are fewer."""
    few = images[:_HANDFUL].detach()
    return torch.cat([few, few.flip(-1), 1 - few])[:_HANDFUL]


def _differ(one: Tensor, two: Tensor, tolerance: float) -> bool:
    """Whether scores (N, K) differ by more than rounding; those that are not finite are compared as they are."""
    if one.shape != two.shape:
        return True
    finite = torch.isfinite(one) & torch.isfinite(two)
    if not bool(finite.all()):
        return not torch.equal(one.nan_to_num(), two.nan_to_num())
    return bool(((one - two).abs() / score_gap(one)).amax() > tolerance)


class _Examination:
    """One defense and a handful of images with the streams of their own."""

    def __init__(self, defense: nn.Module, images: Tensor, seed: int) -> None:
        self.defense, self.images, self.seed = defense, images, seed
        self.drew = False
        self.shared = False

    @torch.no_grad()
    def ask(self, stream: str, rows: list[int] | None = None, images: Tensor | None = None) -> Tensor:
        """Scores of the images, or of some of their rows, or of others in the same streams; float64."""
        rows = list(range(len(self.images))) if rows is None else rows
        asked = self.images[rows] if images is None else images
        given = asked.clone()
        with self._streams(stream, rows):
            scores: Tensor = self.defense(given)
        if not torch.equal(asked, given):
            raise GenclsError(
                f"{type(self.defense).__name__}: expected a forward pass that leaves its images as they are, got changed ones; "
                "write x = x - mean, not x.sub_(mean)"
            )
        return scores.double()

    @contextmanager
    def _streams(self, stream: str, rows: list[int]) -> Iterator[None]:
        seeds = [stream_seed(self.seed, "probe", stream, row) for row in rows]
        with seeded(stream_seed(*seeds)), keyed(seeds) as streams:
            before = GlobalStates()
            with own_seeds_end_here():
                yield
            moved = before != GlobalStates()
        self.drew |= streams.used or moved
        self.shared |= bool(streams.shared) or moved

    def randomness(self) -> Behaviour:
        """The same images with the same streams, and with others."""
        self.first = self.ask("one")
        repeatable = not _differ(self.first, self.ask("one"), _ROUNDING)
        random = not repeatable or _differ(self.first, self.ask("two"), _ROUNDING)
        for number in range(_TRIES if self.drew and not random else 0):
            random = random or _differ(self.first, self.ask(f"try {number}"), _ROUNDING)
        return Behaviour(random, repeatable)

    def company(self, behaviour: Behaviour) -> Behaviour:
        """Images alone, and the first one in other company, each with the streams that it had before."""
        if not behaviour.repeatable:  # nothing can be told from what draws at will: each image is asked alone
            return replace(behaviour, shared_draws=True)
        alone = torch.cat([self.ask("one", [row]) for row in range(len(self.images))])
        others = torch.cat([self.images[:1], 1 - self.images[1:].flip(0)])
        company = self.ask("one", images=others)[:1]
        dependent = _differ(self.first[:1], company, _COMPANY)
        apart = _differ(self.first, alone, _COMPANY)
        if (dependent or apart) and self._restless():
            return Behaviour(random=True, repeatable=False, shared_draws=True)
        if behaviour.random:
            return replace(behaviour, batch_dependent=dependent, shared_draws=apart or self.shared)
        return replace(behaviour, batch_dependent=dependent, place_dependent=apart)

    def _restless(self) -> bool:
        """Whether the very same question has several answers after all, which the first two did not show."""
        return any(_differ(self.first, self.ask("one"), _ROUNDING) for _ in range(_TRIES))


def check_defense(defense: nn.Module, image: Tensor, labels: Tensor) -> None:
    """Check that a defense takes such images and knows these labels.

    Args:
        defense: the module.
        image: (1, C, H, W) in [0, 1].
        labels: int64 (N,).

    Raises:
        GenclsError: for training mode, images of another shape, scores that are not (1, K), or labels beyond K.
    """
    name = type(defense).__name__
    check_eval_mode(defense, name=name)
    with torch.no_grad(), seeded(0):
        scores: object = scores_of(defense, image.to(device_of(defense) or image.device, copy=True))
    if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != 1:
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise GenclsError(f"{name}: expected scores of shape (1, K) for one image, got {got}")
    if scores.shape[1] < 2:
        raise GenclsError(f"{name}: expected scores of at least 2 classes, got {scores.shape[1]}")
    check_labels(labels, num_classes=scores.shape[1])


def probe_defense(defense: nn.Module, images: Tensor, labels: Tensor, *, seed: int = 0) -> Probe:
    """Check a defense, see :func:`check_defense`, and observe how it behaves, see :class:`~gencls.eval.probe.Probe`.

    Args:
        defense: the module.
        images: (N, C, H, W) in [0, 1].
        labels: int64 (N,).
        seed: of the random streams.

    Raises:
        GenclsError: see there.
    """
    images = images[:8].to(device_of(defense) or images.device)
    check_defense(defense, images[:1], labels)
    return Probe(defense, images, seed=seed)
