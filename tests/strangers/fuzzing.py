"""A fuzzed call: what is called, what must stay as it was, and which errors are documented."""

import contextlib
import importlib
import io
import warnings
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import pandas
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from torch import nn

from gencls.core import Defense, GenclsError, Transform
from gencls.eval import judge
from gencls.eval.doctor.diagnosis import read_diagnoses
from gencls.zoo.checkpoints.checkpoint import load_checkpoint
from gencls.zoo.checkpoints.reading import load_state_dict
from tests.strangers.fuzz_arguments import arguments
from tests.strangers.fuzz_values import IMAGES, value

PACKAGES = ("core", "defenses", "eval", "perceptual", "zoo", "zoo.data", "zoo.training")
MORE = (
    "eval.measures.statistics",
    "defenses.smoothing.confidence",
    "eval.measures.success_rates",
    "eval.measures.records",
    "eval.measures.fid",
    "eval.measures.mmd",
)
READERS = (read_diagnoses, load_state_dict, load_checkpoint)
ABSTRACT = "is abstract, or a type"
INSIDE = "is for code within forward passes, which checks nothing: reading a value costs time"
RECORD = "is a record that the package fills"
EXEMPT = {
    **dict.fromkeys(("BlockwiseGenerator", "Embedding", "GenclsError", "Latents", "Mix", "Attack"), ABSTRACT),
    **dict.fromkeys(("PAPER_TASKS", "Transform", "Defense", "BayesClassifier", "ImageDistance", "Regularizer"), ABSTRACT),
    **dict.fromkeys(("MultiLatentModel", "ClassConditionalGenerator", "Certified", "ALL_MODES"), ABSTRACT),
    **dict.fromkeys(
        ("RandomAutoencoder", "PRESETS", "EXACT", "NO_GRADIENT", "PLAIN_MODES", "REQUIRED", "WORST_CASE", "McNemar", "FORMAT"),
        ABSTRACT,
    ),
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
            "check_eval_mode",
        ),
        INSIDE,
    ),
    **dict.fromkeys(("evaluated", "in_eval_mode", "in_mode", "frozen", "plain", "did_you_mean"), INSIDE),
    **dict.fromkeys(("broken", "judged", "same_size", "surely_broken", "surely_right"), INSIDE),
    **dict.fromkeys(("Key", "Evaluation", "Verdict", "Decisions", "StudyCell", "Diagnosis", "Certificate"), RECORD),
    **dict.fromkeys(("RobustnessBound", "AlphaSearch", "AlphaTrial", "PaperTask", "SuccessCurve", "MinimalRun"), RECORD),
    **dict.fromkeys(("ImageData", "Card", "GradientMode"), RECORD),
    **dict.fromkeys(("predict_cost", "progress_bar"), "takes a Study, which is fuzzed itself"),
    "train": "trains: its command line is fuzzed",
    "save_checkpoint": "writes",
    "DISTS": "takes the weights of a VGG-16, which is slow to make",
}


def public() -> dict[str, Any]:
    """Everything public by name, but what is exempt."""
    found = {}
    for package in (*PACKAGES, *MORE):
        module = importlib.import_module(f"gencls.{package}")
        found |= {name: getattr(module, name) for name in module.__all__ if name not in EXEMPT}
    return found | {reader.__name__: reader for reader in READERS}


PUBLIC = public()
ATTACKS = {name: made for name, made in PUBLIC.items() if is_dataclass(made) and "threat" in made.__annotations__}
STATISTICS = (
    *("wilson", "wilson_band", "bootstrap_band", "holm", "mcnemar", "pairwise_mcnemar", "clopper_pearson"),
    *("bootstrap_counts", "percentile_interval", "mean_similarity", "unbiased_mmd"),
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
