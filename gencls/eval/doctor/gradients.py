"""Checks whether gradients exist, and whether they belong to the defense."""

import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from gencls.core import GenclsError, seeded
from gencls.core.balls import per_image
from gencls.core.gradient_modes import mode_named
from gencls.eval.doctor.diagnosis import Check, Evidence
from gencls.eval.doctor.patient import Patient

SIZES = (1e-2, 3e-3, 1e-3, 1e-4)
"""Step sizes of each pixel, [0, 1] units. Small steps drown in rounding, or in the jitter of an inner optimisation that has not
converged; large ones see curvature and kinks. A gradient is right if it fits one of them.
"""

AGREE = 0.2
"""The relative error up to which a gradient counts as the defense's own. Rightly differentiated networks have 0.002 to 0.03;
ABS with 50 steps, whose Adam jitters, has 0.05 to 0.15 (docs/doctor.md).
"""

_NEAR = 0.5
"""A gradient that fits one step size only must have an error up to this at a neighbouring size. Rounding grows as much as the
steps shrink, and curvature grows by its square, so a correct gradient is at least half right next to where it is right; scores
that jump (k winners take all, a fine grid) leap from 0.01 to 1.
"""

_ZEROS = 0.01
"""The share of zero gradients above which studies warn, too."""

_INTERIOR = 0.02
"""Differences are taken this far inside [0, 1]: at 0 and 1 a defense may clip."""

_COARSE = 0.1


def check_existence(patient: Patient) -> tuple[Check, Patient]:
    """Every mode must have a finite gradient; later checks leave out modes without one."""
    usable, problems = {}, {}
    for mode, surrogate in patient.modes.items():
        try:
            model = patient.model(surrogate)
            with patient.streams("existence"):
                gradient = patient.gradient(model, patient.images, patient.cross_entropy(model))
        except RuntimeError as error:  # autograd's own errors
            problems[mode] = str(error).splitlines()[0]
            continue
        if gradient is None:
            problems[mode] = "scores are detached from the images"
        elif not bool(torch.isfinite(gradient).all()):
            bad = int((~torch.isfinite(gradient.flatten(1)).all(dim=1)).sum())
            problems[mode] = f"NaN or infinity for {bad} of {len(gradient)} images"
        else:
            usable[mode] = surrogate
    evidence: Evidence = {"images": len(patient.images), **{mode: "finite" for mode in usable}, **problems}
    if not usable:
        finding = "no gradient mode has a finite gradient; declare one in surrogates(), for instance BPDA"
        return Check("gradient", "fail", finding, evidence), patient
    if problems:
        finding = "a declared gradient mode has no finite gradient: an evaluation stops there"
        return Check("gradient", "note", finding, evidence), patient.only(usable)
    return Check("gradient", "ok", "every declared mode has a finite gradient", evidence), patient


def check_zeros(patient: Patient) -> tuple[Check, Patient]:
    """Measure the share of exactly zero gradients of the calibrated cross-entropy, at the images and at random starts.

    Returns:
        The check, and the defense with the modes in which at least half of the gradients are not zero.
    """
    with patient.streams("start"):
        starts = patient.threat.start(patient.images)
    shares: dict[str, float] = {}
    for mode, surrogate in patient.modes.items():
        model, zero = patient.model(surrogate), []
        for role, images in (("clean", patient.images), ("start", starts)):
            with patient.streams(role):
                gradient = patient.gradient(model, images, patient.cross_entropy(model))
            zero.append(torch.ones(len(images), device=images.device) if gradient is None else _size(gradient) == 0)
        shares[mode] = float(torch.cat(zero).double().mean())
    evidence: Evidence = {f"zero, {mode}": share for mode, share in shares.items()}
    evidence["gradients per mode"] = 2 * len(patient.images)
    seeing = patient.only({mode: surrogate for mode, surrogate in patient.modes.items() if shares[mode] <= 0.5})
    if min(shares.values()) > _ZEROS:
        finding = "gradients are exactly zero: a gradient attack stays where it starts; declare BPDA"
        return Check("zero gradients", "fail", finding, evidence), seeing
    if max(shares.values()) > _ZEROS:
        finding = "one gradient mode is blind for part of the images; another is not"
        return Check("zero gradients", "note", finding, evidence), seeing
    return Check("zero gradients", "ok", "gradients are not zero", evidence), seeing


