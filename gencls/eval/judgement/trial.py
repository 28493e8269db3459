"""What an attack on a batch is asked by, what it finds, and the records of what the judge made of it."""

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
    """How defenses are attacked and judged.

    Attributes:
        eot_samples: draws per gradient for a stochastic defense (the thesis uses 5, the MLVGM paper 32).
        judge_draws: fresh draws of the judge for a stochastic defense. Deterministic defenses get one of each.
        most_draws: of the judge for a sample whose majority stays open, at most; None: eight times judge_draws.
        reduce: what EoT averages.
        common_draws: whether all looks of an attack use the same draws (common random numbers) or fresh ones.
        memory: MiB for the graphs of an attack; None takes 1024 on a CPU and a share of the free memory on a GPU. Results of
            streams of rows do not depend on it.
        seed: of the study; every sample's streams derive from it.
        eight_bit: whether adversarial images are rounded to k/255, as if they were saved, before they are judged. Clean images
            are not.
        streams: where random numbers come from. "rows": each sample has streams of its own, and results do not depend on the
            batch. "device": torch's own generators serve whole batches, which is faster on a GPU, see docs/evaluation.md.
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
    """Samples on the defense's device, and who draws when on them."""

    images: Tensor
    labels: Tensor
    roles: Roles


@dataclass(frozen=True)
class Found:
    """What an attack handed in.

    Attributes:
        images: (N, C, H, W); the clean ones of samples that were not attacked.
        claimed: (N,) bool, whether the attack model's own decision was wrong.
        spent: rows that passed forwards and backwards, gradients, and zero gradients, by these names.
    """

    images: Tensor
    claimed: Tensor
    spent: Counter[str]


@dataclass(frozen=True)
class Trial:
    """One attack in one gradient mode on one batch: what the judge found and what it cost."""

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
    """What an attack says of itself, which is the same in every process; the key of its content if it says where it lies."""
    said = repr(attack)
    return key_of(attack, type(attack).__name__).content if ADDRESS.search(said) else said
