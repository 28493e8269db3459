"""A probe asks a defense about a few images before a measurement, and compares the answers with its declarations.

It gives the same images with the same random numbers, with others, one at a time, and beside other images. The differences of
the scores tell how the defense must be asked. The declarations of a defense decide how it is attacked and judged. A wrong
declaration would end in a wrong number.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, check_eval_mode, check_labels, declared, seeded, stream_seed
from gencls.core.devices import device_of
from gencls.core.streams.keyed import drawing
from gencls.eval.scores.behaviour import Behaviour
from gencls.eval.scores.forward import ImageByImage, check_called, scores_of
from gencls.eval.scores.margins import score_gap

_HANDFUL = 3
"""The number of images in a probe. It is odd: a draw for the whole batch then passes less often for one draw per image."""

ROUNDING = 1e-4
"""The difference of scores that parallel sums may cause, in units of the gap between the best and the mean class."""

_COMPANY = 1e-3
"""The same for batches of another size, whose sums have another order; an inner optimisation enlarges it."""

_TRIES = 64
"""Further streams after draws that changed nothing: 96 of 100 probes then see what happens in one call of twenty."""

_REPEATS = 8
"""Further calls with the same streams if nothing was seen to draw: nobody can watch a module's own generator."""

_MIXES = 24
"""Calls in which one row keeps its stream and the others change theirs."""

_FEW_ROWS = 0.05
"""The share of a batch whose scores may change with its size: rounding may turn a threshold in a network for single images."""


