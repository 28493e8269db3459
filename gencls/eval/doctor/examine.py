"""Runs the examination in its order."""

from torch import nn

from gencls.core import GenclsError, checked, frozen
from gencls.core.devices import device_of
from gencls.core.foreign import as_samples
from gencls.core.samples import samples_of
from gencls.eval.attacks import PGD
from gencls.eval.doctor.attacks import check_attacks
from gencls.eval.doctor.diagnosis import Check, Diagnosis, Evidence
from gencls.eval.doctor.gradients import check_differences, check_dynamic, check_existence, check_zeros, difference_errors
from gencls.eval.doctor.patient import EFFORTS, JUDGE_DRAWS, Cost, Effort, Patient, affordable
from gencls.eval.doctor.randomness import check_claims, check_company, check_eot, check_randomness
from gencls.eval.doctor.scores import check_clean, check_finite, check_invariance, check_scale
from gencls.eval.judgement.trial import Protocol
from gencls.eval.scores.probe import check_defense
from gencls.eval.threats.answers import check_threat
from gencls.eval.threats.protocol import Threat, check_threats, made

_FEW = 4
"""Number of images for the first checks. If one of them fails, the others are not worth their time."""


@checked
def diagnose(
    defense: nn.Module,
    images: object,
    labels: object = None,
    *,
    epsilon: float | None = None,
    norm: str = "linf",
    threat: Threat | None = None,
    transfer_from: nn.Module | None = None,
    eot_samples: int = 16,
    seed: int = 0,
    effort: Effort | None = None,
    budget: float = 240.0,
    memory: float | None = None,
) -> Diagnosis:
    """Examine whether robustness numbers of a defense would mean anything.

    docs/doctor.md describes the checks. If scores, declared randomness or gradients fail, the checks that build on them are
    left out. The number of images and steps depends on the time of a pass, unless ``effort`` fixes it.

    Args:
        defense: images (N, C, H, W) in [0, 1] -> scores (N, K), in eval mode; a :class:`~gencls.core.Defense` also declares its
            gradient modes and whether it is stochastic.
        images: (N, C, H, W) in [0, 1], or any source of samples, see :mod:`gencls.core.samples`; 50 to 100 tell enough.
        labels: class numbers, int64 (N,); None if the source has them.
        epsilon: the radius of the attacks' ball, in [0, 1] pixel units.
        norm: the ball's norm, or the key of another threat that needs no more than an epsilon.
        threat: any threat with an epsilon, in place of ``epsilon`` and ``norm``.
        transfer_from: another model of the same images and classes, in eval mode, from which adversarials are transferred.
        eot_samples: the number of draws per gradient of a stochastic defense; take the number with which it is, or will be,
            attacked.
        seed: an integer that fixes all random streams.
        effort: the numbers of images, steps and draws; None takes the largest effort that fits the budget.
        budget: the time in seconds, roughly an upper limit, that chooses an effort.
        memory: the memory for graphs in MiB, see :class:`~gencls.eval.Protocol`.

    Returns:
        The checks with their evidence.

    Raises:
        GenclsError: images, labels or settings are bad, or a model is in training mode or made for images of another shape.
    """
    ball, settings = (epsilon, norm, threat), (eot_samples, seed, memory)
    patient = _admit(defense, images, labels, *ball, transfer_from, *settings, budget=budget)
    with frozen(defense):
        return Diagnosis(tuple(_examine(patient, transfer_from, effort, budget)))


@checked
def predict_diagnosis(
    defense: nn.Module,
    images: object,
    labels: object = None,
    *,
    epsilon: float | None = None,
    norm: str = "linf",
    threat: Threat | None = None,
    transfer_from: nn.Module | None = None,
    eot_samples: int = 16,
    seed: int = 0,
    budget: float = 240.0,
    memory: float | None = None,
) -> tuple[Effort, float]:
    """Predict the effort of :func:`diagnose` with these arguments, and roughly how many seconds it takes at most.

    Raises:
        GenclsError: the errors of :func:`diagnose`.
    """
    ball, settings = (epsilon, norm, threat), (eot_samples, seed, memory)
    patient = _admit(defense, images, labels, *ball, transfer_from, *settings, budget=budget).observed()
    effort, cost = affordable(patient, budget)
    return effort, effort.seconds(len(patient.images), cost, patient.draws)


