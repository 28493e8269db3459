"""The search for alphas on functions whose optimum is known."""

import json
import re

import pytest
import torch

from gencls.core import GenclsError
from gencls.defenses import alpha_schedule, learn_alphas

OPTIMUM = torch.tensor([0.2, 0.9, 0.4, 0.7], dtype=torch.float64)


def quadratic(alphas):
    """1 at its optimum."""
    return 1 - float((alphas - OPTIMUM).square().sum())


def sequence(search):
    return [(trial.alphas, trial.value) for trial in search.trials]


def test_it_starts_as_the_paper_does():
    search = learn_alphas(quadratic, 4, steps=0)
    names = ("linear", "cosine", "uniform", "reversed-linear", "reversed-cosine")
    assert [trial.alphas for trial in search.trials] == [alpha_schedule(name, 4) for name in names]
    assert [trial.value for trial in search.trials] == [
        quadratic(torch.tensor(trial.alphas, dtype=torch.float64)) for trial in search.trials
    ]
    assert search.best.value == max(trial.value for trial in search.trials)
    assert search.optimiser_share == 0


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"acquisition": "ei"}, marks=pytest.mark.slow),
        pytest.param({"variance": lambda value: 1e-6}, marks=pytest.mark.slow),
        pytest.param({"warm": True}, marks=pytest.mark.slow),
    ],
)
def test_it_comes_closer_than_random_search(settings):
    """17 measurements: random search comes this close once in 50 tries."""
    state = torch.get_rng_state()
    search = learn_alphas(quadratic, 4, steps=12, **settings)
    assert torch.equal(torch.get_rng_state(), state)
    random = torch.stack([1 - (torch.rand(17, 4) - OPTIMUM).square().sum(1).amin() for _ in range(50)])
    assert search.best.value > random.quantile(0.98)
    assert 1 - search.best.value < 0.02
    assert all(0 <= alpha <= 1 for trial in search.trials for alpha in trial.alphas)


@pytest.mark.parametrize("objective", [lambda alphas: 0.5, lambda alphas: round(quadratic(alphas) * 8) / 8])
@pytest.mark.parametrize("acquisition", ["log-ei", "ei"])
def test_flat_objectives_and_ties(objective, acquisition):
    search = learn_alphas(objective, 4, steps=3, acquisition=acquisition)
    assert len(search.trials) == 8


class KilledError(Exception):
    pass


@pytest.mark.parametrize(
    "settings", [pytest.param(how, marks=pytest.mark.slow) for how in ({}, {"variance": lambda value: 1e-6})] + [{"warm": True}]
)
@pytest.mark.parametrize("survived", [pytest.param(3, marks=pytest.mark.slow), 7])
def test_an_interrupted_search_goes_on_as_if_nothing_had_happened(settings, survived, tmp_path):
    path = tmp_path / "made" / "alphas.json"
    expected = learn_alphas(quadratic, 4, steps=4, seed=3, **settings)

    def mortal(alphas):
        if path.exists() and len(json.loads(path.read_text())["trials"]) == survived:
            raise KilledError
        return quadratic(alphas)

    with pytest.raises(KilledError):
        learn_alphas(mortal, 4, steps=4, seed=3, path=path, **settings)
    calls = []
    found = learn_alphas(lambda alphas: calls.append(1) or quadratic(alphas), 4, steps=2, seed=3, path=path, **settings)
    assert sequence(found) == sequence(expected)[:7]
    assert len(calls) == 7 - survived
    found = learn_alphas(quadratic, 4, steps=4, seed=3, path=path, **settings)  # longer than planned
    assert sequence(found) == sequence(expected)
    assert found.chosen == expected.chosen
    assert [entry.name for entry in path.parent.iterdir()] == ["alphas.json"]


def test_no_point_is_measured_again():
    """The maximum is a corner: the acquisition function would propose it for ever."""
    points = torch.tensor([trial.alphas for trial in learn_alphas(lambda alphas: float(alphas.sum()), 4, steps=8).trials])
    assert (points == 1).all(1).sum() == 1
    assert torch.nn.functional.pdist(points).min() > 1e-3


def test_another_seed_is_another_sequence():
    first, second = (learn_alphas(quadratic, 4, steps=1, seed=seed) for seed in (0, 1))
    assert sequence(first)[:5] == sequence(second)[:5]
    assert sequence(first)[5] != sequence(second)[5]


