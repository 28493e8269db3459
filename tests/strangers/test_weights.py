"""Weights as people have them: odd names, wrappers and companions load; odd tensors, cards and files are refused by name."""

import argparse
import collections
import itertools
import pathlib
import pickle
import resource
import shutil
import warnings
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gencls.core import GenclsError, seeded
from gencls.zoo.checkpoints.reading import load_state_dict
from gencls.zoo.networks import CifarResNet
from gencls.zoo.networks.abs.published import official_abs, read_official_abs
from gencls.zoo.networks.classifiers.published import (
    akamaster_from_state,
    kuangliu_from_state,
    load_akamaster,
    load_headed_classifier,
    load_kuangliu,
    load_robustbench,
)
from gencls.zoo.networks.nvae.published import load_nvae, load_nvlabs_nvae
from gencls.zoo.networks.stylegan.published import load_e4e, load_style_transformer, load_stylegan2

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network():
    with seeded(0):
        return CifarResNet(width=4, blocks=(1, 1), num_classes=3).eval()


@pytest.fixture(scope="module")
def state(network):
    return dict(network.state_dict())


class AttributeDict(dict):
    """As Lightning has it."""


def _rezipped(path, edit=lambda name, content: content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, edit(name, content))


# --- names, wrappers, companions -------------------------------------------------------------------------------------

NAMES = ["ckpt.t7", "model_best.pth.tar", "W.PTH", "W.PT", "weights.pkl", "weights", "weights.zip", "checkpoint-epoch=3.5"]


