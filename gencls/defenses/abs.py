"""ABS, analysis by synthesis with one VAE per class (Schott et al. 2019, arXiv:1805.09190; thesis, section 2.1)."""

from gencls.core import ClassConditionalGenerator
from gencls.defenses.analysis_by_synthesis import AnalysisBySynthesis, Ball, GaussianKL, RandomStarts
from gencls.perceptual import SquaredL2

__all__ = ["ABS"]


def ABS(  # noqa: N802 - the name of the method
    generator: ClassConditionalGenerator,
    *,
    starts: int = 8000,
    steps: int = 50,
    lr: float = 0.05,
    beta: float = 1.0,
    radius: float | None = 5.0,
    seed: int = 0,
    memory_budget: int = 2**31,
) -> AnalysisBySynthesis:
    r"""ABS on the engine of Algorithm 2.

    Each class scores by its best evidence lower bound (thesis, eq. 2.2, whose first sign is a slip: the squared error is
    minimised),

        -log p(x | k) ~ min_z ||x - G_k(z)||_2^2 + beta KL[N(z, 1) || N(0, 1)],    KL = ||z||^2 / 2,

    with a uniform class prior. The descent starts from the best of 8000 random codes. Deviations of the public code: it
    divides scores by the number of pixels, loses the signs of latents that it clips, keeps the densest 8000 of 8888 codes, and
    counts 50 evaluations, that is 49 steps.

    Args:
        generator: the K decoders.
        starts: random codes to choose from; 8000 in the thesis.
        steps: Adam steps; unspecified in the thesis.
        lr: Adam's step size; 0.05 in the public code, unspecified in the thesis.
        beta: weight of the KL term; 1 in the thesis.
        radius: latents stay within this L2 norm; 5 in the public code; None does not project.
        seed: of the random codes.
        memory_budget: bytes of activations per chunk of images.

    Returns:
        A deterministic :class:`AnalysisBySynthesis` with scores -log p(x | k) up to a constant, (N, K).
    """
    regularizer = GaussianKL()
    return AnalysisBySynthesis(
        generator,
        start=RandomStarts(generator, regularizer, beta, count=starts, seed=seed),
        distance=SquaredL2(),
        regularizer=regularizer,
        weight=beta,
        steps=steps,
        lr=lr,
        project=None if radius is None else Ball(radius),
        memory_budget=memory_budget,
    )
