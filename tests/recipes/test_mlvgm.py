"""The recipe of MLVGM purification: its formulas, its settings beside the paper's, and the whole of it with little."""

import shutil
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from gencls import zoo
from gencls.core import GenclsError, MultiLatentModel
from gencls.defenses import AVAEPurification
from gencls.defenses.purification.mlvgm import PAPER_TASKS
from gencls.eval import Diagnosis, mlvgm_attacks
from gencls.eval.doctor.diagnosis import Check
from recipes.harness import diagnoses, folders
from recipes.harness.records import slug
from recipes.mlvgm import analyses, experiments, tables
from recipes.mlvgm.__main__ import recipe as mlvgm
from recipes.mlvgm.runs import ALPHAS, Run
from recipes.mlvgm.settings import BUDGETS, PROFILES, Budget
from tests.toys import Pyramid

LITTLE = Budget(
    count=2,
    eot=2,
    judge=4,
    judge_most=4,
    deepfool=2,
    cw_restarts=1,
    cw_steps=2,
    cw_rate=12.0,
    autoattack=2,
    queries=4,
    sizes=4,
    smoothed=2,
    smoothing=(0.1,),
    learned_on=4,
    drawn=64,
    search=1,
    samples=2,
    random=3,
    random_images=4,
    random_samples=2,
    clean=6,
    doctor=0.0,
)


class Bits(MultiLatentModel):
    """Three levels, each one channel of the image; samples are ones."""

    num_levels = 3

    def encode_once(self, images):
        return (images,)

    def decode_mixed(self, encoded, mix):
        (images,) = encoded
        return torch.cat([mix(i, images[:, i : i + 1], torch.ones_like(images[:, :1])) for i in range(3)], dim=1)


@dataclass(frozen=True, kw_only=True)
class Toys(Run):
    """A run with that generator in place of the profile's."""

    @cached_property
    def generator(self):
        return Pyramid().eval()


# --- formulas


