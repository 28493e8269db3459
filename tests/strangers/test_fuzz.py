"""Every public constructor, call, statistic, loader and command with arguments of any kind: documented errors only.

What comes back is sound: no NaN in scores or tables, accuracies within their intervals, adversarial images within their ball,
and the caller's tensors and networks as they were.
"""

import contextlib
import importlib
import io
import warnings
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from gencls.cli import main, parser
from gencls.core import Defense, GenclsError, Transform
from gencls.eval import judge
from tests.strangers.fuzz_values import IMAGES, ODD_MODULES, arguments, value

PACKAGES = ("core", "defenses", "eval", "perceptual", "zoo", "zoo.data", "zoo.training")
MORE = (
    "eval.measures.statistics",
    "defenses.smoothing.confidence",
    "eval.measures.curves",
    "eval.measures.records",
    "eval.report",
)
LOADERS = ("load_state_dict", "load_checkpoint")
ABSTRACT = "is abstract, or a type"
INSIDE = "is for code within forward passes, which checks nothing: reading a value costs time"
RECORD = "is a record that the package fills"
EXEMPT = {
    **dict.fromkeys(("Embedding", "GenclsError", "Latents", "Mix", "Attack", "RandomAutoencoder", "PRESETS"), ABSTRACT),
    **dict.fromkeys(("PAPER_TASKS", "Transform", "Defense", "BayesClassifier", "ImageDistance", "Regularizer"), ABSTRACT),
    **dict.fromkeys(("MultiLatentModel", "ClassConditionalGenerator", "Certified", "ALL_MODES"), ABSTRACT),
    **dict.fromkeys(("NO_GRADIENT", "PLAIN_MODES", "REQUIRED", "WORST_CASE", "McNemar", "FORMAT"), ABSTRACT),
    **dict.fromkeys(("Streams", "branch", "draws", "keyed", "repeated", "rows_per_stream", "select", "stream_seed"), INSIDE),
    **dict.fromkeys(
        (
            "repeat_rows",
            "forward_draws",
            "minimize",
            "check_settings",
            "checked",
            "declared",
            "seeded",
            "check_sigma",
            "check_eval_mode",
        ),
        INSIDE,
    ),
    **dict.fromkeys(("evaluated", "in_eval_mode", "in_mode", "frozen", "plain", "did_you_mean"), INSIDE),
    **dict.fromkeys(("broken", "judged", "same_size", "surely_broken", "surely_right"), INSIDE),
    **dict.fromkeys(("Key", "Evaluation", "Verdict", "Decisions", "StudyCell", "Diagnosis", "Check", "Certificate"), RECORD),
    **dict.fromkeys(("RobustnessBound", "AlphaSearch", "AlphaTrial", "PaperTask", "SuccessCurve", "MinimalRun"), RECORD),
    **dict.fromkeys(("ImageData", "ImagePanel", "Card", "GradientMode"), RECORD),
    **dict.fromkeys(("predict_cost", "progress_bar"), "takes a Study, which is fuzzed itself"),
    "train": "trains: its command line is fuzzed",
    "write_report": "takes what summarize and compare return",
    "save_checkpoint": "writes",
}


def public() -> dict[str, Any]:
    """Everything public by name, but what is exempt."""
    found = {}
    for package in (*PACKAGES, *MORE):
        module = importlib.import_module(f"gencls.{package}")
        found |= {name: getattr(module, name) for name in module.__all__ if name not in EXEMPT}
    checkpoints = importlib.import_module("gencls.zoo.checkpoints.checkpoint")
    return found | {name: getattr(checkpoints, name) for name in LOADERS}


PUBLIC = public()
ATTACKS = {name: made for name, made in PUBLIC.items() if is_dataclass(made) and "threat" in made.__annotations__}
STATISTICS = (
    *("wilson", "wilson_band", "bootstrap_band", "holm", "mcnemar", "pairwise_mcnemar", "clopper_pearson"),
    *("empirical_bernstein", "majority_p_value", "success_rate_curve", "certified_accuracy", "closest_distances"),
    *("robust_accuracy", "summarize", "compare", "complete"),
)
UNUSED = ("load", "AnalysisBySynthesis")
"""What they make is for other images, or of parts that must fit each other."""


@st.composite
def calls(draw: Any, name: str, *, fit: bool = False) -> tuple[str, dict[str, str], bool]:
    """A function by name, expressions for its arguments, and whether none of them is odd: as a rule one is, unless all fit."""
    given_, known = {}, arguments(PUBLIC[name])
    odd = draw(st.sampled_from([None, *known])) if known and not fit else None
    for argument, (fits, others, needed) in known.items():
        if argument == odd:
            given_[argument] = draw(st.sampled_from(others))
        elif needed or draw(st.booleans()):
            given_[argument] = draw(st.sampled_from(fits))
    return name, given_, odd is None


def state_of(values: dict[str, Any]) -> dict[str, Any]:
    """Tensors and networks among arguments, to be compared."""
    kept: dict[str, Any] = {}
    for name, one in values.items():
        if isinstance(one, torch.Tensor):
            kept[name] = (one.detach().clone(), one.requires_grad)
        elif isinstance(one, nn.Module):
            kept[f"{name}, flags"] = [(key, part.training) for key, part in one.named_modules()]
            kept[f"{name}, gradients"] = [(key, part.requires_grad, part.grad) for key, part in one.named_parameters()]
            kept |= {f"{name}.{key}": (part.detach().clone(), None) for key, part in one.state_dict().items()}
    return kept


