"""The protocol of an attack on a batch, its result, and the judge's records of it."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from gencls.core import GenclsError, check_settings, key_of
from gencls.core.eot import Reduce
from gencls.core.streams.keyed import Source
from gencls.eval.attacks import Attack
from gencls.eval.judgement.judge import Decisions, Verdict
from gencls.eval.judgement.roles import Roles

if TYPE_CHECKING:
    import pandas

ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True)
class Protocol:
    """The settings by which defenses are attacked and judged.

    Attributes:
        eot_samples: draws per gradient for a stochastic defense (the thesis uses 5, the MLVGM paper 32).
        judge_draws: fresh draws of the judge for a stochastic defense. A deterministic defense gets one draw of each kind.
        most_draws: the judge's most draws for a sample with an open majority; None takes eight times judge_draws.
        reduce: "logits", "probs" or "loss": the mean of EoT.
        common_draws: True gives all looks of an attack the same draws (common random numbers), False fresh ones.
        memory: MiB for the graphs of an attack; None takes 1024 on a CPU and a share of the free memory on a GPU. With streams
            of rows, results do not depend on it.
        seed: seed of the study; every sample's streams derive from it.
        eight_bit: True rounds adversarial images to k/255, as if they were saved, before they are judged. Clean images stay.
        streams: "rows" gives each sample streams of its own, and results do not depend on the batch. "device" lets torch's own
            generators serve whole batches, which is faster on a GPU, see docs/evaluation.md.
    """

    eot_samples: int = 16
    judge_draws: int = 32
    most_draws: int | None = None
    reduce: Reduce = "logits"
    common_draws: bool = False
    memory: float | None = None
    seed: int = 0
    eight_bit: bool = False
    streams: Source = "rows"

    def __post_init__(self) -> None:
        check_settings(self)
        if self.eot_samples < 1 or self.judge_draws < 1:
            raise GenclsError(
                f"protocol: expected eot_samples >= 1 and judge_draws >= 1, got {self.eot_samples} and {self.judge_draws}"
            )
        if self.most_draws is not None and self.most_draws < self.judge_draws:
            raise GenclsError(f"protocol: expected most_draws >= judge_draws, got {self.most_draws} and {self.judge_draws}")
        if self.memory is not None and self.memory <= 0:
            raise GenclsError(f"protocol: expected memory in MiB > 0, got {self.memory}")


@dataclass(frozen=True)
class Batch:
    """Samples on the defense's device, with their random streams."""

    images: Tensor
    labels: Tensor
    roles: Roles


@dataclass(frozen=True)
class Found:
    """The result of an attack.

    Attributes:
        images: (N, C, H, W); clean images for samples that were not attacked.
        claimed: (N,) bool, whether the attack model's own decision was wrong.
        spent: numbers of rows that passed forwards and backwards, of gradients, and of zero gradients, by name.
    """

    images: Tensor
    claimed: Tensor
    spent: Counter[str]


@dataclass(frozen=True)
class Trial:
    """One attack in one gradient mode on one batch: the judge's verdict and the cost."""

    labels: Tensor
    hashes: list[str]
    clean: Decisions
    verdict: Verdict
    claimed: Tensor  # (N,) bool, the attack model's own decision was wrong
    forwards: float  # rows per sample
    backwards: float
    seconds: float
    peak_memory: float  # MiB
    warnings: tuple[str, ...]
    attack: Attack
    attack_draws: int
    mode: str
    seed: int
    eight_bit: bool = False

    def frame(self, *, defense: str, attack: str) -> "pandas.DataFrame":
        """One row per sample.

        ``correct`` and ``clean_correct`` are fractions of the first ``draws`` draws, ``majority_correct`` counts all draws,
        and forwards and backwards are rows per sample. Where ``valid`` is False the adversarial left [0, 1] or the ball, by
        ``left_range`` or ``left_ball``, and was not judged: ``correct`` and ``distance`` are NaN, ``predictions`` is empty.
        With 8 bits ``broken_unrounded`` says whether the image was adversarial before it was rounded.
        """
        import pandas

        decisions, unrounded = self.verdict.decisions, self.verdict.unrounded
        epsilon = self.attack.threat.epsilon
        drawn = decisions.draws > 1
        before = float("nan") if unrounded is None else (~unrounded.majority_correct(self.labels)).double().tolist()
        return pandas.DataFrame(
            {
                "sample_hash": self.hashes,
                "label": self.labels.tolist(),
                "defense": defense,
                "attack": attack,
                "gradient": self.mode,
                "norm": self.attack.threat.norm,
                "epsilon": float("nan") if epsilon is None else epsilon,
                "seed": self.seed,
                "eight_bit": self.eight_bit,
                "clean_correct": self.clean.correct(self.labels).tolist(),
                "clean_majority_correct": self.clean.majority_correct(self.labels).tolist(),
                "clean_undecided": (self.clean.undecided(self.labels) & drawn).tolist(),
                "correct": decisions.correct(self.labels).tolist(),
                "majority_correct": decisions.majority_correct(self.labels).tolist(),
                "undecided": (decisions.undecided(self.labels) & drawn).tolist(),
                "claimed": self.claimed.tolist(),
                "distance": self.verdict.distances.tolist(),
                "valid": self.verdict.valid.tolist(),
                "left_range": self.verdict.left_range.tolist(),
                "left_ball": self.verdict.left_ball.tolist(),
                "broken_unrounded": before,
                "draws": decisions.draws,
                "clean_predictions": self.clean.lists(),
                "predictions": decisions.lists(),
                "attack_draws": self.attack_draws,
                "forwards": self.forwards,
                "backwards": self.backwards,
                "seconds": self.seconds / len(self.hashes),
                "peak_memory": self.peak_memory,
                "warnings": "; ".join(self.warnings),
            }
        )


def named(attack: Attack) -> str:
    """The repr of an attack, equal in every process; if the repr holds an address, the key of its content instead."""
    said = repr(attack)
    return key_of(attack, type(attack).__name__).content if ADDRESS.search(said) else said
