"""Reading published checkpoints of StyleGAN2, e4e and the Style Transformer: layouts and bad files."""

from argparse import Namespace
from collections import OrderedDict

import pytest
import torch

from gencls.core import GenclsError, seeded
from gencls.zoo.networks.stylegan.published import load_e4e, load_style_transformer, load_stylegan2
from tests.style_models import LEVELS, MODELS, SIZE, generator

LOADERS = {"e4e": load_e4e, "style_transformer": load_style_transformer}
OPTIONS = {
    "e4e": {"stylegan_size": SIZE, "encoder_type": "Encoder4Editing", "start_from_latent_avg": True, "device": "cuda:0"},
    "style_transformer": {"output_size": SIZE, "learn_in_w": False, "start_from_latent_avg": True},
}


def published(name, model):
    """What its training wrote."""
    wrapped = "module." if name == "style_transformer" else ""
    parts = {"encoder": model.encoder, "decoder": model.generator}
    state = {f"{part}.{wrapped}{key}": value for part, net in parts.items() for key, value in net.state_dict().items()}
    return {
        "state_dict": OrderedDict(state),
        "latent_avg": model.latent_avg.expand(LEVELS, -1).clone(),
        "opts": dict(OPTIONS[name]),
    }


@pytest.fixture(params=LOADERS)
def name(request):
    return request.param


@pytest.fixture
def model(name):
    return MODELS[name]()


@pytest.fixture
def content(name, model):
    return published(name, model)


@pytest.fixture
def load(name, tmp_path):
    def write_and_load(content, **settings):
        torch.save(content, tmp_path / "published.pt")
        return LOADERS[name](tmp_path / "published.pt", **{"image_size": 32, **settings})

    return write_and_load


def same(first, second):
    """Names and values; average codes may be repeated."""
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key].expand_as(theirs[key]), theirs[key]) for key in ours)


def test_the_layout_loads(load, content, model):
    found = load(content, num_levels=LEVELS)
    assert same(model, found)
    assert type(found) is type(model)
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())
    assert found.num_levels == LEVELS


def test_it_autoencodes(load, content, name):
    images = torch.rand(2, 3, 32, 32)
    expected = MODELS[name](**({"canvas": 256} if name == "style_transformer" else {}))  # the canvas is not in the file
    with seeded(0):
        found = load(content).autoencode(images, lambda level, encoded, sampled: encoded + sampled)
    with seeded(0):
        torch.testing.assert_close(found, expected.autoencode(images, lambda level, encoded, sampled: encoded + sampled))


def test_options_may_be_a_namespace_and_the_rest_of_a_training_may_be_there(load, content, model):
    training = {
        "global_step": 200_000,
        "best_val_loss": torch.tensor(0.2),
        "optimizer": torch.optim.Adam([torch.nn.Parameter(torch.ones(2))]).state_dict(),
        "discriminator_state_dict": {"final.bias": torch.ones(1)},
    }
    assert same(model, load({**content, **training, "opts": Namespace(**content["opts"])}))


@pytest.mark.parametrize("shape", [(LEVELS, 64), (1, 64), (64,)])
def test_forms_of_the_average_code(load, content, shape):
    average = torch.randn(shape)
    found = load({**content, "latent_avg": average})
    assert torch.equal(found.latent_avg.expand(LEVELS, -1), average.expand(LEVELS, -1))


def test_a_run_that_did_not_start_from_the_average_code(load, content):
    del content["latent_avg"]
    content["opts"]["start_from_latent_avg"] = False
    assert (load(content).latent_avg == 0).all()


def test_half_precision_becomes_single(load, content):
    content["state_dict"] = {k: v.half() if v.is_floating_point() else v for k, v in content["state_dict"].items()}
    content["latent_avg"] = content["latent_avg"].half()
    assert {tensor.dtype for tensor in load(content).state_dict().values()} <= {torch.float32, torch.int64}


def test_loading_leaves_the_random_state_alone(load, content):
    before = torch.get_rng_state()
    load(content)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_generator_alone(tmp_path):
    network = generator()
    path = tmp_path / "stylegan2.pt"
    other = {key: torch.zeros(1) for key in network.state_dict()}
    torch.save({"g_ema": network.state_dict(), "g": other, "latent_avg": torch.zeros(64), "args": Namespace(size=SIZE)}, path)
    found = load_stylegan2(path, size=SIZE)
    codes = torch.randn(2, LEVELS, 64)
    assert torch.equal(found(codes), network(codes))
    with pytest.raises(GenclsError, match="expected a generator of 32 pixels; got one of 16"):
        load_stylegan2(path, size=32)
    torch.save({"g": network.state_dict()}, path)
    with pytest.raises(GenclsError, match="expected weights under 'g_ema'; got 'g'"):
        load_stylegan2(path)


# --- bad files -------------------------------------------------------------------------------------------------------


def test_no_average_code(load, content):
    del content["latent_avg"]
    with pytest.raises(GenclsError, match=r"published.pt: expected the average code as a tensor under 'latent_avg'; got None"):
        load(content)
    content["latent_avg"] = None
    with pytest.raises(GenclsError, match="expected the average code"):
        load(content)


