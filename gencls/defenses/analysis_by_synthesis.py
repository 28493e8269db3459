"""Analysis by synthesis: one engine for all classifiers that classify by reconstruction.

The thesis's Algorithm 2 is the template of all of them. For each class k: start somewhere, descend on the latents, take the
final loss as the negative log joint density,

    l_k(x) = min_z  D(x, G_k(z)) + lambda R(z, z_init),        prediction argmin_k l_k(x).

ABS, E-ABS and the GAN-inversion classifiers are this engine put together from different parts.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gencls.core import BayesClassifier, ClassConditionalGenerator, GenclsError, ImageDistance, Latents, minimize, seeded
from gencls.core.inference import Optimizer
from gencls.core.memory import saved_bytes

__all__ = ["AnalysisBySynthesis", "Ball", "GaussianKL", "RandomStarts"]


class GaussianKL(nn.Module):
    """R(z) = KL[N(z, 1) || N(0, 1)] = ||z||^2 / 2, the second term of thesis eq. 2.2."""

    def forward(self, latents: Latents) -> Tensor:
        """Latents (M, *shape) per level -> (M,)."""
        return sum((0.5 * level.flatten(1).square().sum(1) for level in latents), start=latents[0].new_zeros(()))


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


class RandomStarts(nn.Module):
    """Algorithm 3: the best of N random codes per class, by squared L2 distance and the regulariser.

    The codes are shared by all classes and their images are decoded once and cached. With cached norms the distances of all
    images to all N x K candidates are one matrix product: ||x - g||^2 = ||x||^2 + ||g||^2 - 2 <x, g>.
    """

    codes: Tensor

    def __init__(
        self, generator: ClassConditionalGenerator, regularizer: nn.Module, weight: float, *, count: int, seed: int
    ) -> None:
        """Draw the codes; they are part of the state dict, so a saved classifier keeps them.

        Args:
            generator: decodes and samples latents.
            regularizer: R, latents (M, *shape) -> (M,).
            weight: lambda, the factor of R.
            count: N >= 1.
            seed: of the codes; the global random state is left as it was.

        Raises:
            GenclsError: for a count below 1.
        """
        super().__init__()
        if count < 1:
            raise GenclsError(f"RandomStarts: expected count >= 1 random codes, got {count}")
        with seeded(seed):
            codes = generator.sample_latents(count)
        self.count = count
        self.shapes = generator.latent_shapes
        self.weight = weight
        self._parts = (generator, regularizer)  # in a tuple: the engine owns these modules
        self._bank: tuple[Tensor, Tensor] | None = None
        self._bank_is_of: list[object] = []
        self.register_buffer("codes", torch.cat([level.flatten(1) for level in codes], dim=1))

    def latents(self, codes: Tensor) -> Latents:
        """Flat codes (..., d) -> one tensor (..., *shape) per level."""
        sizes = [shape.numel() for shape in self.shapes]
        return tuple(
            flat.unflatten(-1, tuple(shape)) for flat, shape in zip(codes.split(sizes, dim=-1), self.shapes, strict=True)
        )

    def bank(self) -> tuple[Tensor, Tensor]:
        """Images (K, N, C*H*W) of the codes, and ||g||^2 / 2 + lambda R / 2 as (K, N); decoded when first needed."""
        generator, regularizer = self._parts
        # Storage and version of all that it is decoded from: loading other weights or moving the module makes it anew.
        made_of: list[object] = [
            (t.data_ptr(), 0 if t.is_inference() else t._version, t.dtype, t.device)
            for t in (self.codes, *generator.parameters(), *generator.buffers())
        ]
        if self._bank is None or made_of != self._bank_is_of:
            classes = generator.num_classes
            images = []
            with torch.no_grad():
                for codes in self.codes.split(64):  # larger pieces are slower: the activations leave the cache
                    shared = codes.unsqueeze(1).expand(-1, classes, -1)
                    images.append(generator.decode_all(self.latents(shared)).flatten(2).transpose(0, 1))
                decoded = torch.cat(images, dim=1)
                penalty = self.weight * regularizer(self.latents(self.codes))
                self._bank = decoded, 0.5 * (decoded.square().sum(2) + penalty)
                self._bank_is_of = made_of
        return self._bank

    def forward(self, images: Tensor) -> Latents:
        """Images (N, C, H, W) -> the best code for each class, (N, K, *shape) per level."""
        decoded, offsets = self.bank()
        flat = images.detach().flatten(1).to(decoded.dtype)
        best = torch.stack(
            [torch.addmm(offset, flat, bank.T, alpha=-1.0).argmin(1) for bank, offset in zip(decoded, offsets, strict=True)],
            dim=1,
        )
        return self.latents(self.codes[best])

    def extra_repr(self) -> str:
        """The settings."""
        return f"count={self.count}, weight={self.weight}"


class AnalysisBySynthesis(BayesClassifier[Latents]):
    """Algorithm 2 of the thesis; final. Put together from parts, or by a named constructor such as :func:`ABS`.

    Deterministic once built: where it starts is part of its state.
    """

    def __init__(
        self,
        generator: ClassConditionalGenerator,
        *,
        start: Callable[[Tensor], Latents],
        distance: ImageDistance,
        regularizer: nn.Module,
        weight: float,
        steps: int,
        lr: float,
        optimizer: Optimizer = "adam",
        project: Callable[[Latents], Latents] | None = None,
        memory_budget: int = 2**31,
    ) -> None:
        """Put the parts together.

        Args:
            generator: G.
            start: I, images (N, C, H, W) -> latents (N, K, *shape) per level.
            distance: D between an image and its reconstruction.
            regularizer: R, latents (M, *shape) -> (M,).
            weight: lambda (the beta of ABS), >= 0.
            steps: descent steps, >= 0.
            lr: step size of the optimiser, > 0.
            optimizer: O, "adam" or "gradient".
            project: applied to latents (N, K, *shape) after each step.
            memory_budget: bytes that the graph of one chunk of images may keep; the chunk is at least one image.

        Raises:
            GenclsError: for a negative weight or number of steps or a step size that is not positive.
        """
        super().__init__()
        if weight < 0 or steps < 0 or lr <= 0:
            raise GenclsError(f"expected weight >= 0, steps >= 0, lr > 0, got weight={weight}, steps={steps}, lr={lr}")
        self.generator = generator.requires_grad_(False)  # inference must not collect gradients of the parameters
        self.start = start
        self.distance = distance
        self.regularizer = regularizer
        self.num_classes = generator.num_classes
        self.weight = weight
        self.steps = steps
        self.lr = lr
        self.optimizer: Optimizer = optimizer
        self.project = project
        self.memory_budget = memory_budget
        self._bytes: int | None = None

    def loss(self, target: tuple[Tensor, ...], latents: Latents) -> Tensor:
        """D(x, G_k(z)) + lambda R(z): (N, K) from an embedding whose rows are the images, each repeated K times."""
        reconstruction = self.generator.decode_all(latents)
        distance = self.distance.compare(target, self.distance.embed(reconstruction.flatten(0, 1)))
        penalty = self.regularizer(tuple(level.flatten(0, 1) for level in latents))
        total: Tensor = distance + self.weight * penalty
        return total.view(reconstruction.shape[:2])

    def infer(self, images: Tensor) -> Latents:
        """The best latents per class, (N, K, *shape) per level; unrolled where the images require grad."""
        if images.requires_grad:  # the caller keeps the whole graph: chunks would save nothing
            return self._descend(images, self.steps)
        fit = max(1, self.memory_budget // (2 * self._bytes_per_step(images)))  # a backward pass needs as much again
        chunks = [self._descend(chunk, self.steps) for chunk in images.split(fit)]
        return tuple(torch.cat(levels) for levels in zip(*chunks, strict=True))

    def images_per_graph(self, images: Tensor) -> int | None:
        """As many as the memory budget allows, from the measured size of the graph of one step."""
        return max(1, self.memory_budget // (max(1, self.steps) * self._bytes_per_step(images)))

    def log_joint(self, images: Tensor, q: Latents) -> Tensor:
        """-l_k(x), (N, K); its gradient with q fixed is -2 (x - G_k(z*)) for the squared L2 distance (eq. 2.9)."""
        return self.loss(self._embed(images), q).neg()

    def reconstruct(self, images: Tensor, q: Latents | None = None) -> Tensor:
        """G_k(z*) for each image and class: (N, K, C, H, W) in [0, 1], detached."""
        if q is None:
            with torch.inference_mode(False), torch.enable_grad():
                q = self.infer(images.detach().clone())
        with torch.no_grad():
            return self.generator.decode_all(q)

    def extra_repr(self) -> str:
        """The settings."""
        return f"steps={self.steps}, lr={self.lr}, weight={self.weight}, optimizer={self.optimizer!r}"

    def _embed(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.repeat_interleave(self.num_classes, dim=0) for part in self.distance.embed(images))

    def _descend(self, images: Tensor, steps: int) -> Latents:
        target = self._embed(images)
        return minimize(
            lambda latents: self.loss(target, latents),
            self.start(images),
            steps=steps,
            lr=self.lr,
            optimizer=self.optimizer,
            project=self.project,
            unroll=images.requires_grad,
        )

    def _bytes_per_step(self, images: Tensor) -> int:
        """Bytes that the graph of one unrolled step keeps per image: two images less one, so that weights do not count."""
        if self._bytes is None:
            one, two = (images[:1].detach().repeat(count, 1, 1, 1).requires_grad_() for count in (1, 2))
            self._bytes = max(1, saved_bytes(lambda: self._descend(two, 1)) - saved_bytes(lambda: self._descend(one, 1)))
        return self._bytes
