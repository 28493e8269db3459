"""The model that an attack sees: calibrated, averaged scores of a surrogate, a loss per sample, and a meter of the cost."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gencls.core import EoT, GenclsError, checked, declared, forward_draws, repeated
from gencls.core.eot import Reduce
from gencls.core.images import check_images, check_labels
from gencls.core.modules.modes import check_eval_mode
from gencls.core.streams.keyed import watched
from gencls.eval.attacks.parts.base import Response
from gencls.eval.scores.calibration import NATS, calibrate, resolution
from gencls.eval.scores.forward import ImageByImage, answered, backwards, name_of
from gencls.eval.scores.margins import mean_shortfall, score_gap, shortfall
from gencls.eval.threats.protocol import Threat

Loss = Callable[[Tensor, Tensor], Tensor]
"""Scores of the draws (N, S, K) and labels (N,) -> losses (N,), which the attack increases."""

SURE_DRAWS = 64
"""A stochastic defense counts as broken if so many draws in a row are wrong, over several looks; its accuracy is then < 5 %."""


class Metered(nn.Module):
    """Counts the rows (images x draws) that pass a model forwards and backwards, and how many gradients were zero.

    Attributes:
        classes: number of classes that the scores must have at least, for the labels.
        of_defense: number of classes that they must have, because the defense has them; 0: any.
        watch: whether to look, at a price, if the model draws for the whole batch.
        shared: whether the model was seen to draw for the whole batch.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self.forwards = 0
        self.backwards = 0
        self.gradients = 0
        self.zero_gradients = 0
        self.classes = 0
        self.of_defense = 0
        self.watch = False
        self.shared = False

    def forward(self, images: Tensor) -> Tensor:
        """The model's scores."""
        return self.forward_draws(images, 1)

    def forward_draws(self, images: Tensor, count: int) -> Tensor:
        """The model's scores of ``count`` draws per image, see :func:`gencls.core.forward_draws`."""
        rows = images.shape[0] * count
        self.forwards += rows
        with watched() if self.watch else nullcontext() as seen:
            draw = partial(forward_draws, self.model, images, count)
            scores = answered(self.model, images, draw, rows=rows, classes=self.of_defense)
        if scores.shape[-1] < self.classes:
            raise GenclsError(f"labels: expected values below {scores.shape[-1]}, the model's classes, got {self.classes - 1}")
        self.shared |= seen is not None and seen.shared
        if scores.requires_grad:
            scores.register_hook(lambda _: self._count(rows))
        return scores

    @property
    def spent(self) -> dict[str, int]:
        """The four counts by name."""
        return {name: getattr(self, name) for name in ("forwards", "backwards", "gradients", "zero_gradients")}

    def _count(self, rows: int) -> None:
        self.backwards += rows


