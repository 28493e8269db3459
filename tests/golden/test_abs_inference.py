"""The published ABS code on fixed weights, against our engine; vectors of the folder named by GENCLS_GOLDEN."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from gencls.defenses import ABS
from gencls.zoo.networks import official_abs_decoders

FOLDER = Path(os.environ.get("GENCLS_GOLDEN") or Path(__file__).parents[3] / "shared" / "golden") / "abs_mnist"
PIXELS = 784  # the published code divides its scores by it

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no golden vectors at {FOLDER}; set GENCLS_GOLDEN")


def filled_weights(seed, gain):
    spec = importlib.util.spec_from_file_location("golden_fill", FOLDER.parent / "fill.py")
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    assert fill.self_check()
    rows = json.loads((FOLDER / "manifest.json").read_text())
    return fill.fill_({key: torch.zeros(shape, dtype=getattr(torch, dtype)) for key, shape, dtype in rows}, seed, gain)


@pytest.fixture(params=["golden", "golden_clip"])
def golden(request):
    with np.load(FOLDER / f"{request.param}.npz") as arrays:
        return {"name": request.param} | {key: torch.from_numpy(arrays[key]) for key in arrays}


@pytest.fixture
def defense(golden):
    state = filled_weights(int(golden["seed"]), float(golden["gain"]))
    decoders = official_abs_decoders({key: value for key, value in state.items() if ".Decoder." in key})
    steps = int(golden["n_iter"]) - 1  # n_iter counts evaluations of the bound; the last one is not followed by a step
    model = ABS(decoders, starts=int(golden["n_samples"]), steps=steps, lr=0.05, radius=float(golden["clip"]))
    model.load_state_dict({**model.state_dict(), "start.codes": golden["start_latents"]})
    return model.eval()


def test_decoder(golden, defense):
    image = defense.generator((golden["start_latents"][:1],), torch.tensor([3]))
    torch.testing.assert_close(image.logit(), golden["vae3.decoder_logits_start0"], rtol=1e-4, atol=1e-4)


def test_best_starts(golden, defense):
    (best,) = defense.start(golden["image"])
    assert torch.equal(best, golden["base.start_latent_best"])
    defense.steps = 0
    torch.testing.assert_close(-defense(golden["image"]) / PIXELS, golden["base.start_elbo_min"], rtol=0, atol=1e-5)


def test_scores(golden, defense):
    if golden["name"] == "golden_clip":
        pytest.skip("the published code loses the signs of latents that it clips; ours keeps them")
    scores = defense(golden["image"]) / PIXELS
    torch.testing.assert_close(scores, golden["base.logits"], rtol=0, atol=1e-5)
    assert torch.equal(scores.argmax(1), golden["base.logits"].argmax(1))


def test_latents_and_reconstructions(golden, defense):
    if golden["name"] == "golden_clip":
        pytest.skip("the published code loses the signs of latents that it clips; ours keeps them")
    (latents,) = defense.infer(golden["image"])
    torch.testing.assert_close(latents, golden["base.latents"], rtol=0, atol=1e-3)  # Adam amplifies rounding
    images = defense.reconstruct(golden["image"])[:1]
    torch.testing.assert_close(images, golden["base.reconstructions"], rtol=0, atol=1e-3)
