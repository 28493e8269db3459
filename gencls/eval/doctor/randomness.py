"""Checks whether a defense says that it is random, and whether each gradient has enough draws."""

import torch
from torch import Tensor
from torch.nn import functional

from gencls.core import declared, repeated, seeded
from gencls.eval.doctor.diagnosis import Check, Evidence, Status
from gencls.eval.doctor.patient import Patient
from gencls.eval.judgement.trial import Trial
from gencls.eval.scores.margins import score_gap

_NOISE = 0.5
"""If two gradients of the same image have a cosine below this, more than half of their energy is noise."""

_GOOD = 0.8

_SINGLE = 0.95
"""If two single-draw gradients have a cosine below this, a single draw is no replacement for EoT."""

_GAP = 0.05
"""The difference between claimed and verified success rate above which reports warn, too."""


def check_randomness(patient: Patient) -> Check:
    """Compare forwards of the same images with the declaration ``stochastic``."""
    name, behaviour = "randomness", patient.behaviour
    evidence: Evidence = {"images": len(patient.images), **_differences(patient)}
    if not patient.stochastic:
        if behaviour.random:
            finding = (
                "forwards of the same images differ, but stochastic is not set: attacks would see one lucky draw, without EoT"
            )
            return Check(name, "fail", finding, evidence)
        return Check(name, "ok", "forwards of the same images agree, as declared", evidence)
    if not behaviour.random:
        finding = "declared stochastic, but forwards of the same images agree: every draw costs time and tells nothing"
        return Check(name, "note", finding, evidence)
    if not behaviour.repeatable:
        finding = (
            "random numbers come from a generator of the defense's own: nothing can be repeated, and finite differences "
            "measure the noise"
        )
        return Check(name, "note", finding, evidence)
    if behaviour.shared_draws:
        finding = (
            "one draw serves the whole batch: gencls makes a forward pass for each image and draw; a tool that repeats the "
            "image within a batch would count one draw as many"
        )
        return Check(name, "note", finding, evidence)
    return Check(name, "ok", "forwards differ, as declared, and repeat with the same draws", evidence)


def check_company(patient: Patient) -> Check:
    """An image's scores must not depend on the images beside it."""
    name, behaviour = "rest of the batch", patient.behaviour
    evidence: Evidence = {"images": len(patient.images)}
    if behaviour.batch_dependent and declared(patient.defense, "batch_dependent"):
        return Check(name, "note", "the other images count, as declared: each image is asked alone", evidence)
    if behaviour.batch_dependent:
        finding = (
            "the scores of an image depend on the other images in the batch (batch statistics, attention or sorting across the "
            "batch): accuracies would change with the batch size; mend that, or declare batch_dependent = True"
        )
        return Check(name, "fail", finding, evidence)
    if behaviour.place_dependent:
        finding = "the scores of an image depend on its place in the batch or on the batch's size: each image is asked alone"
        return Check(name, "note", finding, evidence)
    return Check(name, "ok", "an image has the same scores alone and in a batch", evidence)


@torch.no_grad()
def _differences(patient: Patient) -> dict[str, float]:
    """Measure how far two forwards lie apart, and two with the same random streams."""

    def between(one: Tensor, two: Tensor) -> tuple[float, float]:
        size = ((one - two).abs() / score_gap(one)).amax()
        return float(size), float((one.argmax(dim=1) != two.argmax(dim=1)).double().mean())

    with seeded(patient.protocol.seed):
        largest, changed = between(patient.defense(patient.images.clone()), patient.defense(patient.images.clone()))
    found = {"largest difference": largest, "decisions changed": changed}
    if patient.behaviour.random:
        with patient.streams("again"):
            with repeated():
                one = patient.defense(patient.images.clone())
            with repeated():
                two = patient.defense(patient.images.clone())
        found["largest difference with the same draws"] = between(one, two)[0]
    return found


def check_eot(patient: Patient, mode: str) -> Check:
    """Two independent EoT gradients of the same images must point the same way (the median cosine over images).

    With c the cosine at S draws, noise and signal of a single draw have the ratio S (1 - c) / c. The number of draws that a
    given cosine needs follows from it.
    """
    draws = patient.draws
    if not patient.stochastic:
        return Check("EoT", "ok", "deterministic: one draw is all there is", {"draws": 1})
    model = patient.model(patient.modes[mode])
    pair = []
    for role in ("gradient", "another gradient"):
        with patient.streams(role):
            gradient = patient.gradient(model, patient.images, patient.cross_entropy(model))
        pair.append(torch.zeros_like(patient.images) if gradient is None else gradient)
    cosine = float(functional.cosine_similarity(pair[0].flatten(1), pair[1].flatten(1), eps=1e-30).median())
    evidence: Evidence = {"draws per gradient": draws, "cosine of two gradients": cosine, "mode": mode}
    if 0 < cosine < 1:
        noise = draws * (1 - cosine) / cosine
        evidence["draws for a cosine of 0.9"] = max(1, round(9 * noise))
    if cosine < _NOISE:
        finding = "noise without enough EoT: gradients consist more of noise than of signal; raise eot_samples"
        return Check("EoT", "fail", finding, evidence)
    if draws == 1 and cosine < _SINGLE:
        return Check("EoT", "fail", "noise without EoT: each gradient is that of a single draw; raise eot_samples", evidence)
    if cosine < _GOOD:
        return Check("EoT", "note", "gradients are noisy: more draws would make the attacks stronger", evidence)
    return Check("EoT", "ok", "two independent EoT gradients agree", evidence)


def check_claims(trials: dict[str, Trial]) -> Check:
    """Compare the success that PGD claims with fresh draws of the judge."""
    gaps, evidence = [], Evidence()
    for mode, trial in trials.items():
        claimed = float(trial.claimed.double().mean())
        verified = 1 - float(trial.verdict.decisions.correct(trial.labels).mean())
        evidence |= {f"claimed, {mode}": claimed, f"verified, {mode}": verified}
        gaps.append(abs(claimed - verified))
    status: Status = "note" if max(gaps) > _GAP else "ok"
    finding = "the attack's own claim is off by more than 5 points: only judged numbers count" if status == "note" else ""
    return Check("claimed against verified", status, finding or "the judge confirms what the attack claims", evidence)