class AttackModel(nn.Module):
    """The model an attack differentiates: surrogate, EoT, calibration and loss in one place.

    Success is never judged on it; see :mod:`gencls.eval.judgement.judge`.
    """

    @checked
    def __init__(
        self,
        surrogate: nn.Module,
        *,
        samples: int = 1,
        reduce: Reduce = "logits",
        chunk: int | None = None,
        max_rows: int | None = None,
        common_draws: bool = False,
        stochastic: bool | None = None,
        shared_draws: bool = False,
        classes: int = 0,
    ) -> None:
        """Build the model.

        Args:
            surrogate: images (N, C, H, W) -> scores (N, K). If it already has a meter, it keeps it.
            samples: EoT draws, >= 1; 1 for a deterministic defense.
            reduce: "logits", "probs" or "loss": the mean of EoT over scores, probabilities or losses.
            chunk: EoT draws per forward pass; None takes all.
            max_rows: images x draws that fit into one pass, for attacks that make batches of their own; None sets no limit.
            common_draws: True gives every look the same draws (common random numbers), for attacks that compare losses. False
                gives each look fresh ones.
            stochastic: whether two looks at the same images may differ; None asks the surrogate and ``samples``.
            shared_draws: True if one draw serves a whole forward pass, so that each draw needs a pass of its own.
            classes: K of the defense, which the surrogate must have, too; 0 takes any, or what the meter knows.
        """
        super().__init__()
        self.meter = surrogate if isinstance(surrogate, Metered) else Metered(surrogate)
        self.meter.of_defense = classes or self.meter.of_defense
        self.eot = EoT(self.meter, samples, reduce=reduce, chunk=1 if shared_draws else chunk)
        self.max_rows = max_rows
        self.common_draws = common_draws
        self.shared_draws = shared_draws
        self.training = False
        self.stochastic = (samples > 1 or declared(surrogate, "stochastic")) if stochastic is None else stochastic

    @property
    def settings(self) -> dict[str, Any]:
        """The settings. ``Kind(model.meter, **model.settings)`` is a model of another kind with the same meter."""
        return {
            "samples": self.eot.samples,
            "reduce": self.eot.reduce,
            "chunk": self.eot.chunk,
            "max_rows": self.max_rows,
            "common_draws": self.common_draws,
            "stochastic": self.stochastic,
            "shared_draws": self.shared_draws,
        }

    def train(self, mode: bool = True) -> "AttackModel":
        """Changes nothing, because some libraries switch the mode around an attack, and test-time dropout must stay on."""
        return self

    @classmethod
    def of(cls, model: nn.Module) -> "AttackModel":
        """The model itself if it is one, else an attack model with the module as surrogate and a single draw."""
        return model if isinstance(model, cls) else cls(model)

    def forward(self, images: Tensor) -> Tensor:
        """Calibrated scores (N, K), float64: best 0, mean -10; with ``reduce="probs"`` log probabilities."""
        averaged = self.average(self.per_draw(images))
        return calibrate(averaged) if self.eot.reduce == "logits" else averaged

    def per_draw(self, images: Tensor, *, fresh: bool = False) -> Tensor:
        """Uncalibrated scores of the single draws: (N, C, H, W) -> (N, S, K), float64; ``fresh`` ignores common draws."""
        with repeated() if self.common_draws and not fresh else nullcontext():
            return self.eot.per_draw(images).double()

    def average(self, scores: Tensor) -> Tensor:
        """The mean over draws: (N, S, K) -> (N, K). A softmax sees calibrated scores; a mean of scores keeps their unit."""
        return self.eot.average(scores if self.eot.reduce == "logits" else calibrate(scores))

    def mean_scores(self, draws: Tensor) -> Tensor:
        """Average as :meth:`average` does, for losses that are compared between looks: a single draw keeps its unit.

        If each look sets the scale, the scores of two classes are always 20 apart, and all losses compare as equal.
        """
        return draws.squeeze(1) if self.eot.samples == 1 else self.average(draws)

    def shortfall(self, draws: Tensor, labels: Tensor, *, targets: Tensor | None = None, targeted: bool = False) -> Tensor:
        """The value that a margin loss lowers: by how much draws (N, S, K) miss the goal, (N,).

        For a deterministic defense it is the margin of the scores, for a stochastic one
        :func:`~gencls.eval.scores.margins.mean_shortfall`. This is always a mean of losses, whatever ``reduce`` says. The
        margin of a mean, of scores or of probabilities, does not tell how many draws are wrong.
        """
        if self.stochastic:
            return mean_shortfall(draws, labels, targets=targets, targeted=targeted)
        return shortfall(self.mean_scores(draws), labels, targets=targets, targeted=targeted)

    def resolution(self, draws: Tensor) -> Tensor:
        """The resolution of the scores of the draws (N, S, K), in the unit of their mean: (N,); see :func:`resolution`."""
        unit = resolution(draws)
        return unit if self.eot.reduce == "logits" else unit * (NATS / score_gap(draws).amin(dim=(1, 2)))

    def cross_entropy(self, draws: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy (N,) of the draws' mean scores, (N, S, K), calibrated; for ``reduce="loss"`` its mean over draws."""
        scores = self.average(draws)
        if self.eot.reduce == "loss":  # the scores are mean log probabilities, which need not sum to one
            return functional.nll_loss(scores, labels, reduction="none")
        return functional.cross_entropy(calibrate(scores), labels, reduction="none")

    def look(
        self, images: Tensor, labels: Tensor, loss: Loss | None = None, *, targeted: bool = False, fresh: bool = False
    ) -> Response:
        """Ask the model about images, and differentiate a loss if there is one.

        Args:
            images: (N, C, H, W).
            labels: (N,), the classes to leave, or with ``targeted`` to reach.
            loss: function of the draws' scores and labels; None computes no gradient.
            targeted: True if the goal is to reach the labels.
            fresh: True takes fresh draws even if draws are common, to confirm a success.

        Raises:
            GenclsError: for scores without a gradient, or gradients that are not finite. A NaN would pass through a sign or a
                projection as "no step", and count as robustness.
        """
        with torch.set_grad_enabled(loss is not None):
            images = images.detach().requires_grad_(loss is not None)
            draws = self.per_draw(images, fresh=fresh)
            averaged = self.average(draws)
            gradient = images.new_empty(0) if loss is None else self.gradient(loss(draws, labels).sum(), images)
        return self.respond(draws, averaged, labels, gradient, targeted=targeted)

    def respond(self, draws: Tensor, averaged: Tensor, labels: Tensor, gradient: Tensor, *, targeted: bool = False) -> Response:
        """The response for scores of the draws (N, S, K) and their mean (N, K); see :meth:`look`."""
        return Response(draws.detach(), averaged.detach(), labels, gradient, targeted, self.stochastic)

    def gradient(self, value: Tensor, images: Tensor, *, keep_graph: bool = False) -> Tensor:
        """Gradient of a sum over samples with respect to the images, checked and counted.

        Raises:
            GenclsError: for scores without a gradient, or a gradient that is not finite.
        """
        return self.counted(self.differentiate(value, images, keep_graph=keep_graph))

    def differentiate(self, value: Tensor, images: Tensor, *, keep_graph: bool = False) -> Tensor:
        """A part of a gradient, as :meth:`gradient`, but neither checked nor counted.

        Raises:
            GenclsError: for scores without a gradient.
        """
        gradient = None
        if value.requires_grad:
            with backwards(self.meter.model):
                (gradient,) = torch.autograd.grad(value, images, retain_graph=keep_graph, allow_unused=True)
        if gradient is None:
            raise GenclsError(
                f"{name_of(self.meter.model)}: expected scores with a gradient, got detached ones; a defense without a "
                "useful gradient declares one in surrogates(), for instance BPDA"
            )
        return gradient

    def counted(self, gradient: Tensor) -> Tensor:
        """The gradient (N, C, H, W) that an attack will follow, checked and counted.

        Raises:
            GenclsError: if it is not finite.
        """
        sizes = gradient.flatten(1).abs().amax(dim=1).tolist()
        if not all(map(math.isfinite, sizes)):
            bad = len(sizes) - sum(map(math.isfinite, sizes))
            raise GenclsError(f"attack: expected finite gradients, got NaN or infinity for {bad} of {len(sizes)} images")
        self.meter.gradients += len(sizes)
        self.meter.zero_gradients += sizes.count(0.0)
        return gradient


def sure_looks(model: AttackModel) -> int:
    """Looks that together make ``SURE_DRAWS`` draws of a stochastic defense; one at a deterministic defense."""
    return math.ceil(SURE_DRAWS / model.eot.samples) if model.stochastic else 1


def prepare(model: nn.Module, images: Tensor, labels: Tensor, threat: Threat | None = None) -> AttackModel:
    """Check the arguments of an attack and give the model the form that attacks use.

    A model that declares ``batch_dependent = True`` is asked image by image.

    Raises:
        GenclsError: for images or labels of the wrong kind; for images in half precision, whose pixels lie up to 4e-3 apart,
            too coarse for a ball; for a ball that no image can leave; for a model in training mode, or later for one that has
            fewer classes than the labels.
    """
    check_images(images)
    if images.dtype not in (torch.float32, torch.float64):
        raise GenclsError(
            f"attack: expected images in float32 or float64, got {images.dtype}, which is too coarse to keep to a ball; attack "
            "images.float(), with a model that casts them inside"
        )
    if threat is not None:
        threat.check_reach(images.shape)
    check_labels(labels, num_classes=None, count=len(images))
    asked = model.meter.model if isinstance(model, AttackModel) else model
    # The surrogate of a random defense may not declare that it is random.
    random = model.stochastic if isinstance(model, AttackModel) else False
    check_eval_mode(asked, name=name_of(asked), what="a model", may_drop=random or None)
    alone = asked is model and declared(model, "batch_dependent")
    found = AttackModel.of(ImageByImage(model) if alone else model)
    found.meter.classes = int(labels.max()) + 1
    return found