def difference_errors(patient: Patient, directions: int) -> tuple[dict[str, dict[float, float]], float]:
    """Measure how far gradients are from central differences of the defense's own scores.

    For each image the score of the label minus that of the best other class is compared along two kinds of direction v: the
    gradient (scaled to a largest entry of 1) and random sign vectors,

        f(x + h v) - f(x - h v)    against    <g, (x + h v) - (x - h v)>.

    The relative error counts along the gradient, and the error of the root mean squares along the random vectors. Each image
    counts with the larger of the two, and the result is the median over images: kinks (ReLU, max-pooling) concern only a few. A
    stochastic defense draws the same everywhere.

    Returns:
        A mapping gradient mode -> step size -> error in [0, 2], and the error that rounding of the scores alone would make.
    """
    images = _INTERIOR + (1 - 2 * _INTERIOR) * patient.images
    with patient.streams("differences"):
        own = patient.model(patient.defense, common_draws=True)
        scores = patient.scores(own, images)
        other = scores.scatter(1, patient.labels.unsqueeze(1), -torch.inf).argmax(dim=1)

        def gap(scores: Tensor, part: Tensor) -> Tensor:
            rows = torch.arange(len(part), device=scores.device)
            return scores[rows, patient.labels[part]] - scores[rows, other[part]]

        def measure(direction: Tensor, size: float) -> tuple[Tensor, Tensor]:
            above, below = images + size * direction, images - size * direction
            everyone = torch.arange(len(images))
            change = gap(patient.scores(own, above), everyone) - gap(patient.scores(own, below), everyone)
            return change, above.double() - below.double()

        with seeded(patient.protocol.seed):
            signs = [torch.randn_like(images).sign() for _ in range(directions)]
        random = {size: [measure(direction, size) for direction in signs] for size in SIZES}
        errors: dict[str, dict[float, float]] = {}
        for mode, surrogate in patient.modes.items():
            gradient = patient.gradient(patient.model(surrogate, common_draws=True), images, gap)
            gradient = torch.zeros_like(images) if gradient is None else gradient
            along = gradient / per_image(_size(gradient).clamp_min(1e-30))
            errors[mode] = {
                size: float(torch.maximum(_error([measure(along, size)], gradient), _error(random[size], gradient)).median())
                for size in SIZES
            }
    changes = torch.stack([change for change, _ in random[SIZES[0]]]).square().mean(dim=0).sqrt()
    unit = torch.finfo(patient.images.dtype).eps * scores.abs().amax(dim=1)
    moved = changes > 0  # flat scores are not badly rounded
    return errors, float((unit[moved] / changes[moved]).median()) if bool(moved.any()) else 0.0


def _error(measured: list[tuple[Tensor, Tensor]], gradient: Tensor) -> Tensor:
    change = torch.stack([found for found, _ in measured])
    expected = torch.stack([(gradient.double() * move).flatten(1).sum(dim=1) for _, move in measured])
    size = torch.maximum(change.abs(), expected.abs()).square().sum(dim=0).sqrt()
    return (change - expected).square().sum(dim=0).sqrt() / size.where(size > 0, 1.0)


