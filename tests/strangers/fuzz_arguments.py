"""Which values a fuzzed argument takes: by its name, by its type, by who asks for it."""

import collections.abc
import inspect
import types
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from torch import Tensor, nn

from gencls.core import BayesClassifier, ClassConditionalGenerator, Defense, ImageDistance, MultiLatentModel, Transform
from gencls.defenses import AnalysisBySynthesis, GaussianBlur, MLVGMPurification, Regularizer
from gencls.eval import Decisions, Protocol, StudyCell, ThreatModel

ODD = [
    *(
        "None",
        "True",
        "NAN",
        "INF",
        "-INF",
        "-1",
        "0",
        "-0.5",
        "2.5",
        "1e300",
        "1e-300",
        "'word'",
        "''",
        "'3'",
        "b'x'",
        "[]",
        "{}",
    ),
    *("object()", "[1, 2]", "[NAN]", "[None]", "['a']", "np.array([1.0, 2.0])", "np.float64(NAN)", "np.bool_(True)", "2 + 3j"),
    *(
        "torch.tensor(NAN)",
        "torch.zeros(0)",
        "torch.zeros(2, 2)",
        "'\\ud800'",
        "lambda *a, **k: None",
        "np.zeros((0, 2))",
        "int",
    ),
]
ODD_MODULES = [
    *("small_cnn().train()", "small_cnn(3)", "small_cnn(1)", "small_cnn().double()", "small_cnn().half()", "nn.Identity()"),
    *("nn.Sequential()", "Answers(lambda x: x.new_full((len(x), 4), NAN))", "Answers(lambda x: None)"),
    *(
        "Answers(lambda x: x.new_full((len(x), 4), INF))",
        "Answers(lambda x: x.new_zeros(len(x)))",
        "Answers(lambda x: x.new_zeros(0, 4))",
    ),
    *(
        "Answers(lambda x: x.new_zeros(len(x), 4) > 0)",
        "Answers(lambda x: 1 / 0)",
        "Answers(lambda x: (x.new_zeros(len(x), 4),))",
    ),
    *(
        "Answers(lambda x: x.new_zeros(len(x), 4))",
        "Answers(lambda x: x.flatten(1)[:, :4].detach())",
        "Answers(lambda x: x.new_zeros(len(x), 4, dtype=torch.complex64))",
    ),
    "Answers(lambda x: x.flatten(1)[:1, :4])",
]
ODD_IMAGES = [
    *("images()[:1]", "images()[:0]", "images()[0]", "images() * 255", "images() - 1", "images() * NAN", "images().double()"),
    *("images().half()", "images().bfloat16()", "(images() * 255).to(torch.uint8)", "images().numpy()", "images().tolist()"),
    *(
        "torch.rand(3, 3, 8, 8)",
        "torch.rand(3, 1, 5, 7)",
        "torch.rand(3, 1, 1, 1)",
        "torch.zeros(3, 0, 8, 8)",
        "images().flip(0).mT",
    ),
    *("images().requires_grad_()", "images().to_sparse()", "images().to(torch.complex64)", "images() > 0.5"),
]
ODD_LABELS = [
    *("labels()[:1]", "labels()[:0]", "labels() - 1", "labels() + 1", "labels().int()", "labels().float()", "labels().numpy()"),
    *("labels().tolist()", "labels()[:, None]", "torch.tensor(0)", "torch.full((3,), 2**62)", "labels() > 0"),
]
ODD_TABLES = [
    *(
        "pandas.DataFrame()",
        "table().iloc[:0]",
        "table(correct=NAN)",
        "table(correct=2.0)",
        "table(distance=-1.0)",
        "table(epsilon=0)",
    ),
    *(
        "table(seed=None)",
        "table(defense=1)",
        "table(attack='worst case')",
        "table(valid=False)",
        "table(norm='l7')",
        "table(draws=NAN)",
    ),
    *("table(majority_correct=0.5)", "table(distance=NAN)", "table(distance=INF)", "table(warnings=None)", "table(valid=None)"),
    *(
        "table(epsilon='8/255')",
        "table(claimed='no')",
        "table(forwards=None)",
        "table(seconds='long')",
        "table(clean_correct=-1)",
    ),
    *(
        "table(sample_hash='x')",
        "table(eight_bit=None)",
        "table(undecided='?')",
        "table(gradient=None)",
        "table(predictions='[1]')",
    ),
]
_THREATS = [*("ThreatModel('linf', 0.1)", "ThreatModel('l2', 0.5)", "ThreatModel('l2')", "ThreatModel('linf')")]
_BY_TYPE: dict[Any, list[str]] = {
    int: ["1", "2", "3", "4", "np.int64(2)", "torch.tensor(2)"],
    float: ["0.3", "8 / 255", "1", "0.05", "np.float32(0.25)", "torch.tensor(0.5)", "Fraction(1, 3)"],
    bool: ["True", "False"],
    str: ["'cnn-mnist'", "'pgd-linf'", "'test'", "'mnist-embedded'", "'cpu'", "'l2'"],
    type(None): ["None"],
    Path: ["Path('nowhere')"],
    Defense: ["PlainClassifier(small_cnn(), 4).eval()", "noisy()", "abs_small()", "NoisyLogits(small_cnn(), 0.1)"],
    BayesClassifier: ["abs_small()"],
    Transform: ["GaussianNoise(0.1)", "GaussianBlur(1.0)", "MLVGMPurification(MeanRowsPixels(), 'linear')"],
    MultiLatentModel: ["MeanRowsPixels()"],
    MLVGMPurification: ["MLVGMPurification(MeanRowsPixels(), 'linear')"],
    ClassConditionalGenerator: ["SigmoidDecoders()"],
    Regularizer: ["gencls.defenses.GaussianKL()", "gencls.defenses.Ball(5.0)"],
    AnalysisBySynthesis: ["abs_small()"],
    StudyCell: ["StudyCell('a', 'x', 'exact', 0, 0, 'k')"],
    ImageDistance: ["gencls.perceptual.L2()", "gencls.perceptual.SquaredL2()"],
    GaussianBlur: ["GaussianBlur(1.0)"],
    nn.Module: ["small_cnn()", "PlainClassifier(small_cnn(), 4).eval()", "noisy()", "abs_small()"],
    ThreatModel: _THREATS,
    Protocol: ["Protocol(eot_samples=1, judge_draws=2)"],
    Decisions: ["Decisions(torch.zeros(3, 1, dtype=torch.int64), 1)"],
}
_ATTACKS = ["FGSM(ThreatModel('linf', 0.1))", "PGD(ThreatModel('l2', 0.5), steps=2)", "DDN(ThreatModel('l2'), steps=2)"]
_BY_NAME: dict[str, list[str]] = {
    **dict.fromkeys(("images", "clean", "adversarial"), ["images()"]),
    "labels": ["labels()"],
    "attack": _ATTACKS,
    "threat": _THREATS[:2],
    "records": ["table()"],
    "epsilon": ["0.1", "8 / 255", "1", "np.float32(0.25)", "torch.tensor(0.5)"],
    "distances": ["torch.rand(3)", "[0.1, INF, 0.0]", "np.array([0.5, 0.25])"],
    "successes": ["2", "[1, 2]", "0.5"],
    "count": ["3", "4"],
    "n": ["4", "9"],
    "alpha": ["0.05", "0.5"],
    "values": ["np.ones(3)", "[1.0, INF]"],
    "statistic": ["lambda x: np.asarray(x).mean(axis=1, keepdims=True)"],
    "p_values": ["[0.1, 0.5]", "np.array([0.01])"],
    "a_correct": ["[True, False]", "np.array([True, True])"],
    "b_correct": ["[True, False]", "np.array([False, True])"],
    "correct": ["{'a': [True, False], 'b': [True, True]}"],
    "mean": ["0.5", "[0.1, 0.9]"],
    "variance": ["0.1", "0"],
    "first": ["3", "[2, 5]"],
    "second": ["1", "0"],
    "confidence": ["0.95", "0.5"],
    "epsilons": ["[0.1, 0.3]", "(8 / 255,)"],
    "at": ["{}", "{'l2': [0.1, 0.3]}"],
    "effort": ["Effort('small', 2, 1, 1, 1, 1, 1, 2, 1, 1)"],
    "name": ["'cnn-mnist'", "'pgd-linf'", "'mnist-embedded'", "'nothing'"],
    "device": ["'cpu'"],
    "num_classes": ["4", "np.int64(4)", "4", "4"],
    "batches": ["[(images(), labels())]", "[(images()[:1], labels()[:1]), (images()[1:], labels()[1:])]"],
    "attacks": ["{'x': FGSM(ThreatModel('linf', 0.1))}", "{'x': GaussianNoiseAttack(ThreatModel('l2', 0.5), tries=1)}"],
    "defenses": ["{'d': small_cnn()}", "{'d': noisy(), 'e': small_cnn()}"],
    "mode": ["'exact'", "'frozen'", "None"],
    "modes": ["None", "['exact']"],
    "task": ["'CelebA-gender'", "'word'"],
    "norm": ["'l2'", "'linf'"],
    "image_shape": ["(1, 8, 8)"],
    "latent_shape": ["(3,)"],
    "about": ["{'data': 'random'}"],
    "objective": ["lambda a: float(torch.as_tensor(a).sum())", "'maximize'"],
    "start": ["lambda x: (torch.zeros(len(x), 4, 3),)", "(torch.zeros(2, 3),)"],
    "generator": ["SigmoidGenerator()"],
    "network": ["NoisyRows()"],
    **dict.fromkeys(("encoder", "discriminator"), ["None"]),
    "seed": ["0", "1", "np.int64(2)"],
    "seeds": ["(0,)", "[0, 1]"],
    "folder": ["'nowhere'", "Path('study')"],
    "starts": ["2", "None"],
    "radii": ["[0.1, 0.5]"],
    "loss": ["lambda s, y: s.logsumexp(1)", "'cross-entropy'"],
    "certificates": ["types.SimpleNamespace(labels=labels(), radii=torch.rand(3))"],
    "value": ["small_cnn()", "images()"],
    "owner": ["PGD(ThreatModel('l2', 0.5))"],
    "function": ["lambda x: x"],
}
_PURIFICATION = "MLVGMPurification(MeanRowsPixels(), 'linear').eval()"
_DIGITS = ["'mnist-embedded'", "'nothing'"]
_STARTS = ["None", "images()", "2"]
_INVERSIONS = ("Direct", "DirectPlus", "Enc", "EncPlus", "EncD", "EncDPlus")
_BY_OWNER: dict[tuple[str, str], list[str]] = {
    **{(made, "generator"): ["LinearBlocks()"] for made in (*_INVERSIONS, "BlockCodes")},
    **{(made, "encoder"): ["Answers(lambda x: x.new_zeros(len(x), 3))"] for made in _INVERSIONS},
    ("EncodedStart", "encoder"): ["Answers(lambda x: x.new_zeros(len(x), 3))"],
    ("Elimination", "rounds"): ["((1, 0.5),)", "((2, 1.0), (4, 0.5))"],
    **{("interpolated", which): ["(Posterior(torch.rand(3, 4, 3)),)"] for which in ("first", "second")},
    ("LPIPS", "trunk"): ["squeeze_trunk()"],
    ("LPIPS", "net"): ["'squeeze'"],
    ("LPIPS", "size"): ["64", "32"],
    ("FeatureDistance", "layers"): ["('0',)", "('1', '4')"],
    ("load_distance", "name"): ["'features-mnist'", "'nothing'"],
    ("load_distance", "weights"): ["None"],
    ("find_device", "name"): ["'cpu'"],
    ("ClassFactors", "factors"): ["(0.5, 1, 2, 1)"],
    ("DiscriminatorPenalty", "discriminator"): ["nn.Sequential(nn.Flatten(), nn.Linear(64, 1))"],
    ("EncoderStart", "encoder"): ["Answers(lambda x: (torch.zeros(len(x), 3), torch.zeros(len(x), 3)))"],
    **dict.fromkeys((("PurifiedAccuracy", "purification"), ("fgsm_examples", "purification")), [_PURIFICATION]),
    ("alpha_schedule", "name"): ["'linear'", "'reversed-cosine'"],
    ("compare_to_bound", "distances"): ["{'a': torch.rand(3)}"],
    ("compare_to_bound", "bound"): ["torch.rand(3)"],
    ("learn_alphas", "starts"): ["None", "[[0.5]]"],
    ("learn_alphas", "objective"): ["lambda a: float(torch.as_tensor(a).sum())"],
    ("learn_alphas", "variance"): ["None"],
    **dict.fromkeys((("lower_bound", "distances"), ("lower_bound", "losses")), ["torch.rand(3, 4)"]),
    ("lower_bound", "error"): ["torch.rand(3)"],
    ("paper_blur", "resolution"): ["64", "32"],
    ("robustness_bound", "codes"): ["4", "8"],
    ("robustness_bound", "exact"): ["False", "True"],
    ("GrowingNoise", "sizes"): ["3", "2"],
    ("GrowingNoise", "smallest"): ["0.1", "8 / 255"],
    ("DeepFool", "candidates"): ["3", "2"],
    ("load_data", "download"): ["False"],
    ("VariationalSmoothing", "objective"): ["'maximize'", "'minimize'"],
    **{(attack, "threat"): ["ThreatModel('l2')"] for attack in ("DDN", "CarliniWagner", "DeepFool", "RestartedCarliniWagner")},
    **{(attack, "threat"): ["ThreatModel('linf')", "ThreatModel('l2')"] for attack in ("GrowingNoise", "LatentDescent")},
    **{(made, "starts"): _STARTS for made in ("FMN", "Boundary", "thesis_attacks")},
    ("Boundary", "threat"): ["ThreatModel('l2')"],
    ("SparseRS", "threat"): ["ThreatModel('l0', 5)", "ThreatModel('l0', 1.5)"],
    ("Boundary", "converged"): ["0.001"],
    **{(made, "features"): ["nn.Flatten().eval()"] for made in ("frechet_distance", "kernel_distance")},
    **{(made, which): ["images()"] for made in ("frechet_distance", "kernel_distance") for which in ("real", "made")},
    ("kernel_distance", "subset_size"): ["2", "3"],
    ("mean_similarity", "features"): ["torch.rand(4, 3)"],
    **{("unbiased_mmd", which): ["torch.rand(4, 3)"] for which in ("real", "made")},
    ("unbiased_mmd", "counts"): ["None", "torch.ones(2, 4)", "torch.zeros(2, 4)"],
    ("Penultimate", "network"): ["small_cnn()"],
    ("FMN", "threat"): ["ThreatModel('linf')", "ThreatModel('l2')"],
    ("attack_by_name", "name"): ["'pgd-linf'", "'ddn-l2'", "'nothing'"],
    ("preset_by_name", "name"): ["'default-linf'", "'nothing'"],
    ("closest_distances", "records"): ["table().query(\"defense == 'a'\")", "table()"],
    ("judge", "most"): ["None", "4"],
    ("mlvgm_attacks", "task"): ["'gender'", "'cars'"],
    **{(made, "images"): ["images()"] for made in ("Study", "diagnose")},
    ("diagnose", "threat"): ["None"],
    **{(made, "name"): _DIGITS for made in ("load_data", "split_names", "count_images")},
    **{(made, "split"): ["'test'", "'train'", "'nothing'"] for made in ("load_data", "count_images")},
    ("load_generator", "name"): ["'nvae-mnist'", "'nothing'"],
    ("load_generator", "weights"): ["None"],
    **{(made, "path"): ["WEIGHTS / 'cnn-mnist.safetensors'", "'nowhere'"] for made in ("load_state_dict", "load_checkpoint")},
    ("load_state_dict", "key"): ["None", "'nothing'"],
    ("run_cell", "clean"): ["None"],
    ("run_cell", "hashes"): ["None", "['a', 'b', 'c']"],
    **{(made, "folder"): ["finished()", "'nowhere'"] for made in ("read_study", "read_records", "report_study")},
    ("read_adversarials", "folder"): ["finished()"],
    ("read_adversarials", "cell"): ["gencls.eval.Study('finished', **settings()).cells()[0]"],
    ("read_diagnoses", "path"): ["diagnosed()", "Path('nowhere')"],
}
"""Where a name says something else than elsewhere."""
_OF_CALLERS = {(f"check_{what}", name) for what in ("images", "labels", "eval_mode") for name in ("name", "channels", "what")}
_OF_CALLERS |= {("key_of", "name"), ("check_labels", "num_classes"), ("check_labels", "count")}
"""What code says of itself when it checks what users gave."""
_BY_TYPE_FIRST = ("start", "loss", "generator", "network", "radius")
_ODD_BY_NAME = {
    "threat": _THREATS,
    **dict.fromkeys(("images", "clean", "adversarial"), ODD_IMAGES),
    "labels": ODD_LABELS,
    "records": ODD_TABLES,
}

