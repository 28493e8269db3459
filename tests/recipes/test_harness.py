"""The harness of the recipes: a new paper needs settings, experiments, tables, and says the rest in a few lines."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from gencls.core import GenclsError
from gencls.defenses import PlainClassifier
from gencls.eval import GaussianNoiseAttack, ThreatModel
from gencls.eval.report.paper.page import Cell, PaperTable, Row, Section
from recipes.harness import records, run, settings
from recipes.harness.folders import Kept
from recipes.harness.jobs import Job, Measurement, compute
from recipes.harness.recipe import Recipe
from recipes.harness.records import records_of, right_under, share
from recipes.harness.settings import at, flag

# --- a paper


@dataclass(frozen=True, kw_only=True)
class Profile(settings.Profile):
    size: float
    kind: str = flag("--kind", mark=True, help="of noise")


@dataclass(frozen=True, kw_only=True)
class Budget(settings.Budget):
    count: int = at(8, reduced=5, smoke=3)
    eot: int = at(2)
    judge: int = at(2)
    judge_most: int = at(4)
    curve: int = at(6, smoke=4)
    tries: int = at(3, reduced=2, smoke=1)
    names: dict = at({}, smoke={"a": 1})

    capped = ("curve",)

    @property
    def spent(self):
        return f"{self.tries} tries"


@dataclass(frozen=True, kw_only=True)
class Run(run.Run[Profile, Budget]):
    models: Sequence[str] = flag("--models", default=(), nargs="+", action="extend")
    word: str = flag("--as", default="code", mark=True, choices=("paper", "code"))

    def check(self, parts):
        if self.models and parts == ["words"]:
            raise GenclsError("--models: expected with noise")

    def require(self, parts=()):
        if "noise" in parts and "lost" in self.models:
            raise GenclsError("expected weights, got none")

    def load(self):
        torch.manual_seed(0)
        return PlainClassifier(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), 10).eval()


def noise(run):
    attacks = {"noise": GaussianNoiseAttack(ThreatModel("linf", run.profile.size), tries=run.budget.tries)}
    yield run.job("noise/linear", "linear", run.load, attacks, run.budget.count)


def words(run):
    yield Measurement("words", lambda: 0.0 if (run.out / "words").is_file() else 2.0, partial(write, run))


def write(run):
    (run.out / "words").write_text("measured")
    return "written"


def sections(run):
    records = records_of(run.out, "noise/linear")
    if len(records):
        row = Row("linear", (Cell(share(right_under(records)), "99"),))
        yield Section("Noise", tables=[PaperTable("table-1", "Table 1", ("", "accuracy"), (row,), ("N & more.",))])


PROFILES = {
    "smoke": Profile(data="mnist-embedded", size=0.1, kind="plain"),
    "large": Profile(data="mnist-embedded", size=0.3, kind="plain"),
    "huge": Profile(data="mnist-embedded", size=0.5, kind="plain"),
}

recipe = Recipe(
    name="toy",
    text="A toy.",
    title="Toys",
    run=Run,
    profiles=PROFILES,
    budgets=Budget.levels(),
    several={"paper": ["large", "huge"]},
    parts={"noise": noise, "words": words},
    sections=sections,
    out=Path("runs/toy"),
)


def planned(*said, recipe=recipe):
    return recipe.plan(recipe.parser().parse_args(said), "as told")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- settings


def test_budgets_stand_in_one_table():
    levels = Budget.levels()
    assert list(levels) == ["paper", "reduced", "smoke"]
    assert [(each.count, each.curve, each.tries, each.judge) for each in levels.values()] == [
        (8, 6, 3, 2),
        (5, 6, 2, 2),
        (3, 4, 1, 2),
    ]
    assert [each.names for each in levels.values()] == [{}, {}, {"a": 1}]
    few = levels["paper"].of(2)
    assert (few.count, few.curve, few.largest, levels["paper"].of(100).curve) == (2, 2, 2, 6)
    assert levels["reduced"].largest == 6
    with pytest.raises(GenclsError, match="at least one image, got 0"):
        few.of(0)


def test_flags_are_fields_of_the_run_or_of_its_profile(here):
    usual = planned()
    assert (usual.profile, usual.models, usual.word, usual.level) == (PROFILES["smoke"], (), "code", "smoke")
    assert usual.out == Path("runs/toy/smoke-smoke-code")
    said = planned("--models", "a", "--models", "b", "--as", "paper", "--kind", "odd", "--n", "2", "--seed", "3", "--out", "o")
    assert (said.models, said.word, said.profile) == (["a", "b"], "paper", replace(PROFILES["smoke"], kind="odd"))
    assert said.out == Path("o/smoke-smoke-paper-odd")
    assert (said.seed, said.budget.count, len(said.data)) == (3, 2, 2)
    alone = Recipe(**{**vars(recipe), "nested": False, "part_flags": ("--parts", "--tables")})
    assert planned("--out", "o", recipe=alone).out == Path("o")
    assert alone.parser().parse_args(["--tables", "noise", "--parts", "words"]).parts == ["noise", "words"]
    assert planned("--profile", "large").level == "reduced"


# --- running


def test_a_run_is_computed_once_and_joined(here, capsys):
    assert recipe.command(["--parts", "noise"]) == 0
    assert "noise/linear: finished noise" in capsys.readouterr().out
    assert recipe.command([]) == 0
    said = capsys.readouterr().out
    assert "for 0 cells" in said
    assert "words: written" in said
    folder = here / "runs/toy/smoke-smoke-code"
    assert {path.name for path in (folder / "tables").iterdir()} == {"table-1.md", "table-1.tex"}
    assert recipe.command(["--n", "2", "--parts", "noise"]) == 2
    assert "got one of another " in capsys.readouterr().err


def test_a_dry_run_predicts_every_part_and_leaves_nothing(here, capsys):
    assert recipe.command(["--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "1 cell" in said
    assert "1 measurement" in said
    assert "at most for all parts" in said
    assert not list(here.iterdir())


def test_parts_are_run_in_their_order_and_several_profiles_in_turn(here, capsys):
    assert recipe.command(["--profile", "paper", "--parts", "words", "noise", "--n", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line in ("noise:", "words:")] == ["noise:", "words:"] * 2
    assert {path.name for path in (here / "runs/toy").iterdir()} == {"large-paper-code", "huge-paper-code"}


def test_a_job_says_whether_it_is_predicted(capsys):
    """Whatever its class; jobs that are equal have each their own cost."""

    @dataclass(frozen=True)
    class Told(Job):
        name: str
        foretold: bool
        unit = "piece"

        def left(self):
            told.append(f"predict {self.name}")
            return {self.name: float(len(told))}

        def compute(self, left):
            told.append((self.name, left))

    told = []
    same = Told("a", foretold=True)
    compute([same, Told("b", foretold=False), same, Told("c", foretold=True)])
    assert told[:3] == ["predict a", "predict a", "predict c"]
    assert told[3:] == [("a", {"a": 1.0}), ("b", {}), ("a", {"a": 2.0}), ("c", {"c": 3.0})]
    assert "for 3 pieces" in capsys.readouterr().out
    compute([Told("b", foretold=False)])
    assert capsys.readouterr().out == ""


def test_a_measurement_of_something_else_is_left_to_make(tmp_path):
    def measurement(subject):
        kept = Kept(tmp_path / "kept.json", lambda: subject, lambda: {"of": subject})
        return kept, Measurement.of("it", kept, lambda: 7.0, lambda found: found["of"])

    first, second = measurement("first"), measurement("second")
    assert first[1].left() == {"it": 7.0}
    first[1].compute({})
    assert first[1].left() == {}
    assert first[0].current["of"] == "first"
    assert second[1].left() == {"it": 7.0}
    assert second[0].current is None
    second[1].compute({})
    assert second[1].left() == {}
    assert first[1].left() == {"it": 7.0}


def test_a_file_that_is_being_replaced_counts_as_changed(here):
    """Between its listing and the look at it, it is gone for a moment."""
    (here / "cells").mkdir()
    (here / "study.json").write_text("{}")
    (here / "cells" / "a.json").write_text("{}")
    assert records._state(here) == records._state(here)
    (here / "cells" / "b.parquet").symlink_to("gone")
    states = [records._state(here) for _ in range(2)]
    assert [name for name, _, _ in states[0]] == ["a.json", "b.parquet", "study.json"]
    assert states[0] != states[1]


def test_what_does_not_fit_is_an_error_before_anything(here, capsys):
    for said, message in (
        (["--models", "lost"], "expected weights, got none"),
        (["--models", "a", "--parts", "words"], "--models: expected with noise"),
        (["--parts"], "expected at least one finished cell, got none"),
    ):
        assert recipe.command(said) == 2
        assert f"toy: error: {'' if said[0] == '--models' else 'runs/'}" in (error := capsys.readouterr().err)
        assert message in error
    assert not (here / "runs/toy/smoke-smoke-code/noise").exists()


# --- the banner


BANNERS = {
    "smoke": ([], "Smoke run: everything once, as small as possible, to see that it works; N = 3."),
    "smoke data": (["--budget", "paper"], "Smoke run: "),
    "reduced": (["--profile", "large"], "Reduced budget: attacks and draws are fewer than the paper's; N = 5."),
    "few images": (["--profile", "large", "--budget", "paper", "--n", "2"], "Fewer images than the paper: N = 2 of 8."),
    "many images": (["--profile", "large", "--budget", "paper", "--n", "20"], "More images than the paper's 8: N = 20."),
    "paper": (["--profile", "large", "--budget", "paper"], ""),
}


@pytest.mark.parametrize("case", BANNERS)
def test_what_is_not_the_papers_protocol_says_so(case):
    said, message = BANNERS[case]
    banner = recipe.banner(planned(*said))
    assert banner.startswith(message)
    assert ("This is not the paper's protocol." in banner) == (banner != "")


def first(data, count):
    return replace(data, images=data.images[:count], labels=data.labels[:count], indices=data.indices[:count])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (8, "Fewer images than the paper: N = 6 of 8."),
        (20, "Fewer images than the paper: N = 6 of 8."),
        (3, "Fewer images than the paper: N = 3 of 8."),
    ],
)
def test_the_banner_counts_the_images_that_there_are(asked, message):
    found = planned("--profile", "large", "--budget", "paper", "--n", str(asked))
    assert recipe.banner(replace(found, data=first(found.data, 6))).startswith(message)


def test_more_images_were_asked_for_but_there_are_as_many_as_in_the_paper():
    found = planned("--profile", "large", "--budget", "paper", "--n", "20")
    assert recipe.banner(replace(found, data=first(found.data, 8))) == ""


def test_the_banner_stands_on_the_page_and_in_every_table(here):
    page = recipe.main(planned(), ["noise"])
    banner = recipe.banner(planned())
    assert page.read_text().index(banner.replace("'", "&#39;")) < page.read_text().index("<h1>")
    assert (page.parent / "tables/table-1.md").read_text().startswith(f"> **{banner}**\n")
    assert r"\textbf{Smoke run: everything once" in (page.parent / "tables/table-1.tex").read_text()
    large = recipe.main(planned("--profile", "large", "--budget", "paper"), ["noise"])
    assert "not the paper" not in large.read_text()
