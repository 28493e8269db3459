"""The classifiers of the MLVGM paper, beside torchvision's own networks."""

import re

import pytest
import torch
from torch import nn
from torchvision import models

from gencls.core import GenclsError
from gencls.zoo.networks import HeadedClassifier
from gencls.zoo.networks.classifiers.headed_classifier import BACKBONES
from gencls.zoo.networks.classifiers.published import headed_classifier_from_state, load_headed_classifier


@pytest.fixture(scope="module", params=BACKBONES)
def network(request):
    torch.manual_seed(0)
    made = HeadedClassifier(request.param, 7, hidden=16)
    for part in made.modules():  # statistics that matter
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    return request.param, made.eval()


def test_it_is_torchvisions_network_with_another_head(network):
    backbone, classifier = network
    plain = getattr(models, backbone)(weights=None).eval()
    part = BACKBONES[backbone]
    body = {key: value for key, value in classifier.model.state_dict().items() if not key.startswith(f"{part}.")}
    plain.load_state_dict(body, strict=False)
    setattr(plain, part, nn.Identity())
    images = torch.rand(2, 3, 48, 48)
    features = plain(2 * images - 1)
    linear, norm, _, last = getattr(classifier.model, part)
    hidden = (features @ linear.weight.T - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    expected = (hidden * norm.weight + norm.bias).relu() @ last.weight.T + last.bias
    torch.testing.assert_close(classifier(images), expected, rtol=1e-4, atol=1e-5)


def test_the_loader_finds_out_what_it_is(network, tmp_path):
    backbone, classifier = network
    path = tmp_path / "classifier.pt"
    torch.save({"state_dict": classifier.state_dict()}, path)
    found = load_headed_classifier(path)
    assert (found.num_classes, found.training) == (7, False)
    images = torch.rand(2, 3, 40, 56)
    assert torch.equal(found(images), classifier(images))
    assert not any(parameter.requires_grad for parameter in found.parameters())


def without(key):
    return lambda state: {other: value for other, value in state.items() if other != key}


def with_(key, value):
    return lambda state: {**state, key: value}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {}, "expected model.layer1.0.conv2.weight of rank 4; got no keys"),
        (without("model.{part}.3.weight"), "expected model.{part}.3.weight of rank 2; got keys model."),
        (without("model.{part}.1.running_var"), "other keys; missing: model.{part}.1.running_var; surplus: none"),
        (with_("model.extra", torch.zeros(1)), "other keys; missing: none; surplus: model.extra"),
        (with_("model.{part}.1.bias", torch.zeros(3)), "expected model.{part}.1.bias of shape (16,); got (3,)"),
        (with_("model.{part}.1.bias", torch.zeros(16, dtype=torch.int64)), "expected model.{part}.1.bias of floating point"),
    ],
)
def test_states_that_do_not_fit(network, change, message):
    backbone, classifier = network
    names = {"backbone": backbone, "part": BACKBONES[backbone]}
    generic = {key.replace(f".{names['part']}.", ".{part}."): value for key, value in classifier.state_dict().items()}
    state = {key.replace("{part}", names["part"]): value for key, value in change(generic).items()}
    with pytest.raises(GenclsError, match=re.escape(message.format(**names))):
        headed_classifier_from_state(state)


@pytest.mark.parametrize(("backbone", "settings"), [("resnet18", {}), ("resnet50", {"hidden": 0})])
def test_networks_that_do_not_exist(backbone, settings):
    with pytest.raises(GenclsError, match="expected a backbone among resnet50, vgg11_bn, resnext50_32x4d"):
        HeadedClassifier(backbone, 2, **settings)