@pytest.mark.parametrize(("name", "zipped"), [*((name, True) for name in NAMES), (NAMES[0], False), (NAMES[-1], False)])
def test_the_name_of_a_file_does_not_matter(tmp_path, network, state, name, zipped):
    torch.save({"net": state, "acc": 93.2, "epoch": 1}, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert load_state_dict(tmp_path / name).keys() == state.keys()
    assert torch.equal(load_kuangliu(tmp_path / name, normalized=False)(IMAGES), network(IMAGES))


@pytest.mark.parametrize("name", ["model.bin", "weights.st", "weights"])
def test_safetensors_under_another_name(tmp_path, network, state, name):
    save_file(state, tmp_path / name)
    assert torch.equal(load_kuangliu(tmp_path / name, normalized=False)(IMAGES), network(IMAGES))


@pytest.mark.parametrize("key", ["state_dict", "model", "net", "model_state_dict", "weights", "network", "ema"])
def test_the_weights_lie_under_any_key(tmp_path, state, key):
    torch.save({key: state, "optimizer": {"state": {0: {"step": torch.ones(1)}}, "param_groups": []}}, tmp_path / "a.pt")
    assert load_state_dict(tmp_path / "a.pt").keys() == state.keys()


def test_of_several_networks_one_is_named(tmp_path, state):
    torch.save({"model": state, "model_ema": {"a": torch.ones(1)}}, tmp_path / "a.pt")
    with pytest.raises(GenclsError, match="expected one state dict, or key=NAME that says which; got 'model', 'model_ema'"):
        load_state_dict(tmp_path / "a.pt")
    assert load_state_dict(tmp_path / "a.pt", key="model_ema").keys() == {"a"}
    with pytest.raises(GenclsError, match="expected weights under 'ema'; got 'model', 'model_ema'"):
        load_state_dict(tmp_path / "a.pt", key="ema")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_of_torch_are_taken_off(tmp_path, state, prefix):
    torch.save({f"{prefix}{key}": value for key, value in state.items()}, tmp_path / "a.pt")
    assert load_state_dict(tmp_path / "a.pt").keys() == state.keys()
    load_kuangliu(tmp_path / "a.pt")


def test_a_part_called_module_keeps_its_name(tmp_path):
    torch.save({"module.weight": torch.ones(1), "head.weight": torch.ones(1)}, tmp_path / "a.pt")
    assert load_state_dict(tmp_path / "a.pt").keys() == {"module.weight", "head.weight"}


COMPANIONS = {
    "numpy scalars": lambda: {"epoch": np.int64(3), "best_acc": np.float64(0.93), "ok": np.bool_(True)},
    "numpy arrays": lambda: {"mean": np.ones(3), "names": np.array(["a", "b"])},
    "defaultdict": lambda: {"history": collections.defaultdict(list, {"loss": [1.0]})},
    "OrderedDict": lambda: {"metrics": collections.OrderedDict(acc=0.9)},
    "Counter": lambda: {"seen": collections.Counter("abc")},
    "paths": lambda: {"path": Path("a/b"), "pure": pathlib.PureWindowsPath("C:/a")},
    "Namespace": lambda: {"args": argparse.Namespace(lr=0.1, out=Path("a"))},
    "sets and bytes": lambda: {"sizes": {1, 2}, "digest": b"abc", "size": torch.Size([1, 2])},
}


@pytest.mark.parametrize("companions", COMPANIONS.values(), ids=COMPANIONS)
@pytest.mark.parametrize("zipped", [True, False])
def test_harmless_companions_of_the_weights(tmp_path, state, companions, zipped):
    torch.save({**companions(), "state_dict": state}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert load_state_dict(tmp_path / "a.pt").keys() == state.keys()


def test_hyperparameters_of_lightning(tmp_path, state):
    torch.save({"hyper_parameters": AttributeDict(lr=0.1, path=Path("data")), "state_dict": state}, tmp_path / "last.ckpt")
    assert load_state_dict(tmp_path / "last.ckpt").keys() == state.keys()


def test_paths_of_another_system(tmp_path, state):
    torch.save({"path": Path("a/b"), "state_dict": state}, tmp_path / "a.pt")
    _rezipped(tmp_path / "a.pt", lambda name, content: content.replace(b"\nPosixPath\n", b"\nWindowsPath\n"))
    assert load_state_dict(tmp_path / "a.pt").keys() == state.keys()


class Config:
    """Anything of somebody's own."""


ODD = {
    "of their own": (
        lambda state: {"state_dict": state, "cfg": {"x": [Config()]}},
        r"test_weights.Config.* at \['cfg'\]\['x'\]\[0\]",
    ),
    "in the place of weights": (lambda state: {**state, "conv1.weight": Config()}, r"Config.* at \['conv1.weight'\]"),
    "in a Namespace": (
        lambda state: {"net": state, "args": argparse.Namespace(cfg=Config())},
        r"Config.* at \['args'\]\['cfg'\]",
    ),
    "a whole network": (lambda state: nn.Linear(1, 1), r"torch.nn.modules.linear.Linear.*torch.save\(network.state_dict\(\)"),
    "a function": (lambda state: {"net": state, "f": print}, r"builtins.print\)\. Nothing in it was run"),
}


@pytest.mark.parametrize(("make", "message"), ODD.values(), ids=ODD)
def test_other_objects_are_named_with_their_key(tmp_path, state, make, message):
    torch.save(make(state), tmp_path / "a.pt")
    with pytest.raises(GenclsError, match=f"expected tensors only; got a pickle with code or other objects .*{message}"):
        load_state_dict(tmp_path / "a.pt")


def test_arrays_are_no_weights(tmp_path):
    torch.save({"a": np.ones(3)}, tmp_path / "a.pt")
    with pytest.raises(GenclsError, match="expected tensors by name; got a numpy.*_reconstruct under 'a'.*state_dict"):
        load_state_dict(tmp_path / "a.pt")


def test_files_of_other_programs_are_told_apart(tmp_path, state):
    def refused(name, message):
        with pytest.raises(GenclsError, match=message):
            load_state_dict(tmp_path / name)

    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"a": [1.0]}))
    refused("plain.pkl", "expected a file of torch.save; got another pickle. Nothing in it was run")
    torch.save(state, tmp_path / "new.pt", pickle_protocol=4)
    refused("new.pt", "expected pickle protocol 2, that of torch.save; got 4")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        torch.jit.save(torch.jit.trace(nn.Linear(1, 1), torch.ones(1, 1)), tmp_path / "script.pt")
    refused("script.pt", "expected weights; got a TorchScript archive")
    shutil.make_archive(str(tmp_path / "files"), "tar", tmp_path, "plain.pkl")
    refused("files.tar", "got a tar archive")
    with zipfile.ZipFile(tmp_path / "files.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    refused("files.zip", "expected a file of torch.save, with one data.pkl; got")


# --- precision -------------------------------------------------------------------------------------------------------


def test_weights_in_float64_make_a_float32_network(tmp_path, network, state):
    double = {key: value.double() if value.is_floating_point() else value for key, value in state.items()}
    torch.save(double, tmp_path / "a.pt")
    loaded = load_kuangliu(tmp_path / "a.pt", normalized=False)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded(IMAGES), network(IMAGES))
    assert load_state_dict(tmp_path / "a.pt")["conv1.weight"].dtype == torch.float64
    torch.save({**double, "conv1.weight": double["conv1.weight"] + 1e300}, tmp_path / "a.pt")
    with pytest.raises(GenclsError, match=r"expected conv1.weight of numbers that torch.float32 can hold; got 1e\+300"):
        load_kuangliu(tmp_path / "a.pt")


def test_counters_in_half_precision(network, state):
    half = {key: value.half() for key, value in state.items()}
    assert kuangliu_from_state(half, normalized=False)(IMAGES).dtype == torch.float32


