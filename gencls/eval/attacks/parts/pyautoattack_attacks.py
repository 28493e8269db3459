"""The APGD and FAB loops of pyautoattack, on scores that may be compared between images.

Attacks import this file lazily, because a defense does not need pyautoattack. The library is untyped, so this file is the
border of the type checks. The loops over restarts and target classes are ours: the library's own loops set a global seed, drop
samples without their random streams, and ask for classes that do not exist.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from pyautoattack.autopgd_base import APGDAttack
from pyautoattack.fab_pt import FABAttack_PT
from torch import Tensor

from gencls.core import select
from gencls.core.balls import BALLS, per_image
from gencls.eval.attacks.parts.attack_model import AttackModel, Loss
from gencls.eval.attacks.parts.smoothing import smoothed_gradient
from gencls.eval.scores.calibration import resolution

_NAMES = {"linf": "Linf", "l2": "L2", "l1": "L1"}
_SILENT = logging.Logger("silent", level=logging.CRITICAL + 1)  # the attack model counts zero gradients


class _Run:
    """The model as APGD sees it, for one run: mean scores of the images (N, C, H, W) that are not finished.

    On a deterministic defense an image may finish at its first wrong decision. From then on the loop sees its last scores.
    """

    def __init__(
        self, model: AttackModel, images: Tensor, labels: Tensor, loss: Loss, sigma: float, draws: int, *, may_stop: bool = True
    ) -> None:
        self.model, self.labels, self.loss, self.sigma, self.draws = model, labels, loss, sigma, draws
        self.may_stop = may_stop and not model.stochastic
        self.alive = torch.arange(len(images), device=images.device)
        self.wrong = images.clone()  # first wrong iterates of the finished rows
        self.scores: Tensor | None = None

    def __call__(self, images: Tensor) -> Tensor:
        self.looked: Tensor = _Draws.apply(images, self)
        return self.model.mean_scores(self.looked)

    def value(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The loss of the images of the last look, from the draws behind their mean scores."""
        return self.loss(self.looked, labels)

    def note(self, images: Tensor, scores: Tensor) -> Tensor:
        """Take new scores of the draws for the unfinished rows; returns the scores of all rows (N, S, K)."""
        rows = self.alive
        everything = scores.clone() if self.scores is None else self.scores.index_copy(0, rows, scores)
        if self.may_stop:
            wrong = self.model.mean_scores(scores).argmax(dim=1) != self.labels[rows]
            self.wrong[rows[wrong]] = images[rows[wrong]]
            self.alive = rows[~wrong]
        self.scores = everything.clone()
        return everything

    def smoothed(self, images: Tensor, rows: Tensor) -> Tensor:
        """The gradient of the smoothed loss of some rows (n,): (n, C, H, W); the loss itself takes the whole batch only."""
        of = self.labels[rows]

        def loss(scores: Tensor, _: Tensor) -> Tensor:
            everything = scores.new_zeros(len(self.labels), *scores.shape[1:])
            return self.loss(everything.index_copy(0, rows, scores), self.labels)[rows]

        with select(rows):
            return smoothed_gradient(self.model, images[rows], of, loss, sigma=self.sigma, count=self.draws)


