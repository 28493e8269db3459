"""Checks whether offset and scale of the scores decide about robustness."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gencls.eval.attacks import PGD
from gencls.eval.attacks.parts.attack_model import AttackModel, prepare
from gencls.eval.doctor.attacks import broken, compared
from gencls.eval.doctor.diagnosis import Check, Evidence
from gencls.eval.doctor.patient import Patient
from gencls.eval.judgement.trial import Trial
from gencls.eval.threats.protocol import Threat

_ZEROS = 0.1
"""The share of gradients that are zero only for the plain cross-entropy, above which attacks that use it lose their meaning."""

_RESCALED = ((200.0, 100.0), (1 / 200, -100.0))
"""Scales and shifts that must not change an attack."""

_SAME = 0.9


@dataclass(frozen=True)
class UncalibratedPGD:
    """PGD on the plain float32 cross-entropy of the scores, as tools run it that trust the scores' scale; see PGD."""

    threat: Threat
    steps: int = 40
    uses_gradients = True

    @property
    def passes(self) -> tuple[int, int]:
        """The forward and backward passes, as in PGD."""
        return PGD(self.threat, self.steps).passes

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Attack; see :class:`~gencls.eval.Attack`."""
        known = prepare(model, images, labels)
        return PGD(self.threat, self.steps)(_Uncalibrated(known.meter, **known.settings), images, labels)


class _Uncalibrated(AttackModel):
    """An attack model that takes scores for log probabilities on a sensible scale."""

    def cross_entropy(self, draws: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(self.average(draws).float(), labels, reduction="none")


class _Rescaled(nn.Module):
    """The scores of another model, times a number plus a number."""

    def __init__(self, model: nn.Module, scale: float, shift: float) -> None:
        super().__init__()
        self.model = model
        self.scale = scale
        self.shift = shift
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.model(images)
        return scores * self.scale + self.shift


def check_finite(patient: Patient) -> Check:
    """The scores must be finite: the argmax of others is a decision made of nothing."""
    with patient.streams("finite"):
        scores = patient.scores(patient.model(patient.defense), patient.images)
    bad = int((~torch.isfinite(scores)).any(dim=1).sum())
    evidence: Evidence = {"images": len(scores), "with NaN or infinite scores": bad}
    if bad:
        return Check("finite scores", "fail", "scores are NaN or infinite: they decide nothing", evidence)
    return Check("finite scores", "ok", "scores are finite", evidence)


def check_clean(patient: Patient) -> Check:
    """Decisions must be right often enough that an attack has images to turn."""
    with patient.streams("clean"):
        scores = patient.scores(patient.model(patient.defense), patient.images)
    count, classes = scores.shape
    evidence: Evidence = {"images": count, "classes": classes}
    accuracy = float((scores.argmax(dim=1) == patient.labels).double().mean())
    evidence |= {"accuracy": accuracy, "smallest score": float(scores.min()), "largest score": float(scores.max())}
    if accuracy <= 1 / classes:
        finding = "no better than chance on clean images: there is nothing to attack; are data and labels those of training?"
        return Check("clean scores", "fail", finding, evidence)
    if bool(((scores >= 0) & (scores <= 1)).all() and ((scores.sum(dim=1) - 1).abs() < 1e-4).all()):
        finding = "scores are probabilities: near 0 and 1 they are rounded and gradients vanish; return their logarithms"
        return Check("clean scores", "note", finding, evidence)
    return Check("clean scores", "ok", "better than chance", evidence)


def check_scale(patient: Patient, mode: str, calibrated: Mapping[str, Trial], steps: int) -> Check:
    """Compare the plain cross-entropy with the calibrated one: zero gradients, and the success of PGD with it."""
    name, one = "offset and scale", patient.only({mode: patient.modes[mode]})
    model = patient.model(patient.modes[mode])
    losses = (lambda s, part: _plain(s, patient.labels[part]), patient.cross_entropy(model))
    zeros = []
    for loss in losses:
        with patient.streams("scale"):
            gradient = patient.gradient(model, patient.images, loss)
        zeros.append(1.0 if gradient is None else float((gradient.flatten(1).abs().amax(dim=1) == 0).double().mean()))
    plain, own = zeros
    raw = one.attack(UncalibratedPGD(patient.threat, steps), calibrated[mode].clean)
    outcome = compared(broken({mode: calibrated[mode]}), broken(raw))
    evidence: Evidence = {
        "zero gradients of the plain cross-entropy": plain,
        "of the calibrated": own,
        "broken with calibration": outcome.first,
        "broken without": outcome.second,
        "images": outcome.count,
        "mode": mode,
    }
    # Here the calibrated attack is the strong one: it must find more only by chance.
    if plain - own > _ZEROS or outcome.worse_second:
        finding = "tools that do not calibrate would report robustness that is not there; divide the scores by a constant"
        return Check(name, "fail", finding, evidence)
    if plain > own:
        return Check(name, "note", "the plain cross-entropy has zero gradients for some images", evidence)
    return Check(name, "ok", "a plain cross-entropy would attack as well as a calibrated one", evidence)


def check_invariance(patient: Patient, mode: str) -> Check:
    """The gradient that our attacks follow must not change with offset and scale of the scores."""

    def gradient(surrogate: nn.Module) -> Tensor | None:
        model = patient.model(surrogate, common_draws=True, like=patient.modes[mode])
        with patient.streams("invariance"):
            return patient.gradient(model, patient.images, patient.cross_entropy(model))

    own = gradient(patient.modes[mode])
    evidence: Evidence = {"mode": mode}
    cosines = []
    for scale, shift in _RESCALED:
        other = gradient(_Rescaled(patient.modes[mode], scale, shift))
        same = own is not None and other is not None
        cosine = float(functional.cosine_similarity(_flat(own), _flat(other), eps=1e-30).median()) if same else 0.0
        # Two zero gradients are the same, too; the check of zero gradients speaks of them.
        cosines.append(1.0 if same and not bool(_flat(own).any()) and not bool(_flat(other).any()) else cosine)
        evidence[f"cosine, scores * {scale:g} {shift:+g}"] = cosines[-1]
    if min(cosines) < _SAME:
        finding = "our gradients change with offset or scale: the scores are rounded too coarsely to be shifted"
        return Check("invariance", "note", finding, evidence)
    return Check("invariance", "ok", "our gradients depend neither on the offset nor on the scale of the scores", evidence)


def _plain(scores: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(scores.float(), labels, reduction="none")


def _flat(gradient: Tensor | None) -> Tensor:
    return torch.empty(0) if gradient is None else gradient.flatten(1).double()