LINES = frozenset(
    [
        "steps",
        "restarts",
        "queries",
        "starts",
        "samples",
        "draws",
        "tries",
        "realisations",
        "sizes",
        "searches",
        "bisections",
        "targets",
        "smoothing_draws",
        "smoothing",
        "judge_draws",
        "eot_samples",
        "codes",
        "budget",
        "limit",
        "measured",
        "epochs",
        "resamples",
        "per_pass",
        "effort",
        "most",
        "most_draws",
        "smoothing_steps",
        "out",
        "most_rows",
        "count",
        "sizes",
        "memory_budget",
        "keep_bytes",
        "window",
        "warm_steps",
        "subsets",
        "subset_size",
    ]
)


def known(name: str, hint: Any) -> list[str]:
    """Expressions that fit an argument; empty if none are known."""
    named = _BY_NAME.get(name, [])
    typed = _typed(hint)
    return typed or named if name in _BY_TYPE_FIRST else named or typed


def arguments(function: Any) -> dict[str, tuple[list[str], list[str], bool]]:
    """By name of each argument: expressions that fit, others, and whether it must be given.

    Raises:
        LookupError: for an argument of which nothing is known.
    """
    signature = inspect.signature(function)
    made = function.__init__ if inspect.isclass(function) else function
    hints = _hints(function if is_dataclass(function) else made)
    found = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        hint = hints.get(name, Any)
        fit, needed = _BY_OWNER.get((function.__name__, name)) or known(name, hint), parameter.default is parameter.empty
        if not fit and needed:
            raise LookupError(f"{name}: {hint}")
        odd = _ODD_BY_NAME.get(name, []) + ODD + (ODD_MODULES if _is_module(hint) else [])
        if _is_module(hint, own=True) or get_origin(hint) is collections.abc.Callable:  # what functions of users do is theirs
            odd = [code for code in odd if code not in ("int", "lambda *a, **k: None")]
        odd = fit if (function.__name__, name) in _OF_CALLERS else odd
        if fit:
            found[name] = (fit, odd, needed or name in LINES)
    return found


