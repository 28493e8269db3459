import pytest
import torch

import gencls.zoo.networks
from gencls.core import ClassConditionalGenerator
from gencls.zoo.networks import BigGAN, ClassDecoders, GroupedDecoders, SelfModulatedGenerator
from tests.contracts.tables import check_rows, public_classes
from tests.toys import SigmoidDecoders


def grouped():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GroupedDecoders.from_decoders(ClassDecoders.from_architecture("mnist", num_classes=3).eval())


def modulated():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SelfModulatedGenerator(num_classes=3, latent_dim=5, width=4, image_shape=(1, 28, 28))


def biggan(**layout):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BigGAN(size=32, width=2, num_classes=3, **layout)


GENERATORS = {
    "SigmoidDecoders": SigmoidDecoders,
    "GroupedDecoders": grouped,
    "SelfModulatedGenerator": modulated,
    "BigGAN": lambda: biggan(latent_dim=8, shared_dim=4, attention=[16]),
    "BigGAN,embeddings": lambda: biggan(latent_dim=6, shared_dim=None, hierarchical=False, attention=[]),
}


@pytest.fixture(scope="module", params=GENERATORS)
def model(request):
    return GENERATORS[request.param]().eval()


@pytest.mark.parametrize("name", public_classes(gencls.zoo.networks, ClassConditionalGenerator))
def test_every_generator_is_in_the_table(name):
    where = "GENERATORS in tests/contracts/test_generators.py"
    check_rows([name], GENERATORS, where=where, row='"{name}": a function that makes a tiny one')


def test_sampled_latents_have_the_declared_shapes(model):
    latents = model.sample_latents(5)
    assert [level.shape for level in latents] == [(5, *shape) for shape in model.latent_shapes]


def test_images_are_in_range(model):
    latents = tuple(10 * level for level in model.sample_latents(12))
    images = model(latents, torch.arange(12) % model.num_classes)
    assert images.ndim == 4
    assert len(images) == 12
    assert images.min() >= 0
    assert images.max() <= 1


def test_decode_all_agrees_with_forward(model):
    classes = model.num_classes
    flat = model.sample_latents(5 * classes)
    together = model.decode_all(tuple(level.unflatten(0, (5, classes)) for level in flat))
    labels = torch.arange(classes).repeat(5)
    torch.testing.assert_close(together.flatten(0, 1), model(flat, labels), rtol=0, atol=1e-5)
    order = torch.randperm(5 * classes)
    shuffled = model(tuple(level[order] for level in flat), labels[order])
    torch.testing.assert_close(shuffled, together.flatten(0, 1)[order], rtol=0, atol=1e-5)


def test_forward_with_one_class_only(model):
    latents = model.sample_latents(3)
    for k in range(model.num_classes):
        images = model(latents, torch.full((3,), k))
        for i in range(3):
            one = model(tuple(level[i : i + 1] for level in latents), torch.tensor([k]))
            torch.testing.assert_close(images[i : i + 1], one, rtol=0, atol=1e-5)


def test_log_prior_is_that_of_the_samples(model):
    """A density up to a constant: differences are those of the standard normal."""
    latents = model.sample_latents(6)
    found = model.log_prior(latents)
    assert found.shape == (6,)
    normal = torch.distributions.Normal(0.0, 1.0)
    expected = sum(normal.log_prob(level).flatten(1).sum(1) for level in latents)
    torch.testing.assert_close(found - found[0], expected - expected[0], rtol=1e-5, atol=1e-5)


def test_differentiable_in_the_latents(model):
    latents = tuple(level.requires_grad_() for level in model.sample_latents(2 * model.num_classes))
    images = model.decode_all(tuple(level.unflatten(0, (2, -1)) for level in latents))
    for gradient in torch.autograd.grad(images.square().sum(), latents):
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0
