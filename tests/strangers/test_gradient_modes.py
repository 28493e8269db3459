"""Gradient modes that people declare: their names, what they say of themselves, and whether they stand for the defense."""

import copy
import json
import pickle
from types import MappingProxyType

import pytest
import torch
from torch import nn

from gencls.core import BPDA, Defense, EoT, GenclsError, GradientMode, Transform, TransformedClassifier, surrogates_of
from gencls.core.files import sealed
from gencls.core.gradient_modes import mode_named
from gencls.defenses import PlainClassifier
from gencls.eval import FGSM, PGD, GaussianNoiseAttack, Study, ThreatModel, evaluate, gradient_modes, read_study, report_study
from gencls.eval.doctor import diagnose
from gencls.eval.doctor.patient import EFFORTS
from tests.toys import small_cnn

LINF = ThreatModel("linf", 0.1)
IMAGES, LABELS = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(4)
MINE = GradientMode("mine", True, "The gradient by a rule <of mine>.")


class Modes(Defense):
    """Four classes; what ``surrogates()`` returns is given."""

    def __init__(self, modes):
        super().__init__()
        self.num_classes, self.network, self.modes = 4, small_cnn(), [modes]

    def forward(self, images):
        return self.network(images)

    def surrogates(self):
        return self.modes[0]


def declares(*names, surrogate=None):
    """A defense with these names for one surrogate, its own network unless given."""
    made = Modes(None)
    made.modes[0] = dict.fromkeys(names, surrogate or made.network)
    return made.eval()


def attack(defense, **settings):
    return evaluate(defense, {"FGSM": FGSM(LINF)}, [(IMAGES, LABELS)], **settings)


def study(folder, attacks=None, **defenses):
    return Study(folder, defenses=defenses, attacks=attacks or {"FGSM": FGSM(LINF)}, images=IMAGES, labels=LABELS)


# Names

REFUSED = {
    "": "printable name",
    " a": "printable name",
    "a\nb": "printable name",
    "x\x1b[31m": "printable name",
    "\ud800": "printable name",
    "a;b": "without a semicolon",
    "n" * 1001: "at most 1000 characters",
    "worst case": "another name than 'worst case'",
    "none": "another name for the gradient mode 'none'",
    "all": "another name for the gradient mode 'all'",
    "+": r"on both sides of '\+'",
    "a+": r"on both sides of '\+'",
    "a++b": r"on both sides of '\+'",
    7: "text or a GradientMode as name of a gradient mode, got 7",
    None: "text or a GradientMode as name of a gradient mode, got None",
}


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_odd_names_of_modes_are_refused_before_anything_is_written(name, tmp_path):
    defense = declares(name)
    for ask in (attack, lambda one: study(tmp_path / "s", mine=one), lambda one: gradient_modes(one, FGSM(LINF))):
        with pytest.raises(GenclsError, match=f"^Modes.*{REFUSED[name]}") as caught:
            ask(defense)
        str(caught.value).encode()  # a message can be printed
    assert not list(tmp_path.iterdir())


def test_modes_that_look_alike_are_refused():
    with pytest.raises(GenclsError, match="Modes, gradient modes: expected names that look different"):
        attack(declares("a b", "a  b"))


ODD = {
    "no mode": ({}, "at least one module by the name of its mode, got an empty dict"),
    "a list": ([small_cnn()], "at least one module by the name of its mode, got list"),
    "none": (None, "at least one module by the name of its mode, got NoneType"),
    "a lambda": ({"mine": lambda images: images}, "a torch.nn.Module for the gradient mode 'mine', got function"),
    "a class": ({"mine": nn.Identity}, "a torch.nn.Module for the gradient mode 'mine', got type"),
}


@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("around", [lambda one: one, lambda one: PlainClassifier(one, 4).eval(), lambda one: EoT(one, 2)])
def test_modes_that_are_no_modules_by_name_are_refused(case, around):
    modes, message = ODD[case]
    with pytest.raises(GenclsError, match=f"^Modes: expected .*{message}"):
        attack(around(Modes(modes).eval()))