def test_one_tensor_under_many_keys_is_copied_once(tmp_path):
    shared = torch.ones(100, 100)
    torch.save({f"block.{i}": shared for i in range(1000)}, tmp_path / "a.pt")
    assert len({tensor.data_ptr() for tensor in load_state_dict(tmp_path / "a.pt").values()}) == 1
    views = torch.ones(1000)
    torch.save({f"{i}": views[i:] for i in range(500)}, tmp_path / "a.pt")
    with pytest.raises(GenclsError, match="expected tensors that do not overlap; got .* bytes of them in a file of"):
        load_state_dict(tmp_path / "a.pt")


# --- odd tensors through every loader --------------------------------------------------------------------------------

TENSORS = {
    "NaN": (lambda t: t * torch.nan, "finite numbers; got NaN"),
    "Inf": (lambda t: torch.full_like(t, torch.inf), "finite numbers; got Inf"),
    "complex": (lambda t: t.to(torch.complex64), "got torch.complex64"),
    "float8": (lambda t: t.to(torch.float8_e4m3fn), "got torch.float8_e4m3fn"),
    "uint16": (lambda t: t.to(torch.uint16), "got torch.uint16"),
    "sparse": (lambda t: t.to_sparse(), "got (layout torch.sparse_coo|a sparse one)"),
    "quantized": (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), r"got quantized numbers \(torch.qint8\)"),
    "meta": (lambda t: t.to("meta"), r"got shape \(.*\) without values, on the meta device"),
    "of terabytes": (lambda t: torch.zeros(1).expand(2**20, 2**20), "4,398,046,511,104 bytes, expanded from 4 bytes"),
}
WHOLE = {"integer": lambda t: t.long(), "bool": lambda t: t.bool()}

FILES = {
    "load_state_dict": (load_state_dict, "state_dict"),
    "kuangliu": (load_kuangliu, "net"),
    "akamaster": (load_akamaster, "state_dict"),
    "robustbench": (partial(load_robustbench, name="Wong2020Fast"), "last"),
    "mlvgm": (load_headed_classifier, "state_dict"),
    "nvae": (load_nvae, "state_dict_temp=0.6"),
    "nvlabs": (load_nvlabs_nvae, "state_dict"),
    "stylegan2": (load_stylegan2, "g_ema"),
    "e4e": (load_e4e, "state_dict"),
    "style transformer": (load_style_transformer, "state_dict"),
}


ODD_FILES = [
    pytest.param(loader, kind, marks=() if loader == "load_state_dict" or kind in ("NaN", "sparse") else pytest.mark.slow)
    for loader, kind in itertools.product(FILES, TENSORS)
]


