"""The recipe of GAN inversion: the whole of it with little, its resumption, and its command line."""

import json
import shutil
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gencls import zoo
from gencls.core import GenclsError, ImageDistance
from gencls.core.files import write_sealed
from recipes.gan_inversion import (
    attack_tables,
    domain_tables,
    experiments,
    interpolation,
    inversions,
    selection,
    tables,
    timing,
)
from recipes.gan_inversion.__main__ import recipe
from recipes.gan_inversion.inversions import Inversion
from recipes.gan_inversion.robustness import BLACK_BOX, OURS, trials
from recipes.gan_inversion.runs import Run
from recipes.gan_inversion.settings import BUDGETS, METHODS, PROFILES
from recipes.harness.records import records_of
from tests.toys import LinearBlocks

LITTLE = replace(
    BUDGETS["smoke"],
    count=6,
    together=4,
    steps=2,
    sweep=(1, 2),
    large_sweep=(1, 2),
    compared=2,
    shown=2,
    shown_steps=(1, 2),
    real=60,
    selected=4,
    tried_methods=("enc-d", "enc"),
    tried_steps=(1, 2),
    timed=2,
    attacked=2,
    black_box=2,
    unrolled=2,
    pgd=2,
    unrolled_steps=1,
    queries=2,
    boundary=4,
    eot=1,
    judge=1,
    judge_most=1,
)


