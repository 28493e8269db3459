"""All manifests of StyleGAN2 and its encoders, also those without arrays: keys and shapes, on the meta device."""

import json

import pytest
import torch

from gencls.core import GenclsError
from gencls.zoo.checkpoints import published
from tests.golden.stylegan import E4E, STYLE_TRANSFORMER, STYLEGAN2
from tests.golden.vectors import ROOT

FAMILIES = {"e4e": E4E, "style_transformer": STYLE_TRANSFORMER, "stylegan2": STYLEGAN2}
MANIFESTS = [path for folder in FAMILIES for path in sorted((ROOT / folder).glob("manifest*.json"))]


@pytest.fixture(autouse=True)
def _without_values(monkeypatch):
    """The tensors of a manifest have shapes only, which weights must not."""
    monkeypatch.setattr(published, "check_state", lambda *args, **settings: None)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_manifest(path):
    load = FAMILIES[path.parent.name].load
    state = {
        key: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for key, shape, dtype in json.loads(path.read_text())
    }
    networks = load(state)
    networks = networks if isinstance(networks, tuple) else (networks,)
    ours = [tensor for network in networks for tensor in network.state_dict().values()]
    assert sorted((tuple(t.shape), str(t.dtype)) for t in ours) == sorted(
        (tuple(t.shape), str(t.dtype)) for t in state.values()
    )
    keys = list(state)
    for key in (keys[0], keys[len(keys) // 2], keys[-1]):
        with pytest.raises(GenclsError):
            load({other: value for other, value in state.items() if other != key})
        with pytest.raises(GenclsError):
            load({**state, key: torch.empty(1, 1, 7, 1, 1, 1, device="meta")})
