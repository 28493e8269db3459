"""What else the golden folders say of purification: schedules of alpha, and the layout of every classifier."""

import json

import numpy as np
import pytest
import torch

from gencls.defenses import alpha_schedule
from gencls.zoo.networks import HeadedClassifier
from tests.golden.vectors import ROOT

ALPHAS = [path for path in sorted(ROOT.glob("*/*purify*.npz")) if "alphas" in np.load(path)]
MANIFESTS = sorted((ROOT / "mlvgm_purification").glob("manifest*.json"))


def identify(path):
    return f"{path.parent.name}/{path.name}"


@pytest.mark.parametrize("path", ALPHAS, ids=identify)
def test_schedule(path):
    """The files of all three generators have the cosine."""
    expected = np.load(path)["alphas"]
    np.testing.assert_allclose(alpha_schedule("cosine", len(expected)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("path", MANIFESTS, ids=identify)
def test_layout(path):
    """Key by key, without weights: the matrix of vgg11_bn's head alone has 2.5 GB."""
    manifest = json.loads(path.read_text())
    shapes = {key: tuple(shape) for key, shape, _ in manifest}
    part = "classifier" if "model.classifier.3.weight" in shapes else "fc"
    num_classes, hidden = shapes[f"model.{part}.3.weight"]
    backbone = {"resnet50": "resnet50", "resnext50": "resnext50_32x4d", "vgg11bn": "vgg11_bn"}[path.stem.split("_")[1]]
    with torch.device("meta"):
        network = HeadedClassifier(backbone, num_classes, hidden=hidden)
        default = HeadedClassifier(backbone, num_classes)
    ours = [(key, tuple(tensor.shape), str(tensor.dtype)) for key, tensor in network.state_dict().items()]
    assert ours == [(key, tuple(shape), f"torch.{dtype}") for key, shape, dtype in manifest]
    assert [tensor.shape for tensor in default.state_dict().values()] == [shape for _, shape, _ in ours]