def _admit(
    defense: nn.Module,
    images: object,
    labels: object,
    epsilon: float | None,
    norm: str,
    threat: Threat | None,
    transfer_from: nn.Module | None,
    eot_samples: int,
    seed: int,
    memory: float | None,
    *,
    budget: float,
) -> Patient:
    """Check the arguments of an examination and bring them together."""
    asked: Threat = made(norm, epsilon) if threat is None else threat
    if asked.epsilon is None or (threat is not None and epsilon is not None):
        raise GenclsError(f"doctor: expected either an epsilon or a threat with one, got {epsilon} and {threat}")
    found, classes = samples_of(images) if labels is None else as_samples(images, labels)
    device = device_of(defense) or found.device
    found, classes = found.to(device), classes.to(device)
    check_defense(defense, found[:1], classes)
    if transfer_from is not None:
        check_defense(transfer_from, found[:1], classes)
    if budget <= 0:
        raise GenclsError(f"doctor: expected a budget in seconds > 0, got {budget}")
    check_threats({"doctor": asked}, "doctor")
    check_threat(asked, found)
    protocol = Protocol(eot_samples=eot_samples, judge_draws=JUDGE_DRAWS, most_draws=JUDGE_DRAWS, memory=memory, seed=seed)
    return Patient.of(defense, found, classes, asked, protocol)


def _examine(patient: Patient, transfer_from: nn.Module | None, effort: Effort | None, budget: float) -> list[Check]:
    checks = [check_finite(patient.first(_FEW))]
    if _failed(checks):
        return checks
    patient = patient.observed()
    few = patient.first(_FEW)
    existence, few = check_existence(few)
    checks += [check_randomness(few), check_company(few), existence]
    if _failed(checks):
        return checks
    patient = patient.only(few.modes)
    affordable_effort, cost = affordable(patient, budget)
    effort = effort or affordable_effort
    patient = patient.first(effort.images)
    probe = patient.first(effort.probes)
    checks = [_say(effort, patient, probe, cost), check_clean(patient), *checks]
    if _failed(checks):
        return checks
    try:
        zeros, seeing = check_zeros(probe)
        errors, rounding = difference_errors(seeing, effort.directions)
        # The first of equals, in the order of the declaration.
        best = min(errors, key=lambda mode: round(min(errors[mode].values()), 1), default=next(iter(probe.modes)))
        checks += [
            zeros,
            check_differences(errors, rounding, {"images": len(probe.images), "random directions": effort.directions}),
            check_dynamic(probe, errors),
            check_eot(probe, best),
            check_invariance(probe, best),
        ]
        if not effort.all_modes:
            patient = patient.only({best: patient.modes[best]})
        strong = patient.attack(PGD(patient.threat, steps=effort.steps))
        checks += [check_scale(patient, best, strong, effort.steps), check_claims(strong)]
        checks += check_attacks(patient, effort, strong, transfer_from, best)
    except GenclsError as error:  # scores or gradients may be finite at some images and not at others
        checks.append(Check("attacks", "fail", f"an attack could not be run: {error}"))
    return checks


def _failed(checks: list[Check]) -> bool:
    return any(check.status == "fail" for check in checks)


def _say(effort: Effort, patient: Patient, probe: Patient, cost: Cost) -> Check:
    evidence: Evidence = {
        "images": len(patient.images),
        "images for gradients": len(probe.images),
        "draws": patient.draws,
        "queries": effort.queries,
        "ms per forward": 1000 * cost.forward,
        **{f"ms per gradient, {mode}": 1000 * seconds for mode, seconds in cost.gradient.items()},
    }
    if effort.images >= EFFORTS[0].images:
        return Check("effort", "ok", f"{effort.name}: enough to see a difference of a few images", evidence)
    attacked = "every gradient mode" if effort.all_modes else "the best gradient mode"
    finding = f"{effort.name}: a pass is slow, so images and steps are few and only gross faults show; attacked in {attacked}"
    return Check("effort", "note", finding, evidence)
