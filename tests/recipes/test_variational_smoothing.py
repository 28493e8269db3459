"""The recipe of variational smoothing: its settings beside the thesis's, and the whole of it with little."""

import json
import shutil
from dataclasses import dataclass, replace
from functools import cache

import pandas as pd
import pytest
import torch
from torch import nn

from gencls import zoo
from gencls.core import GenclsError
from gencls.defenses import PlainClassifier
from gencls.eval.report.formats import MISSING
from recipes.harness import diagnoses
from recipes.harness.records import records_of, right_under
from recipes.variational_smoothing import experiments, figures, survivors, tables
from recipes.variational_smoothing.__main__ import recipe as variational_smoothing
from recipes.variational_smoothing.runs import READINGS, Run
from recipes.variational_smoothing.settings import BASES, BUDGETS, PROFILES, Budget

LITTLE = Budget(
    count=2,
    together=2,
    autoattack=2,
    targets=1,
    queries=2,
    pgd=2,
    restarts=1,
    eot=2,
    judge=2,
    judge_most=4,
    sweep=2,
    steps=(1, 2),
    certified=2,
    noises=200,  # can certify up to 0.36
    minimal=2,
    doctor=0.0,
)


@cache
def linear_classifier():
    """Ridge regression on a thousand digits; four of five others are right."""
    digits = zoo.load_data("mnist-embedded", "train", limit=1000)
    pixels, classes = digits.images.flatten(1), torch.eye(10)[digits.labels]
    linear = nn.Linear(784, 10, bias=False)
    linear.weight.data = 20 * torch.linalg.solve(pixels.T @ pixels + 100 * torch.eye(784), pixels.T @ classes).T
    return PlainClassifier(nn.Sequential(nn.Flatten(), linear), 10).eval()


@dataclass(frozen=True, kw_only=True)
class Toys(Run):
    """A run with that classifier in place of all networks."""

    def load(self, name):
        return linear_classifier()


@pytest.fixture(scope="module")
def run(shared_folder):
    data = zoo.load_data("mnist-embedded", "test", limit=20)
    profile = replace(PROFILES["smoke"], strengths=(1.0, 4.0))
    out, kinds = shared_folder / "smoothing", ("gaussian",)
    return Toys(profile=profile, budget=LITTLE, out=out, data=data, kinds=kinds, command="as told")


@pytest.fixture(scope="module", autouse=True)
def one_deviation():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "SIGMAS", (0.1,))
        yield


PARTS = tuple(part for part in experiments.PARTS if part != "readings")


@pytest.fixture(scope="module")
def page(run):
    return variational_smoothing.main(run, PARTS)


@pytest.mark.slow
def test_readings_have_a_part_of_their_own(run, page):
    whole = replace(run, out=run.out.parent / "readings")
    shutil.copytree(run.out, whole.out)
    text = variational_smoothing.main(whole).read_text()
    assert all(reading in text for reading in READINGS)
    assert "not finished" not in text


@pytest.mark.slow  # in the fast tests they are those of toys
def test_the_profiles_own_networks(run, tmp_path):
    whole = Run(profile=run.profile, budget=LITTLE, out=tmp_path / "run", data=run.data, kinds=run.kinds, command="as told")
    assert "not finished" not in variational_smoothing.main(whole, PARTS).read_text()


def test_cifar10_is_the_thesis():
    """Section 4.3: standard deviation 0.05, 2/255 for bare models, 8/255 for the robust one, 2, 4 and 8/255 in Table 4.2."""
    profile = PROFILES["cifar10"]
    assert profile.sigma == 0.05
    assert [profile.size(kind) for kind in profile.bases] == [2 / 255, 2 / 255, 8 / 255]
    assert [times * profile.epsilon for times in profile.strengths] == [2 / 255, 4 / 255, 8 / 255]
    assert BUDGETS["paper"].steps[0] == 1
    assert BUDGETS["paper"].autoattack == 100
    assert {kind for profile in PROFILES.values() for kind in profile.bases} == set(BASES)


