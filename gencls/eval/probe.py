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
from gencls.core.called import check_called
from gencls.core.generators import own_seeds_end_here
from gencls.core.rng import watched
from gencls.eval.fingerprint import device_of
from gencls.eval.forward import scores_of
from gencls.eval.image_by_image import ImageByImage
from gencls.eval.margins import score_gap

__all__ = ["Behaviour", "Probe", "check_defense", "observe", "observe_batch", "probe_defense", "undeclared"]

_HANDFUL = 3
"""Images. An odd number: a draw for the whole batch, which has a size of its own, is less often taken for one per image."""

_ROUNDING = 1e-4
"""Differences of scores, in units of the gap between the best and the mean class, that parallel sums may cause."""

_COMPANY = 1e-3
"""The same for batches of another size, whose sums have another order; an inner optimisation makes more of it."""

_TRIES = 64
"""Further streams, where draws were seen that changed nothing: what happens in one call of twenty is seen in 96 of 100."""

_REPEATS = 8
"""Further calls with the same streams, where nothing was seen to draw: a generator of the module's own cannot be watched."""

_MIXES = 24
"""Calls in which one row keeps its stream and the others change theirs."""

_FEW_ROWS = 0.05
"""Share of a batch whose scores may change with its size: rounding may turn a threshold within a network for single images."""


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


@torch.no_grad()
def observe_batch(defense: nn.Module, images: Tensor, behaviour: Behaviour, *, seed: int = 0) -> Behaviour:
    """Ask a defense about a whole batch at once and in two parts: a handful does not fill what has a capacity.

    Args:
        defense: see :func:`observe`.
        images: (N, C, H, W) in [0, 1], on the defense's device, of one forward pass.
        behaviour: what :func:`observe` has seen.
        seed: of the random streams.

    Returns:
        The behaviour with what this adds.
    """
    if behaviour.judged(defense) is not defense or len(images) <= _HANDFUL:  # each image is asked alone, or was
        return behaviour
    batch, rows = _Examination(defense, images, seed), list(range(len(images)))[::-1]
    halves = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    whole, parts = batch.ask("batch"), torch.cat([batch.ask("batch", half) for half in halves]).flip(0)
    changed = _changed(whole, parts, _COMPANY)
    if not bool(changed.any()):
        return behaviour
    if batch.restless("batch", whole, tries=_TRIES):
        return replace(behaviour, random=True, repeatable=False, shared_draws=True)
    if behaviour.random and batch.shared:
        return replace(behaviour, shared_draws=True)
    return replace(behaviour, batch_dependent=float(changed.double().mean()) > _FEW_ROWS)


