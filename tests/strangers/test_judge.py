"""Adversarials of attacks that nobody here wrote: what is a hair outside counts, what breaks the rules counts for nothing."""

import math

import pandas as pd
import pytest
import torch

from gencls.core import Defense, GenclsError
from gencls.eval import Study, ThreatModel, compare, evaluate, judge, robust_accuracy, summarize
from gencls.eval.report.formats import MISSING
from gencls.eval.report.study.columns import BY_NAME
from gencls.eval.report.style import NamedFigure
from tests.contracts.attacks import FIXED, MINIMAL
from tests.eval.judgement.test_judge import Coin
from tests.toys import small_cnn

LINF, L2 = ThreatModel("linf", 0.25), ThreatModel("l2", 1.0)
EDGE = 0.125
"""Clean pixels at both ends of the range lie this far inside: a step of 0.25 leaves it."""


class Corner(Defense):
    """Right (class 0) while the first pixel is below a half."""

    num_classes = 2

    def forward(self, images):
        first = images[:, 0, 0, 0]
        return torch.stack([0.5 - first, first - 0.5], dim=1)


class Given:
    """An attack that returns what a function makes of the images."""

    uses_gradients = False
    passes = (0, 0)

    def __init__(self, change, threat=LINF):
        self.threat, self.change = threat, change

    def __repr__(self):
        return f"Given({self.change.__qualname__})"

    def __call__(self, model, images, labels):
        return self.change(images.clone())


def samples(count=10):
    images = torch.full((count, 1, 4, 4), 0.5)
    images[:, 0, 0, 0] = 0.375
    images[:, 0, 0, 1], images[:, 0, 0, 2] = 1 - EDGE, EDGE
    images[:, 0, 3, 3] = torch.linspace(0.3, 0.7, count)  # samples are told apart by their pixels
    return images, torch.zeros(count, dtype=torch.int64)


def breaking(images):
    """Every image is broken, within the rules."""
    images[:, 0, 0, 0] += 0.2
    return images


def above(by, last=1.0):
    """Of the samples up to this one, whose last pixels grow from 0.3 to 0.7."""

    def change(images):
        breaking(images)[images[:, 0, 3, 3] < last, 0, 0, 1] = 1 + by
        return images

    return change


def below(by):
    def change(images):
        breaking(images)[:, 0, 0, 2] = -by
        return images

    return change


def beyond(by):
    def change(images):
        images[:, 0, 0, 0] += 0.25 + by
        return images

    return change


def pixel(value):
    def change(images):
        breaking(images)[:, 0, 1, 1] = value
        return images

    return change


def half(dtype, step):
    def change(images):
        images[:, 0, 0, 0] += step
        return images.to(dtype)

    return change


def row_of(change, threat=LINF, defense=None, **settings):
    table = evaluate((defense or Corner()).eval(), {"given": Given(change, threat)}, [samples()], **settings).summary()
    return table.iloc[0]


# kind -> what the attack does; every image is broken, and it is so near to the rules that it counts
FORGIVEN = {
    "above by 3e-8": above(6e-8),
    "below by 3e-8": below(3e-8),
    "above by 9e-7": above(8e-7),
    "below by 9e-7": below(9e-7),
    "ball by 5e-7": beyond(5e-7),
    "float64": lambda images: breaking(images).double(),
    "float16 within": half(torch.float16, 0.2),
    "bfloat16 within": half(torch.bfloat16, 0.2),
    "with a graph": lambda images: breaking(images).requires_grad_(),
}

# kind -> what the attack does, and how the row calls it
EXCLUDED = {
    "above by 2e-6": (above(2e-6), r"left \[0, 1\] by up to 2e-06"),
    "above by 0.2": (above(0.1), r"left \[0, 1\] by up to 0.1"),
    "below by 1e-5": (below(1e-5), r"left \[0, 1\] by up to 1e-05"),
    "ball by 1e-5": (beyond(1e-5), "left the ball by up to 1e-05"),
    "NaN": (pixel(math.nan), "NaN or infinite pixels"),
    "infinity": (pixel(math.inf), "NaN or infinite pixels"),
    "minus infinity": (pixel(-math.inf), "NaN or infinite pixels"),
    "float16 at the edge": (half(torch.float16, 0.2504), "left the ball by up to 0.00049"),
    "bfloat16 at the edge": (half(torch.bfloat16, 0.2525), "left the ball by up to 0.0039"),
    "unscaled to 0..255": (lambda images: breaking(images) * 255, r"left \[0, 1\] by up to 2.2e\+02"),
}

