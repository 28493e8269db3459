"""Two different models have two keys, equal ones have one, in every process."""

import copy
import json
import os
import pickle
import random
import subprocess
import sys
import threading
from pathlib import Path
from random import random as from_python

import numpy
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from gencls.core import GenclsError, fingerprint, frozen, key_of, keyed
from tests.contracts.defenses import DEFENSES
from tests.strangers.key_pairs import all_pairs
from tests.strangers.key_parts import Holder, Late, linear, shifted
from tests.strangers.key_text import HARMLESS, TEXT, edited, written
from tests.toys import small_cnn

ROOT = Path(__file__).parents[2]
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