def test_monotonicity_is_eq_6_and_with_the_factor_spearmans():
    alphas = torch.rand(20, 9, dtype=torch.float64).tolist()
    for row in alphas:
        assert analyses.monotonicity(row, printed=False) == pytest.approx(spearmanr(range(9), row).statistic, abs=1e-12)
    tied = [0.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    assert analyses.monotonicity(tied, printed=False) == pytest.approx(spearmanr(range(6), tied).statistic)
    # By hand: N = 4, ranks 0 2 1 3, squares 0 + 1 + 1 + 0, 4 * 15 = 60.
    assert analyses.monotonicity([0.1, 0.5, 0.4, 0.9]) == pytest.approx(1 - 2 / 60)
    assert analyses.monotonicity([0.1, 0.2, 0.3]) == 1.0
    # Falling, N = 3: squares 4 + 0 + 4 of 24; the coefficient itself is -1.
    assert analyses.monotonicity([0.3, 0.2, 0.1]) == pytest.approx(1 - 8 / 24)
    assert analyses.monotonicity([0.3, 0.2, 0.1], printed=False) == pytest.approx(-1.0)


def test_class_levels_are_those_that_supplement_b_names():
    assert analyses.class_levels(PAPER_TASKS["gender"].learned) == (2, 5, 6)
    assert analyses.class_levels(PAPER_TASKS["cars"].learned) == (1, 2, 4, 5, 9, 13)
    assert analyses.class_levels((0.5, 0.2, 0.6, 0.9, 0.3, 0.7)) == (1, 4)  # none is low: the third with the lowest


def test_class_codes_stay_and_details_are_those_of_the_other_image():
    first, second = torch.rand(2, 2, 3, 4, 4).unbind()
    one, other = analyses.mixed_codes(Bits(), first, second, levels=[1])
    torch.testing.assert_close(one, torch.stack([second[:, 0], first[:, 1], second[:, 2]], dim=1))
    torch.testing.assert_close(other, torch.stack([first[:, 0], second[:, 1], first[:, 2]], dim=1))


def test_replaced_codes_change_one_level_each():
    images = 0.5 * torch.rand(2, 3, 4, 4)
    coded, *replaced = analyses.replaced_codes(Bits(), images)
    torch.testing.assert_close(coded, images)
    for level, found in enumerate(replaced):
        changed = (found != images).flatten(2).any(dim=2)
        assert changed.tolist() == [[i == level for i in range(3)]] * 2


# --- settings


def test_paper_budget_is_the_papers():
    """Section 4 and tables 2 and 3 of the supplement; FACTS of the public code."""
    budget = BUDGETS["paper"]
    assert (budget.count, budget.eot, budget.learned_on, budget.search, budget.random) == (100, 32, 1024, 95, 512)
    published = mlvgm_attacks("identities")["cw"]
    assert (budget.cw_restarts, budget.cw_steps, budget.cw_rate) == (published.restarts, published.steps, 1.0)
    assert PROFILES["fashion"].rate == published.learning_rate
    assert PROFILES["fashion"].confidence == published.confidence
    # 64 pixels there, of which the code makes 2^(6 - 5) = 2.
    assert replace(PROFILES["fashion"], resolution=64).start_norm == published.start_norm


@pytest.mark.parametrize("task", ["gender", "identities", "cars"])
def test_the_papers_tasks_meet_the_papers_attacks(run, task):
    many = replace(run.data, class_names=("",) * 100)
    whole = replace(run, profile=PROFILES[f"paper-{task}"], budget=BUDGETS["paper"], data=many)
    found = experiments.attacks(whole, run.defense("no defense"))
    assert {name: found[name] for name in ("deepfool", "cw")} == mlvgm_attacks(task)


def test_autoattack_keeps_the_largest_sizes():
    profile = replace(PROFILES["fashion"], sizes=(1.0, 2.0, 3.0, 4.0, 5.0))
    assert replace(LITTLE, sizes=2).attacked(profile) == (1.0, 3.0, 5.0)
    assert replace(LITTLE, sizes=4).attacked(profile) == (1.0, 5.0)
    assert replace(LITTLE, sizes=1).attacked(profile) == profile.sizes


def test_the_tables_of_attacks_print_the_supplement():
    for k, task in enumerate(("gender", "identities", "cars")):
        attacks = mlvgm_attacks(task)
        printed = {name: values[k] for name, values in tables._PRINTED_ATTACKS.items()}
        assert printed["DeepFool: steps"] == attacks["deepfool"].steps
        assert printed["DeepFool: classes"] == attacks["deepfool"].candidates
        assert printed["DeepFool: overshoot"] == attacks["deepfool"].overshoot
        assert printed["C&W: first constant"] == attacks["cw"].regularisation
        assert printed["C&W: learning rate"] == attacks["cw"].learning_rate


# --- the whole


@pytest.fixture(scope="module")
def run(shared_folder):
    data = zoo.load_data("mnist-embedded", "test", limit=60)
    return Toys(profile=PROFILES["smoke"], budget=LITTLE, out=shared_folder / "mlvgm", data=data, command="as told")


PARTS = tuple(part for part in experiments.PARTS if part != "smoothed")


@pytest.fixture(scope="module")
def page(run):
    return mlvgm.main(run, PARTS)


@pytest.mark.slow
def test_smoothed_gradients_have_a_part_of_their_own(run, page):
    smoothed = replace(run, out=run.out.parent / "smoothed")
    shutil.copytree(run.out, smoothed.out)
    mlvgm.main(smoothed, ["smoothed"])
    assert len(experiments.records(smoothed, "linear", smoothed=True))
    assert "not finished" not in (smoothed.out / "report.html").read_text()


def test_every_figure_and_table_is_written(run, page):
    figures = {path.stem for path in (run.out / "figures").glob("*.png")}
    numbers = ("1c", "3a", "3b", "3c", "6", "9", "11", "14")
    assert figures == {f"figure-{number}" for number in numbers}
    assert {path.stem for path in (run.out / "tables").glob("*.md")} == {
        "alphas",
        "success-alphas",
        "success-preprocessing",
        "success-comparison",
        "table-1",
        "table-2-3",
    }
    text = page.read_text()
    assert "as told" in text
    assert "not finished" not in text


@pytest.mark.slow  # in the fast tests this generator purifies, and the page is that of toys
def test_the_profiles_own_generator(run, tmp_path):
    whole = Run(profile=run.profile, budget=LITTLE, out=tmp_path / "run", data=run.data, command="as told")
    text = mlvgm.main(whole, PARTS).read_text()
    assert "not finished" not in text
    assert (whole.out / "figures" / "figure-14.png").is_file()


@pytest.mark.slow  # the recipe of variational smoothing is called twice in the fast tests
def test_a_second_call_computes_nothing(run, page, monkeypatch):
    before = page.read_bytes()
    monkeypatch.setattr("gencls.eval.study.study.Study._compute", lambda *args: pytest.fail("computes again"))
    for module in (analyses, folders):  # what measures is itself part of the key
        monkeypatch.setattr(module, "write_sealed", lambda *args: pytest.fail("measures"))
    assert mlvgm.main(run, PARTS).read_bytes() == before


def test_the_best_configuration_has_the_lowest_success_rate(run, page, monkeypatch):
    assert experiments.chosen(run) in experiments.configurations(run, experiments.best(run, ALPHAS))
    distances = {"learned": [0.5, 0.5], "linear": [0.5, 1.5], "cosine": [0.0, 9.0]}

    def found(run, name):
        return pd.DataFrame({"name": [name]})

    poor = set()
    monkeypatch.setattr(experiments, "records", found)
    monkeypatch.setattr(experiments, "_keeps", lambda run, name: name not in poor)
    monkeypatch.setattr(experiments, "closest_distances", lambda rows: distances[rows["name"][0]])
    # Mean success over sizes up to 2: 3/4, 1/2, and 1/2 from the clean error on.
    assert experiments.best(run, ("learned", "linear")) == "linear"
    distances["cosine"] = [9.0, 9.0]
    assert experiments.best(run, ALPHAS) == "cosine"
    poor |= {"cosine"}
    assert experiments.best(run, ALPHAS) == "linear"
    poor |= set(ALPHAS)
    assert experiments.best(run, ALPHAS) == "cosine"


def test_the_least_clean_accuracy_is_that_of_the_profile(run, page, monkeypatch):
    kept = folders.Kept(run.out / "none", str, lambda: {})
    monkeypatch.setattr(analyses, "clean_accuracy", lambda run, name: kept)
    monkeypatch.setattr(folders.Kept, "get", lambda kept: {"mean": 0.84})
    assert not experiments._keeps(run, "linear")
    assert experiments._keeps(replace(run, profile=replace(run.profile, least_clean=0.84)), "linear")


def test_the_doctors_findings_are_kept_and_shown(run, page, monkeypatch):
    verdict = Diagnosis((Check("scores", "ok", "fine"), Check("gradients", "fail", "all are zero")))
    monkeypatch.setattr(diagnoses, "diagnose", lambda defense, images, labels, **settings: verdict)
    patient = replace(run, budget=replace(LITTLE, doctor=1.0))
    assert tables.doctor_table(patient) is None
    mlvgm.run_parts(patient, ["doctor"])
    monkeypatch.setattr(diagnoses, "diagnose", lambda *args, **settings: pytest.fail("examines again"))
    mlvgm.run_parts(patient, ["doctor"])
    table = tables.doctor_table(patient)
    assert [row.head for row in table.rows] == list(experiments.every(patient))
    assert [cell.ours for cell in table.rows[0].cells] == ["no", "2", "gradients: all are zero"]
    monkeypatch.setattr(diagnoses, "diagnose", lambda *args, **settings: Diagnosis((Check("scores", "ok", "fine"),)))
    others = replace(patient, data=replace(run.data, images=1 - run.data.images))
    assert experiments.diagnoses(others, ["no defense"])["no defense"].get()[
        "passed"
    ]  # of other images, though the file has the same name
    for path in (run.out / "doctor").iterdir():
        path.unlink()


def test_clean_accuracy_of_other_images_or_another_seed_is_measured_again(run, page, monkeypatch):
    usual = analyses.clean_accuracy(run, "no defense")
    kept = usual.get()
    others = analyses.clean_accuracy(replace(run, data=replace(run.data, labels=(run.data.labels + 1) % 10)), "no defense")
    assert others.path == usual.path
    assert others.get()["mean"] < kept["mean"]
    assert usual.get() == kept
    seen = []
    monkeypatch.setattr(folders, "write_sealed", lambda path, content: seen.append(content["key"]))
    analyses.clean_accuracy(replace(run, seed=1), "no defense").get()
    assert len(seen) == 1


def test_random_alphas_that_are_drawn_otherwise_are_not_mixed(run, page, monkeypatch):
    drawn = analyses._random(run)
    monkeypatch.setattr(analyses, "_random", lambda run: drawn.flip(0))
    with pytest.raises(GenclsError, match="expected accuracies of this generator"):
        analyses.measure_random_alphas(run)


def test_alphas_are_chosen_once(run, page):
    path = run.out / "learned.json"
    before = path.stat().st_mtime_ns
    analyses.learn(replace(run))
    assert path.stat().st_mtime_ns == before


def test_published_alphas_are_the_codes(tmp_path, run):
    task = replace(run, profile=PROFILES["paper-cars"], out=tmp_path)
    assert task.learned == PAPER_TASKS["cars"].learned
    assert replace(task, as_="paper").learned is None
    lengths = [which._noise(alphas).length for which in (task, replace(task, as_="paper")) for alphas in ("linear", "learned")]
    assert lengths == [2.0, 4.0, 4.0, 4.0]


def test_success_rates_in_the_table_are_those_of_the_records(run, page):
    records = experiments.records(run, "no defense")
    broken = records.assign(
        broken=~records["clean_majority_correct"]
        | (records["valid"] & ~records["majority_correct"] & (records["distance"] <= 2 + 1e-6))
    )
    rate = broken.groupby("sample_hash")["broken"].any().mean()
    table = tables.success_table(run, "t", "", ("no defense",))
    assert table.rows[0].cells[1 + run.profile.sizes.index(2.0)].ours.startswith(f"{100 * rate:.0f} [")


def test_as_paper_and_as_code_differ_where_they_should(run):
    other = replace(run, as_="paper")
    assert (run.purification("linear").limit, other.purification("linear").limit) == ("scale", "clip")
    draws = [each.defense("A-VAE").transform for each in (run, other)]
    assert all(isinstance(transform, AVAEPurification) for transform in draws)
    assert [(transform.realisations, transform.temperature) for transform in draws] == [(1, 0.6), (128, 1.0)]


# --- errors


def test_missing_weights_name_the_commands(run):
    lost = replace(run, profile=replace(run.profile, generator="nvae-large-fashion", baselines={"TRADES": "trades-svhn"}))
    with pytest.raises(GenclsError, match=r"weights of nvae-large-fashion, trades-svhn, got no such.*\n.*train nvae-large-f"):
        lost.require()


def test_generators_that_do_not_fit_are_refused(run, tmp_path):
    for task, name, said in (
        ("smoke", "nvae-faces", r"nvae-faces: expected a training for images \(1, 28, 28\)"),
        ("paper-gender", "nvae-mnist", "expected none for the paper's own tasks"),
    ):
        with pytest.raises(GenclsError, match=said):
            mlvgm.main(replace(run, profile=replace(PROFILES[task], generator=name), out=tmp_path / task))
        assert not (tmp_path / task).exists()


def test_an_unknown_classifier_is_named(run):
    with pytest.raises(GenclsError, match="unknown training 'cnn-mnits'; did you mean 'cnn-mnist'. expected one of cnn-mnist"):
        replace(run, profile=replace(run.profile, classifier="cnn-mnits")).require()


def test_another_run_does_not_take_the_folder(run, page):
    for parts in (experiments.PARTS, ()):
        with pytest.raises(GenclsError, match="got one of another seed"):
            mlvgm.main(replace(run, seed=1), parts)


def test_parts_say_what_they_need(run, tmp_path):
    empty = replace(run, out=tmp_path)
    with pytest.raises(GenclsError, match="finished attacks on all alphas before preprocessing"):
        mlvgm.run_parts(empty, ["preprocessing"])
    with pytest.raises(GenclsError, match="expected learned alphas, got none yet"):
        mlvgm.run_parts(empty, ["alphas"])


def test_random_alphas_of_other_weights_are_not_mixed(run, page):
    changed = replace(run, profile=replace(run.profile, highest=0.5))
    with pytest.raises(GenclsError, match="expected accuracies of this generator"):
        analyses.measure_random_alphas(changed)


def test_slugs():
    assert [slug(name) for name in ("learned + noise", "no defense", "A-VAE")] == ["learned-noise", "no-defense", "a-vae"]


@pytest.mark.parametrize("name", ["nvae-mnist", "stylegan2-fashion"])
def test_generators_of_every_kind_purify(name, run):
    profile = replace(PROFILES["smoke"], generator=name)
    purification = Run(profile=profile, budget=LITTLE, out=run.out, data=run.data).purification("cosine")
    images = run.data.images[:2]
    assert purification(images).shape == images.shape


def test_command_lines_make_runs(tmp_path):
    words = ["--classifier", "cnn-gaussian-mnist", "--n", "3", "--as", "paper", "--out", str(tmp_path)]
    run = mlvgm.plan(mlvgm.parser().parse_args(words), "as told")
    assert (run.profile.classifier, run.budget.count, run.as_) == ("cnn-gaussian-mnist", 3, "paper")
    assert run.out == tmp_path / "smoke-smoke-paper-cnn-gaussian-mnist"
    digits = run.data.images[:3]
    assert torch.equal(run.defense("no defense")(digits), zoo.load("cnn-gaussian-mnist")(digits))
    with pytest.raises(GenclsError, match="device: expected one of this machine"):
        mlvgm.plan(mlvgm.parser().parse_args(["--device", "abacus"]), "")
    with pytest.raises(SystemExit):
        mlvgm.parser().parse_args(["--profile", "unknown"])


def test_published_checkpoints_are_asked_for_by_name(tmp_path, run):
    task = replace(run, profile=PROFILES["paper-gender"], weights=tmp_path)
    with pytest.raises(GenclsError, match=r"published checkpoint of e4e at .*gender\.pt, got no such file"):
        task.require()
