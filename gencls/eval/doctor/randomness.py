"""Does a defense say whether it is random, and are there enough draws per gradient?"""

import torch
from torch import Tensor
from torch.nn import functional

from gencls.core import repeated, seeded
from gencls.eval.attack_model import score_gap
from gencls.eval.cell import Cell
from gencls.eval.doctor.patient import Patient
from gencls.eval.doctor.verdict import Check, Status

__all__ = ["check_claims", "check_eot", "check_randomness"]

_ROUNDING = 1e-4
"""Differences of scores, in units of the gap between the best and the mean class, that parallel sums may cause."""

_NOISE = 0.5
"""Cosine between two gradients of the same image below which more than half of their energy is noise."""

_GOOD = 0.8

_SINGLE = 0.95
"""The cosine below which a single draw is no replacement of EoT."""

_GAP = 0.05
"""Difference of the claimed from the verified success rate that the reports also warn of."""


def check_randomness(patient: Patient) -> Check:
    """Compare two forwards of the same images with the declaration ``stochastic``."""
    name, images = "randomness", patient.images
    with torch.no_grad(), seeded(patient.protocol.seed):
        one, two = patient.defense(images), patient.defense(images)
    evidence = {"images": len(images), **_differences(one, two)}
    if not patient.stochastic:
        if evidence["largest difference"] > _ROUNDING:
            finding = "two forwards differ, but stochastic is not set: attacks would see one lucky draw, without EoT"
            return Check(name, "fail", finding, evidence)
        return Check(name, "ok", "two forwards agree, as declared", evidence)
    if evidence["largest difference"] <= _ROUNDING:
        finding = "declared stochastic, but two forwards agree: every draw costs time and tells nothing"
        return Check(name, "note", finding, evidence)
    with torch.no_grad(), patient.streams("again"):
        with repeated():
            one = patient.defense(images)
        with repeated():
            two = patient.defense(images)
    again = _differences(one, two)["largest difference"]
    evidence["largest difference with the same draws"] = again
    if again > _ROUNDING:
        finding = "draws come from outside torch: nothing can be repeated, and finite differences measure the noise"
        return Check(name, "note", finding, evidence)
    return Check(name, "ok", "forwards differ, as declared, and repeat with the same draws", evidence)


def _differences(one: Tensor, two: Tensor) -> dict[str, float]:
    size = ((one - two).abs() / score_gap(one)).amax()
    changed = (one.argmax(dim=1) != two.argmax(dim=1)).double().mean()
    return {"largest difference": float(size), "decisions changed": float(changed)}


def check_eot(patient: Patient, mode: str) -> Check:
    """Two independent EoT gradients of the same images must point the same way (the median cosine over images).

    With c the cosine at S draws, noise and signal of a single draw have the ratio S (1 - c) / c, from which follows how many
    draws a given cosine needs.
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
    evidence: dict[str, float | str] = {"draws per gradient": draws, "cosine of two gradients": cosine, "mode": mode}
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


def check_claims(cells: dict[str, Cell]) -> Check:
    """What PGD believes to have broken, against fresh draws of the judge."""
    gaps, evidence = [], dict[str, float | str]()
    for mode, cell in cells.items():
        claimed = float(cell.claimed.double().mean())
        verified = 1 - float(cell.verdict.decisions.correct(cell.labels).mean())
        evidence |= {f"claimed, {mode}": claimed, f"verified, {mode}": verified}
        gaps.append(abs(claimed - verified))
    status: Status = "note" if max(gaps) > _GAP else "ok"
    finding = "the attack's own claim is off by more than 5 points: only judged numbers count" if status == "note" else ""
    return Check("claimed against verified", status, finding or "the judge confirms what the attack claims", evidence)
