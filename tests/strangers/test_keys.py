"""Two different models have two keys, equal ones have one, in every process."""

import copy
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import threading
import traceback
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from random import random as from_python

import numpy
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from gencls.core import GenclsError, fingerprint, frozen, key_of, keyed
from gencls.core.fingerprint import closures
from gencls.eval import APGD, FGSM, NES, PGD, Boundary, GaussianNoiseAttack, Protocol, Study, ThreatModel, Transfer
from gencls.eval.judgement.runner import run_cell
from tests.contracts.defenses import DEFENSES
from tests.strangers.key_pairs import HARMLESS, TEXT, Colour, Holder, Late, all_pairs, edited, linear, shifted, written
from tests.toys import small_cnn

ROOT = Path(__file__).parents[2]
LINF = ThreatModel("linf", 0.1)
PAIRS = all_pairs()
ALONE = {  # a copy refers to what the original refers to, is traced anew, or cannot be made
    "module: weak reference",
    "module: traced",
    "value: proxy",
    "value: sparse rows",
    "value: nested tensor",
    "value: attribute of a tensor",
    "value: quantised tensor",
    "value: quantised by channel",
}


@pytest.mark.parametrize("kind", PAIRS)
def test_one_difference_another_key(kind):
    one, other = PAIRS[kind]
    key = key_of(one(), kind)
    assert key_of(one(), kind) == key
    assert key_of(other(), kind).content != key.content


@pytest.mark.parametrize("kind", [kind for kind in PAIRS if kind not in ALONE])
def test_a_copy_has_the_same_key(kind):
    module = PAIRS[kind][0]()
    assert fingerprint(copy.deepcopy(module)) == fingerprint(module)


@pytest.mark.slow  # torch imports its compiler
def test_behind_the_compiler():
    one, again, other = (key_of(nn.Sequential(torch.compile(linear(seed))), "compiled") for seed in (0, 0, 1))
    assert one == again
    assert one.content != other.content


def halved(module):
    inner = module._orig_mod
    module.forward = lambda images: inner(images) / 2


@pytest.mark.slow  # torch imports its compiler
@pytest.mark.parametrize(
    "change",
    [
        lambda module: module.register_forward_hook(shifted),
        lambda module: module.register_forward_pre_hook(shifted),
        halved,
        lambda module: setattr(module, "forward", torch.compile(linear(1), backend="eager").forward),
        lambda module: setattr(module, "forward", linear(1).forward),
    ],
)
def test_what_is_put_on_a_compiled_module_counts(change):
    module = torch.compile(linear(), backend="eager")
    before = fingerprint(module)
    module(torch.zeros(1, 3))
    assert fingerprint(module) == before
    change(module)
    assert fingerprint(module) != before


def test_there_are_many_kinds():
    assert len(PAIRS) > 150


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_changes_no_result_changes_no_key(kind):
    assert fingerprint(written(edited(*HARMLESS[kind]))) == fingerprint(written(TEXT))


@pytest.mark.parametrize("seed", [pytest.param("0", marks=pytest.mark.slow), "1", pytest.param("2", marks=pytest.mark.slow)])
def test_other_processes_find_the_same_keys(seed):
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    command = [sys.executable, "-W", "ignore", "-m", "tests.strangers.key_pairs"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout)
    ours = {kind: key_of(one(), kind).whole for kind, (one, _) in PAIRS.items()}
    assert theirs == ours


def moved(module):
    return module.to("cpu", memory_format=torch.channels_last)


def without_gradients(module):
    return module.requires_grad_(False)


def trained_and_put_back(module):
    return module.train().eval()


def used(module):
    module(torch.rand(2, 1, 8, 8)).sum().backward()
    return module


def pickled(module):
    return pickle.loads(pickle.dumps(module))


def loaded(module):
    other = small_cnn(seed=1)
    other.load_state_dict(module.state_dict())
    return other


def hooked_for_a_while(module):
    module.register_forward_hook(lambda module, inputs, output: 2 * output).remove()
    return module