REFUSED = {
    "uint8": (lambda images: (images * 255).to(torch.uint8), "got torch.uint8; divide uint8 images by 255"),
    "bool": (lambda images: images > 0.5, "got torch.bool"),
    "int64": (lambda images: (images * 255).long(), "got torch.int64"),
    "complex": (lambda images: images.to(torch.complex64), "got torch.complex64"),
    "list": (lambda images: images.tolist(), r"expected (a tensor of images|adversarial to be a Tensor), got"),
    "numpy": (lambda images: images.numpy(), r"expected (a tensor of images|adversarial to be a Tensor), got ndarray"),
    "tuple": (lambda images: (images, images), r"expected (a tensor of images|adversarial to be a Tensor), got"),
    "None": (lambda images: None, r"expected (a tensor of images|adversarial to be a Tensor), got None"),
    "fewer": (lambda images: images[:-1], r"expected images of shape \(10, 1, 4, 4\), got \(9, 1, 4, 4\)"),
    "flat": (lambda images: images.flatten(1), r"got \(10, 16\)"),
    "one for all": (lambda images: images[:1], r"got \(1, 1, 4, 4\)"),
}


@pytest.mark.parametrize("kind", FORGIVEN)
def test_a_hair_outside_counts(kind):
    """3e-8 above 1 was replaced by the clean image: 9 % became 100 %."""
    row = row_of(FORGIVEN[kind])
    assert (row["robust_accuracy"], row["n"], row["excluded"]) == (0.0, 10, 0)
    assert "rules" not in row["warnings"]
    images, labels = samples()
    verdict = judge(Corner().eval(), images, FORGIVEN[kind](images.clone()), LINF, count=1)
    assert verdict.images.amin() >= 0
    assert verdict.images.amax() <= 1
    assert not verdict.images.requires_grad
    assert torch.equal(verdict.distances, LINF.distance(images, verdict.images))  # measured after clamping
    assert verdict.broken(labels).all()


@pytest.mark.parametrize("kind", EXCLUDED)
def test_what_breaks_the_rules_is_excluded_and_named(kind):
    change, words = EXCLUDED[kind]
    row = row_of(change)
    assert (row["n"], row["excluded"]) == (0, 10)
    numbers = ["robust_accuracy", "majority_accuracy", "any_draw_accuracy", "claimed_robust_accuracy", "ci_low", "ci_high"]
    assert row[numbers].isna().all()
    assert BY_NAME["robust_accuracy"].words(row) == MISSING  # never 100 %
    pattern = rf"10 of 10 adversarials broke the rules \({words}.*\) and are excluded: N = 0"
    assert pd.Series([row["warnings"]]).str.contains(pattern).all()


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_image_is_an_error(kind):
    change, message = REFUSED[kind]
    with pytest.raises(GenclsError, match=message):
        row_of(change)
    with pytest.raises(GenclsError, match=message):
        judge(Corner().eval(), samples()[0], change(samples()[0]), LINF, count=1)


def test_half_precision_is_named():
    assert "adversarials came in torch.float16, whose rounding may carry" in row_of(FORGIVEN["float16 within"])["warnings"]
    assert "adversarials came in" not in row_of(FORGIVEN["float64"])["warnings"]


@pytest.mark.parametrize("defense", [Corner(), Coin()])
def test_three_of_ten_are_left_out(defense):
    table = evaluate(
        defense.eval(), {"given": Given(above(0.1, last=0.4))}, [samples()], judge_draws=8, eot_samples=2
    ).summary()
    for row in table.to_dict("records"):
        assert (row["n"], row["excluded"]) == (7, 3)
    assert "3 of 10 adversarials broke the rules (left [0, 1] by up to 0.1) and are excluded: N = 7" in table["warnings"][0]
    assert ", samples without a valid one are excluded: N = 7" in table["warnings"][1]


