"""A threat that no part of the package knows: weighted L2, where changes in the middle of an image count three times."""

from dataclasses import dataclass

import pytest
import torch

from gencls.core import GenclsError, checked
from gencls.core.balls import L2Ball
from gencls.core.files import write_sealed
from gencls.eval import (
    FGSM,
    FMN,
    PGD,
    Boundary,
    GrowingNoise,
    Study,
    ThreatModel,
    Transfer,
    diagnose,
    evaluate,
    read_study,
    report_study,
    robust_accuracy,
)
from gencls.eval.doctor import EFFORTS
from gencls.eval.judgement.eight_bit import is_eight_bit, to_eight_bit
from gencls.eval.threats import protocol
from gencls.eval.threats.protocol import Threat, ThreatKind, kind_of, kinds, made, register
from tests.toys import small_cnn


@dataclass(frozen=True)
class Weighted(Threat):
    norm: str = "weighted"

    @staticmethod
    def weights(images):
        found = torch.ones_like(images)
        found[..., 2:6, 2:6] = 3.0
        return found

    def distance(self, clean, adversarial):
        change = (adversarial - clean).double()
        return (self.weights(change) * change).flatten(1).norm(dim=1)

    def largest(self, shape):
        return self.weights(torch.zeros(1, *shape[1:])).norm().item()

    def step(self, gradient, size, images):
        weights = self.weights(gradient)
        direction = L2Ball().direction(gradient / weights) / weights
        return direction * (size.view(-1, 1, 1, 1) if isinstance(size, torch.Tensor) else size)

    def project(self, images, clean):
        shrink = ((1 - 1e-6) * self.epsilon / self.distance(clean, images).clamp_min(1e-12)).clamp_max(1)
        return torch.lerp(clean, images, shrink.view(-1, 1, 1, 1).to(clean)).clamp(0, 1)

    def start(self, clean):
        return self.project(clean + torch.randn_like(clean), clean)


@dataclass(frozen=True)
class Walk:
    """An attack of the threat's own: towards grey, as far as the bound allows."""

    threat: Weighted
    uses_gradients = False
    passes = (1, 0)

    def __call__(self, model, images, labels):
        model(images)
        return self.threat.project(images + 5 * (0.5 - images), images)


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(protocol, "_KINDS", dict(kinds()))
    register(
        ThreatKind("weighted", "weighted L2", r"$\ell_w$", "weighted pixel units", lambda epsilon: Weighted(epsilon=epsilon))
    )


@pytest.fixture
def samples():
    source = torch.Generator().manual_seed(1)
    images = torch.rand(24, 1, 8, 8, generator=source)
    return images, small_cnn()(images).argmax(1)


ATTACKS = {
    "pgd": PGD(Weighted(epsilon=0.4), steps=5),
    "far": PGD(Weighted(epsilon=2.0), steps=5),
    "fgsm": FGSM(Weighted(epsilon=0.4)),
    "walk": Walk(Weighted(epsilon=0.4)),
    "noise": GrowingNoise(Weighted(), sizes=10),
    "l2": PGD(ThreatModel("l2", 0.4), steps=5),
}


def test_it_is_evaluated_and_judged_by_its_own_distance(samples):
    result = evaluate(small_cnn(), ATTACKS, [samples])
    records = result.records
    assert set(records["norm"]) == {"weighted", "l2"}
    adversarials = {name: ATTACKS[name](small_cnn(), *samples) for name in ("pgd", "walk")}
    for name, found in adversarials.items():
        distances = ATTACKS[name].threat.distance(samples[0], found)
        assert (distances <= 0.4 + 1e-6).all()
        assert distances.max() > 0.39
        assert (ThreatModel("l2").distance(samples[0], found) < distances).all()
    summary = result.summary().set_index(["attack", "norm"])
    assert summary.loc[("far", "weighted"), "robust_accuracy"] < summary.loc[("pgd", "weighted"), "robust_accuracy"]
    assert (summary["excluded"] == 0).all()
    curve = robust_accuracy(records, [0.1, 100.0])
    assert set(curve["norm"]) == {"weighted"}


def test_an_image_outside_its_bound_is_not_counted(samples):
    @dataclass(frozen=True)
    class Breaks(Walk):
        def __call__(self, model, images, labels):
            return (images + 0.3).clamp(0, 1)

    summary = evaluate(small_cnn(), {"breaks": Breaks(Weighted(epsilon=0.4))}, [samples]).summary()
    assert summary["excluded"].max() == 24