def test_surrogates_that_are_no_method_are_refused():
    class Attribute(Modes):
        surrogates = MappingProxyType({"mine": small_cnn()})

    with pytest.raises(GenclsError, match="^Attribute: expected surrogates to be a method that returns .*, got mappingproxy"):
        attack(Attribute(None).eval())


@pytest.mark.parametrize(
    "name",
    [
        *("<b>x</b>", "$\\frac{1}$", "frozen+mine"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("名前", "=cmd|x", "[red]x", "a/b")),
    ],
)
def test_other_names_of_modes_reach_the_report(name, tmp_path):
    made = study(tmp_path / "s", mine=declares(name))
    made.run()
    page = made.report().read_text("utf-8")
    assert name.replace("<", "&lt;").replace(">", "&gt;") in page
    assert "<b>x</b>" not in page


# What a mode says of itself


def test_a_mode_is_its_name_with_what_it_says():
    assert MINE == "mine"
    assert {MINE: 1}["mine"] == 1
    for copied in (copy.deepcopy(MINE), pickle.loads(pickle.dumps(MINE)), mode_named(MINE)):
        assert (copied, copied.name, copied.exact, copied.meaning) == ("mine", "mine", True, MINE.meaning)
    with pytest.raises(GenclsError, match="GradientMode: expected name to be a string, got 7"):
        GradientMode(7, True, "m")


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (GradientMode("mine", True, ""), "gradient mode 'mine': expected a printable meaning"),
        (GradientMode("mine", True, "a\x1b[31m"), "gradient mode 'mine': expected a printable meaning"),
        (GradientMode("exact", False, "Not so exact."), "expected another name than 'exact' for a gradient mode of its own"),
    ],
)
def test_a_mode_says_one_line_and_nothing_else_of_a_mode_of_the_package(mode, message):
    with pytest.raises(GenclsError, match=f"^Modes.*{message}"):
        attack(declares(mode))


class Half(Transform):
    def forward(self, images):
        return images / 2

    def surrogates(self):
        return {GradientMode("half", True, "A half by hand."): self}


def test_a_mode_keeps_what_it_says_behind_wrappers():
    defense = declares(MINE)
    for wrapped in (defense, PlainClassifier(defense, 4), EoT(defense, 2), nn.Sequential(nn.Identity(), defense)):
        (mode,) = surrogates_of(wrapped)
        assert (mode_named(mode).exact, mode_named(mode).meaning) == (True, MINE.meaning)
    (mode,) = surrogates_of(TransformedClassifier(Half(), defense, 4))
    assert (mode, mode_named(mode).exact) == ("half+mine", True)
    for words in ("half, then mine.", "half: A half by hand.", f"mine: {MINE.meaning}"):
        assert words in mode_named(mode).meaning
    behind = TransformedClassifier(Half(), TransformedClassifier(Half(), declares("quick"), 4), 4)
    (mode,) = surrogates_of(behind)
    assert (mode, mode_named(mode).exact) == ("half+half+quick", False)


def test_records_and_the_plan_of_a_study_have_the_name(tmp_path):
    defense = declares(MINE)
    (mode,) = gradient_modes(defense, FGSM(LINF), [MINE])
    assert type(mode) is str
    assert attack(defense, modes=["mine"]).records["gradient"].unique().tolist() == ["mine"]
    made = study(tmp_path / "s", mine=defense)
    made.run()
    assert {cell["mode"] for cell in json.loads((tmp_path / "s" / "study.json").read_text())["cells"]} == {"mine"}
    assert not study(tmp_path / "s", mine=defense).missing()


def test_the_glossary_has_the_meaning_from_the_folder_alone(tmp_path):
    study(tmp_path / "s", mine=declares(MINE, "quick"), plain=small_cnn()).run()
    page = report_study(tmp_path / "s").read_text("utf-8")
    assert "<dt>mine</dt><dd>The gradient by a rule &lt;of mine&gt;.</dd>" in page
    assert "<dt>quick</dt><dd>A mode of the defense&#39;s own, which is taken for an approximation.</dd>" in page
    said = read_study(tmp_path / "s")["defenses"]
    assert said["mine"]["gradients"] == {"mine": MINE.meaning}
    assert "gradients" not in said["plain"]