class _Draws(torch.autograd.Function):
    """Scores of the draws (N, S, K). Their gradient is checked, counted, and scaled to a largest component of 1 per image.

    The library divides gradients by their norm plus 1e-12, squared in float32. So the size of a gradient must depend neither on
    the scale of the scores nor on the confidence of the decision.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, run: _Run) -> Tensor:
        ctx.model, ctx.rows, ctx.shape, ctx.gradient = run.model, run.alive, images.shape, None
        if not len(ctx.rows):
            return run.scores.clone()  # type: ignore[union-attr]
        with torch.set_grad_enabled(run.sigma == 0), select(ctx.rows):
            ctx.images = images[ctx.rows].detach().requires_grad_(run.sigma == 0)
            ctx.scores = run.model.per_draw(ctx.images)
        scores = run.note(images, ctx.scores.detach())
        if run.sigma and ctx.needs_input_grad[0]:  # not in backward: on a GPU that is another thread, without our streams
            ctx.gradient = run.smoothed(images, ctx.rows)
        return scores

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        if not len(ctx.rows):
            return grad_outputs[0].new_zeros(ctx.shape), None
        gradient = ctx.gradient
        if gradient is None:
            weights = grad_outputs[0][ctx.rows]
            weights = weights / _largest(weights).view(-1, 1, 1)
            with torch.enable_grad():
                value = (ctx.scores * weights).sum()
            gradient = ctx.model.gradient(value, ctx.images)
        gradient = gradient / per_image(_largest(gradient))
        return gradient.new_zeros(ctx.shape).index_copy_(0, ctx.rows, gradient), None


def _largest(values: Tensor) -> Tensor:
    """The largest absolute value of each row, 1 where all are 0: (N, ...) -> (N,)."""
    largest = values.flatten(1).abs().amax(dim=1)
    return largest.where(largest > 0, 1.0)


def apgd(
    model: AttackModel,
    images: Tensor,
    labels: Tensor,
    loss: Loss,
    *,
    norm: str,
    balls: Sequence[tuple[float, int]],
    sigma: float = 0.0,
    draws: int = 16,
) -> tuple[Tensor, ...]:
    """One run of APGD from a random start in the ball around each image (N, C, H, W).

    It passes through ``balls``, pairs of radius and steps, each from the end of the one before. A wrong decision counts only in
    the last ball.

    The loop follows the gradient of the loss smoothed by noise with standard deviation ``sigma``, from ``draws`` noisy images.
    It compares the losses of the iterates themselves.

    Returns:
        Candidates. For a deterministic defense: the first wrong iterate, or the one with the largest loss if none was wrong.
        For a stochastic one: the iterate with the largest loss, and the last one at which the mean scores were wrong.
    """
    images = images.detach().contiguous()
    best: Any = None
    for radius, count in balls:
        run = _Run(model, images, labels, loss, sigma, draws, may_stop=radius == balls[-1][0])
        attack = APGDAttack(run, n_iter=count, norm=_NAMES[norm], eps=radius, loss="dlr", logger=_SILENT)
        attack.dlr_loss = run.value  # "dlr" is the library's name for a loss of its own; this one is ours
        attack.init_hyperparam(images)
        start = images + torch.randn_like(images) if norm == "l1" and best is None else best
        start = None if start is None else BALLS[norm].confine(start, images, radius)
        best, _, _, wrong = attack.attack_single_run(images, labels, x_init=start)
    if model.stochastic:
        return best.detach(), wrong.detach()
    return (run.wrong.index_copy(0, run.alive, best.detach()[run.alive]),)


class _FAB(FABAttack_PT):  # type: ignore[misc]
    """The library's loop over projections, between the label and given other classes."""

    def __init__(self, model: AttackModel, labels: Tensor, targets: Tensor, **settings: Any) -> None:
        super().__init__(model, **settings)
        self.model, self.labels, self.targets = model, labels, targets
        self.begun = False

    def _get_predicted_label(self, x: Tensor) -> Tensor:
        if not self.begun:  # The loop drops images that look wrong. Rows would then not match the random streams.
            self.begun = True
            return self.labels
        return self.labels.where(~self.model.look(x, self.labels).reached, -1)

    def get_diff_logits_grads_batch(self, imgs: Tensor, la: Tensor) -> tuple[Tensor, Tensor]:
        """Values (N, J) and gradients (N, J, C, H, W) of the targets' scores minus the label's, each divided by its size.

        Projections go on until the target is ahead by two units of the scores' resolution. At a tie of coarse scores the loop
        would stand still.
        """
        values, slopes = [], []
        images = imgs.detach().requires_grad_()
        with torch.enable_grad():
            draws = self.model.per_draw(images)
            scores, looked = self.model.mean_scores(draws), draws.detach()
            unit = resolution(looked) if self.model.eot.samples == 1 else self.model.resolution(looked)
            gaps = scores.gather(1, self.targets) - scores.gather(1, la.unsqueeze(1))
            for k in range(gaps.shape[1]):
                gradient = self.model.gradient(gaps[:, k].sum(), images, keep_graph=k + 1 < gaps.shape[1])
                largest = gradient.flatten(1).abs().amax(dim=1)
                blind = largest == 0  # The loop would divide by 0. A plane through the iterate keeps it in its place.
                size = largest.double().where(~blind, 1.0)
                values.append(((gaps[:, k].detach() - 2 * unit) / size).where(~blind, 0.0))
                slopes.append((gradient / per_image(size)).where(per_image(~blind), 1.0))
        # In float32: the library's projections assign to tensors of the images' type.
        return torch.stack(values, dim=1).float(), torch.stack(slopes, dim=1).float()


def fab(
    model: AttackModel, images: Tensor, labels: Tensor, targets: Tensor, *, norm: str, steps: int, radius: Tensor | None
) -> Tensor:
    """One run of FAB, on images (N, C, H, W) that are right, between their labels and the classes ``targets`` (N, J).

    It starts at random in balls of these radii (N,), or without radii at the images themselves.

    Returns:
        The closest wrong iterates (N, C, H, W), or the image itself if none was wrong.
    """
    # The library starts within eps / 2, and takes any tensor that broadcasts with one number per image.
    eps = None if radius is None else 2 * radius.float()
    run = _FAB(model, labels, targets, norm=_NAMES[norm], n_iter=steps, eps=eps)
    found: Tensor = run.attack_single_run(images.contiguous(), labels, use_rand_start=radius is not None)
    return found.detach().to(images.dtype)