def test_it_has_a_study_a_report_and_a_resume(tmp_path, samples, monkeypatch):
    def study():
        return Study(
            tmp_path,
            defenses={"cnn": small_cnn()},
            attacks=ATTACKS,
            images=samples[0],
            labels=samples[1],
            about={"data": "random images"},
        )

    summary = study().run()
    assert (summary["n"] == 24).all()
    report = study().report()
    page = report.read_text(encoding="utf-8")
    assert "weighted L2, ε = 0.4" in page
    assert any(r"$\ell_w$, $\varepsilon = 0.4$" in path.read_text() for path in tmp_path.rglob("*.tex"))
    assert any("weighted" in path.name for path in tmp_path.rglob("*.pdf"))
    again = study().run()
    assert again.equals(summary)
    monkeypatch.delitem(protocol._KINDS, "weighted")  # as in a process that has not imported the threat
    assert "weighted, ε = 0.4" in report_study(tmp_path).read_text(encoding="utf-8")


def test_the_doctor_examines_it(samples):
    found = diagnose(small_cnn(), *samples, threat=Weighted(epsilon=0.4), budget=2.0)
    checks = {check.name: check for check in found.checks}
    assert checks["unbounded attack"].evidence["radius"] == f"weighted {Weighted().largest(samples[0].shape):g}"
    assert checks["unbounded attack"].status == "ok"
    assert checks["finite differences"].status == "ok"
    assert checks["more steps"].status == "ok"
    assert checks["black box"].finding == "not compared: there is no such attack for weighted L2"
    by_key = diagnose(small_cnn(), *samples, norm="weighted", epsilon=0.4, budget=2.0)
    assert [check.name for check in by_key.checks] == [check.name for check in found.checks]


@pytest.mark.parametrize("norm", ["l1", "l0"])
def test_the_doctor_examines_sparse_balls(norm, samples):
    found = diagnose(small_cnn(), *samples, norm=norm, epsilon=4.0, budget=2.0)
    assert not [check for check in found.checks if check.status == "fail"]


@dataclass(frozen=True)
class Learned(Weighted):
    """A distance that asks a network, which takes its own precision only."""

    def distance(self, clean, adversarial):
        for images in (clean, adversarial):
            small_cnn()(images)
        return super().distance(clean, adversarial)

    def project(self, images, clean):
        assert images.dtype == clean.dtype == torch.float32
        return super().project(images, clean)

    def step(self, gradient, size, images):
        assert gradient.dtype == images.dtype == torch.float32
        return super().step(gradient, size, images)

    def start(self, clean):
        assert clean.dtype == torch.float32
        return super().start(clean)

    def turned(self, clean, far, near, regret):
        assert clean.dtype == far.dtype == near.dtype == torch.float32
        return super().turned(clean, far, near, regret)


def test_images_have_one_precision(samples):
    images = (samples[0] * 255).round() / 255
    threat = Learned(epsilon=0.4)
    attacks = {"pgd": PGD(threat, steps=3), "fgsm": FGSM(threat), "noise": GrowingNoise(Learned(), sizes=5)}
    result = evaluate(small_cnn(), attacks, [(images, samples[1])], eight_bit=True)
    assert (result.summary()["excluded"] == 0).all()
    for found in (result.adversarials["pgd", "exact"], result.adversarials["noise", "none"]):
        assert is_eight_bit(found)
    assert diagnose(small_cnn(), images, samples[1], threat=threat, effort=EFFORTS[-1]).checks


def test_it_transfers_and_is_rounded(samples):
    images = (samples[0] * 255).round() / 255
    found = Transfer(small_cnn(seed=3), ATTACKS["pgd"])(small_cnn(), images, samples[1])
    rounded = to_eight_bit(found, images, ATTACKS["pgd"].threat)
    assert is_eight_bit(rounded)
    assert ATTACKS["pgd"].threat.allows(ATTACKS["pgd"].threat.distance(images, rounded)).all()


def test_attacks_of_lp_balls_refuse_it():
    for make, norms in ((FMN, "linf, l2, l1, l0"), (Boundary, "l2")):
        with pytest.raises(GenclsError, match=f"expected a ThreatModel with a norm among {norms}, got Weighted"):
            make(Weighted())
    with pytest.raises(GenclsError, match="PGD: expected a threat model with an epsilon"):
        PGD(Weighted())


def test_checks_are_those_of_every_threat(samples):
    with pytest.raises(GenclsError, match="threat model: expected an epsilon > 0 in weighted pixel units, got -1"):
        Weighted(epsilon=-1)
    with pytest.raises(GenclsError, match="expected a weighted epsilon up to 13.86, the distance of the two farthest images"):
        evaluate(small_cnn(), {"pgd": PGD(Weighted(epsilon=100.0), steps=1)}, [samples])
    with pytest.raises(GenclsError, match="doctor: expected either an epsilon or a threat with one, got None and None"):
        diagnose(small_cnn(), *samples)