def test_two_meanings_of_one_name_are_both_told_also_where_the_study_has_grown(tmp_path):
    study(tmp_path / "s", one=declares(MINE)).run()
    study(tmp_path / "s", two=declares(GradientMode("mine", False, "Another rule."))).run()
    page = report_study(tmp_path / "s").read_text("utf-8")
    assert "<dt>mine</dt><dd>one: The gradient by a rule &lt;of mine&gt;. two: Another rule.</dd>" in page


def test_without_gradients_nobody_asks_for_modes(tmp_path):
    study(tmp_path / "s", {"noise": GaussianNoiseAttack(LINF, tries=2)}, mine=declares(MINE)).run()
    assert "gradients" not in read_study(tmp_path / "s")["defenses"]["mine"]


@pytest.mark.parametrize("said", [7, ["m"], {"mine": 7}])
def test_meanings_in_a_folder_are_texts(said, tmp_path):
    study(tmp_path / "s", mine=declares(MINE)).run()
    path = tmp_path / "s" / "study.json"
    settings = json.loads(path.read_text())
    del settings["checksum"]
    settings["defenses"]["mine"]["gradients"] = said
    path.write_text(json.dumps(sealed(settings)))
    with pytest.raises(GenclsError, match=r"study.json: expected defenses to be descriptions by name"):
        report_study(tmp_path / "s")


class Flipped(nn.Module):
    """The scores of a network with the opposite gradient."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(2 * images.detach() - images)


FINDINGS = {
    "exact": ("exact", "fail"),
    "of one's own, exact": (MINE, "fail"),
    "of one's own, approximate": (GradientMode("mine", False, "Roughly."), "note"),
    "of one's own, says nothing": ("mine", "note"),
}


@pytest.mark.parametrize("case", FINDINGS)
@pytest.mark.parametrize("wrapped", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_doctor_obeys_what_a_mode_says(case, wrapped, digits_of_two):
    name, expected = FINDINGS[case]
    defense = declares(name)
    defense.modes[0] = {name: Flipped(defense.network)}
    defense = PlainClassifier(defense, 4).eval() if wrapped else defense
    diagnosis = diagnose(defense, *digits_of_two(defense), epsilon=0.1, effort=EFFORTS[-1])
    assert {check.name: check.status for check in diagnosis.checks}["finite differences"] == expected


@pytest.fixture
def digits_of_two():
    """Images that a defense gets right."""

    def made(defense):
        images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            return images, defense(images).argmax(dim=1)

    return made


# Another number of classes


class Columns(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.linear = nn.Linear(64, count)

    def forward(self, images):
        return self.linear(images.flatten(1))


@pytest.mark.parametrize("count", [2, 3, 9])
@pytest.mark.parametrize("made", [FGSM(LINF), PGD(LINF, steps=2)])
def test_a_surrogate_of_other_classes_is_refused(count, made, tmp_path):
    defense, few = declares("mine", surrogate=Columns(count)), (IMAGES, LABELS % 2)
    message = f"^Columns: expected scores of 4 classes, as its defense has, got {count}$"
    with pytest.raises(GenclsError, match=message):
        evaluate(defense, {"attack": made}, [few])
    planned = Study(tmp_path / "s", defenses={"d": defense}, attacks={"a": made}, images=few[0], labels=few[1])
    with pytest.raises(GenclsError, match=message):
        planned.run()
    with pytest.raises(GenclsError, match=message):
        diagnose(defense, *few, epsilon=0.1, effort=EFFORTS[-1])


def test_a_surrogate_of_other_classes_is_refused_where_draws_and_batches_count():
    for flag in ("stochastic", "batch_dependent"):
        defense = declares("mine", surrogate=Columns(9))
        setattr(defense, flag, True)
        with pytest.raises(GenclsError, match="^Columns: expected scores of 4 classes"):
            attack(defense, eot_samples=2, judge_draws=2)


def test_a_surrogate_of_the_same_classes_is_taken():
    own = Modes(None).eval()
    own.modes[0] = {"bpda": BPDA(own, Columns(4))}
    assert attack(own).records["valid"].all()
