"""A classifier by Bayes' rule with one likelihood per class, and its gradient through the inner optimisation."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from gencls.core.defense import Defense
from gencls.core.derivatives import first_only
from gencls.core.errors import GenclsError
from gencls.core.gradient_modes import FROZEN, UNROLLED
from gencls.core.settings import checked

__all__ = ["BayesClassifier", "Unrolled"]

Q = TypeVar("Q")


class BayesClassifier(Defense, Generic[Q]):
    """argmax_k log p(x, k): one likelihood per class and no discriminative head.

    All such classifiers first find, per class, where the image would come from (a latent, a distribution over latents, the
    centre of a noise distribution, or nothing if the likelihood is exact), then score. The two halves are separate methods. The
    gradient that excludes the inner optimisation (thesis, eq. 2.9) lives in one place, the latent descent attack can decode
    ``infer(x)`` (:meth:`reconstruct`), and more samples from the same posterior are a matter of ``log_joint``.
    """

    @abstractmethod
    def infer(self, images: Tensor) -> Q:
        """Run the per-class inner optimisation: find q_k for each image and class.

        Called with gradients enabled. Where ``images`` requires grad, the result must be differentiable in the images (the
        steps are unrolled); otherwise it is detached. Parameters must not collect ``.grad``.
        """

    @abstractmethod
    def log_joint(self, images: Tensor, q: Q) -> Tensor:
        """Log p(x, k) up to a constant that does not depend on the class: (N, K), differentiable in the images with q fixed."""

    def forward(self, images: Tensor) -> Tensor:
        """Infer, then score. Never overridden.

        Inference works on a detached copy, so the gradient of the result treats q as a constant: exact where inference has
        converged (envelope theorem), and one of two declared gradient modes where it has not. It optimises, so it runs with
        gradients enabled also under a caller's ``no_grad`` or ``inference_mode`` (Lightning's ``Trainer.test``).
        """
        with torch.inference_mode(False), torch.enable_grad():
            q = self.infer(images.detach().clone())
        return self.log_joint(images, q)

    def reconstruct(self, images: Tensor, q: Q | None = None) -> Tensor:
        """Show each image as each class would have made it: (N, K, C, H, W) in [0, 1], detached.

        The latent descent attack moves towards these images.

        Args:
            images: (N, C, H, W) in [0, 1].
            q: the result of ``infer(images)``; None calls it.

        Raises:
            GenclsError: for a classifier that has no reconstructions.
        """
        raise GenclsError(f"{type(self).__name__}: expected a classifier with reconstructions, but it declares none")

    def images_per_graph(self, images: Tensor) -> int | None:
        """How many images of this kind one graph may unroll at once; None sets no limit."""
        return None

    def surrogates(self) -> Mapping[str, nn.Module]:
        """``frozen`` (eq. 2.9: q is a constant) and ``unrolled`` (through the inner optimisation).

        Where q does not depend on the image, both are the exact gradient. Such a classifier returns ``{EXACT.name: self}``
        instead, or every attack makes its looks twice.
        """
        return {FROZEN.name: self, UNROLLED.name: Unrolled(self)}


class Unrolled(nn.Module):
    """A Bayes classifier whose gradient goes through every step of its inner optimisation.

    The value is the classifier's. The gradient is exact after any number of steps; the frozen gradient is exact only at the
    optimum. The exact one costs several times as much time and, per step, the memory of one step's graph. If the classifier
    limits the images per graph (``images_per_graph``), more images are split into parts. The backward pass builds and frees the
    graphs of the parts one after the other. Images in parts have no second derivative: asking for one is an error.
    """

    @checked
    def __init__(self, defense: BayesClassifier[Any]) -> None:
        """Take the classifier."""
        super().__init__()
        self.defense = defense
        self.training = defense.training

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] -> scores (N, K)."""
        if not (torch.is_grad_enabled() and images.requires_grad):
            return self.defense(images)
        fit = self.defense.images_per_graph(images)
        # Draws could not be repeated in the backward pass.
        if fit is None or fit >= len(images) or self.defense.stochastic:
            return self.defense.log_joint(images, self.defense.infer(images.clone()))  # it may work in place
        return torch.cat([_Recomputed.apply(self.defense, part) for part in images.split(fit)])

    def surrogates(self) -> Mapping[str, nn.Module]:
        """The one mode, ``unrolled``: this module itself."""
        return {UNROLLED.name: self}


class _Recomputed(torch.autograd.Function):
    """Computes the classifier's scores without a graph; the backward pass builds, uses and frees the graph."""

    @staticmethod
    def forward(ctx: Any, defense: BayesClassifier[Any], images: Tensor) -> Tensor:
        ctx.defense = defense
        ctx.save_for_backward(images)
        return defense(images)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor]:
        images = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            scores = ctx.defense.log_joint(images, ctx.defense.infer(images.clone()))
            (gradient,) = torch.autograd.grad(scores, images, grad_outputs)
        instead = "the images are split to keep memory small: give the classifier a larger memory_budget, or fewer images"
        return None, first_only(gradient, *ctx.saved_tensors, *grad_outputs, owner="Unrolled", instead=instead)
