r"""Classifiers that invert a conditional GAN: Direct, Enc, Enc-D and their overparameterised forms (thesis, chapter 3).

All are Algorithm 2 with the loss of a class

    l_k(x) = min_z  D(x, G_k(z)) + lambda R(z, z_init).

==========  ==========================================  =========================
method      z_init                                      R(z, z_init)
==========  ==========================================  =========================
Direct      best of 300 random codes (Algorithm 3)      ||z||_2^2
Enc         E(x), the same for all classes              ||z - z_init||_2^2 (3.4)
Enc-D       (Algorithm 4)                               the same
==========  ==========================================  =========================

Enc and Enc-D are one formula. Their encoders differ: that of Enc learned with an image discriminator (eq. 3.3), that of Enc-D
with a discriminator of codes (eq. 3.5). In the ``+`` forms block i of the generator takes z + z_i (section 3.2, "Optimized
variables"). The offsets z_i start at 0, and lambda sum_i ||z_i||_2^2 is added to the loss.

Adam takes the rate of :class:`~gencls.defenses.synthesis.rates.CyclicalRate`. The thesis gives no default for lambda; its
tables have 0.1, 1 and 10. D has no default either, because it needs a trained network. The tables take eq. 3.7: the squared L2
distance plus lambda_percept = 1 (in Table 3.5: 10) times a distance of features.
"""

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, Literal, ParamSpec, cast

from torch import Tensor, nn

from gencls.core import (
    BlockwiseGenerator,
    ClassConditionalGenerator,
    GenclsError,
    ImageDistance,
    Latents,
    checked,
    did_you_mean,
)
from gencls.core.inference import Rate
from gencls.defenses.synthesis.block_codes import BlockCodes, ZeroOffsets
from gencls.defenses.synthesis.checks import check_weight
from gencls.defenses.synthesis.elimination import Elimination
from gencls.defenses.synthesis.engine import AnalysisBySynthesis
from gencls.defenses.synthesis.rates import CyclicalRate
from gencls.defenses.synthesis.regularizers import Regularizer, SquaredNorm, SquaredShift
from gencls.defenses.synthesis.starts import EncodedStart, RandomStarts
from gencls.perceptual import L1

__all__ = ["Direct", "DirectPlus", "Enc", "EncD", "EncDPlus", "EncPlus"]

P = ParamSpec("P")

CYCLE = CyclicalRate()
"""The rate of section 3.3."""


