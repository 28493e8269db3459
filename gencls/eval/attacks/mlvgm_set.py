"""The attacks of the MLVGM paper."""

from collections.abc import Mapping

from gencls.core import GenclsError, checked
from gencls.eval.attacks import Attack, DeepFool, RestartedCarliniWagner
from gencls.eval.threats.lp_balls import ThreatModel

_MLVGM = {
    # overshoot, steps, candidates of DeepFool; learning rate, confidence, c, length of the start, window of C&W
    "gender": ((0.01, 1024, 2), (1e-3, 0.01, 64.0, 8.0, 32)),
    "identities": ((0.02, 128, 8), (5e-3, 0.05, 16.0, 2.0, 16)),
    "cars": ((0.02, 256, 4), (2e-3, 0.02, 24.0, 4.0, 16)),
}


@checked
def mlvgm_attacks(task: str) -> Mapping[str, Attack]:
    """The attacks of the MLVGM paper (supplement C, tables 2 and 3). The protocol sets its EoT with 32 draws.

    The authors' code runs a reduced AutoAttack at growing epsilons (supplement F). :class:`~gencls.eval.AutoAttack` is the full
    one.

    Args:
        task: "gender" (256 px, 2 classes), "identities" (64 px, 100 classes) or "cars" (128 px, 4 classes).

    Raises:
        GenclsError: for another task.
    """
    if task not in _MLVGM:
        raise GenclsError(f"mlvgm_attacks: expected a task among {', '.join(_MLVGM)}, got {task!r}")
    (overshoot, steps, candidates), (rate, confidence, constant, length, window) = _MLVGM[task]
    minimal = ThreatModel("l2")
    return {
        "deepfool": DeepFool(minimal, steps=steps, overshoot=overshoot, candidates=candidates),
        "cw": RestartedCarliniWagner(
            minimal,
            restarts=8,
            steps=1024,
            learning_rate=rate,
            confidence=confidence,
            regularisation=constant,
            start_norm=length,
            window=window,
        ),
    }
