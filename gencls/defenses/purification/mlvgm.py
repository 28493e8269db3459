"""Purification by multi-latent generators: keep the codes that carry the class, sample the others anew, decode.

Source: Serez, Cristani, Del Bue, Murino, Morerio, "Pre-trained Multiple Latent Variable Generative Models are good defenders
against Adversarial Attacks", WACV 2025; public code SerezD/gen_adversarial. Paper and code disagree in places. Each place has a
switch, and :meth:`MLVGMPurification.of_paper` sets all of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Self, get_args

import torch
from torch import Tensor

from gencls.core import GenclsError, Latents, MultiLatentModel, Transform, checked, keyed, repeat_rows
from gencls.defenses.purification.gaussian import FixedLengthNoise, GaussianBlur

__all__ = ["PAPER_TASKS", "MLVGMPurification", "PaperTask", "alpha_schedule", "paper_blur"]

Schedule = Literal["linear", "cosine", "uniform", "reversed-linear", "reversed-cosine"]
Limit = Literal["scale", "clip"]
Source = Literal["paper", "code"]
Preprocessing = Literal["best", "none", "blur", "noise", "blur+noise"]


@checked
def alpha_schedule(name: Schedule, num_levels: int) -> tuple[float, ...]:
    """The fixed choices of alpha over N levels, coarse to fine, i = 0 .. N - 1.

    "linear": (i + 1) / N (eq. 3); "cosine": (1 - cos(pi (i + 1) / N)) / 2 (eq. 4); "uniform": 1/2; "reversed-linear" and
    "reversed-cosine": 1 minus these. The last two keep the fine codes: they start the search for better alphas.

    Raises:
        GenclsError: for an unknown name or no level.
    """
    if num_levels < 1:
        raise GenclsError(f"alpha_schedule: expected at least 1 level, got {num_levels}")
    parts = [(i + 1) / num_levels for i in range(num_levels)]
    if name == "uniform":
        return (0.5,) * num_levels
    if name.endswith("cosine"):
        parts = [(1 - math.cos(math.pi * part)) / 2 for part in parts]
    return tuple(1 - part for part in parts) if name.startswith("reversed") else tuple(parts)


class MLVGMPurification(Transform):
    """Encode an image, mix its codes with sampled ones level by level, decode: Algorithm 1 of the paper's appendix A.

        x_p = blur, then noise (x)                                   line 1, both optional
        z^e_0, ..., z^e_{N-1} = E(x_p)                               line 2
        z_i = (1 - a_i) z^e_i + a_i z^s_i,  z^s_i from the prior     lines 3 to 6, eq. 2
        return G(z_0, ..., z_{N-1})                                  lines 7 and 8

    The model defines the codes and their sampling. In a hierarchical VAE both E and the prior of level i see the codes already
    mixed above it; the algorithm as printed encodes all levels first.

    The gradient is exact through all of it. Several draws of an image share the work before the first random number: the blur
    and, without noise, the encoder (:meth:`gencls.core.MultiLatentModel.encode_once`).

    Attributes:
        alphas: a_0, ..., a_{N-1} in [0, 1], (N,), after ``highest``.
    """

    @checked
    def __init__(
        self,
        model: MultiLatentModel,
        alphas: Schedule | Sequence[float] | Tensor,
        *,
        highest: float = 1.0,
        limit: Limit = "scale",
        blur: GaussianBlur | None = None,
        noise: FixedLengthNoise | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            model: the generator with its encoder, N latent levels, images in [0, 1].
            alphas: a name of :func:`alpha_schedule` or N numbers in [0, 1], coarse to fine: 0 keeps the image's code, 1
                replaces it.
            highest: largest alpha, in [0, 1]; the paper has 0.7 for two of its tasks.
            limit: "scale" multiplies all alphas by ``highest`` (the public code). "clip" cuts them off there (the paper's "we
                force the maximum alpha value to 0.7" read literally).
            blur: transform of the image before the noise, or None.
            noise: transform that adds noise to the image, or None.

        Raises:
            GenclsError: for alphas that are no list of numbers, another number of them than the model has levels, or values
                out of range.
        """
        super().__init__()
        levels = model.num_levels
        given = alpha_schedule(alphas, levels) if isinstance(alphas, str) else _numbers(alphas)
        if len(given) != levels:
            raise GenclsError(f"MLVGMPurification: expected {levels} alphas, one per level of the model, got {len(given)}")
        wrong = [f"alphas[{i}] = {alpha}" for i, alpha in enumerate(given) if not 0 <= alpha <= 1]
        if wrong:
            raise GenclsError(f"MLVGMPurification: expected alphas in [0, 1], got {', '.join(wrong[:3])}")
        if not 0 <= highest <= 1:
            raise GenclsError(f"MLVGMPurification: expected highest in [0, 1], got {highest}")
        self.model = model
        self.alphas = tuple(alpha * highest if limit == "scale" else min(alpha, highest) for alpha in given)
        self.highest = highest
        self.limit: Limit = limit
        self.blur = blur
        self.noise = noise
        self.stochastic = noise is not None or any(self.alphas) or bool(getattr(model, "stochastic", False))

    @classmethod
    def of_paper(
        cls,
        model: MultiLatentModel,
        task: str,
        alphas: Schedule | Literal["learned"] | Sequence[float] | Tensor = "learned",
        *,
        preprocessing: Preprocessing = "best",
        as_: Source = "code",
    ) -> Self:
        """Build the defense of one of the paper's tasks.

        Args:
            model: the task's generator (StyleGAN2 with e4e, NVAE, StyleGAN2 with the Style Transformer), or another one with
                as many levels.
            task: a key of ``PAPER_TASKS``.
            alphas: "learned" takes the alphas that the public code found by Bayesian optimisation.
            preprocessing: "best" is the paper's choice for its results (appendix D): blur for gender, noise for the others.
            as_: "code" follows the public code, which made the published numbers. Alphas are multiplied by ``highest``, the
                blur's kernel has 2^(floor(sqrt(R)/2)) - 1 taps for R pixels, and the noise of cars has length 2 with linear
                alphas. "paper" follows the text: alphas are clipped, the kernel has 2^floor(log2(R)/2) - 1 taps (a possible
                reading of "2^(R/2) - 1"), and the noise has length 4.

        Raises:
            GenclsError: for an unknown task, preprocessing or source, and as the constructor.
        """
        if task not in PAPER_TASKS:
            raise GenclsError(f"MLVGMPurification: expected a task among {', '.join(PAPER_TASKS)}, got {task!r}")
        if as_ not in get_args(Source) or preprocessing not in get_args(Preprocessing):
            raise GenclsError(
                f"MLVGMPurification: expected as_ among {', '.join(get_args(Source))} and preprocessing among "
                f"{', '.join(get_args(Preprocessing))}, got {as_!r} and {preprocessing!r}"
            )
        paper = PAPER_TASKS[task]
        steps = (paper.best if preprocessing == "best" else preprocessing).split("+")
        linear = isinstance(alphas, str) and alphas == "linear"
        length = paper.code_noise_of_linear if as_ == "code" and linear else paper.noise
        return cls(
            model,
            paper.learned if isinstance(alphas, str) and alphas == "learned" else alphas,
            highest=paper.highest,
            limit="scale" if as_ == "code" else "clip",
            blur=paper_blur(paper.resolution, as_=as_) if "blur" in steps else None,
            noise=FixedLengthNoise(length) if "noise" in steps else None,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Purified images (N, C, H, W) in [0, 1]."""
        return self.forward_draws(images, 1)

    def forward_draws(self, images: Tensor, count: int) -> Tensor:
        """``count`` purified images of each, (N * count, C, H, W); consecutive rows belong to one image."""
        return self.resample(self.encode(images, count))

    def encode(self, images: Tensor, count: int = 1) -> Latents:
        """Lines 1 and 2: the model's encoding of the images, tensors (N * count, ...)."""
        if self.blur is not None:
            images = self.blur(images)
        if self.noise is None:
            return tuple(repeat_rows(part, count) for part in self.model.encode_once(images))
        return self.model.encode_once(self.noise(repeat_rows(images, count)))

    def resample(self, encoded: Latents) -> Tensor:
        """Lines 3 to 8: sample, mix and decode the output of :meth:`encode`, (M, ...) -> images (M, C, H, W) in [0, 1]."""
        if self.stochastic:
            return self.model.decode_mixed(encoded, self.mix)
        with keyed([0]):  # sampled codes have weight 0, so drawing them must not move the streams of the images
            return self.model.decode_mixed(encoded, self.mix)

    def mix(self, level: int, encoded: Tensor, sampled: Tensor) -> Tensor:
        """Line 5, eq. 2: (1 - a_i) encoded + a_i sampled."""
        alpha = self.alphas[level]
        return (1 - alpha) * encoded + alpha * sampled

    def with_alphas(self, alphas: Schedule | Sequence[float] | Tensor) -> "MLVGMPurification":
        """The same defense with other alphas, before ``highest``; it shares the model, which keeps its mode."""
        return MLVGMPurification(self.model, alphas, highest=self.highest, limit=self.limit, blur=self.blur, noise=self.noise)

    def base(self) -> "MLVGMPurification":
        """The paper's "base model": plain autoencoding, alphas 0 and no preprocessing (section 3); it shares the model."""
        nothing = (0.0,) * len(self.alphas)
        return MLVGMPurification(self.model, nothing, highest=self.highest, limit=self.limit)

    def extra_repr(self) -> str:
        """The settings."""
        return f"alphas=[{', '.join(f'{alpha:.4g}' for alpha in self.alphas)}]"


def _numbers(alphas: Sequence[float] | Tensor) -> tuple[float, ...]:
    given = torch.as_tensor(alphas, dtype=torch.float64)
    if given.ndim > 1:
        raise GenclsError(f"MLVGMPurification: expected a list of numbers, got numbers of shape {tuple(given.shape)}")
    return tuple(given.reshape(-1).tolist())


@checked
def paper_blur(resolution: int, *, as_: Source = "code") -> GaussianBlur:
    """The paper's blur, sigma 1. The size of its kernel depends on the resolution.

    The paper prints 2^(R/2) - 1 taps for R pixels, more than atoms in the universe at 256. The public code says that R is
    2^n, but takes n = sqrt(R). Its 2^floor(n/2) - 1 taps are 15, 31 and 255 at 64, 128 and 256 pixels. The comment beside it
    describes n = log2(R), which gives 7, 7 and 15. Taps further out than 15 are zero in float32, so they are left out.

    Args:
        resolution: R, height and width of the images, >= 16.
        as_: "code" for n = sqrt(R), "paper" for n = log2(R).

    Raises:
        GenclsError: for a resolution at which the kernel would be a single tap, or an unknown source.
    """
    if resolution < 16:
        raise GenclsError(f"paper_blur: expected resolution >= 16, got {resolution}")
    exponent = int((math.sqrt(resolution) if as_ == "code" else math.log2(resolution)) // 2)
    return GaussianBlur(1.0, radius=min((2**exponent - 1) // 2, 15))


@dataclass(frozen=True)
class PaperTask:
    """Settings of one of the paper's three tasks.

    Attributes:
        learned: alphas found by Bayesian optimisation, before ``highest``, as the public code lists them.
        resolution: height and width of the images in pixels.
        highest: largest alpha, in [0, 1].
        noise: L2 length of the noise in [0, 1] pixel units.
        code_noise_of_linear: L2 length of the noise in the public code's configuration with linear alphas.
        best: preprocessing of the paper's results, "blur" or "noise".
    """

    learned: tuple[float, ...]
    resolution: int
    highest: float
    noise: float
    code_noise_of_linear: float
    best: Preprocessing


def _alphas(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split()))


PAPER_TASKS: Mapping[str, PaperTask] = MappingProxyType(
    {
        "gender": PaperTask(  # CelebA-HQ, StyleGAN2 with e4e, 18 levels
            _alphas(".492 .728 .058 .331 .246 .059 .068 .526 .646 .816 .548 .692 .309 .610 .729 .348 .728 .697"),
            resolution=256,
            highest=1.0,
            noise=4.0,
            code_noise_of_linear=4.0,
            best="blur",
        ),
        "identities": PaperTask(  # CelebA, NVAE, 24 levels
            _alphas("0 0 .001 .136 .131 .206 .179 .305 .347 .349 .465 .528 .551 .606 .681 .676 .834 .800 .938 .911 1 1 1 1"),
            resolution=64,
            highest=0.7,
            noise=2.0,
            code_noise_of_linear=2.0,
            best="noise",
        ),
        "cars": PaperTask(  # Stanford Cars, StyleGAN2 with the Style Transformer, 16 levels
            _alphas("1 0 0 .737 0 0 .834 1 .261 0 .205 1 .908 0 .268 1"),
            resolution=128,
            highest=0.7,
            noise=4.0,
            code_noise_of_linear=2.0,
            best="noise",
        ),
    }
)
"""The paper's tasks by name; the attacks on them are :func:`gencls.eval.mlvgm_attacks`."""
