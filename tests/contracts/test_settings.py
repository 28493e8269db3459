"""No public class or function takes NaN, a boolean or a word for a number: what is new is found and tried by itself."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from math import inf, nan
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import torch

import gencls.core
import gencls.defenses
import gencls.eval
import gencls.perceptual
import gencls.zoo
import gencls.zoo.training
from gencls.core import GenclsError
from gencls.defenses import Posterior
from gencls.eval import ThreatModel
from gencls.eval.attacks.parts.base import norms_of
from gencls.eval.attacks.presets import preset_by_name
from gencls.eval.attacks.thesis_set import ThesisBudget
from gencls.eval.doctor.patient import Effort
from gencls.eval.threats.protocol import Threat
from gencls.zoo.training.presets import PRESETS, preset
from gencls.zoo.training.views import adversarial, padded_crops, perturbations, photo_views, random_views
from tests.contracts.tables import public_classes

MODULES = (gencls.core, gencls.eval, gencls.defenses, gencls.perceptual, gencls.zoo, gencls.zoo.training)

OTHERS = (
    Effort,
    ThesisBudget,
    preset_by_name,
    gencls.defenses.RandomizedSmoothing.predict,
    gencls.defenses.RandomizedSmoothing.certify,
    padded_crops.PaddedCrops,
    photo_views.PhotoViews,
    random_views.RandomViews,
    *(
        made
        for room in (perturbations, adversarial)
        for made in vars(room).values()
        if isinstance(made, type) and is_dataclass(made) and made.__module__ == room.__name__
    ),
    *sorted({type(preset(name)) for name in PRESETS}, key=str),
)
"""Settings that have no name at the top of a package; those of defenses and distances are found in their files."""

NOT_SETTINGS = {
    "results": {"AlphaSearch", "AlphaTrial", "Certificate", "Decisions", "Evaluation", "PaperTask", "RobustnessBound"}
    | {"Diagnosis", "StudyCell", "Verdict", "ImageData", "Card"},
    "called at every look of an attack, where a check would cost": {"Streams", "branch", "draws", "forward_draws", "identified"}
    | {"keyed", "repeat_rows", "repeated", "rows_per_stream", "seeded", "select", "stream_seed"},
    "checks": {"check_eval_mode", "check_images", "check_labels", "check_settings", "checked"},
    "reads tables, and checks its numbers itself": {"certified_accuracy", "closest_distances", "compare", "robust_accuracy"}
    | {"success_rate_curve", "summarize"},
}

BAD: dict[Any, tuple[Any, ...]] = {
    int: (nan, inf, True, 2.0, "3", None),
    float: (nan, inf, True, "3", None),
    bool: (nan, 1, "no", None),
}
"""Type -> values that are not of it."""

PLACEHOLDERS = {
    **dict.fromkeys((Threat, ThreatModel), ThreatModel("l2")),
    type(preset("cgan-mnist")): preset("cgan-mnist"),
    Posterior: Posterior(torch.zeros(1)),
    **{int: 2, float: 0.5, bool: False, str: "word", torch.Tensor: torch.zeros(1)},
}
"""Type -> a value of it."""


class Anything:
    """Stands for any class that is not among them: it has whatever is asked for."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)

    def __call__(self) -> None:
        """Nothing."""


def numeric(hint: Any) -> bool:
    """Whether a type is made of numbers, booleans or literals; names and paths are looked up, and not found."""
    if get_origin(hint) is Callable or isinstance(hint, list):
        return False
    return hint in BAD or get_origin(hint) is Literal or any(map(numeric, get_args(hint)))


def bad_values(hint: Any) -> list[Any]:
    kind, of = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        values = [value for part in of if numeric(part) for value in bad_values(part)]
        return [value for value in values if value is not None or NoneType not in of]
    if kind is Literal:
        return ["another", True, 3, None]
    if kind in (tuple, Sequence):
        return [*([value] * max(len(of), 1) for value in bad_values(of[0])), 3, None]
    return list(BAD.get(kind, ()))


def placeholder(hint: Any) -> Any:
    """Something that passes the check, for arguments that are not under test."""
    kind, of = get_origin(hint) or hint, [part for part in get_args(hint) if part is not Ellipsis]
    if kind is Literal:
        return of[0]
    if kind in (tuple, Sequence):
        return tuple(map(placeholder, of))
    if kind in (Union, UnionType):
        return placeholder(of[0])
    if kind is Mapping:
        return {}
    return len if kind is Callable else PLACEHOLDERS.get(hint, Anything())


def arguments(made: Any) -> dict[str, tuple[Any, bool]]:
    """Name -> annotation, and whether there is no default."""
    if is_dataclass(made):
        hints = get_type_hints(made)
        return {item.name: (hints[item.name], item.default is MISSING) for item in fields(made) if item.init}
    function = inspect.unwrap(made.__init__ if isinstance(made, type) else made)
    parameters = inspect.signature(function).parameters
    annotations = {name: hint for name, hint in function.__annotations__.items() if name != "return"}
    hints = get_type_hints(SimpleNamespace(__annotations__=annotations), function.__globals__)
    return {name: (hint, parameters[name].default is inspect.Parameter.empty) for name, hint in hints.items()}


def settings() -> dict[str, Any]:
    """Name -> class or function that takes numbers."""
    exempt = set().union(*NOT_SETTINGS.values())
    exported = {name: getattr(module, name) for module in MODULES for name in module.__all__}
    public = exported | public_classes(gencls.defenses) | public_classes(gencls.perceptual)
    found = {}
    for made in [*(item for name, item in public.items() if name not in exempt), *OTHERS]:
        own = inspect.isfunction(made) or (isinstance(made, type) and (is_dataclass(made) or inspect.isfunction(made.__init__)))
        if own and not inspect.isabstract(made) and any(numeric(hint) for hint, _ in arguments(made).values()):
            found[f"{made.__module__.removeprefix('gencls.')}.{made.__qualname__}"] = made
    return found


SETTINGS = settings()


@pytest.mark.parametrize("name", SETTINGS)
def test_no_setting_of_another_type_is_taken(name):
    """``@checked`` on a constructor or function refuses them, in a dataclass ``check_settings(self)``."""
    made = SETTINGS[name]
    given = {argument: placeholder(hint) for argument, (hint, required) in arguments(made).items() if required}
    if "threat" in given:
        known = norms_of(made) if hasattr(made, "norms") else ("l2",)
        given["threat"] = ThreatModel("l2" if "l2" in known else known[0])
    me = () if isinstance(made, type) or "self" not in inspect.signature(made).parameters else (object(),)
    for argument, (hint, _) in arguments(made).items():
        for value in bad_values(hint) if numeric(hint) else ():
            with pytest.raises(GenclsError, match=rf"^[\w.]+: expected {argument} to be .*, got "):
                made(*me, **given | {argument: value})


def test_attacks_defenses_and_presets_are_found():
    found = {name.rpartition(".")[2] for name in SETTINGS}
    assert {"PGD", "ThreatModel", "Protocol", "Effort", "ABS", "EoT", "Elimination", "AutoencoderPreset", "train"} <= found
    assert len(SETTINGS) > 60