class Coarse(ImageDistance):
    """Squared L2 of means over squares."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def embed(self, images):
        return (nn.functional.avg_pool2d(images, self.size),)

    def compare(self, first, second):
        return (first[0] - second[0]).square().flatten(-3).sum(-1)


@dataclass(frozen=True, kw_only=True)
class Toys(Run):
    """A run with small linear networks in place of the generator, the encoders and the distances."""

    def require(self, parts=()):
        pass

    def network(self, name):
        if name not in self._networks:
            if name.startswith("cgan"):
                self._networks[name] = LinearBlocks(10, (1, 28, 28), 4).eval().requires_grad_(False)
            elif name.startswith("enc"):
                torch.manual_seed(len(name))
                self._networks[name] = nn.Sequential(nn.Flatten(), nn.Linear(784, 4)).eval().requires_grad_(False)
        return super().network(name)

    def percept(self, distance):
        return None if distance == "pixels" else Coarse({"corruptions": 4, "linf": 7}.get(distance, 2))

    @property
    def compared(self):
        return self.distances


@pytest.fixture(scope="module")
def run(shared_folder):
    data = zoo.load_data("mnist-embedded", "test", limit=20)
    profile = replace(PROFILES["smoke"], beside={"CNN": "cnn-mnist"})
    return Toys(profile=profile, budget=LITTLE, out=shared_folder / "gan-inversion", data=data, command="as told")


PARTS = tuple(part for part in PROFILES["smoke"].tables if part not in ("attacks", "doctor"))


@pytest.fixture(scope="module")
def page(run):
    return recipe.main(run, PARTS)


def test_every_table_and_figure_is_written(run, page):
    written = {path.stem for path in (run.out / "tables").glob("*.md")}
    tables = {f"table-{number}" for number in ("3.1", "3.2", "3.3", "3.4", "3.5", "3.6")}
    assert written == {*tables, "claims", "elimination", "selection"}
    numbers = ["3.5", "3.5-out-of-domain", "3.6a", "3.6b", *(f"3.7{letter}" for letter in "abcdef")]
    numbers += ["3.8", "3.9", "3.10", "3.12"]
    assert {path.stem for path in (run.out / "figures").glob("*.png")} == {*(f"figure-{number}" for number in numbers), "steps"}
    text = page.read_text()
    assert "ot finished" not in text
    assert "(67.98)" in text


def test_a_second_call_computes_nothing(run, page, monkeypatch):
    again = []
    monkeypatch.setattr(inversions, "write", lambda *args: again.append(args))
    monkeypatch.setattr("recipes.harness.folders.write_sealed", lambda *args: again.append(args))
    recipe.run_parts(run, PARTS)
    assert again == []


def test_a_killed_run_goes_on(run, page, tmp_path, monkeypatch):
    killed = replace(run, out=tmp_path / "killed", methods=("direct+",), chosen=("plain",))
    write, made = inversions.write, []

    def once(*args):
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(args)
        write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(inversions, "write", once)
        with pytest.raises(KeyboardInterrupt):
            recipe.main(killed, ["3.1"])
    made.clear()
    with monkeypatch.context() as patch:
        patch.setattr(inversions, "write", lambda *args: made.append(args) or write(*args))
        recipe.run_parts(killed, ["3.1"])
    assert len(made) == 5  # two parts of each of three settings, one of which was made
    for inversion in experiments.main_settings(killed, "plain"):
        torch.testing.assert_close(killed.finished(inversion).losses, run.finished(inversion).losses)


def test_other_weights_are_inverted_again(run, page, tmp_path):
    inversion = Inversion(method="enc", weight=1.0, distance="plain", steps=1)
    one = replace(run, out=tmp_path, budget=replace(LITTLE, count=2))
    (job,) = experiments.inversions_of(one, [inversion])
    job.compute(job.left())
    (job,) = experiments.inversions_of(one, [inversion])
    assert not job.left()
    assert one.found(inversion) is not None
    with torch.no_grad():
        one.encoder("enc")[1].weight.mul_(1.01)
    (job,) = experiments.inversions_of(one, [inversion])
    assert job.left().keys() == {"0"}
    one._networks_of.clear()
    assert one.found(inversion) is None


def test_an_inversion_is_the_classifiers_own(run, page):
    """Losses, distances and codes of a record fit each other and the classifier."""
    inversion = Inversion(method="enc-d+", weight=10.0, distance="corruptions", steps=2)
    found, classifier = run.finished(inversion), run.classifier(inversion)
    images = run.images(6)
    torch.testing.assert_close(found.losses, -classifier(images), rtol=1e-4, atol=1e-4)
    made = inversions.decode(classifier, found.codes())
    torch.testing.assert_close(found.pixel, (made - images[:, None]).square().flatten(2).sum(2), rtol=1e-4, atol=1e-4)
    shared, *offsets = found.codes()
    penalty = (shared - run.encoder("enc-d")(images)[:, None]).square().sum(2)
    penalty = penalty + sum(own.square().sum(2) for own in offsets)
    torch.testing.assert_close(found.losses, found.pixel + found.percept + 10 * penalty, rtol=1e-4, atol=1e-4)


def test_d_is_the_pixels_and_the_perceptual_distance_that_are_kept(run, page):
    """So the perceptual share of Table 3.5 is that of what was minimised."""
    inversion = Inversion(method="enc-d", weight=10.0, distance="corruptions", steps=2, percept_weight=10.0)
    found, images = run.finished(inversion), run.images(6)
    made = found.in_domain(inversions.decode(run.classifier(inversion), found.codes()))
    d = run.distance(inversion)(images, made)
    torch.testing.assert_close(d, found.in_domain(found.pixel + 10 * found.percept), rtol=1e-4, atol=1e-4)
    expected = 100 * (1 - found.in_domain(found.pixel) / d)
    torch.testing.assert_close(tables.perceptual_share(inversion, found), expected, rtol=1e-3, atol=1e-3)


def test_two_runs_of_direct_differ_in_their_starts(run, page):
    first, second = (
        Inversion(method="direct", weight=1.0, distance="plain", steps=LITTLE.steps, again=again) for again in (0, 1)
    )
    assert not torch.equal(run.finished(first).codes()[0], run.finished(second).codes()[0])


def test_measurements_of_former_inversions_are_not_shown(run, page, tmp_path):
    again = replace(run, out=tmp_path / "again")
    shutil.copytree(run.out, again.out)
    kept, lines = again.out / "kid", again.out / "lines"
    former = experiments.main_settings(again, "plain")[0]
    assert former in domain_tables._known(again)
    assert domain_tables.peaks(again).keys() == {"plain", "corruptions"}
    for path in (kept / f"{former.slug}.json", kept / "inputs.json", lines / "plain.json"):
        write_sealed(path, {"key": "another"})
    assert domain_tables._known(again).keys() == set(experiments.main_settings(again, "plain")[1:])
    assert domain_tables.domain_table(again).rows[0].head != "the images themselves"
    assert domain_tables.peaks(again).keys() == {"corruptions"}
    assert domain_tables.interpolation_table(again).rows[0].head == "Inference with Robust-Corruptions"
    shutil.rmtree(again.out / "inversions" / interpolation.endpoints(again, "corruptions")[1].slug)
    assert domain_tables.interpolation_table(again) is None


# --- the best setting


def test_images_that_choose_are_in_no_table(run):
    data = selection.validation(run)
    assert len(data) == len(data.images) == len(data.labels) == LITTLE.selected
    assert not set(data.indices.tolist()) & set(run.data.indices.tolist())
    greedy = replace(run, budget=replace(LITTLE, selected=981))  # of 1,000, and the tables have 20
    with pytest.raises(GenclsError, match="expected at least 1,001 images, 20 for the tables and 981 others .* got 1,000"):
        selection.validation(greedy)
    assert len(selection.validation(replace(run, budget=replace(LITTLE, selected=980)))) == 980


@pytest.fixture(scope="module")
def decided(run):
    recipe.run_parts(run, ["selection"])
    return run


def test_the_best_setting_has_the_most_right_validation_images(decided):
    run, data, rights = decided, selection.validation(decided), {}
    for one in selection.candidates(run):
        rights[one] = int((run.classifier(one)(data.images).argmax(1) == data.labels).sum())
    assert len(rights) == 8
    assert rights[selection.best(run)] == max(rights.values())
    robust = selection.best(run, "corruptions")
    assert rights[robust] == max(right for one, right in rights.items() if one.distance == "corruptions")
    assert all(run.finished(one) for one in selection.finalists(run))
    table = selection.selection_table(run)
    tested = {row.head for row in table.rows if "[" in row.cells[1].ours}
    assert tested == {selection.described(one) for one in selection.finalists(run)}
    assert f"most right validation images: {selection.described(selection.best(run))}." in table.notes[1]


def test_equal_candidates_take_the_fewest_steps_then_the_order(run, monkeypatch):
    def choose(right):
        found = {one: SimpleNamespace(right=torch.arange(9) < right(one)) for one in selection.candidates(run)}
        monkeypatch.setattr(selection, "_found", lambda run, one: found[one])
        best = selection.best(run)
        return best.method, best.distance, best.steps

    assert choose(lambda one: 5) == ("enc-d", "corruptions", 1)
    assert choose(lambda one: 5 + (one.distance == "plain")) == ("enc-d", "plain", 1)
    assert choose(lambda one: 5 + (one.steps == 2) + (one.method == "enc")) == ("enc", "corruptions", 2)


def test_the_attacked_setting_is_the_best_of_few_steps(run, monkeypatch):
    few = replace(run, budget=replace(run.budget, attacked_steps=1))
    right = {1: 5, 2: 9}
    monkeypatch.setattr(selection, "_found", lambda run, one: SimpleNamespace(right=torch.arange(9) < right[one.steps]))
    assert selection.best(few).steps == 2
    assert selection.attacked(few).steps == 1
    assert [one.steps for one in selection.finalists(few)] == [2, 1]
    right.pop(2)  # the candidates of two steps are not finished
    monkeypatch.setattr(
        selection, "_found", lambda run, one: SimpleNamespace(right=torch.arange(9) < 5) if one.steps in right else None
    )
    said = attack_tables._setting(few)
    assert selection.described(selection.attacked(few)) in said
    assert said.endswith("candidates of more steps are not finished.")


def test_every_budget_has_a_setting_that_can_be_attacked():
    assert all(min(budget.tried_steps) <= budget.attacked_steps for budget in BUDGETS.values())


def test_the_best_setting_needs_all_candidates(run, tmp_path):
    new = replace(run, out=tmp_path)
    with pytest.raises(GenclsError, match="all 8 candidates for the best setting, got 0; run the part 'selection' first"):
        selection.best(new)
    assert selection.best(replace(new, foreseen=True)).steps == 2


@pytest.mark.parametrize("chosen", [{"methods": ("direct", "direct+")}, {"chosen": ("plain",)}, {"chosen": ("lpips",)}])
def test_candidates_do_not_depend_on_the_users_choice(run, tmp_path, chosen):
    other = replace(run, out=tmp_path, **chosen)
    assert selection.candidates(other) == selection.candidates(run)
    assert other.encoded(["attacks"]) == ("enc", "enc-d")
    assert {one.distance for one in timing.eliminated(other)} <= {*other.main}
    assert selection.selection_table(other) is None


def test_the_images_of_the_paper_budget_are_enough():
    """FashionMNIST and CIFAR10 have 10,000 test images, for the tables and for the choice."""
    assert BUDGETS["paper"].count + BUDGETS["paper"].selected <= 10_000


def test_the_robustness_table_says_what_few_steps_cost(run, monkeypatch):
    few, right = replace(run, budget=replace(run.budget, attacked_steps=1, selected=9)), {1: 5, 2: 9}
    monkeypatch.setattr(selection, "_found", lambda run, one: SimpleNamespace(right=torch.arange(9) < right[one.steps]))
    assert "It has 5 of the 9 images that choose right, and the best of all settings, Enc-D" in attack_tables._setting(few)
    assert attack_tables._setting(few).endswith("2 steps, Robust-Corruptions, has 9.")
    assert "none of more steps is better" in attack_tables._setting(run)


@pytest.mark.slow
def test_the_best_setting_meets_every_gradient_mode(run, page, tmp_path):
    run = replace(run, out=tmp_path / "attacked")
    shutil.copytree(page.parent, run.out)
    recipe.main(run, ["attacks"])
    table = (run.out / "tables" / "robustness.md").read_text()
    assert "ot finished" not in table
    assert all(name in table for name in ("PGD, warm inference", "PGD, frozen gradient", "unrolled", "Boundary", "Transfer"))
    modes = {trial.mode: set(records_of(run.out, trial.folder)["gradient"]) for trial in trials(run) if trial.model == OURS}
    assert modes == {"warm": {"warm"}, "frozen": {"frozen"}, "unrolled": {"unrolled"}, BLACK_BOX: {"none"}}
    attacks = set(records_of(run.out, f"attacks/{BLACK_BOX}/{OURS}")["attack"])
    assert attacks == {"square-linf", "square-l2", "transfer-linf", "transfer-l2", "boundary-l2"}


def test_the_folder_belongs_to_its_generator(run, page):
    other = replace(run, seed=1)
    with pytest.raises(GenclsError, match="one of another seed"):
        recipe.main(other, [])
    assert json.loads((run.out / "run.json").read_text())["weights"]


# --- settings


def test_command_lines_make_runs(tmp_path):
    words = ["--n", "3", "--out", str(tmp_path), "--methods", "enc", "--distances", "plain"]
    planned = recipe.plan(recipe.parser().parse_args(words), "as told")
    assert (planned.budget.count, planned.budget.shown, planned.budget.attacked) == (3, 3, 2)
    assert planned.out == tmp_path / "smoke-smoke"
    assert planned.inverted == ("enc",)
    assert [one.head for one in experiments.main_settings(planned, "plain")] == ["Enc, λ = 0.1", "Enc, λ = 1", "Enc, λ = 10"]
    assert planned.encoded(["3.1"]) == ("enc",)
    assert planned.encoded(["3.1", "3.2"]) == planned.encoded(["selection"]) == ("enc", "enc-d")
    with pytest.raises(GenclsError, match="--parts: expected some of selection, 3.1, .*, got 3.7"):
        recipe.plan(recipe.parser().parse_args([*words, "--parts", "3.7"]), "")
    fewer = replace(planned, profile=replace(planned.profile, options=()), chosen=("lpips",))
    with pytest.raises(GenclsError, match="--distances: expected some of plain, linf, corruptions, contrastive, got lpips"):
        fewer.check(None)


def test_missing_weights_name_the_commands(run, tmp_path):
    profile = replace(PROFILES["smoke"], encoders={"enc": "enc-cifar10", "enc-d": "enc-d-cifar10"})
    lacking = Run(profile=profile, budget=LITTLE, out=tmp_path / "new", data=run.data)
    with pytest.raises(GenclsError, match="gencls train enc-cifar10"):
        recipe.main(lacking)
    assert not (tmp_path / "new").exists()


def test_methods_have_the_names_of_the_thesis():
    assert tuple(METHODS.values()) == ("Direct", "Enc", "Enc-D", "Direct+", "Enc+", "Enc-D+")