def check_differences(errors: Mapping[str, Mapping[float, float]], rounding: float, evidence: Mapping[str, float]) -> Check:
    """The check passes if one mode's gradient fits at one step size; it reports every mode."""
    name = "finite differences"
    if not errors:
        return Check(name, "note", "gradients are zero: there is nothing to compare", dict(evidence))
    best = {mode: min(found.values()) for mode, found in errors.items()}
    shown: Evidence = dict(evidence)
    for mode, found in errors.items():
        shown[f"error, {mode}"] = ", ".join(f"{error:.3f} (step {size:g})" for size, error in found.items())
    if rounding > _COARSE:
        shown["rounding"] = rounding
        return Check(name, "note", "scores are too coarsely rounded to be differenced", shown)
    fitting = [mode for mode, error in best.items() if error <= AGREE]
    approximate = [mode for mode in best if not mode_named(mode).exact]
    alone = [_alone(errors[mode]) for mode in fitting]
    if alone and None not in alone:
        sizes = ", ".join(f"{size:g} ({mode})" for mode, size in zip(fitting, alone, strict=True))
        finding = (
            f"gradients agree with differences at one step size only: {sizes}. Elsewhere the scores jump or bend, so gradients "
            "may mislead an attack: use smoothed gradients and attacks without gradients, too"
        )
        return Check(name, "note", finding, shown)
    if fitting:
        others = [mode for mode in best if mode not in fitting]
        finding = f"gradients agree with differences of the scores: {', '.join(fitting)}"
        return Check(name, "ok", finding + (f"; not: {', '.join(others)}" if others else ""), shown)
    if approximate:
        finding = f"only declared approximations ({', '.join(approximate)}), and they differ: black-box attacks count double"
        return Check(name, "note", finding, shown)
    finding = (
        "no declared gradient is that of the defense: it is detached, straight-through or noisy in part, or the scores jump "
        "everywhere; if that is meant, declare another gradient as a mode of its own"
    )
    return Check(name, "fail", finding, shown)


def _alone(errors: Mapping[float, float]) -> float | None:
    """The only step size at which a gradient agrees, if it is far from agreeing at the neighbouring sizes; else None."""
    sizes = sorted(errors)
    fitting = [i for i, size in enumerate(sizes) if errors[size] <= AGREE]
    if len(fitting) != 1:
        return None
    (i,) = fitting
    near = [errors[size] for size in sizes[max(0, i - 1) : i] + sizes[i + 1 : i + 2]]
    return sizes[i] if min(near) > _NEAR else None


def check_dynamic(patient: Patient, errors: Mapping[str, Mapping[float, float]]) -> Check:
    """Check whether forward itself differentiates; then a gradient may or may not go through its inner optimisation."""
    with torch.no_grad(), seeded(patient.protocol.seed):
        count = inner_gradients(lambda: patient.defense(patient.images[:1].clone()))
    evidence: Evidence = {"gradients within a forward": count, "modes": ", ".join(patient.modes)}
    name = "dynamic forward"
    if not count:
        return Check(name, "ok", "forward does not optimise by gradients", evidence)
    if len(patient.modes) > 1:
        return Check(name, "note", "forward optimises; each declared mode is attacked, and the worst counts", evidence)
    if all(min(error.values()) > AGREE for error in errors.values()):
        finding = "forward optimises, and its only gradient mode is not its gradient; declare one that is, such as Unrolled"
        return Check(name, "fail", finding, evidence)
    return Check(name, "note", "forward optimises with a single gradient mode declared; declare the other one, too", evidence)


def inner_gradients(call: Callable[[], object]) -> int:
    """Count how often code asks torch for gradients during a call, under whatever name it imported the function.

    Raises:
        GenclsError: a profiler is already at work.
    """
    wanted = {torch.autograd.grad.__code__, torch.autograd.backward.__code__}
    count = 0

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call" and frame.f_code in wanted

    if sys.getprofile() is not None:
        raise GenclsError("doctor: expected no profiler, because dynamic forwards are found with one; got one at work")
    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count


def _size(gradient: Tensor) -> Tensor:
    return gradient.flatten(1).abs().amax(dim=1)