class Probe:
    """A defense that behaves as it declares, now and later.

    Attributes:
        behaviour: the observed behaviour, which decides how to ask the defense.
        watched: whether the probe saw draws for a whole batch. It then watches each forward pass to see who makes them.
    """

    def __init__(self, defense: nn.Module, images: Tensor, *, seed: int = 0, behaviour: Behaviour | None = None) -> None:
        """Observe a defense and compare its behaviour with its declarations.

        Args:
            defense: module of images (N, C, H, W) in [0, 1] -> scores (N, K), in eval mode. It may declare
                ``stochastic = True`` and ``batch_dependent = True``.
            images: (N, C, H, W) in [0, 1], on the defense's device.
            seed: the seed of the random streams, an integer.
            behaviour: an earlier result of :func:`observe`; None observes.

        Raises:
            GenclsError: the defense is random or depends on the batch without declaring it.
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
            raise undeclared(self.name, repeatable=self.behaviour.repeatable)
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
            GenclsError: the defense behaves in a way that it does not declare.
        """
        if len(images) > self._largest:
            self.behaviour = observe_batch(self._defense, images, self.behaviour, seed=self._seed)
            self._largest = len(images)
            self._check_declared()

    def check_again(self) -> bool:
        """Ask the first image again, with the same random numbers.

        Returns:
            True if the scores are the same, or were not repeatable before. Otherwise the defense counts from now on as one with
            random numbers of its own, and is asked image by image.

        Raises:
            GenclsError: the scores have changed, but the defense declares no randomness: it counts calls, learns, or looks at
                the clock.
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


def undeclared(name: str, *, repeatable: bool = True) -> GenclsError:
    """The error for a defense that draws without saying so."""
    source = "" if repeatable else ", also with the same random numbers (a generator of its own, a counter, time)"
    return GenclsError(
        f"{name}: expected the same scores at each forward, because stochastic is not set, got others{source}; set "
        "stochastic = True, or wrap it as PlainClassifier(network, num_classes, stochastic=True)"
    )


def check_defense(defense: nn.Module, image: Tensor, labels: Tensor, *, gradients: bool = True) -> None:
    """Check that a defense takes images like this one, (1, C, H, W) in [0, 1], and knows these labels.

    With ``gradients`` it also checks that no gradient mode is hidden.

    Raises:
        GenclsError: the defense is in training mode or takes images of another shape, scores are not (1, K), labels go beyond
            K, or the defense hides a gradient mode of an inner one.
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
        GenclsError: one of the two raises it, or the defense is no module.
    """
    if not isinstance(defense, nn.Module):
        name = type(defense).__name__
        raise GenclsError(f"defense: expected a torch.nn.Module, images (N, C, H, W) -> scores (N, K), got {name}")
    images = images[:8].to(device_of(defense) or images.device)
    check_defense(defense, images[:1], labels, gradients=gradients)
    return Probe(defense, images, seed=seed, behaviour=behaviour)


@torch.no_grad()
def observe(defense: nn.Module, images: Tensor, *, seed: int = 0) -> Behaviour:
    """Ask a defense about a handful of images and compare its answers.

    Args:
        defense: a module images (N, C, H, W) in [0, 1] -> scores (N, K), in eval mode. If it declares ``batch_dependent =
            True``, it is believed and asked image by image.
        images: the images (N, C, H, W) in [0, 1], on the defense's device; the first three count.
        seed: the seed of the random streams, an integer.

    Raises:
        GenclsError: a forward pass fails, or returns no scores.
    """
    if declared(defense, "batch_dependent"):
        seen = Examination(ImageByImage(defense), handful(images), seed)
        return replace(seen.randomness(), batch_dependent=True)
    seen = Examination(defense, handful(images), seed)
    return seen.company(seen.randomness())


@torch.no_grad()
def observe_batch(defense: nn.Module, images: Tensor, behaviour: Behaviour, *, seed: int = 0) -> Behaviour:
    """Ask a defense about a whole batch at once and in two parts: a handful would not fill a module with a capacity.

    Returns:
        The behaviour, with the facts that this adds.
    """
    if behaviour.judged(defense) is not defense or len(images) <= _HANDFUL:  # each image is asked alone, now or before
        return behaviour
    batch, rows = Examination(defense, images, seed), list(range(len(images)))[::-1]
    halves = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    whole, parts = batch.ask("batch"), torch.cat([batch.ask("batch", half) for half in halves]).flip(0)
    changed = _changed(whole, parts, _COMPANY)
    if not bool(changed.any()):
        return behaviour
    if batch.restless("batch", whole, tries=_TRIES):
        return replace(behaviour, random=True, repeatable=False, shared_draws=True)
    if behaviour.random and batch.shared:
        return replace(behaviour, shared_draws=True)
    count = int(changed.sum())
    if count > _FEW_ROWS * len(images):
        return replace(behaviour, batch_dependent=True)
    return replace(behaviour, changed_with_size=(count, len(images)))


def handful(images: Tensor) -> Tensor:
    """Three different images: the first ones, completed by mirrored and inverted ones if there are fewer."""
    few = images[:_HANDFUL].detach()
    return torch.cat([few, few.flip(-1), 1 - few])[:_HANDFUL]


def differ(one: Tensor, two: Tensor, tolerance: float) -> bool:
    """Whether any scores (N, K) differ by more than rounding."""
    return one.shape != two.shape or bool(_changed(one, two, tolerance).any())


def _changed(one: Tensor, two: Tensor, tolerance: float) -> Tensor:
    """Mark the rows (N,) of scores (N, K) that differ by more than rounding; infinite or NaN scores must be identical."""
    finite = (torch.isfinite(one) & torch.isfinite(two)).all(dim=1)
    exactly = (one.nan_to_num() != two.nan_to_num()).any(dim=1)
    return ((one - two).abs() / score_gap(one)).nan_to_num().amax(dim=1).gt(tolerance).where(finite, exactly)


class Examination:
    """One defense and a handful of images, with streams of their own."""

    def __init__(self, defense: nn.Module, images: Tensor, seed: int) -> None:
        self.defense, self.images, self.seed = defense, images, seed
        self.drew = False
        self.shared = False

    @torch.no_grad()
    def ask(
        self, stream: str, rows: list[int] | None = None, images: Tensor | None = None, keep: tuple[int, str] | None = None
    ) -> Tensor:
        """Ask for scores, float64: of the images, of some of their rows, or of other images in the same streams.

        ``keep`` is a row and the name of another stream for it.
        """
        rows = list(range(len(self.images))) if rows is None else rows
        asked = self.images[rows] if images is None else images
        names = [keep[1] if keep and keep[0] == row else stream for row in rows]
        with drawing([stream_seed(self.seed, "probe", name, row) for name, row in zip(names, rows, strict=True)]) as seen:
            scores = scores_of(self.defense, asked).double()
        self.drew |= seen.drew
        self.shared |= seen.shared
        return scores

    def randomness(self) -> Behaviour:
        """Compare the same images under the same streams, and under others."""
        self.first = self.ask("one")
        repeatable = not differ(self.first, self.ask("one"), ROUNDING)
        random = not repeatable or differ(self.first, self.ask("two"), ROUNDING)
        if not random and self.drew:
            random = any(differ(self.first, self.ask(f"try {number}"), ROUNDING) for number in range(_TRIES))
        elif not random and self.restless("one", self.first):
            random, repeatable = True, False
        return Behaviour(random, repeatable, classes=self.first.shape[1])

    def company(self, behaviour: Behaviour) -> Behaviour:
        """Compare images alone, and two of them beside other images, each with the streams that it had before."""
        if not behaviour.repeatable:  # such draws show nothing: each image is asked alone
            return replace(behaviour, shared_draws=True)
        alone = torch.cat([self.ask("one", [row]) for row in range(len(self.images))])
        dependent = any(differ(self.first[[row]], self._beside_others(row), _COMPANY) for row in (0, 1))  # ahead, between
        apart = differ(self.first, alone, _COMPANY)
        if (dependent or apart) and self.restless("one", self.first, tries=_TRIES):
            return replace(behaviour, random=True, repeatable=False, shared_draws=True)
        if behaviour.random:
            return replace(behaviour, batch_dependent=dependent, shared_draws=apart or self.shared or self._mixes_streams())
        return replace(behaviour, batch_dependent=dependent, place_dependent=apart)

    def _beside_others(self, row: int) -> Tensor:
        """Scores (1, K) of an image when all other images are exchanged."""
        others = 1 - self.images.flip(0)
        others[row] = self.images[row]
        return self.ask("one", images=others)[[row]]

    def _mixes_streams(self) -> bool:
        """Whether the scores of a row change with the streams of the others: one entry of a draw per row may serve all rows."""
        for number in range(_MIXES):
            row = number % len(self.images)
            if differ(self.first[[row]], self.ask(f"mix {number}", keep=(row, "one"))[[row]], ROUNDING):
                return True
        return False

    def restless(self, stream: str, answer: Tensor, *, tries: int = _REPEATS) -> bool:
        """Whether the very same question gets several answers after all."""
        return any(differ(answer, self.ask(stream), ROUNDING) for _ in range(tries))
