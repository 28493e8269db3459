"""E-ABS: ABS with an adversarial autoencoder, a discriminative loss and variational inference (thesis, chapter 2)."""

from torch import nn

from gencls.core import ClassConditionalGenerator, checked
from gencls.defenses.synthesis.checks import check_weight
from gencls.defenses.synthesis.elimination import Elimination
from gencls.defenses.synthesis.engine import AnalysisBySynthesis
from gencls.defenses.synthesis.regularizers import DiscriminatorPenalty, GaussianKL
from gencls.defenses.synthesis.starts import EncoderStart, RandomStarts
from gencls.perceptual import SquaredL2

__all__ = ["EABS"]


@checked
def EABS(  # noqa: N802 - the name of the method
    generator: ClassConditionalGenerator,
    *,
    encoder: nn.Module | None = None,
    discriminator: nn.Module | None = None,
    variational: bool = True,
    starts: int = 8000,
    start_std: float = 1.0,
    steps: int = 50,
    lr: float = 0.05,
    beta: float = 1.0,
    samples: int = 1,
    seed: int = 0,
    fast: bool = False,
    warm_steps: int | None = None,
    memory_budget: int = 2**31,
) -> AnalysisBySynthesis:
    r"""E-ABS on the engine of Algorithm 2, and every step between it and ABS (Table 2.6).

    Each class scores by (eq. 2.6)

        -log p(x | k) ~ min_{mu, Sigma} E_{z ~ N(mu, Sigma)} [ ||x - G_k(z)||_2^2 - beta log D(z) ].

    There are three extensions. A: the networks are trained as adversarial autoencoders, and the ``discriminator`` replaces the
    KL divergence. D: they are trained with the discriminative loss, which does not change inference. V: ``variational``. Sigma
    is diagonal and parametrised by its log standard deviations. The descent starts from the best of 8000 random means, compared
    at their means, and of the encoder's Q(z | x), compared by one sample. ``start_std`` is the standard deviation of the means.

    Args:
        generator: the K decoders.
        encoder: a module, images (N, C, H, W) -> mean and log-variance, each (N, K, d); None takes random starts only. Point
            inference does not use it: ABS avoids encoders because they can be attacked.
        discriminator: latents (N, K, d) -> logits of D, (N, K); None takes beta KL[q || N(0, 1)] in place of -beta log D.
        variational: True optimises mean and variance (V), False a point.
        starts: number of random codes to choose from, >= 1; 8000 in the thesis.
        start_std: standard deviation around these codes, > 0; 1 in the thesis.
        steps: Adam steps, >= 0; unspecified in the thesis.
        lr: Adam's step size, > 0; unspecified in the thesis.
        beta: weight of the prior term, from 0 to 1e15; 1 in the thesis.
        samples: number of latents in the mean of the final score, >= 1; unspecified in the thesis.
        seed: seed of the random codes.
        fast: True lets hopeless classes leave the descent early, by
            :class:`~gencls.defenses.synthesis.elimination.Elimination`.
        warm_steps: number of descent steps, >= 1, of the gradient mode "warm" that then takes the place of "frozen", see
            :class:`AnalysisBySynthesis`. None keeps "frozen".
        memory_budget: bytes of activations per chunk of images.

    Returns:
        An :class:`AnalysisBySynthesis` with scores -log p(x | k) up to a constant, (N, K); stochastic if variational.
    """
    check_weight("EABS", "beta", beta)
    regularizer = GaussianKL() if discriminator is None else DiscriminatorPenalty(discriminator)
    return AnalysisBySynthesis(
        generator,
        start=RandomStarts(generator, regularizer, beta, count=starts, seed=seed),
        distance=SquaredL2(),
        regularizer=regularizer,
        weight=beta,
        steps=steps,
        lr=lr,
        variational=variational,
        start_std=start_std,
        proposals=[EncoderStart(encoder)] if encoder is not None and variational else (),
        samples=samples,
        elimination=Elimination() if fast else None,
        warm_steps=warm_steps,
        memory_budget=memory_budget,
    )