def test_every_table_and_figure_is_written(run, page):
    written = {path.stem for path in (run.out / "tables").glob("*.md")}
    assert written == {"table-4.1", "table-4.2", "steps", "readings", "certified"}  # one reading is that of the other parts
    text = page.read_text()
    for title in ("Table 4.1", "Table 4.2", "Steps of the inner optimisation", "Randomized smoothing"):
        assert title in text
    assert "not finished" not in text


def test_a_second_call_computes_nothing(run, page, monkeypatch):
    monkeypatch.setattr("gencls.eval.study.grid.Grid._compute", lambda *args: pytest.fail("computes again"))
    assert variational_smoothing.main(run, PARTS) == page


def test_inference_meets_every_attack_through_both_gradients(run, page):
    records = records_of(run.out, "main/gaussian-inference")
    assert set(records["attack"]) == set(tables.ATTACKS)
    assert set(records[records["attack"] == "pgd"]["gradient"]) == set(run.inference("gaussian").surrogates())


def test_the_worst_attack_and_gradient_count(run, page):
    rows = [("a", "pgd", True, True), ("a", "pgd", False, True), ("a", "square", True, True), ("b", "square", True, True)]
    rows += [("c", "square", True, False)]  # wrong without any attack
    records = pd.DataFrame(rows, columns=["sample_hash", "attack", "majority_correct", "clean_majority_correct"])
    records["valid"] = True
    assert right_under(records).to_dict() == {"a": False, "b": True, "c": False}
    assert right_under(records, ("square",)).to_dict() == {"a": True, "b": True, "c": False}
    records["valid"] = records["attack"] == "square"  # of "a" only what broke the rules is wrong
    assert right_under(records).to_dict() == {"a": True, "b": True, "c": False}


@pytest.mark.slow
def test_robust_base_models_have_a_table_of_their_own(run):
    robust = replace(run, kinds=("robust",), out=run.out.parent / "robust")
    variational_smoothing.main(robust, ["main"])
    assert {path.stem for path in (robust.out / "tables").glob("*.md")} == {"table-4.3"}


@pytest.mark.slow
def test_what_only_the_inference_keeps_is_attacked_harder(run, page, monkeypatch, tmp_path):
    harder = replace(run, out=tmp_path / "run")
    shutil.copytree(run.out, harder.out)
    with monkeypatch.context() as patch:

        def inference_alone_is_right(records):
            return pd.Series("inference" in records["defense"].iloc[0], index=records["sample_hash"].unique())

        patch.setattr(survivors, "right_under", inference_alone_is_right)
        variational_smoothing.run_parts(harder, ["survivors"])
    table = survivors.survivor_table(harder)
    assert [row.cells[0].ours for row in table.rows] == ["2"]
    records = records_of(harder.out, "survivors/gaussian")
    assert [cell.ours for cell in table.rows[0].cells[1:]] == [
        str(right_under(records, some).sum()) for some in (*((name,) for name in survivors.ATTACKS), ())
    ]
    assert len(survivors.ATTACKS) == records["attack"].nunique()
    for path in (harder.out / "survivors/gaussian/cells").glob("*.parquet"):
        if pd.read_parquet(path)["attack"].eq("square").all():
            path.with_suffix(".json").unlink()  # its mark
    lacking = survivors.survivor_table(harder)
    assert lacking.rows[0].cells[1 + list(survivors.ATTACKS).index("square")].ours == MISSING
    assert any("Bare Gaussian + inference: not finished: square" in note for note in lacking.notes)
    assert any(note.startswith("⚠ partial: ") for note in lacking.notes)


def test_the_thesis_stands_beside_its_own_base_model_only(run):
    printed = replace(run, profile=replace(PROFILES["smoke"], printed=True))
    assert tables.compared(printed)
    assert not tables.compared(replace(printed, kinds=("robust",)))
    assert not tables.compared(run)


def test_unknown_base_models_are_named(run):
    with pytest.raises(GenclsError, match="expected some of pretrained, gaussian, robust, got combined"):
        variational_smoothing.main(replace(run, kinds=("combined",)))