def early_rounds(steps: int) -> Elimination:
    """The rule of ``fast=True``: a look after a tenth, and one after three tenths of the steps."""
    return Elimination(((1 + steps // 10, 0.5), (1 + 3 * steps // 10, 0.2)))


def _method(function: Callable[P, AnalysisBySynthesis]) -> Callable[P, AnalysisBySynthesis]:
    """``checked``; and a name that is no setting gets an error with those that are."""
    made, known = checked(function), list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> AnalysisBySynthesis:
        for name in kwargs:
            if name not in known:
                hint, names = did_you_mean(name, known), ", ".join(known)
                raise GenclsError(f"{function.__name__}: {hint}expected settings among {names}; got {name!r}")
        return made(*args, **kwargs)

    return wrapper


def _variant(
    method: Callable[P, AnalysisBySynthesis], name: str, what: str, **defaults: Any
) -> Callable[P, AnalysisBySynthesis]:
    """The same function by another name and with other defaults: help(), mypy and checks see all of its settings."""
    function = cast(FunctionType, inspect.unwrap(method))
    twin = FunctionType(function.__code__, function.__globals__, name)
    twin.__qualname__, twin.__annotations__ = name, function.__annotations__
    twin.__kwdefaults__ = {**(function.__kwdefaults__ or {}), **defaults}
    twin.__doc__ = "\n\n".join([what, *(function.__doc__ or "").split("\n\n")[1:]])
    return _method(cast(Callable[P, AnalysisBySynthesis], twin))


@_method
def Direct(  # noqa: N802 - the name of the method
    generator: ClassConditionalGenerator,
    *,
    distance: ImageDistance,
    weight: float = 1.0,
    steps: int = 100,
    max_lr: float = 0.1,
    rate: Rate | None = CYCLE,
    blocks: int | None = 0,
    starts: int = 300,
    ranked_by: Literal["l2", "l1"] = "l2",
    seed: int = 0,
    fast: bool | Elimination = False,
    warm_steps: int | None = None,
    memory_budget: int = 2**31,
) -> AnalysisBySynthesis:
    """Direct: the descent begins at the best of 300 random codes, and R(z, z_init) = ||z||_2^2.

    Args:
        generator: the conditional GAN G.
        distance: D; the thesis takes eq. 3.7.
        weight: lambda, from 0 to 1e15; 0.1, 1 or 10 in the thesis.
        steps: Adam steps, >= 0; 100 in Table 3.1, 10 to 800 in others.
        max_lr: the maximum of the cyclical rate, > 0.
        rate: schedule of the step size, as shares of ``max_lr``; None keeps ``max_lr``.
        blocks: number of the generator's blocks with a code of their own, >= 0; None: all of them, as :func:`DirectPlus`.
        starts: number of random codes, >= 1; all images and classes share them.
        ranked_by: distance that chooses among them, without R: "l2", as in Algorithm 3, or "l1", as the summary of section 3.2
            says.
        seed: seed of the random codes.
        fast: True lets hopeless classes leave the descent early, by rounds that we chose; an
            :class:`~gencls.defenses.synthesis.elimination.Elimination` has rounds of its own.
        warm_steps: number of descent steps, >= 1, of the gradient mode "warm" that then takes the place of "frozen", see
            :class:`AnalysisBySynthesis`. None keeps "frozen".
        memory_budget: bytes of activations per chunk of images.

    Returns:
        A deterministic :class:`AnalysisBySynthesis` with scores -l_k(x), (N, K).

    Raises:
        GenclsError: for an unknown setting, naming the known ones; for values that the parts refuse: a negative weight or
            number of steps, more codes than blocks, or codes for blocks of a generator that is no
            :class:`~gencls.core.BlockwiseGenerator` with one latent level. When called, for a network in training mode with
            layers to which the mode matters, such as batch norm and dropout.
    """
    if starts < 1:
        raise GenclsError(f"GAN inversion: expected starts >= 1, got {starts}")
    ranking = None if ranked_by == "l2" else L1()
    return _inversion(
        generator,
        start=RandomStarts(generator, SquaredNorm(), 0.0, count=starts, seed=seed, distance=ranking),
        regularizer=SquaredNorm(),
        distance=distance,
        weight=weight,
        steps=steps,
        max_lr=max_lr,
        rate=rate,
        blocks=blocks,
        fast=fast,
        warm_steps=warm_steps,
        memory_budget=memory_budget,
    )


@_method
def Enc(  # noqa: N802 - the name of the method
    generator: ClassConditionalGenerator,
    encoder: nn.Module,
    *,
    distance: ImageDistance,
    weight: float = 1.0,
    steps: int = 100,
    max_lr: float = 0.1,
    rate: Rate | None = CYCLE,
    blocks: int | None = 0,
    fast: bool | Elimination = False,
    warm_steps: int | None = None,
    memory_budget: int = 2**31,
) -> AnalysisBySynthesis:
    """Enc: the descent begins at an encoder's code, and R(z, z_init) = ||z - z_init||_2^2 (eq. 3.4).

    The frozen gradient (eq. 2.9) treats the results of inference as constants, z_init among them. The unrolled gradient also
    goes through the encoder.

    Args:
        generator: the conditional GAN G.
        encoder: E, a module, images (N, C, H, W) in [0, 1] -> codes (N, *shape), of the shape that G takes; that of Enc was
            trained by eq. 3.3, that of Enc-D by eq. 3.5.
        distance: D, see :func:`Direct`.
        weight: lambda, from 0 to 1e15.
        steps: Adam steps, >= 0.
        max_lr: the maximum of the cyclical rate, > 0.
        rate: schedule of the step size, see :func:`Direct`.
        blocks: number of blocks with a code of their own, see :func:`Direct`.
        fast: whether and how hopeless classes leave early, see :func:`Direct`.
        warm_steps: steps of the gradient mode "warm", see :func:`Direct`.
        memory_budget: bytes of activations per chunk of images.

    Returns:
        A deterministic :class:`AnalysisBySynthesis` with scores -l_k(x), (N, K).

    Raises:
        GenclsError: as :func:`Direct`; for an encoder that is no module, or a generator with several latent levels. When
            called, for an encoder whose codes have another shape than the generator's.
    """
    return _inversion(
        generator,
        start=EncodedStart(encoder, generator),
        regularizer=SquaredShift(),
        distance=distance,
        weight=weight,
        steps=steps,
        max_lr=max_lr,
        rate=rate,
        blocks=blocks,
        fast=fast,
        warm_steps=warm_steps,
        memory_budget=memory_budget,
    )


EncD = _variant(Enc, "EncD", "Enc-D: the formula of :func:`Enc`, with an encoder that was trained by eq. 3.5.")

DirectPlus = _variant(
    Direct, "DirectPlus", "Direct+: :func:`Direct`, with a code for each block; the generator is blockwise.", blocks=None
)

EncPlus = _variant(Enc, "EncPlus", "Enc+: :func:`Enc`, with a code for each block; the generator is blockwise.", blocks=None)

EncDPlus = _variant(
    Enc, "EncDPlus", "Enc-D+: :func:`EncD`, with a code for each block; the generator is blockwise.", blocks=None
)


def _inversion(
    generator: ClassConditionalGenerator,
    *,
    start: Callable[[Tensor], Latents],
    regularizer: Regularizer,
    distance: ImageDistance,
    weight: float,
    steps: int,
    max_lr: float,
    rate: Rate | None,
    blocks: int | None,
    fast: bool | Elimination,
    warm_steps: int | None,
    memory_budget: int,
) -> AnalysisBySynthesis:
    # Here, since the engine has other names for them.
    if max_lr <= 0:
        raise GenclsError(f"GAN inversion: expected max_lr > 0, got {max_lr}")
    if steps < 0:
        raise GenclsError(f"GAN inversion: expected steps >= 0, got {steps}")
    if blocks is not None and blocks < 0:
        raise GenclsError(f"GAN inversion: expected blocks >= 0, or None for all of them, got {blocks}")
    check_weight("GAN inversion", "weight", weight)
    if blocks != 0:
        generator = codes = BlockCodes(cast("BlockwiseGenerator", generator), blocks)
        start = ZeroOffsets(start, codes.blocks)
    return AnalysisBySynthesis(
        generator,
        start=start,
        distance=distance,
        regularizer=regularizer,
        weight=weight,
        steps=steps,
        lr=max_lr,
        rate=rate,
        elimination=early_rounds(steps) if fast is True else fast or None,
        warm_steps=warm_steps,
        memory_budget=memory_budget,
    )
