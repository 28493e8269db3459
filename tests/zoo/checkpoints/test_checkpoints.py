import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gencls.core import GenclsError
from gencls.zoo.checkpoints.cards import Card, card_path, read_card
from gencls.zoo.checkpoints.checkpoint import load_checkpoint, restore, save_checkpoint, verify_checkpoint
from gencls.zoo.checkpoints.reading import load_state_dict


class Small(nn.Sequential):
    def __init__(self, features: int, *, classes: int = 3) -> None:
        super().__init__(nn.Linear(features, classes), nn.BatchNorm1d(classes))


CARD = Card(
    name="small",
    architecture="Small",
    arguments={"features": 4},
    what="a small network",
    trained_on="nothing",
    command="gencls train small",
    metrics={"accuracy": 0.5},
    licence="Apache-2.0",
    seed=0,
)


@pytest.fixture
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Small(4)


@pytest.fixture
def saved(network: nn.Module, tmp_path: Path) -> Path:
    save_checkpoint(network, tmp_path / "small.safetensors", CARD)
    return tmp_path / "small.safetensors"


class Code:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


# --- files of our own ------------------------------------------------------------------------------------------------


def test_full_precision_round_trip_is_exact(network: nn.Module, saved: Path) -> None:
    state, card = load_checkpoint(saved)

    torch.testing.assert_close(state, dict(network.state_dict()), rtol=0, atol=0)
    assert card == replace(CARD, size=saved.stat().st_size, sha256=card.sha256)
    assert verify_checkpoint(saved) == read_card(saved) == card


def test_half_precision_on_disk_comes_back_as_float32(network: nn.Module, tmp_path: Path) -> None:
    full, half = tmp_path / "full.safetensors", tmp_path / "deep" / "half.safetensors"
    save_checkpoint(network, full, CARD)
    save_checkpoint(network, half, CARD, half=True)

    state, _ = load_checkpoint(half)

    assert half.stat().st_size < full.stat().st_size
    for key, value in network.state_dict().items():
        assert state[key].dtype == value.dtype
        expected = value.half().float() if value.is_floating_point() else value
        assert torch.equal(state[key], expected)


def test_the_same_weights_give_the_same_bytes(network: nn.Module, saved: Path, tmp_path: Path) -> None:
    again = save_checkpoint(network, tmp_path / "again.safetensors", CARD)

    assert again.sha256 == read_card(saved).sha256
    assert not list(tmp_path.glob("*.part"))


def test_the_card_is_readable_json(saved: Path) -> None:
    values = json.loads(card_path(saved).read_text())

    assert values["name"] == "small"
    assert values["torch_version"] == torch.__version__
    assert len(values["sha256"]) == 64


def test_saving_refuses_what_cannot_be_stored(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(GenclsError, match=r"ends with \.safetensors; got small\.pt"):
        save_checkpoint(network, tmp_path / "small.pt", CARD)
    with pytest.raises(GenclsError, match="expected a card of JSON values"):
        save_checkpoint(network, tmp_path / "a.safetensors", replace(CARD, metrics={"accuracy": torch.ones(1)}))
    network.get_parameter("0.bias").data[0] = 1e6
    with pytest.raises(GenclsError, match=r"0\.bias has values that are not finite in half precision"):
        save_checkpoint(network, tmp_path / "a.safetensors", CARD, half=True)
    network.get_parameter("0.bias").data[0] = torch.nan
    with pytest.raises(GenclsError, match=r"0\.bias has values that are not finite$"):
        save_checkpoint(network, tmp_path / "a.safetensors", CARD)
    assert not list(tmp_path.iterdir())


def test_a_card_checks_its_types() -> None:
    with pytest.raises(GenclsError, match="expected seed as int; got '0'"):
        replace(CARD, seed="0")  # type: ignore[arg-type]


def test_wrong_hash(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)

    with pytest.raises(GenclsError, match=rf"expected SHA-256 {read_card(saved).sha256}, as its card says; got [0-9a-f]+$"):
        verify_checkpoint(saved)


def test_truncated_file_with_a_card(saved: Path) -> None:
    size = saved.stat().st_size
    saved.write_bytes(saved.read_bytes()[:-10])

    with pytest.raises(GenclsError, match=f"is truncated: expected {size} bytes, as its card says; got {size - 10}"):
        load_checkpoint(saved)


def test_missing_files(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(GenclsError, match="expected a weights file; got no such file"):
        load_checkpoint(tmp_path / "other.safetensors")
    card_path(saved).unlink()
    with pytest.raises(GenclsError, match=r"expected its card small\.json beside it; got no such file"):
        load_checkpoint(saved)


def test_a_checkpoint_is_a_safetensors_file(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "small.pt")

    with pytest.raises(GenclsError, match=r"expected a \.safetensors file with a card; got \.pt"):
        load_checkpoint(tmp_path / "small.pt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a JSON card; got something else"),
        ("[]", "expected the fields of a card; missing: architecture, arguments, .*; unknown: none"),
        ('{"name": "a", "colour": "red"}', "missing: architecture, .*; unknown: colour"),
    ],
)
def test_damaged_cards(saved: Path, text: str, message: str) -> None:
    card_path(saved).write_text(text)

    with pytest.raises(GenclsError, match=message):
        load_checkpoint(saved)


# --- networks --------------------------------------------------------------------------------------------------------