def _hints(annotated: Any) -> dict[str, Any]:
    if is_dataclass(annotated):
        return get_type_hints(annotated)
    found = {}
    for name, hint in getattr(annotated, "__annotations__", {}).items():
        try:
            found[name] = get_type_hints(types.SimpleNamespace(__annotations__={name: hint}), annotated.__globals__)[name]
        except NameError:  # of a library that is imported for types only
            found[name] = Any
    return found


def _typed(hint: Any) -> list[str]:
    origin, inner = get_origin(hint), get_args(hint)
    if isinstance(hint, TypeVar) or hint in (Any, object):
        return []
    if origin is Literal:
        return [repr(choice) for choice in inner]
    if origin in (Union, types.UnionType):
        return [code for one in inner for code in _typed(one)]
    if origin in (tuple, list, collections.abc.Sequence) and inner:
        items = [code for code in (_typed(inner[0]) or ["1"])[:3]]
        return [f"({items[0]},)", f"[{', '.join(items)}]"]
    if origin is collections.abc.Mapping and inner:
        items = _typed(inner[1])
        return [f"{{'a': {items[0]}}}"] if items else []
    if hint is Tensor:
        return ["torch.rand(3)", "torch.zeros(3, 1, dtype=torch.int64)"]
    kind = origin or hint
    if kind in _BY_TYPE:
        return _BY_TYPE[kind]
    if (
        inspect.isclass(kind)
        and is_dataclass(kind)
        and all(field.default is not MISSING or field.default_factory is not MISSING for field in fields(kind) if field.init)
    ):
        return [f"gencls_class({kind.__module__!r}, {kind.__qualname__!r})()"]
    return []


def _is_module(hint: Any, *, own: bool = False) -> bool:
    """Whether any network may stand there; with ``own`` also a class of ours that is no contract."""
    kinds = [get_origin(one) or one for one in (hint, *get_args(hint))]
    modules = [kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, nn.Module)]
    return any(own or kind is nn.Module or inspect.isabstract(kind) for kind in modules)