@pytest.mark.parametrize(
    "change",
    [moved, without_gradients, trained_and_put_back, used, pickled, loaded, hooked_for_a_while],
    ids=lambda f: f.__name__,
)
def test_the_same_model_keeps_its_key(change):
    assert fingerprint(change(small_cnn())) == fingerprint(small_cnn())


def test_frozen_parameters_do_not_count():
    module = small_cnn()
    before = fingerprint(module)
    with frozen(module):
        assert fingerprint(module) == before


@pytest.mark.parametrize("name", DEFENSES)
def test_use_does_not_change_the_key_of_a_defense(name):
    """Neither a forward pass, nor an attack's look through any gradient mode, nor a copy; caches stay out of it."""
    defense, images = DEFENSES[name](0).eval(), torch.rand(2, 1, 8, 8)
    before = fingerprint(defense)
    with keyed([1, 2]):
        defense(images)
        for surrogate in defense.surrogates().values():
            mine = fingerprint(surrogate)
            surrogate(images.clone().requires_grad_()).sum().backward()
            assert fingerprint(surrogate) == mine
    assert fingerprint(defense) == before
    assert fingerprint(copy.deepcopy(defense)) == before
    assert fingerprint(DEFENSES[name](0).eval()) == before
    assert fingerprint(DEFENSES[name](1).eval()) != before


def test_a_cached_property_does_not_count():
    module = Late()
    before = fingerprint(module)
    module(torch.zeros(1))
    assert "table" in vars(module)
    assert fingerprint(module) == before


def test_a_value_in_place_of_a_cached_property_does_not_count():
    """It cannot be told from one that was computed without running the user's code; the docstring says so."""
    module = Late()
    before = fingerprint(module)
    module.table = torch.ones(4)
    assert fingerprint(module) == before
    assert "put in its place from outside" in " ".join(fingerprint.__doc__.split())


def test_a_handle_of_a_hook_does_not_count():
    """It has the number of a hook of the process."""
    keys = set()
    for _ in range(2):
        module = linear()
        module.handle = module.register_forward_hook(nn.Identity())
        keys.add(fingerprint(module))
    assert len(keys) == 1


def test_a_hook_around_all_modules():
    before = fingerprint(linear())
    handle = register_module_forward_hook(lambda module, inputs, output: output)
    try:
        assert fingerprint(linear()) != before
    finally:
        handle.remove()
    assert fingerprint(linear()) == before


def test_generators_of_the_process_do_not_count():
    def noisy(images):
        return images + random.gauss(0, 1) + numpy.random.normal() + from_python()

    module = Holder([random.random, numpy.random.randn, numpy.random.rand, torch.default_generator, noisy])
    before = fingerprint(module)
    random.random(), numpy.random.rand(), torch.rand(1)
    assert fingerprint(module) == before


def test_a_changed_class_and_a_changed_library(monkeypatch):
    net, relu = written(TEXT), nn.ReLU()
    before = fingerprint(net), fingerprint(relu)
    monkeypatch.setattr(type(net), "limit", 6)
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: x)
    assert fingerprint(net) != before[0]
    assert fingerprint(relu) != before[1]


def test_names_are_those_of_torch(monkeypatch):
    """Of a library names count, whatever stands in its files."""
    before = fingerprint(Holder(nn.functional.relu))
    code = nn.functional.relu.__code__
    other = (lambda x, inplace=False: x).__code__.replace(co_filename=code.co_filename, co_qualname=code.co_qualname)
    monkeypatch.setattr(nn.functional.relu, "__code__", other)
    assert fingerprint(Holder(nn.functional.relu)) == before


def test_a_file_that_was_changed_after_it_was_imported(tmp_path, monkeypatch):
    """What runs is the code that was imported."""
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "stale_network.py"
    path.write_text(TEXT)
    import stale_network

    before = fingerprint(stale_network.Net().eval())
    assert before == fingerprint(written(TEXT))
    path.write_text(edited("inner(x) + 1", "inner(x) + 2"))
    os.utime(path, (1, 1))
    assert fingerprint(stale_network.Net().eval()) not in (before, fingerprint(written(edited("inner(x) + 1", "inner(x) + 2"))))