@dataclass(frozen=True)
class Middle(Weighted):
    middle: float = 3.0

    def distance(self, clean, adversarial):
        return self.middle * super().distance(clean, adversarial)


def test_two_threats_of_one_kind_have_different_keys(samples, tmp_path):
    def attacks(**settings):
        return {"walk": Walk(Middle(epsilon=0.4)), "other": Walk(Middle(epsilon=0.2, **settings))}

    assert set(evaluate(small_cnn(), attacks(), [samples]).records["epsilon"]) == {0.4, 0.2}
    evaluate(small_cnn(), attacks(middle=2.0, norm="weighted twice"), [samples])
    message = r"two with the norm 'weighted' \(of walk and other\); give them different keys"
    with pytest.raises(GenclsError, match=f"evaluate: .*{message}"):
        evaluate(small_cnn(), attacks(middle=2.0), [samples])
    with pytest.raises(GenclsError, match=f"study: .*{message}"):
        Study(tmp_path, defenses={"c": small_cnn()}, attacks=attacks(middle=2.0), images=samples[0], labels=samples[1])
    with pytest.raises(GenclsError, match=message):
        evaluate(small_cnn(), {"walk": Walk(Middle(epsilon=0.4)), "other": Walk(Weighted(epsilon=0.4))}, [samples])


def test_a_study_does_not_grow_by_another_threat_of_the_same_key(samples, tmp_path):
    def study(**attacks):
        return Study(tmp_path, defenses={"c": small_cnn()}, attacks=attacks, images=samples[0], labels=samples[1])

    study(walk=Walk(Middle(epsilon=0.4))).run()
    before = (tmp_path / "study.json").read_bytes()
    message = r"holds another study: threat weighted had middle 3\.0 and now has 2\.0; .* another name \(of a threat: its norm"
    with pytest.raises(GenclsError, match=message):
        study(other=Walk(Middle(epsilon=0.4, middle=2.0)))
    with pytest.raises(GenclsError, match="holds another study: threat weighted was Middle and is now Weighted"):
        study(other=Walk(Weighted(epsilon=0.4)))
    assert (tmp_path / "study.json").read_bytes() == before
    table = study(
        wider=Walk(Middle(epsilon=0.9)), twice=Walk(Middle(epsilon=0.4, middle=2.0, norm="weighted twice")), l2=ATTACKS["l2"]
    ).run()
    assert {*zip(table["norm"], table["epsilon"], strict=True)} == {
        ("weighted", 0.4),
        ("weighted", 0.9),
        ("weighted twice", 0.4),
        ("l2", 0.4),
    }


def test_a_study_that_named_no_threats_is_read_and_grows(samples, tmp_path):
    def study(**attacks):
        return Study(tmp_path, defenses={"c": small_cnn()}, attacks=attacks, images=samples[0], labels=samples[1])

    table = study(walk=Walk(Middle(epsilon=0.4))).run()
    settings = read_study(tmp_path)
    del settings["threats"]
    write_sealed(tmp_path / "study.json", settings)
    assert "weighted L2" in report_study(tmp_path).read_text(encoding="utf-8")
    again = study(walk=Walk(Middle(epsilon=0.4)))
    assert again.missing() == []
    assert again.run().equals(table)
    assert set(study(far=Walk(Middle(epsilon=0.9))).run()["n"]) == {24}
    with pytest.raises(GenclsError, match="threat weighted had middle"):
        study(other=Walk(Middle(epsilon=0.4, middle=2.0)))


def test_the_registry():
    assert [kinds()[key].label for key in ("linf", "l2", "l1", "l0")] == ["L∞", "L2", "L1", "L0"]
    assert made("l1", 2.0) == ThreatModel("l1", 2.0)
    assert made("weighted", None) == Weighted()
    assert Weighted().label == "weighted L2"
    assert kind_of("of another file").label == "of another file"
    with pytest.raises(GenclsError, match=r"threat model: did you mean 'weighted'\? expected a norm among .*weighted"):
        made("weigthed", 1.0)


def test_bounds_of_sparse_balls():
    images = torch.rand(2, 3, 4, 4)
    for norm in ("l1", "l0"):
        ThreatModel(norm, 48.0).check_reach(images.shape)
        with pytest.raises(GenclsError, match=f"expected a {norm} epsilon up to 48, the distance of the two farthest images"):
            ThreatModel(norm, 49.0).check_reach(images.shape)
    with pytest.raises(GenclsError, match="expected a l0 epsilon >= 1, a number of values, got 0.5"):
        ThreatModel("l0", 0.5)


def test_settings_know_threats():
    @checked
    def ask(threat: Threat) -> None: ...

    ask(Weighted())
    ask(ThreatModel("l1"))
    with pytest.raises(GenclsError, match="ask: expected threat to be a Threat, got 'l2'"):
        ask("l2")
