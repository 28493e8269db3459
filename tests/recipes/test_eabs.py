"""The recipe of E-ABS: the whole of it on toys."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gencls import zoo
from gencls.core import GenclsError
from gencls.core.files import write_sealed
from gencls.defenses import ABS, EABS, PlainClassifier
from gencls.eval import DDN, PGD, ThreatModel, closest_distances, evaluate
from gencls.eval.attacks.thesis_set import ThesisBudget
from recipes.eabs import experiments, page, printed
from recipes.eabs.__main__ import recipe as eabs
from recipes.eabs.experiments import ABLATION
from recipes.eabs.runs import Run
from recipes.eabs.settings import PROFILES, Budget, Profile
from recipes.harness.records import records_of
from tests.toys import SigmoidDecoders, small_cnn

ROOT = Path(__file__).parents[2]
CLASSES = 4


@dataclass(frozen=True, kw_only=True)
class Toys(Run):
    """A run of small random networks, which are said to have weights."""

    without: tuple[str, ...] = ()

    def path(self, kind):
        return Path("missing") if kind in self.without else Path(__file__)

    def load(self, kind, *, variational=None, warm=True):
        settings = self.budget.synthesis | ({} if warm else {"warm_steps": None})
        if kind in ("cnn", "adv-linf", "adv-l2"):
            return PlainClassifier(small_cnn(seed=len(kind)), CLASSES).eval()
        decoders = SigmoidDecoders(CLASSES)
        if kind == "abs" and not variational:
            return ABS(decoders, starts=16, steps=2, **settings).eval()
        return EABS(decoders, starts=16, steps=2, variational=variational is not False, **settings).eval()


TINY = Budget(
    count=6,
    attacks=ThesisBudget(
        restarts=1,
        pgd_steps=3,
        deepfool_steps=2,
        ddn_steps=16,
        cw_searches=1,
        cw_steps=3,
        noise_sizes=3,
        nes_steps=1,
        nes_pairs=2,
        boundary_queries=12,
        targets=2,
        smoothed_steps=3,
        smoothed_draws=4,
        smoothing=(0.1, 0.2),
        descent_steps=2,
        descent_rate=0.2,
    ),
    warm_steps=1,
    smoothed={"smoothed_draws": 2, "smoothing": (0.1,)},
    unrolled_steps=2,
    eot=2,
    judge=3,
    judge_most=6,
    black_box=4,
    ablation=4,
    examples=4,
    ladder=3,
    every=8,
    sweeps=4,
    sweep_steps=2,
    sweep_starts=1,
    eot_runs=(2,),
    starts=(1, 2),
    steps=(0, 2),
    bound=4,
    bound_steps=4,
)


def toys(folder, **changes):
    """Random images with the labels of one of the networks, so that it is right on all."""
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    labels = small_cnn(seed=len("cnn"))(images).argmax(1)
    data = zoo.ImageData("toys", "test", images, labels, ("left", "right", "up", "a very long name"), torch.arange(6))
    profile = Profile(data="toys", weights="toys", table="2.2", figure="2.5", linf=0.05, l2=0.5)
    return Toys(**{"profile": profile, "budget": TINY, "out": folder, "data": data, "command": "toys", **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = toys(tmp_path_factory.mktemp("run"), models=("cnn", "eabs"))
    return run, eabs.main(run)


def test_every_table_and_figure_is_written(finished):
    run, page = finished
    written = [{path.stem for path in (run.out / "tables").glob(f"*.{kind}")} for kind in ("md", "tex")]
    every = {
        "table-2.2",
        "mcnemar-2.2-linf",
        "mcnemar-2.2-l2",
        "mcnemar-2.2-linf-ours",
        "mcnemar-2.2-l2-ours",
        "table-2.6",
        "table-2.7",
        "table-2.8",
        "table-2.9",
        "bounds",
    }
    assert written == [every, every]
    drawn = {path.stem for path in (run.out / "figures").iterdir()}
    assert drawn == {
        *("mcnemar-2.2-linf", "mcnemar-2.2-l2", "mcnemar-2.2-linf-ours", "mcnemar-2.2-l2-ours", "figure-2.3", "figure-2.5"),
        *("table-2.7", "table-2.8", "table-2.9"),
    }
    for name in printed.MODELS.values():
        assert name in page.read_text()


def cells(run, name, part=""):
    """Head -> cells of a table in Markdown, or of the part that begins with a subheading and ends before the next."""
    found, heading = {}, ""
    for line in (run.out / "tables" / f"{name}.md").read_text().splitlines():
        if line.startswith("| "):
            head, *values = [words.strip(" *") for words in line.strip("|").split(" | ")]
            heading = heading if any(values) else head
            if any(values) and heading.startswith(part):
                found[head] = values
    return found


def test_accuracy_of_a_deterministic_model_is_that_of_the_plain_evaluation(finished):
    run, _ = finished
    attack = PGD(ThreatModel("linf", 0.05), steps=3)
    result = evaluate(run.load("cnn"), {"pgd": attack}, [(run.data.images, run.data.labels)])
    accuracy = result.records["correct"].mean()
    assert cells(run, "table-2.2", "L∞")["PGD"][0].startswith(f"{100 * accuracy:.1f} [")
    assert cells(run, "table-2.2")["Clean"][0].startswith("100.0 [61.0, 100.0] (99.5)")  # Wilson's limit of 6 of 6


def test_worst_cases_are_no_better_than_any_attack_and_rows_say_what_they_rest_on(finished):
    run, _ = finished
    for norm, names in (("L∞", ["PGD", "DeepFool", "Noise"]), ("L2", ["PGD", "DDN", "CW", "DeepFool", "Noise"])):
        rows = cells(run, "table-2.2", norm)
        assert set(names) <= set(rows)
        assert "PGD, estimated gradient, N = 4" in rows
        for column in (0, 4):
            left = {head: float(row[column].split()[0]) for head, row in rows.items() if row[column] != "–"}
            thesis, ours = left[f"All {norm}, the thesis's attacks"], left[f"All {norm}, ours too"]
            assert thesis <= min(left[name] for name in names)
            assert ours <= min(left.values())
    text = (run.out / "tables" / "table-2.2.md").read_text()
    assert "Budget: PGD 3 steps" in text
    assert "95.9 and 74.4" in text


def test_latent_descent_and_unrolling_are_for_classifiers_by_synthesis(finished):
    run, _ = finished
    found = cells(run, "table-2.2")
    assert all(found["PGD, smoothed gradient"][column] != "–" for column in (0, 4))
    for row in ("PGD, unrolled gradient", "Latent descent"):
        assert [found[row][column] == "–" for column in (0, 4)] == [True, False]


def test_a_second_call_computes_nothing(finished, capsys):
    run, _ = finished
    before = {path: path.stat().st_mtime_ns for path in run.out.rglob("*.parquet")}
    eabs.main(run, dry_run=True)
    assert "for 0 cells" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in run.out.rglob("*.parquet")} == before


def test_bounds_of_other_code_settings_or_cells_are_computed_again(tmp_path, monkeypatch, capsys):
    run = toys(tmp_path / "run")
    study, computed = (
        run.study("bound/ABS", "ABS", run.load("abs", warm=False), {"ddn": DDN(ThreatModel("l2"), steps=3)}, 2),
        [],
    )
    monkeypatch.setattr(experiments, "_bounds", lambda *args, **settings: computed.append(settings) or {"bound": [1.0]})
    experiments._bounds.fingerprint_key = "one"
    experiments._bound(run, study)
    experiments._bound(run, study)
    assert len(computed) == 1
    assert capsys.readouterr().out == ""
    path = study.folder / "bound.json"
    experiments._bounds.fingerprint_key = "two"  # an edit
    experiments._bound(run, study)
    experiments._bound(replace(run, budget=replace(TINY, bound_steps=5)), study)
    stranger = run.study("other", "ABS", run.load("eabs", warm=False), {"ddn": DDN(ThreatModel("l2"), steps=3)}, 2)
    shutil.copy(path, stranger.folder)
    experiments._bound(run, stranger)
    assert [found["steps"] for found in computed] == [4, 4, 5, 4]
    assert capsys.readouterr().out.count("measured of something else or by other code; measuring again") == 3
    write_sealed(path, {"bound": [2.0]})  # as it was written before: without a key
    experiments._bound(run, study)
    assert list(page._frame(path)["bound"]) == [1.0]


def test_parts_join_and_what_is_missing_is_said(tmp_path):
    run = toys(tmp_path / "run", models=("cnn",), only=("pgd", "ddn-l2"))
    eabs.main(run, ["main"])
    text = (tmp_path / "run" / "tables" / "table-2.2.md").read_text()
    assert (
        "CNN: its worst cases leave out attacks that are not finished: multi-targeted-linf, multi-targeted-l2, deepfool-linf"
        in text
    )
    assert "| DeepFool |" not in text
    eabs.main(replace(run, models=("adv-l2",), only=("deepfool-linf",)), ["main"])
    joined = cells(run, "table-2.2")
    assert joined["Clean"][0].startswith("100.0")
    assert joined["Clean"][1] == "– (98.5)"
    assert not joined["Clean"][2].startswith("–")
    assert "DeepFool" in joined
    with pytest.raises(GenclsError, match="got one of another budget; take another --out"):
        eabs.main(replace(run, budget=TINY.of(3)), ["main"])


def test_only_predicting_computes_nothing(tmp_path, capsys):
    run = toys(tmp_path / "run", models=("cnn",))
    assert eabs.main(run, ["main"], dry_run=True) is None
    assert "predicted:" in capsys.readouterr().out
    assert not run.out.exists()


def test_missing_weights_name_the_command(tmp_path):
    run = toys(tmp_path / "run", without=("adv-l2", "eabs"))
    with pytest.raises(GenclsError, match="(?s)adv-l2-toys, eabs-toys.*gencls train adv-l2-toys .*--models"):
        eabs.main(run, ["main"])
    assert not run.out.exists()


def test_a_folder_of_weights_that_is_not_there(tmp_path):
    with pytest.raises(GenclsError, match="--weights: expected a folder, got .*none, which is none"):
        eabs.main(toys(tmp_path / "run", weights=tmp_path / "none"), ["2.6"])


def test_ablation_leaves_out_what_has_no_weights(tmp_path):
    run = toys(tmp_path / "run", without=("a-abs", "d-abs"))
    eabs.main(run, ["2.6"])
    text = (run.out / "tables" / "table-2.6.md").read_text()
    assert set(cells(run, "table-2.6")) == {"Model", "ABS", "V-ABS", "AD-ABS", "ADV-ABS"}
    assert "a-abs-toys, d-abs-toys" in text


def test_gradient_modes_are_the_ones_asked_for(finished):
    run, _ = finished
    modes = records_of(run.out, "main/eabs").groupby("attack")["gradient"].unique()
    assert {mode for attack, found in modes.items() for mode in found if attack.startswith("unrolled")} == {"unrolled"}
    assert {mode for attack, found in modes.items() for mode in found if not attack.startswith("unrolled")} == {"warm"}
    assert set(records_of(run.out, "smoothed/eabs")["gradient"]) == {"warm"}
    assert set(records_of(run.out, "minimal/eabs")["gradient"]) == {"frozen", "none"}
    assert set(records_of(run.out, "black-box/eabs")["gradient"]) == {"none"}
    assert run.study("x", "E-ABS", run.load("eabs"), {"pgd": PGD(ThreatModel("l2", 1.0))}, 2).cells()[0].mode == "warm"


def test_extension_v_makes_the_difference_in_the_ablation(finished):
    run, _ = finished
    drawn = {name: records_of(run.out, f"ablation/{name}")["draws"].max() for name in ABLATION}
    assert {name for name, draws in drawn.items() if draws > 1} == {name for name in drawn if "V" in name}


def test_means_of_the_ablation_lie_in_their_intervals(finished):
    run, _ = finished
    closest = closest_distances(records_of(run.out, "ablation/ABS").query("norm == 'l2'"))
    mean, low, high = map(float, re.match(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", cells(run, "table-2.6")["ABS"][2]).groups())
    assert mean == pytest.approx(closest[np.isfinite(closest)].mean(), rel=0.01)
    assert closest.min() <= low <= mean <= high <= closest[np.isfinite(closest)].max() * 1.01


def test_bounds_stand_beside_attacked_distances(finished):
    run, _ = finished
    found = cells(run, "bounds")
    assert set(found) == {"Model", "ABS", "E-ABS, point inference"}
    assert found["ABS"][0] == "4"


def test_it_runs_as_a_module_from_anywhere(tmp_path):
    words = ["--models", "cnn", "--tables", "examples", "--n", "1", "--dry-run", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "recipes.eabs", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "examples/cnn" in done.stdout


def test_missing_data_are_an_error_in_words(tmp_path):
    words = ["--profile", "svhn", "--data-root", str(tmp_path)]
    with pytest.raises(GenclsError, match="(?i)svhn"):
        eabs.plan(eabs.parser().parse_args(words), "command")


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_names_networks_that_can_be_trained(profile):
    from gencls.zoo.training.presets import PRESETS

    for kind in (*printed.MODELS, *(kind for kind, _ in ABLATION.values())):
        assert PROFILES[profile].network(kind) in PRESETS
    assert PROFILES[profile].data in zoo.data_names()
