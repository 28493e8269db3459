"""The numbers of the recipe of GAN inversion: formulas by hand on toy records, and the thesis's tables as printed."""

import math

import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from gencls.core import GenclsError
from gencls.eval.measures.fid import frechet_distance
from recipes.gan_inversion import claims, codes, domain_tables, domains, inversions, printed, words
from recipes.gan_inversion.attack_tables import left_right
from recipes.gan_inversion.interpolation import line
from recipes.gan_inversion.inversions import Inversion
from recipes.gan_inversion.settings import BUDGETS, DISTANCES, METHODS, PROFILES


def record(folder, losses, labels, *, percept=None, pixel=None, levels=1, parts=None, networks="a"):
    """Write an inversion, in parts of these sizes, and read it."""
    losses, labels = torch.tensor(losses), torch.tensor(labels)
    shape = (*losses.shape, 2)
    code = torch.arange(losses.numel() * 2, dtype=torch.float32).view(shape)
    given = {"losses": losses, "labels": labels}
    given["percept"] = losses if percept is None else torch.tensor(percept)
    given["pixel"] = losses if pixel is None else torch.tensor(pixel)
    given |= {f"code{level}": code + 100 * level for level in range(levels)}
    first = 0
    for size in parts or [len(labels)]:
        part = {name: values[first : first + size].clone() for name, values in given.items()}
        inversions.write(folder, first, f"key {first}", networks, part, 2.0)
        first += size
    return inversions.read(folder, len(labels), networks)


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


def test_every_setting_has_a_folder_of_its_own():
    one = {"method": "enc-d", "weight": 0.1, "distance": "plain", "steps": 5}
    changes = ({}, {"method": "enc-d+"}, {"weight": 1.0}, {"distance": "linf"}, {"steps": 6}, {"percept_weight": 10.0})
    slugs = {Inversion(**{**one, **change}).slug for change in (*changes, {"again": 1}, {"fast": True})}
    assert len(slugs) == 8


# --- formulas


def test_claims_count_pairs_and_significant_ones(tmp_path):
    """29 of 30 against 10 of 30 is sure; 2 against 1 is not; the third goes the other way, surely."""
    labels = [0] * 30

    def with_right(name, number):
        return record(tmp_path / name, [[0.0, 1.0] if i < number else [1.0, 0.0] for i in range(30)], labels)

    numbers = [with_right(f"{number}", number) for number in (29, 10, 2, 1)]
    pairs = [(numbers[0], numbers[1]), (numbers[2], numbers[3]), (numbers[1], numbers[0])]
    row = claims.Claim("said", pairs, claims.fewer_errors, [(1.0, 2.0), (2.0, 1.0)]).row
    assert [cell.ours for cell in row.cells] == ["2 of 3", "0", "1", "1", "1 of 2"]
    tied = claims.Claim("said", [(numbers[0], numbers[0]), (numbers[2], numbers[3])], claims.fewer_errors).row
    assert [cell.ours for cell in tied.cells][:2] == ["1 of 2", "1"]


def test_the_closer_reconstruction_is_ahead(tmp_path):
    near = record(tmp_path / "near", [[float(i), 9.0] for i in range(12)], [0] * 12)
    far = record(tmp_path / "far", [[i + 1.0 + i / 100, 9.0] for i in range(12)], [0] * 12)
    ahead, p = claims.closer(near, far)
    assert ahead == pytest.approx(6.5)  # the mean of the ranks 1 to 12
    assert p == pytest.approx(2 / 2**12)  # all signs agree
    assert claims.closer(near, near) == (0.0, 1.0)


def test_the_line_between_two_codes():
    first, second = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    for level, codes_ in enumerate(line((first[0], first[1]), (second[0], second[1]))):
        torch.testing.assert_close(codes_[:, 10], first[level])
        torch.testing.assert_close(codes_[:, 0], second[level])
        torch.testing.assert_close(codes_[:, 3], 0.3 * first[level] + 0.7 * second[level])


