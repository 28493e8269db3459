"""The attacks of the thesis, section 2.3."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from gencls.core import GenclsError, check_settings, checked
from gencls.eval.attacks import DDN, NES, PGD, Attack, Boundary, CarliniWagner, DeepFool, GrowingNoise, LatentDescent
from gencls.eval.attacks.default_set import TARGETS
from gencls.eval.attacks.parts.base import DENSE
from gencls.eval.attacks.parts.smoothing import SIGMAS
from gencls.eval.threats.lp_balls import ThreatModel


@dataclass(frozen=True, kw_only=True)
class ThesisBudget:
    """The effort of the thesis's attacks; the defaults come from its section 2.3.

    Attributes:
        restarts: random starts of PGD; 5 for MNIST and FashionMNIST, 20 for SuperTraffic-10 and SVHN.
        pgd_steps: gradient steps per start.
        deepfool_steps: linearisations of DeepFool.
        ddn_steps: gradient steps of DDN.
        cw_searches: binary searches of C&W.
        cw_steps: gradient steps per search.
        noise_sizes: number of standard deviations of the growing noise from 0.002 to 1, one draw each; not in the thesis.
        nes_steps: steps of PGD with estimated gradients.
        nes_pairs: pairs of images per estimated gradient; not in the thesis.
        boundary_queries: looks of the Boundary attack.
        targets: beyond the thesis: classes that multi-targeted PGD aims at, the most likely first.
        smoothed_steps: beyond the thesis: steps of PGD along smoothed gradients, for each standard deviation.
        smoothed_draws: beyond the thesis: noisy images per smoothed gradient.
        smoothing: beyond the thesis: standard deviations of this noise, in [0, 1] pixel units.
        descent_steps: beyond the thesis: steps of the latent descent attack; 500 in the paper of ABS.
        descent_rate: beyond the thesis: share of the way to the reconstruction per step; 0.01 in the paper of ABS.
    """

    restarts: int = 5
    pgd_steps: int = 80
    deepfool_steps: int = 100
    ddn_steps: int = 80
    cw_searches: int = 5
    cw_steps: int = 100
    noise_sizes: int = 50
    nes_steps: int = 50
    nes_pairs: int = 50
    boundary_queries: int = 100_000
    targets: int = TARGETS
    smoothed_steps: int = 80
    smoothed_draws: int = 16
    smoothing: tuple[float, ...] = SIGMAS
    descent_steps: int = 500
    descent_rate: float = 0.01

    def __post_init__(self) -> None:
        check_settings(self)


@checked
def thesis_attacks(
    norm: str,
    epsilon: float,
    *,
    budget: ThesisBudget | None = None,
    black_box: bool = True,
    beyond: bool = False,
    synthesis: bool = True,
    starts: Tensor | None = None,
) -> Mapping[str, Attack]:
    """The attacks of the thesis, section 2.3. The protocol sets its EoT with 5 draws.

    Eq. 2.9, the adaptive gradient, is the gradient mode "frozen" of a Bayes classifier; its other modes go beyond the thesis.

    Args:
        norm: key of the threat, "linf" or "l2".
        epsilon: radius of the ball for PGD and NES, in [0, 1] pixel units. The others minimise the distance, and tables read
            them at this size.
        budget: steps, starts and queries; None takes the thesis's.
        black_box: True adds Boundary (L2) and PGD with estimated gradients, which take long.
        beyond: True adds attacks that the thesis does not have: multi-targeted PGD, and in L2 PGD along smoothed gradients and
            the latent descent attack.
        synthesis: True if the defense is a Bayes classifier with reconstructions, which the latent descent attack needs.
        starts: images (M, C, H, W) in [0, 1] of all classes. Boundary starts from them, as in the thesis. None takes noise.
    """
    if norm not in DENSE:
        raise GenclsError(f"thesis_attacks: expected a norm among {', '.join(DENSE)}, got {norm!r}")
    spent, ball, minimal = budget or ThesisBudget(), ThreatModel(norm, epsilon), ThreatModel(norm)
    found: dict[str, Attack] = {
        "pgd": PGD(ball, steps=spent.pgd_steps, restarts=spent.restarts),
        "deepfool": DeepFool(minimal, steps=spent.deepfool_steps),
    }
    if norm == "l2":
        found["ddn"] = DDN(minimal, steps=spent.ddn_steps)
        found["cw"] = CarliniWagner(minimal, searches=spent.cw_searches, steps=spent.cw_steps)
    found["noise"] = GrowingNoise(minimal, sizes=spent.noise_sizes)
    if black_box:
        found["nes"] = NES(ball, steps=spent.nes_steps, samples=spent.nes_pairs)
        found |= {"boundary": Boundary(minimal, queries=spent.boundary_queries, starts=starts)} if norm == "l2" else {}
    if beyond:
        found["multi-targeted"] = PGD(ball, steps=spent.pgd_steps, restarts=spent.targets, loss="multi-targeted")
        if norm == "l2":
            found["smoothed"] = PGD(
                ball, steps=spent.smoothed_steps, smoothing=spent.smoothing, smoothing_draws=spent.smoothed_draws
            )
        if norm == "l2" and synthesis:
            found["latent-descent"] = LatentDescent(minimal, steps=spent.descent_steps, step_size=spent.descent_rate)
    return found