def test_a_lucky_draw_is_not_chosen_when_the_noise_is_known():
    """Two measurements at the same alphas, one of them lucky, and a third that is better than their mean."""
    good, bad = (0.6, 0.6), (0.1, 0.1)
    values = iter([0.2, 0.75, 0.2, 0.2, 0.6, 0.6])
    starts = [bad, bad, bad, bad, good, good]
    measured = learn_alphas(lambda alphas: next(values), 2, steps=0, starts=starts, variance=lambda value: 0.05)
    assert measured.best.alphas == good
    values = iter([0.2, 0.75, 0.2, 0.2, 0.6, 0.6])
    assert learn_alphas(lambda alphas: next(values), 2, steps=0, starts=starts).best.alphas == bad


def test_progress():
    seen = []
    learn_alphas(quadratic, 4, steps=1, report=lambda search: seen.append(str(search)))
    assert len(seen) == 6
    assert re.fullmatch(
        r"6 of 6: [\d.-]+; best [\d.-]+ \(number \d\); optimiser [\d.]+ % of the time; about 0 s left", seen[-1]
    )


def saved(folder, **settings):
    path = folder / "alphas.json"
    learn_alphas(quadratic, 4, steps=0, path=path, **settings)
    return path


def foreign(folder, text):
    path = folder / "notes.json"
    path.write_text(text)
    return path


def changed(folder, change):
    path = saved(folder)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


ERRORS = {
    "expected acquisition to be one of 'log-ei', 'ei', got 'ucb'": lambda _: learn_alphas(quadratic, 4, acquisition="ucb"),
    "'num_levels': 0": lambda _: learn_alphas(quadratic, 0),
    "'steps + 1': 0": lambda _: learn_alphas(quadratic, 4, steps=-1),
    "expected starts of 4 numbers in [0, 1], got [(0.1, 0.2)]": lambda _: learn_alphas(quadratic, 4, starts=[[0.1, 0.2]]),
    "expected a finite value of the objective, got nan": lambda _: learn_alphas(lambda alphas: float("nan"), 4),
    "expected a search with seed = 1, got one with 0": lambda folder: learn_alphas(quadratic, 4, path=saved(folder), seed=1),
    "expected a search with objective = 'b', got one with 'a'": lambda folder: learn_alphas(
        quadratic, 4, path=saved(folder, key="a"), key="b"
    ),
    "expected a search with warm = True": lambda folder: learn_alphas(quadratic, 4, path=saved(folder), warm=True),
    "of format 2, got 3, of another version": lambda folder: learn_alphas(
        quadratic, 4, path=foreign(folder, '{"format": 3, "runs": []}')
    ),
    "expected a search with variance = [0.2, 0.2, 0.2], got one with [0.1, 0.1, 0.1]": lambda folder: learn_alphas(
        quadratic, 4, path=saved(folder, variance=lambda value: 0.1), variance=lambda value: 0.2
    ),
    "expected the file of a search for alphas, got something else: KeyError('format')": lambda folder: learn_alphas(
        quadratic, 4, path=foreign(folder, "{}")
    ),
    "got something else: KeyError('settings')": lambda folder: learn_alphas(
        quadratic, 4, path=foreign(folder, '{"format": 2}')
    ),
    "got something else: KeyError('num_levels')": lambda folder: learn_alphas(
        quadratic, 4, path=changed(folder, lambda content: content.update(settings=[]))
    ),
    "got something else: TypeError": lambda folder: learn_alphas(
        quadratic, 4, path=changed(folder, lambda content: content.update(settings=None))
    ),
    "got something else: ValueError('a trial of 4 alphas": lambda folder: learn_alphas(
        quadratic, 4, path=changed(folder, lambda content: content["trials"][2]["alphas"].pop())
    ),
    "alphas=(0.5, 0.5, 0.5, 1.5)": lambda folder: learn_alphas(
        quadratic, 4, path=changed(folder, lambda content: content["trials"][2].update(alphas=[0.5, 0.5, 0.5, 1.5]))
    ),
    "each item a finite number or None, got [0.5, 0.5, 0.5]": lambda _: learn_alphas(quadratic, 3, starts=[0.5, 0.5, 0.5]),
    "each item a finite number or None, got 'linear'": lambda _: learn_alphas(quadratic, 3, starts="linear"),
    "got something else: JSONDecodeError": lambda folder: learn_alphas(quadratic, 4, path=foreign(folder, '{"settings": {')),
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors(message, tmp_path):
    with pytest.raises(GenclsError, match=re.escape(message)):
        ERRORS[message](tmp_path)
