"""Single checks of the doctor, where the right answer is known."""

import sys
from dataclasses import replace

import pytest
import torch
from torch.autograd import grad as borrowed

from gencls.core import BPDA, Defense, GenclsError
from gencls.core.memory import rows_that_fit
from gencls.eval import PGD, Protocol, ThreatModel, run_cell
from gencls.eval.doctor import EFFORTS, Check, Diagnosis, diagnose
from gencls.eval.doctor import patient as patient_module
from gencls.eval.doctor.attacks import broken, compared
from gencls.eval.doctor.gradients import SIZES, check_differences, check_dynamic, difference_errors, inner_gradients
from gencls.eval.doctor.patient import Cost, Patient, affordable
from gencls.eval.doctor.randomness import check_eot
from gencls.eval.judgement import runner as runner_module
from tests.toys import Linear, Rescaled, small_cnn

EPSILON = 0.1


@pytest.fixture(scope="module")
def samples():
    """30 random images (1, 8, 8) with the decisions of the small network as labels."""
    images = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return images, small_cnn()(images).argmax(dim=1)


@pytest.mark.parametrize(("factor", "error"), [(1.0, 0.0), (0.5, 0.5), (2.0, 0.5), (0.0, 1.0), (-1.0, 2.0)])
def test_the_error_of_a_gradient_that_is_off_by_a_factor(factor, error):
    # A linear model has no curvature: the relative error is |1 - factor| / max(1, |factor|) at every step size.
    source = torch.Generator().manual_seed(0)
    linear = Linear(torch.randn(3, 16, generator=source, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))

    class Off(Defense):
        num_classes = 3

        def forward(self, images):
            return linear(images)

        def surrogates(self):
            return {"off": BPDA(linear, Rescaled(linear, scale=factor))}

    images = torch.rand(6, 1, 4, 4, generator=source, dtype=torch.float64)
    patient = Patient.of(Off().eval(), images, torch.arange(6) % 3, ThreatModel("linf", 0.1), Protocol())
    errors, rounding = difference_errors(patient, 4)
    assert errors["off"] == pytest.approx(dict.fromkeys(SIZES, error), abs=1e-6)  # float64, steps of 1e-4
    assert rounding < 1e-6


@pytest.mark.parametrize(
    ("errors", "status", "words"),
    [
        ((0.09, 0.04, 0.02, 0.01), "ok", "agree with differences of the scores: exact"),
        ((0.10, 0.06, 0.09, 0.62), "ok", "agree"),  # half precision: rounding at the smallest step
        ((0.41, 0.42, 0.18, 0.09), "ok", "agree"),  # a SqueezeNet at 224 pixels: curvature at the largest
        ((0.13, 0.23, 0.58, 1.15), "ok", "agree"),  # bfloat16: one size, and the next one nearly
        ((1.00, 1.00, 1.00, 0.01), "note", "at one step size only: 0.0001 (exact)"),  # k winners take all
        ((0.09, 0.54, 0.95, 1.01), "note", "at one step size only: 0.01 (exact)"),  # 256 levels, straight-through
        ((0.90, 0.10, 0.90, 1.00), "note", "at one step size only: 0.003 (exact)"),
        ((0.90, 0.40, 0.30, 0.90), "fail", "no declared gradient is that of the defense"),
    ],
)
def test_agreement_at_neighbouring_step_sizes(errors, status, words):
    found = check_differences({"exact": dict(zip(SIZES, errors, strict=True))}, 0.0, {})
    assert found.status == status
    assert words in found.finding


def test_one_mode_that_agrees_everywhere_is_enough():
    errors = {"exact": dict(zip(SIZES, (1.0, 1.0, 1.0, 0.01), strict=True)), "unrolled": dict.fromkeys(SIZES, 0.1)}
    assert check_differences(errors, 0.0, {}).status == "ok"
    assert "0.0001 (exact)" in check_differences({"exact": errors["exact"]}, 0.0, {}).finding


