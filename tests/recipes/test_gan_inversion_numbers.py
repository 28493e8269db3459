"""The numbers of the recipe of GAN inversion: formulas by hand on toy records, and the thesis's tables as printed."""

from types import SimpleNamespace

import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from gencls.core import GenclsError
from recipes.gan_inversion import codes, figures, inversions, printed, tables, words
from recipes.gan_inversion.attack_tables import left_right
from recipes.gan_inversion.interpolation import line
from recipes.gan_inversion.inversions import Inversion
from recipes.gan_inversion.runs import Run
from recipes.gan_inversion.settings import BUDGETS, DISTANCES, METHODS, PROFILES
from tests.inversion_records import record

# --- records


def test_error_and_distances_by_hand(tmp_path):
    found = record(tmp_path, [[1.0, 2.0, 6.0], [3.0, 2.0, 1.0], [4.0, 1.0, 2.0]], [0, 1, 1])
    assert found.right.tolist() == [True, False, True]
    assert found.in_domain(found.percept).tolist() == [1.0, 2.0, 1.0]
    assert found.out_of_domain(found.percept).tolist() == [4.0, 2.0, 3.0]
    assert words.error(found).startswith("33.3 [")
    assert words.domain(found, found.percept)[1].startswith("3.0")


def test_parts_join_in_their_order(tmp_path):
    found = record(tmp_path, [[float(i), 0.5] for i in range(5)], [0, 1, 0, 1, 0], levels=3, parts=[2, 2, 1])
    assert found.losses[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert found.seconds == 6.0
    first, second, third = found.codes([4, 1])
    torch.testing.assert_close(second - first, torch.full_like(first, 100))
    torch.testing.assert_close(third[:, 0, 0], torch.tensor([216.0, 204.0]))


def test_unfinished_and_damaged_inversions(tmp_path):
    record(tmp_path, [[0.0, 1.0]] * 4, [0] * 4, parts=[2, 2])
    assert inversions.is_made(tmp_path, 2, lambda: "key 2")
    assert not inversions.is_made(tmp_path, 2, lambda: "other")
    assert inversions.read(tmp_path, 6, "a") is None
    assert inversions.read(tmp_path, 4, "b") is None
    (tmp_path / "000002.safetensors").write_bytes(b"half")
    assert not inversions.is_made(tmp_path, 2, lambda: "key 2")
    with pytest.raises(GenclsError, match=r"000002.safetensors: expected the inversion as it was written, got other bytes"):
        inversions.read(tmp_path, 4, "a")
    (tmp_path / "000002.json").unlink()
    assert inversions.read(tmp_path, 4, "a") is None


def test_parts_of_other_networks_do_not_join(tmp_path):
    record(tmp_path, [[0.0, 1.0]] * 4, [0] * 4, parts=[2, 2])
    record(tmp_path, [[1.0, 0.0]] * 2, [0] * 2, networks="b")  # killed after the first part was made anew
    assert inversions.read(tmp_path, 4, "a") is None
    assert inversions.read(tmp_path, 4, "b") is None


def test_the_seconds_of_a_step_include_the_wait_for_a_gpu(monkeypatch):
    """A GPU returns from a call before it is done; its numbers are there once they are copied."""
    now = 0.0

    class Late:
        steps = 5

        def __call__(self, images):
            return self

        def cpu(self):
            nonlocal now
            now += 30.0

    monkeypatch.setattr(inversions.time, "perf_counter", lambda: now)
    assert inversions.seconds_of_step(Late(), torch.rand(2, 1, 8, 8)) == 3.0  # 30 s for 5 steps and 2 images


def test_every_setting_has_a_folder_of_its_own():
    one = {"method": "enc-d", "weight": 0.1, "distance": "plain", "steps": 5}
    changes = ({}, {"method": "enc-d+"}, {"weight": 1.0}, {"distance": "linf"}, {"steps": 6}, {"percept_weight": 10.0})
    slugs = {Inversion(**{**one, **change}).slug for change in (*changes, {"again": 1}, {"fast": True})}
    assert len(slugs) == 8


# --- tables


def shares(folder, percept, pixel):
    """A result of two images whose true classes are 0 and 1, with these distances in domain; those out of domain are 9."""
    rows = [[[a, 9.0], [9.0, b]] for a, b in (percept, pixel)]
    return record(folder, rows[0], [0, 1], percept=rows[0], pixel=rows[1])


def test_the_perceptual_share_by_hand(tmp_path):
    """1 of 4 and 2 of 10; with lambda_percept 10 it is 10 of 13 and 20 of 28."""
    one, ten = (Inversion(method="enc", weight=1.0, distance="plain", steps=1, percept_weight=weight) for weight in (1.0, 10.0))
    found = shares(tmp_path / "both", (1.0, 2.0), (3.0, 8.0))
    assert tables.perceptual_share(one, found).tolist() == [25.0, 20.0]
    assert tables.perceptual_share(ten, found).tolist() == pytest.approx([1000 / 13, 2000 / 28])
    perfect = shares(tmp_path / "perfect", (0.0, 2.0), (0.0, 8.0))
    assert tables.perceptual_share(one, perfect).tolist() == [20.0]


@pytest.mark.parametrize(
    ("table", "profile", "share"),
    [
        (tables.distances_table, "fashion", "74.2 ± 5.4"),  # lambda_percept 10
        (tables.imagenette_table, "imagenette", "22.5 ± 4.9"),
        (tables.large_steps_table, "imagenette", "22.5 ± 4.9"),
    ],
)
def test_tables_with_lpips_show_its_share(table, profile, share, tmp_path, monkeypatch):
    found = shares(tmp_path / "found", (1.0, 2.0), (3.0, 8.0))
    monkeypatch.setattr(tables, "finished", lambda run, chosen: dict.fromkeys(chosen, found))
    data = SimpleNamespace(name="images", split="test")
    chosen = ("plain", "lpips", "pixels") if profile == "fashion" else ("plain", "lpips")
    run = Run(profile=PROFILES[profile], budget=BUDGETS["smoke"], out=tmp_path, data=data, command="as told", chosen=chosen)
    made = table(run)
    column = made.columns.index("perceptual share of D in %") - 1
    for row in made.rows:
        assert row.cells[column].text == ("–" if row.head == "pixels alone" else share)
    assert all(len(row.cells) == len(made.columns) - 1 for row in made.rows)
    assert any("A row whose share is a few percent says little about its perceptual distance" in note for note in made.notes)


# --- formulas


def test_the_line_between_two_codes():
    first, second = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    for level, codes_ in enumerate(line((first[0], first[1]), (second[0], second[1]))):
        torch.testing.assert_close(codes_[:, 10], first[level])
        torch.testing.assert_close(codes_[:, 0], second[level])
        torch.testing.assert_close(codes_[:, 3], 0.3 * first[level] + 0.7 * second[level])


def test_block_codes_are_sums_and_repeat_where_a_method_has_one():
    shared, own = torch.randn(2, 3), torch.randn(2, 3)
    alone = codes.block_codes((shared,), 2)
    assert alone.shape == (2, 3, 3)
    torch.testing.assert_close(alone[:, 2], shared)
    torch.testing.assert_close(codes.block_codes((shared, own, 2 * own), 2)[:, 2], shared + 2 * own)
    cosine, distance = codes.agreement(alone, -alone)
    assert cosine == pytest.approx(-1)
    assert distance == pytest.approx(2 * float(shared.norm(dim=1).mean()), rel=1e-5)


def test_the_distance_of_unrelated_codes():
    """By hand, and of random codes of other lengths than the prior's: their own distance, whatever the lengths."""
    first, second = torch.tensor([[[3.0, 0.0]], [[0.0, 5.0]]]), torch.tensor([[[0.0, -4.0]], [[12.0, 0.0]]])
    assert codes.unrelated_distance(first, second) == pytest.approx((5 + 13) / 2)
    short, long = torch.randn(2, 2000, 3, 64, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.2, 1.5]).view(
        2, 1, 1, 1
    )
    # The length of a difference is shorter than its root mean square by the share 1 / (4 d) < 0.5 %.
    assert codes.unrelated_distance(short, long) == pytest.approx(codes.agreement(short, long)[1], rel=0.01)
    assert codes.unrelated_distance(short, short) < codes.unrelated_distance(short, long) / 4
    doubled = codes.agreement(short, 2 * short)[1]
    assert doubled < codes.unrelated_distance(short, 2 * short) / 2  # related codes are closer


