"""Other vectors of the same form run without a change to the tests, and wrong ones are found."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gencls.zoo import load_data
from tests.golden import abs_oracle
from tests.golden.vectors import ROOT

MANIFESTS = {
    "manifest.json": abs_oracle.manifest(8, (32, 32, 64), (32, 16, 16)),
    "narrow.json": abs_oracle.manifest(5, (4, 6, 7), (9, 5, 3)),
}
ENTRIES = [
    {
        "file": "clipped.npz",
        "manifest": "manifest.json",
        "seed": 3,
        "gain": 1.5,
        "config": {"n_samples": 20, "n_iter": 6, "clip": 1.1, "lr": 0.1, "beta": 0.5},
    },
    {
        "file": "narrow.npz",
        "manifest": "narrow.json",
        "seed": 21,
        "config": {"n_samples": 33, "n_iter": 1, "clip": 5.0, "lr": 0.02, "beta": 2},
    },
]
WRONG = {"base.logits": 2e-5, "binary.start_latent_best": 2e-3, "vae7.decode_of_mu": 2e-4}  # twice the tolerance


def write(root: Path) -> None:
    """The folder abs_mnist with the entries, one of them a second time with errors, and a folder of something else."""
    folder = root / "abs_mnist"
    images = load_data("mnist-embedded", "test", limit=2).images
    abs_oracle.write(folder, ENTRIES, MANIFESTS, images, numbers=[7, 0])
    with np.load(folder / ENTRIES[0]["file"]) as arrays:
        np.savez(folder / "wrong.npz", **{name: arrays[name] + WRONG.get(name, 0) for name in arrays})
    (folder / "index.json").write_text(json.dumps([*ENTRIES, {**ENTRIES[0], "file": "wrong.npz"}]))
    (root / "another_network").mkdir()
    (root / "another_network" / "index.json").write_text("[]")


@pytest.mark.slow
def test_they_run_without_a_change_and_errors_are_found(tmp_path: Path) -> None:
    if not (ROOT / "fill.py").is_file():
        pytest.skip(f"no fill.py in {ROOT}; set GENCLS_GOLDEN")
    shutil.copy(ROOT / "fill.py", tmp_path)
    write(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", Path(__file__).with_name("test_vectors.py"), "-rA", "-p", "no:cacheprovider"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "GENCLS_GOLDEN": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    found = re.findall(r"^(PASSED|FAILED|ERROR) \S+?::(\S+)", done.stdout, flags=re.MULTILINE)
    passed = {name for outcome, name in found if outcome == "PASSED"}
    failed = {name for outcome, name in found if outcome != "PASSED"}
    assert failed == {"test_folder_without_a_builder", *(f"test_array[abs_mnist/wrong.npz-{name}]" for name in WRONG)}
    assert "no Family in FAMILIES of test_vectors.py for another_network" in done.stdout
    for entry in ENTRIES:
        with np.load(tmp_path / "abs_mnist" / entry["file"]) as arrays:
            compared = [name for name in arrays if name not in ("image", "start_latents") and not name.endswith("encoder_out")]
        assert {f"test_array[abs_mnist/{entry['file']}-{name}]" for name in compared} <= passed
        assert f"test_keys[abs_mnist/{entry['file']}]" in passed