def test_the_cosine_of_eot_gradients_is_that_of_the_closed_form():
    # Scores <w_k + s n_k, x> with fresh noise n for each draw. The calibrated cross-entropy of two classes has a gradient along
    # d + s (n_1 - n_0) averaged over S draws, so the cosine is |d|^2 / (|d|^2 + 2 s^2 D / S) up to 1 / sqrt(D).
    pixels, sigma, count = 4096, 1.0, 4
    weight = torch.randn(2, pixels, generator=torch.Generator().manual_seed(0))

    class Shaking(Defense):
        num_classes, stochastic = 2, True

        def forward(self, images):
            noise = torch.randn(len(images), 2, pixels)
            return ((weight + sigma * noise) * images.flatten(1).unsqueeze(1)).sum(dim=2)

    images = torch.rand(9, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    signal = float((weight[1] - weight[0]).square().sum())
    for draws, status in ((count, "ok"), (1, "fail")):
        protocol = Protocol(eot_samples=draws)
        patient = Patient.of(Shaking().eval(), images, torch.arange(9) % 2, ThreatModel("linf", 0.1), protocol)
        found = check_eot(patient, "exact")
        expected = signal / (signal + 2 * sigma**2 * pixels / draws)
        assert found.evidence["cosine of two gradients"] == pytest.approx(expected, abs=0.05)  # 3 / sqrt(D)
        assert found.status == status or draws == count


def test_paired_outcomes():
    right = torch.tensor([True] * 12 + [False] * 3)
    first = torch.tensor([True] * 4 + [False] * 11)
    second = torch.tensor([False] * 2 + [True] * 10 + [True] * 3)
    outcome = compared((first, right), (second, right))
    assert (outcome.first, outcome.second, outcome.count) == (4, 10, 12)
    assert (outcome.only_first, outcome.only_second) == (2, 8)
    assert outcome.p_value == pytest.approx(56 / 1024)  # P[Binomial(10, 1/2) <= 2] = (1 + 10 + 45) / 2^10
    assert not outcome.worse_first
    assert compared((first & False, right), (second, right)).worse_first  # 0 against 10 of 10: 2^-10
    assert not compared((first & False, right), (second, right)).worse_second


def test_what_was_wrong_before_is_not_counted_as_right(samples):
    images, labels = samples
    labels = labels.clone()
    labels[:5] = (labels[:5] + 1) % 4
    cell = run_cell(small_cnn(), PGD(ThreatModel("linf", EPSILON), steps=2), "exact", images, labels, Protocol())
    _, right = broken({"exact": cell})
    assert right.tolist() == [False] * 5 + [True] * 25


def test_inner_gradients_are_counted_under_any_name():
    leaf = torch.ones(2, requires_grad=True)
    assert inner_gradients(lambda: leaf * 2) == 0
    assert inner_gradients(lambda: borrowed(leaf.sum(), leaf)) == 1
    assert inner_gradients(lambda: leaf.sum().backward()) == 1
    assert sys.getprofile() is None


def test_a_profiler_at_work_is_left_alone(samples):
    def watch(*_):
        return None

    patient = Patient.of(small_cnn(), *samples, ThreatModel("linf", 0.1), Protocol())
    sys.setprofile(watch)
    try:
        with pytest.raises(GenclsError, match="expected no profiler"):
            check_dynamic(patient, {})
        assert sys.getprofile() is watch
    finally:
        sys.setprofile(None)


def test_the_effort_follows_the_budget(samples):
    patient = Patient.of(small_cnn(), *samples, ThreatModel("linf", 0.1), Protocol())
    assert affordable(patient, 1e9)[0] is EFFORTS[0]
    effort, cost = affordable(patient, 1e-9)
    assert effort is EFFORTS[-1]
    assert cost.gradient["exact"] > 0
    needed = [effort.seconds(100, Cost(1.0, {"exact": 2.0, "other": 3.0}), 1) for effort in EFFORTS]
    assert needed == sorted(needed, reverse=True)
    few = replace(EFFORTS[0], smoothing=1)
    assert few.seconds(100, cost, 16) == pytest.approx(16 * few.seconds(100, cost, 1))
    # The noisy images of a smoothed gradient are draws of a random defense, too.
    assert replace(few, smoothing=8).seconds(100, cost, 1) > few.seconds(100, cost, 1)
    assert replace(few, smoothing=8).seconds(100, cost, 16) == few.seconds(100, cost, 16)


def test_text_tells_status_evidence_and_verdict():
    bad = Check("zero gradients", "fail", "all gradients are zero", {"zero": 1.0, "images": 20})
    assert Diagnosis((bad,)).text("mine").splitlines() == [
        "fail  zero gradients  all gradients are zero",
        "                      zero: 1; images: 20",
        "mine: a robustness number would be meaningless; failed: zero gradients",
    ]
    fine = Diagnosis((Check("EoT", "note", "noisy"), Check("gradient", "ok", "there")))
    assert fine.passed
    assert "2 checks" in fine.conclusion
    assert "mind the notes: EoT" in fine.conclusion


class TwoModes(Defense):
    """A network with two gradient modes."""

    num_classes = 4

    def __init__(self):
        super().__init__()
        self.network, self.approximate = small_cnn(), BPDA(small_cnn(), small_cnn(seed=1))

    def forward(self, images):
        return self.network(images)

    def surrogates(self):
        return {"exact": self.network, "bpda": self.approximate}


def test_memory_is_measured_once_for_a_mode(samples, monkeypatch):
    measured = []

    def counted(ask, image, memory):
        measured.append(ask)
        return rows_that_fit(ask, image, memory)

    for module in (patient_module, runner_module):
        monkeypatch.setattr(module, "rows_that_fit", counted)
    threat = ThreatModel("linf", 0.05)
    for defense, count in ((small_cnn(), 1), (TwoModes().eval(), 3)):
        measured.clear()
        found = diagnose(defense, *samples, threat=threat, effort=replace(EFFORTS[-1], all_modes=True))
        assert {"offset and scale", "invariance", "black box"} <= {check.name for check in found.checks}
        assert len(measured) == count