def test_figure_3_8_has_the_distance_of_unrelated_codes_in_brackets(monkeypatch, tmp_path):
    """Codes (3, 0) of Direct, (0, 4) of Enc and of Enc-D; their distance is that of unrelated ones but for equal codes."""
    ours = {"direct": [3.0, 0.0], "enc": [0.0, 4.0], "enc-d": [0.0, 4.0]}

    def found(method):
        level = torch.tensor(ours[method]).expand(5, 2)
        return SimpleNamespace(codes=lambda rows=None: (level,), in_domain=lambda values: values)

    monkeypatch.setattr(
        figures,
        "finished",
        lambda run, chosen: {one: found(one.method) for one in chosen if one.method in ours and not one.again},
    )
    run = Run(profile=PROFILES["fashion"], budget=BUDGETS["reduced"], out=tmp_path, data=[None] * 5, command="as told")
    (drawn,) = figures.codes_figure(run)
    texts = [text.get_text() for text in drawn.figure.axes[1].texts]
    apart, equal = "5.00\n(5.0)", "0.00\n(5.7)"  # sqrt(16 + 16)
    assert texts == ["0.00", apart, apart, apart, "0.00", equal, apart, equal, "0.00"]
    assert "unrelated codes of the same lengths" in drawn.figure.axes[1].get_title()


