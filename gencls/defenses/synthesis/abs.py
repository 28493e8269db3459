"""ABS, analysis by synthesis with one VAE per class (Schott et al. 2019, arXiv:1805.09190; thesis, section 2.1)."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from gencls.core import BayesClassifier, ClassConditionalGenerator, GenclsError, Unrolled, checked, surrogates_of
from gencls.defenses.synthesis.ball import Ball, SignLosingBall
from gencls.defenses.synthesis.checks import check_weight
from gencls.defenses.synthesis.elimination import Elimination
from gencls.defenses.synthesis.engine import AnalysisBySynthesis
from gencls.defenses.synthesis.regularizers import GaussianKL
from gencls.defenses.synthesis.starts import RandomStarts
from gencls.perceptual import SquaredL2

__all__ = ["ABS", "ClassFactors"]

Q = TypeVar("Q")


@checked
def ABS(  # noqa: N802 - the name of the method
    generator: ClassConditionalGenerator,
    *,
    starts: int = 8000,
    steps: int = 50,
    lr: float = 0.05,
    beta: float = 1.0,
    radius: float | None = 5.0,
    keep_signs: bool = True,
    seed: int = 0,
    fast: bool = False,
    warm_steps: int | None = None,
    memory_budget: int = 2**31,
) -> AnalysisBySynthesis:
    r"""ABS on the engine of Algorithm 2.

    Each class scores by its best evidence lower bound (thesis, eq. 2.2; its first sign is a slip, because the squared error is
    minimised),

        -log p(x | k) ~ min_z ||x - G_k(z)||_2^2 + beta KL[N(z, 1) || N(0, 1)],    KL = ||z||^2 / 2,

    with a uniform class prior. The descent starts from the best of 8000 random codes. The public code deviates: it divides
    scores by the number of pixels, loses the signs of latents that it clips, keeps the densest 8000 of 8888 codes, and makes
    50 evaluations, which are 49 steps. :func:`gencls.zoo.networks.abs.published.official_abs` follows it.

    Args:
        generator: the K decoders.
        starts: number of random codes to choose from, >= 1; 8000 in the thesis.
        steps: Adam steps, >= 0; unspecified in the thesis.
        lr: Adam's step size, > 0; 0.05 in the public code, unspecified in the thesis.
        beta: weight of the KL term, from 0 to 1e15; 1 in the thesis.
        radius: largest L2 norm of a latent; 5 in the public code; None does not project.
        keep_signs: True keeps the signs of latents in the projection. False loses them, as the public code does.
        seed: seed of the random codes.
        fast: True lets hopeless classes leave the descent early, by
            :class:`~gencls.defenses.synthesis.elimination.Elimination`.
        warm_steps: number of descent steps, >= 1, of the gradient mode "warm" that then takes the place of "frozen", see
            :class:`AnalysisBySynthesis`. None keeps "frozen".
        memory_budget: bytes of activations per chunk of images.

    Returns:
        A deterministic :class:`AnalysisBySynthesis` with scores -log p(x | k) up to a constant, (N, K).

    Raises:
        GenclsError: for settings that the parts refuse.
    """
    check_weight("ABS", "beta", beta)
    regularizer = GaussianKL()
    project = None if radius is None else Ball(radius) if keep_signs else SignLosingBall(radius)
    return AnalysisBySynthesis(
        generator,
        start=RandomStarts(generator, regularizer, beta, count=starts, seed=seed),
        distance=SquaredL2(),
        regularizer=regularizer,
        weight=beta,
        steps=steps,
        lr=lr,
        project=project,
        elimination=Elimination() if fast else None,
        warm_steps=warm_steps,
        memory_budget=memory_budget,
    )


class _Times(nn.Module):
    """Scores (N, K) times factors (K,)."""

    factors: Tensor

    def __init__(self, factors: Tensor) -> None:
        super().__init__()
        self.register_buffer("factors", factors)

    def forward(self, scores: Tensor) -> Tensor:
        return scores * self.factors


class ClassFactors(BayesClassifier[Q]):
    """A Bayes classifier with its k-th score multiplied by a factor f_k > 0; inference stays as it is.

    The binary variant of ABS calibrates its classes like this. The scores of ABS are negative distances, so a factor above 1
    makes a class rarer. Scores with another offset need another calibration.
    """

    factors: Tensor

    @checked
    def __init__(self, classifier: BayesClassifier[Q], factors: Sequence[float]) -> None:
        """Take the classifier and K factors.

        Raises:
            GenclsError: if the number of factors is not K, or for factors that are not positive and finite.
        """
        super().__init__()
        values = torch.tensor(factors, dtype=torch.float32)
        if len(factors) != classifier.num_classes or not bool((values > 0).all()):
            raise GenclsError(f"ClassFactors: expected {classifier.num_classes} positive factors, got {tuple(factors)}")
        self.classifier = classifier
        self.num_classes = classifier.num_classes
        self.stochastic = classifier.stochastic
        self.register_buffer("factors", values)

    def infer(self, images: Tensor) -> Q:
        """Infer as the classifier does."""
        return self.classifier.infer(images)

    def log_joint(self, images: Tensor, q: Q) -> Tensor:
        """The classifier's scores times the factors, (N, K)."""
        return self.classifier.log_joint(images, q) * self.factors

    def reconstruct(self, images: Tensor, q: Q | None = None) -> Tensor:
        """Reconstruct as the classifier does."""
        return self.classifier.reconstruct(images, q)

    def images_per_graph(self, images: Tensor) -> int | None:
        """The classifier's number."""
        return self.classifier.images_per_graph(images)

    def surrogates(self) -> Mapping[str, nn.Module]:
        """The gradient modes of the classifier, with the factors behind them."""

        def scaled(module: nn.Module) -> nn.Module:
            if module is self.classifier:
                return self
            return Unrolled(self) if type(module) is Unrolled else nn.Sequential(module, _Times(self.factors))

        return {name: scaled(module) for name, module in surrogates_of(self.classifier).items()}
