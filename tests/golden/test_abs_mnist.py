"""The official ABS checkpoint layout against outputs of the original code."""

import importlib.util
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gencls.zoo.networks import GroupedDecoders, official_abs_decoders

ROOT = Path(os.environ.get("GENCLS_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
FOLDER = ROOT / "abs_mnist"

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"no golden vectors of abs_mnist in {ROOT}; name their folder in GENCLS_GOLDEN"
)


@cache
def filled(index: int) -> tuple[GroupedDecoders, dict[str, Any]]:
    """The decoders with the weights that the golden file was made with, and the file's arrays."""
    entry = json.loads((FOLDER / "index.json").read_text())[index]
    spec = importlib.util.spec_from_file_location("golden_fill", ROOT / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    manifest = json.loads((FOLDER / entry["manifest"]).read_text())
    state = {key: torch.zeros(shape, dtype=getattr(torch, dtype)) for key, shape, dtype in manifest if ".Decoder." in key}
    fill.fill_(state, entry["seed"], entry["gain"])
    with np.load(FOLDER / entry["file"]) as arrays:
        return official_abs_decoders(state), dict(arrays)


def assert_close(found: Tensor, expected: Any) -> None:
    expected = torch.from_numpy(expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize("index", [0, 1])
def test_decoder_outputs(index: int) -> None:
    decoders, golden = filled(index)
    third = torch.tensor([3])
    mean = torch.from_numpy(golden["vae3.encoder_out"][:1, :8])
    assert_close(decoders((mean,), third), golden["vae3.decode_of_mu"])
    start = torch.from_numpy(golden["start_latents"][:1])
    assert_close(decoders((start,), third).logit(), golden["vae3.decoder_logits_start0"])


@pytest.mark.parametrize("index", [0, 1])
def test_reconstructions_of_all_classes_and_their_scores(index: int) -> None:
    decoders, golden = filled(index)
    latents = torch.from_numpy(golden["base.latents"])
    images = decoders.decode_all((latents,))
    assert_close(images[:1], golden["base.reconstructions"])
    error = (torch.from_numpy(golden["image"])[:, None] - images).square().flatten(2).sum(2)
    prior = decoders.log_prior((latents.flatten(0, 1),)).unflatten(0, error.shape)
    assert_close((error - prior) / 784, golden["base.elbo"])