@pytest.mark.parametrize(("loader", "kind"), ODD_FILES)
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch says that such tensors are in beta or deprecated
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_reader_refuses_odd_tensors(tmp_path, state, loader, kind):
    load, key = FILES[loader]
    make, message = TENSORS[kind]
    torch.save({key: {**state, "layer1.0.conv1.weight": make(state["layer1.0.conv1.weight"])}}, tmp_path / "a.pt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(GenclsError, match=f"a.pt: expected layer1.0.conv1.weight .*{message}"):
        load(tmp_path / "a.pt")
    if loader != "robustbench":  # whose package is imported first
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 200_000, "kB"


@pytest.mark.parametrize("make", [kuangliu_from_state, akamaster_from_state])
@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_so_does_every_builder(state, make, kind):
    odd, message = TENSORS[kind]
    if make is akamaster_from_state:  # whose shortcuts have no weights
        state = {key: value for key, value in state.items() if "shortcut" not in key}
    with pytest.raises(GenclsError, match=f"CifarResNet checkpoint: expected conv1.weight .*{message}"):
        make({**state, "conv1.weight": odd(state["conv1.weight"])})


@pytest.mark.parametrize("loader", FILES)
def test_every_reader_refuses_negative_variances(tmp_path, state, loader):
    load, key = FILES[loader]
    message = "expected bn1.running_var of variances >= 0; got -0.25"
    odd = {**state, "bn1.running_var": torch.tensor([0.5, 0.0, -0.25, 1.0])}
    torch.save({key: odd}, tmp_path / "a.pt")
    with pytest.raises(GenclsError, match=f"a.pt: {message}"):
        load(tmp_path / "a.pt")
    with pytest.raises(GenclsError, match=f"CifarResNet checkpoint: {message}"):
        kuangliu_from_state(odd)


@pytest.mark.parametrize("kind", WHOLE)
def test_parameters_are_floating_point_numbers(tmp_path, state, kind):
    whole = {**state, "layer1.0.conv1.weight": WHOLE[kind](state["layer1.0.conv1.weight"])}
    with pytest.raises(GenclsError, match="expected layer1.0.conv1.weight of floating point numbers; got torch"):
        kuangliu_from_state(whole)
    stage = {f"VAE_0.Decoder.conv_{i}.weight": torch.ones(2, 2, 1, 1) for i in range(4)}
    stage |= {f"VAE_0.Decoder.conv_{i}.bias": torch.ones(2) for i in range(4)}
    stage |= {
        f"VAE_0.Decoder.bn_{i}.{n}": torch.ones(2) for i in range(3) for n in ("weight", "bias", "running_mean", "running_var")
    }
    official_abs(stage)
    with pytest.raises(GenclsError, match="expected VAE_0.Decoder.bn_1.weight of floating point numbers"):
        official_abs({**stage, "VAE_0.Decoder.bn_1.weight": WHOLE[kind](torch.ones(2))})
    with pytest.raises(GenclsError, match="expected VAE_0.Decoder.bn_1.weight of finite numbers; got NaN"):
        official_abs({**stage, "VAE_0.Decoder.bn_1.weight": torch.full((2,), torch.nan)})
    with pytest.raises(GenclsError, match="expected VAE_0.Decoder.bn_1.running_var of variances >= 0; got -1"):
        official_abs({**stage, "VAE_0.Decoder.bn_1.running_var": -torch.ones(2)})
    for k in range(10):
        torch.save({"a": torch.full((1,), torch.nan)}, tmp_path / f"ABS_{k}.net")
    with pytest.raises(GenclsError, match="ABS_0.net: expected a of finite numbers; got NaN"):
        read_official_abs(tmp_path)


def test_numbered_keys_do_not_ask_for_endless_networks(state):
    for number in ("999999999999", "9" * 6000, "99999"):
        with pytest.raises(GenclsError, match="CifarResNet checkpoint: expected parts with numbers up to"):
            kuangliu_from_state({**state, f"layer1.{number}.conv1.weight": state["conv1.weight"]})


# --- hostile files ---------------------------------------------------------------------------------------------------


def _grown(name, content):
    """A pickle that says of 1,000 numbers that they are 2^30."""
    return content.replace(b"M\xe8\x03", b"J\x00\x00\x00\x40") if name.endswith("data.pkl") else content


def test_bombs_are_not_unpacked(tmp_path):
    def refused(message):
        with pytest.raises(GenclsError, match=message):
            load_state_dict(tmp_path / "a.pt")

    torch.save({"a": torch.zeros(1000)}, tmp_path / "a.pt")
    _rezipped(tmp_path / "a.pt", compression=zipfile.ZIP_DEFLATED)
    refused("expected a file of torch.save, (which compresses nothing|whose records are not compressed); got compressed")
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a.pt")
    _rezipped(tmp_path / "a.pt", _grown)
    refused("cannot be read as one")
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "a.pt").write_bytes(_grown("data.pkl", (tmp_path / "a.pt").read_bytes()))
    refused("cannot be read as one")
    torch.save({"net": {"a": torch.zeros(1)}, "b": bytearray(3)}, tmp_path / "a.pt")
    refused(r"code or other objects \(builtins.bytearray\)")


def test_sparse_tensors_are_refused_before_their_numbers_are_looked_at(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: sparse tensors are in beta
        indices, values = torch.zeros(1, 1, dtype=torch.int64).expand(1, 2**40), torch.ones(1).expand(2**40)
        torch.save({"a": torch.sparse_coo_tensor(indices, values, (4,), check_invariants=False)}, tmp_path / "a.pt")
    with pytest.raises(GenclsError, match="expected a as a dense tensor of ordinary numbers; got a sparse one"):
        load_state_dict(tmp_path / "a.pt")


def test_names_that_no_class_can_have(tmp_path):
    torch.save({"a": torch.ones(1), "path": Path("a")}, tmp_path / "a.pt")
    _rezipped(tmp_path / "a.pt", lambda name, content: content.replace(b"\nPosixPath\n", b"\nPosix\0ath\n"))
    with pytest.raises(GenclsError, match=r"cannot be read as one \(ValueError: a class called"):
        load_state_dict(tmp_path / "a.pt")


def test_a_tensor_does_not_read_beyond_its_record(tmp_path):
    torch.save({"a": torch.zeros(1000), "b": torch.ones(5000)}, tmp_path / "a.pt")
    _rezipped(
        tmp_path / "a.pt",
        lambda name, content: content.replace(b"M\xe8\x03", b"M\xe8\x04") if name.endswith(".pkl") else content,
    )
    with pytest.raises(GenclsError, match="expected a complete file of torch.save"):
        load_state_dict(tmp_path / "a.pt")
