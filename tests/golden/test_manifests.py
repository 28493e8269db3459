"""Manifests of NVAE, BigGAN and classifiers, also of networks too large to fill: keys and shapes, on the meta device."""

import json

import pytest
import torch

from gencls.core import GenclsError
from gencls.zoo.checkpoints import published
from tests.golden.biggan import BIGGAN, FQGAN
from tests.golden.cifar import CIFAR_RESNET_VGG, ROBUSTBENCH_PREACT
from tests.golden.nvae_nvlabs import NVAE_NVLABS
from tests.golden.nvae_serez import NVAE_SEREZ
from tests.golden.vectors import ROOT

FAMILIES = {
    "biggan": BIGGAN,
    "cifar_resnet_vgg": CIFAR_RESNET_VGG,
    "fqgan": FQGAN,
    "nvae_nvlabs": NVAE_NVLABS,
    "nvae_serez": NVAE_SEREZ,
    "robustbench_preact": ROBUSTBENCH_PREACT,
}
QUICK = ("biggan", "fqgan")
MANIFESTS = [
    pytest.param(path, marks=[] if folder in QUICK else [pytest.mark.slow], id=f"{folder}/{path.name}")
    for folder in FAMILIES
    for path in sorted((ROOT / folder).glob("manifest*.json"))
]


@pytest.fixture(autouse=True)
def _without_values(monkeypatch):
    """The tensors of a manifest have shapes only, which weights must not."""
    monkeypatch.setattr(published, "check_state", lambda *args, **settings: None)


@pytest.mark.parametrize("path", MANIFESTS)
def test_manifest(path):
    family = FAMILIES[path.parent.name]
    manifest = json.loads(path.read_text())
    state = {key: torch.empty(shape, dtype=getattr(torch, dtype), device="meta") for key, shape, dtype in manifest}
    network = family.load(state)
    assert {key: value.dtype for key, value in network.state_dict().items()} == {
        key: value.dtype for key, value in state.items() if key not in family.unused(state)
    }
    needed = [key for key in state if not key.endswith(family.optional)]
    for key in (needed[0], needed[len(needed) // 2], needed[-1]):
        with pytest.raises(GenclsError):
            family.load({other: value for other, value in state.items() if other != key})
