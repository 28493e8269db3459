"""All manifests of NVAE, also of networks that are too large to fill: keys and shapes, on the meta device."""

import json

import pytest
import torch

from gencls.core import GenclsError
from tests.golden.nvae_serez import NVAE_SEREZ
from tests.golden.vectors import ROOT

LOADERS = {"nvae_serez": NVAE_SEREZ.load}
MANIFESTS = [path for folder in LOADERS for path in sorted((ROOT / folder).glob("manifest*.json"))]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_manifest(path):
    load = LOADERS[path.parent.name]
    manifest = json.loads(path.read_text())
    state = {key: torch.empty(shape, dtype=getattr(torch, dtype), device="meta") for key, shape, dtype in manifest}
    network = load(state)
    assert {key: value.dtype for key, value in network.state_dict().items()} == {k: v.dtype for k, v in state.items()}
    for key in (manifest[0][0], manifest[len(manifest) // 2][0], manifest[-1][0]):
        with pytest.raises(GenclsError):
            load({other: value for other, value in state.items() if other != key})
