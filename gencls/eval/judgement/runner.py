"""One attack in one gradient mode on one batch: how it is run, judged and recorded."""

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, check_images, check_labels, check_settings, checked, evaluated, frozen, key_of
from gencls.core.fingerprint.samples import device_of, sample_hashes
from gencls.core.gradients import Reduce
from gencls.eval.attacks import Attack
from gencls.eval.attacks.parts.attack_model import AttackModel
from gencls.eval.attacks.parts.base import per_image
from gencls.eval.judgement.budget import peak_memory, rows_that_fit, with_fewer_rows, work_off
from gencls.eval.judgement.eight_bit import is_eight_bit
from gencls.eval.judgement.gradient_modes import NO_GRADIENT, asked_by, gradient_modes
from gencls.eval.judgement.judge import Decisions, Verdict, decide, received, verdict_of
from gencls.eval.judgement.probe import Probe, probe_defense
from gencls.eval.judgement.roles import Roles, understood
from gencls.eval.threats.threat import TOLERANCE

if TYPE_CHECKING:
    import pandas

__all__ = ["NO_GRADIENT", "Trial", "Protocol", "gradient_modes", "run_cell"]

_ZERO_GRADIENTS = 0.01
"""Share of exactly zero gradients above which a row carries a warning."""

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

_FEW_DRAWS = 8
"""Below, no majority of the draws is clear by two standard errors unless all agree, which luck brings about in many looks."""


@dataclass(frozen=True)
class Protocol:
    """How defenses are attacked and judged.

    Attributes:
        eot_samples: draws per gradient for a stochastic defense (the thesis uses 5, the MLVGM paper 32).
        judge_draws: fresh draws of the judge for a stochastic defense. Deterministic defenses get one of each.
        most_draws: of the judge for a sample whose majority stays open, at most; None: eight times judge_draws.
        reduce: what EoT averages.
        common_draws: whether all looks of an attack use the same draws (common random numbers) or fresh ones.
        memory: MiB for the graphs of an attack; None takes 1024 on a CPU and a share of the free memory on a GPU. Results do
            not depend on it.
        seed: of the study; every sample's streams derive from it.
        eight_bit: whether adversarial images are rounded to k/255, as if they were saved, before they are judged. Clean images
            are not.
    """

    eot_samples: int = 16
    judge_draws: int = 32
    most_draws: int | None = None
    reduce: Reduce = "logits"
    common_draws: bool = False
    memory: float | None = None
    seed: int = 0
    eight_bit: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
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


@checked
def run_cell(
    defense: nn.Module,
    attack: Attack,
    mode: str,
    images: Tensor,
    labels: Tensor,
    protocol: Protocol,
    *,
    clean: Decisions | None = None,
    hashes: list[str] | None = None,
    probe: Probe | None = None,
) -> Trial:
    """Attack a batch in one gradient mode and judge it.

    Samples that a deterministic defense already gets wrong are not attacked: their adversarial is the clean image.

    Args:
        defense: the defense, in eval mode.
        attack: the attack.
        mode: one of :func:`gradient_modes`.
        images: (N, C, H, W) in [0, 1]; moved to the defense's device.
        labels: int64 (N,).
        protocol: draws and seed.
        clean: decisions on the clean images from an earlier cell; None asks the defense.
        hashes: N keys of the samples; None makes them.
        probe: of the defense, from an earlier cell; None asks it about these images.

    Returns:
        The verdict, the attack's claim and the cost.

    Raises:
        GenclsError: for bad input, a defense in training mode, or one that behaves otherwise than it declares.
    """
    check_images(images)
    if not isinstance(attack, Attack):
        raise GenclsError(
            "attack: expected an object with threat, uses_gradients and passes that is called as attack(model, images, "
            f"labels), see gencls.eval.Attack; got {type(attack).__name__}"
        )
    device = device_of(defense) or images.device
    images, labels = images.to(device), labels.to(device)
    check_labels(labels, num_classes=None, count=len(images))
    attack.threat.check_reach(images)
    if attack.threat.targeted:
        raise GenclsError("evaluate: expected untargeted attacks, got a targeted one; call it directly with target classes")
    probe = probe or probe_defense(defense, images, labels, seed=protocol.seed, gradients=attack.uses_gradients)
    known = [clean]  # counts in the first attempt only: the decisions of an earlier cell may have been misjudged, too

    def attempt() -> Trial:
        return _run(defense, attack, mode, images, labels, protocol, probe, known.pop() if known else None, hashes)

    return understood(probe, attempt)


def _named(attack: Attack) -> str:
    """What an attack says of itself, which is the same in every process; the key of its content if it says where it lies."""
    said = repr(attack)
    return key_of(attack, type(attack).__name__).content if _ADDRESS.search(said) else said