def test_readings_are_different_defenses(run):
    images = run.data.images[:4]
    found = []
    for reading in READINGS:
        torch.manual_seed(0)
        found.append(run.inference("gaussian", reading=reading)(images))
    for i, scores in enumerate(found):
        assert not any(torch.allclose(scores, other) for other in found[:i])


def test_the_certified_curve_lies_below_the_attacked_one(run, page):
    table, _ = figures.certified_curves(run)
    values = [[float(cell.ours.split()[0]) for cell in row.cells] for row in table.rows]
    assert all(certified <= ours <= attacked for certified, attacked, ours in values)
    known = json.loads(next((run.out / "certificates").glob("*.json")).read_text())
    right = torch.tensor(known["labels"]) == run.data.labels[: LITTLE.certified]
    assert values[0][0] == pytest.approx(100 * float(right.double().mean()), abs=0.1)


def test_certificates_of_other_images_are_made_again(run, page, capsys):
    usual = experiments.certificates(run)
    kept = usual.known
    assert usual.get() == kept
    others = experiments.certificates(replace(run, data=replace(run.data, images=run.data.images.flip(0))))
    others.get()
    assert "measured of something else or by other code; measuring again" in capsys.readouterr().out
    assert others.known["key"] != kept["key"]
    assert usual.get()["labels"] == kept["labels"]


def test_the_doctors_findings_are_kept_and_shown(run, page, monkeypatch):
    verdict = type(
        "D", (), {"conclusion": "bad", "text": lambda self, name: name, "to_json": lambda self: {"passed": False, "checks": []}}
    )
    monkeypatch.setattr(diagnoses, "diagnose", lambda defense, images, labels, **settings: verdict())
    patient = replace(run, budget=replace(LITTLE, doctor=1.0), out=run.out.parent / "patient")
    variational_smoothing.run_parts(patient, ["doctor"])
    monkeypatch.setattr(diagnoses, "diagnose", lambda *args, **settings: pytest.fail("examines again"))
    variational_smoothing.run_parts(patient, ["doctor"])
    assert [kept.known["passed"] for kept in experiments.diagnoses(patient).values()] == [False] * 2


def test_missing_weights_name_the_commands(run, tmp_path):
    lacking = replace(run, profile=replace(PROFILES["smoke"], bases={"gaussian": "resnet18-cifar10"}), out=tmp_path / "new")
    with pytest.raises(GenclsError, match="gencls train resnet18-cifar10"):
        variational_smoothing.main(lacking)
    assert not (tmp_path / "new").exists()


def test_weights_of_the_smoothed_classifier_are_asked_for_at_once_and_only_for_its_part(run, tmp_path):
    lacking = replace(run, profile=replace(PROFILES["smoke"], smoothed="resnet18-gaussian-cifar10"), out=tmp_path / "new")
    with pytest.raises(GenclsError, match="gencls train resnet18-gaussian-cifar10"):
        variational_smoothing.main(lacking)
    assert not (tmp_path / "new").exists()
    assert figures.certified_curves(lacking) is None


def test_command_lines_make_runs(tmp_path):
    words = ["--n", "3", "--out", str(tmp_path)]
    planned = variational_smoothing.plan(variational_smoothing.parser().parse_args(words), "as told")
    assert (planned.budget.count, planned.budget.sweep, planned.budget.certified) == (3, 3, 3)
    assert planned.out == tmp_path / "smoke-smoke"
    other = variational_smoothing.parser().parse_args([*words, "--profile", "cifar10", "--data", "mnist-embedded"])
    planned = variational_smoothing.plan(other, "as told")
    assert planned.data.name == planned.profile.data == "mnist-embedded"
    with pytest.raises(GenclsError, match="at least one image"):
        variational_smoothing.plan(variational_smoothing.parser().parse_args(["--n", "0"]), "")
    with pytest.raises(SystemExit):
        variational_smoothing.parser().parse_args(["--profile", "unknown"])


def test_nothing_measured_is_an_error(run, tmp_path):
    with pytest.raises(GenclsError, match="at least one finished cell"):
        variational_smoothing.main(replace(run, out=tmp_path / "empty"), [])