def test_restore_builds_the_network_of_the_card(network: nn.Module, saved: Path) -> None:
    before = torch.get_rng_state()
    restored, card = restore(saved, {"Small": Small})

    assert torch.equal(torch.get_rng_state(), before)
    assert card.name == "small"
    assert not restored.training
    assert not any(parameter.requires_grad for parameter in restored.parameters())
    images = torch.rand(5, 4)
    torch.testing.assert_close(restored(images), network.eval()(images), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architecture": "Smal"},
            "a.safetensors: did you mean 'Small'. expected a network that gencls knows; its card says 'Smal'. "
            "A new one is known by its row in gencls/zoo/rows.py",
        ),
        ({"arguments": {"features": 4, "depth": 2}}, "expected the arguments of Small.*unexpected keyword argument 'depth'"),
        ({"arguments": {}}, "expected the arguments of Small.*missing a required argument: 'features'"),
        ({"arguments": {"features": 5}}, r"got others: expected 0.weight of shape \(3, 5\); got \(3, 4\)"),
    ],
)
def test_cards_that_describe_another_network(network: nn.Module, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    save_checkpoint(network, tmp_path / "a.safetensors", replace(CARD, **changes))

    with pytest.raises(GenclsError, match=f"(?s){message}"):
        restore(tmp_path / "a.safetensors", {"Small": Small})


# --- files of others -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".net"])
@pytest.mark.parametrize("zipped", [False, True])
def test_files_of_torch_save(network: nn.Module, tmp_path: Path, suffix: str, zipped: bool) -> None:
    path = tmp_path / f"a{suffix}"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=zipped)

    torch.testing.assert_close(load_state_dict(path), dict(network.state_dict()), rtol=0, atol=0)


def test_a_state_dict_is_taken_out_of_its_surroundings(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {"a": torch.ones(2).half()}}, tmp_path / "a.pt")

    state = load_state_dict(tmp_path / "a.pt")

    assert list(state) == ["a"]
    assert state["a"].dtype == torch.float32


def test_safetensors_without_a_card(saved: Path) -> None:
    card_path(saved).unlink()
    assert set(load_state_dict(saved)) >= {"0.weight", "0.bias"}

    size = saved.stat().st_size
    saved.write_bytes(saved.read_bytes()[:-10])
    with pytest.raises(GenclsError, match=f"expected a complete safetensors file; got {size - 10} bytes"):
        load_state_dict(saved)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("start", [b"<!DOCTYPE html><html>", b"\xef\xbb\xbf\n <html lang=en>", b"<!-- saved --><html>"])
def test_an_html_page_is_recognised(tmp_path: Path, suffix: str, start: bytes) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(start + b"<body>Sign in</body></html>")

    for read in (load_state_dict, load_checkpoint):
        with pytest.raises(GenclsError, match=f"expected a weights file; got an HTML page of {len(start) + 27} bytes"):
            read(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_in_a_pickle_is_not_run(tmp_path: Path, protocol: int) -> None:
    path, trace = tmp_path / "weights.pt", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"weight": Code(trace)}, protocol=protocol))

    with pytest.raises(GenclsError):
        load_state_dict(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())["weight"].close()
    assert trace.exists(), "the pickle was harmless, so this test showed nothing"


def test_code_in_a_file_of_torch_save_is_named(tmp_path: Path) -> None:
    path, trace = tmp_path / "weights.pt", tmp_path / "trace"
    torch.save({"weight": Code(trace)}, path)

    message = r"expected tensors only; got a pickle with code or other objects \((_?io\.open|open)\)\. Nothing in it was run"
    with pytest.raises(GenclsError, match=message):
        load_state_dict(path)
    assert not trace.exists()


def test_a_pickled_module_is_refused(network: nn.Module, tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")

    with pytest.raises(GenclsError, match=r"pickle with code or other objects \(torch\.nn\.modules\.linear\.Linear\)"):
        load_state_dict(tmp_path / "module.pt")


@pytest.mark.parametrize("zipped", [False, True])
def test_truncated_files_of_torch_save(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(1000)}, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])

    with pytest.raises(GenclsError, match=f"expected a complete file of torch.save; got {len(content) // 2} bytes"):
        load_state_dict(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pt", b"", "expected a weights file; got an empty file"),
        ("a.pt", b"hello world" * 100, "expected a complete file of torch.save; got 1100 bytes"),
        ("a.pt", b"version https://git-lfs.github.com/spec/v1\n", "got a Git LFS pointer"),
        ("a.zip", b"PK", "expected a complete file of torch.save; got 2 bytes"),
        ("a", b"PK", "expected a complete file of torch.save; got 2 bytes"),
    ],
)
def test_other_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(GenclsError, match=message):
        load_state_dict(tmp_path / name)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([torch.ones(1)], "expected tensors by name; got a list"),
        ({"state_dict": [{"a": torch.ones(1)}]}, "expected tensors by name; got a list under 'state_dict'"),
        ({"a": torch.ones(1), "epoch": 3}, "expected tensors by name; got an int under 'epoch'"),
    ],
)
def test_other_values(tmp_path: Path, value: Any, message: str) -> None:
    torch.save(value, tmp_path / "a.pt")

    with pytest.raises(GenclsError, match=message):
        load_state_dict(tmp_path / "a.pt")