def test_means_with_their_intervals():
    values = [1.0, 2.0, 3.0, 4.0]
    half = 1.96 * torch.tensor(values).std().item() / 2
    assert words.mean(values) == f"2.5 ± {half:.1f}"
    assert words.mean([7.0]) == "7"


def test_an_attack_without_records_leaves_nothing():
    import pandas as pd

    assert left_right(pd.DataFrame(), "linf", 0.1).empty


# --- the thesis


def test_printed_differences_of_frechet_distances_fit():
    for setting, (inside, outside, difference) in printed.FRECHET.items():
        assert outside - inside == pytest.approx(difference, abs=0.021), setting


def test_printed_tables_have_all_settings_and_their_slips():
    settings = {(method, weight) for method in METHODS for weight in BUDGETS["paper"].weights}
    assert set(printed.INVERSION) == set(printed.FRECHET) == set(printed.ROBUST) == settings
    differ = [setting for setting in settings if printed.ROBUST[setting][1] != printed.INVERSION[setting][0]]
    assert differ == [("direct+", 1.0)]  # as SLIPS says
    assert printed.STEPS[100][0] != printed.ROBUST["enc-d", 0.1][0]
    assert set(printed.DISTANCES) < set(DISTANCES)


def test_printed_numbers_bear_out_the_claims():
    errors = [values[0] for values in printed.INVERSION.values()]
    assert spearmanr(errors, [values[2] for values in printed.INVERSION.values()]).statistic < -0.6
    assert pearsonr(errors, [values[2] for values in printed.FRECHET.values()]).statistic > 0.6
    assert all(robust < plain for robust, plain in printed.ROBUST.values())


def test_the_papers_budget_is_the_thesiss():
    """Section 3.3 and the heads of the tables."""
    budget = BUDGETS["paper"]
    assert (budget.count, budget.steps, budget.weights, budget.compared) == (9000, 100, (0.1, 1.0, 10.0), 200)
    assert budget.sweep == tuple(printed.STEPS)
    assert budget.large_sweep == tuple(printed.IMAGENETTE_STEPS)
    assert budget.shown_steps == (10, 200)
