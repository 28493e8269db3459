"""Analysis by synthesis: one engine for all classifiers that classify by reconstruction.

The thesis's Algorithm 2 is the template of all of them. For each class k it starts somewhere, descends on the latents, and
takes the final loss as the negative log joint density,

    l_k(x) = min_z  D(x, G_k(z)) + lambda R(z, z_init),        prediction argmin_k l_k(x).

ABS, E-ABS and the GAN-inversion classifiers are this engine put together from different parts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gencls.core import BayesClassifier, ClassConditionalGenerator, Embedding, ImageDistance, Latents
from gencls.core.images import check_image_shape
from gencls.core.inference import Optimizer, Rate, minimize, where
from gencls.core.memory import saved_bytes
from gencls.core.modules.modes import check_mode_is_settled, frozen
from gencls.core.rows import select
from gencls.core.settings import checked
from gencls.defenses.synthesis.checks import check_finite, check_numbers, check_same_generator, shape_of_images, started
from gencls.defenses.synthesis.elimination import Contest, Elimination
from gencls.defenses.synthesis.posterior import Posterior, Q, means, moved, together, variables
from gencls.defenses.synthesis.regularizers import Regularizer
from gencls.defenses.synthesis.warm import WHOLE_EVERY, WarmStart

__all__ = ["AnalysisBySynthesis"]


class AnalysisBySynthesis(BayesClassifier[Q]):
    """Algorithm 2 of the thesis; final. Put it together from parts, or call a named constructor such as :func:`ABS`.

    The descent optimises q. Point inference has a latent per class and level. Variational inference (extension V of E-ABS,
    eq. 2.6) has mean and log standard deviation of a Gaussian over latents, by reparameterisation with one sample a step. Point
    inference is deterministic, because its starts are part of its state.
    """

    @checked
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
        rate: Rate | None = None,
        project: Callable[[Latents], Latents] | None = None,
        variational: bool = False,
        start_std: float = 1.0,
        proposals: Sequence[nn.Module] = (),
        samples: int = 1,
        elimination: Elimination | None = None,
        warm_steps: int | None = None,
        memory_budget: int = 2**31,
    ) -> None:
        """Put the parts together.

        Args:
            generator: G, latents and classes to images in [0, 1]. It stays; a wrapper of it may take its place.
            start: I, images (N, C, H, W) -> latents (N, K, *shape) per level. A function that is no module brings its own
                device, type and eval mode, and unrolled gradients reach the parameters in it.
            distance: D between an image and its reconstruction.
            regularizer: R, the price of latents.
            weight: lambda (the beta of ABS), the factor of R, from 0 to 1e15.
            steps: descent steps, >= 0.
            lr: step size of the optimiser, > 0.
            optimizer: O, "adam" or "gradient".
            rate: schedule of the step size, for instance :class:`~gencls.defenses.synthesis.rates.CyclicalRate`; None keeps
                ``lr`` in all steps.
            project: projection of the latents, or of the means, (N, K, *shape), after each step; None does not project.
            variational: True optimises Gaussians over latents, False points.
            start_std: standard deviation around the latents of ``start``, > 0; for variational inference.
            proposals: other starts, functions of images that return q. Each image and class takes the start of least loss.
            samples: latents drawn for the final score of variational inference, >= 1.
            elimination: rule by which hopeless classes leave the descent early (the fast path); None optimises all to the end.
            warm_steps: number of descent steps, >= 1, of the gradient mode "warm" that then takes the place of "frozen". Its
                inference goes on from its result at the attack's last look. The classifier itself always infers in full.
            memory_budget: bytes that the graph of one chunk of images may keep, >= 1; the chunk is at least one image.

        Raises:
            GenclsError: for settings out of range. When called: for a network in training mode with layers to which the mode
                matters, a start with another number of levels than the generator, or losses that are not finite. When its
                generator is replaced: by another one.
        """
        super().__init__()
        check_numbers(weight, steps, lr, start_std, samples, warm_steps, memory_budget)
        self.generator = generator
        self.start = start
        self.proposals, self.distance = nn.ModuleList(proposals), distance
        self.regularizer = regularizer
        self.num_classes = generator.num_classes
        self.stochastic = variational
        self.variational = variational
        self.weight = weight
        self.steps = steps
        self.lr = lr
        self.optimizer: Optimizer = optimizer
        self.rate = rate
        self.project = project
        self.start_std = start_std
        self.samples = samples
        self.elimination = elimination
        self.warm_steps = warm_steps
        self.memory_budget = memory_budget
        self._bytes: dict[tuple[torch.Size, torch.dtype], int] | None = None
        self._image_shape: torch.Size | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse another generator."""
        if name == "generator":
            check_same_generator(self.__dict__.get("_modules", {}).get(name), value, owner="AnalysisBySynthesis")
        super().__setattr__(name, value)

    def loss(self, target: Embedding, q: Q, pairs: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """D(x, G_k(z)) + lambda R. Variationally z is a fresh sample of q: an unbiased estimate of the expectation in eq. 2.6.

        Without ``pairs``, embeddings (N, K, ...) give all losses, (N, K). With ``pairs`` of images and classes, (M,) each, the
        embeddings (M, ...) of their images give the losses of the pairs, (M,), with the same sample.
        """
        latents = tuple(level.sample() for level in q)
        penalty = self.regularizer.expected(q, latents)
        return self._distance(target, latents, pairs) + self.weight * (penalty if pairs is None else penalty[pairs])

    def infer(self, images: Tensor) -> Q:
        """The q of each class, per level; unrolled if the images require grad.

        Raises:
            GenclsError: the generator makes images of another shape, or outside [0, 1].
        """
        return self.resume(images, None, self.steps)

    def resume(self, images: Tensor, q: Q | None, steps: int) -> Q:
        """Infer with ``steps`` steps from the q of similar images, at the first rate of the schedule if there is one.

        None begins at the start, as :meth:`infer` does.
        """
        self._check_images(images)
        with frozen(self):
            return self._in_parts(images, q, steps)

    def surrogates(self) -> Mapping[str, nn.Module]:
        """``frozen`` (eq. 2.9), or with ``warm_steps`` a new ``warm`` one, and ``unrolled``."""
        modes = super().surrogates()
        return modes if self.warm_steps is None else {"warm": WarmStart(self, self.warm_steps), "unrolled": modes["unrolled"]}

    def images_per_graph(self, images: Tensor) -> int | None:
        """Images that the memory budget allows, from the measured size of the graph of one step."""
        self._check_images(images)
        return max(1, self.memory_budget // (max(1, self.steps) * self._bytes_per_step(images)))

    def log_joint(self, images: Tensor, q: Q) -> Tensor:
        """-l_k(x), (N, K); its gradient with q fixed is -2 (x - G_k(z*)) for the squared L2 distance (eq. 2.9)."""
        check_mode_is_settled(self, name="AnalysisBySynthesis")
        with frozen(self):
            target = self._embed(images)
            losses = [self.loss(target, q) for _ in range(self.samples if self.variational else 1)]
        mean = torch.stack(losses).mean(0)
        check_finite(mean, self.weight, self.lr)
        return mean.neg()

    def reconstruct(self, images: Tensor, q: Q | None = None) -> Tensor:
        """G_k(z*), variationally at the mean, for each image and class: (N, K, C, H, W) in [0, 1], detached."""
        if q is None:
            with torch.inference_mode(False), torch.enable_grad():
                q = self.infer(images.detach().clone())
        check_mode_is_settled(self, name="AnalysisBySynthesis")
        with torch.no_grad():
            return self._decode(means(q))

    def __getstate__(self) -> dict[str, Any]:
        """Copies, files and keys hold the classifier, not what it has measured: the sizes of its graph and of its images."""
        return {**self.__dict__, "_bytes": None, "_image_shape": None}

    def extra_repr(self) -> str:
        """The settings."""
        settings = f"steps={self.steps}, lr={self.lr}, weight={self.weight}, optimizer={self.optimizer!r}"
        settings += f", rate={self.rate}" if self.rate else ""
        settings += f", variational, start_std={self.start_std}, samples={self.samples}" if self.variational else ""
        settings += f", elimination={self.elimination.rounds}" if self.elimination else ""
        settings += f", warm_steps={self.warm_steps}, whole every {WHOLE_EVERY} looks" if self.warm_steps else ""
        return settings

    def _check_images(self, images: Tensor) -> None:
        """Refuse networks whose mode matters, and images of another shape than the generator's."""
        check_mode_is_settled(self, name="AnalysisBySynthesis")
        if self._image_shape is None:
            self._image_shape = shape_of_images(self.generator)
        check_image_shape(images, self._image_shape, name="AnalysisBySynthesis", why=", as the generator makes")

    def _in_parts(self, images: Tensor, q: Q | None, steps: int) -> Q:
        """Descend for as many images at once as fit; without q from the start."""
        if images.requires_grad:  # the caller keeps the whole graph: chunks would save nothing
            return self._descend(images, q, steps)
        fit = max(1, self.memory_budget // (2 * self._bytes_per_step(images)))  # a backward pass needs as much again
        if fit >= len(images):
            return self._descend(images, q, steps)
        chunks = []
        for rows in torch.arange(len(images)).split(fit):
            with select(rows, len(images)) if self.variational else nullcontext():  # each image draws from its own stream
                chunks.append(self._descend(images[rows], None if q is None else together(lambda t, i=rows: t[i], q), steps))
        return together(lambda *parts: torch.cat(parts), *chunks)

    def _embed(self, images: Tensor) -> Embedding:
        """(N, K, ...): views of one embedding of each image."""
        parts = self.distance.embed(images)
        return tuple(part.unsqueeze(1).expand(-1, self.num_classes, *part.shape[1:]) for part in parts)

    def _decode(self, latents: Latents) -> Tensor:
        """Images of all classes, (N, K, C, H, W). The generator may work in place: it gets copies."""
        return self.generator.decode_all(tuple(level.clone() for level in latents))

    def _distance(self, target: Embedding, latents: Latents, pairs: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """D(x, G_k(z)), (N, K), or (M,) for pairs of images and classes."""
        if pairs is not None:
            chosen = self.generator(tuple(level[pairs] for level in latents), pairs[1])
            return self.distance.compare_all(target, self.distance.embed(chosen), pairs[0].shape)
        made = self._decode(latents)
        embedded = self.distance.embed(made.flatten(0, 1))
        parts = tuple(part.view(*made.shape[:2], *part.shape[1:]) for part in embedded)
        return self.distance.compare_all(target, parts, made.shape[:2])

    def _descend(self, images: Tensor, q: Q | None, steps: int) -> Q:
        target = self._embed(images)
        contest = None if self.elimination is None else Contest(self.elimination, target)
        begin = self._begin(images, target) if q is None or self.regularizer.from_start else q
        if q is not None:
            begin = moved(begin, variables(q))
        project, levels = self.project, len(begin)
        rate = self.rate
        if q is not None and rate is not None:  # near an optimum, which the rise of a new cycle would leave again
            first = rate(1, max(1, self.steps))
            rate = lambda step, steps: first  # noqa: E731 - a schedule that stays

        def objective(found: Latents) -> Tensor:
            present = moved(begin, found)
            if contest is None:
                return self.loss(target, present)
            return contest.losses(self.loss(contest.target, present, contest.pairs))

        found = minimize(
            objective,
            variables(begin),
            steps=steps,
            lr=self.lr,
            optimizer=self.optimizer,
            rate=rate,
            project=None if project is None else lambda found: (*project(found[:levels]), *found[levels:]),
            unroll=images.requires_grad,
            keep=None if contest is None else contest.keep,
        )
        return moved(begin, found)

    def _begin(self, images: Tensor, target: Embedding) -> Q:
        """Per image and class the candidate of least loss."""
        log_std = math.log(self.start_std)
        latents = started(self.start, images, self.generator)
        q = tuple(Posterior(z, torch.full_like(z, log_std) if self.variational else None) for z in latents)
        candidates: list[Q] = [q, *(proposal(images) for proposal in self.proposals)]
        if not images.requires_grad:  # parameters that are not frozen, in a start that is no module, collect no gradients
            candidates = [together(Tensor.detach, one) for one in candidates]
        if self.regularizer.from_start:
            candidates = [tuple(replace(level, start=level.mean) for level in one) for one in candidates]
        q = candidates[0]
        if len(candidates) == 1:
            return q
        with torch.no_grad():
            best = torch.stack([self.loss(target, candidate) for candidate in candidates]).argmin(0)
        for number, candidate in enumerate(candidates[1:], start=1):
            q = together(partial(where, best == number), candidate, q)
        return q

    def _bytes_per_step(self, images: Tensor) -> int:
        """Bytes per image in the graph of one unrolled step: two images less one, so that weights do not count."""
        kind, known = (images.shape[1:], images.dtype), self._bytes or {}
        if kind not in known:
            sizes = []
            for count in (1, 2):
                # A step at a point: sampling would add little and would use up the draws of the images.
                some = images.new_zeros(count, *images.shape[1:])
                target, start = self._embed(some.clone().requires_grad_()), started(self.start, some, self.generator)
                sizes.append(saved_bytes(partial(self._one_step, target, start)))
            self._bytes = known = {**known, kind: max(1, sizes[1] - sizes[0])}
        return known[kind]

    def _one_step(self, target: Embedding, start: Latents) -> Latents:
        return minimize(lambda z: self._distance(target, z), start, steps=1, lr=self.lr, optimizer=self.optimizer, unroll=True)
