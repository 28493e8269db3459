"""Analysis by synthesis: one engine for all classifiers that classify by reconstruction.

The thesis's Algorithm 2 is the template of all of them. For each class k: start somewhere, descend on the latents, take the
final loss as the negative log joint density,

    l_k(x) = min_z  D(x, G_k(z)) + lambda R(z, z_init),        prediction argmin_k l_k(x).

ABS, E-ABS and the GAN-inversion classifiers are this engine put together from different parts.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core import (
    BayesClassifier,
    ClassConditionalGenerator,
    GenclsError,
    ImageDistance,
    Latents,
    minimize,
    select,
)
from gencls.core.inference import Optimizer
from gencls.core.memory import saved_bytes

__all__ = ["AnalysisBySynthesis", "Ball", "DiscriminatorPenalty", "GaussianKL", "Regularizer"]


class Regularizer(nn.Module):
    """R, the price of a latent or of a distribution over latents."""

    @abstractmethod
    def forward(self, latents: Latents) -> Tensor:
        """R(z): latents (N, K, *shape) per level -> (N, K)."""

    def expected(self, means: Latents, log_stds: Latents, latents: Latents) -> Tensor:
        """R of N(mean, std^2): closed form where there is one, by default E[R(z)] by the one drawn sample.

        Args:
            means: (N, K, *shape) per level.
            log_stds: log standard deviations, as the means.
            latents: one sample, as the means.

        Returns:
            (N, K).
        """
        value: Tensor = self(latents)
        return value


class GaussianKL(Regularizer):
    """KL[N(z, 1) || N(0, 1)] = ||z||^2 / 2, the second term of thesis eq. 2.2; with an optimised variance the whole KL."""

    def forward(self, latents: Latents) -> Tensor:
        """Latents (N, K, *shape) per level -> (N, K)."""
        return _total([0.5 * level.square() for level in latents])

    def expected(self, means: Latents, log_stds: Latents, latents: Latents) -> Tensor:
        """KL[N(mean, std^2) || N(0, 1)], (N, K)."""
        return _total([0.5 * (m.square() + (2 * s).exp() - 2 * s - 1) for m, s in zip(means, log_stds, strict=True)])


class DiscriminatorPenalty(Regularizer):
    """-log D(z), the second term of thesis eq. 2.3 and 2.6; D(z) is the probability that z is a sample of the prior."""

    def __init__(self, discriminator: nn.Module) -> None:
        """Take the discriminator: latents (N, K, d) -> logits of D, (N, K)."""
        super().__init__()
        self.discriminator = discriminator

    def forward(self, latents: Latents) -> Tensor:
        """One level (N, K, d) -> (N, K)."""
        (codes,) = latents
        return -F.logsigmoid(self.discriminator(codes))


def _total(levels: Sequence[Tensor]) -> Tensor:
    """Sum over all entries of all levels: (N, K, *shape) per level -> (N, K)."""
    return torch.stack([level.flatten(2).sum(2) for level in levels]).sum(0)


@dataclass(frozen=True)
class Ball:
    """Projection of each latent onto the L2 ball: z min(1, radius / ||z||). It keeps signs; the public ABS code does not."""

    radius: float

    def __post_init__(self) -> None:
        """Check the value."""
        if not self.radius > 0:
            raise GenclsError(f"Ball: expected radius > 0, got {self.radius}")

    def __call__(self, latents: Latents) -> Latents:
        """Latents (N, K, *shape) per level -> the same, each with norm at most ``radius``."""

        def project(level: Tensor) -> Tensor:
            norms = level.flatten(2).square().sum(2).clamp_min(1e-24).sqrt()  # clamped: sqrt has no gradient at 0
            return level * (self.radius / norms).clamp(max=1.0).view(*norms.shape, *(1 for _ in level.shape[2:]))

        return tuple(project(level) for level in latents)


class AnalysisBySynthesis(BayesClassifier[Latents]):
    """Algorithm 2 of the thesis; final. Put together from parts, or by a named constructor such as :func:`ABS`.

    What is optimised, q, is a latent per class; or, variationally (extension V of E-ABS, eq. 2.6), mean and log standard
    deviation of a Gaussian over latents, by reparameterisation with one sample a step. Point inference is deterministic once
    built: where it starts is part of its state.
    """

    def __init__(
        self,
        generator: ClassConditionalGenerator,
        *,
        start: Callable[[Tensor], Latents],
        distance: ImageDistance,
        regularizer: Regularizer,
        weight: float,
        steps: int,
        lr: float,
        optimizer: Optimizer = "adam",
        project: Callable[[Latents], Latents] | None = None,
        variational: bool = False,
        start_std: float = 1.0,
        proposals: Sequence[nn.Module] = (),
        samples: int = 1,
        memory_budget: int = 2**31,
    ) -> None:
        """Put the parts together.

        Args:
            generator: G.
            start: I, images (N, C, H, W) -> latents (N, K, *shape) per level.
            distance: D between an image and its reconstruction.
            regularizer: R.
            weight: lambda (the beta of ABS), >= 0.
            steps: descent steps, >= 0.
            lr: step size of the optimiser, > 0.
            optimizer: O, "adam" or "gradient".
            project: applied to latents, or to means, (N, K, *shape) after each step.
            variational: optimise Gaussians over latents.
            start_std: standard deviation around the latents of ``start``, > 0; for variational inference.
            proposals: other starts, images -> q as it is optimised: means, then log standard deviations, per level. For each
                image and class the start of least loss is taken.
            samples: latents drawn for the final score of variational inference, >= 1.
            memory_budget: bytes that the graph of one chunk of images may keep; the chunk is at least one image.

        Raises:
            GenclsError: for a negative weight or number of steps, a step size or standard deviation that is not positive or
                less than one sample.
        """
        super().__init__()
        if weight < 0 or steps < 0 or lr <= 0:
            raise GenclsError(f"expected weight >= 0, steps >= 0, lr > 0, got weight={weight}, steps={steps}, lr={lr}")
        if start_std <= 0 or samples < 1:
            raise GenclsError(f"expected start_std > 0 and samples >= 1, got start_std={start_std}, samples={samples}")
        self.generator = generator.requires_grad_(False)  # inference must not collect gradients of the parameters
        self.start = start
        self.proposals = nn.ModuleList(proposals)
        self.proposals.requires_grad_(False)
        self.distance = distance
        self.regularizer = regularizer.requires_grad_(False)
        self.num_classes = generator.num_classes
        self.stochastic = variational
        self.variational = variational
        self.weight = weight
        self.steps = steps
        self.lr = lr
        self.optimizer: Optimizer = optimizer
        self.project = project
        self.start_std = start_std
        self.samples = samples
        self.memory_budget = memory_budget
        self._bytes: int | None = None

    def loss(self, target: tuple[Tensor, ...], q: Latents) -> Tensor:
        """D(x, G_k(z)) + lambda R, (N, K), from an embedding whose rows are the images, each repeated K times.

        Variationally z is one fresh sample of q: an unbiased estimate of the expectation in eq. 2.6.
        """
        if self.variational:
            means, log_stds = self._split(q)
            latents = tuple(m + s.exp() * torch.randn_like(m) for m, s in zip(means, log_stds, strict=True))
            penalty = self.regularizer.expected(means, log_stds, latents)
        else:
            latents = q
            penalty = self.regularizer(latents)
        return self._distance(target, latents) + self.weight * penalty

    def infer(self, images: Tensor) -> Latents:
        """The q of each class, (N, K, *shape) per level; unrolled where the images require grad."""
        if images.requires_grad:  # the caller keeps the whole graph: chunks would save nothing
            return self._descend(images, self.steps)
        fit = max(1, self.memory_budget // (2 * self._bytes_per_step(images)))  # a backward pass needs as much again
        if fit >= len(images):
            return self._descend(images, self.steps)
        chunks = []
        for rows in torch.arange(len(images)).split(fit):
            with select(rows) if self.variational else nullcontext():  # each image draws from its own stream
                chunks.append(self._descend(images[rows], self.steps))
        return tuple(torch.cat(levels) for levels in zip(*chunks, strict=True))

    def images_per_graph(self, images: Tensor) -> int | None:
        """As many as the memory budget allows, from the measured size of the graph of one step."""
        return max(1, self.memory_budget // (max(1, self.steps) * self._bytes_per_step(images)))

    def log_joint(self, images: Tensor, q: Latents) -> Tensor:
        """-l_k(x), (N, K); its gradient with q fixed is -2 (x - G_k(z*)) for the squared L2 distance (eq. 2.9)."""
        target = self._embed(images)
        losses = [self.loss(target, q) for _ in range(self.samples if self.variational else 1)]
        return torch.stack(losses).mean(0).neg()

    def reconstruct(self, images: Tensor, q: Latents | None = None) -> Tensor:
        """G_k(z*), variationally at the mean, for each image and class: (N, K, C, H, W) in [0, 1], detached."""
        if q is None:
            with torch.inference_mode(False), torch.enable_grad():
                q = self.infer(images.detach().clone())
        with torch.no_grad():
            return self.generator.decode_all(self._split(q)[0])

    def extra_repr(self) -> str:
        """The settings."""
        settings = f"steps={self.steps}, lr={self.lr}, weight={self.weight}, optimizer={self.optimizer!r}"
        return settings + (f", variational, start_std={self.start_std}, samples={self.samples}" if self.variational else "")

    def _distance(self, target: tuple[Tensor, ...], latents: Latents) -> Tensor:
        """D(x, G_k(z)), (N, K)."""
        reconstruction = self.generator.decode_all(latents)
        return self.distance.compare(target, self.distance.embed(reconstruction.flatten(0, 1))).view(reconstruction.shape[:2])

    def _split(self, q: Latents) -> tuple[Latents, Latents]:
        """Latents or means, and log standard deviations, which point inference has none of."""
        levels = len(q) // 2 if self.variational else len(q)
        return q[:levels], q[levels:]

    def _embed(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.repeat_interleave(self.num_classes, dim=0) for part in self.distance.embed(images))

    def _descend(self, images: Tensor, steps: int) -> Latents:
        target = self._embed(images)
        return minimize(
            lambda q: self.loss(target, q),
            self._best_start(images, target),
            steps=steps,
            lr=self.lr,
            optimizer=self.optimizer,
            project=None if self.project is None else self._projected(self.project),
            unroll=images.requires_grad,
        )

    def _best_start(self, images: Tensor, target: tuple[Tensor, ...]) -> Latents:
        """Per image and class the candidate of least loss."""
        q = self.start(images)
        if self.variational:
            q = (*q, *(torch.full_like(level, math.log(self.start_std)) for level in q))
        if len(self.proposals) == 0:
            return q
        candidates = [q, *(proposal(images) for proposal in self.proposals)]
        with torch.no_grad():
            best = torch.stack([self.loss(target, candidate) for candidate in candidates]).argmin(0)
        for number, candidate in enumerate(candidates[1:], start=1):
            chosen = best == number
            q = tuple(
                torch.where(chosen.view(*chosen.shape, *(1,) * (new.ndim - 2)), new, old)
                for new, old in zip(candidate, q, strict=True)
            )
        return q

    def _projected(self, project: Callable[[Latents], Latents]) -> Callable[[Latents], Latents]:
        """The projection of q: of latents or means."""
        return lambda q: (*project(self._split(q)[0]), *self._split(q)[1])

    def _bytes_per_step(self, images: Tensor) -> int:
        """Bytes that the graph of one unrolled step keeps per image: two images less one, so that weights do not count."""
        if self._bytes is None:
            sizes = []
            for count in (1, 2):
                # A step at a point: sampling would add little and would use up the draws of the images.
                target = self._embed(images[:1].detach().repeat(count, 1, 1, 1).requires_grad_())
                start = self.start(images[:1].detach().repeat(count, 1, 1, 1))
                sizes.append(saved_bytes(partial(self._one_step, target, start)))
            self._bytes = max(1, sizes[1] - sizes[0])
        return self._bytes

    def _one_step(self, target: tuple[Tensor, ...], start: Latents) -> Latents:
        return minimize(lambda z: self._distance(target, z), start, steps=1, lr=self.lr, optimizer=self.optimizer, unroll=True)
