"""Every public constructor, call, statistic, loader and command with arguments of any kind: documented errors only.

What comes back is sound: no NaN in scores or tables, accuracies within their intervals, adversarial images within their ball,
and the caller's tensors and networks as they were.
"""

import importlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gencls.cli import main, parser
from gencls.core import GenclsError
from tests.strangers.fuzz_arguments import ODD_MODULES, arguments
from tests.strangers.fuzz_values import value
from tests.strangers.fuzzing import ATTACKS, PUBLIC, STATISTICS, attack, calls, documented, examples, run


def test_every_public_name_is_fuzzed():
    unknown = {}
    for name, function in PUBLIC.items():
        try:
            arguments(function)
        except (LookupError, TypeError, ValueError) as error:
            unknown[name] = str(error)
    assert not unknown, "tell tests/strangers/fuzz_arguments.py of these arguments, or exempt the name"
    assert set(STATISTICS) <= set(PUBLIC)
    assert len(ATTACKS) > 12


def test_what_fits_is_accepted():
    """Or the fuzz would see nothing but refusals."""
    refused = {}
    for name, function in PUBLIC.items():
        try:
            function(**{argument: value(fit[0]) for argument, (fit, _, _) in arguments(function).items()})
        except GenclsError as error:
            refused[name] = str(error)
    assert not refused, "tell tests/strangers/fuzz_arguments.py what fits these"


def shared(names: Iterable[str], count: int, of: Callable[[str], Any], call: Callable[[Any], None]) -> None:
    """Fuzz functions, each with its share of the calls, the first of which fits."""
    for i, name in enumerate(ordered := sorted(names)):
        share = (i + 1) * count // len(ordered) - i * count // len(ordered)
        examples(share)(given(of(name))(call))()


def constructed(count: int) -> None:
    """Fuzz constructors and functions."""
    shared(PUBLIC.keys() - set(STATISTICS), count, calls, run)


def counted(count: int) -> None:
    """Fuzz statistics."""
    shared(STATISTICS, count, calls, run)


@st.composite
def attacks(draw: Any, name: str) -> tuple[tuple[str, dict[str, str], bool], dict[str, str]]:
    """An attack, and what it is called with: as a rule one argument is odd, of the attack or of its call."""
    inputs = arguments(attack_inputs) | ({"model": (["abs_small()"], ODD_MODULES, True)} if name == "LatentDescent" else {})
    odd = draw(st.sampled_from([None, None, *inputs]))
    words = {key: draw(st.sampled_from(others if key == odd else fits)) for key, (fits, others, _) in inputs.items()}
    return draw(calls(name, fit=odd is not None)), words


def attacked(count: int) -> None:
    """Fuzz attacks on any network, images and labels."""
    shared(ATTACKS, count, attacks, lambda made: attack(*made))


def attack_inputs(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    """What every attack is called with."""


WORDS = (
    *(
        "cnn-mnist",
        "adv-linf-mnist",
        "pgd-linf",
        "fgsm-linf",
        "ddn-l2",
        "default-linf",
        "mnist-embedded",
        "mnist",
        "test",
        "cpu",
    ),
    *("0.3", "8/255", "1", "2", "0", "-1", "nan", "inf", "1e300", "1e-300", "", " ", "word", "nothing", "l2", "linf", "loss"),
    *("list", "verify", "torch.nn:Linear", "torch.nn:Identity", "os:getcwd", "..a:b", ":", "a:", "json:nothing", "meta", "mps"),
    *(
        "cuda:9",
        "nowhere",
        "file",
        "file/below",
        "empty",
        "a\0b",
        "x" * 300,
        "\udcff",
        "名",
        "--",
        "-x",
        "--help",
        "99999999999",
    ),
)
USUAL = {
    **dict.fromkeys(("defense", "transfer_from"), ("cnn-mnist", "abs-mnist", "torch.nn:Identity")),
    "attack": ("pgd-linf", "fgsm-linf", "ddn-l2", "default-linf"),
    **dict.fromkeys(("epsilon", "budget"), ("0.3", "8/255")),
    **dict.fromkeys(("steps", "restarts", "limit", "eot", "draws", "epochs", "seed", "memory"), ("1", "2")),
    **dict.fromkeys(("preset", "pretrained"), ("cnn-mnist", "adv-linf-mnist")),
    "data": ("mnist-embedded",),
    "split": ("test",),
    "device": ("cpu",),
}
"""Words that fit a flag."""


def commands() -> dict[str, Any]:
    """The parsers of the commands by name."""
    return next(action for action in parser()._actions if isinstance(action.choices, dict)).choices


@st.composite
def command_lines(draw: Any, name: str) -> list[str]:
    """A command with some of its flags; each takes a word that may be anything."""
    actions = commands()[name]._actions
    words, odd = [name], draw(st.sampled_from([None, *(action.dest for action in actions)]))
    for action in actions:
        if action.dest in ("download", "help") or not (
            action.required or action.dest in (odd, "limit") or draw(st.integers(0, 4)) == 0
        ):
            continue
        words += list(action.option_strings[:1])
        if action.nargs != 0:
            pool = WORDS if action.dest == odd else action.choices or USUAL.get(action.dest, WORDS)
            words.append(str(draw(st.sampled_from(list(pool)))))
    return draw(st.sampled_from([*[words] * 8, words[1:], [*words, draw(st.sampled_from(WORDS))]]))


def command(words: list[str]) -> None:
    """Run a command in a folder with a file, an empty file and an empty folder.

    Raises:
        AssertionError: for a traceback, or another exit code than 0, 1 or 2.
    """

    def line() -> None:
        try:
            code = main(words)
        except SystemExit as stop:
            code = stop.code
        assert code in (0, 1, 2), f"{words}: exit code {code!r}"

    documented(line, str(words))


def commanded(count: int) -> None:
    """Fuzz command lines, as far as the work that they ask for."""

    def stop(*_: Any, **__: Any) -> None:
        raise GenclsError("stopped before the work")

    with pytest.MonkeyPatch.context() as patch:
        for owner, work in (("gencls.eval", "Study"), ("gencls.eval.doctor", "diagnose"), ("gencls.zoo.training", "train")):
            patch.setattr(importlib.import_module(owner), work, stop)
        Path("file").write_text("no study")
        Path("empty").mkdir(exist_ok=True)
        shared(commands(), count, command_lines, command)


FAST = {
    "constructed": (constructed, 210),
    "counted": (counted, 90),
    "attacked": (attacked, 150),
    "commanded": (commanded, 60),
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENCLS_DATA", raising=False)


@pytest.mark.parametrize("part", FAST)
def test_500_calls(part):
    fuzz, count = FAST[part]
    fuzz(count)


@pytest.mark.slow
@pytest.mark.parametrize("part", FAST)
def test_10_000_calls(part):
    fuzz, count = FAST[part]
    fuzz(20 * count)