class Probe:
    """A defense whose behaviour is what it declares, and stays so.

    Attributes:
        behaviour: how it must be asked.
        watched: whether draws for a whole batch were seen, so that each forward pass is watched for whose they are.
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
        self.watched = False
        self._defense, self._seed, self._batch_checked = defense, seed, False
        self._again = _Examination(self.behaviour.judged(defense), _handful(images), seed)
        self._first = self._again.ask("later")
        self._check_declared()

    def _check_declared(self) -> None:
        if self.behaviour.random and not self.stochastic:
            raise undeclared(self.name, repeatable=self.behaviour.repeatable)
        if self.behaviour.batch_dependent and not declared(self._defense, "batch_dependent"):
            raise GenclsError(
                f"{self.name}: expected scores that depend on one image only, got other scores of the same image when the rest "
                "of the batch changed (batch statistics, attention or sorting across the batch); mend that, or declare "
                "batch_dependent = True (for a network: PlainClassifier(network, num_classes, batch_dependent=True)), and each "
                "image is judged alone"
            )

    def check_batch(self, images: Tensor) -> None:
        """Observe a whole batch, the first that comes, see :func:`observe_batch`.

        Args:
            images: (N, C, H, W) in [0, 1], on the defense's device, of one forward pass.

        Raises:
            GenclsError: if that shows what is not declared.
        """
        if not self._batch_checked:
            self.behaviour = observe_batch(self._defense, images, self.behaviour, seed=self._seed)
            self._batch_checked = True
            self._check_declared()

    def draws_are_shared(self) -> None:
        """Take note that a draw was shared by the batch, which the handful of images had not shown."""
        self.behaviour = replace(self.behaviour, shared_draws=True)

    def check_again(self) -> bool:
        """Ask the first images again, with the same random numbers.

        Returns:
            Whether the scores are the same, or this was never expected. If not, the defense is known to have random numbers of
            its own from now on, and is asked image by image.

        Raises:
            GenclsError: if the scores of a defense that declares no randomness are others now: it counts calls, learns, or
                looks at the clock.
        """
        if not self.behaviour.repeatable or not _differ(self._first, self._again.ask("later"), _ROUNDING):
            return True
        if self.stochastic:
            self.behaviour = replace(self.behaviour, random=True, repeatable=False, shared_draws=True)
            return False
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
    """Whether any scores (N, K) differ by more than rounding."""
    return one.shape != two.shape or bool(_changed(one, two, tolerance).any())


def _changed(one: Tensor, two: Tensor, tolerance: float) -> Tensor:
    """Which rows (N,) of scores (N, K) differ by more than rounding; those that are not finite are compared as they are."""
    finite = (torch.isfinite(one) & torch.isfinite(two)).all(dim=1)
    exactly = (one.nan_to_num() != two.nan_to_num()).any(dim=1)
    return ((one - two).abs() / score_gap(one)).nan_to_num().amax(dim=1).gt(tolerance).where(finite, exactly)


class _Examination:
    """One defense and a handful of images with the streams of their own."""

    def __init__(self, defense: nn.Module, images: Tensor, seed: int) -> None:
        self.defense, self.images, self.seed = defense, images, seed
        self.drew = False
        self.shared = False

    @torch.no_grad()
    def ask(
        self, stream: str, rows: list[int] | None = None, images: Tensor | None = None, keep: tuple[int, str] | None = None
    ) -> Tensor:
        """Scores of the images, or of some of their rows, or of others in the same streams; float64.

        Args:
            stream: name of the streams.
            rows: of the images; None takes all.
            images: others in the place of the rows.
            keep: a row and the name of another stream that it has.
        """
        rows = list(range(len(self.images))) if rows is None else rows
        asked = self.images[rows] if images is None else images
        given = asked.clone()
        names = [keep[1] if keep and keep[0] == row else stream for row in rows]
        with self._streams([stream_seed(self.seed, "probe", name, row) for name, row in zip(names, rows, strict=True)]):
            scores: Tensor = self.defense(given)
        if not torch.equal(asked, given):
            raise GenclsError(
                f"{type(self.defense).__name__}: expected a forward pass that leaves its images as they are, got changed ones; "
                "write x = x - mean, not x.sub_(mean)"
            )
        return scores.double()

    @contextmanager
    def _streams(self, seeds: list[int]) -> Iterator[None]:
        with seeded(stream_seed(*seeds)), keyed(seeds) as streams, watched() as seen, own_seeds_end_here():
            yield
        self.drew |= streams.used or seen.shared
        self.shared |= seen.shared

    def randomness(self) -> Behaviour:
        """The same images with the same streams, and with others."""
        self.first = self.ask("one")
        repeatable = not _differ(self.first, self.ask("one"), _ROUNDING)
        random = not repeatable or _differ(self.first, self.ask("two"), _ROUNDING)
        if not random and self.drew:
            random = any(_differ(self.first, self.ask(f"try {number}"), _ROUNDING) for number in range(_TRIES))
        elif not random and self.restless("one", self.first):
            random, repeatable = True, False
        return Behaviour(random, repeatable)

    def company(self, behaviour: Behaviour) -> Behaviour:
        """Images alone, and the first one in other company, each with the streams that it had before."""
        if not behaviour.repeatable:  # nothing can be told from what draws at will: each image is asked alone
            return replace(behaviour, shared_draws=True)
        alone = torch.cat([self.ask("one", [row]) for row in range(len(self.images))])
        dependent = any(_differ(self.first[[row]], self._beside_others(row), _COMPANY) for row in (0, 1))  # before and behind
        apart = _differ(self.first, alone, _COMPANY)
        if (dependent or apart) and self.restless("one", self.first, tries=_TRIES):
            return Behaviour(random=True, repeatable=False, shared_draws=True)
        if behaviour.random:
            return replace(behaviour, batch_dependent=dependent, shared_draws=apart or self.shared or self._mixes_streams())
        return replace(behaviour, batch_dependent=dependent, place_dependent=apart)

    def _beside_others(self, row: int) -> Tensor:
        """Scores (1, K) of an image where all the others are exchanged."""
        others = 1 - self.images.flip(0)
        others[row] = self.images[row]
        return self.ask("one", images=others)[[row]]

    def _mixes_streams(self) -> bool:
        """Whether the scores of a row change with the streams of the others: one entry of a draw per row may serve all."""
        for number in range(_MIXES):
            row = number % len(self.images)
            if _differ(self.first[[row]], self.ask(f"mix {number}", keep=(row, "one"))[[row]], _ROUNDING):
                return True
        return False

    def restless(self, stream: str, answer: Tensor, *, tries: int = _REPEATS) -> bool:
        """Whether the very same question has several answers after all."""
        return any(_differ(answer, self.ask(stream), _ROUNDING) for _ in range(tries))


def check_defense(defense: nn.Module, image: Tensor, labels: Tensor, *, gradients: bool = True) -> None:
    """Check that a defense takes such images and knows these labels.

    Args:
        defense: the module.
        image: (1, C, H, W) in [0, 1].
        labels: int64 (N,).
        gradients: whether an attack will use them, so that no gradient mode may be hidden.

    Raises:
        GenclsError: for training mode, images of another shape, scores that are not (1, K), labels
            beyond K, or a defense with a gradient mode that is called from within and would be hidden.
    """
    name = type(defense).__name__
    check_eval_mode(defense, name=name)
    image = image.to(device_of(defense) or image.device, copy=True)
    with torch.no_grad(), seeded(0):
        scores: object = check_called(defense, lambda: scores_of(defense, image)) if gradients else scores_of(defense, image)
    if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != 1:
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise GenclsError(f"{name}: expected scores of shape (1, K) for one image, got {got}")
    if not scores.is_floating_point():
        raise GenclsError(f"{name}: expected floating-point scores, got {scores.dtype}")
    if scores.shape[1] < 2:
        raise GenclsError(f"{name}: expected scores of at least 2 classes, got {scores.shape[1]}")
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
    """Check a defense, see :func:`check_defense`, and observe how it behaves, see :class:`~gencls.eval.probe.Probe`.

    Args:
        defense: the module.
        images: (N, C, H, W) in [0, 1].
        labels: int64 (N,).
        seed: of the random streams.
        behaviour: what was seen of an equal defense already; None looks.
        gradients: whether an attack will use them, so that no gradient mode may be hidden.

    Raises:
        GenclsError: see there.
    """
    if not isinstance(defense, nn.Module):
        name = type(defense).__name__
        raise GenclsError(f"defense: expected a torch.nn.Module, images (N, C, H, W) -> scores (N, K), got {name}")
    images = images[:8].to(device_of(defense) or images.device)
    check_defense(defense, images[:1], labels, gradients=gradients)
    return Probe(defense, images, seed=seed, behaviour=behaviour)