OPAQUE = {
    "open file": lambda: open(__file__),  # noqa: SIM115
    "generator": lambda: (number for number in ()),
    "thread": lambda: threading.local(),
}


@pytest.mark.parametrize("kind", OPAQUE)
def test_what_cannot_be_seen_into_is_named(kind):
    defense = nn.Sequential(Holder(0), Holder({"a": [OPAQUE[kind]()]}))
    with pytest.raises(GenclsError, match=r"^defense my\.1\.value\['a'\]\[0\]: expected .*; give it .*fingerprint_key"):
        key_of(defense, "defense my")
    if kind == "open file":
        defense[1].value["a"][0].close()


class Keyed(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.name = name
        self.engine = (number for number in ())

    def fingerprint_key(self):
        return self.name


def test_a_key_of_its_own():
    assert fingerprint(nn.Sequential(Keyed("a"))) == fingerprint(nn.Sequential(Keyed("a")))
    assert fingerprint(nn.Sequential(Keyed("a"))) != fingerprint(nn.Sequential(Keyed("b")))
    module = Holder(number for number in ())
    module.fingerprint_key = "version 1"
    assert fingerprint(module) == fingerprint(copy.copy(module))
    with pytest.raises(GenclsError, match=r"Keyed.fingerprint_key: expected a string, .*got int"):
        fingerprint(Keyed(3))


ATTACKS = {
    "pgd": lambda: PGD(LINF, steps=1),
    "nes": lambda: NES(LINF, steps=1, samples=2),
    "noise": lambda: GaussianNoiseAttack(LINF),
    "apgd": lambda: APGD(LINF, steps=1),
    "transfer": lambda: Transfer(small_cnn(seed=1), GaussianNoiseAttack(LINF)),
}
JUDGE = (run_cell, Protocol)

CHANGES = {
    "pgd": ("gencls.eval.attacks.pgd", "rows.step = rows.step + 1", "rows.step = 1 + rows.step", {"pgd", "nes"}),
    "a constant of pgd": ("gencls.eval.attacks.pgd", "SURE_DRAWS = 64", "SURE_DRAWS = 65", {"pgd", "nes", "apgd"}),
    "a docstring of pgd": ("gencls.eval.attacks.pgd", '"""One call of the attack."""', '"""A call."""', set()),
    "noise": (
        "gencls.eval.attacks.noise",
        "class GaussianNoiseAttack:\n",
        "class GaussianNoiseAttack:\n    new = 1\n",
        {"noise", "transfer"},
    ),
    "what is imported late": (
        "gencls.eval.attacks.parts.pyautoattack_attacks",
        "best, _, _, wrong = attack",
        "best, _, _, wrong, *_ = attack",
        {"apgd"},
    ),
    "transfer": (
        "gencls.eval.attacks.transfer",
        "return self.attack.threat",
        "return (self.attack).threat or None",
        {"transfer"},
    ),
    "judge": ("gencls.eval.judgement.judge", "return 2 * right > made", "return 2 * right >= made", {"judge"}),
    "runner": ("gencls.eval.judgement.runner", "_ZERO_GRADIENTS = 0.01", "_ZERO_GRADIENTS = 0.02", {"judge"}),
    "what all share": ("gencls.core.streams.generators", "_WHOLE = -1", "_WHOLE = -3", {*ATTACKS, "judge"}),
    "summary": ("gencls.eval.measures.summary", "import", "_NEW = 1\nimport", set()),
    "another attack": ("gencls.eval.attacks.square", "import", "_NEW = 1\nimport", set()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_code_of_gencls(change, tmp_path, monkeypatch):
    """Which keys change with an edit: of attacks by name, and of what judges all of them."""
    module, old, new, changed = CHANGES[change]
    subjects = {name: make() for name, make in ATTACKS.items()} | {"judge": JUDGE}
    before = {name: key_of(subject, name) for name, subject in subjects.items()}
    original = closures.file_of
    text = Path(original(module)).read_text()
    assert old in text
    copied = tmp_path / "edited.py"
    copied.write_text(text.replace(old, new, 1))
    monkeypatch.setattr(closures, "file_of", lambda name: str(copied) if name == module else original(name))
    closures._named_by.cache_clear()
    after = {name: key_of(subject, name) for name, subject in subjects.items()}
    assert {name for name in before if before[name].whole != after[name].whole} == changed
    assert all(before[name].content == after[name].content for name in before)


def test_a_file_of_gencls_that_was_changed_after_it_was_imported(monkeypatch):
    """What runs is not what stands there now, so that the key is neither the old nor the new one."""
    before = key_of(PGD(LINF), "pgd"), key_of(FGSM(LINF), "fgsm")
    path = str(ROOT / "gencls" / "eval" / "attacks" / "pgd.py")
    monkeypatch.setitem(closures._AT_IMPORT, path, (1, 1))
    assert key_of(PGD(LINF), "pgd").whole != before[0].whole
    assert key_of(PGD(LINF), "pgd").content == before[0].content
    assert key_of(FGSM(LINF), "fgsm") == before[1]


def test_settings_and_content_of_attacks():
    pools = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2), torch.full((2, 1, 2, 2), 1e-4), None
    keys = [key_of(Boundary(ThreatModel("l2"), starts=pool), "boundary").content for pool in pools]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    keys = [key_of(Transfer(small_cnn(seed=seed), PGD(LINF)), "transfer").content for seed in (0, 0, 1)]
    assert keys[0] == keys[1] != keys[2]
    assert key_of(PGD(LINF, steps=5), "pgd").content != key_of(PGD(LINF), "pgd").content


def in_new_process(task, *arguments):
    """What a function returns in a child of this process, in which it may import what it likes."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            answer = {"returned": task(*arguments)}
        except BaseException:
            answer = {"raised": traceback.format_exc()}
        with os.fdopen(writing, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = json.load(pipe)
    os.waitpid(child, 0)
    assert "returned" in answer, answer["raised"]
    return answer["returned"]


def key_of_package(folder):
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder))
    from mine import network

    return key_of(network.Net(), "net").content


FILES = {  # without __init__.py: a folder is a package as well
    "parts.py": "FACTOR = 2\n\ndef scale(x):\n    return x * FACTOR\n\ndef other(x):\n    return x\n",
    "late.py": "from .parts import scale\n\ndef shift(x):\n    return scale(x) + 1\n\ndef other(x):\n    return x\n",
    "network.py": "from torch import nn\nfrom mine import parts\n\nclass Net(nn.Module):\n    def forward(self, x):\n"
    "        from mine.late import shift\n        return shift(parts.scale(x))\n",
}


@pytest.mark.parametrize(
    ("file", "old", "new", "differs"),
    [
        ("network.py", "shift(parts.scale(x))", "parts.scale(shift(x))", True),
        ("parts.py", "x * FACTOR", "x / FACTOR", True),
        ("parts.py", "FACTOR = 2", "FACTOR = 3", True),
        ("parts.py", "    return x\n", "    return -x\n", False),
        ("late.py", "+ 1", "+ 2", True),
        ("late.py", "    return x\n", "    return -x\n", False),
        ("late.py", "def shift", "# what is imported late\ndef shift", False),
    ],
)
def test_a_package_that_is_edited_between_two_runs(file, old, new, differs, tmp_path):
    (tmp_path / "mine").mkdir()
    for name, text in FILES.items():
        (tmp_path / "mine" / name).write_text(text)
    before = in_new_process(key_of_package, tmp_path)
    assert in_new_process(key_of_package, tmp_path) == before
    assert old in FILES[file]
    (tmp_path / "mine" / file).write_text(FILES[file].replace(old, new))
    assert (in_new_process(key_of_package, tmp_path) != before) == differs


def computed_with(package, folder):
    """Run a study with another copy of gencls; the attacks of the cells that were computed, and the cells of the table."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("gencls", "tests")]:
        del sys.modules[name]
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(package))
    from gencls.eval import FGSM, NES, PGD, Study, ThreatModel, read_study
    from tests.toys import small_cnn

    threat, source, computed = ThreatModel("linf", 0.1), torch.Generator().manual_seed(0), []

    @contextmanager
    def progress(cells):
        yield lambda cell: computed.append(cell.attack)

    study = Study(
        folder,
        defenses={"net": small_cnn()},
        attacks={"pgd": PGD(threat, steps=1), "nes": NES(threat, steps=1, samples=2), "fgsm": FGSM(threat)},
        images=torch.rand(4, 1, 8, 8, generator=source),
        labels=torch.arange(4),
        shard_size=2,
    )
    table = study.run(progress=progress)
    assert read_study(folder)["cells"] == [vars(cell) for cell in study.cells()]
    assert set(table["n"]) == {4}
    return Counter(computed)


def test_a_study_after_edits(tmp_path):
    """In the same folder it computes the cells whose code has changed, and makes its table of the present ones."""
    study(tmp_path / "warm", small_cnn(), fgsm=FGSM(LINF)).run()  # the children need not import what this has imported
    package, folder = tmp_path / "package", tmp_path / "study"
    shutil.copytree(ROOT / "gencls", package / "gencls", ignore=shutil.ignore_patterns("__pycache__", "weights"))
    assert in_new_process(computed_with, package, folder) == {"pgd": 2, "nes": 2, "fgsm": 2}
    for file, old, new, again in (
        ("eval/attacks/pgd.py", "rows.step = rows.step + 1", "rows.step = 1 + rows.step", {"pgd": 2, "nes": 2}),
        ("eval/judge.py", "return 2 * right > made", "return right > made - right", {"pgd": 2, "nes": 2, "fgsm": 2}),
        ("eval/report/page.py", "import json", "import json\n\n_NEW = 1\nimport json", {}),
    ):
        path = package / "gencls" / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        assert in_new_process(computed_with, package, folder) == again
        path.write_text(text)
    assert in_new_process(computed_with, package, folder) == {}


def study(folder, defense, **attacks):
    source = torch.Generator().manual_seed(0)
    return Study(
        folder,
        defenses={"net": defense},
        attacks=attacks or {"fgsm": FGSM(LINF)},
        images=torch.rand(4, 1, 8, 8, generator=source),
        labels=torch.arange(4),
        shard_size=2,
    )


class Counting(nn.Module):
    """Remembers that it was asked."""

    def __init__(self):
        super().__init__()
        self.network = small_cnn()
        self._asked = 0

    def forward(self, images):
        self._asked += 1
        return self.network(images)


def test_a_study_takes_the_key_before_it_asks(tmp_path):
    first = study(tmp_path / "study", Counting().eval())
    assert first.missing() == study(tmp_path / "study", Counting().eval()).missing()


class Own:
    """An attack that is no dataclass."""

    threat = LINF
    uses_gradients = False
    passes = (0, 0)

    def __init__(self, kind):
        self.kind = kind

    def __call__(self, model, images, labels):
        return images


def test_an_attack_of_another_kind(tmp_path):
    first = study(tmp_path / "study", small_cnn(), own=Own(Colour.RED))
    assert first.cells() == study(tmp_path / "study", small_cnn(), own=Own(Colour.RED)).cells()
    with pytest.raises(GenclsError, match="holds another study: attack own has other code, or holds something else"):
        study(tmp_path / "study", small_cnn(), own=Own(Colour.BLUE))


def test_an_edited_network_is_another_study(tmp_path):
    study(tmp_path / "study", small_cnn())
    with pytest.raises(GenclsError, match="holds another study: defense net has other layers"):
        study(tmp_path / "study", nn.Sequential(small_cnn(), nn.Identity()).eval())
