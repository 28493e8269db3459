"""All manifests of NVAE, also of networks that are too large to fill: keys and shapes, on the meta device."""

import json

import pytest
import torch

from gencls.core import GenclsError
from tests.golden.nvae_nvlabs import NVAE_NVLABS
from tests.golden.nvae_serez import NVAE_SEREZ
from tests.golden.vectors import ROOT

FAMILIES = {"nvae_nvlabs": NVAE_NVLABS, "nvae_serez": NVAE_SEREZ}
MANIFESTS = [path for folder in FAMILIES for path in sorted((ROOT / folder).glob("manifest*.json"))]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_manifest(path):
    family = FAMILIES[path.parent.name]
    manifest = json.loads(path.read_text())
    state = {key: torch.empty(shape, dtype=getattr(torch, dtype), device="meta") for key, shape, dtype in manifest}
    network = family.load(state)
    assert {key: value.dtype for key, value in network.state_dict().items()} == {
        key: value.dtype for key, value in state.items() if key not in family.unused(state)
    }
    for key in (manifest[0][0], manifest[len(manifest) // 2][0], manifest[-1][0]):
        with pytest.raises(GenclsError):
            family.load({other: value for other, value in state.items() if other != key})