def same(before: Any, after: Any) -> bool:
    """Whether nothing has changed, NaN included."""
    if isinstance(before, tuple) and isinstance(before[0], torch.Tensor):
        a, b = before[0], after[0]
        return before[1] == after[1] and a.dtype == b.dtype and a.shape == b.shape and _equal(a, b)
    return bool(before == after)


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.is_sparse:
        a, b = a.to_dense(), b.to_dense()
    return bool(((a == b) | (a != a) & (b != b)).all())


def check_sound(result: Any, where: str) -> None:
    """No NaN where there are scores, no accuracy outside its interval."""
    if isinstance(result, pandas.DataFrame) and len(result):
        for name, low, high in (
            ("accuracy", "ci_low", "ci_high"),
            ("robust_accuracy", "ci_low", "ci_high"),
            ("majority_accuracy", "majority_low", "majority_high"),
            ("success_rate", "wilson_low", "wilson_high"),
        ):
            if name in result and {low, high} <= set(result):
                rows = result[[low, name, high]].astype(float).dropna()
                slack = 1e-9
                assert (rows[low] <= rows[name] + slack).all(), f"{where}: {name} below its interval\n{rows}"
                assert (rows[name] <= rows[high] + slack).all(), f"{where}: {name} above its interval\n{rows}"
                assert rows.to_numpy().min(initial=0) >= -slack, where
                assert rows.to_numpy().max(initial=1) <= 1 + slack, where
        if {"n", "robust_accuracy"} <= set(result):
            assert result.loc[result["n"] > 0, "robust_accuracy"].notna().all(), f"{where}: NaN"
    interval = isinstance(result, tuple) and where.startswith(("wilson(", "clopper_pearson("))
    if interval and all(isinstance(part, float) for part in result):
        assert 0 <= result[0] <= result[1] <= 1, f"{where}: {result}"
    for part in result if isinstance(result, tuple) else (result,):
        if isinstance(part, float | np.ndarray) and np.asarray(part).dtype.kind == "f":
            assert not np.isnan(part).any(), f"{where}: NaN"


def run(call: tuple[str, dict[str, str], bool]) -> None:
    """Make the call, and use what it makes if no argument was odd.

    Raises:
        AssertionError: for an error that is not documented, or a result that is not sound.
    """
    name, codes, fit = call
    where = f"{name}({', '.join(f'{key}={code}' for key, code in codes.items())})"
    values = {key: value(code) for key, code in codes.items()}
    before, result = state_of(values), []
    documented(lambda: result.append(PUBLIC[name](**values)), where)
    after = state_of(values)
    changed = [key for key in before if not same(before[key], after[key])]
    assert not changed, f"{where}: changed {changed}"
    if result and (fit or not isinstance(result[0], nn.Module)) and name not in UNUSED:
        documented(lambda: used(result[0], where), where)


def documented(call: Callable[[], object], where: str) -> None:
    """Make a call; an error that is not documented is one of the test."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            call()
        except GenclsError:
            return
        except AssertionError:
            raise
        except Exception as error:
            raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error


def used(result: Any, where: str) -> None:
    """Ask a defense for scores, a transform for images; look at anything else."""
    if isinstance(result, Defense | Transform):
        found = result.eval()(IMAGES.clone())
        assert isinstance(found, torch.Tensor), where
        shape = (3, result.num_classes) if isinstance(result, Defense) else tuple(IMAGES.shape)
        assert tuple(found.shape) == shape, f"{where}: {tuple(found.shape)}"
        assert bool(torch.isfinite(found).all()), f"{where}: NaN or infinity"
    else:
        check_sound(result, where)


def attack(call: tuple[str, dict[str, str], bool], inputs: dict[str, str]) -> None:
    """Run an attack, and judge what comes out."""
    name, codes, _ = call
    where = f"{name}({', '.join(f'{key}={code}' for key, code in codes.items())})({', '.join(inputs.values())})"
    try:
        made = ATTACKS[name](**{key: value(code) for key, code in codes.items()})
    except GenclsError:
        return
    values = {key: value(code) for key, code in inputs.items()}
    before = state_of(values)

    def assault() -> None:
        found = made(values["model"], values["images"], values["labels"])
        assert isinstance(found, torch.Tensor), where
        assert found.shape == values["images"].shape, where
        assert not found.requires_grad or values["images"].requires_grad, where
        judged = judge(values["model"], values["images"], found, made.threat, count=1, labels=values["labels"])
        assert bool(judged.valid.all()), f"{where}: left [0, 1] or the ball by {judged.left_range}, {judged.left_ball}"

    documented(assault, where)
    changed = [key for key, one in state_of(values).items() if not same(before[key], one)]
    assert not changed, f"{where}: changed {changed}"


def examples(count: int) -> Any:
    """Settings of hypothesis: the same calls every time."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


def test_every_public_name_is_fuzzed():
    unknown = {}
    for name, function in PUBLIC.items():
        try:
            arguments(function)
        except (LookupError, TypeError, ValueError) as error:
            unknown[name] = str(error)
    assert not unknown, "tell tests/strangers/fuzz_values.py of these arguments, or exempt the name"
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
    assert not refused, "tell tests/strangers/fuzz_values.py what fits these"


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
