"""All golden vectors: build the network from its config, fill it, load it, compare.

Nothing here knows the files at hand. A network of another folder gets a Family in FAMILIES.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gencls.core import GenclsError
from tests.golden.abs_mnist import ABS_MNIST
from tests.golden.biggan import BIGGAN, FQGAN
from tests.golden.cifar import CIFAR_RESNET_VGG, ROBUSTBENCH_PREACT
from tests.golden.mlvgm_purification import MLVGM_PURIFICATION
from tests.golden.nvae_nvlabs import NVAE_NVLABS
from tests.golden.nvae_serez import NVAE_SEREZ
from tests.golden.stylegan import E4E, STYLE_TRANSFORMER, STYLEGAN2
from tests.golden.vectors import ROOT, entries, folders

FAMILIES = {
    "abs_mnist": ABS_MNIST,
    "biggan": BIGGAN,
    "cifar_resnet_vgg": CIFAR_RESNET_VGG,
    "e4e": E4E,
    "fqgan": FQGAN,
    "mlvgm_purification": MLVGM_PURIFICATION,
    "nvae_nvlabs": NVAE_NVLABS,
    "nvae_serez": NVAE_SEREZ,
    "robustbench_preact": ROBUSTBENCH_PREACT,
    "style_transformer": STYLE_TRANSFORMER,
    "stylegan2": STYLEGAN2,
}

FOLDERS = [folder for folder in folders(ROOT) if folder.name in FAMILIES]
VECTORS = {vectors.name: vectors for folder in FOLDERS for vectors in entries(folder, FAMILIES[folder.name])}
LARGE = 200_000_000  # so many numbers take seconds to be drawn, written, read and used

ARRAYS = [
    pytest.param(name, array, marks=[pytest.mark.slow] if vectors.parameters > LARGE else [])
    for name, vectors in VECTORS.items()
    for array in vectors.names
    if array not in FAMILIES[vectors.folder.name].inputs
]


@cache
def outputs(name: str) -> Mapping[str, Tensor]:
    vectors = VECTORS[name]
    return FAMILIES[vectors.folder.name].outputs(vectors)


@pytest.mark.skipif(not folders(ROOT), reason=f"no golden vectors in {ROOT}; set GENCLS_GOLDEN")
def test_every_entry_has_arrays() -> None:
    assert {row.values[0] for row in ARRAYS} == set(VECTORS)


@pytest.mark.skipif(not folders(ROOT), reason=f"no golden vectors in {ROOT}; set GENCLS_GOLDEN")
def test_folder_without_a_builder() -> None:
    missing = [folder.name for folder in folders(ROOT) if folder.name not in FAMILIES]
    assert not missing, f"no Family in FAMILIES of {Path(__file__).name} for {', '.join(missing)}"


@pytest.mark.parametrize(("name", "array"), ARRAYS, ids=lambda part: part)
def test_array(name: str, array: str) -> None:
    vectors = VECTORS[name]
    family, found = FAMILIES[vectors.folder.name], outputs(name)
    if array not in found:
        reasons = [reason for end, reason in family.left_out.items() if array.endswith(end)]
        pytest.skip(reasons[0] if reasons else "no output of ours has this name")
    expected = vectors.arrays[array]
    torch.testing.assert_close(found[array].to(expected.dtype), expected, rtol=0, atol=family.tolerance(array, expected))


@pytest.mark.parametrize("name", VECTORS)
def test_keys(name: str) -> None:
    """Our loader takes the manifest's keys, names those that it does not use, and tells of missing and unknown ones."""
    vectors = VECTORS[name]
    family, state = FAMILIES[vectors.folder.name], vectors.state
    unused = family.unused(state)
    assert set(unused) < set(state)
    used = [key for key in state if key not in unused]
    family.load({key: state[key] for key in used})
    for key in used[::7]:  # a sample, for time; 7 so that it meets all layers of networks that repeat each other
        if not key.endswith(family.optional):
            with pytest.raises(GenclsError):
                family.load({other: state[other] for other in used if other != key})
    with pytest.raises(GenclsError, match="surplus"):
        family.load({**state, f"{used[0]}.surplus": state[used[0]]})
