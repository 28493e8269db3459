"""Defense-GAN: an image is replaced by the nearest one that a generator can make.

Source: Samangouei, Kabkab, Chellappa, "Defense-GAN: Protecting Classifiers Against Adversarial Attacks Using Generative
Models", ICLR 2018, arXiv:1805.06605.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gencls.core import BPDA, GenclsError, Transform, checked, frozen, minimize, repeat_rows
from gencls.core.derivatives import first_only
from gencls.core.inference import Optimizer

__all__ = ["DefenseGAN"]


class DefenseGAN(Transform):
    """G(z*) with z* = argmin_z ||G(z) - x||_2^2: L steps of descent from each of R random latents; the best result counts.

    There are two gradient modes. "bpda" takes the identity for the gradient of the projection, as Athalye et al. (2018,
    arXiv:1802.00420, section 5.4.2) do. "unrolled" differentiates through the L steps from the best start. It is exact unless
    two starts are equally good, and costs a little more than one more restart.

    The paper descends by gradient steps and does not give their length. The default here is Adam, because the length of its
    steps does not depend on the scale of the generator.
    """

    stochastic = True
    _shown = ("restarts", "steps", "lr", "optimizer")

    @checked
    def __init__(
        self,
        generator: Callable[[Tensor], Tensor],
        latent_shape: Sequence[int],
        *,
        sample: Callable[[int], Tensor] | None = None,
        restarts: int = 10,
        steps: int = 200,
        lr: float = 0.1,
        optimizer: Optimizer = "adam",
        max_rows: int = 2048,
    ) -> None:
        """Take the generator.

        Args:
            generator: G, latents (M, *latent_shape) -> images (M, C, H, W); values beyond [0, 1] are clipped at the end.
            latent_shape: shape of one latent, without the batch dimension.
            sample: function of a count that returns random latents (count, *latent_shape); None draws standard normal ones.
            restarts: R >= 1; 10 in the paper.
            steps: L >= 1; 200 in the paper.
            lr: step size, > 0.
            optimizer: "adam" or "gradient".
            max_rows: latents per decoding pass, and latents in all steps of one graph together, >= 1. Both hold at least the
                latents of one image.

        Raises:
            GenclsError: for numbers out of range, an unknown optimizer or a latent shape without numbers.
        """
        super().__init__()
        if min(restarts, steps, max_rows) < 1 or lr <= 0:
            raise GenclsError(
                "DefenseGAN: expected restarts, steps and max_rows >= 1 and lr > 0, "
                f"got {restarts}, {steps}, {max_rows} and {lr}"
            )
        if not latent_shape or min(latent_shape) < 1:
            raise GenclsError(f"DefenseGAN: expected a latent_shape of numbers >= 1, got {tuple(latent_shape)}")
        self.generator = generator
        self.latent_shape = tuple(latent_shape)
        self.sample = sample
        self.restarts, self.steps, self.lr, self.max_rows = restarts, steps, lr, max_rows
        self.optimizer: Optimizer = optimizer

    def forward(self, images: Tensor) -> Tensor:
        """The nearest images that the generator makes, (N, C, H, W) in [0, 1], without a gradient.

        Raises:
            GenclsError: for images of another shape than the generator's, or latents of ``sample`` of another shape.
        """
        return self.infer(images)[0]

    def infer(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project images (N, C, H, W).

        Returns:
            G(z*) clipped to [0, 1], z* (N, *latent_shape), and the start (N, *latent_shape) that led there; detached.
        """
        with torch.inference_mode(False), frozen(self):
            images = images.detach().clone()
            with torch.no_grad():
                starts = self._starts(images)
            per_pass = max(1, self.max_rows // self.restarts)
            parts = [self._best(*part) for part in zip(images.split(per_pass), starts.split(per_pass), strict=True)]
            found, latents, best = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
            return found, latents, best

    def descend(self, images: Tensor, starts: Tensor) -> Tensor:
        """L steps from starts (M, *latent_shape), one per image: unrolled where the images require grad, else detached."""
        how: dict[str, Any] = {"steps": self.steps, "lr": self.lr, "optimizer": self.optimizer}
        with torch.enable_grad(), frozen(self):
            (latents,) = minimize(lambda z: self._distance(z[0], images), (starts,), unroll=images.requires_grad, **how)
        return latents

    def surrogates(self) -> Mapping[str, nn.Module]:
        """``bpda`` and ``unrolled``; the transform itself has no gradient."""
        return {"bpda": BPDA(self, nn.Identity()), "unrolled": _Unrolled(self)}

    def _starts(self, images: Tensor) -> Tensor:
        """(N, R, *latent_shape) from one draw; consecutive rows belong to one image."""
        count = len(images) * self.restarts
        if self.sample is None:
            drawn = torch.randn(count, *self.latent_shape, device=images.device, dtype=images.dtype)
        else:
            drawn = self.sample(count).to(images)
        if drawn.shape != (count, *self.latent_shape):
            raise GenclsError(
                f"DefenseGAN: expected sample({count}) to give latents of shape {(count, *self.latent_shape)}, "
                f"got {tuple(drawn.shape)}"
            )
        return drawn.view(len(images), self.restarts, *self.latent_shape)

    def _best(self, images: Tensor, starts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`infer`, from starts (N, R, *latent_shape)."""
        targets = repeat_rows(images, self.restarts)
        latents = self.descend(targets, starts.flatten(0, 1))
        with torch.no_grad():
            distances = self._distance(latents, targets).view(len(images), self.restarts)
            best = distances.nan_to_num(torch.inf, posinf=torch.inf).argmin(1)  # a start that diverges is never the best
            rows = torch.arange(len(images), device=images.device)
            chosen = latents.view_as(starts)[rows, best]
            return self.generator(chosen).clamp(0.0, 1.0), chosen, starts[rows, best]

    def _distance(self, latents: Tensor, images: Tensor) -> Tensor:
        """||G(z) - x||^2, (M,)."""
        made = self.generator(latents)
        if made.shape != images.shape:
            raise GenclsError(
                f"DefenseGAN: expected images of the generator's shape {tuple(made.shape[1:])}, got {tuple(images.shape[1:])}"
            )
        squares: Tensor = (made - images).square()
        return squares.flatten(1).sum(1)


class _Unrolled(nn.Module):
    """The projection with the gradient through its steps."""

    def __init__(self, defense: DefenseGAN) -> None:
        super().__init__()
        self.defense = defense

    def forward(self, images: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and images.requires_grad):
            return self.defense(images)
        projected: Tensor = _Projection.apply(self.defense, images)
        return projected


class _Projection(torch.autograd.Function):
    """It keeps no graph: the backward pass builds the graphs of the best starts, for a few images at a time."""

    @staticmethod
    def forward(ctx: Any, defense: DefenseGAN, images: Tensor) -> Tensor:
        found, _, starts = defense.infer(images)
        ctx.defense = defense
        ctx.save_for_backward(images, starts)
        return found

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor]:
        defense: DefenseGAN = ctx.defense
        per_graph = max(1, defense.max_rows // defense.steps)
        gradients = []
        parts = (tensor.split(per_graph) for tensor in (*ctx.saved_tensors, grad_outputs[0]))
        for images, starts, gradient in zip(*parts, strict=True):
            images = images.detach().requires_grad_()
            with torch.enable_grad(), frozen(defense):
                found = defense.generator(defense.descend(images, starts)).clamp(0.0, 1.0)
            gradients.append(torch.autograd.grad(found, images, gradient)[0])
        whole, instead = torch.cat(gradients), "its backward pass keeps no graph"
        return None, first_only(whole, *ctx.saved_tensors, *grad_outputs, owner="DefenseGAN", instead=instead)