def test_the_others_are_judged_with_the_draws_that_they_would_have_had():
    images = samples()[0]
    images[:, 0, 0, 0] = 0.6
    labels = torch.ones(10, dtype=torch.int64)
    found = []
    for change in (lambda images: images, above(0.1, last=0.4)):
        attacks = {"given": Given(lambda images, change=change: change(images).index_fill(3, torch.tensor([0]), 0.6))}
        records = evaluate(Coin().eval(), attacks, [(images, labels)], judge_draws=8, eot_samples=1).records
        found.append(records["predictions"].tolist())
    assert [len(row) for row in found[1]][:3] == [0, 0, 0]
    assert found[0][3:] == found[1][3:]
    assert found[0][3:] != found[0][:7]


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made, but not drawn, which takes seconds."""
    monkeypatch.setattr(NamedFigure, "encode", lambda figure, kind: b"")


def test_a_study_keeps_and_reports_what_broke_the_rules(tmp_path):
    images, labels = samples()
    attacks = {"bad": Given(pixel(math.nan)), "some": Given(above(0.1, last=0.4))}
    study = Study(
        tmp_path / "study", defenses={"corner": Corner().eval()}, attacks=attacks, images=images, labels=labels, shard_size=4
    )
    table = study.run().set_index("attack")
    assert table["n"].to_dict() == {"bad": 0, "some": 7, "worst case": 7}
    assert "2 of 10" not in table["warnings"]["some"]  # over all shards, not shard by shard
    assert "3 of 10 adversarials broke the rules" in table["warnings"]["some"]
    assert "13 of 20 adversarials broke the rules" in table["warnings"]["worst case"]
    page = study.report().read_text()
    assert "Excluded" in page
    assert (tmp_path / "study" / "figures").is_dir()


def test_a_study_of_nothing_but_broken_rules(tmp_path, undrawn):
    images, labels = samples()
    attacks = {"bad": Given(pixel(math.inf)), "minimal": Given(pixel(math.nan), ThreatModel("linf"))}
    study = Study(tmp_path / "study", defenses={"corner": Corner().eval()}, attacks=attacks, images=images, labels=labels)
    assert study.run()["robust_accuracy"].isna().all()
    assert "100.0" not in study.report().read_text().split('<table class="verdict">')[1].split("</table>")[0].split("Clean")[0]
    records = evaluate(Corner().eval(), attacks, [(images, labels)]).records
    assert compare(records).empty
    with pytest.raises(GenclsError, match="expected records of a minimal-norm attack"):
        robust_accuracy(records, [0.1])


def record(sample, **changes):
    """One line of records: right without an attack and under it."""
    row = {
        "sample_hash": sample,
        "label": 0,
        "defense": "d",
        "attack": "pgd",
        "gradient": "exact",
        "norm": "l2",
        "epsilon": 1.0,
    }
    row |= {"seed": 0, "clean_correct": 1.0, "correct": 1.0, "claimed": False, "distance": 0.5, "valid": True, "draws": 1}
    return row | {"forwards": 1.0, "backwards": 1.0, "seconds": 0.1, "warnings": "", "undecided": False} | changes


BROKEN = {"correct": 0.0, "claimed": True}
BAD = {"valid": False, "correct": math.nan, "distance": math.nan}

# kind -> records of one sample beside one that is right -> n, excluded and accuracy of the worst case at 1
WORST = {
    "an invalid one alone": ([BAD], (1, 1, 1.0)),
    "an invalid and a valid one that broke it": ([BAD, BROKEN | {"attack": "apgd"}], (2, 0, 0.5)),
    "an invalid and a valid one that did not": ([BAD, {"attack": "apgd"}], (2, 0, 1.0)),
    "broken by DDN within": ([BAD, BROKEN | {"attack": "ddn", "epsilon": math.nan}], (2, 0, 0.5)),
    "broken by DDN beyond": ([BAD, BROKEN | {"attack": "ddn", "epsilon": math.nan, "distance": 2.0}], (1, 1, 1.0)),
    "DDN found nothing": ([BAD, {"attack": "ddn", "epsilon": math.nan, "distance": 0.0}], (1, 1, 1.0)),
    "DDN broke the rules, too": ([BAD, BAD | {"attack": "ddn", "epsilon": math.nan}], (1, 1, 1.0)),
}


@pytest.mark.parametrize("kind", WORST)
def test_the_worst_case_counts_what_is_known(kind):
    changes, expected = WORST[kind]
    rows = [record("right"), *(record("asked", **change) for change in changes)]
    table = summarize(pd.DataFrame(rows))
    worst = table[(table["attack"] == "worst case") & table["epsilon"].notna()].iloc[0]
    assert (worst["n"], worst["excluded"], worst["robust_accuracy"]) == expected
    assert worst["majority_accuracy"] == worst["robust_accuracy"]


def test_paired_tests_leave_out_what_broke_the_rules():
    rows = [record(str(i), defense=name) for i in range(4) for name in ("a", "b")]
    rows[0] |= BAD | {"distance": 0.0}  # as records of older versions have it
    rows[1] |= BROKEN
    rows[2] |= BROKEN
    pair = compare(pd.DataFrame(rows)).iloc[0]
    assert (pair["only_a"], pair["only_b"]) == (0, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attacks_of_ours_keep_to_the_rules(dtype):
    """At the corners of the range, where clipping and projection meet."""
    cnn = small_cnn().to(dtype)
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    images[0], images[1], images[2] = 0.0, 1.0, (images[2] > 0.5).to(dtype)
    labels = cnn(images).argmax(1)
    threats = {"linf": ThreatModel("linf", 8 / 255), "l2": ThreatModel("l2", 0.5)}
    names = ("PGD", "FGSM", "APGD", "GaussianNoiseAttack")  # the others take steps and starts of these
    attacks = {f"{name}-{norm}": FIXED[name](threat) for name in names for norm, threat in threats.items()}
    attacks |= {"-".join(key): MINIMAL[key] for key in (("DDN", "l2"), ("DeepFool", "linf"), ("DeepFool", "l2"))}
    records = evaluate(cnn.eval(), attacks, [(images, labels)]).records
    assert records["valid"].all()