def test_the_peak_between_ends_and_reference():
    assert domain_tables.excess([1.0, 4.0, 3.0], 6.0) == pytest.approx(0.5)
    plain, robust = (printed.INTERPOLATION[name] for name in ("plain", "corruptions"))
    peaks = [domain_tables.excess(one["mean"], one["reference"][0]) for one in (plain, robust)]
    assert peaks == pytest.approx([(442.8 - 328.75) / (378.9 - 328.75), (493.1 - 354.8) / (464.6 - 354.8)])


def test_block_codes_are_sums_and_repeat_where_a_method_has_one():
    shared, own = torch.randn(2, 3), torch.randn(2, 3)
    alone = codes.block_codes((shared,), 2)
    assert alone.shape == (2, 3, 3)
    torch.testing.assert_close(alone[:, 2], shared)
    torch.testing.assert_close(codes.block_codes((shared, own, 2 * own), 2)[:, 2], shared + 2 * own)
    cosine, distance = codes.agreement(alone, -alone)
    assert cosine == pytest.approx(-1)
    assert distance == pytest.approx(2 * float(shared.norm(dim=1).mean()), rel=1e-5)


def test_the_distance_of_two_codes_of_the_prior():
    pairs = torch.randn(20000, 2, 7, generator=torch.Generator().manual_seed(0))
    measured = float((pairs[:, 0] - pairs[:, 1]).norm(dim=1).mean())
    assert codes.prior_distance(7) == pytest.approx(measured, rel=0.01)
    assert codes.prior_distance(1) == pytest.approx(2 / math.sqrt(math.pi))


def test_sets_in_and_out_of_domain_are_equally_large():
    labels = torch.tensor([0, 1, 1, 0, 2, 2, 2, 1, 2])
    own, groups = domains.domain_sets(labels, 0)
    assert own.tolist() == [0, 3]
    assert [group.tolist() for group in groups] == [
        [1, 2],
        [4, 5],
        [6, 7],
    ]  # the incomplete one, and more than three, are left out
    own, groups = domains.domain_sets(labels, 1)
    assert [group.tolist() for group in groups] == [[0, 3, 4], [5, 6, 8]]


def test_frechet_distances_are_means_over_classes():
    source = torch.Generator().manual_seed(0)
    real, real_labels = torch.randn(80, 3, generator=source), torch.arange(80) % 2
    labels = torch.arange(12) % 2
    made = torch.randn(2, 12, 3, generator=source) + torch.tensor([0.0, 2.0]).view(2, 1, 1)
    found = domains.measured(real, real_labels, labels, lambda k, rows: made[k, rows])

    def distance(k, inside):
        rows = labels == k if inside else labels != k
        return frechet_distance(torch.nn.Flatten().eval(), real[real_labels == k], made[k, rows])

    for name, inside in (("in", True), ("out", False)):
        assert found[name] == pytest.approx((distance(0, inside) + distance(1, inside)) / 2, rel=1e-4)
    assert (found["images"], found["features"], found["real"]) == (6, 3, 80)


def test_correlations_are_scipys():
    first, second = [1.0, 3.0, 2.0, 5.0], [2.0, 4.0, 4.5, 9.0]
    said = domain_tables.correlated(first, second)
    assert f"Pearson {pearsonr(first, second).statistic:.2f}" in said
    assert f"Spearman {spearmanr(first, second).statistic:.2f}" in said
    assert domain_tables.correlated(first, [1.0] * 4) == "–"


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
    assert (budget.count, budget.steps, budget.weights, budget.compared) == (10_000, 100, (0.1, 1.0, 10.0), 200)
    assert budget.sweep == tuple(printed.STEPS)
    assert budget.large_sweep == tuple(printed.IMAGENETTE_STEPS)
    assert budget.shown_steps == (10, 200)
    assert PROFILES["cifar10"].normalize
    assert not PROFILES["imagenette"].normalize
