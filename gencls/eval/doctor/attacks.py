"""Checks whether attacks behave as they must if gradients tell the truth.

The signs of gradient masking follow Athalye, Carlini and Wagner 2018 (arXiv:1802.00420, section 3.1) and Carlini et al. 2019
(arXiv:1902.06705, section 5).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gencls.core import GenclsError
from gencls.eval.attacks import PGD, Attack, GaussianNoiseAttack
from gencls.eval.attacks.default_set import SMOOTHED
from gencls.eval.attacks.sparse_rs import SparseRS
from gencls.eval.attacks.square import Square
from gencls.eval.attacks.transfer import Transfer
from gencls.eval.doctor.diagnosis import Check, Evidence
from gencls.eval.doctor.patient import SMOOTHING, Effort, Patient
from gencls.eval.judgement.trial import Trial
from gencls.eval.measures.statistics import mcnemar
from gencls.eval.threats.protocol import Threat

_LEVEL = 0.05

_SURVIVORS = 0.05
"""The share of the images that an unbounded attack may fail on; one image is always allowed."""


@dataclass(frozen=True)
class Outcome:
    """The outcomes of two attacks on the same images, all of them right without an attack.

    Attributes:
        first: number of images broken by the attack that must be at least as strong.
        second: number of images broken by the other attack.
        only_first: number of images broken by the first attack alone.
        only_second: number of images broken by the second attack alone.
        count: number of images.
        p_value: p-value in [0, 1] of McNemar's exact test, one-sided towards the attack that broke more.
    """

    first: int
    second: int
    only_first: int
    only_second: int
    count: int
    p_value: float

    @property
    def worse_first(self) -> bool:
        """Whether the first attack is weaker, by more than chance."""
        return self.only_second > self.only_first and self.p_value < _LEVEL

    @property
    def worse_second(self) -> bool:
        """Whether the second attack is weaker, by more than chance."""
        return self.only_first > self.only_second and self.p_value < _LEVEL


def broken(trials: Mapping[str, Trial]) -> tuple[Tensor, Tensor]:
    """The samples that an attack broke by majority in any gradient mode, and those that were right before: (N,) bool each."""
    per_mode = [trial.verdict.broken(trial.labels) for trial in trials.values()]
    (trial, *_) = trials.values()
    return torch.stack(per_mode).any(dim=0), trial.clean.majority_correct(trial.labels)


def compared(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Outcome:
    """Pair the outcomes of two attacks, each a result of :func:`broken`."""
    right = first[1]
    one, two = first[0][right], second[0][right]
    if not len(one):
        return Outcome(0, 0, 0, 0, 0, 1.0)
    test = mcnemar((~one).numpy(), (~two).numpy())
    return Outcome(int(one.sum()), int(two.sum()), test.c, test.b, len(one), test.p_value / 2)


def check_unbounded(trials: Mapping[str, Trial], threat: Threat) -> Check:
    """Without a bound an attack can turn every image into one of another class."""
    found, right = broken(trials)
    left, count = int((~found & right).sum()), int(right.sum())
    size = f"{threat.norm} {threat.epsilon:g}"
    evidence: Evidence = {"radius": size, "images": count, "still right": left, "modes": ", ".join(trials)}
    if left > max(1, _SURVIVORS * count):
        finding = "an attack without a bound does not break everything: it does not see where to go"
        return Check("unbounded attack", "fail", finding, evidence)
    if left:
        return Check("unbounded attack", "note", "an attack without a bound leaves a few images", evidence)
    return Check("unbounded attack", "ok", "an attack without a bound breaks everything", evidence)


def check_attacks(
    patient: Patient, effort: Effort, strong: Mapping[str, Trial], transfer_from: nn.Module | None, mode: str
) -> list[Check]:
    """Compare pairs of attacks in which one must not be weaker than the other; ``strong`` is the result of PGD."""
    threat, clean = patient.threat, next(iter(strong.values())).clean
    epsilon = threat.epsilon or 0.0
    search = SparseRS if threat.norm in SparseRS.norms else Square
    far = threat.sized(threat.largest(patient.images.shape))
    checks = [check_unbounded(patient.attack(PGD(far, steps=effort.far_steps, restarts=2), clean), far)]
    weaker: list[tuple[str, str, Callable[[Any], Attack]]] = [
        ("more steps", f"PGD with {effort.few_steps} steps", partial(PGD, steps=effort.few_steps)),
        ("larger epsilon", f"PGD at {epsilon / 2:g}", lambda threat: PGD(threat.sized(epsilon / 2), steps=effort.steps)),
        ("black box", f"{search.__name__} with {effort.queries} queries", partial(search, queries=effort.queries)),
        ("noise", f"the worst of {effort.tries} noises", partial(GaussianNoiseAttack, tries=effort.tries)),
    ]
    if transfer_from is not None:
        source = PGD(threat, steps=effort.steps, to_the_end=True)
        weaker.append(("transfer", "PGD on another model", lambda _: Transfer(transfer_from, source)))
    white = _white(threat, effort.steps)
    for name, what, make in weaker:
        try:
            attack = make(threat)
        except GenclsError as error:  # an attack that only knows other threats
            checks.append(Check(name, "note", f"not compared: there is no such attack for {threat.label}", {what: str(error)}))
            continue
        outcome = compared(broken(strong), broken(patient.attack(attack, clean)))
        check = _not_weaker(name, white, what, outcome)
        if search is SparseRS and name == "black box" and check.status == "fail":
            check = replace(check, status="note", finding=f"{what} breaks more than {white}, as random search may in L0")
        checks.append(check)
    return [*checks, check_smoothed(patient, effort, strong, mode)]


def check_smoothed(patient: Patient, effort: Effort, strong: Mapping[str, Trial], mode: str) -> Check:
    """PGD along smoothed gradients must not break more than PGD with as many plain gradients.

    If it breaks more than one plain start does, the check adds plain starts until both have computed as many gradients. A
    random defense makes the draws of its EoT either way, so that two starts, one for each standard deviation, meet two.

    Source: Tramèr and Boneh 2019, arXiv:1904.13000, on networks trained in Linf whose L2 gradients lead nowhere.
    """
    threat, clean = patient.threat, next(iter(strong.values())).clean
    one, draws = patient.only({mode: patient.modes[mode]}), max(effort.smoothing, patient.draws)
    attack = PGD(threat, steps=effort.steps, smoothing=SMOOTHING, smoothing_draws=draws)
    smoothed, white = broken(one.attack(attack, clean)), _white(threat, effort.steps)
    outcome = compared(broken(strong), smoothed)
    if outcome.only_second > outcome.only_first:
        starts = math.ceil(len(SMOOTHING) * draws / patient.draws)
        more = one.attack(PGD(threat, steps=effort.steps, restarts=starts), clean)
        outcome = compared(broken({**strong, "more starts": more[mode]}), smoothed)
        white += f" and {starts} starts"
    known = f"default-{threat.norm}, which has smoothed gradients" if threat.norm in SMOOTHED else ""
    advice = f"plain gradients lead nowhere; use {known or 'PGD(..., smoothing=(0, 0.1, 0.2))'}"
    return _not_weaker("smoothed gradients", white, "PGD along smoothed gradients", outcome, advice)


def _white(threat: Threat, steps: int) -> str:
    return f"PGD with {steps} steps at {threat.epsilon:g}"


def _not_weaker(name: str, strong: str, weak: str, outcome: Outcome, conclusion: str = "the gradient attack is blind") -> Check:
    evidence: Evidence = {
        strong: f"{outcome.first} broken, {outcome.only_first} of them alone",
        weak: f"{outcome.second} broken, {outcome.only_second} of them alone",
        "images": outcome.count,
    }
    if outcome.only_second > outcome.only_first:
        evidence["p (McNemar, one-sided)"] = outcome.p_value
    if outcome.worse_first:
        return Check(name, "fail", f"{weak} breaks more than {strong}: {conclusion}", evidence)
    if outcome.only_second > outcome.only_first:
        return Check(name, "note", f"{weak} breaks a few more than {strong}, which may be chance", evidence)
    if outcome.first == outcome.second and outcome.first in (0, outcome.count):
        everything = "all" if outcome.first else "nothing"
        return Check(name, "ok", f"both break {everything}: no difference to be seen at this epsilon", evidence)
    return Check(name, "ok", f"{strong} breaks at least as many as {weak}", evidence)