def _run(
    defense: nn.Module,
    attack: Attack,
    mode: str,
    images: Tensor,
    labels: Tensor,
    protocol: Protocol,
    probe: Probe,
    clean: Decisions | None,
    hashes: list[str] | None,
) -> Trial:
    device, stochastic, behaviour = images.device, probe.stochastic, probe.behaviour
    judged = behaviour.judged(defense)
    hashes = hashes or sample_hashes(images, labels)
    draws, most = (protocol.judge_draws, protocol.most_draws or 8 * protocol.judge_draws) if stochastic else (1, 1)
    samples = protocol.eot_samples if stochastic else 1
    surrogate = evaluated(behaviour.attacked(asked_by(mode, defense)), defense)
    at_once = behaviour.draws_per_pass(samples)
    model = AttackModel(
        surrogate,
        samples=samples,
        reduce=protocol.reduce,
        common_draws=protocol.common_draws,
        stochastic=stochastic,
        shared_draws=behaviour.shared_draws,
    )
    began = time.perf_counter()
    roles = Roles(probe, hashes, protocol.seed)
    noted, named = roles.noted, _named(attack)

    with frozen(defense), peak_memory(device) as peak:
        rows = rows_that_fit(surrogate, images[:1], protocol.memory)
        if clean is None:

            def ask(max_rows: int) -> Decisions:
                roles.check_batch(images[:max_rows])
                with roles.judge("clean"):
                    found = decide(judged, images, labels, draws, most, max_rows=max_rows).cpu()
                roles.confirm(judged, found, images, max_rows, "clean")
                return found

            clean = with_fewer_rows(rows, ask)
        adversarial, claimed = images.clone(), torch.ones(len(images), dtype=torch.bool)
        worth = torch.arange(len(images)) if stochastic else (clean.predictions[:, 0] == labels.cpu()).nonzero().squeeze(1)

        def assault(part: Tensor, pieces: int) -> None:
            chosen = worth[part]
            # Anew: a repeated part does not know what the failed one has seen.
            model.meter.model = evaluated(behaviour.attacked(asked_by(mode, defense)), defense)
            model.eot.chunk = max(1, min(at_once, rows) // pieces)
            model.max_rows = max(1, len(part) * model.eot.chunk if pieces > 1 else rows)
            with roles.attack(chosen.tolist(), model.meter, named, mode):
                found = attack(model, images[chosen], labels[chosen])
                adversarial[chosen] = received(found, images[chosen])
                if torch.finfo(found.dtype).eps > TOLERANCE:
                    noted.add(f"adversarials came in {found.dtype}, whose rounding may carry them out of the ball")
                with torch.no_grad():
                    asked = adversarial[chosen].nan_to_num(0.0).clamp(0, 1)  # where this changes much, the claim does not count
                    claimed[chosen] = (model(asked).argmax(dim=1) != labels[chosen]).cpu()

        work_off(len(worth), max(1, rows // samples), assault)

        def sentence(max_rows: int) -> Verdict:
            settings = {"count": draws, "most": most, "max_rows": max_rows}
            with roles.judge(named, mode):
                found = verdict_of(
                    judged, images, adversarial, attack.threat, labels=labels, eight_bit=protocol.eight_bit, **settings
                )
            sane = images.where(~per_image(found.valid), found.images)
            surprise = found.valid.cpu() & (claimed != ~found.decisions.majority_correct(labels).cpu())
            doubtful = bool(surprise.any())  # the attack asked the same function and saw another decision
            roles.confirm(judged, found.decisions, sane, max_rows, named, mode, doubtful=doubtful)
            return found.cpu()

        verdict = with_fewer_rows(rows, sentence)
    if stochastic and attack.threat.epsilon is None and samples < _FEW_DRAWS:
        noted.add(f"{samples} draws per look are too few for an attack that looks for the smallest distance")
    if model.meter.zero_gradients > _ZERO_GRADIENTS * model.meter.gradients:
        share = model.meter.zero_gradients / model.meter.gradients
        noted.add(f"{100 * share:.0f} % of the gradients were exactly zero: the attack was blind there")
    if protocol.eight_bit and not is_eight_bit(images):
        noted.add("clean images are not of 8 bits: rounding moves adversarials also where the attack did not")
    asked = sum(int((part.predictions >= 0).sum()) for part in (verdict.decisions, verdict.unrounded) if part)
    return Trial(
        labels=labels.cpu(),
        hashes=hashes,
        clean=clean,
        verdict=verdict,
        claimed=claimed,
        forwards=(model.meter.forwards + asked) / len(images),
        backwards=model.meter.backwards / len(images),
        seconds=time.perf_counter() - began,
        peak_memory=peak.mib,
        warnings=tuple(sorted(noted)),
        attack=attack,
        attack_draws=samples,
        mode=mode,
        seed=protocol.seed,
        eight_bit=protocol.eight_bit,
    )