@pytest.mark.parametrize(
    ("average", "message"),
    [
        (torch.full((LEVELS, 64), torch.nan), "expected latent_avg of finite numbers; got NaN"),
        (torch.zeros(1).expand(2**20, 2**20), "expected latent_avg as a dense tensor .* expanded from 4 bytes"),
    ],
)
def test_average_codes_that_are_none(load, content, average, message):
    with pytest.raises(GenclsError, match=f"published.pt: {message}"):
        load({**content, "latent_avg": average})


def test_options_of_another_type(load, content):
    content["opts"]["start_from_latent_avg"] = torch.ones(2)
    with pytest.raises(GenclsError, match="published.pt: expected opts.start_from_latent_avg as a number; got a Tensor"):
        load(content)


def test_average_code_of_another_generator(load, content):
    with pytest.raises(GenclsError, match=r"expected an average code of shape \(6, 64\).*got \(18, 512\)"):
        load({**content, "latent_avg": torch.zeros(18, 512)})


def test_another_number_of_levels_than_asked_for(load, content):
    with pytest.raises(
        GenclsError, match="published.pt: expected a model of 18 levels; got one of 6, whose generator .* 16 pix"
    ):
        load(content, num_levels=18)


def test_another_size_than_its_options_say(load, content, name):
    content["opts"]["stylegan_size" if name == "e4e" else "output_size"] = 1024
    with pytest.raises(GenclsError, match="expected a generator of 1024 pixels, as its opts say; got one of 16"):
        load(content)


def test_encoder_of_another_number_of_levels(load, content, name):
    state = content["state_dict"]
    if name == "e4e":
        state |= {key.replace("styles.5.", "styles.6."): value for key, value in state.items() if ".styles.5." in key}
    else:  # the published code has 18 queries for any generator
        state["encoder.module.z"] = torch.randn(1, 7, 64)
    with pytest.raises(GenclsError, match="expected an encoder of 6 levels .* got 7 levels"):
        load(content)


def test_one_code_for_all_levels(tmp_path):
    content = published("style_transformer", MODELS["style_transformer"]())
    content["opts"]["learn_in_w"] = True
    torch.save(content, tmp_path / "published.pt")
    with pytest.raises(GenclsError, match="expected a code per level; got a checkpoint of one code for all"):
        load_style_transformer(tmp_path / "published.pt")


def test_missing_keys(load, content):
    key = next(key for key in content["state_dict"] if key.endswith("to_rgbs.1.upsample.kernel"))
    del content["state_dict"][key]
    with pytest.raises(GenclsError, match="StyleGAN2 checkpoint: expected other keys; missing: to_rgbs.1.up.*; surplus: none"):
        load(content)


def test_surplus_keys(load, content):
    first = next(iter(content["state_dict"]))
    content["state_dict"] |= {f"{first}.{i}": torch.ones(1) for i in range(5)}
    with pytest.raises(GenclsError, match=r"Encoder checkpoint: expected other keys; missing: none; surplus: .* and 2 more"):
        load(content)


def test_keys_of_another_part(load, content):
    content["state_dict"]["discriminator.weight"] = torch.ones(1)
    with pytest.raises(GenclsError, match="expected keys encoder. ... and decoder. ... only; got discriminator.weight"):
        load(content)


def test_another_shape(load, content):
    key = next(key for key in content["state_dict"] if key.endswith("body.2.res_layer.5.fc1.weight"))
    content["state_dict"][key] = torch.ones(5, 5)
    with pytest.raises(GenclsError, match=r"expected body.2.res_layer.5.fc1.weight of shape \(2, 32, 1, 1\); got \(5, 5\)"):
        load(content)


def test_another_network(load):
    with pytest.raises(GenclsError, match=r"expected keys encoder. ... and decoder. ... only; got fc.weight"):
        load({"state_dict": {"fc.weight": torch.ones(1)}, "opts": {}})
    with pytest.raises(GenclsError, match=r"expected weights under 'state_dict'; got 'generator'"):
        load({"generator": {}})
    with pytest.raises(GenclsError, match=r"expected weights under 'state_dict'; got none"):
        load([1, 2])


def test_options_of_another_form(load, content):
    with pytest.raises(GenclsError, match="expected options by name under 'opts'; got a list"):
        load({**content, "opts": ["--stylegan_size", 1024]})


def test_an_html_page(name, tmp_path):
    path = tmp_path / "published.pt"
    path.write_text("<!DOCTYPE html><title>Google Drive - Virus scan warning</title>")
    with pytest.raises(GenclsError, match="expected a weights file; got an HTML page"):
        LOADERS[name](path)
    with pytest.raises(GenclsError, match="expected a weights file; got no such file"):
        LOADERS[name](tmp_path / "missing.pt")


class Code:
    def __reduce__(self):
        return print, ("run",)


def test_code_in_a_file_is_not_run(load, content, capsys):
    with pytest.raises(GenclsError, match="expected tensors only; got a pickle with code or other objects"):
        load({**content, "opts": Code()})
    assert capsys.readouterr().out == ""
